# SPDX-License-Identifier: Apache-2.0
"""`python -m lerobot_policy_so101 POLICY --out FOLDER`: make a policy of LeRobot of a stored one."""

import argparse
from pathlib import Path
import sys

from lerobot_policy_so101.configuration_so101 import SO101Config
from lerobot_policy_so101.modeling_so101 import SO101Policy
from lerobot_policy_so101.processor_so101 import make_so101_pre_post_processors


def main() -> int:
    """Command line."""
    parser = argparse.ArgumentParser(prog='python -m lerobot_policy_so101', description=__doc__)
    parser.add_argument('policy', type=Path, help='folder of a stored policy, e.g. runs/…/best')
    parser.add_argument('--out', type=Path, required=True, help='folder that is made, for --policy.path')
    parser.add_argument(
        '--camera', default='gripper_cam', help='name of the wrist camera (default: %(default)s)'
    )
    parser.add_argument('--range', action='store_true', help='joints in -100..100 instead of degrees')
    asked = parser.parse_args()
    if asked.out.exists():
        parser.error(f'{asked.out} is there already; name another folder')
    config = SO101Config(camera=asked.camera, use_degrees=not asked.range, push_to_hub=False)
    try:
        policy = SO101Policy(config, asked.policy)
    except ValueError as error:
        parser.error(str(error))
    policy.save_pretrained(asked.out)
    for pipeline in make_so101_pre_post_processors(config):
        pipeline.save_pretrained(asked.out)
    rate = policy._policy.manifest.control_rate_hz
    sys.stdout.write(f'{asked.out}: pass it as --policy.path, with --fps={rate:.0f}\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())

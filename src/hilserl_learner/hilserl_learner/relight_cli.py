# SPDX-License-Identifier: Apache-2.0
"""`./so101 relight POLICY OUT`: make up for a light, a table or a camera that differs from those of the training."""

import argparse
from collections.abc import Sequence
from pathlib import Path
import sys

from drqv2_policy_node.policy import Policy
from drqv2_policy_node.store import load_critics, load_policy, save_policy
from hilserl_learner.cpu import prepare_cpu
from hilserl_learner.errors import LearnerError
from hilserl_learner.eval_cli import observation_name
from hilserl_learner.relight import adapt_encoder, Light, light_of_buffer, light_of_env
from hilserl_learner.train_setup import make_env

EXAMPLES = """
Pictures come from a buffer (see `so101 ingest`; that of a training run is RUN/buffer), or from the simulation as
ENVIRONMENT:PRESET, in which the policy then acts for a minute. The policy is not trained by this, only shown the new
light; give the result to `so101 train --policy` or `so101 up checkpoint:=`.

examples:
  so101 relight policies/sim policies/here --seen SO101Lift-v0:wide --now buffers/demos
  so101 relight runs/wide/best policies/here --seen runs/wide/buffer --now buffers/demos
"""


def parser() -> argparse.ArgumentParser:
    """Return the command's arguments."""
    made = argparse.ArgumentParser(
        prog='so101 relight',
        description='Change the first bias of a policy so that the mean colours of what it sees now look to it like '
        'those that it was trained with.',
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument('policy', type=Path, help='directory of a stored policy')
    made.add_argument('out', type=Path, help='directory to make')
    made.add_argument('--seen', required=True, metavar='PICTURES', help='what it was trained with')
    made.add_argument('--now', required=True, metavar='PICTURES', help='what it is to work with')
    made.add_argument('--overwrite', action='store_true', help='replace a policy that is at OUT')
    return made


def light(source: str, policy: Policy) -> Light:
    """Return the light of a buffer, or of an environment.

    Raises:
        LearnerError: it is neither.
    """
    if Path(source).is_dir():
        return light_of_buffer(Path(source), policy.manifest.observation)
    env_id, colon, preset = source.partition(':')
    if not colon:
        raise LearnerError(
            f'expected the directory of a buffer, or ENVIRONMENT:PRESET, got {source!r}, which is neither; '
            f'correct it'
        )
    env = make_env(env_id, preset, observation_name(policy))
    try:
        return light_of_env(env, policy)
    finally:
        env.close()


def main(argv: Sequence[str] | None = None) -> int:
    """Measure both lights and write the policy."""
    options = parser().parse_args(argv)
    prepare_cpu(1)
    try:
        policy = load_policy(options.policy)
        seen, now = light(options.seen, policy), light(options.now, policy)
        made = adapt_encoder(policy, seen, now, options.out.name)
        # The critics see the same features as before, so they go along.
        save_policy(options.out, made, critics=load_critics(options.policy), overwrite=options.overwrite)
    except (ValueError, OSError) as error:
        print(f'so101 relight: {error}', file=sys.stderr)
        return 1
    for camera in seen:
        then, here = ([round(value) for value in one[camera].mean] for one in (seen, now))
        print(f'{camera}: mean RGB {then} in training, {here} now')
    print(f'{options.out}: written; `so101 eval {options.out}` says what it is worth in the simulation')
    return 0


if __name__ == '__main__':
    sys.exit(main())

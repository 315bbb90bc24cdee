# SPDX-License-Identifier: Apache-2.0
"""`./so101 serve-policy POLICY|expert`: a policy behind GR00T's protocol, for its clients and for our own node."""

import argparse
from collections.abc import Sequence
from contextlib import ExitStack
import logging
from pathlib import Path
import sys

from drqv2_policy_node.store import find_policy, load_policy
from so101_contract.errors import ContractError
from so101_contract.observation_spec import CONTROL_RATE_HZ, DEFAULT_OBSERVATION
from so101_driver.calibration.files import find_calibration
from so101_driver.calibration.lerobot_units import DEGREES, JointScale, UNITS
from so101_interfaces_py.endings import Ending, heed_endings
from so101_sim.human.expert import Skill
from vla_policy_node.protocol import LONGEST_HORIZON
from vla_policy_node.serving.actors import Actor, ExpertActor, PolicyActor
from vla_policy_node.serving.server import Answers, serve, Terms
from vla_policy_node.wire import Encoding

EXPERT = 'expert'


def parser() -> argparse.ArgumentParser:
    """Return the command's arguments."""
    made = argparse.ArgumentParser(
        prog='so101 serve-policy',
        description="Serve a stored policy, or the simulation's expert, as a GR00T server serves a model.",
    )
    made.add_argument(
        'policy', help='folder of a stored policy, default, or expert (beside a twin that runs)'
    )
    made.add_argument('--host', default='127.0.0.1', help='address to listen at (default: %(default)s)')
    made.add_argument('--port', type=int, default=5555, help='0 takes a free one (default: %(default)s)')
    made.add_argument(
        '--encoding', choices=tuple(Encoding), default=Encoding.N16, help='as that version of GR00T'
    )
    made.add_argument('--token', default='', help='what clients have to give as api_token')
    made.add_argument('--units', choices=UNITS, default=DEGREES, help='of the joints (default: %(default)s)')
    made.add_argument(
        '--calibration', default='', help="the arm's, for --units range; default: the model's ranges"
    )
    made.add_argument('--camera', default='front', help='what clients call the camera (default: %(default)s)')
    made.add_argument('--horizon', type=int, default=16, help='entries of a chunk (default: %(default)s)')
    made.add_argument('--rate', type=float, default=30.0, help='entries in a second (default: %(default)s)')
    made.add_argument(
        '--delay-ms', type=float, default=0.0, help='answer so much later, as a large model does'
    )
    simulated = made.add_argument_group('the expert')
    simulated.add_argument('--task', default='lift', help='name or file (default: %(default)s)')
    simulated.add_argument(
        '--aim-error', type=float, default=0.0, help='of each attempt [m]: a policy that fails'
    )
    simulated.add_argument('--seed', type=int, default=0)
    simulated.add_argument('--namespace', default='', help='of the arm')
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Serve until a signal to end."""
    made = parser()
    options = made.parse_args(argv)
    if (
        not 2 <= options.horizon <= LONGEST_HORIZON
        or not 1.0 <= options.rate <= 200.0
        or options.delay_ms < 0
    ):
        made.error(f'expected a horizon of 2 to {LONGEST_HORIZON}, a rate of 1 to 200 and no negative delay')
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    ending = Ending()
    ending.spinning = True
    heed_endings(ending)
    with ExitStack() as stack:
        try:
            actor = _actor(options, stack)
            offer = actor.offer(Encoding(options.encoding), options.camera)
            answers = Answers(actor, Terms(offer, options.token, options.delay_ms / 1000.0))
            address = f'tcp://{options.host}:{options.port or "*"}'
            serve(answers, address, lambda: ending.asked, lambda where: _say(options, where))
        except (ValueError, OSError) as error:
            print(f'so101 serve-policy: {error}', file=sys.stderr)
            return 1
    return 0


def _say(options: argparse.Namespace, where: str) -> None:
    print(
        f'{options.policy} at {where}, {options.encoding}, units:={options.units}; Ctrl-C ends it', flush=True
    )


def _actor(options: argparse.Namespace, stack: ExitStack) -> Actor:
    known = find_calibration(options.calibration) if options.calibration else None
    scale = JointScale(options.units, known)
    chunk = {'rate_hz': options.rate, 'horizon': options.horizon}
    if options.policy == EXPERT:
        step_s = 1.0 / CONTROL_RATE_HZ
        from vla_policy_node.serving.truth_node import ExpertWatch  # a policy is served without ROS

        skill = Skill(aim_error_m=options.aim_error)
        watch = ExpertWatch(
            options.task, skill, step_s=step_s, seed=options.seed, namespace=options.namespace
        )
        stack.callback(watch.close)
        return ExpertActor(watch, scale, tcp='so101', step_s=step_s, **chunk)
    if options.aim_error:
        raise ContractError('expected --aim-error of the expert alone, got it with a policy; leave it out')
    folder = find_policy(options.policy, DEFAULT_OBSERVATION) or Path(options.policy)
    return PolicyActor(load_policy(folder), scale, **chunk)


if __name__ == '__main__':
    sys.exit(main())

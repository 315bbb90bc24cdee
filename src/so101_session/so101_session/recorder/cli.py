# SPDX-License-Identifier: Apache-2.0
"""`./so101 record`: record the running graph into a rosbag2."""

import argparse
from collections.abc import Sequence
import os
from pathlib import Path
import sys

from so101_bags.write import COMPRESSIONS
from so101_contract.observation_spec import DEFAULT_OBSERVATION, OBSERVATIONS
from so101_session.recorder.config import RecorderConfig


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    defaults = RecorderConfig()
    made = argparse.ArgumentParser(
        prog='so101 record',
        description='Record the running graph until Ctrl-C. `ros2 bag` reads the result.',
        epilog='Each run makes a new bag in the folder. Check one with: ./so101 bag-check FOLDER',
    )
    made.add_argument(
        '--out', default=defaults.out, help='folder that the bag goes into (default: %(default)s)'
    )
    made.add_argument('--name', default='', help='name of the bag (default: date and time)')
    made.add_argument('--topics', nargs='+', default=[], metavar='TOPIC', help='topics to record as well')
    made.add_argument('--only', nargs='+', default=[], metavar='TOPIC', help='record these and no others')
    made.add_argument('--namespace', nargs='+', default=[], metavar='NAME', help='namespaces of the arms')
    made.add_argument(
        '--compression', choices=COMPRESSIONS, default=defaults.compression, help='default: %(default)s'
    )
    made.add_argument('--split-mb', type=float, default=defaults.split_mb, help='default: %(default)s')
    made.add_argument('--split-episodes', type=int, default=0, help='begin another file after so many')
    made.add_argument(
        '--observation',
        choices=sorted(OBSERVATIONS),
        default=DEFAULT_OBSERVATION,
        help='default: %(default)s',
    )
    made.add_argument(
        '--config', default=_config_folder(), help='folder whose *.yaml files are stored in the bag'
    )
    made.add_argument(
        '--anything', action='store_true', help='begin at once, even without an arm and its kinematics'
    )
    return made


def _config_folder() -> str:
    """The configuration of the checkout, where ./so101 says where that is."""
    folder = Path(os.environ.get('SO101_ROOT', '')) / 'config'
    return str(folder) if 'SO101_ROOT' in os.environ and folder.is_dir() else ''


def ros_arguments(argv: Sequence[str]) -> list[str]:
    """Turn the command line into that of recorder_node; what follows --ros-args is passed on."""
    words = list(argv)
    rest = words[words.index('--ros-args') + 1 :] if '--ros-args' in words else []
    asked = parser().parse_args(words[: len(words) - len(rest) - 1] if '--ros-args' in words else words)
    parameters = {
        'out': asked.out,
        'compression': asked.compression,
        'split_mb': asked.split_mb,
        'split_episodes': asked.split_episodes,
        'observation': asked.observation,
        'require_kinematics': not (asked.anything or asked.only),
        'name': asked.name,
        'config': asked.config,
        'topics': asked.only,
        'more_topics': asked.topics,
        'namespaces': asked.namespace,
    }
    found = ['--ros-args']
    for name, value in parameters.items():
        if value in ('', []):
            continue
        found += ['-p', f'{name}:={_yaml(value)}']
    return [*found, *rest]


def main(argv: Sequence[str] | None = None) -> int:
    """Record until interrupted."""
    arguments = ros_arguments(sys.argv[1:] if argv is None else argv)
    from so101_session.recorder.node import run

    return run(['record', *arguments])


def _yaml(value: object) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return '[' + ', '.join(f"'{item}'" for item in value) + ']'
    return f"'{value}'" if isinstance(value, str) else str(value)


if __name__ == '__main__':
    sys.exit(main())

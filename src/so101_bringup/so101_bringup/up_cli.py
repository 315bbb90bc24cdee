# SPDX-License-Identifier: Apache-2.0
"""`./so101 up`: the stack as supervised processes, for machines without ros2 launch and for everyone's convenience."""

import argparse
import os
from pathlib import Path
import signal
import sys
import textwrap
import threading

from so101_bringup.options import Option, OptionError, OPTIONS, parse_options
from so101_bringup.programs import executable_path, ros_arguments
from so101_bringup.stack import STACKS
from so101_bringup.supervisor import Supervisor

EXAMPLES = """examples:
  ./so101 up                                                          everything, on the simulated arm
  ./so101 up sim:=false port:=/dev/ttyACM0 teleop:=gamepad            everything, on yours
  ./so101 up --operator scripted --episodes 20 --record demos/        twenty scripted demonstrations
  ./so101 up --operator scripted --learn --minutes 20                 learn for twenty minutes, then end"""


def main(argv: list[str]) -> int:
    """Start the stack and stay with it."""
    described = '\n'.join(_describe(name, option) for name, option in OPTIONS.items())
    parser = argparse.ArgumentParser(
        prog='so101 up',
        usage='so101 up [-h] [--stack NAME] [--minutes M] [name:=value | --name value ...]',
        description='Start the stack and stay with it; Ctrl-C ends it.',
        epilog=f'options and defaults:\n{described}\n\n{EXAMPLES}',
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        '--stack', choices=sorted(STACKS), default='hilserl', help='which part (default: hilserl)'
    )
    parser.add_argument('--minutes', type=float, metavar='M', help='end by itself after so many minutes')
    known, words = parser.parse_known_args(argv)
    supervisor = Supervisor(
        os.environ, write=lambda line: print(line, flush=True), colour=sys.stdout.isatty()
    )
    try:
        options = parse_options(words)
        for node in STACKS[known.stack](options):
            arguments = ros_arguments(node, str(options['namespace']), str(_root() / 'config'))
            nice = ['nice', '-n', str(node.niceness)] if node.niceness else []
            supervisor.add(node, [*nice, str(executable_path(node)), *arguments])
    except OptionError as error:
        parser.error(str(error))
    signal.signal(signal.SIGINT, lambda *_: supervisor.stop())
    signal.signal(signal.SIGTERM, lambda *_: supervisor.stop())
    if known.minutes is not None:
        timer = threading.Timer(known.minutes * 60.0, supervisor.stop)
        timer.daemon = True
        timer.start()
    print(f'so101 up: {known.stack}; Ctrl-C ends it.', flush=True)
    return supervisor.run()


def _root() -> Path:
    return Path(os.environ.get('SO101_ROOT', Path(__file__).resolve().parents[3]))


def _describe(name: str, option: Option) -> str:
    choices = f' One of: {", ".join(option.choices)}.' if option.choices else ''
    default = str(option.default).lower() if isinstance(option.default, bool) else str(option.default)
    return textwrap.fill(
        option.doc + choices, 100, initial_indent=f'  {f"{name}:={default}":<22} ', subsequent_indent=' ' * 25
    )

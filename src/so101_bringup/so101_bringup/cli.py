# SPDX-License-Identifier: Apache-2.0
"""The command line: `./so101 COMMAND`."""

import argparse
from collections.abc import Callable, Iterator, Sequence
import contextlib
from dataclasses import dataclass
from importlib import import_module
import json
import os
from pathlib import Path
import runpy
import signal
import subprocess
import sys
import textwrap
import threading

from so101_bringup import workspace
from so101_bringup.leftovers import clear_leftovers, told
from so101_bringup.network import check_alone, environment, network_notes
from so101_bringup.options import Option, OptionError, OPTIONS, Options, parse_options
from so101_bringup.programs import executable_path, NodeSpec, ros_arguments
from so101_bringup.security import check_keystore, enclave, variables
from so101_bringup.stack import STACKS
from so101_bringup.supervisor import Lines, Output, Supervisor

EXAMPLES = """examples:
  ./so101 up                                                          everything, on the simulated arm
  ./so101 up sim:=false port:=/dev/ttyACM0 teleop:=gamepad            everything, on yours
  ./so101 up --operator scripted --episodes 20 --record demos/        twenty scripted demonstrations
  ./so101 up --operator scripted --learn --minutes 20                 learn for twenty minutes, then end"""


SOME_FAILED = 1
"""What pytest ends with where tests have failed, and nothing else was wrong."""
RUN_ALONE = 4
"""So many files may have failed; where more did, it is not for want of time."""


@dataclass(frozen=True)
class Command:
    """One command: what it does in a line, and the function that takes its arguments."""

    help: str
    run: Callable[[list[str]], int]


def root() -> Path:
    """The checkout: where ./so101 lies, or the folder above the installed sources."""
    return Path(os.environ.get('SO101_ROOT', Path(__file__).resolve().parents[3]))


def up(argv: list[str]) -> int:
    """Start the stack and stay with it."""
    from so101_bringup.preflight import prepare
    from so101_bringup.terminal.phone import phone_environment
    from so101_interfaces_py.endings import heed_endings

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
    parser.add_argument(
        '--verbose',
        action='store_true',
        help='write every line of every node, as where the output is no terminal',
    )
    known, words = parser.parse_known_args(argv)
    try:
        options = parse_options(words)
        for note in (*network_notes(options), *told(clear_leftovers())):
            _say(note)
        security = str(options['security'])
        os.environ.update(environment(options) | variables(security) | phone_environment(options))
        config = root() / 'config'
        nodes = prepare(STACKS[known.stack](options), options, config, _say)
        commands = []
        for node in nodes:
            arguments = ros_arguments(node, str(options['namespace']), str(config))
            if security and node.is_ros:
                arguments += ['--enclave', enclave(str(options['namespace']), node.name)]
            commands.append([str(executable_path(node)), *arguments])
        if security:
            check_keystore(security, nodes, str(options['namespace']))
        check_alone(nodes, options)
    except OptionError as error:
        parser.error(str(error))
    as_lines = known.verbose or not sys.stdout.isatty()
    with _output(known.stack, nodes, options, as_lines) as output:
        supervisor = Supervisor(os.environ, output)
        for node, command in zip(nodes, commands, strict=True):
            supervisor.add(node, command)
        heed_endings(lambda *_: supervisor.stop())
        if known.minutes is not None:
            timer = threading.Timer(known.minutes * 60.0, supervisor.stop)
            timer.daemon = True
            timer.start()
        return supervisor.run()


@contextlib.contextmanager
def _output(stack: str, nodes: Sequence[NodeSpec], options: Options, as_lines: bool) -> Iterator[Output]:
    """Where the output of a stack goes: to a status that stays in place, or line by line."""
    from so101_bringup.terminal.phone import PhoneCode

    if as_lines:
        _say(f'{stack}; Ctrl-C ends it.')
        lines = Lines(_write, [node.name for node in nodes], colour=sys.stdout.isatty())
        yield PhoneCode(lines, _show) if options['phone'] else lines
        return
    from so101_bringup.terminal import Listener, Screen

    arm = 'the simulated arm' if options['sim'] else f'the arm at {options["port"]}'
    with (
        Screen(f'{stack} on {arm}', root() / 'log') as screen,
        Listener(screen.board, str(options['namespace']), str(options['security'])),
    ):
        yield PhoneCode(screen, screen.show) if options['phone'] else screen


def _write(line: str) -> None:
    try:
        print(line, flush=True)
    except OSError:  # the terminal is gone: everything else has to end in order all the same
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _show(lines: Sequence[str]) -> None:
    """Write a code dark on light, whatever the colours of the terminal are; without one, as it is."""
    before, after = ('\033[30;107m', '\033[0m') if sys.stdout.isatty() else ('', '')
    for line in lines:
        _write(f'{before}{line}{after}')


def _say(sentence: str) -> None:
    _write(f'so101 up: {sentence}')


def _describe(name: str, option: Option) -> str:
    choices = f' One of: {", ".join(option.choices)}.' if option.choices else ''
    default = str(option.default).lower() if isinstance(option.default, bool) else str(option.default)
    return textwrap.fill(
        option.doc + choices, 100, initial_indent=f'  {f"{name}:={default}":<22} ', subsequent_indent=' ' * 25
    )


def trial(argv: list[str]) -> int:
    """Put one policy or two on trial."""
    from so101_bringup.trial_cli import main as try_policies

    return try_policies(argv, up)


def test(argv: list[str]) -> int:
    """Run the tests; all of them run two files at a time, where there are two cores."""
    code = workspace.main([str(root()), '--dev'])
    return code or run_tests(root(), argv)


def run_tests(folder: Path, argv: Sequence[str]) -> int:
    """Run those that are asked for, or all; what fails beside another file runs once more, alone.

    Two graphs on two cores starve each other now and then, and a test that fails for it tells nothing of the code. A
    few files are given that second run, as with `colcon test --retest-until-pass 1`, and are named at the end.
    """
    pytest = [sys.executable, '-m', 'pytest']
    if argv or (os.cpu_count() or 1) < 2:
        return subprocess.call([*pytest, *argv], cwd=folder)
    # Many tests wait for a graph and leave a core idle. A file stays whole, since its tests share a graph.
    code = subprocess.call([*pytest, '-n', '2', '--dist', 'loadfile'], cwd=folder)
    if code != SOME_FAILED:
        return code
    failed = _failed(folder)
    files = sorted({name.partition('::')[0] for name in failed})
    if len(files) > RUN_ALONE:
        return code
    _write(f'so101 test: failed beside another file; once more, alone: {", ".join(files)}')
    code = subprocess.call([*pytest, *files], cwd=folder)
    again = _failed(folder) if code else []
    for name in failed:
        verdict = 'failed alone too' if name in again else 'passed alone'
        _write(f'so101 test: failed beside another file, {verdict}: {name}')
    return code


def _failed(folder: Path) -> list[str]:
    """Return the tests that failed when they ran last."""
    return sorted(json.loads((folder / '.pytest_cache/v/cache/lastfailed').read_text()))


def setup(argv: list[str]) -> int:
    """Prepare the workspace: ./so101 has just done it."""
    argparse.ArgumentParser(
        prog='so101 setup',
        description='Make .venv, install the locked packages, build. Any command does this when needed.',
    ).parse_args(argv)
    print(f'The workspace is ready. Its environment: . {root()}/.venv/so101.env')
    return 0


def bench(argv: list[str]) -> int:
    """Run one benchmark, or all of them."""
    folder = root() / 'benchmarks'
    programs = {path.stem.removeprefix('bench_'): path for path in sorted(folder.glob('bench_*.py'))}
    programs['all'] = folder / 'suite.py'
    parser = argparse.ArgumentParser(
        prog='so101 bench',
        description='Measure one part with its peers in the same run, or all parts, into docs/benchmarks.md.',
        epilog='More options: ./so101 bench NAME --help',
        add_help=not (argv and argv[0] in programs),
    )
    parser.add_argument('name', choices=tuple(programs), help='what to measure')
    arguments, rest = parser.parse_known_args(argv)
    sys.argv = [f'so101 bench {arguments.name}', *rest]
    sys.path.insert(0, str(folder))
    runpy.run_path(str(programs[arguments.name]), run_name='__main__')
    return 0


def _other(module: str, function: str = 'main') -> Callable[[list[str]], int]:
    """A command that lives in another package; imported when it is asked for."""

    def run(argv: list[str]) -> int:
        return int(getattr(import_module(module), function)(argv) or 0)

    return run


COMMANDS = {
    'up': Command(
        'start the stack: simulated arm by default, sim:=false for the real one',
        up,
    ),
    'test': Command('run the tests; arguments go to pytest', test),
    'setup': Command('prepare the workspace and stop', setup),
    'doctor': Command(
        'check bus, power, servos, camera and DDS, and say what to do', _other('so101_bringup.doctor')
    ),
    'security': Command(
        'make keys for each node, for graphs that others reach', _other('so101_bringup.security')
    ),
    'setup-motors': Command('give the six servos of a new arm their ids', _other('so101_driver.setup.cli')),
    'calibrate': Command(
        'calibrate an arm, import or export a LeRobot calibration', _other('so101_driver.calibration.cli')
    ),
    'task': Command('list, check or write task files', _other('so101_driver.setup.task')),
    'teleop': Command('drive the arm with the keys of this terminal', _other('so101_session.teleop.cli')),
    'record': Command('record bags beside a stack that runs', _other('so101_session.recorder.cli')),
    'bag-check': Command(
        'check bags: rates, gaps, actions, episodes', _other('so101_bags.cli', 'check_main')
    ),
    'bag-fix': Command('recover a bag whose recorder was killed', _other('so101_bags.cli', 'fix_main')),
    'convert-checkpoint': Command(
        'turn a RoboBase snapshot into a policy, or back', _other('drqv2_policy_node.robobase.cli')
    ),
    'serve-policy': Command(
        'serve a stored policy, or the expert, as a GR00T server', _other('vla_policy_node.serving.cli')
    ),
    'adapt': Command(
        'make up for another light before a policy acts or learns on', _other('hilserl_learner.cli.adapt')
    ),
    'ingest': Command(
        'turn bags or LeRobot datasets into a buffer to learn from', _other('hilserl_learner.ingest.cli')
    ),
    'export': Command(
        'turn a buffer or a bag into a LeRobot dataset, or an episode into a film',
        _other('hilserl_learner.cli.export'),
    ),
    'train': Command('train a policy in simulation, without ROS', _other('hilserl_learner.cli.train')),
    'train-offline': Command('train on buffers alone', _other('hilserl_learner.cli.offline')),
    'train-classifier': Command(
        'train a picture classifier of success', _other('hilserl_learner.classifier.cli')
    ),
    'eval': Command('count the successes of a policy', _other('hilserl_learner.cli.eval')),
    'compare': Command(
        'put policies, runs and the floor side by side: a table and a picture',
        _other('hilserl_learner.cli.compare'),
    ),
    'trial': Command('try a policy on the arm, or find out which of two is better', trial),
    'plot': Command('draw the curves of training runs', _other('hilserl_learner.cli.plot')),
    'bench': Command('measure one part against its peers', bench),
}

RENAMED = {'relight': 'adapt'}
"""Commands that had another name before."""


def main(argv: Sequence[str]) -> int:
    """Run one command."""
    if argv and argv[0] in RENAMED:
        print(f'so101: expected {RENAMED[argv[0]]}, which {argv[0]} is called now; run that', file=sys.stderr)
        return 2
    listed = '\n'.join(f'  {name:<18} {command.help}' for name, command in COMMANDS.items())
    parser = argparse.ArgumentParser(
        prog='so101',
        usage='so101 COMMAND [arguments]',
        description='SO-101 HIL-SERL for ROS 2.',
        epilog=f'commands:\n{listed}\n\n`so101 COMMAND --help` says more about one.',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('command', choices=COMMANDS, metavar='COMMAND', help='one of the commands below')
    if not argv:
        parser.print_help()
        return 0
    arguments = parser.parse_args(argv[:1])
    return COMMANDS[arguments.command].run(list(argv[1:]))


def run() -> None:
    """Run the command of the command line, and end."""
    from so101_interfaces_py.endings import leave

    try:
        code = main(sys.argv[1:])
    except KeyboardInterrupt:  # while it imported what the command needs
        code = 128 + signal.SIGINT
    if sys.argv[1:2] == ['up']:
        leave(code)
    sys.exit(code)


if __name__ == '__main__':
    run()

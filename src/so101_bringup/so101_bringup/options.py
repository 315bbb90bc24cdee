# SPDX-License-Identifier: Apache-2.0
"""What can be chosen when starting the stack: `name:=value`, as ros2 launch takes it, or `--name value`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import math
import os
import re


@dataclass(frozen=True)
class Option:
    """One choice.

    Attributes:
        default: Its value where nothing is said; its type is the option's type.
        doc: What it is, one or two sentences.
        choices: What it may be; empty: anything of its type.
        most: The largest number that it may be.
    """

    default: bool | int | str
    doc: str
    choices: tuple[str, ...] = ()
    most: int = 1_000_000


Options = Mapping[str, bool | int | str]

# As in so101_description.tcp; a test compares. Importing it here would load the whole model for `--help`.
TCPS = ('so101', 'so_arm100', 'pick101', 'menagerie')

# As in so101_sim.human.traits; a test compares.
HUMANS = ('perfect', 'careful', 'clumsy')
PERFECT = HUMANS[0]

OPTIONS: Mapping[str, Option] = {
    'namespace': Option('', 'Namespace of all nodes; a second arm gets another one.'),
    'place': Option(
        '',
        'Where the base of this arm stands among several, as x,y,turn [m, m, deg] in the frame world; empty: alone.',
    ),
    'arms': Option(
        '', 'The namespaces of two arms that RViz shows together (rviz:=true), with a comma between.'
    ),
    'sim': Option(True, 'A simulated arm behind a virtual servo bus instead of the real one.'),
    'task': Option('lift', 'What is to be done: name of a task in config/tasks, or its file (./so101 task).'),
    'cameras': Option(
        '',
        'Cameras that are observed, other than those of the task: names with commas between, on a real arm with their '
        'devices, such as wrist=/dev/video0,front=/dev/video2.',
    ),
    'reward': Option(
        'auto',
        'Who says that the task is done, beside the human: sim, operator (nobody), classifier, gripper, or several '
        'with commas between, which must agree; auto: as the task says, without the simulation on a real arm.',
    ),
    'classifier': Option(
        '',
        'Folder of the classifier of success, with its labels; empty: the one of the task in classifiers/, where '
        'reward:= names it.',
    ),
    'preset': Option(
        'easy',
        'How hard the simulated scene is: easy, wide, gap (an arm unlike the training), pick101, or room-N, a room of '
        'its own for each number.',
    ),
    'operator': Option(
        'auto',
        'The scripted operator of the simulation: demonstrate drives whole episodes, intervene helps the policy '
        'when it fails, scripted is the one of them that fits; auto: scripted in the simulation unless a teleop '
        'device is named. careful and clumsy intervene as humans do, who react late, shake, look away and err; '
        'perfect does not.',
        ('auto', 'none', 'scripted', 'demonstrate', 'intervene', *HUMANS),
    ),
    'reset': Option(
        'auto',
        'Who puts the object back after an episode: arm, where the task says put_back and it can; scene: the twin, or '
        'on a real arm the human; auto: the arm on a real one whose task says put_back, else scene.',
        ('auto', 'arm', 'scene'),
    ),
    'teleop': Option(
        'none',
        'Device that a human drives with (keyboard: run `./so101 teleop` in a terminal of its own instead).',
        ('none', 'gamepad', 'joy', 'leader'),
    ),
    'leader': Option('', 'Serial device of the leader arm (teleop:=leader).'),
    'checkpoint': Option(
        'default',
        'Folder of the policy to begin with; default: the one that is shipped; none: begin from nothing.',
    ),
    'server': Option(
        '',
        'Policy server that acts instead of a checkpoint, such as GR00T: tcp://HOST:PORT; needs units:=.',
    ),
    'base': Option(
        '',
        'Base policy that is learned on top of: folder of a policy, default, or a server tcp://HOST:PORT, which needs '
        'units:=. It acts at first; the policy that learns is let in as far as the episodes allow.',
    ),
    'units': Option(
        '',
        "Units of the server's joints, which are those of its training's data and which it does not say.",
        ('', 'degrees', 'range', 'rad'),
    ),
    'instruction': Option('', 'What the policy server is told to do, in words.'),
    'learn': Option(
        'auto',
        'Learn while the arm runs; auto: yes, unless the scripted operator demonstrates.',
        ('auto', 'true', 'false'),
    ),
    'run': Option(
        'auto',
        'Folder of the learner: buffers, checkpoints, metrics; auto: the newest one in runs/ that was made with the '
        'same arm, task, preset, observation, checkpoint and agent goes on, else a new one begins.',
    ),
    'from': Option(
        '', 'Run whose weights and experience a new run begins with, where it was made with something else.'
    ),
    'demos': Option('', 'Folder of demonstrations that were ingested, for the learner to begin with.'),
    'trial': Option('', 'Folder of a trial that `./so101 trial` has planned.'),
    'record': Option('false', 'Record bags: false, true (into bags/) or a folder.'),
    'lerobot': Option(
        False, "Let LeRobot's programs record who drives; for LeRobot to drive: --stack lerobot."
    ),
    'episodes': Option(0, 'End by itself after this many episodes; 0: never.'),
    'console': Option(True, "The operator's page."),
    'console_port': Option(
        8101,
        'Port of the page on http://127.0.0.1; a second stack gets another one, 0 takes a free one.',
        most=65535,
    ),
    'phone': Option(
        False,
        'Serve the page to a phone in the same network too, by a token, and print its address as a QR code.',
    ),
    'network': Option(
        'loopback',
        'Who may hear the nodes, and command them: loopback (this machine), lan (anybody near), or addresses of '
        'other machines with commas between.',
    ),
    'security': Option(
        '', 'Folder of the keys that ./so101 security new has made: only who has one of them takes part.'
    ),
    'rviz': Option(False, 'RViz, where ROS has it.'),
    'port': Option('/dev/so101', 'Serial device of the real arm (sim:=false).'),
    'calibration': Option(
        '', 'Calibration file of the real arm; empty: the only one in ~/.config/so101/calibration.'
    ),
    'tcp': Option(
        'so101', 'Tool centre point that actions move; a policy must get the one it was trained with.', TCPS
    ),
    'observation': Option('compact', 'What policy and learner see.', ('compact', 'full', 'robobase')),
    'camera': Option('', 'Wrist camera: device, file or URL; empty: the simulated one, or none.'),
    'tf': Option(
        'auto',
        'Who publishes /tf and robot_description: ros (robot_state_publisher), own (kinematics_node), off, '
        'or auto: the first of them that is installed.',
        ('auto', 'ros', 'own', 'off'),
    ),
}


NEEDS_UNITS = (
    "{}:= needs units:=degrees, range or rad: those of the joints in its training's data; LeRobot records degrees "
    'since 0.4.4 unless told otherwise, and range (-100..100) before.'
)


class OptionError(ValueError):
    """An option that does not exist, or a value that it does not take."""


def parse_options(words: Sequence[str]) -> dict[str, bool | int | str]:
    """Read the choices and fill in the defaults.

    Args:
        words: `name:=value`, `--name value`, `--name=value`, or `--name` alone for what is true or false.

    Raises:
        OptionError: naming the word and what is possible.
    """
    values = {name: option.default for name, option in OPTIONS.items()}
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word.startswith('--'):
            name, separator, value = word[2:].partition('=')
            if not separator and name in OPTIONS:
                is_flag = isinstance(OPTIONS[name].default, bool) or 'true' in OPTIONS[name].choices
                alone = not rest or rest[0].startswith('--') or ':=' in rest[0]
                if is_flag and (alone or rest[0].lower() not in ('true', 'false')):
                    value, separator = 'true', '='
                elif not alone:
                    value, separator = rest.pop(0), '='
        else:
            name, separator, value = word.partition(':=')
        if not separator or name not in OPTIONS:
            raise OptionError(
                f'{word!r} is no option of the stack; write name:=value or --name value with one of: '
                f'{", ".join(OPTIONS)}.'
            )
        values[name] = _value(name, value)
    return values


def _value(name: str, text: str) -> bool | int | str:
    option = OPTIONS[name]
    if option.choices and text not in option.choices:
        raise OptionError(f'{name}:={text} is not one of: {", ".join(option.choices)}.')
    if isinstance(option.default, bool):
        if text.lower() not in ('true', 'false'):
            raise OptionError(f'{name}:={text} is neither true nor false.')
        return text.lower() == 'true'
    if isinstance(option.default, int):
        if not re.fullmatch('[0-9]{1,9}', text) or int(text) > option.most:
            raise OptionError(f'{name}:={text} is not a whole number from 0 to {option.most}.')
        return int(text)
    return text


def place_of(text: str) -> tuple[float, float, float]:
    """Return where the base of an arm stands: x, y [m] and its turn [deg].

    Raises:
        OptionError: it is not said so.
    """
    try:
        x, y, turn = map(float, text.split(','))
    except ValueError:
        x = y = turn = math.nan
    if not all(abs(value) <= 1000.0 for value in (x, y, turn)):
        raise OptionError(f'place:={text} is no place; write x,y,turn in m, m and degrees, such as 0,0.4,0.')
    return x, y, turn


def arms_of(text: str) -> tuple[str, ...]:
    """Return the namespaces of the two arms that are shown together; none where they are not.

    Raises:
        OptionError: they are not two different ones.
    """
    names = tuple(name.strip().strip('/') for name in text.split(',')) if text else ()
    if names and not (len(set(names)) == len(names) == 2 and all(names)):
        raise OptionError(
            f'arms:={text} are not two namespaces; write them with a comma between: left,right.'
        )
    return names


def resolve(options: Options) -> dict[str, bool | int | str]:
    """Return the options with every `auto`, and every value that depends on another one, decided.

    `operator` becomes none, demonstrate or intervene, and `human` says what it is like; `learn` becomes a boolean;
    `record` a folder or empty.

    Raises:
        OptionError: two choices exclude each other.
    """
    values = dict(options)
    asked = values['operator']
    values.setdefault('human', PERFECT)
    if asked in HUMANS:
        values['human'], values['operator'] = asked, 'intervene'
    learn = values['learn']
    if asked not in ('auto', 'none') and not values['sim']:
        raise OptionError(
            f'operator:={asked} needs sim:=true: the scripted operator sees what no camera does.'
        )
    if asked == 'demonstrate' and learn == 'true':
        raise OptionError(
            'operator:=demonstrate leaves nothing to learn live; record the demonstrations and ingest them, '
            'or use operator:=intervene.'
        )
    if values['base']:
        _require_base(values)
        values['checkpoint'] = 'none' if values['checkpoint'] == 'default' else values['checkpoint']
    if values['server']:
        learn = values['learn'] = _without_learning(values)
        values['checkpoint'] = 'none'
    if asked == 'auto':
        values['operator'] = 'intervene' if values['sim'] and values['teleop'] == 'none' else 'none'
    elif asked == 'scripted':
        policy = values['server'] or values['base']
        alone = learn != 'true' and values['checkpoint'] in ('default', 'none') and not policy
        values['operator'] = 'demonstrate' if alone else 'intervene'
    values['learn'] = learn == 'true' or (learn == 'auto' and asked not in ('scripted', 'demonstrate'))
    values['record'] = {'false': '', 'true': 'bags'}.get(str(values['record']), values['record'])
    return values


def _require_base(values: Options) -> None:
    """Refuse a base that cannot be learned on.

    Raises:
        OptionError: it lacks something, or another policy is to act.
    """
    if values['server']:
        raise OptionError(
            f'base:={values["base"]} and server:={values["server"]} exclude each other: name the server as the base '
            'to learn on top of it, or as the server to let it act alone.'
        )
    if is_server(values) and not values['units']:
        raise OptionError(NEEDS_UNITS.format('base'))


def is_server(values: Options) -> bool:
    """Return whether the base policy is behind a socket."""
    return str(values['base']).startswith('tcp://')


def _without_learning(values: Options) -> str:
    """Return `learn` of a stack that acts through a server.

    Raises:
        OptionError: something else is asked for that only a policy of our own can do.
    """
    if values['checkpoint'] not in ('default', 'none'):
        raise OptionError(
            f'server:={values["server"]} and checkpoint:={values["checkpoint"]} exclude each other: one policy acts.'
        )
    if values['learn'] == 'true':
        raise OptionError(
            'server:= leaves nothing to learn: weights of a server cannot be changed from here; record its episodes '
            'with record:=true and ingest them.'
        )
    if not values['units']:
        raise OptionError(NEEDS_UNITS.format('server'))
    return 'false'


def virtual_port(namespace: str) -> str:
    """Path of the virtual arm's port, one for each namespace of each ROS domain."""
    domain = os.environ.get('ROS_DOMAIN_ID', '0')
    parts = ['' if domain == '0' else domain, namespace.strip('/').replace('/', '-')]
    return '-'.join(['/tmp/so101-virtual-arm', *filter(None, parts)])

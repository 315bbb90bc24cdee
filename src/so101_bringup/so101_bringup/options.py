# SPDX-License-Identifier: Apache-2.0
"""What can be chosen when starting the stack: `name:=value`, as ros2 launch takes it, or `--name value`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Option:
    """One choice.

    Attributes:
        default: Its value where nothing is said; its type is the option's type.
        doc: What it is, one or two sentences.
        choices: What it may be; empty: anything of its type.
    """

    default: bool | int | str
    doc: str
    choices: tuple[str, ...] = ()


Options = Mapping[str, bool | int | str]

# As in so101_description.tcp; a test compares. Importing it here would load the whole model for `--help`.
TCPS = ('so101', 'so_arm100', 'pick101', 'menagerie')

OPTIONS: Mapping[str, Option] = {
    'namespace': Option('', 'Namespace of all nodes; a second arm gets another one.'),
    'sim': Option(True, 'A simulated arm behind a virtual servo bus instead of the real one.'),
    'task': Option('lift', 'What the simulated scene is for.', ('lift', 'place')),
    'preset': Option('easy', 'How hard the simulated scene is.', ('easy', 'wide', 'gap', 'pick101')),
    'operator': Option(
        'auto',
        'The scripted operator of the simulation: demonstrate drives whole episodes, intervene helps the policy '
        'when it fails, scripted is the one of them that fits; auto: scripted in the simulation unless a teleop '
        'device is named.',
        ('auto', 'none', 'scripted', 'demonstrate', 'intervene'),
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
    'learn': Option(
        'auto',
        'Learn while the arm runs; auto: yes, unless the scripted operator demonstrates.',
        ('auto', 'true', 'false'),
    ),
    'run': Option(
        'runs/live', 'Folder of the learner: buffers, checkpoints, metrics. It goes on where it stopped.'
    ),
    'demos': Option('', 'Folder of demonstrations that were ingested, for the learner to begin with.'),
    'record': Option('false', 'Record bags: false, true (into bags/) or a folder.'),
    'episodes': Option(0, 'End by itself after this many episodes; 0: never.'),
    'console': Option(True, "The operator's page."),
    'console_port': Option(
        8101, 'Port of the page on http://127.0.0.1; a second stack gets another one, 0 takes a free one.'
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
        if not text.isdecimal():
            raise OptionError(f'{name}:={text} is not a whole number of at least 0.')
        return int(text)
    return text


def resolve(options: Options) -> dict[str, bool | int | str]:
    """Return the options with every `auto`, and every value that depends on another one, decided.

    `operator` becomes none, demonstrate or intervene; `learn` a boolean; `record` a folder or empty.

    Raises:
        OptionError: two choices exclude each other.
    """
    values = dict(options)
    asked = values['operator']
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
    if asked == 'auto':
        values['operator'] = 'intervene' if values['sim'] and values['teleop'] == 'none' else 'none'
    elif asked == 'scripted':
        alone = learn != 'true' and values['checkpoint'] in ('default', 'none')
        values['operator'] = 'demonstrate' if alone else 'intervene'
    values['learn'] = learn == 'true' or (learn == 'auto' and asked in ('auto', 'none', 'intervene'))
    values['record'] = {'false': '', 'true': 'bags'}.get(str(values['record']), values['record'])
    return values

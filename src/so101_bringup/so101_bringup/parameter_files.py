# SPDX-License-Identifier: Apache-2.0
"""The parameter files in config/: what they hold for a node, and the refusal of what would have no effect.

A file holds what differs from a node's own default. ROS ignores a misspelt key or section without a word, and a value
that the stack sets itself would be overridden; both are refused here, before anything starts, with a sentence.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType
from typing import Any

from so101_bringup.options import OptionError
from so101_bringup.programs import NodeSpec
from so101_bringup.stack import NODES
from so101_interfaces_py.files import read_text
from so101_interfaces_py.params import check_bounds, describe, from_mapping, merged, ParameterError
from so101_interfaces_py.yaml_text import load_yaml

FILES: Mapping[str, list[str]] = {
    file: [node for node, (_, own) in NODES.items() if own == file] for _, file in NODES.values()
}
"""Parameter file -> the nodes that read it."""

_TRAITS = (
    'noise aim_error_m tremor_m speed hesitation attention lapses_per_minute lapse_s reaction_s reaction_spread_s '
    'late_share late_s overlong_share overlong_s wrong_label_share missing_label_share sight_error_m'
)
"""What the human of operator:= is like; a test compares with `so101_sim.human.traits`."""

_DECISIONS: Mapping[str, str] = {
    'the policy of checkpoint:= decides it': 'action_scale_m camera camera_preset control_rate_hz ik_profile profile '
    'rate_hz',
    'the simulated arm of sim:=true needs it': 'connect_timeout_s joint_timeout_s reading_timeout_s',
    'the camera of camera:= takes the place of the simulated one': 'camera_rate_hz',
    'the files that are read are the ones that are stored': 'config',
    'sim:= and task:= decide it': 'autostart enable_at_start scene simulated starts',
    'reward:= or the task decides it': 'reward_source',
    'a trial begins when the object lies where it shall': 'auto',
    'namespace:= decides it': 'frame_prefix link',
    'place:= decides it': 'place world_frame',
    'the reward of task:= decides it': 'labels',
    'set reset:= instead': 'put_back',
    'learn:= decides it': 'policy_node.mode',
    'base:= decides it': 'agent as_base policy_node.base',
    '--stack lerobot or lerobot:= decides it': 'drives',
    'a server has no other': 'vla_policy_node.mode',
    'a session that shall be recorded does not go on unrecorded': 'pauses_session',
    'set observation:= or checkpoint:= instead': 'observation',
    'set tcp:= or checkpoint:= instead': 'tcp',
    'set port:= (with sim:=false) instead': 'arm_node.port',
    **{
        f'set {option}:= instead': parameter
        for option, parameter in (
            *(
                ('calibration', 'calibration'),
                ('camera', 'source'),
                ('cameras', 'cameras drawn_cameras sources'),
                ('checkpoint', 'policy'),
                ('demos', 'demos'),
            ),
            *(('instruction', 'instruction'), ('server', 'server'), ('units', 'units')),
            *(('console_port', 'console_node.port'), ('episodes', 'episodes'), ('leader', 'leader_port')),
            *(
                ('operator', f'operator_node.mode {_TRAITS}'),
                ('preset', 'preset'),
                ('from', 'origin'),
                ('record', 'out console_node.bags'),
                ('phone', 'console_node.host'),
                ('run', 'learner_node.directory'),
                ('classifier', 'classifier_node.directory'),
                ('trial', 'plan'),
            ),
            *(('task', 'task workspace_min workspace_max'), ('teleop', 'device'), ('tf', 'publish_tf')),
        )
    },
}


def decided_by(node: str, parameter: str) -> str:
    """Return what decides a parameter that the stack sets, and so what to use instead of a file."""
    wanted = {parameter, f'{node}.{parameter}'}
    return next(what for what, parameters in _DECISIONS.items() if wanted.intersection(parameters.split()))


@dataclass(frozen=True)
class Section:
    """What a file says to one node.

    Attributes:
        path: the file.
        title: its section, as it is written there.
        node: name of the node.
        values: its parameters.
    """

    path: Path
    title: str
    node: str
    values: Mapping[str, Any]


def check_files(nodes: Sequence[NodeSpec], folder: Path) -> None:
    """Check the parameter files of a folder, and that the nodes of a stack would follow what they say.

    Raises:
        OptionError: a file cannot be read, names what does not exist, holds a value that a node does not take, or one
            that the stack sets itself.
    """
    started = {node.name: node for node in nodes}
    for name in FILES:
        for section in read_sections(folder / name):
            if section.values:
                own = started.get(section.node)
                _check_keys(section, own)
                _check_effect(section, own)
                _check_values(section, own)


def read_sections(path: Path) -> Iterator[Section]:
    """Yield what a file says to each of its nodes; nothing where there is no file.

    Raises:
        OptionError: it is no parameter file of these nodes.
    """
    if not path.exists():
        return
    try:
        content = load_yaml(read_text(path))
    except (OSError, ValueError) as error:
        raise OptionError(f'{path} cannot be read: {" ".join(str(error).split())}.') from error
    nodes = FILES[path.name]
    if content is None:
        return
    if not isinstance(content, dict):
        raise OptionError(f'{path} holds no sections; it begins with: /**/{nodes[0]}:')
    for title, block in content.items():
        wanted = str(title).split('/')[-1]
        if wanted not in (*nodes, '*', '**'):
            raise OptionError(
                f'{path}: there is no node {str(title)!r} that reads it; its sections are: '
                f'{", ".join(f"/**/{node}" for node in nodes)}.'
            )
        if not isinstance(block, dict) or set(block) != {'ros__parameters'}:
            raise OptionError(
                f'{path}: {title} holds ros__parameters and nothing else; the values stand in that.'
            )
        values = block['ros__parameters'] or {}
        if not isinstance(values, dict):
            raise OptionError(f'{path}: ros__parameters of {title} holds lines of the form "name: value".')
        for node in [wanted] if wanted in nodes else nodes:
            yield Section(path, str(title), node, {str(key): value for key, value in values.items()})


def config_types(node: str, given: Mapping[str, Any] | None = None) -> tuple[type, ...]:
    """Return the configurations that declare a node's parameters: of the module that its executable runs.

    Args:
        node: its name.
        given: parameters by name, where some of them decide which others there are: `agent` of learner_node.

    Raises:
        ParameterError: one of the given ones excludes another.
    """
    module = _module_of(node)
    choose = getattr(module, 'configs_for', None)
    types: tuple[type, ...] = module.CONFIG if choose is None or given is None else choose(given)
    return types


@cache  # what is installed is looked through once, not for each value
def _module_of(node: str) -> ModuleType:
    point = next(iter(entry_points(group='console_scripts', name=node)))
    return import_module(point.module)


def _check_keys(section: Section, node: NodeSpec | None) -> None:
    decided = {} if node is None else dict(node.parameters)
    try:
        known = merged(*config_types(section.node, {**section.values, **decided}))
    except ParameterError as error:
        raise OptionError(f'{section.path}: {error}') from error
    for key in section.values:
        if key not in known:
            raise OptionError(
                f'{section.path}: {section.node} has no parameter {key!r}; it has: {", ".join(known)}.'
            )


def _check_effect(section: Section, node: NodeSpec | None) -> None:
    """Refuse what the stack sets anyway."""
    if node is None:
        return
    for key in section.values:
        if key in node.parameters:
            raise OptionError(
                f'{section.path}: {key} of {section.node} is {section.values[key]!r} there, but the stack sets it to '
                f'{node.parameters[key]!r}; {decided_by(node.name, key)}; take it out of the file.'
            )


def _check_values(section: Section, node: NodeSpec | None) -> None:
    """Refuse values of a wrong type or out of bounds, and those that exclude each other or what the stack sets."""
    values = dict(section.values) | ({} if node is None else dict(node.parameters))
    for config in config_types(section.node, values):
        own = {key: value for key, value in values.items() if key in describe(config)}
        try:
            check_bounds(from_mapping(config, own))
        except (ValueError, TypeError) as error:
            raise OptionError(f'{section.path}, {section.node}: {error}') from error

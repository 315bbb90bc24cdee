# SPDX-License-Identifier: Apache-2.0
"""A node's parameters, declared once: a frozen dataclass, from which the ROS declaration is derived.

A configuration class looks like this; it needs no ROS, so pure code and tests use it too:

    @dataclass(frozen=True, kw_only=True)
    class DriverConfig:
        port: str = param('/dev/so101', doc='Serial device of the servo bus.')
        rate_hz: float = param(100.0, doc='Control rate.', unit='Hz', lo=1.0, hi=200.0)

        def __post_init__(self) -> None:
            check_bounds(self)

A `live_param` may change while the node runs (`ros2 param set`): `follow` checks the configuration
that would come of it as at the start, and refuses with the same sentence.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
import math
import sys
from types import UnionType
from typing import Any, cast, get_args, get_origin, get_type_hints, TYPE_CHECKING, TypeVar, Union

if TYPE_CHECKING:
    from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
    from rclpy.node import Node
    from rclpy.parameter import Parameter

_KEY = 'so101_param'
_SCALARS = (bool, int, float, str)
ConfigT = TypeVar('ConfigT')


class ParameterError(ValueError):
    """A parameter has a wrong type or value, or does not exist."""


@dataclass(frozen=True)
class ParamInfo:
    """What is known of a parameter beside its type and default."""

    doc: str
    unit: str
    lo: float | None
    hi: float | None
    choices: tuple[Any, ...] | None
    read_only: bool


def param(
    default: Any,
    *,
    doc: str,
    unit: str = '',
    lo: float | None = None,
    hi: float | None = None,
    choices: Sequence[Any] | None = None,
    read_only: bool = True,
) -> Any:
    """Declare one parameter of a configuration dataclass.

    Args:
        default: A bool, int, float, str, or a tuple of float or of str.
        doc: One sentence for people; `ros2 param describe` shows it.
        unit: Unit of the value, for example 'm' or 'rad/s'.
        lo: Smallest value allowed (each element, for a tuple).
        hi: Largest value allowed (each element, for a tuple).
        choices: The values allowed, where they are few.
        read_only: False where a running node accepts a change.
    """
    chosen = None if choices is None else tuple(choices)
    return field(default=default, metadata={_KEY: ParamInfo(doc, unit, lo, hi, chosen, read_only)})


def live_param(default: Any, **how: Any) -> Any:
    """Declare, as `param` does, a parameter that may change while its node runs."""
    return param(default, read_only=False, **how)


def describe(config_type: type) -> dict[str, ParamInfo]:
    """Return name -> information, in the order of declaration."""
    return {f.name: f.metadata[_KEY] for f in fields(config_type) if _KEY in f.metadata}


def check_bounds(config: Any) -> None:
    """Check types, bounds and choices of every field declared with `param`.

    Raises:
        ParameterError: naming the parameter, its value and what is allowed.
    """
    hints = get_type_hints(type(config))
    for name, info in describe(type(config)).items():
        value = getattr(config, name)
        if not _has_type(value, hints[name]):
            raise ParameterError(
                f'{name} = {value!r} has the wrong type: '
                f'expected {_type_name(hints[name])}, got {_type_name(type(value))}.'
            )
        for item in value if isinstance(value, tuple) else (value,):
            _check_item(name, item, info)


def merged(*config_types: type) -> dict[str, ParamInfo]:
    """Return what `describe` does for a node whose parameters are declared by several configurations."""
    return {name: info for config_type in config_types for name, info in describe(config_type).items()}


def from_mapping(config_type: type[ConfigT], values: Mapping[str, Any]) -> ConfigT:
    """Build a configuration from plain values (YAML, JSON, a command line); lists become tuples.

    Raises:
        ParameterError: for a name that the configuration does not have, listing those it has.
    """
    known = describe(config_type)
    unknown = sorted(set(values) - set(known))
    if unknown:
        raise ParameterError(
            f'{config_type.__name__} has no parameter {", ".join(unknown)}; it has: {", ".join(known)}.'
        )
    return config_type(**{name: tuple(v) if isinstance(v, list) else v for name, v in values.items()})


def load_config(node: 'Node', config_type: type[ConfigT]) -> ConfigT:
    """Declare every parameter of a configuration on a node and return the validated instance.

    ROS refuses a value of the wrong type; bounds and choices are checked here, with a sentence.
    A parameter given to the node that the configuration does not have is refused too: ROS itself
    ignores a misspelt one without a word.

    Raises:
        ParameterError: a value is wrong, or a parameter does not exist.
    """
    return cast(ConfigT, load_configs(node, config_type)[0])


def load_configs(node: 'Node', *config_types: type) -> tuple[Any, ...]:
    """Do what `load_config` does for a node whose parameters are declared by several configurations."""
    from rclpy.exceptions import InvalidParameterTypeException

    try:
        values = [_declare(node, config_type) for config_type in config_types]
    except InvalidParameterTypeException as error:
        raise ParameterError(f'{node.get_name()}: {error}') from error
    known = {name: None for one in values for name in one}
    unknown = sorted(set(node._parameter_overrides) - set(known) - {'use_sim_time'})
    if unknown:
        raise ParameterError(
            f'{node.get_name()} has no parameter {", ".join(unknown)}; it has: {", ".join(known)}.'
        )
    return tuple(config_type(**one) for config_type, one in zip(config_types, values, strict=True))


def follow(node: 'Node', config: ConfigT, changed: Callable[[ConfigT], object]) -> None:
    """Let the parameters of a running node change that are not read-only.

    Args:
        node: it has declared them with `load_config`.
        config: what `load_config` returned.
        changed: takes the new configuration, once it is in force; several parameters may be set at once.
    """
    from rcl_interfaces.msg import SetParametersResult

    known, current = describe(type(config)), config

    def with_changes(parameters: 'list[Parameter]') -> ConfigT:
        values = {one.name: one.value for one in parameters if one.name in known}
        plain = {
            name: tuple(value) if isinstance(getattr(config, name), tuple) else value
            for name, value in values.items()
        }
        return cast(ConfigT, replace(cast(Any, current), **plain))

    def check(parameters: 'list[Parameter]') -> 'SetParametersResult':
        try:
            with_changes(parameters)
        except ValueError as error:
            return SetParametersResult(successful=False, reason=str(error))
        return SetParametersResult(successful=True)

    def apply(parameters: 'list[Parameter]') -> None:
        nonlocal current
        new = with_changes(parameters)
        if new != current:
            current = new
            changed(new)

    node.add_on_set_parameters_callback(check)
    node.add_post_set_parameters_callback(apply)


def _declare(node: 'Node', config_type: type) -> dict[str, Any]:
    from rclpy.exceptions import InvalidParameterValueException

    hints = get_type_hints(config_type)
    values: dict[str, Any] = {}
    for f in fields(config_type):
        info = f.metadata.get(_KEY)
        if info is None:
            continue
        default = list(f.default) if isinstance(f.default, tuple) else f.default
        try:
            value = node.declare_parameter(f.name, default, _descriptor(info, hints[f.name])).value
        except InvalidParameterValueException as error:
            _check_item(
                f.name, node._parameter_overrides[f.name].value, info
            )  # which says it with unit and bounds
            raise ParameterError(str(error)) from error
        values[f.name] = tuple(value) if get_origin(hints[f.name]) is tuple else value
    return values


def _descriptor(info: ParamInfo, hint: Any) -> 'ParameterDescriptor':
    """Return what `ros2 param describe` shows; ROS itself holds a single number to its range."""
    from rcl_interfaces.msg import FloatingPointRange, IntegerRange, ParameterDescriptor

    descriptor = ParameterDescriptor(description=_sentence(info), read_only=info.read_only)
    bounded = info.choices is None and not (info.lo is None and info.hi is None)
    if bounded and hint is float:
        most = sys.float_info.max
        low, high = (-most if info.lo is None else info.lo), (most if info.hi is None else info.hi)
        descriptor.floating_point_range = [FloatingPointRange(from_value=float(low), to_value=float(high))]
    elif bounded and hint is int:
        lowest, highest = -(2**63), 2**63 - 1
        low, high = (lowest if info.lo is None else info.lo), (highest if info.hi is None else info.hi)
        descriptor.integer_range = [IntegerRange(from_value=int(low), to_value=int(high))]
    else:
        descriptor.additional_constraints = _constraint(info)
    return descriptor


def table(config_type: type) -> str:
    """Return a Markdown table of the parameters, for the documentation."""
    rows = ['| parameter | default | unit | allowed | meaning |', '|---|---|---|---|---|']
    defaults = {f.name: f.default for f in fields(config_type)}
    for name, info in describe(config_type).items():
        default = defaults[name]
        shown = list(default) if isinstance(default, tuple) else default
        live = '' if info.read_only else ' *Changes while the node runs.*'
        rows.append(f'| `{name}` | `{shown}` | {info.unit} | {_constraint(info)} | {info.doc}{live} |')
    return '\n'.join(rows) + '\n'


def _check_item(name: str, item: Any, info: ParamInfo) -> None:
    if info.choices is not None and item not in info.choices:
        raise ParameterError(f'{name} = {item!r} is not one of {", ".join(map(repr, info.choices))}.')
    if isinstance(item, float) and not math.isfinite(item):
        raise ParameterError(f'{name} = {item!r} is not a finite number.')
    below = info.lo is not None and item < info.lo
    above = info.hi is not None and item > info.hi
    if below or above:
        raise ParameterError(
            f'{name} = {item!r} is outside {_range(info)}{" " + info.unit if info.unit else ""}.'
        )


def _has_type(value: Any, hint: Any) -> bool:
    if get_origin(hint) is tuple:
        args = get_args(hint)
        variadic = len(args) == 2 and args[1] is Ellipsis
        if not isinstance(value, tuple) or (not variadic and len(value) != len(args)):
            return False
        return all(
            _has_type(item, args[0] if variadic else arg)
            for item, arg in zip(value, args * len(value), strict=False)
        )
    if get_origin(hint) in (Union, UnionType):
        raise ParameterError(f'a ROS parameter has one type, not {hint}.')
    if hint not in _SCALARS:
        raise ParameterError(f'a parameter is a bool, int, float, str or a tuple of them, not {hint}.')
    return type(value) is hint  # exactly: a bool is no int, and ROS takes no int for a double either


def _type_name(hint: Any) -> str:
    return str(hint) if get_origin(hint) else getattr(hint, '__name__', str(hint))


def _range(info: ParamInfo) -> str:
    return f'[{"-inf" if info.lo is None else info.lo}, {"inf" if info.hi is None else info.hi}]'


def _constraint(info: ParamInfo) -> str:
    if info.choices is not None:
        return ', '.join(map(str, info.choices))
    return '' if info.lo is None and info.hi is None else _range(info)


def _sentence(info: ParamInfo) -> str:
    return f'{info.doc} [{info.unit}]' if info.unit else info.doc

# SPDX-License-Identifier: Apache-2.0
from dataclasses import dataclass

import pytest

from so101_interfaces_py import params
from so101_interfaces_py.params import param, ParameterError


@dataclass(frozen=True, kw_only=True)
class Config:
    rate_hz: float = param(50.0, doc='Control rate.', unit='Hz', lo=1.0, hi=200.0)
    retries: int = param(2, doc='Retries.', lo=0, hi=5)
    fast: bool = param(False, doc='Fast.')
    mode: str = param('a', doc='Mode.', choices=('a', 'b'))
    low: tuple[float, ...] = param((0.1, 0.2), doc='Low corner.', unit='m', lo=0.0, hi=1.0)
    names: tuple[str, ...] = param(('x',), doc='Names.')

    def __post_init__(self) -> None:
        params.check_bounds(self)


@pytest.mark.parametrize(
    ('values', 'words'),
    [
        ({'rate_hz': 500.0}, ['rate_hz', '500.0', '200.0', 'Hz']),
        ({'rate_hz': 50}, ['rate_hz', 'float', 'int']),
        ({'rate_hz': float('nan')}, ['rate_hz', 'finite']),
        ({'fast': 1}, ['fast', 'bool']),
        ({'retries': True}, ['retries', 'int', 'bool']),
        ({'mode': 'c'}, ['mode', "'a'", "'b'"]),
        ({'low': (0.1, -0.5)}, ['low', '-0.5']),
        ({'low': (0.1, 'x')}, ['low', 'type']),
        ({'rate': 50.0}, ['rate', 'rate_hz, retries']),
    ],
    ids=lambda value: '-'.join(value) if isinstance(value, dict) else '',
)
def test_a_bad_value_is_refused_with_its_name_and_what_is_allowed(values, words):
    with pytest.raises(ParameterError) as error:
        params.from_mapping(Config, values)
    for word in words:
        assert word in str(error.value)


def test_lists_become_tuples():
    assert params.from_mapping(Config, {'low': [0.5, 0.6]}).low == (0.5, 0.6)


def test_the_table_has_a_row_for_each_parameter():
    text = params.table(Config)
    assert all(f'| `{name}` |' in text for name in params.describe(Config))


def test_a_parameter_file_is_read_for_the_node_in_any_namespace(tmp_path):
    path = tmp_path / 'a.yaml'
    path.write_text(
        '/**/left:\n  ros__parameters: {a: 1}\n/**:\n  ros__parameters: {b: 2}\nother:\n  ros__parameters: {c: 3}\n'
    )
    assert params.read_yaml(path, 'left') == {'a': 1, 'b': 2}


class TestOnANode:
    @pytest.fixture
    def make_node(self, ros):
        from rclpy.node import Node

        nodes = []

        def make(**overrides):
            given = [ros.parameter.Parameter(name, value=value) for name, value in overrides.items()]
            nodes.append(Node('configured', parameter_overrides=given))
            return nodes[-1]

        yield make
        for node in nodes:
            node.destroy_node()

    def test_defaults_and_overrides_reach_the_configuration(self, make_node):
        assert params.load_config(make_node(rate_hz=20.0, low=[0.3, 0.4]), Config) == Config(
            rate_hz=20.0, low=(0.3, 0.4)
        )

    def test_a_misspelt_parameter_is_refused(self, make_node):
        with pytest.raises(ParameterError, match='rate_hertz'):
            params.load_config(make_node(rate_hertz=20.0), Config)

    def test_out_of_range_is_refused(self, make_node):
        with pytest.raises(ParameterError, match='rate_hz'):
            params.load_config(make_node(rate_hz=1e6), Config)

    def test_parameters_are_read_only(self, make_node, ros):
        node = make_node()
        params.load_config(node, Config)
        result = node.set_parameters([ros.parameter.Parameter('rate_hz', value=10.0)])[0]
        assert not result.successful

# SPDX-License-Identifier: Apache-2.0
from dataclasses import dataclass

import pytest

from so101_interfaces_py import params
from so101_interfaces_py.params import live_param, param, ParameterError


@dataclass(frozen=True, kw_only=True)
class Live:
    noise: float = live_param(0.1, doc='Noise.', lo=0.0, hi=1.0)
    shortest_s: float = live_param(1.0, doc='Shortest.', unit='s', lo=0.0)
    longest_s: float = live_param(3.0, doc='Longest.', unit='s', lo=0.0)
    tries: int = live_param(3, doc='Tries.', lo=1, hi=5)
    mode: str = live_param('a', doc='Mode.', choices=('a', 'b'))
    point: tuple[float, ...] = live_param((0.1, 0.2), doc='A point.', lo=0.0, hi=1.0)
    fixed: float = param(1.0, doc='Fixed.')

    def __post_init__(self) -> None:
        params.check_bounds(self)
        if self.shortest_s > self.longest_s:
            raise ParameterError(f'expected shortest_s up to longest_s, got {self.shortest_s}; correct one')


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

    @pytest.fixture
    def live(self, make_node, ros):
        """A node whose parameters are followed: what sets them, and what has become of them."""
        node = make_node()
        heard = [params.load_config(node, Live)]
        params.follow(node, heard[0], heard.append)

        def change(**values):
            wanted = [ros.parameter.Parameter(name, value=value) for name, value in values.items()]
            return node.set_parameters_atomically(wanted)

        return change, heard, node

    def test_what_may_change_does_so_within_bounds_while_the_node_runs(self, live):
        change, heard, node = live
        assert change(noise=0.5, tries=5).successful
        assert change(point=[0.5, 0.6]).successful
        assert heard[-1] == Live(noise=0.5, tries=5, point=(0.5, 0.6))
        assert node.get_parameter('noise').value == 0.5
        assert change(shortest_s=4.0, longest_s=6.0).successful, 'both at once fit each other'
        assert (heard[-1].shortest_s, heard[-1].longest_s) == (4.0, 6.0)

    @pytest.mark.parametrize(
        ('values', 'words'),
        [
            ({'noise': 1.5}, ['noise', '1.0', '1.5']),
            ({'noise': float('nan')}, ['noise', 'nan']),
            ({'tries': 0}, ['tries', '1', '5']),
            ({'mode': 'c'}, ['mode', "'a'", "'b'"]),
            ({'point': [0.5, 1.5]}, ['point', '1.5']),
            ({'shortest_s': 5.0}, ['shortest_s up to longest_s', 'correct one']),
            ({'fixed': 2.0}, ['read-only', 'fixed']),
            ({'noise': 0.2, 'longest_s': 0.5}, ['shortest_s up to longest_s']),
        ],
        ids=str,
    )
    def test_a_change_that_cannot_be_is_refused_with_a_sentence_and_changes_nothing(
        self, live, values, words
    ):
        change, heard, node = live
        result = change(**values)
        assert not result.successful
        assert all(word in result.reason for word in words), result.reason
        assert '\n' not in result.reason
        assert heard == [Live()]
        assert node.get_parameter('noise').value == 0.1

    def test_the_bounds_of_a_number_are_told_as_ros_tells_them(self, live):
        _, _, node = live
        noise, tries, point = (node.describe_parameter(name) for name in ('noise', 'tries', 'point'))
        assert [(r.from_value, r.to_value) for r in noise.floating_point_range] == [(0.0, 1.0)]
        assert [(r.from_value, r.to_value) for r in tries.integer_range] == [(1, 5)]
        assert not noise.additional_constraints
        assert point.additional_constraints == '[0.0, 1.0]'

# SPDX-License-Identifier: Apache-2.0
"""`ros2 param set` on a graph that runs: what may change changes, what may not is refused with a sentence."""

import json
import time

import pytest

rclpy = pytest.importorskip('rclpy')

from rcl_interfaces.srv import GetParameters, SetParametersAtomically
from rclpy.parameter import Parameter
from websockets.sync.client import connect

from so101_testing.console_rig import ConsoleRig

PATIENCE_S = 300.0


class Hand:
    """Sets parameters as the command line does."""

    def __init__(self):
        rclpy.init()
        self.node = rclpy.create_node('graph_client')

    def call(self, kind, name, **fields):
        client = self.node.create_client(kind, name)
        assert client.wait_for_service(PATIENCE_S), name
        answer = client.call_async(kind.Request(**fields))
        rclpy.spin_until_future_complete(self.node, answer, timeout_sec=PATIENCE_S)
        self.node.destroy_client(client)
        return answer.result()

    def set(self, node, **values):
        wanted = [Parameter(name, value=value).to_parameter_msg() for name, value in values.items()]
        return self.call(
            SetParametersAtomically, f'{node}/set_parameters_atomically', parameters=wanted
        ).result

    def get(self, node, name):
        (value,) = self.call(GetParameters, f'{node}/get_parameters', names=[name]).values
        return rclpy.parameter.parameter_value_to_python(value)

    def close(self):
        self.node.destroy_node()
        rclpy.try_shutdown()


@pytest.fixture(scope='module')
def graph():
    with ConsoleRig('arm', 'kinematics', 'operator') as rig:
        rig.add('session')
        rig.add('policy', policy='default', mode='explore')
        address = rig.console()
        hand = Hand()
        yield hand, address
        hand.close()


def coach(address):
    """What the coach says on the page."""
    with connect(address.replace('http', 'ws') + '/live', origin=address) as page:
        deadline = time.monotonic() + PATIENCE_S
        while time.monotonic() < deadline:
            message = page.recv(timeout=PATIENCE_S)
            if isinstance(message, str) and 'coach' in (state := json.loads(message)):
                return ' '.join(state['coach'])
    raise AssertionError('the coach says nothing')


@pytest.mark.parametrize(
    ('node', 'values'),
    [
        ('operator_node', {'noise': 0.3, 'attention': 0.5, 'patience_s': 2.5}),
        ('operator_node', {'shortest_s': 4.0, 'longest_s': 6.0}),
        ('policy_node', {'mode': 'eval', 'max_std': 0.05}),
        ('console_node', {'coach_rewarded': 0.5, 'coach_long_steps': 20}),
    ],
    ids=lambda value: value if isinstance(value, str) else '',
)
def test_noise_rates_of_help_and_thresholds_of_the_coach_change_while_the_graph_runs(graph, node, values):
    hand, _ = graph
    result = hand.set(node, **values)
    assert result.successful, result.reason
    assert {name: hand.get(node, name) for name in values} == pytest.approx(values)


@pytest.mark.parametrize(
    ('node', 'values', 'words'),
    [
        ('operator_node', {'noise': 1.5}, ['noise', '1.5', '1.0']),
        ('operator_node', {'shortest_s': 50.0}, ['shortest_s up to longest_s']),
        ('policy_node', {'mode': 'wild'}, ["'wild'", 'explore']),
        ('console_node', {'coach_enough': 100}, ['coach_enough up to coach_window']),
        ('console_node', {'port': 1}, ['read-only', 'port']),
        ('arm_node', {'max_lead_rad': 1.0}, ['read-only', 'max_lead_rad']),
    ],
    ids=lambda value: value if isinstance(value, str) else '',
)
def test_what_cannot_be_is_refused_with_a_sentence(graph, node, values, words):
    hand, _ = graph
    before = {name: hand.get(node, name) for name in values}
    result = hand.set(node, **values)
    assert not result.successful
    assert all(word in result.reason for word in words), result.reason
    assert {name: hand.get(node, name) for name in values} == before


def test_the_page_says_at_once_what_the_coach_goes_by_now(graph):
    hand, address = graph
    assert hand.set('console_node', coach_enough=19).successful
    deadline = time.monotonic() + PATIENCE_S
    while 'of the 19 episodes' not in coach(address):
        assert time.monotonic() < deadline

# SPDX-License-Identifier: Apache-2.0
"""What a node is sent does not end it: real messages over DDS, between two nodes of one process."""

import time

import pytest

rclpy = pytest.importorskip('rclpy')

from rcl_interfaces.msg import Parameter, ParameterValue
from rcl_interfaces.srv import SetParameters
from rclpy.executors import SingleThreadedExecutor
from rclpy.qos import QoSProfile
from rclpy.serialization import serialize_message
from sensor_msgs.msg import JointState
from so101_interfaces.msg import EpisodeEvent
from std_srvs.srv import SetBool

from so101_interfaces_py.node import MessageError, MOST_BYTES, MOST_CHARACTERS, Node, read_message
from so101_interfaces_py.spin import executor_for

GOOD = serialize_message(JointState(name=['a'], position=[1.0]))
BAD = [
    b'',
    b'\0',
    b'\0\1\0\0',
    b'\xff' * 40,
    GOOD[:20],
    GOOD[:28] + b'\xff' * 8 + GOOD[36:],
    bytes(MOST_BYTES + 1),
]
DEPTH = QoSProfile(depth=100)


class Graph:
    """A node that hears, and one that sends."""

    def __init__(self, context, make_executor):
        self.ear, self.mouth = (Node(name, context=context) for name in ('ear', 'mouth'))
        self.errors = []
        self.ear.get_logger = lambda: self
        self._executor = make_executor(self.ear)
        for node in (self.ear, self.mouth):
            self._executor.add_node(node)

    def error(self, text):
        self.errors.append(text)

    def until(self, condition):
        deadline = time.monotonic() + 200.0
        while not condition():
            assert time.monotonic() < deadline
            self._executor.spin_once(timeout_sec=0.05)

    def close(self):
        self._executor.shutdown()
        for node in (self.ear, self.mouth):
            node.destroy_node()


@pytest.fixture(params=[executor_for, lambda node: SingleThreadedExecutor(context=node.context)])
def graph(request):
    context = rclpy.Context()
    rclpy.init(context=context)
    made = Graph(context, request.param)
    yield made
    made.close()
    rclpy.try_shutdown(context=context)


def publish(graph, kind, messages):
    publisher = graph.mouth.create_publisher(kind, 'topic', DEPTH)
    graph.until(publisher.get_subscription_count)
    for message in messages:
        publisher.publish(message)


@pytest.mark.parametrize('raw', [False, True])
def test_bytes_that_are_no_message_are_dropped_and_counted_and_the_next_message_comes(graph, raw):
    heard = []

    def hear(message):
        heard.append(read_message(message, JointState) if raw else message)

    graph.ear.create_subscription(JointState, 'topic', hear, DEPTH, raw=raw)
    publish(graph, JointState, [*BAD, *BAD, GOOD])
    graph.until(lambda: heard)
    assert heard[0].position[0] == 1.0
    assert graph.ear.dropped['topic'] == 2 * len(BAD)
    assert [error.split(': ')[1] for error in graph.errors] == [
        'dropped what cannot be used (1 so far)',
        'dropped what cannot be used (10 so far)',
    ]


@pytest.mark.parametrize(
    'error', [KeyError('wrist'), ValueError('no'), RecursionError(), OverflowError('far')]
)
def test_what_a_message_makes_a_callback_raise_ends_nothing(graph, error):
    heard = []

    def hear(message):
        heard.append(message)
        if len(heard) == 1:
            raise error

    graph.ear.create_subscription(JointState, 'topic', hear, DEPTH)
    publish(graph, JointState, [GOOD, GOOD])
    graph.until(lambda: len(heard) == 2)
    assert graph.ear.dropped['topic'] == 1
    assert graph.errors[0].startswith('topic: dropped what cannot be used (1 so far)')


def test_a_callback_that_wants_the_messages_info_gets_it():
    context = rclpy.Context()
    rclpy.init(context=context)
    graph = Graph(context, lambda node: SingleThreadedExecutor(context=node.context))
    heard = []
    graph.ear.create_subscription(
        JointState, 'topic', lambda data, info: heard.append((data, info)), DEPTH, raw=True
    )
    publish(graph, JointState, [GOOD])
    graph.until(lambda: heard)
    assert heard[0][0] == GOOD
    assert heard[0][1]['source_timestamp'] > 0
    graph.close()
    rclpy.try_shutdown(context=context)


def test_a_request_that_cannot_be_answered_is_refused_with_its_reason(graph):
    def serve(request, response):
        raise ValueError(f'expected nothing, got {request.data}')

    graph.ear.create_service(SetBool, 'service', serve)
    client = graph.mouth.create_client(SetBool, 'service')
    graph.until(client.service_is_ready)
    future = client.call_async(SetBool.Request(data=True))
    graph.until(future.done)
    assert (future.result().success, future.result().message) == (False, 'expected nothing, got True')


def test_a_parameter_of_an_unknown_type_ends_nothing(graph):
    client = graph.mouth.create_client(SetParameters, '/ear/set_parameters')
    graph.until(client.service_is_ready)
    odd = Parameter(name='use_sim_time', value=ParameterValue(type=200))
    for parameters in ([odd], [odd] * 3):
        future = client.call_async(SetParameters.Request(parameters=parameters))
        graph.until(future.done)
        assert not any(result.successful for result in future.result().results)


def test_texts_have_a_bound():
    longest = EpisodeEvent(reason='x' * MOST_CHARACTERS)
    assert read_message(serialize_message(longest), EpisodeEvent) == longest
    longer = serialize_message(EpisodeEvent(reason='x' * (MOST_CHARACTERS + 1)))
    with pytest.raises(MessageError, match='4000 characters as reason'):
        read_message(longer, EpisodeEvent)

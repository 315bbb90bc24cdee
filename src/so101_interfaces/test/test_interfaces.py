# SPDX-License-Identifier: Apache-2.0
"""The interface files and what the nodes share beside them."""

from pathlib import Path
import re

import numpy as np
import pytest

pytest.importorskip('rclpy')

from builtin_interfaces.msg import Time
from rclpy.qos import qos_check_compatible, QoSCompatibility
from sensor_msgs.msg import JointState
from so101_interfaces.msg import ArmStatus, EpisodeEvent
from so101_interfaces.srv import EndEpisode

from so101_interfaces_py import conversions, qos, topics

PACKAGE = Path(__file__).parents[1]
FILES = sorted([*PACKAGE.glob('msg/*.msg'), *PACKAGE.glob('srv/*.srv')])


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.name)
def test_every_interface_says_what_it_is_for(path):
    assert path.read_text().startswith('# ')


@pytest.mark.parametrize('path', FILES, ids=lambda path: path.name)
def test_every_interface_is_built(path):
    assert f'{path.parent.name}/{path.name}' in (PACKAGE / 'CMakeLists.txt').read_text()


def test_every_field_says_what_it_means():
    for path in FILES:
        for line in path.read_text().splitlines():
            if line and not re.match(r'#|---|bool success$|uint8 [A-Z_]+=|std_msgs/Header', line):
                assert '#' in line, f'{path.name}: {line}'


def test_outcomes_have_the_values_of_the_events():
    for name in ('SUCCESS', 'FAILURE', 'DISCARD', 'TIME_LIMIT'):
        assert getattr(EndEpisode.Request, name) == getattr(EpisodeEvent, name)


def test_arm_states_are_distinct():
    states = [ArmStatus.DISABLED, ArmStatus.ENABLED, ArmStatus.HOLD, ArmStatus.E_STOP, ArmStatus.FAULT]
    assert len(set(states)) == len(states)


def test_publishers_and_subscribers_of_one_kind_match():
    pairs = [
        (getattr(qos, name), getattr(qos, name))
        for name in vars(qos)
        if name.isupper() and name != 'STATE_SUBSCRIBER'
    ]
    pairs.append((qos.STATE_PUBLISHER, qos.STATE_SUBSCRIBER))
    profiles = [pair for pair in pairs if hasattr(pair[0], 'reliability')]
    assert len(profiles) >= 8
    for publisher, subscriber in profiles:
        assert qos_check_compatible(publisher, subscriber)[0] != QoSCompatibility.ERROR


def test_names_are_relative_so_that_a_namespace_makes_a_second_arm():
    said = [value for name, value in vars(topics).items() if name.isupper() and isinstance(value, str)]
    absolute = [value for value in (*said, *topics.CAMERAS.values()) if value.startswith('/')]
    assert sorted(absolute) == ['/diagnostics', '/tf', '/tf_static']


def test_joints_are_taken_by_name_not_by_order():
    message = JointState(name=['b', 'a'], position=[2.0, 1.0])
    assert conversions.joint_positions(message, ('a', 'b')).tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    ('name', 'position', 'error'),
    [
        (['a'], [1.0], KeyError),
        (['a', 'b'], [1.0], ValueError),
        (['a', 'a', 'b'], [1.0, 2.0, 3.0], ValueError),
    ],
    ids=['missing', 'fewer positions', 'twice'],
)
def test_a_bad_joint_message_is_refused(name, position, error):
    with pytest.raises(error):
        conversions.joint_positions(JointState(name=name, position=position), ('a', 'b'))


@pytest.mark.parametrize('nanoseconds', [0, 1, 999_999_999, 1_000_000_000, 1_700_000_000_123_456_789])
def test_stamps_survive_both_ways(nanoseconds):
    assert conversions.stamp_to_ns(conversions.ns_to_stamp(nanoseconds)) == nanoseconds


def test_an_image_message_holds_the_bytes_of_the_array():
    array = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)[:, ::2]
    message = conversions.array_to_image(array, 'rgb8', Time(), 'camera')
    assert (message.height, message.width, message.step) == (4, 3, 9)
    assert bytes(message.data) == array.tobytes()

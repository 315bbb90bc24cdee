# SPDX-License-Identifier: Apache-2.0
"""What RViz and Foxglove are told to show is there: topics, fields, panels."""

import json
from pathlib import Path
import re

import pytest
import yaml

from so101_bringup.stack import RVIZ_ARMS, RVIZ_TOPICS, WORLD
from so101_contract.joints import BASE_FRAME, JOINT_NAMES
from so101_interfaces_py import topics

CONFIG = Path(__file__).parents[3] / 'config'
FOXGLOVE = json.loads((CONFIG / 'so101.foxglove.json').read_text())
PANELS = FOXGLOVE['configById']
TOPICS = {
    '/' + value.strip('/')
    for name, value in vars(topics).items()
    if name.isupper() and isinstance(value, str)
}


def texts(value):
    """Every text in a tree of values, keys of topics included."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from [key] if key.startswith('/') else []
            yield from texts(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from texts(inner)
    elif isinstance(value, str):
        yield value


def places(layout):
    """The panels that a layout places."""
    return {layout} if isinstance(layout, str) else places(layout['first']) | places(layout['second'])


def test_every_panel_has_a_place_and_every_place_a_panel():
    assert places(FOXGLOVE['layout']) == set(PANELS)


def test_every_topic_that_foxglove_shows_is_one_of_ours():
    shown = {re.split(r'[.\[]', text)[0] for text in texts(PANELS) if text.startswith('/')}
    assert shown
    assert shown <= TOPICS


def test_every_topic_that_rviz_shows_is_one_of_ours_and_relative():
    displays = yaml.safe_load((CONFIG / 'so101.rviz').read_text())['Visualization Manager']['Displays']
    shown = [d.get('Topic', d.get('Description Topic'))['Value'] for d in displays if 'opic' in ' '.join(d)]
    assert len(shown) == 3
    assert all(f'/{topic}' in TOPICS for topic in shown)  # relative: rviz2 in a namespace shows that arm


def test_every_field_that_foxglove_draws_is_in_its_message():
    pytest.importorskip('rclpy')
    from sensor_msgs.msg import JointState
    from so101_interfaces.msg import ArmStatus, LearnerStatus, SessionStatus

    kinds = {
        topics.LEARNER_STATUS: LearnerStatus, topics.SESSION_STATUS: SessionStatus,
        topics.ARM_STATUS: ArmStatus, topics.JOINT_STATES: JointState,
    }  # fmt: skip
    drawn = [text.partition('.') for text in texts(PANELS) if text.startswith('/') and '.' in text]
    assert len(drawn) > 10
    for topic, _, field in drawn:
        assert field.partition('[')[0] in kinds[topic.strip('/')].get_fields_and_field_types()


def test_both_see_the_arm_in_its_base_and_all_joints():
    assert PANELS['3D!arm']['followTf'] == BASE_FRAME
    assert [path['label'] for path in PANELS['Plot!joints']['paths']] == list(JOINT_NAMES)


def test_the_rviz_of_two_arms_shows_of_each_what_that_of_one_shows():
    one, two = (
        yaml.safe_load((CONFIG / name).read_text())['Visualization Manager']
        for name in ('so101.rviz', 'so101_two.rviz')
    )

    def shown(view):
        return sorted(
            d.get('Topic', d.get('Description Topic'))['Value']
            for d in view['Displays']
            if 'opic' in ' '.join(d)
        )

    assert set(shown(one)) == set(RVIZ_TOPICS)
    assert shown(two) == sorted(f'{arm}/{topic}' for arm in RVIZ_ARMS for topic in RVIZ_TOPICS)
    assert one['Global Options']['Fixed Frame'] == BASE_FRAME
    assert two['Global Options']['Fixed Frame'] == two['Views']['Current']['Target Frame'] == WORLD

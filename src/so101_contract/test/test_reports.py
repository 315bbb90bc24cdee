# SPDX-License-Identifier: Apache-2.0
"""Ground truth and session status survive the way through their messages; old bags' JSON still reads."""

from dataclasses import asdict, replace
import json
import math
from pathlib import Path
import re

import pytest

from so101_contract import session as session_status
from so101_contract import task_report
from so101_contract.errors import ContractError
from so101_contract.task_report import AtPoint, AtPose, NearCube, Status, TaskReport, TaskState

from .truths import TRUTH

MESSAGES = Path(__file__).parents[2] / 'so101_interfaces' / 'msg'
STATE = TaskState(TRUTH, Status(good_steps=2, dropped=True), 0.25, 3, {'reach': 0.1, 'lift': 0.15})
REPORT = TaskReport(1_700_000_000_123_456_789, 'lift', 'easy', STATE, 100, AtPoint())
STATUS = session_status.SessionStatus(
    state=session_status.SessionState.PAUSED,
    sentence='paused; the arm holds',
    driver=session_status.Driver.HUMAN,
    intervening=True,
    paused=True,
    episode=4,
    index=17,
    limit=100,
    episodes=3,
    wanted=10,
    outcomes={'success': 2, 'failure': 1, 'discard': 0, 'time_limit': 0, 'abort': 5},
    answers={name: number for number, name in enumerate(session_status.ANSWERS)},
    clipped={'x': 0.25, 'y': 0.0, 'z': 0.5, 'gripper': 1.0},
    reward='classifier,gripper',
    measured=4,
    truly=3,
    false_success=1,
    false_failure=0,
    jitter_p50_s=0.25,
    jitter_p99_s=0.5,
    intervention_rate=0.125,
    intervention_length=8.0,
    human=session_status.HumanSeconds(takeovers=2.5, labels=4.0),
    human_until_unaided_s=6.5,
    resets_by_arm=3,
    resets_by_human=1,
)


def constants(message, names):
    text = (MESSAGES / message).read_text()
    found = dict(re.findall(r'^uint8 ([A-Z_]+)=(\d+)', text, re.MULTILINE))
    return [int(found[name.upper()]) for name in names]


@pytest.mark.skipif(
    not MESSAGES.is_dir(), reason='needs the sources of so101_interfaces next to this package'
)
def test_constants_are_those_of_the_messages():
    assert constants('SessionStatus.msg', session_status.STATES[:-1]) == list(
        range(len(session_status.STATES) - 1)
    )
    assert constants('SessionStatus.msg', session_status.DRIVERS[:-1]) == list(
        range(len(session_status.DRIVERS) - 1)
    )
    kinds = [task_report.AT_POSE, task_report.AT_POINT, task_report.NEAR_CUBE]
    assert constants('ArmStart.msg', ['AT_POSE', 'AT_POINT', 'NEAR_CUBE']) == kinds


@pytest.mark.parametrize(
    'report',
    [
        REPORT,
        replace(REPORT, arm_start=AtPose(q=(0.0, 0.1, 0.2, 0.3, 0.4, 0.5), spread=0.2)),
        replace(REPORT, arm_start=NearCube(away=(0.08, 0.12), height=0.1)),
        replace(REPORT, arm_start=NearCube()),
        replace(
            REPORT,
            state=TaskState(
                replace(TRUTH, tray_position=(0.2, 0.1, 0.0), in_tray=True), Status(success=True), 1.0, 0
            ),
        ),
    ],
    ids=['point', 'pose', 'cube', 'cube at its height', 'tray'],
)
def test_a_report_survives_its_message(report):
    msg = pytest.importorskip('so101_interfaces.msg')
    from rclpy.serialization import deserialize_message, serialize_message

    message = task_report.from_record(report, msg.TaskReport())
    assert message.header.frame_id == 'base_link'
    read = deserialize_message(serialize_message(message), msg.TaskReport)
    assert task_report.to_record(read) == report


def test_a_way_to_place_the_arm_that_is_not_known_is_refused():
    msg = pytest.importorskip('so101_interfaces.msg')
    message = task_report.from_record(REPORT, msg.TaskReport())
    message.arm_start.kind = 9
    with pytest.raises(ContractError, match='got 9'):
        task_report.to_record(message)


@pytest.mark.parametrize('odd', [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ('start', 'name'), [(AtPose(), 'joint_spread'), (AtPoint(), 'pitch'), (NearCube(), 'wrist_flex')]
)
def test_a_place_to_start_from_that_is_no_place_is_refused(start, name, odd):
    msg = pytest.importorskip('so101_interfaces.msg')
    message = task_report.from_record(replace(REPORT, arm_start=start), msg.TaskReport())
    setattr(message.arm_start, name, odd)
    with pytest.raises(ContractError, match='expected finite numbers of a place to start from'):
        task_report.to_record(message)


def test_what_bags_held_before_the_message_existed_still_reads():
    old = {
        'stamp_ns': REPORT.stamp_ns,
        'task': 'lift',
        'preset': 'easy',
        'resets': 3,
        'reward': 0.25,
        'reward_terms': {'reach': 0.1, 'lift': 0.15},
        **asdict(STATE.status),
        **asdict(TRUTH),
    }
    assert task_report.from_json(json.dumps(old)) == replace(REPORT, max_steps=0)
    del old['reward_terms']  # the oldest ones
    assert task_report.from_json(json.dumps(old)).state.terms == {}


@pytest.mark.parametrize('text', ['nonsense', '[1]', '{}', '{"success": true}'])
def test_what_is_no_ground_truth_is_refused(text):
    with pytest.raises(ContractError, match='ground truth'):
        task_report.from_json(text)


def test_the_status_survives_its_message():
    msg = pytest.importorskip('so101_interfaces.msg')
    from rclpy.serialization import deserialize_message, serialize_message

    message = session_status.from_record(STATUS, msg.SessionStatus())
    read = deserialize_message(serialize_message(message), msg.SessionStatus)
    assert session_status.to_record(read) == STATUS

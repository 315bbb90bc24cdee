# SPDX-License-Identifier: Apache-2.0
"""Parity tells a bit-identical observation from any other, and a lost one from a wrong one."""

import json

import bag_maker
from bag_maker import Session, SPEC, write
import pytest

from so101_bags.check.bag import check_parity
from so101_bags.records import read_records
from so101_bags.storage import BagError, RawMessage
from so101_contract.assembly import Assembler
from so101_contract.messages import StepRecord
from so101_contract.observation import observation_digest
from so101_contract.observation_spec import get_observation
from so101_kinematics.fk import state_function

BOTH = get_observation('compact', cameras=['wrist', 'front'])


def observed(messages, tmp_path, spec=SPEC):
    """The messages, with what a policy that saw all of them logs."""
    bag = write(tmp_path / 'seen', messages)
    assembler, logged = Assembler(spec, state_function(spec)), []
    for record in read_records(bag, spec):
        assembler.push(record)
        if (
            isinstance(record, StepRecord)
            and not record.ends
            and assembler.ready(record.episode, record.index)
        ):
            digest = observation_digest(assembler.observation(record.episode, record.index))
            said = {'episode': record.episode, 'index': record.index, 'sha256': digest}
            data = bag_maker.pack('std_msgs/msg/String', data=json.dumps(said))
            logged.append(
                RawMessage('/policy/observed', 'std_msgs/msg/String', record.stamp_ns + 9_000_000, data)
            )
    return sorted([*messages, *logged], key=lambda message: message.log_ns)


def test_P24_every_observation_of_a_whole_bag_is_bit_identical(tmp_path):
    bag = write(tmp_path / 'bag', observed(Session(episodes=5).messages(), tmp_path))
    report = check_parity(bag, SPEC)
    assert (report.compared, report.equal, report.lost, report.unseen) == (55, 55, [], 5)


def test_P24_with_lost_frames_what_is_left_is_bit_identical_and_the_rest_is_not_guessed(tmp_path):
    messages = observed(Session(episodes=4, lost_images=0.05).messages(), tmp_path)
    report = check_parity(write(tmp_path / 'bag', messages), SPEC)
    assert report.compared > 20
    assert report.different == []
    assert report.lost == []


@pytest.mark.parametrize('lost', [0.0, 0.05])
def test_P24_with_two_cameras_observations_are_bit_identical(lost, tmp_path):
    session = Session(episodes=4, front=True, lost_images=lost, observation_hash=BOTH.hash)
    messages = observed(session.messages(), tmp_path, BOTH)
    report = check_parity(write(tmp_path / 'bag', messages), BOTH)
    assert report.compared == report.equal > 15
    assert report.different == report.lost == []


def test_P24_a_single_changed_bit_is_found(tmp_path):
    messages = observed(Session().messages(), tmp_path)
    images = [i for i, message in enumerate(messages) if message.topic == '/gripper_cam/image_raw']
    for i in images:
        messages[i] = messages[i]._replace(data=messages[i].data[:-9000] + b'\xff' * 9000)
    report = check_parity(write(tmp_path / 'bag', messages), SPEC)
    assert len(report.different) == report.compared == 22


def test_P24_a_frame_that_only_the_recorder_lost_is_reported_as_lost(tmp_path):
    messages = observed(Session(episodes=1).messages(), tmp_path)
    steps = [message for message in messages if message.topic == '/session/step']
    named = bag_maker.store().deserialize_cdr(steps[6].data, steps[6].msgtype).image_stamps[0]
    stamp = named.sec * 10**9 + named.nanosec
    kept = [
        m for m in messages if not (m.topic == '/gripper_cam/image_raw' and m.log_ns == stamp + 2_000_000)
    ]
    report = check_parity(write(tmp_path / 'bag', kept), SPEC)
    assert [lost[:2] for lost in report.lost] == [(1, 6), (1, 7), (1, 8)]  # every stack that it is in
    assert report.different == []
    without_step = [m for m in messages if m is not steps[3]]
    assert (1, 3) in [lost[:2] for lost in check_parity(write(tmp_path / 'other', without_step), SPEC).lost]


def test_P24_a_restarted_session_is_compared_with_its_own_hashes(tmp_path):
    later = bag_maker.START_NS + 20 * 10**9
    messages = [
        *observed(Session(seed=1).messages(), tmp_path / 'a'),
        *observed(Session(seed=2, start_ns=later).messages(), tmp_path / 'b'),
    ]
    report = check_parity(write(tmp_path / 'bag', messages), SPEC)
    assert (report.compared, report.equal, report.lost) == (44, 44, [])


def test_a_hash_that_is_no_json_gives_one_sentence(tmp_path):
    messages = Session().messages()
    said = RawMessage(
        '/policy/observed',
        'std_msgs/msg/String',
        messages[-1].log_ns,
        bag_maker.pack('std_msgs/msg/String', data='{'),
    )
    with pytest.raises(BagError, match='expected JSON with episode, index and sha256'):
        check_parity(write(tmp_path / 'bag', [*messages, said]), SPEC)


def test_a_bag_without_hashes_is_refused(tmp_path):
    with pytest.raises(BagError, match='record while a policy runs'):
        check_parity(write(tmp_path / 'bag', Session().messages()), SPEC)

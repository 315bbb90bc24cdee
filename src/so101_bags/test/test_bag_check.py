# SPDX-License-Identifier: Apache-2.0
"""bag-check finds what makes a bag unfit to learn from, says it in a sentence, and ends with a code for CI."""

import json
from pathlib import Path
import subprocess
import sys

import bag_maker
from bag_maker import edited, Session, write
import pytest
from rosbags.rosbag2 import StoragePlugin
from test_bag_reader import write_foreign

from so101_bags import cli
from so101_bags.check.bag import check_bag
from so101_bags.check.report import CheckLimits
from so101_bags.metadata import read_session_metadata
from so101_bags.write import Extras
from so101_contract.human_time import HumanTime
from so101_contract.messages import EpisodeEventRecord
from so101_contract.observation_spec import get_observation
from so101_contract.session import EventKind

GENUINE = Path(__file__).parent / 'data' / 'genuine'


def check(tmp_path, messages, **options):
    return check_bag(write(tmp_path / 'bag', messages), **options)


def sentence(report, code):
    return next(finding.sentence for finding in report.findings if finding.code == code)


def test_a_bag_tells_what_it_cost_a_human_as_the_session_did(tmp_path):
    messages = Session(episodes=2).messages()
    first = next(message.log_ns for message in messages if message.topic == '/session/event')
    said = [
        (0.0, EventKind.NEED_START, 0, 0, False),
        (0.05, EventKind.NEED_OVER, 0, 0, False),
        (0.5, EventKind.INTERVENTION_START, 1, 4, False),
        (0.9, EventKind.INTERVENTION_END, 1, 8, False),
        (1.6, EventKind.NEED_RESET, 0, 0, False),
        (1.9, EventKind.NEED_OVER, 0, 0, False),
        (1.95, EventKind.FAILURE, 1, 0, True),
        (1.96, EventKind.PUT_BACK, 0, 0, False),
    ]
    live = HumanTime()
    made = [bag_maker.Decoders().event()(m.data) for m in messages if m.topic == '/session/event']
    for second, kind, episode, index, by_human in said:
        stamp = first + round(second * 1e9)
        made.append(EpisodeEventRecord(episode, kind, stamp, index, by_human=by_human))
        data = bag_maker.event(stamp, episode, kind, index, by_human=by_human)
        messages.append(bag_maker.RawMessage('/session/event', bag_maker.TYPES['session/event'], stamp, data))
    for event in sorted(made, key=lambda event: event.stamp_ns):
        live.event(event)
    report = check(tmp_path, sorted(messages, key=lambda message: message.log_ns))
    assert report.human.spent() == live.spent()
    assert report.human.report() == live.report()
    assert live.spent().takeovers == pytest.approx(0.4)
    assert live.spent().resets > 0.0
    assert live.spent().labels > 0.0
    assert json.loads(json.dumps(report.to_dict()))['human']['resets_by_arm'] == 1


def test_a_good_bag_has_no_finding(tmp_path):
    report = check(tmp_path, Session(episodes=3).messages())
    assert report.findings == []
    assert [(row.episode, row.outcome, row.steps, row.transitions) for row in report.episodes] == [
        (n, 'success', 12, 11) for n in (1, 2, 3)
    ]
    row = report.episodes[0]
    assert row.reward == pytest.approx(1.0)
    assert row.teleop == pytest.approx(4 / 11)
    assert (row.interventions, row.run) == (1, 4.0)
    assert row.motion_m > 0.02
    rates = {topic.topic: topic.rate_hz for topic in check(tmp_path / 'one', Session(1).messages()).topics}
    assert rates['/joint_states'] == pytest.approx(100, rel=0.01)
    assert rates['/session/step'] == pytest.approx(10, rel=0.01)


def test_an_sqlite_bag_is_checked_alike(tmp_path):
    bag = write_foreign(tmp_path / 'bag', Session().messages(), StoragePlugin.SQLITE3)
    assert check_bag(bag).findings == []


def test_T1_an_episode_that_moves_while_every_action_is_zero_is_a_fault(tmp_path):
    report = check(tmp_path, Session(scale=0.0).messages())
    assert 'zero-actions' in {finding.code for finding in report.faults}
    assert 'recorded without kinematics' in sentence(report, 'zero-actions')


def test_P6_an_episode_that_stands_still_may_have_zero_actions(tmp_path):
    assert check(tmp_path, Session(scale=0.0, moving=False).messages()).faults == []


def test_T10_share_and_length_of_interventions_are_reported_and_long_ones_warned_of(tmp_path):
    report = check(tmp_path, Session(episodes=2, steps=120).messages())
    assert [(row.interventions, row.run) for row in report.episodes] == [(1, 40.0)] * 2
    assert report.episodes[0].teleop == pytest.approx(1 / 3, abs=0.01)
    assert 'long-interventions' in report.codes
    assert '40 steps on average' in sentence(report, 'long-interventions')
    calm = check(tmp_path / 'other', Session(steps=120).messages(), limits=CheckLimits(max_run=45.0))
    assert 'long-interventions' not in calm.codes


def test_T10_a_demonstration_is_no_intervention(tmp_path):
    def by_person(message):
        content = bag_maker.store().deserialize_cdr(message.data, message.msgtype)
        content.source = 2
        return message._replace(data=bytes(bag_maker.store().serialize_cdr(content, message.msgtype)))

    report = check(tmp_path, edited(Session(steps=120).messages(), '/ee_delta_cmd', by_person))
    assert report.episodes[0].teleop == 1.0
    assert 'long-interventions' not in report.codes


def test_T3_the_table_counts_one_transition_less_than_steps(tmp_path):
    report = check(tmp_path, Session(episodes=4, steps=7).messages())
    assert all(row.transitions == row.steps - 1 for row in report.episodes)


@pytest.mark.parametrize(
    'topic', ['/session/step', '/ee_delta_cmd', '/joint_states', '/gripper_cam/image_raw']
)
def test_B14_a_missing_topic_is_a_fault_that_names_it(topic, tmp_path):
    report = check(tmp_path, [m for m in Session().messages() if m.topic != topic])
    assert topic in sentence(report, 'missing-topic')
    assert report.faults


def test_P6_saturated_actions_are_warned_of(tmp_path):
    report = check(tmp_path, Session(scale=1000.0).messages())
    assert 'out-of-range' in report.codes
    assert 'saturated' in report.codes


def test_a_gap_of_the_joint_states_inside_an_episode_is_found(tmp_path):
    first = bag_maker.START_NS + 1_000_000_000

    def lose(message):
        return None if first < message.log_ns < first + 400_000_000 else message

    report = check(tmp_path, edited(Session().messages(), '/joint_states', lose))
    assert '/joint_states stayed away for 0.4' in sentence(report, 'gap')


def test_lost_images_are_counted_per_episode_by_reason(tmp_path):
    report = check(tmp_path, Session(steps=30, lost_images=0.3).messages())
    assert 'dropped' in report.codes
    assert all(row.transitions < row.steps - 1 for row in report.episodes)
    assert any('image' in reason for row in report.episodes for reason in row.dropped)


def test_lost_steps_are_counted(tmp_path):
    messages = Session().messages()
    fifth = [m for m in messages if m.topic == '/session/step'][4]
    report = check(tmp_path, edited(messages, '/session/step', lambda m: None if m is fifth else m))
    assert '1 of 12 steps of episode 1' in sentence(report, 'lost-steps')


def test_a_clock_that_goes_back_is_a_fault(tmp_path):
    middle = bag_maker.START_NS + 1_000_000_000

    def back(message):
        content = bag_maker.store().deserialize_cdr(message.data, message.msgtype)
        if message.log_ns > middle:
            content.header.stamp.sec -= 1
        return message._replace(data=bytes(bag_maker.store().serialize_cdr(content, message.msgtype)))

    report = check(tmp_path, edited(Session().messages(), '/joint_states', back))
    assert 'clock-back' in {finding.code for finding in report.faults}


def test_a_clock_that_moves_away_from_the_recorders_is_a_fault(tmp_path):
    def ahead(message):
        content = bag_maker.store().deserialize_cdr(message.data, message.msgtype)
        if message.log_ns > bag_maker.START_NS + 2_000_000_000:
            content.header.stamp.sec += 3
        return message._replace(data=bytes(bag_maker.store().serialize_cdr(content, message.msgtype)))

    report = check(tmp_path, edited(Session(episodes=3).messages(), '/gripper_cam/image_raw', ahead))
    assert '3.000 s apart' in sentence(report, 'clock-jump')


def test_a_recorder_that_was_held_up_once_is_no_clock_jump(tmp_path):
    start = bag_maker.START_NS + 1_000_000_000

    def held_up(message):
        late = start < message.log_ns < start + 900_000_000
        return message._replace(log_ns=start + 900_000_000) if late else message

    report = check(tmp_path, map(held_up, Session(episodes=3).messages()))
    assert 'clock-jump' not in report.codes
    assert 'clock-back' not in report.codes


def test_inputs_that_were_old_when_named_are_found(tmp_path):
    late = edited(Session(camera_hz=2, steps=40).messages(), '/none', lambda m: m)
    assert 'image older than' in sentence(check(tmp_path, late), 'stale')


def test_P22_a_mixed_spec_is_a_fault_and_an_expected_one_is_compared_with_a_readable_difference(tmp_path):
    mixed = [
        *Session().messages(),
        *Session(start_ns=bag_maker.START_NS + 10**10, observation_hash='cd' * 32).messages(),
    ]
    assert 'mixed-spec' in {f.code for f in check(tmp_path, mixed).faults}
    other = check(tmp_path / 'other', Session().messages(), spec=get_observation('full'))
    assert 'cameras[0].size: 64 bag, 84 expected' in sentence(other, 'spec-mismatch')


def test_P4_a_calibration_that_changes_is_warned_of(tmp_path):
    both = [
        *Session().messages(),
        *Session(start_ns=bag_maker.START_NS + 10**10, calibration_id='cal-2').messages(),
    ]
    report = check(tmp_path, both)
    assert 'cal-1, cal-2' in sentence(report, 'calibration')
    assert 'restarted' in report.codes


def test_an_episode_without_an_end_is_warned_of(tmp_path):
    messages = Session(episodes=1).messages()
    report = check(tmp_path, [m for m in messages if m.log_ns < messages[-1].log_ns - 400_000_000])
    assert 'no-end' in report.codes


def test_damaged_messages_are_counted(tmp_path):
    broken = edited(Session().messages(), '/ee_delta_cmd', lambda m: m._replace(data=m.data[:20]))
    report = check(tmp_path, broken)
    assert '22 messages cannot be used' in sentence(report, 'unusable')
    assert 'no-transition' in {finding.code for finding in report.faults}


def test_a_bag_that_was_not_closed_in_order_is_told_by_its_metadata(tmp_path):
    bag = write(tmp_path / 'bag', Session().messages())
    (bag / 'metadata.yaml').unlink()
    assert 'run bag-fix' in sentence(check_bag(bag), 'metadata')


def test_a_bag_that_is_still_recorded_is_checked_and_said_to_be_unfinished(tmp_path):
    extras = Extras({'so101': {'calibration_id': 'cal-9'}})
    bag = write(tmp_path / 'bag', Session().messages(), extras=extras, closed=False)
    report = check_bag(bag)
    assert 'still runs or was killed' in sentence(report, 'unfinished')
    assert report.faults == []
    assert read_session_metadata(bag)['calibration_id'] == 'cal-9'
    assert len(report.episodes) == 2


def test_the_exit_code_is_0_for_a_good_bag_1_for_a_faulty_one_and_2_for_none(tmp_path, capsys):
    good = write(tmp_path / 'good', Session().messages())
    assert cli.check_main([str(good)]) == 0
    shown = capsys.readouterr().out
    assert 'fit to learn from, 0 warnings' in shown
    assert '/joint_states' in shown
    assert 'success' in shown
    assert cli.check_main([str(GENUINE / 'sqlite3_plain')]) == 1
    assert '/session/step is missing' in capsys.readouterr().out
    assert cli.check_main([str(tmp_path / 'none')]) == 2
    assert capsys.readouterr().err.count('\n') == 1
    assert cli.check_main([str(good), '--observation', 'full']) == 1


def test_each_bag_of_a_folder_and_each_arm_of_a_bag_is_checked_by_itself(tmp_path, capsys):
    write(tmp_path / 'bags' / 'one', Session().messages())
    both = [*Session(namespace='/left').messages(), *Session(namespace='/right', scale=0.0).messages()]
    write(tmp_path / 'bags' / 'two', sorted(both, key=lambda m: m.log_ns))
    assert cli.check_main([str(tmp_path / 'bags'), '--json']) == 1
    told = json.loads(capsys.readouterr().out)
    assert [(report['namespace'], report['ok']) for report in told['reports']] == [
        ('', True),
        ('/left', True),
        ('/right', False),
    ]
    assert cli.check_main([str(tmp_path / 'bags' / 'two'), '--namespace', 'left']) == 0
    assert 'arm /left' in capsys.readouterr().out


def test_a_session_that_was_restarted_counts_its_episodes_from_the_beginning(tmp_path):
    later = bag_maker.START_NS + 20 * 10**9
    report = check(tmp_path, [*Session().messages(), *Session(start_ns=later, seed=3).messages()])
    assert report.codes == {'restarted'}
    assert [row.name for row in report.episodes] == ['1', '2', '1 of session 2', '2 of session 2']
    assert all((row.steps, row.transitions, row.outcome) == (12, 11, 'success') for row in report.episodes)


def test_nothing_of_this_needs_ros_or_torch():
    modules = ('records', 'write', 'check.bag', 'fix', 'metadata', 'cli')
    code = 'import sys; sys.modules["rclpy"] = None\n'
    code += ''.join(f'import so101_bags.{name}\n' for name in modules)
    code += 'import so101_session.recorder.sink, so101_session.recorder.config\n'
    code += 'assert "torch" not in sys.modules\n'
    subprocess.run([sys.executable, '-c', code], check=True, timeout=600)


def test_strict_counts_warnings(tmp_path):
    bag = write(tmp_path / 'bag', Session(steps=120).messages())
    assert cli.check_main([str(bag)]) == 0
    assert cli.check_main([str(bag), '--strict']) == 1
    assert cli.check_main([str(bag), '--strict', '--max-run', '50']) == 0


def test_many_findings_of_one_kind_are_one_group_and_all_are_in_json(tmp_path, capsys):
    bag = write(tmp_path / 'bag', Session(episodes=8, lost_images=0.97).messages())
    cli.check_main([str(bag), '--json'])
    codes = [finding['code'] for finding in json.loads(capsys.readouterr().out)['findings']]
    code, count = max(((code, codes.count(code)) for code in codes), key=lambda one: one[1])
    assert count > cli.ALIKE
    cli.check_main([str(bag)])
    shown = capsys.readouterr().out
    assert shown.count(f'({code}):') == 1
    assert f'({code}): {count} times,' in shown
    assert f'and {count - cli.ALIKE} more; --json tells them all' in shown


def test_json_holds_everything(tmp_path, capsys):
    bag = write(tmp_path / 'bag', Session().messages())
    assert cli.check_main([str(bag), '--json']) == 0
    told = json.loads(capsys.readouterr().out)
    assert told['ok'] is True
    assert told['calibration'] == 'cal-1'
    assert len(told['episodes']) == 2
    assert cli.check_main([str(tmp_path / 'none'), '--json']) == 2
    assert json.loads(capsys.readouterr().out)['ok'] is False

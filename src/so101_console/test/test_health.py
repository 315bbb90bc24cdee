# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import pytest

from so101_console.health import ArmReport, ArmWatch, examine, GraphReport, read_given_up
from so101_driver.doctor.checks import Status

WELL = GraphReport(
    arm=ArmReport(state='ready', hottest=('gripper', 31.0)),
    camera_age_s=0.05,
    camera_hz=20.0,
    session='running',
    jitter_p99_ms=2.0,
    policy='compact',
    policy_ms=12.0,
    learner='learning',
    recorder=('Records into bags/one: 3 episodes, 12 MB. 40.0 GB are left on the disk.', False),
)


def found(facts, name):
    return next(check for check in examine(facts) if check.name == name)


def arm(**facts):
    return replace(WELL, arm=replace(WELL.arm, **facts))


def test_a_graph_that_is_well_has_nothing_to_mend():
    assert {check.status for check in examine(WELL)} == {Status.OK}


def test_that_nothing_is_recorded_is_said_and_is_no_fault():
    check = found(replace(WELL, recorder=None), 'recorder')
    assert (check.status, check.finding) == (Status.SKIP, 'Nothing is recorded.')


def test_what_is_not_started_again_is_said_with_its_last_words(tmp_path, monkeypatch):
    monkeypatch.setenv('SO101_GIVEN_UP', str(tmp_path / 'file'))
    assert read_given_up() == {}
    for damaged in ('', '{', '[1]', '"x"', 'é' * 10):
        (tmp_path / 'file').write_text(damaged)
        assert read_given_up() == {}
    (tmp_path / 'file').write_text('{"policy_node": "It ended 3 times the same way: no policy."}')
    check = found(replace(WELL, given_up=read_given_up()), 'policy node')
    assert (check.status, check.finding) == (Status.FAIL, 'It ended 3 times the same way: no policy.')


@pytest.mark.parametrize(
    ('facts', 'name', 'status'),
    [
        (replace(WELL, recorder=('Nothing is recorded: the disk is full.', True)), 'recorder', Status.FAIL),
        (replace(WELL, arm=None), 'arm', Status.FAIL),
        (arm(state='off'), 'arm', Status.WARN),
        (arm(state='stopped'), 'arm', Status.FAIL),
        (arm(state='fault', reason='the elbow is hot'), 'arm', Status.FAIL),
        (arm(hottest=('elbow_flex', 56.0)), 'servos', Status.WARN),
        (arm(hottest=('elbow_flex', 66.0)), 'servos', Status.FAIL),
        (arm(lost=0.02), 'bus', Status.WARN),
        (arm(lost=0.5), 'bus', Status.FAIL),
        (arm(missed=0.2), 'driver', Status.WARN),
        (replace(WELL, camera_age_s=None), 'camera', Status.WARN),
        (replace(WELL, camera_age_s=3.0), 'camera', Status.FAIL),
        (replace(WELL, camera_problem='the encoding is unknown'), 'camera', Status.FAIL),
        (replace(WELL, session=''), 'session', Status.WARN),
        (replace(WELL, policy_holds='no images'), 'policy', Status.WARN),
        (replace(WELL, learner='failed', learner_reason='disk full'), 'learner', Status.FAIL),
    ],
    ids=lambda value: value if isinstance(value, str) else '',
)
def test_what_is_wrong_is_found_and_comes_with_what_to_do(facts, name, status):
    check = found(facts, name)
    assert check.status is status
    assert check.finding
    assert check.remedy


def test_the_worst_comes_first():
    assert examine(replace(arm(lost=0.5), session=''))[0].name == 'bus'


def test_what_a_node_warns_of_is_listed_by_a_readable_name():
    facts = replace(WELL, diagnostics=(('so101: elbow_flex', 'it is warm', False),))
    assert found(facts, 'elbow flex').finding == 'it is warm'


def test_no_policy_and_no_learner_are_no_faults():
    alone = replace(WELL, policy=None, learner='')
    assert found(alone, 'policy').status is Status.SKIP
    assert found(alone, 'learner').status is Status.SKIP


def test_what_is_lost_is_a_share_of_the_answers_and_not_of_the_requests():
    messages = pytest.importorskip('so101_interfaces.msg')
    watch = ArmWatch()
    for now, requests, lost in ((0.0, 100, 0), (1.0, 200, 30)):
        watch.hear(now, messages.ArmStatus(name=['joint'] * 6, requests=requests, lost=lost))
    assert watch.lost == pytest.approx(30 / 600)

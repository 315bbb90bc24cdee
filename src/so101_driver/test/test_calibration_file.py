# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace
import json
import os

from hypothesis import given, settings
from hypothesis import strategies as st
import pytest

from so101_contract.joints import JOINT_NAMES
from so101_driver.calibration.calibration import ArmCalibration, CalibrationError, JointCalibration
from so101_driver.calibration.checks import (
    differences,
    joint_problem,
    matching,
    problems,
    require_plausible,
    ServoValues,
)
from so101_driver.calibration.files import (
    CalibrationNotFoundError,
    check_arm_id,
    find_calibration,
    from_lerobot,
    lerobot_text,
    load,
    Places,
    save,
    sidecar_path,
    to_lerobot,
)


def row(servo_id, offset, low, high):
    return {'id': servo_id, 'drive_mode': 0, 'homing_offset': offset, 'range_min': low, 'range_max': high}


# Ranges as real arms have them; the last three joints' middles lie well beside 2047.
GOOD = {
    'shoulder_pan': row(1, -871, 664, 3430),
    'shoulder_lift': row(2, 1010, 830, 3264),
    'elbow_flex': row(3, 667, 154, 2334),
    'wrist_flex': row(4, -69, 805, 3142),
    'wrist_roll': row(5, 81, 66, 3894),
    'gripper': row(6, 63, 2032, 3486),
}


def with_joint(name, **changes):
    return {**GOOD, name: {**GOOD[name], **changes}}


@pytest.fixture
def arm():
    return from_lerobot(GOOD)


@pytest.fixture
def corrected_arm(arm):
    return ArmCalibration(
        {**arm.joints, 'elbow_flex': replace(arm['elbow_flex'], sign=-1, offset_rad=-0.218)}, 'linear'
    )


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def test_P3_a_lerobot_file_is_read_and_written_unchanged(tmp_path):
    text = json.dumps(GOOD, indent=4)
    original = write(tmp_path / 'lerobot.json', text)
    copy = save(load(original), tmp_path / 'ours.json')
    assert copy.read_text() == text
    assert not sidecar_path(copy).exists()


def test_joints_are_written_in_order_whatever_order_they_came_in(arm):
    shuffled = {name: GOOD[name] for name in reversed(JOINT_NAMES)}
    assert lerobot_text(from_lerobot(shuffled)) == lerobot_text(arm)
    assert list(to_lerobot(arm)) == list(JOINT_NAMES)


@settings(max_examples=50, deadline=None)
@given(st.integers(-2047, 2047), st.integers(0, 900), st.integers(0, 400))
def test_every_plausible_calibration_survives_a_round_trip(tmp_path_factory, offset, low, more):
    data = with_joint('shoulder_pan', homing_offset=offset, range_min=low, range_max=low + 2503 + more)
    path = tmp_path_factory.mktemp('files') / 'arm.json'
    assert load(save(from_lerobot(data), path)) == from_lerobot(data)


def test_P4_signs_offsets_and_gripper_map_survive_in_a_sidecar(tmp_path, corrected_arm):
    path = save(corrected_arm, tmp_path / 'arm.json')
    assert load(path) == corrected_arm
    assert load(path).calibration_id == corrected_arm.calibration_id
    assert json.loads(path.read_text()) == GOOD  # LeRobot sees what it knows


def test_a_sidecar_of_an_older_calibration_is_refused(tmp_path, corrected_arm):
    path = save(corrected_arm, tmp_path / 'arm.json')
    path.write_text(json.dumps(with_joint('elbow_flex', homing_offset=12)))  # LeRobot calibrated again
    with pytest.raises(CalibrationError, match='older calibration'):
        load(path)


@pytest.mark.parametrize(
    'text',
    [
        '',
        '[]',
        '{}',
        '{"calibrations": 3}',
        '{"calibrations": {"x": 1}}',
        'not json',
        '[' * 99_999,
        '9' * 9_999,
    ],
)
def test_a_damaged_sidecar_is_refused(tmp_path, corrected_arm, text):
    path = save(corrected_arm, tmp_path / 'arm.json')
    sidecar_path(path).write_text(text)
    with pytest.raises(CalibrationError, match=str(sidecar_path(path))):
        load(path)


def test_a_damaged_entry_of_a_sidecar_is_refused(tmp_path, corrected_arm):
    path = save(corrected_arm, tmp_path / 'arm.json')
    data = json.loads(sidecar_path(path).read_text())
    (entry,) = data['calibrations'].values()
    entry['joints']['gripper'] = {'offset_deg': 3}
    sidecar_path(path).write_text(json.dumps(data))
    with pytest.raises(CalibrationError, match='damaged'):
        load(path)


def test_saving_over_a_corrected_calibration_drops_its_corrections(tmp_path, arm, corrected_arm):
    path = save(corrected_arm, tmp_path / 'arm.json')
    save(arm, path)
    assert load(path) == arm


def test_the_old_file_is_kept_as_a_backup(tmp_path, arm):
    path = save(arm, tmp_path / 'arm.json')
    old = path.read_text()
    save(from_lerobot(with_joint('gripper', homing_offset=1)), path)
    save(from_lerobot(with_joint('gripper', homing_offset=2)), path)
    backups = sorted(tmp_path.glob('arm.json.*.bak'))
    assert len(backups) == 2
    assert old in [backup.read_text() for backup in backups]


def test_saving_the_same_again_makes_no_backup(tmp_path, corrected_arm):
    path = save(corrected_arm, tmp_path / 'arm.json')
    save(corrected_arm, path)
    assert not list(tmp_path.glob('*.bak'))


@pytest.mark.parametrize('crash_at', [1, 2])
def test_a_crash_while_saving_leaves_the_old_calibration_or_the_new_one(
    tmp_path, arm, corrected_arm, monkeypatch, crash_at
):
    path = save(corrected_arm, tmp_path / 'arm.json')
    new = ArmCalibration({**arm.joints, 'gripper': replace(arm['gripper'], homing_offset=5, offset_rad=0.1)})
    calls = []

    def crash(source, target):
        calls.append(target)
        if len(calls) == crash_at:
            raise OSError('the power went')
        real(source, target)

    real = os.replace
    monkeypatch.setattr(os, 'replace', crash)
    with pytest.raises(OSError, match='power'):
        save(new, path)
    monkeypatch.undo()
    assert load(path) == corrected_arm
    assert not list(tmp_path.glob('.*.tmp'))


@pytest.mark.parametrize(
    ('data', 'says'),
    [
        ({k: v for k, v in GOOD.items() if k != 'gripper'}, 'without gripper'),
        ({**GOOD, 'elbow_roll': GOOD['elbow_flex']}, 'with elbow_roll'),
        (with_joint('elbow_flex', id=2), 'for shoulder_lift and elbow_flex'),
        (with_joint('elbow_flex', id=7), 'elbow_flex: expected servo ID 3, got 7'),
        (with_joint('elbow_flex', range_min=2334), 'elbow_flex: range_min and range_max are both 2334'),
        (with_joint('elbow_flex', range_min=3000), 'elbow_flex: range_min must be below range_max'),
        (with_joint('gripper', range_min=2046, range_max=2053), 'gripper: .*not moved from stop to stop'),
        (with_joint('shoulder_lift', range_min=0, range_max=4095), 'shoulder_lift: .*seam'),
        (with_joint('elbow_flex', range_min=30, range_max=4010), 'elbow_flex: .*seam'),
        (with_joint('elbow_flex', range_min=500, range_max=3600), 'elbow_flex: .*another joint'),
        (with_joint('wrist_roll', range_min=900, range_max=1800), 'wrist_roll: .*not moved'),
        (with_joint('shoulder_pan', homing_offset=2114), 'shoulder_pan: homing_offset'),
        (with_joint('shoulder_pan', homing_offset=2048), 'shoulder_pan: homing_offset'),
        (with_joint('shoulder_pan', range_min=664.0), 'shoulder_pan: range_min must be a whole number'),
        (with_joint('shoulder_pan', drive_mode=3), 'shoulder_pan: drive_mode'),
        ({**GOOD, 'gripper': [6, 0, 63, 2032, 3486]}, 'gripper: expected the fields'),
        ({**GOOD, 'gripper': {'id': 6}}, 'gripper: expected the fields'),
        ({**GOOD, 'gripper': {**GOOD['gripper'], 'note': 1}}, 'gripper: expected the fields'),
        ([], 'JSON object'),
        (None, 'JSON object'),
        ({}, 'without shoulder_pan'),
    ],
)
def test_P3_wrong_calibrations_are_refused_with_a_sentence(tmp_path, data, says):
    with pytest.raises(CalibrationError, match=says):
        from_lerobot(data)
    path = write(tmp_path / 'arm.json', json.dumps(data))
    with pytest.raises(CalibrationError, match=str(path)):
        load(path)


@pytest.mark.parametrize(
    'content', [b'', b'{', b'\xff\xfe\x00', json.dumps(GOOD).encode()[:-9], b'{"a": NaN}']
)
def test_P3_damaged_files_are_refused_by_name(tmp_path, content):
    path = tmp_path / 'arm.json'
    path.write_bytes(content)
    with pytest.raises(CalibrationError, match=str(path)):
        load(path)


def test_P3_a_joint_that_is_listed_twice_is_refused(tmp_path):
    text = json.dumps(GOOD)
    twice = text[:-1] + ', "gripper": ' + json.dumps(GOOD['gripper']) + '}'
    with pytest.raises(CalibrationError, match='gripper twice'):
        load(write(tmp_path / 'arm.json', twice))


def test_all_problems_are_said_at_once():
    data = {**with_joint('gripper', range_min=2046, range_max=2053)}
    data['shoulder_lift'] = {**GOOD['shoulder_lift'], 'range_min': 0, 'range_max': 4095}
    with pytest.raises(CalibrationError, match=r'shoulder_lift: .*\. gripper: '):
        from_lerobot(data)


def test_a_missing_file_is_an_error_of_its_own(tmp_path):
    with pytest.raises(CalibrationNotFoundError, match='no such file'):
        load(tmp_path / 'arm.json')
    (tmp_path / 'folder.json').mkdir()
    with pytest.raises(CalibrationError, match=r'folder\.json'):
        load(tmp_path / 'folder.json')


def test_a_whole_turn_is_right_for_the_wrist_and_wrong_for_every_other_joint():
    for name in JOINT_NAMES:
        problem = joint_problem(name, JointCalibration(1, 0, 0, 0, 4095))
        assert (problem is None) == (name == 'wrist_roll')


def test_a_leader_trigger_may_turn_less_than_a_jaw(arm):
    short = ArmCalibration(
        {**arm.joints, 'gripper': JointCalibration(6, 0, 0, 2000, 2500)}, gripper_map='linear'
    )
    assert require_plausible(short) is short
    assert len(problems(replace(short, gripper_map='angle'))) == 1


def test_differences_name_joint_field_and_both_values(arm):
    servos = {name: ServoValues.of(arm[name]) for name in JOINT_NAMES}
    assert differences(arm, servos) == ()
    servos['elbow_flex'] = replace(servos['elbow_flex'], homing_offset=3, range_max=2000)
    assert [str(d) for d in differences(arm, servos)] == [
        'elbow_flex: homing_offset is 667 in the file and 3 in the servo',
        'elbow_flex: range_max is 2334 in the file and 2000 in the servo',
    ]


def test_P21_servos_tell_which_calibration_is_theirs(arm):
    other = from_lerobot(with_joint('gripper', homing_offset=900))
    servos = {name: ServoValues.of(other[name]) for name in JOINT_NAMES}
    assert matching({'left': arm, 'right': other}, servos) == ('right',)
    assert matching({'left': arm}, servos) == ()


@pytest.mark.parametrize('name', ['my_follower', 'arm-2', 'A.b', '7'])
def test_plain_arm_names_are_taken(name):
    assert check_arm_id(name) == name


@pytest.mark.parametrize('name', ['', '.', '..', '../up', 'a/b', '.hidden', 'arm.json', 'a.so101', 'a b'])
def test_arm_names_that_are_paths_are_refused(name):
    with pytest.raises(CalibrationError, match='arm name'):
        check_arm_id(name)


@pytest.fixture
def places(tmp_path):
    return Places(tmp_path / 'own', tmp_path / 'lerobot')


@pytest.mark.parametrize(
    ('kind', 'folder'),
    [
        ('follower', 'robots/so_follower'),
        ('follower', 'robots/so101_follower'),
        ('leader', 'teleoperators/so_leader'),
        ('leader', 'teleoperators/so101_leader'),
    ],
)
def test_P3_both_of_lerobots_folder_names_are_found(places, kind, folder):
    path = write(places.lerobot / folder / 'mine.json', json.dumps(GOOD))
    assert places.find('mine', kind) == path
    assert load(path).gripper_map == ('linear' if kind == 'leader' else 'angle')


def test_our_own_folder_comes_first_then_lerobots_newer_one(places, arm):
    old = write(places.lerobot / 'robots/so101_follower/mine.json', json.dumps(GOOD))
    assert places.find('mine') == old
    new = write(places.lerobot / 'robots/so_follower/mine.json', json.dumps(GOOD))
    assert places.find('mine') == new
    own = save(arm, places.own_path('mine'))
    assert places.find('mine') == own


def test_a_missing_arm_lists_those_that_are_known(places, corrected_arm):
    save(corrected_arm, places.own_path('left'))
    write(places.lerobot / 'robots/so_follower/right.json', json.dumps(GOOD))
    with pytest.raises(CalibrationNotFoundError, match='calibrations of: left, right'):
        places.find('mine')
    assert set(places.known()) == {'left', 'right'}


def test_damaged_files_of_other_arms_do_no_harm(places, arm):
    save(arm, places.own_path('good'))
    write(places.own / 'bad.json', '{')
    assert places.load_known() == {'good': arm}


def test_folders_follow_the_environment(tmp_path):
    home = {'HOME': '/home/me'}
    plain = Places.from_environment(home)
    assert str(plain.own) == '/home/me/.config/so101/calibration'
    assert str(plain.lerobot) == '/home/me/.cache/huggingface/lerobot/calibration'
    assert str(Places.from_environment({**home, 'HF_HOME': '/hf'}).lerobot) == '/hf/lerobot/calibration'
    assert str(Places.from_environment({**home, 'HF_LEROBOT_HOME': '/l'}).lerobot) == '/l/calibration'
    assert str(Places.from_environment({**home, 'HF_LEROBOT_CALIBRATION': '/c'}).lerobot) == '/c'
    assert str(Places.from_environment({**home, 'XDG_CONFIG_HOME': '/x'}).own) == '/x/so101/calibration'
    own = plain.lerobot_path('mine', 'leader')
    assert str(own).endswith('calibration/teleoperators/so_leader/mine.json')


def test_a_calibration_is_found_by_file_by_name_or_as_the_only_one(places, arm, tmp_path):
    with pytest.raises(CalibrationNotFoundError, match='found none; run'):
        find_calibration('', places)
    path = save(arm, places.own_path('left'))
    assert find_calibration('', places) == arm
    assert find_calibration('left', places) == arm
    assert find_calibration(str(path), places) == arm
    save(arm, places.own_path('right'))
    with pytest.raises(CalibrationNotFoundError, match='found left, right; name the arm'):
        find_calibration('', places)
    write(places.lerobot / 'teleoperators/so_leader/mine.json', json.dumps(GOOD))
    with pytest.raises(CalibrationNotFoundError):
        find_calibration('mine', places)
    assert find_calibration('mine', places, kind='leader').gripper_map == 'linear'

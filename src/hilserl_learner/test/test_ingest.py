# SPDX-License-Identifier: Apache-2.0
from pathlib import Path
import shutil

import numpy as np
import pytest
from rosbags.rosbag2 import StoragePlugin

from hilserl_learner.data.replay import ReplayBuffer
from hilserl_learner.data.store import BufferHeader, Part, part_digest, read_buffer, read_header, write_header
from hilserl_learner.errors import IngestError
from hilserl_learner.ingest.cli import main
from hilserl_learner.ingest.ingest import Conversion, ingest
from hilserl_learner.lerobot.dataset import DatasetChoices
from so101_bags.metadata import definition_of
from so101_bags.storage import BagError, open_bags
from so101_bags.write import BagWriter
from so101_contract.action import ActionSpec
from so101_contract.observation_spec import get_observation
from so101_contract.session import EventKind
from so101_contract.transition import Transition

from .bagmaker import Plan, Session

SPEC, ACTION = get_observation('compact'), ActionSpec()
PLANS = (
    Plan(8, intervened=frozenset({2, 3, 4})),
    Plan(6, EventKind.TIME_LIMIT),
    Plan(5, EventKind.FAILURE),
    Plan(7, label=EventKind.DISCARD),
)


@pytest.fixture(scope='module')
def bag(tmp_path_factory):
    return Session(tmp_path_factory.mktemp('bags') / 'session').write(PLANS)


def convert(bags, out, reward='bag', add=False, replace_all=False, strict=False, **fields):
    conversion = Conversion(**{'observation': SPEC, 'action': ACTION, **fields})
    how = {'reward': reward, 'add': add, 'replace_all': replace_all, 'strict': strict}
    return list(ingest([bags] if isinstance(bags, Path) else bags, out, conversion, **how))


def transitions(out):
    return [entry.output for entry in read_buffer(out) if isinstance(entry.output, Transition)]


def digests(out):
    return [part_digest(out / part.name) for part in read_header(out).parts]


def test_T3_an_episode_of_n_frames_gives_n_minus_1_transitions_and_none_crosses_its_edge(bag, tmp_path):
    convert(bag, tmp_path / 'buffer')
    found = transitions(tmp_path / 'buffer')
    counts = {number: sum(t.episode == number for t in found) for number in (1, 2, 3)}
    assert counts == {1: 8, 2: 6, 3: 5}
    assert all(frame.episode == t.episode for t in found for frame in (*t.frames, t.next_frame))


def test_the_report_counts_what_the_bag_holds(bag, tmp_path):
    (done,) = convert(bag, tmp_path / 'buffer')
    report = done.report
    assert (report.episodes, report.transitions, report.intervened, report.discarded) == (3, 19, 3, 1)
    assert report.outcomes == {'success': 1, 'time_limit': 1, 'failure': 1, 'discard': 1}
    assert (report.reward, report.successes) == (1.0, 1)


def test_B2_only_success_and_failure_are_terminal(bag, tmp_path):
    convert(bag, tmp_path / 'buffer')
    ends = [(t.episode, t.terminated, t.truncated) for t in transitions(tmp_path / 'buffer') if t.ends]
    assert ends == [(1, True, False), (2, False, True), (3, True, False)]


def test_B13_the_same_bag_twice_gives_the_same_bytes(bag, tmp_path):
    convert(bag, tmp_path / 'one')
    shutil.copytree(bag, tmp_path / 'copy')
    convert(tmp_path / 'copy', tmp_path / 'two')
    assert (tmp_path / 'one/buffer.json').read_bytes() == (tmp_path / 'two/buffer.json').read_bytes()
    assert digests(tmp_path / 'one') == digests(tmp_path / 'two')


def test_B13_a_bag_that_was_converted_in_the_same_way_is_not_read_again(bag, tmp_path):
    (first,) = convert(bag, tmp_path / 'buffer')
    (second,) = convert(bag, tmp_path / 'buffer')
    assert (first.reused, second.reused) == (False, True)
    assert first.report == second.report


@pytest.mark.parametrize(
    'change',
    [
        {'zero_actions': 'keep'},
        {'reward': 'operator'},
        {'success_reward': 2.0},
        {'action': ActionSpec(translation_scale_m=0.03)},
        {'observation': get_observation('full'), 'any_spec': True},
    ],
)
def test_B13_another_choice_is_another_conversion(bag, tmp_path, change):
    (first,) = convert(bag, tmp_path / 'buffer')
    (second,) = convert(bag, tmp_path / 'buffer', replace_all=True, **change)
    assert not second.reused
    assert first.part.key != second.part.key
    assert [p.name for p in read_header(tmp_path / 'buffer').parts] == [second.part.name]


def test_B13_every_field_of_a_conversion_is_in_its_key():
    base = Conversion(observation=SPEC, action=ACTION)
    others = [
        {'observation': get_observation('full')},
        {'action': ActionSpec(translation_scale_m=0.01)},
        *({'reward': 'x'}, {'zero_actions': 'keep'}, {'namespace': 'left'}, {'any_spec': True}),
        *({'success_reward': 3.0}, {'failure_reward': -1.0}, {'dataset': DatasetChoices(units='rad')}),
    ]
    assert {key for other in others for key in other} == set(base.to_dict())
    keys = {Conversion(**{'observation': SPEC, 'action': ACTION, **other}).key('bag') for other in others}
    assert len(keys | {base.key('bag'), base.key('another bag')}) == len(others) + 2


def test_storages_give_the_same_transitions(tmp_path):
    for storage in StoragePlugin:
        Session(tmp_path / storage.name, storage=storage).write(PLANS[:1])
        convert(tmp_path / storage.name, tmp_path / f'{storage.name}.buffer')
    one, two = (transitions(tmp_path / f'{storage.name}.buffer') for storage in StoragePlugin)
    assert [t.index for t in one] == [t.index for t in two]
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a.next_frame.images['gripper_cam'], b.next_frame.images['gripper_cam'])


def test_a_lost_image_is_counted_as_gap(tmp_path):
    bag = Session(tmp_path / 'bag').write([Plan(12, drop_images=frozenset({6}))])
    (done,) = convert(bag, tmp_path / 'buffer')
    assert done.report.transitions == 12 - sum(done.report.gaps.values())
    assert 0 < sum(done.report.gaps.values()) <= 4


def test_loading_a_buffer_gives_the_replay_what_the_bag_held(bag, tmp_path):
    convert(bag, tmp_path / 'buffer')
    replay = ReplayBuffer(SPEC, ACTION, capacity=100)
    for entry in read_buffer(tmp_path / 'buffer'):
        if isinstance(entry.output, Transition):
            replay.add(entry.output, entry.stream)
    assert len(replay) == 19


def test_a_buffer_is_not_replaced_unasked(bag, tmp_path):
    other = Session(tmp_path / 'other').write([Plan(5)])
    convert(bag, tmp_path / 'buffer')
    with pytest.raises(IngestError, match=r'holds 19 transitions of 1 other bags; add --add .* --replace'):
        convert(other, tmp_path / 'buffer')
    assert len(transitions(tmp_path / 'buffer')) == 19
    convert([bag, other], tmp_path / 'buffer')  # nothing is lost by that
    assert len(transitions(tmp_path / 'buffer')) == 24
    convert(other, tmp_path / 'buffer', replace_all=True)
    assert len(transitions(tmp_path / 'buffer')) == 5


def test_the_experience_of_a_run_is_no_buffer_to_ingest_into(bag, tmp_path):
    header = BufferHeader(observation=SPEC, action=ACTION, parts=(Part(name='live'),))
    write_header(tmp_path / 'online', header)
    for how in ({}, {'add': True}, {'replace_all': True}):
        with pytest.raises(IngestError, match='that a run fills'):
            convert(bag, tmp_path / 'online', **how)


def test_a_bag_that_is_still_recorded_gives_what_is_whole_of_it(tmp_path):
    writer = BagWriter(tmp_path / 'bag')
    with open_bags(Session(tmp_path / 'whole').write([Plan(5)] * 3)) as whole:
        for message in whole.messages():
            writer.add_topic(message.topic, definition_of(message.msgtype))
            writer.write(message.topic, message.log_ns, message.log_ns, message.data)
    writer.flush()
    (done,) = convert(tmp_path / 'bag', tmp_path / 'buffer')
    assert done.unfinished
    assert done.report.transitions == 15
    assert [path.name for path in (tmp_path / 'buffer').iterdir() if path.name.startswith('.')] == []


def test_several_bags_stand_side_by_side_and_add_keeps_what_was_there(bag, tmp_path):
    other = Session(tmp_path / 'other').write([Plan(5)])
    convert(bag, tmp_path / 'buffer')
    convert(other, tmp_path / 'buffer', add=True)
    assert len(read_header(tmp_path / 'buffer').parts) == 2
    assert len(transitions(tmp_path / 'buffer')) == 24
    assert len({entry.stream for entry in read_buffer(tmp_path / 'buffer')}) == 2


# ---- zero actions ------------------------------------------------------------------------------------------


@pytest.fixture(scope='module')
def zero_bag(tmp_path_factory):
    plans = [Plan(15, zero_actions=True), Plan(10, zero_actions=True, speed=0.2), Plan(6)]
    return Session(tmp_path_factory.mktemp('bags') / 'zero').write(plans)


def test_T1_zero_actions_although_the_arm_moved_are_refused_with_a_way_out(tmp_path):
    bag = Session(tmp_path / 'bag').write([Plan(15, zero_actions=True), Plan(10, zero_actions=True)])
    with pytest.raises(IngestError, match=r'zero.*kinematics did not run; --zero-actions repair'):
        convert(bag, tmp_path / 'buffer')
    assert not (tmp_path / 'buffer' / 'buffer.json').exists()


def test_one_bad_episode_is_left_out_and_told_and_the_others_are_taken(tmp_path):
    bag = Session(tmp_path / 'bag').write([Plan(5), Plan(15, zero_actions=True), *[Plan(5)] * 3])
    (done,) = convert(bag, tmp_path / 'buffer')
    assert (done.report.episodes, done.report.transitions) == (4, 20)
    assert set(done.report.left_out) == {'2'}
    assert {t.episode for t in transitions(tmp_path / 'buffer')} == {1, 3, 4, 5}
    with pytest.raises(IngestError, match=r'got 1 that are not: episode 2: the TCP moved'):
        convert(bag, tmp_path / 'buffer', strict=True)  # converted before, and refused all the same
    assert len(transitions(tmp_path / 'buffer')) == 20


def test_an_episode_without_ground_truth_is_left_out(tmp_path):
    later = Session(tmp_path / 'bags' / 'without').write([Plan(5)])
    with pytest.raises(IngestError, match='ground truth'):
        convert(later, tmp_path / 'buffer', reward='sim')
    bag = Session(tmp_path / 'bag', truth=True).write([Plan(5), Plan(5, truth=False), Plan(5)])
    (done,) = convert(bag, tmp_path / 'buffer', reward='sim')
    assert set(done.report.left_out) == {'2'}
    assert done.report.episodes == 2


def test_T1_an_arm_that_stands_still_may_have_zero_actions(tmp_path):
    bag = Session(tmp_path / 'bag').write([Plan(6, still=True)])
    (done,) = convert(bag, tmp_path / 'buffer')
    assert done.report.repaired == ()


def test_T2_repaired_actions_are_the_displacement_of_the_tcp(zero_bag, tmp_path):
    convert(zero_bag, tmp_path / 'buffer', zero_actions='repair')
    true = Session(tmp_path / 'true').write([Plan(15), Plan(10, speed=0.2), Plan(6)])
    convert(true, tmp_path / 'reference')
    for got, expected in zip(
        transitions(tmp_path / 'buffer'), transitions(tmp_path / 'reference'), strict=True
    ):
        wanted = ACTION.limit(expected.action)
        np.testing.assert_allclose(got.action.translation, wanted.translation, atol=1e-6)


def test_T2_the_report_says_which_episodes_were_repaired_and_how_much_was_clipped(zero_bag, tmp_path):
    (done,) = convert(zero_bag, tmp_path / 'buffer', zero_actions='repair')
    assert done.report.repaired == (1, 2)
    assert 0.0 < done.report.clipped['y'] < 1.0


def test_T4_the_repaired_gripper_is_the_absolute_opening(zero_bag, tmp_path):
    convert(zero_bag, tmp_path / 'buffer', zero_actions='repair')
    for t in transitions(tmp_path / 'buffer'):
        gripper_rad = float(t.next_frame.state[5])
        network = ACTION.from_wire(t.action.translation, t.action.opening).values[3]
        assert ACTION.gripper.to_rad(network) == pytest.approx(gripper_rad, abs=1e-5)


# ---- rewards -----------------------------------------------------------------------------------------------


def test_rewards_by_the_operators_labels_ignore_the_recorded_ones(tmp_path):
    bag = Session(tmp_path / 'bag').write([Plan(5, EventKind.TIME_LIMIT, label=EventKind.SUCCESS), Plan(5)])
    convert(bag, tmp_path / 'buffer', reward='operator')
    ends = [(t.reward, t.terminated) for t in transitions(tmp_path / 'buffer') if t.ends]
    assert ends == [(1.0, True), (1.0, True)]


@pytest.mark.parametrize('reward', ['bag', 'operator'])
def test_labels_that_come_many_episodes_later_count_as_if_they_had_come_at_once(tmp_path, reward):
    corrections = (
        (2, EventKind.SUCCESS),
        (1, EventKind.FAILURE),
        (1, EventKind.SUCCESS),
        (3, EventKind.DISCARD),
    )
    late = Session(tmp_path / 'late', corrections=corrections).write([Plan(5, EventKind.TIME_LIMIT)] * 7)
    (ingested,) = convert(late, tmp_path / 'buffer', reward=reward)
    found = transitions(tmp_path / 'buffer')
    assert {t.episode for t in found} == {1, 2, 4, 5, 6, 7}
    assert (ingested.report.discarded, ingested.report.successes) == (1, 2)
    ends = {t.episode: (t.reward, t.terminated, t.truncated) for t in found if t.ends}
    assert ends == {
        **dict.fromkeys((1, 2), (1.0, True, False)),
        **dict.fromkeys((4, 5, 6, 7), (0.0, False, True)),
    }


@pytest.mark.parametrize('json_truth', [False, True], ids=['message', 'JSON of older bags'])
def test_rewards_by_the_simulators_truth(tmp_path, json_truth):
    bag = Session(tmp_path / 'bag', truth=True, json_truth=json_truth).write(
        [Plan(5), Plan(5, EventKind.TIME_LIMIT)]
    )
    convert(bag, tmp_path / 'buffer', reward='sim')
    ends = [(t.reward, t.terminated, t.truncated) for t in transitions(tmp_path / 'buffer') if t.ends]
    assert ends == [(1.0, True, False), (0.0, False, True)]


def test_B14_rewards_by_truth_without_truth_name_the_topic(bag, tmp_path):
    with pytest.raises(IngestError, match='/sim/task'):
        convert(bag, tmp_path / 'buffer', reward='sim')


def test_rewards_by_a_script(bag, tmp_path):
    script = tmp_path / 'mine.py'
    script.write_text('def reward(transition):\n    return 0.5, transition.index == 3\n')
    convert(bag, tmp_path / 'buffer', reward=str(script))
    found = transitions(tmp_path / 'buffer')
    assert len(found) == 12
    assert all(t.reward == 0.5 for t in found)
    assert [t.index for t in found if t.terminated] == [3, 3, 3]


def test_B13_an_edited_script_is_another_conversion(bag, tmp_path):
    script = tmp_path / 'mine.py'
    script.write_text('def reward(transition):\n    return 0.5\n')
    (first,) = convert(bag, tmp_path / 'buffer', reward=str(script))
    script.write_text('def reward(transition):\n    return 0.25\n')
    (second,) = convert(bag, tmp_path / 'buffer', reward=str(script), replace_all=True)
    assert (second.reused, second.report.reward) == (False, 19 * 0.25)
    assert first.report.reward == 19 * 0.5


@pytest.mark.parametrize(
    ('text', 'sentence'),
    [('x = 1\n', 'define it'), ("def reward(t):\n    return 'much'\n", 'finite number')],
)
def test_a_script_that_gives_no_reward_gets_a_sentence(bag, tmp_path, text, sentence):
    (tmp_path / 'bad.py').write_text(text)
    with pytest.raises(IngestError, match=sentence):
        convert(bag, tmp_path / 'buffer', reward=str(tmp_path / 'bad.py'))


# ---- bags that deserve a sentence --------------------------------------------------------------------------


def test_B14_a_bag_of_something_else_names_the_missing_topics(tmp_path):
    session = Session(tmp_path / 'bag')
    session._episode = lambda number, plan: session._joints(session.now, np.zeros(6))
    session.write([Plan()])
    with pytest.raises(BagError, match='session/step'):
        convert(tmp_path / 'bag', tmp_path / 'buffer')


def test_a_bag_of_another_observation_is_refused(tmp_path):
    bag = Session(tmp_path / 'bag', spec=get_observation('full')).write([Plan(5)])
    with pytest.raises(BagError, match='observation'):
        convert(bag, tmp_path / 'buffer')


def test_a_bag_in_which_nothing_belongs_to_an_episode_says_so(tmp_path):
    session = Session(tmp_path / 'bag')
    original = session._episode
    session._episode = lambda number, plan: original(0, plan)
    session.write([Plan(5)])
    with pytest.raises(IngestError, match='bag-check'):
        convert(tmp_path / 'bag', tmp_path / 'buffer')


def test_a_failing_bag_leaves_the_buffer_as_it_was(bag, zero_bag, tmp_path):
    convert(bag, tmp_path / 'buffer')
    before = digests(tmp_path / 'buffer')
    with pytest.raises(IngestError):
        convert([bag, zero_bag], tmp_path / 'buffer', strict=True)
    assert digests(tmp_path / 'buffer') == before


def test_a_directory_with_other_files_is_not_touched(bag, tmp_path):
    (tmp_path / 'thesis.txt').write_text('mine')
    with pytest.raises(IngestError, match=r'thesis\.txt'):
        convert(bag, tmp_path)


# ---- command line ------------------------------------------------------------------------------------------


def test_the_command_writes_a_buffer_and_tells_what_is_in_it(bag, tmp_path, capsys):
    assert main([str(bag), '--out', str(tmp_path / 'buffer')]) == 0
    assert '19' in capsys.readouterr().out
    assert len(transitions(tmp_path / 'buffer')) == 19


def test_the_command_ends_with_one_sentence(zero_bag, tmp_path, capsys):
    assert main([str(zero_bag), '--out', str(tmp_path / 'buffer')]) == 0
    assert '2 episodes are left out (1, 2): the TCP moved' in capsys.readouterr().out
    assert main([str(zero_bag), '--out', str(tmp_path / 'buffer'), '--strict']) == 1
    error = capsys.readouterr().err
    assert '--zero-actions repair' in error
    assert 'Traceback' not in error

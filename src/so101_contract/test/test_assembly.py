# SPDX-License-Identifier: Apache-2.0
from collections import Counter
from dataclasses import dataclass, replace
import itertools
import random

from hypothesis import given, HealthCheck, settings
from hypothesis import strategies as st
import numpy as np
import pytest

from so101_contract.assembly import Assembler
from so101_contract.base import BaseAction, BaseRecord
from so101_contract.errors import AssemblyError, ContractError, ObservationError
from so101_contract.messages import (
    EpisodeEventRecord,
    ExecutedAction,
    ImageSample,
    JointSample,
    StepRecord,
)
from so101_contract.observation import Limits
from so101_contract.observation_spec import CameraSpec, ObservationSpec, StateBlock
from so101_contract.session import EventKind, Outcome, Source
from so101_contract.transition import EpisodeReport, Reason, settle, Transition

CAMERAS = ('wrist', 'above')
MS = 1_000_000
ROOMY = Limits(episodes=100)
LABELS = (EventKind.SUCCESS, EventKind.FAILURE, EventKind.TIME_LIMIT, EventKind.ABORT)


def spec_with(stack=3, cameras=1):
    return ObservationSpec(
        state=(StateBlock.named('joint_pos'), StateBlock.named('joint_vel')),
        frame_stack=stack,
        cameras=tuple(CameraSpec(name, 4) for name in CAMERAS[:cameras]),
    )


def state_of(position, velocity):
    if position[0] > 3:
        raise ObservationError('expected radians, got degrees; convert them')
    return np.concatenate([position, velocity]).astype(np.float32)


def make(spec=None, **options):
    return Assembler(spec or spec_with(), state_of, **({'limits': ROOMY} | options))


def joints_at(stamp, *, bad=False):
    rng = np.random.default_rng(stamp)
    return JointSample(stamp, rng.uniform(-1, 1, 6) + (5.0 if bad else 0.0), rng.uniform(-1, 1, 6))


def image_at(camera, stamp):
    seed = stamp * len(CAMERAS) + CAMERAS.index(camera)
    pixels = np.random.default_rng(seed).integers(0, 256, (3, 4, 4), dtype=np.uint8)
    return ImageSample(camera, stamp, pixels)


def action_at(episode, index, source=Source.POLICY):
    return ExecutedAction(episode, index, np.array([episode, index, 0.5]) * 1e-3, 0.25, source)


def session(episode=1, steps=5, *, end='terminated', reward=0.0, start_ms=None, cameras=1, actions=True):
    """All messages of a flawless episode, in the order in which a session sends them."""
    start = (episode * 100_000 if start_ms is None else start_ms) * MS
    records = []
    for k in range(steps):
        tick = start + k * 100 * MS
        records += [joints_at(tick - 3 * MS)]
        records += [image_at(name, tick - 7 * MS) for name in CAMERAS[:cameras]]
        flags = {end: True} if end and k == steps - 1 else {}
        images = (tick - 7 * MS,) * cameras
        records.append(
            StepRecord(episode, k, tick, tick - 3 * MS, images, reward if flags else 0.1 * k, **flags)
        )
        if actions and not flags:
            records.append(action_at(episode, k))
    return records


def run(records, assembler=None):
    assembler = assembler or make()
    outputs = [output for record in records for output in assembler.push(record)]
    return outputs + assembler.flush()


def steps_of(records):
    return [record for record in records if isinstance(record, StepRecord)]


def reports_of(outputs):
    return {output.episode: output for output in outputs if isinstance(output, EpisodeReport)}


# --- The oracle: sees everything at once, thinks per transition, shares no code with the assembler ------------


@dataclass
class Expected:
    key: tuple
    state: np.ndarray
    images: dict
    next_state: np.ndarray
    next_images: dict
    action: tuple
    source: Source
    reward: float
    terminated: bool
    truncated: bool


def oracle(records, spec):
    """Transitions by brute force, and the reason for each step that gives none."""
    joints = {r.stamp_ns: r for r in records if isinstance(r, JointSample)}
    images = {(r.camera, r.stamp_ns): r for r in records if isinstance(r, ImageSample)}
    steps = {(r.episode, r.index): r for r in records if isinstance(r, StepRecord)}
    actions = {(r.episode, r.index): r for r in records if isinstance(r, ExecutedAction)}
    events = [r for r in records if isinstance(r, EpisodeEventRecord)]
    expected, reasons = [], Counter()

    def problem(step):
        if step.joint_stamp_ns not in joints:
            return Reason.JOINT
        if any((c, s) not in images for c, s in zip(spec.camera_names, step.image_stamps_ns, strict=True)):
            return Reason.IMAGE
        return Reason.STATE if joints[step.joint_stamp_ns].position[0] > 3 else None

    def stacked(sequence):
        states = []
        for step in sequence:
            sample = joints[step.joint_stamp_ns]
            states.append([*sample.position, *sample.velocity])
        pictures = {
            camera: np.array([images[camera, step.image_stamps_ns[i]].image for step in sequence])
            for i, camera in enumerate(spec.camera_names)
        }
        return np.array(states, dtype=np.float32), pictures

    for number in sorted({episode for episode, _ in steps}):
        if number == 0:
            continue
        mine = {index: step for (episode, index), step in steps.items() if episode == number}
        labels = sorted((e.stamp_ns, e.kind) for e in events if e.episode == number and e.kind in LABELS)
        discarded = any(e.kind == EventKind.DISCARD for e in events if e.episode == number)
        last = max(mine)
        for k in range(last + (not (mine[last].terminated or mine[last].truncated))):
            window = [max(i, 0) for i in range(k - spec.frame_stack + 1, k + 1)]
            complaints = []
            if k not in mine:
                complaints.append(Reason.STEP)
            elif k + 1 not in mine:
                complaints.append(Reason.NEXT_STEP)
            else:
                if mine[k].terminated or mine[k].truncated:
                    complaints.append(Reason.AFTER_END)
                if mine[k + 1].stamp_ns <= mine[k].stamp_ns:
                    complaints.append(Reason.OUT_OF_ORDER)
                if (number, k) not in actions:
                    complaints.append(Reason.ACTION)
                elif actions[number, k].source not in (Source.POLICY, Source.TELEOP):
                    complaints.append(Reason.SOURCE)
                found = {problem(mine[k]), problem(mine[k + 1])}
                complaints += [r for r in (Reason.JOINT, Reason.IMAGE, Reason.STATE) if r in found]
                if any(i not in mine or problem(mine[i]) for i in window):
                    complaints.append(Reason.STACK)
                else:
                    ticks = [mine[i].stamp_ns for i in sorted(set(window))]
                    ended = [i for i in window if i < k and (mine[i].terminated or mine[i].truncated)]
                    if ended or ticks != sorted(set(ticks)):
                        complaints.append(Reason.STACK)
            if complaints:
                reasons[number, complaints[0]] += 1
                continue
            after = mine[k + 1]
            terminated, truncated, reward = after.terminated, after.truncated, after.reward
            if terminated:
                truncated = False
            if labels and (terminated or truncated):
                kind = labels[-1][1]
                was = (1.0 if reward > 0.5 else 0.0) if terminated else 0.0
                now = 1.0 if kind == EventKind.SUCCESS else 0.0
                reward = reward + (now - was)
                terminated = kind in (EventKind.SUCCESS, EventKind.FAILURE)
                truncated = not terminated
            action = actions[number, k]
            if not discarded:
                expected.append(
                    Expected(
                        (number, k),
                        *stacked([mine[i] for i in window]),
                        *stacked([mine[i] for i in [*window[1:], k + 1]]),
                        (*action.translation, action.opening),
                        action.source,
                        reward,
                        terminated,
                        truncated,
                    )
                )
    return expected, reasons


@st.composite
def sessions(draw):
    """A few episodes with losses, copies, late labels, reused images, and messages in any order."""
    spec = spec_with(stack=draw(st.integers(1, 4)), cameras=draw(st.integers(0, 2)))
    random_ = random.Random(draw(st.integers(0, 2**32)))  # spread evenly, unlike draws of hypothesis
    loss = draw(st.sampled_from([0.0, 0.0, 0.02, 0.02, 0.1]))
    records = []
    for episode in range(1, draw(st.integers(1, 4)) + 1):
        steps = random_.randint(1, 10)
        end = random_.choice(['terminated', 'terminated', 'truncated', 'truncated', 'both', 'neither'])
        start = episode * 10_000
        jump = random_.randrange(1, 10) if loss and steps > 3 and random_.random() < 0.4 else None
        picture = {}
        for k in range(steps):
            tick = start + 100 * k - (150 if jump is not None and k >= max(jump, 2) else 0)
            # a camera slower than the control rate is named by two steps
            for camera in spec.camera_names:
                if camera not in picture or random_.random() < 0.7:
                    picture[camera] = tick - 10 - random_.randrange(5)
                    records.append(image_at(camera, picture[camera]))
            records.append(joints_at(tick - random_.randrange(3), bad=random_.random() < loss / 3))
            last = k == steps - 1
            early = loss and random_.random() < 0.01
            records.append(
                StepRecord(
                    episode,
                    k,
                    tick,
                    records[-1].stamp_ns,
                    tuple(picture.values()),
                    random_.choice([-0.05, 0.0, 1.0]),
                    terminated=bool((last and end in ('terminated', 'both')) or early),
                    truncated=bool(last and end in ('truncated', 'both')),
                )
            )
            sources = [Source.POLICY, Source.TELEOP] * 20 + [Source.NONE, Source.RESET]
            records.append(action_at(episode, k, random_.choice(sources)))
        for _ in range(random_.choice([0, 1, 1, 2, 4])):
            kind = random_.choice([*LABELS, EventKind.START, EventKind.PAUSE, EventKind.INTERVENTION_START])
            records.append(EpisodeEventRecord(episode, kind, start + random_.randrange(5000)))
        if random_.random() < 0.1:
            records.append(EpisodeEventRecord(episode, EventKind.DISCARD, start + 9000))
    records.append(StepRecord(0, 0, 5, 5, (5,) * len(spec.cameras)))
    records = [record for record in records if random_.random() >= loss]
    records += [random_.choice(records) for _ in range(draw(st.integers(0, 5)) if records else 0)]
    order = draw(st.sampled_from(['as sent', 'a little late', 'any']))
    if order == 'any':
        random_.shuffle(records)
    elif order == 'a little late':
        delays = [random_.choice([0, 0, 0, 2, 9]) for _ in records]
        records = [r for _, r in sorted(enumerate(records), key=lambda item: item[0] + delays[item[0]])]
    return spec, records


def assert_same(transition, expected):
    assert (transition.episode, transition.index) == expected.key
    before, after = transition.observation(), transition.next_observation()
    assert before.state.dtype == np.float32
    np.testing.assert_array_equal(before.state, expected.state)
    np.testing.assert_array_equal(after.state, expected.next_state)
    assert list(before.images) == list(expected.images)
    for camera in expected.images:
        np.testing.assert_array_equal(before.images[camera], expected.images[camera])
        np.testing.assert_array_equal(after.images[camera], expected.next_images[camera])
    assert (*transition.action.translation, transition.action.opening) == expected.action
    assert transition.action.source is expected.source
    assert transition.reward == pytest.approx(expected.reward)
    assert (transition.terminated, transition.truncated) == (expected.terminated, expected.truncated)


@given(sessions())
@settings(max_examples=300, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_B1_transitions_equal_brute_force_whatever_is_lost_repeated_or_late(case):
    spec, records = case
    assembler = make(spec)
    outputs = run(records, assembler)
    expected, reasons = oracle(records, spec)
    got = sorted(settle(outputs), key=lambda t: (t.episode, t.index))
    assert len(got) == len(expected)
    for transition, wanted in zip(got, expected, strict=True):
        assert_same(transition, wanted)
    for number, report in reports_of(outputs).items():
        if report.discarded:
            continue
        assert report.dropped == {r: n for (episode, r), n in reasons.items() if episode == number}
        assert report.transitions == sum(e.key[0] == number for e in expected)
        assert report.intervened == sum(e.key[0] == number and e.source == Source.TELEOP for e in expected)
    assert not assembler.open_episodes


@given(sessions(), st.randoms(use_true_random=False))
@settings(max_examples=60, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
def test_the_order_of_arrival_does_not_matter(case, random_):
    spec, records = case
    shuffled = list(records)
    random_.shuffle(shuffled)
    results = []
    for order in (records, shuffled):
        settled = sorted(settle(run(order, make(spec))), key=lambda t: (t.episode, t.index))
        results.append(
            [
                (
                    t.episode,
                    t.index,
                    t.reward,
                    t.terminated,
                    t.next_observation().state.tobytes(),
                    t.intervened,
                )
                for t in settled
            ]
        )
    assert results[0] == results[1]


# --- One claim each ------------------------------------------------------------------------------------------


@pytest.mark.parametrize('steps', range(1, 11))
@pytest.mark.parametrize('end', ['terminated', 'truncated', None])
def test_T3_an_episode_of_n_steps_yields_n_minus_1_transitions(steps, end):
    transitions = settle(run(session(steps=steps, end=end)))
    assert [t.index for t in transitions] == list(range(steps - 1))
    assert [t.ends for t in transitions] == [False] * (steps - 2) + [end is not None] * (steps > 1)


def test_T3_nothing_crosses_the_edge_between_two_episodes():
    records = session(1, 3, end=None) + session(2, 3)
    for transition in settle(run(records)):
        frames = (*transition.frames, transition.next_frame)
        assert {frame.episode for frame in frames} == {transition.episode}
    assert len(settle(run(records))) == 4


def test_B1_the_last_observation_of_a_truncated_episode_is_its_own():
    records = session(1, 4, end='truncated') + session(2, 4)
    last = settle(run(records))[2]
    assert (last.episode, last.truncated, last.terminated) == (1, True, False)
    tick = steps_of(records)[3]
    np.testing.assert_array_equal(
        last.next_observation().state[-1, :6], joints_at(tick.joint_stamp_ns).position.astype(np.float32)
    )
    np.testing.assert_array_equal(
        last.next_observation().images['wrist'][-1], image_at('wrist', tick.image_stamps_ns[0]).image
    )


@pytest.mark.parametrize(
    ('end', 'terminated', 'truncated'), [('terminated', True, False), ('truncated', False, True)]
)
def test_B2_B4_only_success_or_failure_is_terminal_and_a_time_limit_bootstraps(end, terminated, truncated):
    *others, last = settle(run(session(steps=4, end=end)))
    assert (last.terminated, last.truncated) == (terminated, truncated)
    assert not any(t.ends for t in others)


def test_B4_terminal_beats_truncated_where_a_step_says_both():
    records = session(steps=4)
    step = records[-1]
    records[-1] = replace(step, truncated=True)
    last = settle(run(records))[-1]
    assert (last.terminated, last.truncated) == (True, False)


def test_reward_and_flags_are_those_of_the_next_step():
    transitions = settle(run(session(steps=4, reward=7.0)))
    assert [t.reward for t in transitions] == pytest.approx([0.1, 0.2, 7.0])


def test_B20_a_transition_comes_out_with_the_message_that_completes_it():
    assembler = make()
    counts = [len(assembler.push(record)) for record in session(steps=4)]
    # joints, image, step, action per step: a step completes the transition before it
    assert counts == [0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1]


def test_the_observation_that_a_policy_asks_for_live_is_the_one_in_the_transition():
    live, assembler = {}, make()
    for record in session(steps=6):
        assembler.push(record)
        if isinstance(record, StepRecord):
            assert assembler.ready(1, record.index)
            live[record.index] = assembler.observation(1, record.index)
    offline = session(steps=6)
    random.Random(4).shuffle(offline)
    for transition in settle(run(offline)):
        for seen, stored in (
            (live[transition.index], transition.observation()),
            (live[transition.index + 1], transition.next_observation()),
        ):
            assert seen.state.tobytes() == stored.state.tobytes()
            assert seen.images['wrist'].tobytes() == stored.images['wrist'].tobytes()


@pytest.mark.parametrize(
    ('lost', 'reason'), [(JointSample, 'joint message'), (ImageSample, 'image'), (StepRecord, 'step')]
)
def test_an_observation_whose_messages_are_missing_is_refused_by_name(lost, reason):
    assembler = make()
    for record in session(steps=1):
        if not isinstance(record, lost):
            assembler.push(record)
    assert not assembler.ready(1, 0)
    with pytest.raises(AssemblyError, match=reason):
        assembler.observation(1, 0)
    with pytest.raises(AssemblyError):
        assembler.observation(2, 0)


def test_B12_B28_every_frame_is_one_object_and_cannot_be_changed():
    transitions = settle(run(session(steps=8)))
    frames = {id(frame): frame for t in transitions for frame in (*t.frames, t.next_frame)}
    assert len(frames) == 8
    frame = transitions[0].next_frame
    with pytest.raises(ValueError, match='read-only'):
        frame.images['wrist'][:] = 0
    with pytest.raises(ValueError, match='read-only'):
        frame.state[0] = 0


def test_an_image_that_two_steps_name_is_kept_once():
    records = session(steps=3)
    first = steps_of(records)[0].image_stamps_ns
    records = [replace(r, image_stamps_ns=first) if isinstance(r, StepRecord) else r for r in records]
    images = {id(t.next_frame.images['wrist']) for t in settle(run(records))}
    assert len(images) == 1


def test_a_message_that_is_changed_after_it_was_pushed_changes_nothing():
    position, pixels = np.full(6, 0.5), np.full((3, 4, 4), 9, np.uint8)
    sample, image = JointSample(1, position, position), ImageSample('wrist', 1, pixels)
    position[:] = 0.0
    pixels[:] = 0
    assert sample.position[0] == 0.5
    assert image.image[0, 0, 0] == 9


def test_what_a_base_policy_said_goes_with_the_transition_of_its_step_whoever_acted():
    records = session(steps=4)
    said = [BaseRecord(1, k, BaseAction(np.array([k * 1e-3, 0.0, 0.0]), 0.5, k == 0)) for k in (0, 2)]
    transitions = [output for output in run([*said, *records]) if isinstance(output, Transition)]
    bases = {transition.index: transition.action.base for transition in transitions}
    assert [index for index, base in bases.items() if base is not None] == [0, 2]
    assert bases[2].translation.tolist() == [0.002, 0.0, 0.0]
    assert (bases[0].acts, bases[2].acts) == (True, False)
    assembler = make()
    run([said[0], said[0]], assembler)
    assert assembler.stats['repeated'] == 1


def drop(records, kind, index):
    """The records without the messages of a kind that belong to a step."""
    step = steps_of(records)[index]
    gone = {
        JointSample: lambda r: r.stamp_ns == step.joint_stamp_ns,
        ImageSample: lambda r: r.stamp_ns == step.image_stamps_ns[0],
        StepRecord: lambda r: r.index == index,
        ExecutedAction: lambda r: r.index == index,
    }[kind]
    return [r for r in records if not (isinstance(r, kind) and gone(r))]


@pytest.mark.parametrize('stack', [1, 2, 3, 4])
@pytest.mark.parametrize('kind', [JointSample, ImageSample, StepRecord])
def test_a_lost_frame_takes_the_transitions_whose_stacks_need_it_and_no_more(stack, kind):
    outputs = run(drop(session(steps=12), kind, 5), make(spec_with(stack)))
    kept = [t.index for t in settle(outputs)]
    assert kept == [k for k in range(11) if not k - stack + 1 <= 5 <= k + 1]
    dropped = reports_of(outputs)[1].dropped
    own = {JointSample: Reason.JOINT, ImageSample: Reason.IMAGE}.get(kind)
    expected = {own: 2} if own else {Reason.STEP: 1, Reason.NEXT_STEP: 1}
    assert dropped == expected | ({Reason.STACK: stack - 1} if stack > 1 else {})


def test_a_lost_action_takes_one_transition():
    outputs = run(drop(session(steps=6), ExecutedAction, 2))
    assert [t.index for t in settle(outputs)] == [0, 1, 3, 4]
    assert reports_of(outputs)[1].dropped == {Reason.ACTION: 1}


def test_a_message_that_comes_very_late_still_completes_its_transitions():
    records = session(steps=8)
    late = drop(records, JointSample, 3)
    missing = next(r for r in records if r not in late)
    assert [t.index for t in settle(run([*late, missing]))] == list(range(7))


def test_a_stamp_that_goes_back_is_counted_and_gives_no_transition():
    records = [
        replace(r, stamp_ns=r.stamp_ns - 250 * MS) if isinstance(r, StepRecord) and r.index >= 3 else r
        for r in session(steps=7)
    ]
    outputs = run(records)
    assert [t.index for t in settle(outputs)] == [0, 1, 5]
    assert reports_of(outputs)[1].dropped == {Reason.OUT_OF_ORDER: 1, Reason.STACK: 2}


def test_F1_a_joint_message_in_degrees_is_counted_and_spoils_only_its_frame():
    records = [
        joints_at(r.stamp_ns, bad=True)
        if isinstance(r, JointSample) and r.stamp_ns == steps_of(session())[2].joint_stamp_ns
        else r
        for r in session(steps=8)
    ]
    outputs = run(records)
    assert [t.index for t in settle(outputs)] == [0, 5, 6]
    assert reports_of(outputs)[1].dropped == {Reason.STATE: 2, Reason.STACK: 2}


@pytest.mark.parametrize('source', [Source.NONE, Source.RESET])
def test_what_neither_policy_nor_person_did_is_not_learned(source):
    records = [
        replace(r, source=source) if isinstance(r, ExecutedAction) and r.index == 1 else r
        for r in session(steps=4)
    ]
    outputs = run(records)
    assert [t.index for t in settle(outputs)] == [0, 2]
    assert reports_of(outputs)[1].dropped == {Reason.SOURCE: 1}


def test_T8_the_source_of_every_action_is_kept():
    records = [
        replace(r, source=Source.TELEOP) if isinstance(r, ExecutedAction) and r.index in (1, 2) else r
        for r in session(steps=5)
    ]
    outputs = run(records)
    assert [t.intervened for t in settle(outputs)] == [False, True, True, False]
    assert reports_of(outputs)[1].intervened == 2


def test_steps_between_episodes_are_not_learned():
    assembler = make()
    assert settle(run(session(episode=0, start_ms=7000), assembler)) == []
    assert assembler.stats['between_episodes'] == 9
    assert assembler.open_episodes == ()


def event(kind, episode=1, after_ms=0):
    return EpisodeEventRecord(episode, kind, (episode * 100_000 + 2000 + after_ms) * MS)


@pytest.mark.parametrize(
    ('end', 'reward', 'label', 'expected'),
    [
        ('truncated', 0.0, EventKind.SUCCESS, (1.0, True, False)),
        ('truncated', 0.25, EventKind.SUCCESS, (1.25, True, False)),
        ('truncated', 0.0, EventKind.FAILURE, (0.0, True, False)),
        ('terminated', 1.0, EventKind.SUCCESS, (1.0, True, False)),
        ('terminated', 1.0, EventKind.FAILURE, (0.0, True, False)),
        ('terminated', 0.0, EventKind.SUCCESS, (1.0, True, False)),
        ('terminated', 1.0, EventKind.TIME_LIMIT, (0.0, False, True)),
        ('truncated', 0.0, EventKind.ABORT, (0.0, False, True)),
    ],
)
@pytest.mark.parametrize('when', ['before', 'after'])
def test_a_late_label_decides_reward_and_flags_of_the_last_transition(end, reward, label, expected, when):
    records = session(steps=4, end=end, reward=reward)
    records = [event(label), *records] if when == 'before' else [*records, event(label)]
    outputs = run(records)
    last = settle(outputs)[-1]
    assert (last.reward, last.terminated, last.truncated) == pytest.approx(expected)
    assert len(settle(outputs)) == 3
    assert reports_of(outputs)[1].outcome == label.outcome


def test_a_label_that_changes_something_sends_the_last_transition_again_and_only_that():
    assembler = make()
    for record in session(steps=4, end='truncated'):
        assembler.push(record)
    (revised,) = assembler.push(event(EventKind.SUCCESS))
    assert (revised.index, revised.revision, revised.terminated) == (2, 1, True)
    assert assembler.push(event(EventKind.SUCCESS, after_ms=1)) == []
    (again,) = assembler.push(event(EventKind.FAILURE, after_ms=2))
    assert (again.revision, again.reward) == (2, 0.0)
    assert assembler.push(event(EventKind.SUCCESS)) == []
    assert assembler.push(event(EventKind.PAUSE, after_ms=3)) == []


def test_own_rewards_for_success_and_failure_are_used():
    assembler = make(success_reward=10.0, failure_reward=-1.0)
    records = [*session(steps=4, end='terminated', reward=10.05), event(EventKind.FAILURE)]
    assert settle(run(records, assembler))[-1].reward == pytest.approx(-0.95)


def test_without_a_label_the_last_step_tells_the_outcome():
    for end, reward, outcome in (
        ('terminated', 1.0, Outcome.SUCCESS),
        ('terminated', 0.0, Outcome.FAILURE),
        ('truncated', 0.0, Outcome.TIME_LIMIT),
        (None, 0.0, None),
    ):
        assert reports_of(run(session(end=end, reward=reward)))[1].outcome is outcome


@pytest.mark.parametrize('position', [0, 7, -1])
def test_a_discarded_episode_leaves_nothing(position):
    records = session(1) + session(2)
    records.insert(position if position >= 0 else len(records), event(EventKind.DISCARD))
    outputs = run(records)
    assert {t.episode for t in settle(outputs)} == {2}
    report = reports_of(outputs)[1]
    assert report.discarded
    assert report.outcome is Outcome.DISCARD


def test_a_discard_is_reported_at_once_so_that_a_learner_can_forget():
    assembler = make()
    for record in session():
        assembler.push(record)
    (report,) = assembler.push(event(EventKind.DISCARD))
    assert report.discarded
    assert report.transitions == 4
    assert assembler.push(event(EventKind.SUCCESS, after_ms=9)) == []
    assert assembler.stats['late'] == 1


def test_nothing_follows_a_last_step():
    records = session(steps=4) + [
        replace(r, index=r.index + 4) if isinstance(r, StepRecord | ExecutedAction) else r
        for r in session(steps=4, start_ms=200_000)
    ]
    outputs = run(records)
    assert [t.index for t in settle(outputs)] == [0, 1, 2, 6]
    assert reports_of(outputs)[1].dropped == {Reason.AFTER_END: 1, Reason.STACK: 2}


def test_the_report_accounts_for_every_step():
    outputs = run(drop(drop(session(steps=9), ImageSample, 1), ExecutedAction, 6))
    report = reports_of(outputs)[1]
    assert report.steps == 9
    assert report.transitions + sum(report.dropped.values()) == 8


# --- Memory, restarts, malformed input -----------------------------------------------------------------------


def test_older_episodes_close_when_newer_ones_open():
    assembler = make(limits=Limits(episodes=2, labels=2))
    closed = []
    for number in range(1, 6):
        for record in session(number):
            closed += [o.episode for o in assembler.push(record) if isinstance(o, EpisodeReport)]
    assert closed == [1, 2, 3]
    assert assembler.open_episodes == (4, 5)
    assert assembler.push(event(EventKind.SUCCESS)) == []
    assert assembler.stats['late'] == 1


def test_memory_stays_bounded_whatever_comes_in():
    limits = Limits(joints=20, images=10, steps=15, episodes=2)
    assembler = make(limits=limits)
    given_, kept = 0, 0
    for k in range(400):
        tick = (1000 + 100 * k) * MS
        if k % 3:
            assembler.push(joints_at(tick))
        assembler.push(image_at('wrist', tick))
        given_ += len(assembler.push(StepRecord(1, k, tick, tick, (tick,))))
        assembler.push(action_at(1, k))
        assembler.push(action_at(2, 10_000 + k))
        kept = max(kept, size_of(assembler))
    assert kept < 250
    (report, _) = assembler.flush()
    assert report.steps == 400
    assert report.transitions + sum(report.dropped.values()) == 400
    assert set(report.dropped) == {Reason.JOINT, Reason.STACK, Reason.NEXT_STEP}


def size_of(assembler):
    """Number of entries in all containers of the assembler, found without knowing its fields."""
    seen, todo, total = set(), [assembler], 0
    while todo:
        thing = todo.pop()
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        if isinstance(thing, dict | list | set | tuple):
            total += len(thing)
            todo += thing.values() if isinstance(thing, dict) else thing
        elif type(thing).__module__.startswith('so101_contract') and hasattr(thing, '__dict__'):
            todo += [value for key, value in vars(thing).items() if key != 'spec']
    return total


def test_a_long_episode_gives_everything_although_little_is_kept():
    assembler = make(limits=Limits(steps=10))
    assert [t.index for t in settle(run(session(steps=300), assembler))] == list(range(299))


def test_a_corrupt_step_number_costs_neither_time_nor_memory():
    assembler = make(limits=Limits(steps=10))
    records = session(steps=5, end=None)
    outputs = run([*records, replace(steps_of(records)[-1], index=10**12, stamp_ns=10**15)], assembler)
    assert len(settle(outputs)) == 4
    assert reports_of(outputs)[1].dropped[Reason.STEP] == 10**12 - 5


def test_a_restarted_session_may_count_its_episodes_from_one_again():
    assembler = make(limits=Limits(episodes=2))
    outputs = []
    for start in (0, 500_000, -800_000):
        for number in (1, 2, 3):
            for record in session(number, 4, start_ms=start + 1_000_000 + number * 1000):
                outputs += assembler.push(record)
    outputs += assembler.flush()
    assert [(t.episode, t.index) for t in settle(outputs)] == list(itertools.product((1, 2, 3), range(3))) * 3


def test_a_restart_in_the_middle_of_the_first_episode_does_not_mix_the_two():
    old, new = session(1, 4, end=None), session(1, 4, start_ms=700_000)
    outputs = run(old + new)
    assert [t.index for t in settle(outputs)] == [0, 1, 2] * 2
    assert [output.steps for output in outputs if isinstance(output, EpisodeReport)] == [4, 4]


def test_copies_are_counted_and_change_nothing():
    assembler = make()
    records = [record for record in session() for _ in range(2)]
    assert len(settle(run(records, assembler))) == 4
    assert assembler.stats['repeated'] == len(records) // 2


@pytest.mark.parametrize(
    'bad',
    [
        StepRecord(1, 0, 1, 1, ()),
        StepRecord(1, 0, 1, 1, (1, 1)),
        ImageSample('other', 1, np.zeros((3, 4, 4), np.uint8)),
        ImageSample('wrist', 1, np.zeros((3, 8, 8), np.uint8)),
    ],
    ids=['no image stamps', 'two image stamps', 'another camera', 'another size'],
)
def test_F11_a_message_that_does_not_fit_the_spec_is_refused_and_changes_nothing(bad):
    assembler = make()
    with pytest.raises(AssemblyError, match='observation spec'):
        assembler.push(bad)
    assert len(settle(run(session(), assembler))) == 4


@pytest.mark.parametrize(
    'make_record',
    [
        lambda: StepRecord(-1, 0, 0, 0, ()),
        lambda: StepRecord(1, -1, 0, 0, ()),
        lambda: StepRecord(1, 0, 0, 0, (), reward=float('nan')),
        lambda: JointSample(0, np.zeros(5), np.zeros(6)),
        lambda: JointSample(0, np.zeros(6), []),
        lambda: JointSample(0, np.full(6, np.nan), np.zeros(6)),
        lambda: JointSample.from_message(0, ['gripper'], [0.0], [0.0]),
        lambda: ImageSample('wrist', 0, np.zeros((4, 4, 3), np.uint8)),
        lambda: ImageSample('wrist', 0, np.zeros((3, 4, 4), np.float32)),
        lambda: ExecutedAction(1, 0, np.full(3, np.nan), 0.0, Source.POLICY),
        lambda: Limits(images=0),
        lambda: Limits(steps=1),
    ],
)
def test_a_record_that_makes_no_sense_is_refused(make_record):
    with pytest.raises(ContractError):
        make_record()


def test_plain_numbers_of_messages_become_names():
    assert ExecutedAction(1, 0, np.zeros(3), 0.0, 2).source is Source.TELEOP
    assert EpisodeEventRecord(1, 3, 0).kind is EventKind.DISCARD
    assert [kind.outcome for kind in (EventKind.ABORT, EventKind.START)] == [Outcome.ABORT, None]


def test_a_camera_image_is_preprocessed_on_the_way_in():
    raw = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    sample = ImageSample.from_raw(CameraSpec('wrist', 4), 5, raw, 'bgr8')
    assert sample.image.shape == (3, 4, 4)


def test_joints_are_ordered_by_name():
    names = ['gripper', 'wrist_roll', 'wrist_flex', 'elbow_flex', 'shoulder_lift', 'shoulder_pan']
    sample = JointSample.from_message(0, names, range(6), range(10, 16))
    np.testing.assert_array_equal(sample.position, [5, 4, 3, 2, 1, 0])
    np.testing.assert_array_equal(sample.velocity, [15, 14, 13, 12, 11, 10])


def test_settle_keeps_what_has_no_report_yet():
    assembler = make()
    outputs = [output for record in session() for output in assembler.push(record)]
    assert all(isinstance(output, Transition) for output in outputs)
    assert len(settle(outputs)) == 4


def test_a_label_that_comes_after_many_later_episodes_revises_the_last_transition_and_the_report():
    assembler = make(limits=Limits())
    outputs = [o for n in range(1, 9) for r in session(n, end='truncated') for o in assembler.push(r)]
    assert 1 not in assembler.open_episodes
    before = [t for t in settle(outputs) if t.episode == 1]
    outputs += assembler.push(EpisodeEventRecord(1, EventKind.SUCCESS, 10**15))
    after = [t for t in settle(outputs) if t.episode == 1]
    assert [t.reward for t in after[:-1]] == [t.reward for t in before[:-1]]
    last = after[-1]
    assert (last.reward, last.terminated, last.truncated, last.revision) == (1.0, True, False, 1)
    assert last.frames is before[-1].frames
    reports = [o for o in outputs if isinstance(o, EpisodeReport) and o.episode == 1]
    assert [(r.outcome, r.revision) for r in reports] == [(Outcome.TIME_LIMIT, 0), (Outcome.SUCCESS, 1)]
    assert all(t.revision == 0 for t in settle(outputs) if t.episode != 1)
    # An older word that arrives later changes nothing; a newer one does, and so does throwing it away.
    assert assembler.push(EpisodeEventRecord(1, EventKind.FAILURE, 10**14)) == []
    (back, report) = assembler.push(EpisodeEventRecord(1, EventKind.TIME_LIMIT, 10**16))
    assert (back.reward, back.terminated, back.truncated, report.revision) == (0.0, False, True, 2)
    (gone,) = assembler.push(EpisodeEventRecord(1, EventKind.DISCARD, 10**17))
    assert gone.discarded
    assert assembler.push(EpisodeEventRecord(1, EventKind.SUCCESS, 10**18)) == []
    outputs += [back, report, gone]
    assert {t.episode for t in settle(outputs)} == set(range(2, 9))


def test_a_label_for_an_episode_that_is_forgotten_is_counted():
    assembler = make(limits=Limits(labels=2))
    for n in range(1, 9):
        for record in session(n, steps=3):
            assembler.push(record)
    assert assembler.push(EpisodeEventRecord(1, EventKind.FAILURE, 10**15)) == []
    assert assembler.stats['late'] == 1

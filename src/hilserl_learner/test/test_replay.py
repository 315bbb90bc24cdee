# SPDX-License-Identifier: Apache-2.0
from collections import Counter
from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest
import torch

from hilserl_learner.data.batch import Windows
from hilserl_learner.data.replay import bytes_per_frame, gather, ReplayBuffer, SymmetricSampler
from hilserl_learner.errors import NotReadyError, ReplayError
from so101_contract.action import ActionSpec, GripperConvention
from so101_contract.observation_spec import ObservationSpec

from .experience import ACTION, make_episode, make_frame, small_spec, views

SPEC = small_spec()


def make_buffer(capacity=100, spec=SPEC, **options):
    windows = Windows(n_step=options.pop('n_step', 1), gamma=options.pop('gamma', 0.9))
    return ReplayBuffer(spec, ACTION, capacity=capacity, windows=windows, **options)


def rng(seed=0):
    return np.random.default_rng(seed)


def everything(buffer):
    """Every transition of a buffer once, in no particular order."""
    return gather([(buffer, buffer._live[: len(buffer)].copy())])


def row_of(batch, transition):
    """The row of a batch that shows this transition."""
    state = np.concatenate([frame.state for frame in transition.frames])
    (rows,) = np.nonzero((batch.state.numpy() == state).all(axis=1))
    assert len(rows) == 1
    return int(rows[0])


class Oracle:
    """The slow and obvious buffer: a list of transitions in the order in which they came."""

    def __init__(self, capacity, n_step, gamma):
        self.capacity, self.n_step, self.gamma = capacity, n_step, gamma
        self.held = []

    def add(self, transition, stream):
        for i, (known, name) in enumerate(self.held):
            if (name, known.episode, known.index) == (stream, transition.episode, transition.index):
                if transition.revision > known.revision:
                    self.held[i] = (transition, stream)
                return
        while len(self._frames([*self.held, (transition, stream)])) > self.capacity:
            self.held.pop(0)
        self.held.append((transition, stream))

    def discard(self, episode, stream):
        self.held = [(t, name) for t, name in self.held if (t.episode, name) != (episode, stream)]

    def window(self, transition, stream):
        """Reward, discount and last transition, step by step."""
        reward, discount, last = transition.reward, self.gamma, transition
        for _ in range(1, self.n_step):
            if last.ends:
                break
            after = [
                t
                for t, name in self.held
                if (name, t.episode, t.index) == (stream, last.episode, last.index + 1)
            ]
            if not after:
                break
            last = after[0]
            reward += discount * last.reward
            discount *= self.gamma
        return reward, 0.0 if last.terminated else discount, last

    @staticmethod
    def _frames(held):
        return {(name, frame.episode, frame.index) for t, name in held for frame in (*t.frames, t.next_frame)}


def assert_same(buffer, oracle):
    assert len(buffer) == len(oracle.held)
    if not oracle.held:
        return
    batch = everything(buffer)
    for transition, stream in oracle.held:
        row = row_of(batch, transition)
        reward, discount, last = oracle.window(transition, stream)
        after = (*last.frames[1:], last.next_frame)
        np.testing.assert_array_equal(batch.images[row].numpy(), views(transition.frames))
        np.testing.assert_array_equal(batch.next_images[row].numpy(), views(after))
        np.testing.assert_array_equal(batch.next_state[row].numpy(), np.concatenate([f.state for f in after]))
        np.testing.assert_allclose(batch.reward[row], reward, rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(batch.discount[row], discount, rtol=1e-6)
        wire = ACTION.from_wire(transition.action.translation, transition.action.opening)
        np.testing.assert_allclose(batch.action[row], wire.values, rtol=1e-6)
        assert bool(batch.intervened[row]) == transition.intervened


EPISODE = st.fixed_dictionaries(
    {
        'steps': st.integers(1, 10),
        'end': st.sampled_from(['terminated', 'truncated', 'open']),
        'gaps': st.sets(st.integers(0, 9), max_size=2),
        'discard': st.booleans(),
        'relabel': st.booleans(),
        'shuffled': st.booleans(),
        'stream': st.sampled_from(['left', 'right']),
    }
)


@settings(max_examples=60)
@given(st.lists(EPISODE, min_size=1, max_size=8), st.integers(1, 5), st.integers(4, 40), st.integers(1, 4))
def test_B3_replay_equals_a_naive_oracle_for_any_sequence_of_inserts_labels_and_discards(
    episodes, n_step, capacity, frame_stack
):
    spec = small_spec(2, frame_stack)
    capacity = max(capacity, frame_stack + 1)
    buffer = make_buffer(capacity, spec, n_step=n_step)
    oracle = Oracle(capacity, n_step, 0.9)
    for number, plan in enumerate(episodes, start=1):
        end = {plan['end']: True} if plan['end'] != 'open' else {}
        stream = plan['stream']
        made = make_episode(
            spec, number, plan['steps'], gaps=plan['gaps'], stream=int(stream == 'left'), **end
        )
        if plan['shuffled']:
            rng(number).shuffle(made)
        if plan['relabel'] and made:
            newest = max(made, key=lambda t: t.index)
            made.append(replace(newest, reward=9.0, terminated=True, truncated=False, revision=1))
            made.append(newest)  # the old label comes again, late
        for transition in made:
            buffer.add(transition, stream)
            oracle.add(transition, stream)
        assert_same(buffer, oracle)
        if plan['discard']:
            buffer.discard(number, stream)
            oracle.discard(number, stream)
            assert_same(buffer, oracle)


@pytest.mark.parametrize('n_step', [1, 2, 3, 4, 5])
@pytest.mark.parametrize('steps', range(1, 11))
def test_B3_discount_is_gamma_to_the_window_or_zero_and_never_more(steps, n_step):
    buffer = make_buffer(n_step=n_step)
    for transition in make_episode(SPEC, 1, steps, terminated=True):
        buffer.add(transition)
    discount = everything(buffer).discount.numpy()
    allowed = [0.0, *(np.float32(0.9**k) for k in range(1, n_step + 1))]
    assert all(any(np.isclose(value, known) for known in allowed) for value in discount)
    assert (discount == 0).sum() == min(n_step, steps)


def test_B1_next_observation_of_a_truncated_transition_is_the_episodes_own_last_frame():
    buffer = make_buffer(capacity=13)  # several times around the ring
    for number in range(1, 9):
        episode = make_episode(SPEC, number, 4, truncated=True)
        for transition in episode:
            buffer.add(transition)
    batch = everything(buffer)
    row = row_of(batch, episode[-1])
    np.testing.assert_array_equal(
        batch.next_images[row, 0, -3:].numpy(), make_frame(SPEC, 8, 4).images['cam0']
    )


def test_B2_truncation_bootstraps_and_terminal_does_not():
    buffer = make_buffer()
    cut, done = make_episode(SPEC, 1, 1, truncated=True), make_episode(SPEC, 2, 1, terminated=True)
    buffer.add(cut[0])
    buffer.add(done[0])
    batch = everything(buffer)
    assert batch.discount[row_of(batch, cut[0])] == pytest.approx(0.9)
    assert batch.discount[row_of(batch, done[0])] == 0.0


def test_B4_a_time_limit_bootstraps_by_default():
    buffer = make_buffer(n_step=3)
    for transition in make_episode(SPEC, 1, 2, truncated=True):
        buffer.add(transition)
    assert (everything(buffer).discount > 0).all()


def test_B5_a_batch_has_exactly_the_size_asked_for():
    buffer = make_buffer()
    buffer.add(make_episode(SPEC, 1, 1)[0])
    assert len(buffer.sample(64, rng())) == 64


def test_B5_an_empty_buffer_says_that_it_is_not_ready():
    with pytest.raises(NotReadyError, match='wait'):
        make_buffer().sample(4, rng())


def test_B6_without_demonstrations_a_batch_is_all_online():
    online = make_buffer()
    online.add(make_episode(SPEC, 1, 1)[0])
    batch = SymmetricSampler(make_buffer(is_demo=True), online).sample(16, rng())
    assert len(batch) == 16
    assert not batch.is_demo.any()


@pytest.mark.parametrize('size', [1, 2, 7, 64])
def test_B6_with_demonstrations_half_of_a_batch_is_theirs(size):
    demo, online = make_buffer(is_demo=True), make_buffer()
    for transition in make_episode(SPEC, 1, 5):
        demo.add(transition)
    for transition in make_episode(SPEC, 2, 5):
        online.add(transition)
    batch = SymmetricSampler(demo, online).sample(size, rng())
    assert len(batch) == size
    assert abs(int(batch.is_demo.sum()) - size / 2) <= 0.5


def test_symmetric_sampling_of_two_empty_buffers_is_not_ready():
    with pytest.raises(NotReadyError):
        SymmetricSampler(make_buffer(is_demo=True), make_buffer()).sample(4, rng())


def test_B12_single_frames_are_stored_and_any_stack_is_rebuilt():
    for frame_stack in (1, 2, 4):
        spec = small_spec(4, frame_stack)
        buffer = make_buffer(spec=spec)
        episode = make_episode(spec, 1, 6)
        for transition in episode:
            buffer.add(transition)
        batch = everything(buffer)
        assert buffer.frames == 7
        assert batch.images.shape == (6, 1, 3 * frame_stack, 4, 4)
        row = row_of(batch, episode[0])
        np.testing.assert_array_equal(batch.images[row].numpy(), views(episode[0].frames))


def test_B28_a_transition_at_84_px_takes_22_kB_at_most():
    spec = ObservationSpec()
    buffer = ReplayBuffer(spec, ACTION, capacity=2000)
    frames = [make_frame(spec, 1, 0)] * 1  # one picture will do
    frames += [replace(frames[0], index=i, stamp_ns=i) for i in range(1, 2000)]
    for transition in make_episode(spec, 1, 1999, frames=frames):
        buffer.add(transition)
    assert buffer.nbytes / len(buffer) <= 22_000
    assert bytes_per_frame(spec) * 100_000 <= 2.2e9


def test_B28_memory_is_stated_exactly_and_does_not_grow():
    buffer = make_buffer(capacity=20)
    before = buffer.nbytes
    assert before == 20 * bytes_per_frame(SPEC)
    for number in range(1, 30):
        for transition in make_episode(SPEC, number, 5, truncated=True):
            buffer.add(transition)
    assert buffer.nbytes == before
    assert buffer.frames <= 20
    assert len(buffer._keys) == buffer.frames
    assert sum(map(len, buffer._episodes.values())) == buffer.frames


def test_sampling_is_uniform_over_steps_not_over_episodes():
    buffer = make_buffer(capacity=1000)
    long, short = make_episode(SPEC, 1, 90), make_episode(SPEC, 2, 10)
    for transition in (*long, *short):
        buffer.add(transition)
    counts = Counter(buffer.draw(40_000, rng()).tolist())
    assert len(counts) == 100
    assert 300 < min(counts.values()) <= max(counts.values()) < 500


def test_sampling_is_repeatable_with_the_same_generator():
    buffer = make_buffer()
    for transition in make_episode(SPEC, 1, 9):
        buffer.add(transition)
    one, two = buffer.sample(8, rng(3)), buffer.sample(8, rng(3))
    assert torch.equal(one.images, two.images)
    assert torch.equal(one.reward, two.reward)


def test_T8_the_stored_action_is_the_executed_one():
    buffer = make_buffer()
    (transition,) = make_episode(SPEC, 1, 1, intervened=(0,))
    buffer.add(transition)
    batch = buffer.sample(1, rng())
    value = ACTION.to_wire(batch.action[0].numpy())
    np.testing.assert_allclose(value.translation, transition.action.translation, atol=1e-8)
    np.testing.assert_allclose(value.opening, transition.action.opening, atol=1e-6)
    assert bool(batch.intervened[0])


def test_two_cameras_keep_their_order():
    spec = small_spec(4, 2, cameras=2)
    buffer = make_buffer(spec=spec)
    episode = make_episode(spec, 1, 3)
    for transition in episode:
        buffer.add(transition)
    batch = everything(buffer)
    np.testing.assert_array_equal(batch.images[row_of(batch, episode[1])].numpy(), views(episode[1].frames))


def test_F11_a_transition_of_another_observation_is_refused_with_both_shapes():
    buffer = make_buffer()
    with pytest.raises(ReplayError, match=r'\(3, 4, 4\).*\(3, 8, 8\)'):
        buffer.add(make_episode(small_spec(8), 1, 1)[0])
    assert len(buffer) == 0


def test_same_episode_numbers_of_two_arms_are_kept_apart():
    buffer = make_buffer()
    for stream in ('left', 'right'):
        for transition in make_episode(SPEC, 1, 3, stream=int(stream == 'left')):
            buffer.add(transition, stream)
    assert buffer.discard(1, 'left') == 3
    assert len(buffer) == 3


def test_a_capacity_too_small_for_one_transition_is_refused():
    with pytest.raises(ReplayError, match='at least 4 frames'):
        make_buffer(capacity=3)


def test_B28_a_capacity_beyond_the_memory_of_the_machine_is_refused():
    with pytest.raises(ReplayError, match='GB of memory'):
        ReplayBuffer(ObservationSpec(), ACTION, capacity=10**9)


def test_a_discrete_gripper_is_refused():
    with pytest.raises(ReplayError, match='DISCRETE'):
        ReplayBuffer(SPEC, ActionSpec(gripper=GripperConvention.DISCRETE), capacity=10)


def test_buffers_of_different_observations_are_not_mixed():
    with pytest.raises(ValueError, match='frame_stack'):
        SymmetricSampler(make_buffer(), make_buffer(spec=small_spec(4, 2)))


@pytest.mark.skipif(not torch.cuda.is_available(), reason='needs a GPU')
def test_batches_made_on_a_gpu_are_those_made_on_the_host():
    spec = small_spec(16, 3, cameras=2)
    host, gpu = make_buffer(spec=spec, n_step=3), make_buffer(spec=spec, n_step=3, device='cuda')
    for transition in make_episode(spec, 1, 20, terminated=True):
        host.add(transition)
        gpu.add(transition)
    one, two = host.sample(64, rng()), gpu.sample(64, rng())
    assert two.images.device.type == 'cuda'
    for name in ('images', 'next_images', 'state', 'next_state', 'action', 'reward', 'discount', 'is_demo'):
        assert torch.equal(getattr(one, name), getattr(two, name).cpu())

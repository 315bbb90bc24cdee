# SPDX-License-Identifier: Apache-2.0
"""From stamped messages to an action, without ROS: the observation, when to act, and when to hold."""

from dataclasses import replace
import math

import numpy as np
import pytest
from random_policies import random_policy

from drqv2_policy_node.acting import Acting, Decision, Installed, noise_source, Observed
from drqv2_policy_node.answering import ActingStats, Hold, HoldReason, LIMITS, Mode, Timing, WINDOW
from so101_contract.assembly import Assembler
from so101_contract.errors import AssemblyError, ObservationError
from so101_contract.image import message_to_rgb
from so101_contract.joints import gripper_opening_to_rad
from so101_contract.manifest import golden_observation
from so101_contract.messages import ImageSample, JointSample, StepRecord
from so101_contract.observation import canonical_images, observation_digest
from so101_contract.observation_spec import CameraSpec, get_observation
from so101_kinematics.fk import state_function

SPEC = get_observation('compact')
POLICY = random_policy(1)
TICK = 100_000_000
START = np.array([0.0, -0.4, 0.6, 0.8, 0.0, 0.5])


def installed(policy=POLICY, version=3, std=0.15):
    said = policy.manifest
    return Installed(policy, said.action, said.name, version, std, said.observation.hash)


def make_acting(spec=SPEC, policy=POLICY, **options):
    acting = Acting(Assembler(spec, state_function(spec), limits=LIMITS), **options)
    if policy is not None:
        acting.installed = installed(policy)
    return acting


def joints(k, q=None):
    rng = np.random.default_rng(k)
    position = START + rng.uniform(-0.05, 0.05, 6) if q is None else q
    return JointSample(k * TICK + 1, position, rng.uniform(-0.5, 0.5, 6))


def image(k, camera=SPEC.cameras[0], salt=0):
    size = camera.size
    pixels = np.random.default_rng([salt, k]).integers(0, 256, (3, size, size), dtype=np.uint8)
    return ImageSample(camera.name, k * TICK + 2 + salt, pixels)


def step(k, episode=1, spec=SPEC, **changes):
    stamps = tuple(k * TICK + 2 + salt for salt, _ in enumerate(spec.cameras))
    return replace(StepRecord(episode, k, k * TICK + 5_000_000, k * TICK + 1, stamps), **changes)


def feed(acting, k, spec=SPEC):
    acting.assembler.push(joints(k))
    for salt, camera in enumerate(spec.cameras):
        acting.assembler.push(image(k, camera, salt))


def answer(acting, k, **changes):
    feed(acting, k)
    acting.begin(step(k, **changes), 0)
    return acting.decide(0)


def test_an_action_is_what_the_bare_policy_says_to_what_the_learner_rebuilds():
    acting, learner = make_acting(), Assembler(SPEC, state_function(SPEC))
    for k in range(6):
        decision = answer(acting, k)
        for record in (step(k), image(k), joints(k)):  # another order than the policy got
            learner.push(record)
        rebuilt = learner.observation(1, k)
        assert observation_digest(decision.observation) == observation_digest(rebuilt)
        np.testing.assert_array_equal(decision.action, POLICY.act(rebuilt))


def test_the_wire_carries_metres_and_an_opening():
    decision = answer(make_acting(), 0)
    np.testing.assert_allclose(decision.wire.translation, 0.02 * decision.action[:3].astype(float))
    assert decision.wire.opening == pytest.approx((decision.action[3] + 1) / 2)


@pytest.mark.parametrize('preset', ['compact', 'full'])
def test_F11_the_state_that_is_fed_equals_that_of_the_environment(preset):
    from so101_sim.env import ArmEnv
    from so101_sim.scene.presets import get_preset

    spec = get_observation(preset)
    env = ArmEnv(
        preset=replace(get_preset('easy'), observation=spec), images=False
    )  # the same arm without pictures
    acting = make_acting(spec, random_policy(2, observation=spec))
    rng = np.random.default_rng(0)
    env.reset(seed=3)
    for k in range(15):
        reading = env.arm.reading
        acting.assembler.push(JointSample(k * TICK + 1, reading.position, reading.velocity))
        acting.assembler.push(image(k, spec.cameras[0]))
        acting.begin(step(k, spec=spec), 0)
        decision = acting.decide(0)
        assert np.abs(decision.observation.state - env.observation().state).max() <= 1e-6
        env.step(rng.uniform(-1, 1, 4))


def test_F5_the_gripper_is_fed_as_an_angle():
    acting = make_acting()
    angle = gripper_opening_to_rad(0.3)
    acting.assembler.push(joints(0, np.append(START[:5], angle)))
    acting.assembler.push(image(0))
    acting.begin(step(0), 0)
    assert acting.decide(0).observation.state[-1, 5] == pytest.approx(angle)


def test_F5_a_gripper_that_is_no_angle_makes_it_hold():
    acting = make_acting()
    acting.assembler.push(joints(0, np.append(START[:5], 5.5)))
    acting.assembler.push(image(0))
    acting.begin(step(0), 0)
    hold = acting.decide(10**9)
    assert hold.reason is HoldReason.MISSING
    assert 'refused' in hold.detail


def test_F11_a_policy_that_wants_another_state_holds_with_both_shapes():
    acting = make_acting(policy=None)
    acting.installed = installed(
        random_policy(observation=replace(get_observation('full'), cameras=SPEC.cameras))
    )
    hold = answer(acting, 0)
    assert hold.reason is HoldReason.REFUSED
    assert '18' in hold.detail
    assert '15' in hold.detail


@pytest.mark.parametrize('block', range(5))
def test_F16_every_group_of_state_entries_reaches_the_action(block):
    decision = answer(make_acting(), 0)
    before = POLICY.act(decision.observation)
    state = decision.observation.state.copy()
    state[:, 3 * block : 3 * block + 3] += 0.3
    assert np.abs(POLICY.act(replace(decision.observation, state=state)) - before).max() > 1e-5


def test_L5_frames_reach_the_policy_stacked_once_oldest_first():
    acting = make_acting()
    for k in range(4):
        decision = answer(acting, k)
    frames = canonical_images(decision.observation.images['gripper_cam'], SPEC, batched=False)
    for age, k in enumerate((1, 2, 3)):
        np.testing.assert_array_equal(frames[age], image(k).image)


def test_L6_L7_pixels_of_a_message_reach_the_policy_bit_exactly():
    pixels = np.random.default_rng(5).integers(0, 256, (64, 64, 3), dtype=np.uint8)
    rgb = message_to_rgb(64, 64, 'rgb8', 192, pixels.tobytes())
    acting = make_acting()
    acting.assembler.push(joints(0))
    acting.assembler.push(ImageSample.from_raw(SPEC.cameras[0], 2, rgb))
    acting.begin(step(0), 0)
    seen = acting.decide(0).observation.images['gripper_cam']
    assert seen.dtype == np.uint8
    np.testing.assert_array_equal(seen[-1], pixels.transpose(2, 0, 1))


def test_L11_exploration_has_the_asked_for_spread_and_eval_none():
    acting, decisions = make_acting(mode=Mode.EXPLORE), []
    feed(acting, 0)
    for k in range(1000):  # one observation, many steps: each begins an episode of its own
        acting.begin(replace(step(0, episode=k + 1), stamp_ns=5_000_000 + k), 0)
        decisions.append(acting.decide(0))
    spread = np.std([decision.action for decision in decisions], axis=0)
    np.testing.assert_allclose(spread, 0.15, rtol=0.1)
    acting.mode = Mode.EVAL
    acting.begin(step(0, episode=2000), 0)
    np.testing.assert_array_equal(acting.decide(0).action, POLICY.act(decisions[0].observation))


def test_explored_actions_can_be_computed_again_from_a_bag():
    acting = make_acting(mode=Mode.EXPLORE, seed=7)
    decision = answer(acting, 0)
    again = POLICY.act(decision.observation, std=decision.std, rng=noise_source(7, step(0).stamp_ns))
    np.testing.assert_array_equal(decision.action, again)


def test_two_cameras_are_fed_in_the_order_of_the_spec():
    spec = replace(SPEC, cameras=(CameraSpec('side', 64), CameraSpec('gripper_cam', 64)))
    acting = make_acting(spec, random_policy(observation=spec))
    feed(acting, 0, spec)
    acting.begin(step(0, spec=spec), 0)
    assert list(acting.decide(0).observation.images) == ['side', 'gripper_cam']


def test_a_step_waits_for_an_input_that_is_on_its_way():
    acting = make_acting()
    acting.assembler.push(joints(0))
    acting.begin(step(0), 0)
    assert acting.decide(10_000_000) is None
    acting.assembler.push(image(0))
    assert isinstance(acting.decide(20_000_000), Decision)
    assert acting.decide(30_000_000) is None


def test_a_step_whose_input_never_comes_is_held_with_the_reason():
    acting = make_acting()
    acting.assembler.push(joints(0))
    acting.begin(step(0), 0)
    hold = acting.decide(90_000_000)
    assert hold.reason is HoldReason.MISSING
    assert 'image' in hold.detail


def test_a_step_that_is_overtaken_by_the_next_one_is_held():
    acting = make_acting()
    acting.begin(step(0), 0)
    overtaken = acting.begin(step(1), 1)
    assert isinstance(overtaken, Hold)
    assert overtaken.step.index == 0


def test_a_lost_frame_costs_the_steps_whose_stacks_need_it_and_no_more():
    acting, acted = make_acting(), []
    for k in range(8):
        acting.assembler.push(joints(k))
        if k != 3:
            acting.assembler.push(image(k))
        acting.begin(step(k), 0)
        if isinstance(acting.decide(10**9), Decision):
            acted.append(k)
    assert acted == [0, 1, 2, 6, 7]


@pytest.mark.parametrize(
    ('changes', 'age_ns', 'reason'),
    [
        ({'stamp_ns': 10 * TICK}, 0, HoldReason.STALE_JOINTS),
        ({'stamp_ns': 10 * TICK, 'joint_stamp_ns': 10 * TICK}, 0, HoldReason.STALE_IMAGE),
        ({}, 150_000_000, HoldReason.STALE_STEP),
    ],
    ids=['joints', 'image', 'step'],
)
def test_stale_inputs_make_it_hold(changes, age_ns, reason):
    acting = make_acting()
    feed(acting, 0)
    acting.begin(step(0, **changes), 0)
    assert acting.decide(0, age_ns).reason is reason


def test_how_stale_is_too_stale_can_be_set():
    acting = make_acting(timing=Timing(step_ns=10**9))
    feed(acting, 0)
    acting.begin(step(0), 0)
    assert isinstance(acting.decide(0, 150_000_000), Decision)


def test_B10_without_a_policy_nothing_is_answered():
    hold = answer(make_acting(policy=None), 0)
    assert hold.reason is HoldReason.NO_POLICY


def test_hold_mode_answers_nothing():
    assert answer(make_acting(mode=Mode.HOLD), 0).reason is HoldReason.MODE


def test_another_contract_of_the_session_makes_it_hold():
    acting = make_acting()
    acting.mismatch = 'the session observes something else'
    assert 'something else' in str(answer(acting, 0))


@pytest.mark.parametrize('changes', [{'episode': 0}, {'terminated': True}, {'truncated': True}])
def test_steps_that_ask_for_no_action_get_none(changes):
    assert answer(make_acting(), 0, **changes) is None


def test_an_action_is_from_one_policy_even_if_another_one_is_assigned_while_it_acts():
    acting = make_acting()
    other = installed(random_policy(9), version=4)

    class Slow:
        def act(self, observation, **options):
            acting.installed = other
            return POLICY.act(observation, **options)

    acting.installed = Installed(Slow(), POLICY.manifest.action, 'slow', 3, 0.0, SPEC.hash)
    first, second = answer(acting, 0), answer(acting, 1)
    assert (first.by.version, second.by.version) == (3, 4)
    np.testing.assert_array_equal(first.action, POLICY.act(first.observation))
    np.testing.assert_array_equal(second.action, other.policy.act(second.observation))


def test_A14_a_policy_that_says_nan_makes_it_hold():
    class Broken:
        def act(self, observation, **_):
            return np.full(4, np.nan, np.float32)

    acting = make_acting()
    acting.installed = Installed(Broken(), POLICY.manifest.action, 'broken', 1, 0.0, SPEC.hash)
    assert answer(acting, 0).reason is HoldReason.REFUSED


def test_a_step_for_another_number_of_cameras_is_refused():
    with pytest.raises(AssemblyError, match='image stamp'):
        make_acting().begin(step(0, image_stamps_ns=()), 0)


def test_L4_an_observation_with_the_position_of_the_cube_is_refused():
    from so101_contract.observation_spec import robobase_spec

    with pytest.raises(ObservationError, match='cube_pos'):
        state_function(robobase_spec(privileged=True))


def test_a_restarted_session_is_followed():
    acting = make_acting()
    for k in range(3):
        assert isinstance(answer(acting, k), Decision)
    for k in range(3):
        feed(acting, 50 + k)
        acting.begin(replace(step(50 + k), index=k), 0)
        assert isinstance(acting.decide(0), Decision)


def test_the_age_of_the_oldest_input_is_told():
    acting = make_acting()
    feed(acting, 0)
    acting.begin(step(0), 0)
    assert acting.decide(0, 3_000_000).input_ns == 5_000_000 - 1 + 3_000_000


def test_the_digest_changes_with_every_part_of_an_observation():
    seen = golden_observation(SPEC, 0)
    state, image = seen.state.copy(), seen.images['gripper_cam'].copy()
    state[0, 0] = np.nextafter(state[0, 0], 1.0)
    image[-1, 0, 0, 0] ^= 1
    others = [replace(seen, state=state), replace(seen, images={'gripper_cam': image})]
    assert len({observation_digest(one) for one in (seen, golden_observation(SPEC, 1), *others)}) == 4
    assert observation_digest(seen) == observation_digest(golden_observation(SPEC, 0))


def test_what_was_observed_travels_as_json():
    observed = Observed(episode=1, index=2, sha256='a' * 64, version=3, std=0.1, seed=4, latency_s=0.002)
    assert Observed.from_json(observed.to_json(indent=None)) == observed


def test_saturation_is_the_share_of_components_at_their_limit():
    stats = ActingStats()
    assert (stats.saturation, math.isnan(stats.latency_s(50))) == (0.0, True)
    stats.acted(0.001, np.array([1.0, -0.995, 0.5, 0.0]), 0.01)
    assert stats.saturation == 0.5


def test_only_the_last_answers_count():
    stats = ActingStats()
    for latency in [1.0] * WINDOW + [0.002] * WINDOW:
        stats.acted(latency, np.zeros(4), 0.01)
    assert (stats.latency_s(95), stats.actions) == (0.002, 2 * WINDOW)

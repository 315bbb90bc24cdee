# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import numpy as np
import pytest

from so101_contract.action import ActionSpec
from so101_kinematics.ik import InverseKinematics
from so101_sim.env import ArmEnv
from so101_sim.errors import PresetError
from so101_sim.evaluate import evaluate
from so101_sim.human.expert import Expert, Phase, Skill
from so101_sim.scene.presets import get_preset
from so101_sim.scene.scene import SceneConfig
from so101_sim.scene.start import AtPoint
from so101_sim.tasks import Lift

SOMEWHERE = AtPoint(
    centre=(0.24, 0.0, 0.11),
    spread=(0.08, 0.13, 0.07),
    pitch_spread=np.radians(8.0),
    opening=(0.0, 1.0),
)


@pytest.mark.parametrize(
    ('task', 'preset', 'episodes'), [('lift', 'easy', 20), ('lift', 'wide', 20), ('place', 'wide', 8)]
)
def test_the_expert_solves_the_task(task, preset, episodes):
    result = evaluate(ArmEnv(task=task, preset=preset, images=False), episodes)
    assert result.rate >= 0.95, result.failed
    assert result.steps < 45


def test_the_expert_solves_the_gap_since_it_sees_where_things_are():
    assert evaluate(ArmEnv(preset='gap', images=False), 10).rate >= 0.8


def test_the_expert_solves_pick101_at_fifty_hertz():
    assert evaluate(ArmEnv(preset='pick101', images=False), 8).rate >= 0.8


def test_the_expert_goes_on_from_wherever_the_arm_was_left():
    env = ArmEnv(preset=replace(get_preset('wide'), max_steps=150), images=False)
    ik, expert = InverseKinematics(env.arm.fk), Expert(env.preset.task)
    rng = np.random.default_rng(0)
    successes = 0
    for number in range(12):
        q = None
        while q is None:
            q = SOMEWHERE.sample(rng, ik, np.zeros(3))
        place = (rng.uniform(0.19, 0.31), rng.uniform(-0.11, 0.11), 0.015)
        env.reset(seed=number, options={'q': q, 'cube_position': place, 'cube_yaw': rng.uniform(-3.1, 3.1)})
        expert.reset(rng)
        while not env.is_over:
            info = env.step(expert.network_action(env.truth()))[4]
        successes += info['is_success']
    assert successes >= 11


def test_jaws_as_the_official_model_has_them_do_not_grip():
    rates = {}
    for contacts in ('fingers', 'official'):
        preset = replace(get_preset('wide'), scene=SceneConfig(contacts=contacts), max_steps=50)
        rates[contacts] = evaluate(ArmEnv(preset=preset, images=False), 5).rate
    assert rates['fingers'] == 1.0
    assert rates['official'] < 0.7


def test_noise_and_a_bad_aim_cost_time_and_little_success():
    calm, shaky = (
        evaluate(ArmEnv(preset='easy', images=False), 12, skill=skill)
        for skill in (Skill(), Skill(noise=0.25, aim_error_m=0.002, hesitation=0.1, speed=0.7))
    )
    assert shaky.steps > calm.steps + 3
    assert shaky.rate >= 0.8


def test_actions_never_exceed_what_a_policy_may_ask_for():
    spec = ActionSpec(translation_scale_m=0.01)
    env = ArmEnv(images=False, action=spec)
    env.reset(seed=0)
    expert = Expert(env.preset.task, spec, Skill(noise=1.0))
    for _ in range(15):
        action = expert.act(env.truth())
        assert np.abs(action.translation).max() <= 0.01 + 1e-12
        assert 0.0 <= action.opening <= 1.0
        env.step(expert.network_action(env.truth()))


def test_a_seed_decides_what_an_unsteady_expert_does(make_truth):
    expert = Expert(Lift(), skill=Skill(noise=0.3, aim_error_m=0.01))
    found = []
    for seed in (1, 1, 2):
        expert.reset(np.random.default_rng(seed))
        found.append(expert.act(make_truth()).translation)
    assert np.array_equal(found[0], found[1])
    assert not np.array_equal(found[0], found[2])


def test_it_goes_to_the_near_side_of_the_cube_and_leaves_room(make_truth):
    expert = Expert(Lift())
    straight = expert._grip_place(make_truth(jaw_direction=(1.0, 0.0, 0.0)))
    assert straight[:2] == pytest.approx((0.25 - 0.015 - 0.006, 0.0))
    sideways = expert._grip_place(make_truth(jaw_direction=(0.0, 1.0, 0.0)))
    assert sideways[:2] == pytest.approx((0.25, -0.021))
    turned = make_truth(
        jaw_direction=(1.0, 0.0, 0.0), cube_quat_wxyz=(np.cos(np.pi / 8), 0.0, 0.0, np.sin(np.pi / 8))
    )
    assert expert._grip_place(turned)[0] == pytest.approx(0.25 - 0.015 * np.sqrt(2.0) - 0.006)


def test_it_rises_before_it_goes_sideways_beside_a_cube(make_truth):
    expert = Expert(Lift())
    action = expert.act(make_truth(grip_position=(0.30, 0.02, 0.012)))
    assert expert.phase is Phase.APPROACH
    assert action.translation[2] > 0.015
    assert np.abs(action.translation[:2]).max() < 1e-9


def test_it_does_not_come_down_with_a_closed_gripper(make_truth):
    place = Expert(Lift())._grip_place(make_truth())
    action = Expert(Lift()).act(make_truth(grip_position=(*place[:2], 0.058), opening=0.0))
    assert action.opening > 0.3
    assert abs(action.translation[2]) < 0.004


def test_it_waits_for_a_firm_grip_before_it_lifts(make_truth):
    expert = Expert(Lift())
    held = {'touches_static': True, 'touches_moving': True, 'grip_position': (0.23, 0.0, 0.014)}
    lifts = []
    for number, opening in enumerate((0.30, 0.25, 0.20, 0.199, 0.198, 0.198)):
        action = expert.act(make_truth(time_s=0.1 * number, opening=opening, **held))
        lifts.append(action.translation[2] > 0.01)
    assert lifts == [False, False, False, False, True, True]


@pytest.mark.parametrize('wrong', [{'noise': -0.1}, {'speed': 0.0}, {'speed': 1.5}, {'hesitation': 1.0}])
def test_an_impossible_skill_is_refused(wrong):
    with pytest.raises(PresetError):
        Skill(**wrong)

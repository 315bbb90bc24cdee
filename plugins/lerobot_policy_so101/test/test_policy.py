# SPDX-License-Identifier: Apache-2.0
"""The shipped policy through the plug-ins: it lifts cubes with nothing but joints and pictures."""

from pathlib import Path
import re
import tomllib

import numpy as np
import pytest

FOLDER = Path(__file__).parents[1]
NAME, ENV = FOLDER.name, 'lerobot_env_so101_sim'
SHIPPED = FOLDER.parents[1] / 'src/drqv2_policy_node/drqv2_policy_node/policies/compact'


@pytest.fixture
def plugins(packages):
    """The modules that need no LeRobot."""
    from lerobot_env_so101_sim import environment
    from lerobot_policy_so101 import acting

    return acting, environment


def test_lerobot_finds_the_package_and_its_parts_by_their_names():
    assert tomllib.loads((FOLDER / 'pyproject.toml').read_text())['project']['name'] == NAME
    text = (FOLDER / NAME / 'configuration_so101.py').read_text()
    assert re.search(r"register_subclass\('so101'\)\n@dataclass\nclass SO101Config\(", text)
    assert 'class SO101Policy(' in (FOLDER / NAME / 'modeling_so101.py').read_text()
    assert 'def make_so101_pre_post_processors(' in (FOLDER / NAME / 'processor_so101.py').read_text()


@pytest.mark.parametrize('use_degrees', [True, False])
def test_the_shipped_policy_lifts_cubes_with_joints_and_pictures_alone(plugins, renders, use_degrees):
    acting, environment = plugins
    arm = environment.LeRobotArm(preset='wide', use_degrees=use_degrees)
    hand = acting.Hand(acting.load_policy(SHIPPED), use_degrees)
    successes = 0
    for seed in range(3):
        seen, _ = arm.reset(seed=seed)
        hand.reset()
        over = False
        while not over:
            target = hand.act(seen['agent_pos'], seen['pixels']['gripper_cam'])
            seen, _, terminated, truncated, info = arm.step(target)
            over = terminated or truncated
        successes += info['is_success']
    arm.close()
    assert successes >= 2


def test_a_hand_that_is_reset_forgets(plugins):
    acting, _ = plugins
    policy = acting.load_policy(SHIPPED)
    picture = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    joints = np.array([0.0, -20.0, 10.0, 85.0, 0.0, 50.0])
    hand = acting.Hand(policy)
    first = hand.act(joints, picture)
    second = hand.act(joints + 1.0, picture)
    assert not np.array_equal(first, second)
    hand.reset()
    np.testing.assert_array_equal(hand.act(joints, picture), first)


def test_lerobot_makes_it_saves_it_and_loads_it(packages, tmp_path):
    pytest.importorskip(
        'lerobot', reason='LeRobot is not installed here; tools/lerobot_plugins.py runs with it'
    )
    for name in (ENV, NAME):
        pytest.importorskip(name, reason=f'install it first: pip install -e plugins/{name}')
    from lerobot.policies.factory import get_policy_class
    from lerobot_policy_so101 import SO101Config
    import torch

    policy = get_policy_class('so101')(SO101Config(push_to_hub=False), SHIPPED)
    policy.save_pretrained(tmp_path / 'theirs')
    again = get_policy_class('so101').from_pretrained(tmp_path / 'theirs')
    batch = {
        'observation.state': torch.tensor([[0.0, -20.0, 10.0, 85.0, 0.0, 50.0]] * 2),
        'observation.images.gripper_cam': torch.rand((1, 3, 48, 64)).expand(2, 3, 48, 64),
    }
    targets = [one.select_action(batch) for one in (policy, again)]
    assert targets[0].shape == (2, 6)
    assert torch.equal(*targets)
    with pytest.raises(ValueError, match=r'expected --policy\.path'):
        get_policy_class('so101')(SO101Config())

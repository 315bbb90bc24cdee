# SPDX-License-Identifier: Apache-2.0
"""Who acts on top of a base policy: never the actor without a share, and only where the critics say so."""

from dataclasses import replace

import numpy as np
import pytest
from random_policies import random_policy
import torch

from drqv2_policy_node.acting_on_base import ActingOnBase, HeardBase, StoredBase
from drqv2_policy_node.answering import Hold, LIMITS
from drqv2_policy_node.networks import Actor, Critic, Encoder
from drqv2_policy_node.on_base import BaseTerms, OnBase, prefers_actor
from drqv2_policy_node.policy import Policy, PolicyError
from drqv2_policy_node.spec import NetworkSpec
from drqv2_policy_node.store import load_policy, pack, save_policy, StoreError, unpack
from so101_contract.action import ActionSpec
from so101_contract.assembly import Assembler
from so101_contract.manifest import golden_observation, ManifestError
from so101_contract.messages import ExecutedAction, ImageSample, JointSample, StepRecord
from so101_contract.observation_spec import CameraSpec, get_observation, ObservationSpec, StateBlock
from so101_contract.session import Source
from so101_kinematics.fk import state_function

SPEC = ObservationSpec(
    state=(StateBlock.named('joint_pos'),), frame_stack=1, cameras=(CameraSpec('gripper_cam', 31),)
)
SEEN = golden_observation(SPEC, 0)
PROPOSED = np.array([0.5, -0.5, 0.0, 1.0], np.float32)


def on_base(base=lambda _: PROPOSED, *, share=0.0, **terms):
    network = NetworkSpec.from_observation(SPEC, mlp=(8, 8), num_critics=2)
    networks = Encoder(network), Actor(network), Critic(network)
    made = OnBase(base, networks, SPEC, BaseTerms(**terms))
    made.share = share
    return made


def prefers(acting, actor):
    """Let the critics have that opinion, whatever they see."""
    acting._preferred = lambda observation, proposal: actor
    return acting


def steps(acting, number):
    return [acting.mix(SEEN, acting.propose(SEEN)) for _ in range(number)]


def test_without_a_share_the_base_acts_whatever_the_critics_say():
    acting = prefers(on_base(), actor=True)
    mixed = steps(acting, 20)
    assert all(step.by_base for step in mixed)
    np.testing.assert_array_equal(mixed[-1].action, np.clip(PROPOSED, -1 + 1e-6, 1 - 1e-6))
    assert (acting.steps, acting.by_actor) == (20, 0)


@pytest.mark.parametrize('actor', [True, False], ids=['actor', 'base'])
def test_with_the_whole_share_the_critics_decide(actor):
    assert [step.by_base for step in steps(prefers(on_base(share=1.0), actor), 6)] == [not actor] * 6


def test_a_choice_holds_for_some_steps():
    acting = prefers(on_base(share=0.5, hold_steps=4), actor=True)
    acting.begin(np.random.default_rng(1))
    who = [step.by_base for step in steps(acting, 400)]
    runs = [who[k : k + 4] for k in range(0, 400, 4)]
    assert all(len(set(run)) == 1 for run in runs)
    assert 20 < sum(run[0] for run in runs) < 80


def test_equal_seeds_give_equal_choices():
    one, two = (prefers(on_base(share=0.5, hold_steps=1), actor=True) for _ in range(2))
    for acting in (one, two):
        acting.begin(np.random.default_rng(3))
    assert [a.by_base for a in steps(one, 30)] == [b.by_base for b in steps(two, 30)]


@pytest.mark.parametrize(
    ('rule', 'expected'),
    [
        ('mean', [True, True, False]),
        ('unanimous', [True, False, False]),
        ('min_max', [False, False, False]),
    ],
)
def test_how_sure_the_critics_have_to_be(rule, expected):
    base = torch.tensor([[0.2, 0.6], [0.2, 0.6], [0.2, 0.6]])
    actor = torch.tensor([[0.3, 0.7], [0.5, 0.5], [0.1, 0.6]])
    assert prefers_actor(rule, 0.0, actor, base).tolist() == expected
    assert not prefers_actor(rule, 0.5, actor, base).any()


def test_the_real_critics_are_asked_where_nobody_pretends():
    acting = on_base(share=1.0, base_margin=1000.0)
    assert all(step.by_base for step in steps(acting, 3))


def test_a_residual_stays_within_its_scale_of_the_base():
    acting = on_base(share=1.0, base_mode='residual', residual_scale=0.1)
    mixed = steps(acting, 5)
    assert not any(step.by_base for step in mixed)
    assert max(float(np.abs(step.action - PROPOSED).max()) for step in mixed) <= 0.1 + 1e-5


def test_without_a_word_of_the_base_the_actor_acts_where_it_is_heard_and_else_nobody():
    assert not any(step.by_base for step in steps(on_base(lambda _: None, share=1.0), 3))
    with pytest.raises(PolicyError, match='hold until it answers'):
        steps(on_base(lambda _: None), 1)
    with pytest.raises(PolicyError, match='to correct'):
        steps(on_base(lambda _: None, share=1.0, base_mode='residual'), 1)


def test_an_actor_that_is_as_good_alone_acts_in_every_step():
    acting = prefers(on_base(), actor=False)
    acting.alone = True
    assert not any(step.by_base for step in steps(acting, 8))


COMPACT = get_observation('compact')


def policy_on_base(share=1.0, *, alone=True, **terms):
    plain = random_policy(1)
    critic = Critic(replace(plain.network, num_critics=2))
    fields = {name: getattr(plain.manifest, name) for name in plain.manifest.to_dict()}
    del fields['golden'], fields['tensors_sha256']
    said = BaseTerms(**terms).manifest(share, alone)
    return Policy.create(plain.encoder, plain.actor, critic=critic, on_base=said, **fields)


def test_a_policy_on_top_of_a_base_travels_with_its_critics_and_its_terms():
    policy = policy_on_base(0.5, hold_steps=7)
    got = unpack(*pack(policy))
    assert got.manifest.on_base == policy.manifest.on_base
    for name, value in policy.critic.state_dict().items():
        assert torch.equal(got.critic.state_dict()[name], value)
    np.testing.assert_array_equal(got.golden_action(3), policy.golden_action(3))


def test_a_policy_that_corrects_a_base_is_not_loaded_to_act_alone(tmp_path):
    save_policy(tmp_path / 'residual', policy_on_base(base_mode='residual'))
    assert load_policy(tmp_path / 'residual', on_base=True).critic is not None
    with pytest.raises(StoreError, match='corrects a base policy'):
        load_policy(tmp_path / 'residual')
    save_policy(tmp_path / 'choice', policy_on_base())
    assert load_policy(tmp_path / 'choice').manifest.on_base.share == 1.0


@pytest.mark.parametrize('wrong', [{'share': 1.5}, {'mode': 'both'}, {'hold_steps': 0}, {'margin': -1.0}])
def test_terms_that_cannot_be_are_refused(wrong):
    with pytest.raises(ManifestError, match='export the policy again'):
        replace(BaseTerms().manifest(0.5, False), **wrong)


def acting_on(base):
    mixed = OnBase(lambda _: None, None, COMPACT, BaseTerms())
    assembler = Assembler(COMPACT, state_function(COMPACT), limits=LIMITS)
    return ActingOnBase(assembler, base, mixed, ActionSpec())


def ask(acting, k, age_ns=10_000_000):
    """Send all that step k asks for, and return what comes of it."""
    tick = 100_000_000 * (k + 1)
    rng = np.random.default_rng(k)
    acting.assembler.push(JointSample(tick, np.array([0.0, -0.4, 0.6, 0.8, 0.0, 0.5]), np.zeros(6)))
    stamps = []
    for camera in COMPACT.cameras:
        pixels = rng.integers(0, 256, (3, camera.size, camera.size), dtype=np.uint8)
        acting.assembler.push(ImageSample(camera.name, tick, pixels))
        stamps.append(tick)
    acting.begin(StepRecord(1, k, tick, tick, tuple(stamps)), tick)
    return acting.decide(tick + age_ns, age_ns)


def test_a_stored_base_acts_before_the_learner_has_sent_anything_and_its_word_is_told():
    policy = random_policy(2)
    answer = ask(acting_on(StoredBase(policy, 'bc')), 0)
    expected = ActionSpec().to_wire(policy.act(answer.observation))
    np.testing.assert_array_equal(answer.wire.translation, expected.translation)
    assert answer.base.acts
    np.testing.assert_array_equal(answer.base.translation, expected.translation)
    assert answer.by.name == 'base bc'


def test_a_base_in_another_node_is_waited_for_within_the_step_and_then_done_without():
    base = HeardBase('server', ActionSpec(), wait_ns=50_000_000)
    acting = acting_on(base)
    assert ask(acting, 0) is None
    base.take(ExecutedAction(1, 0, np.array([0.01, 0.0, 0.0]), 0.5, Source.POLICY))
    answer = acting.decide(0, 20_000_000)
    np.testing.assert_allclose(answer.wire.translation, [0.01, 0.0, 0.0], atol=1e-6)
    late = ask(acting, 1, age_ns=60_000_000)
    assert isinstance(late, Hold)
    assert 'hold until it answers' in str(late)
    assert acting.trouble == 'server said nothing for this step'


def test_an_actor_that_is_as_good_alone_waits_for_no_base():
    acting = acting_on(HeardBase('server', ActionSpec(), wait_ns=50_000_000))
    policy = policy_on_base()
    acting.mixed.learned(policy)
    answer = ask(acting, 0)
    np.testing.assert_array_equal(answer.action, np.clip(policy.act(answer.observation), -1 + 1e-6, 1 - 1e-6))
    assert answer.base is None

# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace
from pathlib import Path
import resource
import signal

import numpy as np
import pytest
import torch

from drqv2_policy_node.store import find_policy, load_policy, unpack
from hilserl_learner.data.store import BufferHeader, BufferWriter, Entry, Part, write_header
from hilserl_learner.errors import LearnerError
from hilserl_learner.live.config import LearnerConfig
from hilserl_learner.live.process import DirectoryLock
from hilserl_learner.live.trainer import CHECKPOINTS, LIVE, LiveTrainer, ONLINE
from hilserl_learner.training.checkpoint import POLICY
from hilserl_learner.training.trainer import prepare_cpu, TrainerConfig
from so101_contract.manifest import golden_observation
from so101_contract.observation_spec import get_observation
from so101_contract.session import Outcome
from so101_contract.transition import EpisodeReport

from .experience import ACTION, make_episode

SPEC = get_observation('compact')
AGENT = {'width': 8, 'num_critics': 2}
TRAINER = TrainerConfig(
    n_step=1, batch_size=4, start_steps=4, capacity=500, demo_capacity=500, std_schedule='linear(0.2,0.1,50)'
)


@pytest.fixture(autouse=True, scope='module')
def one_thread():
    prepare_cpu(1)


class Arm:
    """Writes episodes where a node would."""

    def __init__(self, run):
        self.writer = BufferWriter(run / ONLINE / LIVE)
        self.episode = 0

    def live(self, steps=6, stream='arm', outcome=Outcome.SUCCESS, discarded=False, **options):
        self.episode += 1
        transitions = make_episode(SPEC, self.episode, steps, terminated=True, **options)
        for transition in transitions:
            self.writer.append(Entry(stream, transition))
        helped = sum(transition.intervened for transition in transitions)
        report = EpisodeReport(
            episode=self.episode,
            outcome=outcome,
            steps=steps + 1,
            transitions=steps,
            intervened=helped,
            dropped={},
            discarded=discarded,
        )
        self.writer.append(Entry(stream, report))
        return transitions


class Side:
    """A training process without the process."""

    def __init__(self, run, learns=AGENT, **options):
        self.told = []
        config = LearnerConfig(
            directory=str(run), publish_s=0.1, save_s=3600.0, log_s=3600.0, threads=1, **options
        )
        self.live = LiveTrainer(
            config, TRAINER, learns, lambda header, payload: self.told.append((header, payload))
        )

    def rounds(self, condition, limit=500):
        for _ in range(limit):
            if condition(self.live):
                return self.live
            self.live.round()
        raise AssertionError(self.live.status())

    def caught_up(self):
        """Go on until there is nothing more to do."""
        return self.rounds(lambda live: not live.round() and live.loaded)

    def weights(self):
        return [(header, payload) for header, payload in self.told if header['kind'] == 'weights']


@pytest.fixture
def arm(tmp_path):
    return Arm(tmp_path)


def test_B10_the_first_version_is_given_away_before_anything_is_learned(tmp_path):
    side = Side(tmp_path)
    assert [header['version'] for header, _ in side.weights()] == [1]


def test_B10_a_synced_policy_acts_like_the_learner_bit_for_bit(tmp_path, arm):
    side = Side(tmp_path)
    arm.live(12)
    live = side.rounds(lambda live: live.trainer.agent.updates >= 5)
    live._publish()
    header, payload = side.weights()[-1]
    policy = unpack(header['manifest'], payload)
    for pattern in range(3):
        observation = golden_observation(SPEC, pattern)
        assert np.array_equal(policy.act(observation), live.trainer.agent.act(observation))


def test_on_top_of_a_base_the_actor_is_let_in_by_episodes_and_its_critics_go_along(tmp_path, arm):
    learns = {**AGENT, 'critic_warmup_updates': 0, 'base_alone_steps': 0}
    side = Side(tmp_path, learns, agent='hil_on_base')
    header, payload = side.weights()[0]
    assert unpack(header['manifest'], payload).manifest.on_base.share == 0.0
    assert (side.live.status()['actor_share'], side.live.status()['actor_alone']) == (0.0, False)
    for _ in range(20):
        arm.live(1)
    live = side.caught_up()
    assert (live.status()['actor_share'], live.status()['base_success_rate']) == (0.5, 1.0)
    live._publish()
    header, payload = side.weights()[-1]
    given = unpack(header['manifest'], payload)
    assert given.manifest.on_base.share == 0.5
    critic = live.trainer.agent.critic_target.state_dict()
    assert all(torch.equal(critic[name], value) for name, value in given.critic.state_dict().items())


def test_a_policy_to_begin_with_says_where_episodes_begin_until_one_has_begun(tmp_path, arm):
    shipped = load_policy(find_policy('default', 'compact')).manifest
    side = Side(tmp_path, policy='default')
    header, payload = side.weights()[-1]
    assert unpack(header['manifest'], payload).manifest.reset_pose == shipped.reset_pose
    arm.live(3)
    side.caught_up()._publish()
    header, payload = side.weights()[-1]
    assert unpack(header['manifest'], payload).manifest.reset_pose != shipped.reset_pose


def test_B11_every_version_carries_the_hash_of_all_its_tensors(tmp_path):
    header, payload = Side(tmp_path).weights()[0]
    damaged = bytearray(payload)
    damaged[-1] ^= 1
    with pytest.raises(ValueError, match='hash'):
        unpack(header['manifest'], bytes(damaged))


def test_updates_follow_the_wished_ratio_and_then_wait(tmp_path, arm):
    side = Side(tmp_path)
    arm.live(20)
    live = side.caught_up()
    assert live.trainer.agent.updates == 20
    assert live.round() is False


def test_T8_interventions_reach_both_buffers_and_discarded_episodes_leave_them(tmp_path, arm):
    side = Side(tmp_path)
    arm.live(6, intervened=(1, 2))
    arm.live(5, discarded=True)
    live = side.caught_up()
    assert (len(live.trainer.online), len(live.trainer.demo), live.trainer.steps) == (6, 2, 11)


def test_a_late_label_changes_the_reward_that_is_learned_from(tmp_path, arm):
    side = Side(tmp_path)
    *_, last = arm.live(6)
    side.caught_up()
    arm.writer.append(Entry('arm', replace(last, reward=7.0, revision=1)))
    live = side.caught_up()
    assert live.trainer.online.sample(200, np.random.default_rng(0)).reward.max() == 7.0
    assert live.trainer.steps == 6


def test_demonstrations_are_loaded_and_learned_from_before_the_first_step(tmp_path):
    demos = tmp_path / 'demos'
    write_header(demos, BufferHeader(observation=SPEC, action=ACTION, parts=(Part(name='bag'),)))
    writer = BufferWriter(demos / 'bag')
    for transition in make_episode(SPEC, 1, 10, terminated=True):
        writer.append(Entry('bag', transition))
    side = Side(tmp_path / 'run', demos=str(demos), pretrain_updates=3)
    live = side.caught_up()
    assert (len(live.trainer.demo), live.trainer.steps, live.trainer.agent.updates) == (10, 0, 3)


def test_B14_demonstrations_that_do_not_exist_are_named(tmp_path):
    with pytest.raises(LearnerError, match='nowhere'):
        Side(tmp_path / 'run', demos=str(tmp_path / 'nowhere')).caught_up()


def test_B32_after_a_kill_counters_noise_and_versions_go_on_and_no_transition_is_lost(tmp_path, arm):
    first = Side(tmp_path)
    arm.live(20)
    live = first.caught_up()
    live.save()
    arm.live(10)  # comes after the checkpoint
    first.caught_up()
    second = Side(tmp_path)  # the first one was killed: it closed nothing
    assert second.live.weights.version == live.weights.version + 1
    assert second.live.trainer.agent.updates == 20
    resumed = second.caught_up().trainer
    assert (resumed.steps, resumed.std, resumed.agent.updates) == (30, live.trainer.std, 30)
    assert len(resumed.online) == 30


def test_a_policy_that_was_saved_has_its_critics_beside_it_for_another_run(tmp_path, arm):
    side = Side(tmp_path / 'run')
    arm.live(8)
    live = side.caught_up()
    saved = Path(live.save()) / POLICY
    next_one = Side(tmp_path / 'next', policy=str(saved)).live
    for name, value in next_one.trainer.agent.critic.state_dict().items():
        assert torch.equal(value, live.trainer.agent.critic.state_dict()[name])


def test_B15_a_damaged_checkpoint_costs_its_updates_only(tmp_path, arm):
    first = Side(tmp_path)
    arm.live(8)
    first.caught_up().save()
    arm.live(8)
    first.caught_up().save()
    newest = sorted((tmp_path / CHECKPOINTS).iterdir())[-1] / 'state.safetensors'
    newest.write_bytes(newest.read_bytes()[:100])
    second = Side(tmp_path)
    assert second.live.trainer.agent.updates == 8
    assert second.rounds(lambda live: live.loaded).trainer.steps == 16


def test_B17_a_full_disk_is_told_in_a_sentence_and_learning_goes_on(tmp_path, arm):
    side = Side(tmp_path)
    arm.live(8)
    live = side.caught_up()
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, before[1]))
        live.save()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
    assert 'free space' in live.status()['reason']
    arm.live(8)
    assert side.caught_up().trainer.agent.updates == 16
    live.save()
    assert live.status()['reason'] == ''


def test_the_best_of_twenty_episodes_is_kept_and_can_be_gone_back_to(tmp_path, arm):
    side = Side(tmp_path)
    side.caught_up()
    for _ in range(20):
        arm.live(4)
    live = side.caught_up()
    kept = live.tracker.checkpoints.load_best()
    arm.live(30)
    side.caught_up()
    updates = live.trainer.agent.updates
    live.command({'command': 'rollback'})
    answer = side.told[-1][0]
    assert (answer['ok'], live.trainer.agent.updates) == (True, updates)
    state = live.trainer.agent.state_dict()
    assert all(
        torch.equal(state[name.removeprefix('agent.')], value)
        for name, value in kept.tensors.items()
        if name.startswith('agent.actor')
    )
    assert live.weights.due(live.weights._last_s + 1.0)


def test_a_collapse_is_told_with_the_way_back(tmp_path, arm):
    side = Side(tmp_path)
    side.caught_up()
    for _ in range(20):
        arm.live(4)
    side.caught_up()
    for _ in range(20):
        arm.live(4, outcome=Outcome.FAILURE)
    live = side.caught_up()
    assert 'learner/rollback' in live.status()['reason']


def test_going_back_without_a_best_checkpoint_is_refused_in_a_sentence(tmp_path):
    side = Side(tmp_path)
    side.live.command({'command': 'rollback'})
    assert side.told[-1][0]['ok'] is False
    assert '20 episodes' in side.told[-1][0]['text']


def test_while_paused_data_come_in_and_nothing_is_updated(tmp_path, arm):
    side = Side(tmp_path)
    side.live.command({'command': 'pause'})
    arm.live(10)
    live = side.rounds(lambda live: live.trainer.steps == 10 and live.loaded)
    for _ in range(5):
        live.round()
    assert (live.status()['state'], live.trainer.agent.updates) == ('paused', 0)
    live.command({'command': 'resume'})
    assert side.caught_up().trainer.agent.updates == 10


def test_T10_intervention_rate_and_run_length_are_in_the_status(tmp_path, arm):
    side = Side(tmp_path)
    side.caught_up()
    arm.live(10, intervened=(1, 2, 3, 7))
    status = side.caught_up().status()
    assert (status['intervention_rate'], status['intervention_length']) == (0.4, 2.0)


def test_T10_overlong_interventions_raise_a_warning(tmp_path, arm):
    side = Side(tmp_path)
    side.caught_up()
    arm.live(60, intervened=range(50))
    live = side.caught_up()
    live._write_line()
    assert 'interventions last 50 steps' in live.status()['reason']


def test_B28_the_memory_of_both_buffers_is_told(tmp_path):
    status = Side(tmp_path).live.status()
    assert 1000 * 3 * 64**2 < status['buffer_bytes'] < 1000 * 14_000


def test_a_second_learner_in_one_directory_is_refused(tmp_path):
    lock = DirectoryLock(tmp_path / 'lock')
    with pytest.raises(LearnerError, match='another learner'):
        DirectoryLock(tmp_path / 'lock', patience_s=0.1)
    lock.close()
    DirectoryLock(tmp_path / 'lock', patience_s=0.1).close()

# SPDX-License-Identifier: Apache-2.0
"""Learning from a live arm: follows the experience on disk, updates the agent, gives its policy away. No ROS.

The node writes every transition to the run's directory before anything else happens to it. This side reads it
from there, so it may be killed and started again at any time, and never keeps messages waiting.
"""

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import asdict
from itertools import islice
import json
import logging
import math
from pathlib import Path
import time
from typing import Any

import numpy as np
from torch import Tensor

from drqv2_policy_node.named_policy import find_policy
from drqv2_policy_node.networks import Critic
from drqv2_policy_node.policy import Policy
from drqv2_policy_node.store import load_policy
from hilserl_learner.agents.common import agent_config, make_agent, with_new_names
from hilserl_learner.buffer_store import Entry, PartReader, read_buffer, read_header
from hilserl_learner.checkpoint import BufferPosition, Checkpoints, compare_configs, Facts, Saved, to_json
from hilserl_learner.episode_account import EpisodeAccount
from hilserl_learner.errors import CheckpointError, LearnerError
from hilserl_learner.keeper import BestKeeper, Mark, Verdict
from hilserl_learner.learner_config import LearnerConfig, NOTHING
from hilserl_learner.metrics import EpisodeMeter, InterventionAdvice, Meter, ValueAlarm, WINDOW
from hilserl_learner.run_log import EPISODES, EVALUATION, RunLog, TRAIN
from hilserl_learner.trainer import agent_part, Trainer, TrainerConfig
from hilserl_learner.weights_out import WeightsOut
from so101_contract.joints import NUM_JOINTS
from so101_contract.transition import Transition

ONLINE, LIVE, CHECKPOINTS, LOGS, VERSION = 'online', 'live', 'checkpoints', 'log', 'weights_version'
"""Names in the directory of a run: the buffer, its part, checkpoints, the log, and the last version given away."""

Tell = Callable[[Mapping[str, Any], bytes], None]

_STATUS_S = 1.0
_ENTRIES_A_ROUND = 500
_UTD_WINDOW_S = 60.0
_log = logging.getLogger(__name__)


class LiveTrainer:
    """One life of the training process. `round` is called over and over."""

    def __init__(
        self,
        config: LearnerConfig,
        trainer: TrainerConfig,
        agent_options: Mapping[str, Any],
        tell: Tell,
    ) -> None:
        """Build the agent, take up what an earlier life has saved, and give the first version away.

        Args:
            config: where and how often.
            trainer: how experience becomes updates.
            agent_options: values of the configuration of the agent that `config` names.
            tell: takes a header and bytes: kinds `weights`, `status` and `answer`.

        Raises:
            LearnerError: something that was named does not exist, or does not fit.
            ParameterError: the agent has no such value.
        """
        self.config, self._tell = config, tell
        learns = asdict(agent_config(config.agent, agent_options))
        self._parameters = {**asdict(config), **asdict(trainer), **learns}
        spec, action, run = config.observation_spec, config.action_spec, config.run
        found = find_policy(config.policy, config.observation)
        policy = None if found is None else load_policy(found)
        agent = make_agent(
            config.agent, spec, agent_options, policy=policy, seed=config.seed, device=config.device
        )
        self.trainer = Trainer(agent, spec, action, trainer.beginning_with(policy), seed=config.seed)
        self._checkpoints = Checkpoints(run / CHECKPOINTS, keep=config.keep_checkpoints)
        self._checkpoints.clean()
        saved = self._checkpoints.load()
        if saved is not None:
            self._resume(saved)
        self._steps_before = self.trainer.steps
        self.trainer.steps = 0  # counted again while the experience is read
        self._version_file = run / VERSION
        version = max(0 if saved is None else saved.facts.version, _read_version(self._version_file))
        self.weights = WeightsOut(agent, config.manifest_fields, period_s=config.publish_s, version=version)
        if policy is not None:  # until episodes tell where they begin
            self.weights.begins_at(policy.manifest.reset_pose)
        self._publish()
        self._account, self._episodes = EpisodeAccount(), EpisodeMeter()
        self._meter, self._keeper = Meter(), BestKeeper(WINDOW)
        self._values, self._advice = ValueAlarm(config.q_bound), InterventionAdvice()
        self._records = RunLog(run / LOGS)
        self._reader = PartReader(run / ONLINE / LIVE, spec)
        self._backlog: Iterator[tuple[Entry, bool]] = self._everything()
        self.loaded = self.paused = False
        self._trouble = self._alarm = ''
        self._means: dict[str, float] = {}
        self._starts, self._start = 0, np.zeros(NUM_JOINTS)
        self._data_age_s = math.nan
        self._history: deque[tuple[float, int, int]] = deque()
        now = time.monotonic()
        self._next_status, self._next_log, self._next_save = now, now + config.log_s, now + config.save_s

    # ---- the loop ----------------------------------------------------------------------------------------

    def round(self) -> bool:
        """Take in what is new, make one update if one is due, tell what is due; return whether to go on at once."""
        busy = self._take_in()
        if self.loaded and not self.paused and self.trainer.ready and self.owed >= 1.0:
            self._meter.add(self.trainer.step())
            busy = True
        now = time.monotonic()
        if self.weights.due(now):
            self._publish()
        if now >= self._next_log and self.loaded:
            self._next_log = now + self.config.log_s
            self._write_line()
        if now >= self._next_save and self.loaded:
            self.save()
        if now >= self._next_status:
            self._next_status = now + _STATUS_S
            self._tell({'kind': 'status', **self.status()}, b'')
        return busy

    @property
    def owed(self) -> float:
        """Updates that are due."""
        return self.trainer.owed + (self.config.pretrain_updates if len(self.trainer.demo) else 0)

    def command(self, header: Mapping[str, Any]) -> None:
        """Do what the node asks for: `save`, `pause`, `resume`, `rollback`."""
        word, ok, text = str(header['command']), True, ''
        try:
            if word == 'save':
                text = f'saved {self.save(ask=True)}'
            elif word == 'rollback':
                text = self.roll_back()
            elif word in ('pause', 'resume'):
                self.paused = word == 'pause'
                text = f'{word}d'
            else:
                ok, text = False, f'expected save, pause, resume or rollback, got {word!r}'
        except LearnerError as error:
            ok, text = False, str(error)
        self._tell({'kind': 'answer', 'command': word, 'ok': ok, 'text': text}, b'')

    def close(self) -> None:
        """Save and end."""
        if self.loaded:
            self.save()
        self._records.close()

    # ---- experience --------------------------------------------------------------------------------------

    def _everything(self) -> Iterator[tuple[Entry, bool]]:
        """Yield the demonstrations, then everything that was lived through so far; say which is which."""
        if self.config.demos not in NOTHING:
            path = Path(self.config.demos).expanduser()
            self.config.observation_spec.require_same(
                read_header(path).observation, ('learner', 'demonstrations')
            )
            for entry in read_buffer(path):
                yield entry, True
        for entry in self._reader.poll():
            yield entry, False

    def _take_in(self) -> bool:
        """Take a bounded number of entries; return whether there were any."""
        if self.loaded:
            fresh = [(entry, False) for entry in islice(self._reader.poll(), _ENTRIES_A_ROUND)]
        else:
            fresh = list(islice(self._backlog, _ENTRIES_A_ROUND))
        for entry, demo in fresh:
            self._take(entry, demo)
        if not fresh and not self.loaded:
            self.loaded = True
            self.trainer.catch_up(self._steps_before)
            for sentence in self._reader.damaged:
                _log.warning('%s', sentence)
        return bool(fresh)

    def _take(self, entry: Entry, demo: bool) -> None:
        output = entry.output
        if isinstance(output, Transition):
            self.trainer.add(output, entry.stream, demo=demo)
            if output.index == 0 and not demo:
                self._note_start(output)
            if self.loaded:
                self._data_age_s = (time.time_ns() - output.next_frame.stamp_ns) / 1e9
        elif output.discarded:
            self.trainer.discard(output.episode, entry.stream)
        result = None if demo else self._account.add(entry)
        if result is None:
            return
        self._episodes.add(result)
        if self.loaded:
            self._record(
                EPISODES,
                {
                    'episode': result.episode,
                    'stream': entry.stream,
                    'success': int(result.success),
                    'episode_steps': result.steps,
                    'return': result.reward,
                    'intervened': result.intervened,
                    'takeovers': result.takeovers,
                },
            )
            if self._episodes.episodes % WINDOW == 0:
                self._judge()

    def _note_start(self, first: Transition) -> None:
        """Keep the mean pose that episodes begin at."""
        spec = self.config.observation_spec
        if 'joint_pos' in spec.block_names:
            self._starts += 1
            pose = first.frames[-1].state[spec.slice_of('joint_pos')].astype(np.float64)
            self._start += (pose - self._start) / self._starts
            self.weights.begins_at(tuple(self._start.tolist()))

    # ---- keeping -----------------------------------------------------------------------------------------

    def save(self, *, ask: bool = False) -> str:
        """Write a checkpoint; return its path.

        Args:
            ask: raise where it cannot be written; else the status says so, and the next one may work.

        Raises:
            CheckpointError: with `ask`, the disk is full or gone.
        """
        self._tell({'kind': 'status', **self.status(), 'state': 'saving'}, b'')
        try:
            path = self._checkpoints.save(*self._all())
        except CheckpointError as error:
            self._trouble = str(error)
            _log.error('%s', error)
            if ask:
                raise
            return ''
        finally:
            self._next_save = time.monotonic() + self.config.save_s
        self._trouble = ''
        return str(path)

    def roll_back(self) -> str:
        """Go back to the networks that did best; experience and counters stay. Return what was done.

        Raises:
            CheckpointError: there is no best checkpoint yet.
        """
        saved = self._checkpoints.load_best()
        self.trainer.go_back(agent_part(saved.tensors))
        self.weights.forget()
        return f'back to the networks after {saved.facts.updates} updates'

    def _judge(self) -> None:
        """Compare the last episodes with the best ones so far; keep the agent if they are better."""
        rates = self._episodes.rates()
        unaided = round(rates['unaided'] * WINDOW)
        mark = Mark(unaided, WINDOW, rates['episode_steps'], self.trainer.steps)
        verdict = self._keeper.judge(mark)
        self._record(EVALUATION, {'success': mark.rate, 'episodes': WINDOW, 'verdict': verdict.name.lower()})
        if verdict is Verdict.BEST:
            self._keeper.keep(mark, {})
            try:
                self._checkpoints.save_best(*self._all())
            except CheckpointError as error:
                self._trouble = str(error)
                _log.error('%s', error)
        elif verdict is Verdict.COLLAPSED and self._keeper.best is not None:
            best = self._keeper.best
            self._warn(
                f'unaided success fell from {best.rate:.0%} at step {best.step} to {mark.rate:.0%}; '
                f'learner/rollback goes back to the networks of then'
            )

    def _resume(self, saved: Saved) -> None:
        """Take up what was saved, and say what was changed since."""
        before = with_new_names(json.loads(saved.facts.config))
        lines = compare_configs(before, json.loads(to_json(self._parameters)))
        for line in lines:
            _log.warning('the run goes on with another parameter: %s', line)
        self.trainer.load_state_dict(saved.tensors)
        _log.info('resumed %s: %d updates, %d steps', saved.path, saved.facts.updates, saved.facts.env_steps)

    def _all(self) -> tuple[dict[str, Tensor], Facts, Policy, tuple[Critic, Critic] | None]:
        """Return what a checkpoint consists of."""
        policy = self.weights.policy(self.trainer.config.std_schedule)
        return self.trainer.state_dict(), self._facts(), policy, self.trainer.agent.critics

    def _facts(self) -> Facts:
        position = self._reader.position
        return Facts(
            updates=self.trainer.agent.updates,
            env_steps=self.trainer.steps,
            episodes=self._episodes.episodes,
            version=self.weights.version,
            std=self.trainer.std,
            observation_hash=self.config.observation_spec.hash,
            config=to_json(self._parameters),
            positions=(BufferPosition(part=LIVE, segment=position.segment, offset=position.offset),),
        )

    # ---- telling -----------------------------------------------------------------------------------------

    def _publish(self) -> None:
        made = self.weights.make(time.monotonic(), self.trainer.std)
        _write_version(self._version_file, made.version)
        header = {'kind': 'weights', 'manifest': made.manifest, 'version': made.version, 'step': made.step}
        self._tell(header, made.payload)

    def status(self) -> dict[str, Any]:
        """Return how it goes, as plain numbers."""
        now, updates, steps = time.monotonic(), self.trainer.agent.updates, self.trainer.steps
        self._history.append((now, updates, steps))
        while now - self._history[0][0] > _UTD_WINDOW_S:
            self._history.popleft()
        then, updates_then, steps_then = self._history[0]
        rates = self._episodes.rates()
        return {
            'state': self._state(),
            'reason': self._trouble or self._alarm,
            'version': self.weights.version,
            'updates': updates,
            'env_steps': steps,
            'episodes': self._episodes.episodes,
            'updates_per_second': (updates - updates_then) / (now - then) if now > then else math.nan,
            'utd': (updates - updates_then) / (steps - steps_then) if steps > steps_then else math.nan,
            'success_rate': rates['success'],
            'intervention_rate': rates['intervention'],
            'intervention_length': rates['run_length']
            or math.nan,  # without an intervention there is no length
            'q_mean': self._means.get('q_mean', math.nan),
            'q_bound': self.config.q_bound,
            'critic_loss': self._means.get('critic_loss', math.nan),
            'actor_loss': self._means.get('actor_loss', math.nan),
            'online_size': len(self.trainer.online),
            'demo_size': len(self.trainer.demo),
            'buffer_bytes': self.trainer.online.nbytes + self.trainer.demo.nbytes,
            'data_age': self._data_age_s,
        }

    def _state(self) -> str:
        if self.paused:
            return 'paused'
        return 'learning' if self.loaded and self.trainer.ready else 'waiting'

    def _write_line(self) -> None:
        means = self._meter.take()
        self._means = {**self._means, **means}
        status = {name: value for name, value in self.status().items() if name not in ('state', 'reason')}
        self._record(TRAIN, {'wall_s': round(time.time(), 1), 'std': self.trainer.std, **status, **means})
        self._alarm = ''
        self._warn(self._values.update(means['q_mean']) if 'q_mean' in means else '')
        self._warn(self._advice.update(self._episodes.rates(), self._episodes.episodes))

    def _warn(self, sentence: str) -> None:
        if sentence:
            self._alarm = sentence
            _log.warning('%s', sentence)

    def _record(self, kind: str, values: Mapping[str, float | str]) -> None:
        """Write a line of the log; a full disk must not end the learning."""
        try:
            self._records.write(kind, self.trainer.steps, values)
        except OSError as error:
            self._trouble = (
                f'expected to write the log in {self._records.directory}, got "{error.strerror}"; '
                f'free space there'
            )


def _read_version(path: Path) -> int:
    """Return the last version that was given away; 0 where none was."""
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0


def _write_version(path: Path, version: int) -> None:
    """Remember a version, so that none is given away twice; not synced, since a power cut ends its readers too."""
    aside = path.with_suffix('.new')
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        aside.write_text(str(version))
        aside.replace(path)
    except OSError as error:
        _log.warning('expected to write %s, got "%s"; free space there', path, error.strerror)

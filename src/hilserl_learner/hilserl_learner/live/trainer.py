# SPDX-License-Identifier: Apache-2.0
"""Learning from a live arm: follows the experience on disk, updates the agent, gives its policy away. No ROS.

The node writes every transition to the run's directory before anything else happens to it. This side reads it
from there, so it may be killed and started again at any time, and never keeps messages waiting.
"""

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

from hilserl_learner.agents.common import agent_config, with_new_names
from hilserl_learner.agents.on_base import OnBaseAgent
from hilserl_learner.data.collect import EpisodeResult
from hilserl_learner.data.store import Entry, PartReader, read_buffer, read_header
from hilserl_learner.errors import CheckpointError, LearnerError
from hilserl_learner.live.config import LearnerConfig
from hilserl_learner.live.feed import EpisodeAccount
from hilserl_learner.live.identity import CHECKPOINTS, LIVE, NOTHING, ONLINE, VERSION
from hilserl_learner.live.versions import PolicyVersions
from hilserl_learner.training.checkpoint import (
    BufferPosition,
    Checkpoints,
    compare_configs,
    Saved,
    to_json,
)
from hilserl_learner.training.evaluate import EvalScore, EvalVerdict
from hilserl_learner.training.log import EVALUATION, RunLog, RunTracker, WINDOW
from hilserl_learner.training.on_base import LiveShare
from hilserl_learner.training.trainer import agent_part, make_trainer, TrainerConfig
from so101_contract.joints import NUM_JOINTS
from so101_contract.session import Outcome
from so101_contract.task.spec import require_same_task
from so101_contract.transition import EpisodeReport, Transition
from so101_interfaces_py.files import read_text

LOGS = 'log'
"""Name of the log in the directory of a run."""

Tell = Callable[[Mapping[str, Any], bytes], None]

_STATUS_S = 1.0
_ENTRIES_A_ROUND = 500
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
        spec, run = config.observation_spec, config.run
        self.trainer, policy = make_trainer(
            config.agent,
            agent_options,
            trainer,
            (spec, config.action_spec),
            policy=config.policy,
            observation=config.observation,
            seed=config.seed,
            device=config.device,
        )
        learns = asdict(agent_config(config.agent, agent_options))
        self._parameters = {**asdict(config), **asdict(trainer), **learns}
        checkpoints = Checkpoints(run / CHECKPOINTS, keep=config.keep_checkpoints)
        checkpoints.clean()
        saved = checkpoints.load()
        if saved is not None:
            self._resume(saved)
        self._steps_before = self.trainer.steps
        self.trainer.steps = 0  # counted again while the experience is read
        self._version_file = run / VERSION
        version = max(0 if saved is None else saved.metadata.version, _read_version(self._version_file))
        fields, period_s, agent = config.manifest_fields, config.publish_s, self.trainer.agent
        self.share = LiveShare(agent.config.share_step, WINDOW) if isinstance(agent, OnBaseAgent) else None
        self.weights = PolicyVersions(agent, fields, period_s=period_s, version=version, share=self.share)
        if policy is not None:  # until episodes tell where they begin
            self.weights.begins_at(policy.manifest.reset_pose)
        self._publish()
        self.tracker = RunTracker(
            self.trainer,
            RunLog(run / LOGS),
            checkpoints,
            config=self._parameters,
            q_bound=config.q_bound,
            enough=WINDOW,
            tolerant=True,
        )
        self._account = EpisodeAccount()
        self._reader = PartReader(run / ONLINE / LIVE, spec)
        self._backlog: Iterator[tuple[Entry, bool]] = self._everything()
        self.loaded = self.paused = False
        self._starts, self._start = 0, np.zeros(NUM_JOINTS)
        self._data_age_s = math.nan
        now = time.monotonic()
        self._next_status, self._next_log, self._next_save = now, now + config.log_s, now + config.save_s

    # ---- the loop ----------------------------------------------------------------------------------------

    def round(self) -> bool:
        """Take in what is new, make one update if one is due, tell what is due; return whether to go on at once."""
        busy = self._take_in()
        if self.loaded and not self.paused and self.trainer.ready and self.owed >= 1.0:
            self.tracker.update()
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
        self.tracker.close()

    # ---- experience --------------------------------------------------------------------------------------

    def _everything(self) -> Iterator[tuple[Entry, bool]]:
        """Yield the demonstrations, then everything that was lived through so far; say which is which."""
        if self.config.demos not in NOTHING:
            path = Path(self.config.demos).expanduser()
            header, names = read_header(path), ('learner', 'demonstrations')
            self.config.observation_spec.require_same(header.observation, names)
            require_same_task(self.config.task_spec, header.task, names)
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
        if isinstance(output, EpisodeReport) and output.revision and not demo:
            self.tracker.episodes.correct(output.episode, success=output.outcome is Outcome.SUCCESS)
        result = None if demo else self._account.add(entry)
        if result is None:
            return
        self.tracker.episodes.add(result)
        self._let_in(result)
        if self.loaded:
            self.tracker.note_episode(result, stream=entry.stream)
            if self.tracker.episodes.episodes % WINDOW == 0:
                self._judge()

    def _let_in(self, result: EpisodeResult) -> None:
        """Let the actor be heard as far as the episodes allow, once its critics have learned on the base."""
        agent = self.trainer.agent
        if self.share is not None and isinstance(agent, OnBaseAgent):
            ready = agent.updates >= agent.config.critic_warmup_updates
            ready &= self.trainer.steps >= agent.config.base_alone_steps
            if self.share.add(result.unaided, ready=ready):
                self.weights.forget()

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
            path = self._save()
        except CheckpointError as error:
            self._complain(error)
            if ask:
                raise
            return ''
        finally:
            self._next_save = time.monotonic() + self.config.save_s
        self.tracker.trouble = ''
        return str(path)

    def roll_back(self) -> str:
        """Go back to the networks that did best; experience and counters stay. Return what was done.

        Raises:
            CheckpointError: there is no best checkpoint yet.
        """
        saved = self.tracker.checkpoints.load_best()
        self.trainer.go_back(agent_part(saved.tensors))
        self.weights.forget()
        return f'back to the networks after {saved.metadata.updates} updates'

    def _judge(self) -> None:
        """Compare the last episodes with the best ones so far; keep the agent if they are better."""
        tracker = self.tracker
        rates = tracker.episodes.rates()
        unaided = round(rates['unaided'] * WINDOW)
        score = EvalScore(unaided, WINDOW, rates['episode_steps'], self.trainer.steps)
        verdict = tracker.best.judge(score)
        line: dict[str, float | str] = {'success': score.rate, 'episodes': WINDOW}
        line['verdict'] = verdict.name.lower()
        tracker.write(EVALUATION, line)
        best = tracker.best.score
        if verdict is EvalVerdict.BEST:
            tracker.best.keep(score, {})
            try:
                self._save(best=True)
            except CheckpointError as error:
                self._complain(error)
        elif verdict is EvalVerdict.COLLAPSED and best is not None:
            tracker.warn(
                f'unaided success fell from {best.rate:.0%} at step {best.step} to {score.rate:.0%}; '
                f'learner/rollback goes back to the networks of then'
            )

    def _resume(self, saved: Saved) -> None:
        """Take up what was saved, and say what was changed since."""
        before = with_new_names(json.loads(saved.metadata.config))
        lines = compare_configs(before, json.loads(to_json(self._parameters)))
        for line in lines:
            _log.warning('the run goes on with another parameter: %s', line)
        self.trainer.load_state_dict(saved.tensors)
        _log.info(
            'resumed %s: %d updates, %d steps', saved.path, saved.metadata.updates, saved.metadata.env_steps
        )

    def _save(self, *, best: bool = False) -> Path:
        position = self._reader.position
        return self.tracker.save(
            self.weights.policy(self.trainer.config.std_schedule),
            best=best,
            version=self.weights.version,
            positions=(BufferPosition(part=LIVE, segment=position.segment, offset=position.offset),),
        )

    def _complain(self, error: CheckpointError) -> None:
        self.tracker.trouble = str(error)
        _log.error('%s', error)

    # ---- telling -----------------------------------------------------------------------------------------

    def _publish(self) -> None:
        made = self.weights.make(time.monotonic(), self.trainer.std)
        _write_version(self._version_file, made.version)
        header = {'kind': 'weights', 'manifest': made.manifest, 'version': made.version, 'step': made.step}
        self._tell(header, made.payload)

    def status(self) -> dict[str, Any]:
        """Return how it goes, as plain numbers."""
        return {
            'state': self._state(),
            'reason': self.tracker.trouble or self.tracker.alarm or self._advice(),
            'version': self.weights.version,
            **self.tracker.status(),
            'data_age': self._data_age_s,
            'actor_share': math.nan if self.share is None else self.share.now,
            'base_success_rate': math.nan if self.share is None else self.share.base_rate,
            'actor_alone': self.share is not None and self.share.settled,
        }

    def _advice(self) -> str:
        alone = self.share is not None and self.share.settled
        return 'The actor does as well alone: the server of its base can be switched off.' if alone else ''

    def _state(self) -> str:
        if self.paused:
            return 'paused'
        return 'learning' if self.loaded and self.trainer.ready else 'waiting'

    def _write_line(self) -> None:
        status = {name: value for name, value in self.status().items() if name not in ('state', 'reason')}
        self.tracker.note_progress({'wall_s': round(time.time(), 1), 'std': self.trainer.std, **status})


def _read_version(path: Path) -> int:
    """Return the last version that was given away; 0 where none was."""
    try:
        return int(read_text(path))
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

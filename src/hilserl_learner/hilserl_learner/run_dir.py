# SPDX-License-Identifier: Apache-2.0
"""What a training run keeps on disk, so that it can be killed at any moment and goes on.

RUN/config.json              every setting of the run
RUN/train.csv, ...           the log, see run_log
RUN/best/, RUN/last/         policies, see drqv2_policy_node.store
RUN/state/last.safetensors   agent, counters, random states; best.safetensors: those of the best evaluation
RUN/buffer/demo, online      every transition, see buffer_store; a transition is there before it is learned from
"""

from collections.abc import Iterator, Mapping
from dataclasses import asdict
import json
from pathlib import Path
from typing import Any

from torch import Tensor

from drqv2_policy_node.networks import Critic
from drqv2_policy_node.policy import Policy
from drqv2_policy_node.store import save_policy
from hilserl_learner.agents.common import with_new_names
from hilserl_learner.buffer_store import (
    BufferHeader,
    BufferWriter,
    Entry,
    Part,
    PartReader,
    write_header,
    write_whole,
)
from hilserl_learner.checkpoint import Checkpoints, Facts, to_json
from hilserl_learner.errors import CheckpointError
from hilserl_learner.keeper import Mark
from so101_contract.action import ActionSpec
from so101_contract.observation_spec import ObservationSpec
from so101_contract.transition import Transition

BEST, LAST = 'best', 'last'
DEMO, ONLINE = 'demo', 'online'
CONFIG = 'config.json'


class RunDirectory:
    """The directory of one run."""

    def __init__(self, path: Path, observation: ObservationSpec, action: ActionSpec) -> None:
        """Open it; nothing is written yet."""
        self.path = path
        self._observation, self._action = observation, action
        self._writers: dict[str, BufferWriter] = {}
        self.checkpoints = Checkpoints(path / 'checkpoints')

    @property
    def is_new(self) -> bool:
        """Whether no run has begun there."""
        return not (self.path / CONFIG).exists()

    def begin(self, config: Mapping[str, Any]) -> None:
        """Begin a run.

        Raises:
            CheckpointError: there is one already.
        """
        if not self.is_new:
            raise CheckpointError(
                f'expected a directory without a run at {self.path}, got one with a {CONFIG}; add --resume to go '
                f'on with it, or name another directory'
            )
        self.path.mkdir(parents=True, exist_ok=True)
        header = BufferHeader(
            observation=self._observation, action=self._action, parts=(Part(name=DEMO), Part(name=ONLINE))
        )
        write_header(self.path / 'buffer', header)
        write_whole(self.path / CONFIG, json.dumps(config, indent=2, sort_keys=True).encode() + b'\n')

    def require_same(self, config: Mapping[str, Any], free: tuple[str, ...]) -> None:
        """Refuse to go on with a run that was begun with other settings.

        Args:
            config: the settings now.
            free: settings that may change, such as the number of steps.

        Raises:
            CheckpointError: with every difference.
        """
        before = read_config(self.path)
        now = json.loads(json.dumps(config))
        lines = [
            f'{name}: {before.get(name)!r} before, {now.get(name)!r} now'
            for name in sorted(before.keys() | now.keys())
            if name not in free and before.get(name) != now.get(name)
        ]
        if lines:
            raise CheckpointError(
                'expected the settings that the run was begun with, got the differences below; use the same '
                'ones, or another directory:\n  ' + '\n  '.join(lines)
            )

    # ---- transitions -------------------------------------------------------------------------------------

    def record(self, transition: Transition, part: str) -> None:
        """Append a transition; killing the process after this does not lose it."""
        if part not in self._writers:
            self._writers[part] = BufferWriter(self.path / 'buffer' / part)
        self._writers[part].append(Entry(part, transition))

    def recorded(self, part: str) -> Iterator[Transition]:
        """Yield the transitions of earlier lives of the run."""
        directory = self.path / 'buffer' / part
        if not directory.exists():
            return
        for entry in PartReader(directory, self._observation).poll():
            if isinstance(entry.output, Transition):
                yield entry.output

    # ---- agents ------------------------------------------------------------------------------------------

    def save(
        self,
        name: str,
        state: Mapping[str, Tensor],
        facts: Facts,
        policy: Policy,
        critics: tuple[Critic, Critic] | None = None,
    ) -> None:
        """Write a checkpoint and its policy.

        Args:
            name: `BEST` or `LAST`.
            state: of the trainer.
            facts: counters and notes.
            policy: what acts.
            critics: of the policy, and their targets, for a run that begins with it.
        """
        for writer in self._writers.values():
            writer.sync()
        write = self.checkpoints.save_best if name == BEST else self.checkpoints.save
        write(state, facts)
        save_policy(self.path / name, policy, critics=critics, overwrite=True)

    def close(self) -> None:
        """Bring everything to the disk."""
        for writer in self._writers.values():
            writer.close()
        self._writers.clear()


def read_config(run: Path) -> dict[str, Any]:
    """Return the settings of a run, also of one that was begun when some of them had other names."""
    return with_new_names(json.loads((run / CONFIG).read_text()))


def mark_notes(mark: Mark | None) -> str:
    """Return an evaluation as notes of a checkpoint."""
    return to_json({} if mark is None else asdict(mark))


def mark_of(notes: str) -> Mark | None:
    """Return the evaluation in the notes of a checkpoint."""
    values = json.loads(notes)
    return Mark(**values) if values else None

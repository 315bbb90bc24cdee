# SPDX-License-Identifier: Apache-2.0
"""A buffer to a dataset that LeRobot reads as its own, and that comes back as the same buffer.

Each transition is a row: what was seen before the action, the action, and what came of it. LeRobot's own columns say
it in its words; the columns `so101.*` say what these words cannot, exactly. LeRobot wants rows at even times, so an
episode of which a step is missing becomes two. What was seen after the last action has no row; a table beside has it.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
import os
from pathlib import Path
import shutil
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from hilserl_learner.data.store import BufferHeader, Entry
from hilserl_learner.errors import DatasetError
from hilserl_learner.lerobot.actions import ACTION, DELTA_NAMES, OWN_ACTION
from hilserl_learner.lerobot.cameras import camera_key
from hilserl_learner.lerobot.convert import (
    DONE,
    INTERVENTION,
    OWN_EPISODE,
    OWN_INDEX,
    OWN_OUTCOME,
    OWN_STAMP,
    OWN_STATE,
    REWARD,
    SIDE_TABLE,
    STATE,
    SUCCESS,
    TRUNCATED,
)
from hilserl_learner.lerobot.dataset import Feature, Provenance
from hilserl_learner.lerobot.units import from_rad
from hilserl_learner.lerobot.writer import DatasetWriter, picture_column
from so101_contract.action import ActionSpec, AXES, GripperConvention
from so101_contract.joints import gripper_opening_to_rad, gripper_rad_to_opening, JOINT_NAMES
from so101_contract.observation import Frame
from so101_contract.observation_spec import ObservationSpec
from so101_contract.session import Outcome
from so101_contract.transition import EpisodeReport, Transition

Array: TypeAlias = npt.NDArray[Any]

ACTIONS = ('delta', 'discrete', 'joints')
"""What `action` is: displacement and opening; the same with LeRobot's discrete gripper; or joint targets."""

MAX_RATE_HZ = 1000


@dataclass(frozen=True)
class ExportSettings:
    """How a buffer becomes a dataset.

    Attributes:
        version: of the format, `v3.0` or `v2.1`.
        codec: `av1` or `h264`; empty for PNG, which loses nothing.
        action: one of `ACTIONS`.
        task: what was to be done, as LeRobot tells its policies.
        rate_hz: rows per second; 0 for the rate of the buffer's stamps.
    """

    version: str = 'v3.0'
    codec: str = ''
    action: str = 'delta'
    task: str = 'Lift the cube'
    rate_hz: int = 0


@dataclass
class ExportReport:
    """What was exported.

    Attributes:
        episodes: of the buffer.
        segments: episodes of the dataset: more where steps are missing.
        rows: one for each transition.
        successes: episodes of the buffer that ended in success.
        intervened: rows that a human decided.
        fps: rows per second.
        renumbered: episodes that got another number, since another part of the buffer has theirs.
    """

    episodes: int = 0
    segments: int = 0
    rows: int = 0
    successes: int = 0
    intervened: int = 0
    fps: int = 0
    renumbered: int = 0


@dataclass(frozen=True)
class BufferEpisode:
    """One episode of a buffer: its transitions in order, and how it ended, where that is known."""

    number: int
    transitions: tuple[Transition, ...]
    outcome: Outcome | None

    @property
    def success(self) -> bool:
        """Whether it ended in success."""
        last = self.transitions[-1]
        return self.outcome is Outcome.SUCCESS or (
            self.outcome is None and last.terminated and last.reward > 0
        )

    @property
    def segments(self) -> Iterator[list[Transition]]:
        """The runs of steps of which none is missing."""
        run: list[Transition] = []
        for transition in self.transitions:
            if run and transition.index != run[-1].index + 1:
                yield run
                run = []
            run.append(transition)
        yield run


@dataclass
class Corrections:
    """What late labels have corrected of episodes that were closed by then."""

    reports: dict[tuple[str, int], EpisodeReport] = field(default_factory=dict)
    transitions: dict[tuple[str, int], dict[int, Transition]] = field(default_factory=dict)

    @classmethod
    def of(cls, entries: Iterable[Entry]) -> 'Corrections':
        """Look through a buffer for them."""
        found, closed = cls(), set()
        for entry in entries:
            key = entry.stream, entry.output.episode
            if isinstance(entry.output, EpisodeReport):
                closed.add(key)
                if entry.output.revision:
                    found.reports[key] = entry.output
            elif key in closed and entry.output.revision:
                found.transitions.setdefault(key, {})[entry.output.index] = entry.output
        return found


def episodes_of(entries: Iterable[Entry], corrections: Corrections | None = None) -> Iterator[BufferEpisode]:
    """Yield the episodes of a buffer as they were last labelled, without those that were thrown away."""
    pending: dict[tuple[str, int], dict[int, Transition]] = {}
    late = corrections or Corrections()

    def close(key: tuple[str, int], report: EpisodeReport | None) -> Iterator[BufferEpisode]:
        found = pending.pop(key, {})
        if report is not None and report.revision:
            return
        found |= late.transitions.get(key, {}) if found else {}
        report = late.reports.get(key, report)
        if found and not (report is not None and report.discarded):
            ordered = tuple(found[index] for index in sorted(found))
            yield BufferEpisode(key[1], ordered, None if report is None else report.outcome)

    for entry in entries:
        key = entry.stream, entry.output.episode
        if isinstance(entry.output, EpisodeReport):
            yield from close(key, entry.output)
            continue
        known = pending.setdefault(key, {})
        old = known.get(entry.output.index)
        if old is None or entry.output.revision >= old.revision:
            known[entry.output.index] = entry.output
    for key in list(pending):
        yield from close(key, None)


def rate_of(episode: BufferEpisode) -> int:
    """Return the steps per second that the stamps of an episode say, as a whole number."""
    stamps = [(t.frames[-1].stamp_ns, t.next_frame.stamp_ns) for t in episode.transitions]
    period_ns = float(np.median([after - before for before, after in stamps]))
    rate = round(1e9 / period_ns) if period_ns > 0 else 0
    if not 1 <= rate <= MAX_RATE_HZ:
        raise DatasetError(
            f'expected 1 to {MAX_RATE_HZ} steps per second in episode {episode.number}, got a step every '
            f'{period_ns / 1e9:g} s; say the rate with --rate'
        )
    return rate


@contextmanager
def written_aside(out: Path) -> Iterator[Path]:
    """Give a place to write at, and put what was written in place of `out` when it is whole.

    Raises:
        DatasetError: something is there already.
    """
    if out.exists():
        raise DatasetError(f'expected nothing at {out}, found something; name another place, or remove it')
    aside = out.with_name(f'.{out.name}.{os.getpid()}{out.suffix}')
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        yield aside
        aside.rename(out)
    except OSError as error:
        raise DatasetError(
            f'expected to write {out}, got "{error.strerror or error}"; free space there or choose another place'
        ) from error
    finally:
        if aside.is_dir():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.unlink(missing_ok=True)


def export_dataset(
    header: BufferHeader,
    episodes: Iterable[BufferEpisode],
    out: Path,
    settings: ExportSettings,
    progress: Callable[[int], None] | None = None,
) -> ExportReport:
    """Write episodes of a buffer as a dataset; it appears whole or not at all.

    Raises:
        DatasetError: something is there already, the disk is full, or there is nothing to export.
    """
    report = ExportReport()
    with written_aside(out) as aside:
        exporter: _Exporter | None = None
        try:
            for episode in episodes:
                if exporter is None:
                    report.fps = settings.rate_hz or rate_of(episode)
                    exporter = _Exporter(aside, header, settings, report)
                exporter.add(episode)
                if progress is not None:
                    progress(report.rows)
            if exporter is None:
                raise DatasetError('expected an episode to export, got none; ingest a bag with transitions')
            exporter.finish()
        finally:
            if exporter is not None:
                exporter.writer.close()
    return report


class _Exporter:
    """Turns episodes into rows and pictures."""

    def __init__(
        self, folder: Path, header: BufferHeader, settings: ExportSettings, report: ExportReport
    ) -> None:
        self._spec, self._settings, self._report = header.observation, settings, report
        self._action = _action_spec(header.action, settings.action)
        self._joints = 'joint_pos' in self._spec.block_names
        if settings.action != 'delta' and not self._joints:
            raise DatasetError(
                f'expected joint_pos in the state for --action {settings.action}, got '
                f'{list(self._spec.block_names)}; export with --action delta'
            )
        self._numbers: set[int] = set()
        self._side: list[tuple[int, Frame]] = []
        self._folder = folder
        self.writer = DatasetWriter(
            folder,
            features_of(self._spec, settings),
            fps=report.fps,
            version=settings.version,
            codec=settings.codec or 'av1',
            provenance=Provenance(
                observation=self._spec,
                action=header.action,
                rate_hz=float(report.fps),
                sources=tuple(part.source_sha256 or part.name for part in header.parts),
            ),
        )

    def add(self, episode: BufferEpisode) -> None:
        """Write one episode."""
        number, report = episode.number, self._report
        if number in self._numbers:
            number = max(self._numbers) + 1
            report.renumbered += 1
        self._numbers.add(number)
        report.episodes += 1
        report.successes += episode.success
        for run in episode.segments:
            pictures = {
                camera_key(name): [t.frames[-1].images[name].transpose(1, 2, 0) for t in run]
                for name in self._spec.camera_names
            }
            self.writer.add(self._columns(number, episode, run), pictures, self._settings.task)
            report.segments += 1
            report.rows += len(run)
            report.intervened += sum(transition.intervened for transition in run)
        rows = {transition.index for transition in episode.transitions}
        frames = {f.index: f for t in episode.transitions for f in (*t.frames, t.next_frame)}
        self._side += [(number, frame) for index, frame in sorted(frames.items()) if index not in rows]

    def finish(self) -> None:
        """Write the rest."""
        path = self._folder / SIDE_TABLE
        path.parent.mkdir()
        frames = [frame for _, frame in self._side]
        table: dict[str, Any] = {
            OWN_EPISODE: pa.array([number for number, _ in self._side], pa.int64()),
            OWN_INDEX: pa.array([frame.index for frame in frames], pa.int64()),
            OWN_STAMP: pa.array([frame.stamp_ns for frame in frames], pa.int64()),
            OWN_STATE: pa.array([frame.state for frame in frames], pa.list_(pa.float32())),
        }
        for name in self._spec.camera_names:
            table[camera_key(name)] = picture_column([f.images[name].transpose(1, 2, 0) for f in frames])
        pq.write_table(pa.table(table), path)
        self.writer.finish()

    def _columns(self, number: int, episode: BufferEpisode, run: Sequence[Transition]) -> Mapping[str, Array]:
        states = np.array([transition.frames[-1].state for transition in run], dtype=np.float32)
        wire = np.array([(*t.action.translation, t.action.opening) for t in run], dtype=np.float64)
        ends = np.array([t is episode.transitions[-1] for t in run])
        count = len(run)
        return {
            STATE: self._positions(states).astype(np.float32),
            ACTION: self._actions(run, states, wire).astype(np.float32),
            REWARD: np.array([transition.reward for transition in run], dtype=np.float32),
            DONE: np.array([transition.terminated for transition in run]),
            SUCCESS: ends & episode.success,
            TRUNCATED: np.array([transition.truncated for transition in run]),
            INTERVENTION: np.array([transition.intervened for transition in run]),
            OWN_EPISODE: np.full(count, number),
            OWN_INDEX: np.array([transition.index for transition in run]),
            OWN_STAMP: np.array([transition.frames[-1].stamp_ns for transition in run]),
            OWN_STATE: states,
            OWN_ACTION: wire,
            OWN_OUTCOME: np.full(count, 0 if episode.outcome is None else int(episode.outcome)),
        }

    def _positions(self, states: Array) -> Array:
        """Return `observation.state`: joints in LeRobot's units, or the whole state where it has no joints."""
        return from_rad(states[:, self._spec.slice_of('joint_pos')]) if self._joints else states

    def _actions(self, run: Sequence[Transition], states: Array, wire: Array) -> Array:
        if self._settings.action == 'joints':
            after = np.array([t.next_frame.state for t in run], dtype=np.float64)
            targets = after[:, self._spec.slice_of('joint_pos')]
            targets[:, -1] = gripper_opening_to_rad(wire[:, 3])
            return from_rad(targets)
        present = np.zeros(len(run))
        if self._settings.action == 'discrete':
            measured = states[0, self._spec.slice_of('joint_pos')][-1]
            present = np.append(gripper_rad_to_opening(float(measured)), wire[:-1, 3])
        values = [
            self._action.from_wire(row[:3], float(row[3]), present_opening=float(opening)).values
            for row, opening in zip(wire, present, strict=True)
        ]
        return np.array(values)


def _action_spec(spec: ActionSpec, kind: str) -> ActionSpec:
    """Return what the numbers of `action` mean: the buffer's scale, and a gripper that LeRobot knows."""
    gripper = GripperConvention.DISCRETE if kind == 'discrete' else GripperConvention.OPENING
    return ActionSpec(translation_scale_m=spec.translation_scale_m, gripper=gripper, frame_id=spec.frame_id)


def features_of(spec: ObservationSpec, settings: ExportSettings) -> list[Feature]:
    """Return the columns and cameras of an export, in their order."""
    joints = tuple(f'{name}.pos' for name in JOINT_NAMES)
    entries = tuple(
        f'{block.name}.{k}' if block.size > 1 else block.name
        for block in spec.state
        for k in range(block.size)
    )
    state = joints if 'joint_pos' in spec.block_names else entries
    action = joints if settings.action == 'joints' else (*DELTA_NAMES, 'gripper')
    kind, shape = ('video' if settings.codec else 'image'), (spec.image_size, spec.image_size, 3)
    cameras = [
        Feature(camera_key(name), kind, shape, ('height', 'width', 'channels')) for name in spec.camera_names
    ]
    return [
        Feature(STATE, 'float32', (len(state),), state),
        Feature(ACTION, 'float32', (len(action),), action),
        *cameras,
        Feature(REWARD, 'float32', (1,)),
        *(Feature(key, 'bool', (1,)) for key in (DONE, SUCCESS, TRUNCATED, INTERVENTION)),
        *(Feature(key, 'int64', (1,)) for key in (OWN_EPISODE, OWN_INDEX, OWN_STAMP)),
        Feature(OWN_STATE, 'float32', (spec.state_size,), entries),
        Feature(OWN_ACTION, 'float64', (len(AXES),), AXES),
        Feature(OWN_OUTCOME, 'int64', (1,)),
    ]

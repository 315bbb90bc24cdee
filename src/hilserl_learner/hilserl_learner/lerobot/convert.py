# SPDX-License-Identifier: Apache-2.0
"""A LeRobot dataset to the transitions that a bag would have given; what the dataset does not say is said.

Rows become steps of the control rate by their time. Step k has the rows from its own to that of step k + 1: its action
is what they say together, its reward their sum. A dataset does not hold what was seen after the last action of an
episode. Where success ended it the last frame stands for that, since nothing is made of its value; else the last row
has no transition. Our own export has everything, and comes back as it was.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby
from pathlib import Path
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from hilserl_learner.errors import DatasetError
from hilserl_learner.lerobot.actions import (
    ACTION,
    action_kind,
    ActionReader,
    DeltaActions,
    JointTargets,
    OWN_ACTION,
    OwnActions,
)
from hilserl_learner.lerobot.cameras import Cameras
from hilserl_learner.lerobot.dataset import (
    DatasetChoices,
    EpisodeInfo,
    Feature,
    PROVENANCE,
)
from hilserl_learner.lerobot.metadata import MAX_FRAMES, read_info
from hilserl_learner.lerobot.reader import DatasetReader, read_side_table, Rows
from hilserl_learner.lerobot.units import (
    choose_units,
    fits,
    FloatArray,
    joint_columns,
    outside,
    TARGET_OUTLIERS,
)
from so101_contract.action import ActionSpec, AXES, EeDeltaValue
from so101_contract.joints import VelocityEstimator
from so101_contract.messages import ExecutedAction
from so101_contract.observation import Frame
from so101_contract.observation_spec import CONTROL_RATE_HZ, ObservationSpec
from so101_contract.session import Outcome, Source
from so101_contract.transition import EpisodeReport, Reason, Transition
from so101_driver.calibration.files import load
from so101_driver.calibration.lerobot_units import DEGREES, JointScale, RAD
from so101_kinematics.fk import ForwardKinematics, state_function

STATE, REWARD, DONE = 'observation.state', 'next.reward', 'next.done'
SUCCESS, TRUNCATED, INTERVENTION = 'next.success', 'next.truncated', 'intervention'
OWN_EPISODE, OWN_INDEX, OWN_STAMP = 'so101.episode', 'so101.index', 'so101.stamp_ns'
OWN_STATE, OWN_OUTCOME = 'so101.state', 'so101.outcome'
OWN = (OWN_EPISODE, OWN_INDEX, OWN_STAMP, OWN_STATE, OWN_OUTCOME, OWN_ACTION)
FLAGS = (REWARD, DONE, SUCCESS, TRUNCATED, INTERVENTION)
SIDE_TABLE = f'{PROVENANCE}/frames.parquet'
"""Frames of our own export that no row has: what was seen after an episode's last action, or without an action."""

_PAUSE_NS = 1_000_000_000
"""Between two episodes, for the stamps of what has none [ns]."""

Flags: TypeAlias = npt.NDArray[np.bool_]
Episode: TypeAlias = tuple[list[Transition], EpisodeReport]


@dataclass(frozen=True)
class Step:
    """One step: what was done in it, and what came of it."""

    action: ExecutedAction
    reward: float
    terminated: bool
    truncated: bool


class DatasetConverter:
    """Converts the episodes of one dataset."""

    def __init__(
        self, folder: Path, choices: DatasetChoices, observation: ObservationSpec, action: ActionSpec
    ) -> None:
        """Read everything but the pictures, and check it.

        Raises:
            DatasetError: the dataset is damaged, not of this arm, or something must be chosen.
        """
        self.info = read_info(folder)
        self._choices, self._observation = choices, observation
        self._rate = choices.rate_hz or CONTROL_RATE_HZ
        self._notes: dict[str, None] = {}
        self._counts: Counter[str] = Counter()
        self._reader = DatasetReader(self.info, self._columns())
        self._cameras = Cameras(self._reader, observation, choices.cameras)
        self._rows = [(episode, self._reader.rows(episode)) for episode in self._chosen()]
        self._exact = self._is_own()
        self._joints: list[int] = []
        self._scale = JointScale(RAD)
        if not self._exact:
            self._require_rate()
            self._joints = joint_columns(self._feature(STATE), folder)
            self._scale = self._choose_scale()
        self._actions = self._make_actions(action)
        self._state_of = state_function(observation)

    @property
    def said(self) -> list[str]:
        """What the dataset did not say, and what was made of that; complete after the last episode."""
        tasks = [f'{text!r}' for text in sorted({task for e, _ in self._rows for task in e.tasks})]
        several = [f'there are several tasks, {", ".join(tasks)}; --task takes one'] if len(tasks) > 1 else []
        counted = [f'{count} episodes {why}' for why, count in self._counts.items()]
        share = ', '.join(f'{axis} {self.clipped[axis]:.1%}' for axis in AXES)
        cut = [f'actions were clipped to their range: {share}'] if self._actions.clipped.total else []
        return [*several, *self._notes, *counted, *self._actions.said, *cut]

    @property
    def clipped(self) -> dict[str, float]:
        """Share of the actions that were clipped, by axis."""
        return {axis: round(self._actions.clipped.fraction[axis], 6) for axis in AXES}

    def episodes(self, progress: Callable[[int, int], None] | None = None) -> Iterator[Episode]:
        """Yield the transitions of each episode with its report.

        Raises:
            DatasetError: a picture or a row cannot be used.
        """
        total, done = sum(episode.length for episode, _ in self._rows), 0
        try:
            for parts in self._groups():
                yield self._own(parts) if self._exact else self._foreign(*parts[0])
                done += sum(episode.length for episode, _ in parts)
                if progress is not None:
                    progress(done, total)
        finally:
            self._reader.close()

    def _groups(self) -> Iterator[list[tuple[EpisodeInfo, Rows]]]:
        """Yield what belongs together: our export cuts an episode in two where a step is missing."""
        if not self._exact:
            yield from ([part] for part in self._rows)
            return
        for _, parts in groupby(self._rows, key=lambda part: int(part[1][OWN_EPISODE][0])):
            yield list(parts)

    def _chosen(self) -> list[EpisodeInfo]:
        task = self._choices.task
        chosen = [episode for episode in self.info.episodes if not task or task in episode.tasks]
        if not chosen:
            raise DatasetError(
                f'expected an episode with the task {task!r} in {self.info.folder}, got the tasks '
                f'{sorted(self.info.tasks.values())[:10]}; choose one of them'
            )
        return chosen

    def _require_rate(self) -> None:
        if self.info.fps < self._rate:
            raise DatasetError(
                f'expected at least {self._rate:g} rows per second in {self.info.folder}, got {self.info.fps:g}; '
                f'steps cannot be made up: choose a lower --rate'
            )

    def _is_own(self) -> bool:
        """Whether it is our export, with the observation and at the rate that are asked for."""
        own, features = self.info.provenance, self.info.features
        if own is None or any(key not in features for key in (*OWN, *FLAGS)):
            return False
        same = own.observation == self._observation and self._choices.rate_hz in (0.0, own.rate_hz)
        return same and features[OWN_STATE].shape == (self._observation.state_size,)

    def _columns(self) -> list[str]:
        used = (STATE, ACTION, *FLAGS, *OWN)
        return [key for key in used if key in self.info.features]

    def _feature(self, key: str) -> Feature:
        if key not in self.info.features:
            raise DatasetError(
                f'expected the feature {key} in {self.info.folder}, got {list(self.info.features)[:20]}; '
                f'record joint positions too'
            )
        return self.info.features[key]

    def _choose_scale(self) -> JointScale:
        if self.info.provenance is not None:
            return JointScale(DEGREES)
        calibration = load(Path(self._choices.calibration)) if self._choices.calibration else None
        values = np.concatenate([rows[STATE][:, self._joints] for _, rows in self._rows])
        where = f'{STATE} of {self.info.folder}'
        scale = choose_units(self._choices.units, values.astype(np.float64), calibration, where)
        if calibration is None and scale.units != RAD:
            rough = 'the range of each joint' if scale.units != DEGREES else 'the range of the gripper'
            self._note(f'joints are in {scale.units}; {rough} was taken from the model (--calibration)')
        return scale

    def _make_actions(self, spec: ActionSpec) -> ActionReader:
        kind = action_kind(self.info)
        if kind == 'own':
            return OwnActions()
        if kind == 'delta':
            return DeltaActions(self.info.features[ACTION], spec, self._choices.delta_scale_m)
        columns = joint_columns(self.info.features[ACTION], self.info.folder)
        self._check_targets(columns)
        return JointTargets(columns, self._scale, spec, ForwardKinematics(self._observation.tcp))

    def _check_targets(self, columns: Sequence[int]) -> None:
        targets = np.concatenate([rows[ACTION][:, columns] for _, rows in self._rows]).astype(np.float64)
        if np.ptp(targets, axis=0).max() > 0 and not fits(self._scale, targets, TARGET_OUTLIERS):
            raise DatasetError(
                f'expected {ACTION} of {self.info.folder} in {self._scale.units} like {STATE}, got '
                f'{targets.min():.4g} to {targets.max():.4g}, which cannot be; record both in the same units'
            )

    def _note(self, text: str) -> None:
        """Remember something that is true of the whole dataset, once."""
        self._notes[text] = None

    # --- a dataset of somebody else's ---

    def _foreign(self, episode: EpisodeInfo, rows: Rows) -> Episode:
        end, outcome = self._end(rows)
        positions = self._scale.positions(rows[STATE][:, self._joints])
        edges = self._edges(end, outcome)
        number, last = episode.index + 1, len(edges) - 2
        frames = self._frames(episode, rows, positions, [*edges[:-1], min(edges[-1], end)])
        values = self._actions.read(rows, positions, edges) if last >= 0 else []
        steps = []
        for k, value in enumerate(values):
            part = slice(edges[k], edges[k + 1])
            ends = k == last
            reward = float(rows[REWARD][part].sum()) if REWARD in rows else 0.0
            action = self._executed(value, number, k, rows, part)
            steps.append(Step(action, reward, ends and outcome.terminal, ends and not outcome.terminal))
        after = episode.length - 1 - end
        return self._finish(number, frames, steps, outcome, Counter({Reason.AFTER_END: after}))

    def _end(self, rows: Rows) -> tuple[int, Outcome]:
        """Return the row that ends an episode, and how."""
        length = len(rows['timestamp'])
        nothing = np.zeros(length, dtype=np.bool_)
        done: Flags = np.asarray(rows.get(DONE, nothing), dtype=np.bool_)
        cut: Flags = np.asarray(rows.get(TRUNCATED, nothing), dtype=np.bool_)
        ends = np.flatnonzero(np.logical_or(done, cut))
        end = int(ends[0]) if len(ends) else length - 1
        rewarded = REWARD in rows and float(rows[REWARD][end]) > 0
        success = bool(rows[SUCCESS][end]) if SUCCESS in rows else rewarded
        if REWARD not in rows:
            self._note('there are no rewards: all are 0 unless --reward says otherwise')
        if cut[end]:
            return end, Outcome.TIME_LIMIT
        if success and (done[end] or DONE not in rows):
            return end, Outcome.SUCCESS
        if done[end] and TRUNCATED in rows:
            return end, Outcome.FAILURE
        why = 'by next.done without a reward' if done[end] else 'without next.done'
        self._counts[f'end {why}: taken as cut short by time, which the dataset does not say'] += 1
        return end, Outcome.TIME_LIMIT

    def _edges(self, end: int, outcome: Outcome) -> list[int]:
        """Return the row at which each step begins, and the one behind the last step."""
        ratio = self.info.fps / self._rate
        begins = [round(k * ratio) for k in range(int(end / ratio) + 2) if round(k * ratio) <= end]
        if outcome.terminal:
            self._counts['end without the picture after their last action: the last one was repeated'] += 1
            return [*begins, end + 1]
        return begins

    def _frames(
        self, episode: EpisodeInfo, rows: Rows, positions: FloatArray, chosen: Sequence[int]
    ) -> dict[int, Frame]:
        """Return the frames at the chosen rows by the number of their step, without those beyond the limits."""
        start_ns = round(episode.first / self.info.fps * 1e9) + episode.index * _PAUSE_NS
        stamps = [start_ns + round(float(time) * 1e9) for time in rows['timestamp']]
        estimator = VelocityEstimator()
        velocities = [estimator.update(stamp, q) for stamp, q in zip(stamps, positions, strict=True)]
        refused = set(np.flatnonzero(outside(positions).any(axis=1)).tolist())
        pictures = self._cameras.pictures(episode, sorted(set(chosen)))
        frames: dict[int, Frame] = {}
        for k, row in enumerate(chosen):
            if row in refused:
                continue
            again = k > 0 and row == chosen[k - 1]
            stamp = stamps[row] + (round(1e9 / self._rate) if again else 0)
            state = self._state_of(positions[row], velocities[row])
            frames[k] = Frame(episode.index + 1, k, stamp, state, pictures[row])
        return frames

    def _executed(
        self, value: EeDeltaValue, number: int, index: int, rows: Rows, part: slice
    ) -> ExecutedAction:
        if INTERVENTION not in rows:
            self._note("there is no column intervention: every action counts as the human's")
        human = INTERVENTION not in rows or bool(rows[INTERVENTION][part].any())
        source = Source.TELEOP if human else Source.POLICY
        return ExecutedAction(number, index, value.translation, value.opening, source)

    # --- our own export ---

    def _own(self, parts: Sequence[tuple[EpisodeInfo, Rows]]) -> Episode:
        number = int(parts[0][1][OWN_EPISODE][0])
        frames, steps = dict(self._side.get(number, {})), []
        for episode, rows in parts:
            _check_numbers(rows, self.info.folder)
            pictures = self._cameras.pictures(episode, range(episode.length))
            values = self._actions.read(rows, np.empty((0, 0)), range(episode.length + 1))
            for row, value in enumerate(values):
                index = int(rows[OWN_INDEX][row])
                state = rows[OWN_STATE][row].astype(np.float32)
                frames[index] = Frame(number, index, int(rows[OWN_STAMP][row]), state, pictures[row])
                action = self._executed(value, number, index, rows, slice(row, row + 1))
                flags = bool(rows[DONE][row]), bool(rows[TRUNCATED][row])
                steps.append(Step(action, float(rows[REWARD][row]), *flags))
        said = int(parts[-1][1][OWN_OUTCOME][-1])
        outcome = Outcome(said) if said in {one.value for one in Outcome} else None
        return self._finish(number, frames, steps, outcome, Counter())

    @cached_property
    def _side(self) -> dict[int, dict[int, Frame]]:
        """The frames that no row has, by episode and number of their step."""
        keys = (OWN_EPISODE, OWN_INDEX, OWN_STAMP, OWN_STATE)
        columns = {key: self.info.features[key] for key in (*keys, *self._cameras.features)}
        table = read_side_table(self.info.folder / SIDE_TABLE, columns)
        found: dict[int, dict[int, Frame]] = {}
        for row in range(len(table.get(OWN_EPISODE, []))):
            episode, index, stamp, state = (table[key][row] for key in keys)
            images = self._cameras.processed({key: table[key][row] for key in self._cameras.features})
            frame = Frame(int(episode), int(index), int(stamp), np.array(state, dtype=np.float32), images)
            found.setdefault(frame.episode, {})[frame.index] = frame
        return found

    # --- both ---

    def _finish(
        self,
        number: int,
        frames: Mapping[int, Frame],
        steps: Sequence[Step],
        outcome: Outcome | None,
        dropped: Counter[Reason],
    ) -> Episode:
        """Return the transitions that steps and frames make, and the account of the episode."""
        made = []
        for step in steps:
            found = _transition(step, frames, self._observation.frame_stack)
            if isinstance(found, Reason):
                dropped[found] += 1
            else:
                made.append(found)
        report = EpisodeReport(
            episode=number,
            outcome=outcome,
            steps=len(steps) + 1,
            transitions=len(made),
            intervened=sum(transition.intervened for transition in made),
            dropped={reason: count for reason, count in dropped.items() if count},
            discarded=False,
        )
        return made, report


def _check_numbers(rows: Rows, folder: Path) -> None:
    """Refuse numbers of episodes and steps that a buffer has no room for."""
    for key in (OWN_EPISODE, OWN_INDEX):
        if rows[key].min() < 0 or rows[key].max() > MAX_FRAMES:
            raise DatasetError(
                f'expected {key} from 0 to {MAX_FRAMES} in {folder}, got {rows[key].min()} to {rows[key].max()}; '
                f'export again'
            )


def _transition(step: Step, frames: Mapping[int, Frame], stack: int) -> Transition | Reason:
    index = step.action.index
    window = [frames.get(max(k, 0)) for k in range(index - stack + 1, index + 1)]
    whole = tuple(frame for frame in window if frame is not None)
    after = frames.get(index + 1) or (frames.get(index) if step.terminated else None)
    if window[-1] is None:
        return Reason.STATE
    if after is None:
        return Reason.NEXT_STEP
    if len(whole) < stack:
        return Reason.STACK
    return Transition(whole, after, step.action, step.reward, step.terminated, step.truncated)

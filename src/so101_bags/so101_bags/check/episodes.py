# SPDX-License-Identifier: Apache-2.0
"""The episodes of a bag: what they give to learning, and what is wrong with them."""

from dataclasses import dataclass, field
from itertools import groupby

import numpy as np

from so101_bags.check.report import CheckLimits, CheckReport, episode_name, EpisodeRow
from so101_bags.records import RecordMaker
from so101_contract.action import ActionSpec
from so101_contract.assembly import Assembler
from so101_contract.base import BaseRecord
from so101_contract.human_time import HumanTime
from so101_contract.messages import (
    AnyRecord,
    EpisodeEventRecord,
    ExecutedAction,
    ImageSample,
    JointSample,
    StepRecord,
)
from so101_contract.observation import Limits
from so101_contract.observation_spec import ObservationSpec
from so101_contract.session import NO_EPISODE, Source
from so101_contract.transition import EpisodeReport, Transition
from so101_kinematics.fk import ForwardKinematics, NUM_ARM_JOINTS, state_function


@dataclass
class Episode:
    """What came of one episode."""

    number: int
    session: int = 1
    steps: list[StepRecord] = field(default_factory=list)
    actions: dict[int, ExecutedAction] = field(default_factory=dict)
    report: EpisodeReport | None = None
    given: dict[int, tuple[float, bool]] = field(default_factory=dict)  # reward, whether a human decided
    motion_m: float = 0.0
    joint_ages: list[float] = field(default_factory=list)
    image_ages: list[float] = field(default_factory=list)
    origin: np.ndarray | None = None

    @property
    def name(self) -> str:
        """What to call it."""
        return episode_name(self.number, self.session)

    @property
    def window(self) -> tuple[int, int]:
        """Stamps of the first and the last step [ns]."""
        stamps = [step.stamp_ns for step in self.steps]
        return (min(stamps), max(stamps)) if stamps else (0, 0)

    def moves(self) -> np.ndarray:
        """The displacements of policy and human (n, 3) [m]."""
        acted = [a.translation for a in self.actions.values() if a.source in (Source.POLICY, Source.TELEOP)]
        return np.array(acted).reshape(-1, 3)

    def runs(self) -> list[int]:
        """Length of each uninterrupted intervention [steps]; empty where only one of both acted."""
        sources = [self.actions[index].source for index in sorted(self.actions)]
        sources = [source for source in sources if source in (Source.POLICY, Source.TELEOP)]
        if len(set(sources)) < 2:
            return []
        return [len(list(run)) for source, run in groupby(sources) if source is Source.TELEOP]


class EpisodeBook:
    """Feeds an assembler and keeps the accounts of each episode."""

    def __init__(self, spec: ObservationSpec) -> None:
        self.episodes: dict[tuple[int, int], Episode] = {}
        self.session = 1
        self.human = HumanTime()
        self._spec = spec
        self._fk = ForwardKinematics(spec.tcp)
        self._assembler = Assembler(
            spec, state_function(spec), limits=Limits(joints=6000, images=2000, steps=20000, episodes=2)
        )
        self._joints: dict[int, np.ndarray] = {}
        self._scale = np.array(ActionSpec().translation_scale_m)

    def push(self, record: AnyRecord) -> None:
        """Take a record."""
        if isinstance(record, JointSample):
            self._joints[record.stamp_ns] = record.position
            if len(self._joints) > 6000:
                del self._joints[next(iter(self._joints))]
        if isinstance(record, EpisodeEventRecord):
            self.human.event(record)
        # First what this completes: where it begins a new session, that belongs to the old one.
        for output in self._assembler.push(record):
            self._take(output)
        if not isinstance(record, JointSample | ImageSample):
            self._note(record)

    def finish(self) -> None:
        """Close what is open."""
        for output in self._assembler.flush():
            self._take(output)

    def rows(self) -> list[EpisodeRow]:
        """Return the table."""
        return [self._row(self.episodes[key]) for key in sorted(self.episodes)]

    def _episode(self, number: int) -> Episode:
        return self.episodes.setdefault((self.session, number), Episode(number, self.session))

    def _note(self, record: StepRecord | ExecutedAction | BaseRecord | EpisodeEventRecord) -> None:
        if record.episode == NO_EPISODE:
            return
        episode = self._episode(record.episode)
        if isinstance(record, ExecutedAction):
            episode.actions[record.index] = record
        elif isinstance(record, StepRecord):
            if record.index == 0 and episode.steps and episode.steps[0].stamp_ns != record.stamp_ns:
                self.session += 1
                episode = self._episode(record.episode)
            episode.steps.append(record)
            episode.joint_ages.append((record.stamp_ns - record.joint_stamp_ns) / 1e9)
            episode.image_ages += [(record.stamp_ns - stamp) / 1e9 for stamp in record.image_stamps_ns]
            self._measure(episode, record)

    def _measure(self, episode: Episode, step: StepRecord) -> None:
        position = self._joints.get(step.joint_stamp_ns)
        if position is None:
            return
        tcp = self._fk.position(position[:NUM_ARM_JOINTS])
        if episode.origin is None:
            episode.origin = tcp
        episode.motion_m = max(episode.motion_m, float(np.linalg.norm(tcp - episode.origin)))

    def _take(self, output: Transition | EpisodeReport) -> None:
        episode = self._episode(output.episode)
        if isinstance(output, EpisodeReport):
            episode.report = output
        else:
            # Only what the table needs: the frames would fill the memory.
            episode.given[output.index] = (output.reward, output.intervened)

    def _row(self, episode: Episode) -> EpisodeRow:
        moves, runs, report = episode.moves(), episode.runs(), episode.report
        given = list(episode.given.values())
        start, end = episode.window
        outcome = report.outcome.name.lower() if report and report.outcome is not None else 'none'
        saturated = float((np.abs(moves) >= 0.999 * self._scale).mean()) if moves.size else 0.0
        return EpisodeRow(
            episode=episode.number,
            session=episode.session,
            outcome=outcome,
            steps=len(episode.steps),
            transitions=len(given),
            seconds=(end - start) / 1e9,
            reward=float(sum(reward for reward, _ in given)),
            teleop=sum(intervened for _, intervened in given) / len(given) if given else 0.0,
            interventions=len(runs),
            run=float(np.mean(runs)) if runs else 0.0,
            max_action=float(np.abs(moves).max()) if moves.size else 0.0,
            saturated=saturated,
            motion_m=episode.motion_m,
            dropped={reason.value: count for reason, count in (report.dropped if report else {}).items()},
        )


def judge_messages(maker: RecordMaker, report: CheckReport) -> None:
    """Report the messages that gave no record."""
    for reason, count in maker.skipped.items():
        report.warn('unusable', f'{count} messages cannot be used: {reason}.')


def judge_order(book: EpisodeBook, limits: CheckLimits, report: CheckReport) -> None:
    """Find steps out of order or far from their period, and inputs that were old when they were named."""
    if book.session > 1:
        report.warn('restarted', f'The bag holds {book.session} sessions: episode numbers come again.')
    periods, ages, images = [], [], []
    for episode in book.episodes.values():
        stamps = np.array([step.stamp_ns for step in episode.steps])
        indices = [step.index for step in episode.steps]
        if indices != sorted(indices):
            report.fault(
                'clock-back', f'The steps of episode {episode.name} are out of order: a clock was set back.'
            )
        lost = (max(indices) + 1 - len(set(indices))) if indices else 0
        if lost:
            report.warn(
                'lost-steps', f'{lost} of {max(indices) + 1} steps of episode {episode.name} are missing.'
            )
        periods += list(np.diff(stamps) / 1e9)
        ages += episode.joint_ages
        images += episode.image_ages
    if periods:
        median = float(np.median(periods))
        worst = float(np.abs(np.array(periods) - median).max())
        if worst > limits.step_jitter_s:
            report.warn('jitter', f'A step came {worst:.3f} s off the period of {median:.3f} s.')
    for what, found in (('joint message', ages), ('image', images)):
        old = [age for age in found if age > limits.age_s]
        if old:
            level = report.fault if len(old) > 0.1 * len(found) else report.warn
            level(
                'stale',
                f'{len(old)} of {len(found)} steps name a {what} older than {limits.age_s} s, up to {max(old):.2f} s.',
            )


def judge_episodes(report: CheckReport, limits: CheckLimits) -> None:
    """Find episodes that teach nothing, or the wrong thing."""
    rows = report.episodes
    if not any(row.steps for row in rows):
        if 'missing-topic' not in report.codes:
            report.fault('no-episode', 'There is no episode in the bag; record while a session runs.')
        return
    for row in rows:
        _judge_episode(row, report, limits)
    steps = sum(row.transitions for row in rows)
    saturated = sum(row.saturated * row.transitions for row in rows) / steps if steps else 0.0
    if saturated > limits.saturated:
        report.warn('saturated', f'{saturated:.0%} of the action components are at their limit.')
    if not steps:
        report.fault('no-transition', 'No step gives a transition; the reasons are in the table of episodes.')
    _judge_interventions(rows, report, limits)


def _judge_episode(row: EpisodeRow, report: CheckReport, limits: CheckLimits) -> None:
    acted = row.steps > 1 and (row.transitions or row.max_action > 0.0)
    if acted and row.motion_m > limits.min_motion_m and row.max_action < limits.zero_action:
        report.fault(
            'zero-actions',
            f'In episode {row.name} the TCP moved {row.motion_m * 100:.1f} cm while every action is zero: the '
            f'actions were recorded without kinematics; record it again.',
        )
    scale = max(ActionSpec().translation_scale_m)
    if row.max_action > scale * 1.001:
        report.warn(
            'out-of-range',
            f'Episode {row.name} has an action of {row.max_action:.4f} m, more than a network can say ({scale} m).',
        )
    if row.outcome == 'none':
        report.warn('no-end', f'Nothing says how episode {row.name} ended.')
    dropped = sum(row.dropped.values())
    steps = max(row.steps, dropped + row.transitions)
    if row.steps and dropped > limits.lost * steps:
        reasons = ', '.join(f'{count} x {reason}' for reason, count in row.dropped.items())
        report.warn('dropped', f'{dropped} of {steps} steps of episode {row.name} give nothing: {reasons}.')


def _judge_interventions(rows: list[EpisodeRow], report: CheckReport, limits: CheckLimits) -> None:
    helped = [row for row in rows if row.interventions]
    runs = sum(row.interventions for row in helped)
    if not runs:
        return
    mean = sum(row.run * row.interventions for row in helped) / runs
    if mean > limits.max_run:
        share = sum(row.teleop * row.transitions for row in helped) / max(
            sum(row.transitions for row in helped), 1
        )
        report.warn(
            'long-interventions',
            f'Interventions last {mean:.0f} steps on average ({runs} of them, {share:.0%} of the steps), more than '
            f'{limits.max_run:.0f}: long ones make the critic too optimistic; let the policy try 20 to 30 steps, help '
            f'briefly, and let go.',
        )

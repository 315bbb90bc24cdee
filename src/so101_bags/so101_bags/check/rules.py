# SPDX-License-Identifier: Apache-2.0
"""By which signs a recorded session is unfit to learn from, or suspicious."""

import numpy as np

from so101_bags.check.episodes import EpisodeBook
from so101_bags.check.report import CheckLimits, CheckReport, EpisodeRow
from so101_bags.records import RecordMaker
from so101_contract.action import ActionSpec


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

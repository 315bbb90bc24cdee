# SPDX-License-Identifier: Apache-2.0
"""Where to start an iteration that must not get stuck: solutions in closed form, or samples."""

from collections.abc import Iterator
import math

import numpy as np

from so101_kinematics.closed_form import ArmGeometry, Joints
from so101_kinematics.closest import closest_solution
from so101_kinematics.descent import Mask, PITCH_LEVER_M, Target
from so101_kinematics.fk import Array, ForwardKinematics, NUM_ARM_JOINTS, PITCH_ROW

NUM_ROLLS = 9
"""Rolls that are tried where the seed's own does not reach the target."""

NUM_SAMPLES = 512
"""Joint vectors that are looked at before the best of them become starts."""

SPREAD_ROOT = 1.1347241384015194
"""Root of x^6 = x + 1: its powers spread samples over five dimensions more evenly than chance does."""


def closed_form_starts(geometry: ArmGeometry, target: Target, seed: Array, free: Mask) -> Iterator[Array]:
    """Yield solutions in closed form: the one closest to the seed, then one for each of some other rolls.

    Args:
        geometry: the arm.
        target: what to reach.
        seed: (5,) joint positions to stay close to [rad].
        free: (5,) joints that may move; all but wrist_roll must.
    """
    here: Joints = tuple(seed.tolist())
    position: tuple[float, float, float] = tuple(target.position.tolist())
    for roll in _rolls(geometry, here[4], bool(free[4])):
        if target.pitch is None:
            found = closest_solution(geometry, position, here, roll)
        else:
            solutions = geometry.solve(position, target.pitch, roll)
            found = min(solutions, key=lambda q: math.dist(q, here), default=None)
        if found is not None:
            yield np.array(found)


def _rolls(geometry: ArmGeometry, own: float, free: bool) -> Iterator[float]:
    """Yield the seed's own roll, then others, the nearest first."""
    yield own
    if free:
        low, high = geometry.limits[4]
        others = [low + (high - low) * i / (NUM_ROLLS - 1) for i in range(NUM_ROLLS)]
        yield from sorted(others, key=lambda roll: abs(roll - own))


def sampled_starts(
    fk: ForwardKinematics, geometry: ArmGeometry, target: Target, seed: Array, *, free: Mask, count: int
) -> list[Array]:
    """Return the joint vectors, of an even spread over the free joints, whose TCP is closest to the target.

    The spread is always the same, so the results repeat.
    """
    powers = SPREAD_ROOT ** -np.arange(1.0, NUM_ARM_JOINTS + 1.0)
    spread = (0.5 + np.outer(np.arange(NUM_SAMPLES), powers)) % 1.0
    samples = np.where(free, fk.lower + spread * (fk.upper - fk.lower), seed)
    x, y, _ = target.position.tolist()
    if free[0]:
        for i, sample in enumerate(samples):
            planes = geometry.pan_solutions(x, y, float(sample[4]))
            if planes:
                sample[0] = planes[i % len(planes)][0]
    elif free[4]:  # only roll moves the TCP sideways
        for i, roll in enumerate(geometry.roll_solutions(x, y, float(seed[0]))):
            samples[i::2, 4] = roll
    error = np.linalg.norm(fk.positions(samples) - target.position, axis=1)
    if target.pitch is not None:
        turn = samples @ PITCH_ROW - target.pitch
        error += PITCH_LEVER_M * np.abs(turn - math.tau * np.round(turn / math.tau))
    return [samples[i] for i in np.argsort(error, kind='stable')[:count]]

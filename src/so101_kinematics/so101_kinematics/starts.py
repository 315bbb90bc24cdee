# SPDX-License-Identifier: Apache-2.0
"""Where to start an iteration that must not get stuck: solutions in closed form, the closest one first, or samples.

With the roll kept, the solutions that reach a position are a few curves, one for each way to face the target and to
bend the elbow, along which the pitch changes. The search for the one closest to where the arm is begins where the
curves are crossed by keeping one more joint where it is, which leaves two links to solve for, and follows the curve
downhill from the best of these crossings. It computes with plain floats, since the whole search takes less time than
a handful of calls of numpy.
"""

from collections.abc import Iterator
import math

import numpy as np

from so101_kinematics.closed_form import ArmGeometry, Joints, Planar, turned, two_links
from so101_kinematics.descent import Mask, PITCH_LEVER_M, Target
from so101_kinematics.fk import Array, ForwardKinematics, NUM_ARM_JOINTS, PITCH_ROW

NUM_ROLLS = 9
"""Rolls that are tried where the seed's own does not reach the target."""

NUM_SAMPLES = 512
"""Joint vectors that are looked at before the best of them become starts."""

SPREAD_ROOT = 1.1347241384015194
"""Root of x^6 = x + 1: its powers spread samples over five dimensions more evenly than chance does."""

SETTLED_PART = 0.01
"""A change of pitch smaller than this part of the distance to the arm's joints is not worth a step."""

MAX_ROUNDS = 6
"""Steps along the curve; two or three are the rule."""

STRETCHED_M2 = 1e-6
"""Area between upper arm and forearm below which the elbow counts as stretched [m^2]."""


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


def closest_solution(
    geometry: ArmGeometry, position: tuple[float, float, float], here: Joints, roll: float
) -> Joints | None:
    """Return the joint vector [rad] closest to `here` that reaches a position with a given roll.

    Args:
        geometry: the arm.
        position: TCP position in the base frame [m].
        here: joint positions to stay close to [rad].
        roll: wrist_roll of the solution [rad], within its limits.

    Returns:
        The solution, within limits, or None where there is none.
    """
    planes = geometry.pan_solutions(position[0], position[1], roll)
    best = _closest_crossing(geometry, planes, position[2], ((*here[:4], roll),), here)
    if best is None:
        # A curve of solutions ends with a joint at its limit, or is closed and passes the straight elbow.
        best = _closest_crossing(geometry, planes, position[2], _ends(geometry, roll), here)
    if best is None:
        return None
    return _downhill(geometry, (dict(planes)[best[0]], position[2]), best, here)


def _ends(geometry: ArmGeometry, roll: float) -> tuple[Joints, ...]:
    """Return joints of which every curve of solutions has lift, elbow or wrist_flex in common with one."""
    lows, highs = zip(*geometry.limits, strict=True)
    straight = geometry.straight_elbow
    return (0.0, *lows[1:4], roll), (0.0, *highs[1:4], roll), (0.0, lows[1], straight, lows[3], roll)


def _closest_crossing(
    geometry: ArmGeometry,
    planes: list[tuple[float, float]],
    up: float,
    kept: tuple[Joints, ...],
    here: Joints,
) -> Joints | None:
    """Return the solution closest to `here` that has a joint in common with one of `kept`."""
    best: Joints | None = None
    best_distance = math.inf
    for pan, forward in planes:
        if abs(pan - here[0]) >= best_distance:
            continue
        for joints in kept:
            for q in _crossings(geometry, pan, (forward, up), joints):
                distance = math.dist(q, here)
                if distance < best_distance:
                    best, best_distance = q, distance
    return best


def _crossings(geometry: ArmGeometry, pan: float, place: Planar, kept: Joints) -> Iterator[Joints]:
    """Yield the solutions in the plane of a pan that have the roll and one other joint of some kept ones."""
    _, lift, elbow, wrist, roll = kept
    upper, fore = geometry.planar_links
    end = geometry.planar_hand(roll)
    x, z = place[0] - geometry.shoulder[0], place[1] - geometry.shoulder[2]
    within = geometry.within
    for a, b in two_links(upper, _add(fore, turned(end, wrist)), x, z):
        if (first := within(1, a)) is not None and (second := within(2, b)) is not None:
            yield pan, first, second, wrist, roll
    for a, b in two_links(_add(upper, turned(fore, elbow)), turned(end, elbow), x, z):
        if (first := within(1, a)) is not None and (second := within(3, b)) is not None:
            yield pan, first, elbow, second, roll
    shift = turned(upper, lift)
    for a, b in two_links(fore, end, x - shift[0], z - shift[1]):
        if (first := within(2, a - lift)) is not None and (second := within(3, b)) is not None:
            yield pan, lift, first, second, roll


def _downhill(geometry: ArmGeometry, place: Planar, q: Joints, here: Joints) -> Joints:
    """Follow the curve of solutions from `q` to where it is closest to `here`, or to a joint limit."""
    for _ in range(MAX_ROUNDS):
        closer = _closer(geometry, place, q, here)
        if closer is None:
            break
        q = closer
    return q


def _closer(geometry: ArmGeometry, place: Planar, q: Joints, here: Joints) -> Joints | None:
    """Return a solution along the curve that is closer to `here`, or None where that is not worth it."""
    along = _tangent(geometry, q)
    if along is None:
        return None
    gain = sum((to - at) * part for to, at, part in zip(here[1:4], q[1:4], along, strict=True))
    step = gain / sum(part * part for part in along)
    pitch, distance = q[1] + q[2] + q[3], math.dist(q, here)
    while abs(step) > SETTLED_PART * distance:
        found = geometry.solve_in_plane(q[0], *place, pitch + step, q[4])
        # of the two ways to bend the elbow, the one that has been followed
        other = min(found, key=lambda solution: abs(solution[2] - q[2]), default=None)
        if other is not None and math.dist(other, here) < distance:
            return other
        step *= 0.5
    return None


def _tangent(geometry: ArmGeometry, q: Joints) -> tuple[float, float, float] | None:
    """Return how lift, elbow and wrist_flex change per radian of pitch along the curve; None at its end."""
    _, lift, elbow, wrist, roll = q
    upper, fore = geometry.planar_links
    upper, fore = turned(upper, lift), turned(fore, lift + elbow)
    end = turned(geometry.planar_hand(roll), lift + elbow + wrist)
    area = _cross(upper, fore)
    if abs(area) < STRETCHED_M2:
        return None
    # The TCP rests where the turns of the three links, a upper + b fore + 1 end, cancel.
    a, b = -_cross(end, fore) / area, -_cross(upper, end) / area
    return a, b - a, 1.0 - b


def _add(a: Planar, b: Planar) -> Planar:
    return a[0] + b[0], a[1] + b[1]


def _cross(a: Planar, b: Planar) -> float:
    return a[0] * b[1] - a[1] * b[0]

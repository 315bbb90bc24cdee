# SPDX-License-Identifier: Apache-2.0
"""Of all joint vectors that reach a position in closed form, the one closest to where the arm is.

With the roll kept, the solutions are a few curves, one for each way to face the target and to bend the elbow, along
which the pitch changes. The search begins where the curves are crossed by keeping one more joint where it is, which
leaves two links to solve for, and follows the curve downhill from the best of these crossings.

Plain floats, since the whole search takes less time than a handful of calls of numpy.
"""

from collections.abc import Iterator
import math

from so101_kinematics.closed_form import ArmGeometry, Joints, Planar, turned, two_links

SETTLED_PART = 0.01
"""A change of pitch smaller than this part of the distance to the arm's joints is not worth a step."""

MAX_ROUNDS = 6
"""Steps along the curve; two or three are the rule."""

PITCHES_RAD = tuple(
    math.radians(sign * degrees) for degrees in range(0, 181, 10) for sign in ((1, -1) if 0 < degrees < 180 else (1,))
)
"""Changes of pitch that are tried where keeping a joint does not reach the target, smallest first."""

STRETCHED_M2 = 1e-6
"""Area between upper arm and forearm below which the elbow counts as stretched [m^2]."""

SQRT_3 = math.sqrt(3.0)


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
    best: Joints | None = None
    best_distance = math.inf
    for pan, forward in planes:
        if abs(pan - here[0]) >= best_distance:
            continue
        for q in _crossings(geometry, pan, (forward, position[2]), here, roll):
            distance = math.dist(q, here)
            if distance < best_distance:
                best, best_distance = q, distance
    if best is None:
        best = _on_a_grid(geometry, planes, position[2], here, roll)
    if best is None:
        return None
    forward = dict(planes)[best[0]]
    return _downhill(geometry, (forward, position[2]), best, here)


def _crossings(
    geometry: ArmGeometry, pan: float, place: Planar, here: Joints, roll: float
) -> Iterator[Joints]:
    """Yield the solutions in the plane of a pan that keep lift, elbow or wrist_flex where it is."""
    _, lift, elbow, wrist, _ = here
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


def _on_a_grid(
    geometry: ArmGeometry, planes: list[tuple[float, float]], up: float, here: Joints, roll: float
) -> Joints | None:
    """Return the closest solution over a grid of pitches, where keeping one more joint leads to none."""
    best: Joints | None = None
    best_distance = math.inf
    pitch = here[1] + here[2] + here[3]
    for offset in PITCHES_RAD if planes else ():
        if abs(offset) > SQRT_3 * best_distance:  # three joints make the pitch: they must move that much at least
            break
        for pan, forward in planes:
            for q in geometry.solve_in_plane(pan, forward, up, pitch + offset, roll):
                distance = math.dist(q, here)
                if distance < best_distance:
                    best, best_distance = q, distance
    return best


def _downhill(geometry: ArmGeometry, place: Planar, q: Joints, here: Joints) -> Joints:
    """Follow the curve of solutions from `q` to where it is closest to `here`, or to a joint limit."""
    forward, up = place
    distance = math.dist(q, here)
    for _ in range(MAX_ROUNDS):
        along = _tangent(geometry, q)
        if along is None:
            break
        gain = sum((wanted - is_) * part for wanted, is_, part in zip(here[1:4], q[1:4], along, strict=True))
        step = gain / sum(part * part for part in along)
        pitch = q[1] + q[2] + q[3]
        while abs(step) > SETTLED_PART * distance:
            found = geometry.solve_in_plane(q[0], forward, up, pitch + step, q[4])
            # of the two ways to bend the elbow, the one that has been followed
            candidate = min(found, key=lambda other: abs(other[2] - q[2]), default=None)
            if candidate is not None and math.dist(candidate, here) < distance:
                break
            step *= 0.5
        else:
            break
        q, distance = candidate, math.dist(candidate, here)
    return q


def _tangent(geometry: ArmGeometry, q: Joints) -> tuple[float, float, float] | None:
    """Return how lift, elbow and wrist_flex change per radian of pitch along the curve; None where it ends."""
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

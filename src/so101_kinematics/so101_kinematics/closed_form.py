# SPDX-License-Identifier: Apache-2.0
"""Inverse kinematics in closed form: TCP position, approach pitch and roll in, every joint vector out.

The pan axis is vertical, the axes of lift, elbow and wrist_flex are parallel and horizontal, and the roll
axis is perpendicular to them. So for a given roll the TCP lies in a vertical plane at a fixed lateral
distance from the pan axis, which gives pan; for a given pitch the wrist's place in that plane is known, which
leaves a planar arm of two links. The result is exact for every TCP preset and every roll. There are up to
four solutions: pan facing the target or turned away from it, elbow up or down.

Angles in the plane are measured from "forward" towards "down", as pitch is.
"""

from dataclasses import dataclass
from functools import cached_property
import math
from typing import Self

import numpy as np

from so101_kinematics.errors import KinematicsError
from so101_kinematics.fk import Array, ForwardKinematics, NUM_ARM_JOINTS

LIMIT_SLACK_RAD = 1e-9
"""Solutions this far beyond a limit count as on it: a target made with a joint at its limit is rounded."""

STRUCTURE_TOLERANCE_M = 1e-5
"""How far the closed form may be from the model's forward kinematics before the model is refused."""

Joints = tuple[float, float, float, float, float]

Planar = tuple[float, float]
"""A vector in the arm's plane: forward, up [m]."""


@dataclass(frozen=True)
class ArmGeometry:
    """The lengths of the arm; vectors are (forward, left, up) [m] with all joints at zero.

    Attributes:
        pan_x: where the pan axis stands in the base frame, forward [m].
        pan_y: the same, to the left [m].
        shoulder: from the foot of the pan axis to the lift axis.
        upper_arm: from the lift axis to the elbow axis.
        forearm: from the elbow axis to the wrist_flex axis.
        hand: from the wrist_flex axis to a point on the roll axis.
        tool: from that point to the TCP.
        limits: lower and upper limit of each arm joint [rad].
    """

    pan_x: float
    pan_y: float
    shoulder: tuple[float, ...]
    upper_arm: tuple[float, ...]
    forearm: tuple[float, ...]
    hand: tuple[float, ...]
    tool: tuple[float, ...]
    limits: tuple[tuple[float, float], ...]

    @classmethod
    def from_fk(cls, fk: ForwardKinematics) -> Self:
        """Measure the arm, and make sure that it is built as the closed form needs it.

        Raises:
            KinematicsError: the axes of the model are not parallel or perpendicular as described above.
        """
        pan, lift, elbow, wrist, roll = fk.anchors_at_zero
        tcp = fk.pose(np.zeros(NUM_ARM_JOINTS)).position
        foot = np.array([pan[0], pan[1], 0.0])
        geometry = cls(
            pan_x=float(pan[0]),
            pan_y=float(pan[1]),
            shoulder=_tuple(lift - foot),
            upper_arm=_tuple(elbow - lift),
            forearm=_tuple(wrist - elbow),
            hand=_tuple(roll - wrist),
            tool=_tuple(tcp - roll),
            limits=tuple(zip(fk.lower.tolist(), fk.upper.tolist(), strict=True)),
        )
        geometry._check(fk)
        return geometry

    def position(self, q: Joints) -> tuple[float, float, float]:
        """Return the TCP position [m] of five joint positions [rad]: the formula that is inverted here."""
        pan, lift, elbow, wrist, roll = q
        upper, fore = self.planar_links
        forward, up, angle = self.shoulder[0], self.shoulder[2], 0.0
        for turn, link in ((lift, upper), (elbow, fore), (wrist, self.planar_hand(roll))):
            angle += turn
            end = turned(link, angle)
            forward, up = forward + end[0], up + end[1]
        left = self._lateral(roll)
        x = self.pan_x + math.cos(pan) * forward + math.sin(pan) * left
        y = self.pan_y - math.sin(pan) * forward + math.cos(pan) * left
        return x, y, up

    def pan_solutions(self, x: float, y: float, roll: float) -> list[tuple[float, float]]:
        """Return the pan angles that bring the arm's plane onto a target, within limits.

        Args:
            x: target in the base frame [m].
            y: target in the base frame [m].
            roll: wrist_roll [rad]; it moves a TCP that is not on the roll axis out of the plane.

        Returns:
            (pan [rad], distance in the plane from the pan axis, negative behind it [m]); the arm faces the
            target in the first.
        """
        left = self._lateral(roll)
        dx, dy = x - self.pan_x, y - self.pan_y
        squared = dx * dx + dy * dy - left * left
        if squared < 0.0:  # closer to the pan axis than the plane ever comes
            return []
        reach = math.sqrt(squared)
        bearing = math.atan2(dy, dx)
        found = []
        for forward in (reach, -reach):
            pan = self.within(0, math.atan2(left, forward) - bearing)
            if pan is not None:
                found.append((pan, forward))
        return found

    def roll_solutions(self, x: float, y: float, pan: float) -> list[float]:
        """Return the rolls [rad] that bring the TCP sideways onto a target (x, y) [m] at a given pan."""
        _, left, up = self.tool
        wanted = math.sin(pan) * (x - self.pan_x) + math.cos(pan) * (y - self.pan_y)
        wanted -= self._roll_axis_left
        lever = math.hypot(left, up)
        if lever == 0.0 or abs(wanted) > lever:  # also where the TCP is on the roll axis
            return []
        middle, spread = math.atan2(up, left), math.acos(wanted / lever)
        rolls = (self.within(4, middle + spread), self.within(4, middle - spread))
        return [roll for roll in rolls if roll is not None]

    def solve(self, position: tuple[float, float, float], pitch: float, roll: float) -> list[Joints]:
        """Return every joint vector [rad] within limits that reaches a target.

        Args:
            position: TCP position in the base frame [m].
            pitch: approach pitch below the horizontal [rad]; whole turns do not matter.
            roll: wrist_roll [rad].
        """
        found: list[Joints] = []
        within = self.within(4, roll)
        if within is None:
            return found
        roll = within
        for pan, forward in self.pan_solutions(position[0], position[1], roll):
            found += self.solve_in_plane(pan, forward, position[2], pitch, roll)
        return found

    def solve_in_plane(
        self, pan: float, forward: float, up: float, pitch: float, roll: float
    ) -> list[Joints]:
        """Return up to two solutions (elbow down, elbow up) for a target in the plane of a given pan.

        Args:
            pan: shoulder_pan [rad], copied into the solutions.
            forward: target's distance from the pan axis in that plane [m].
            up: target's height [m].
            pitch: approach pitch below the horizontal [rad].
            roll: wrist_roll [rad], copied into the solutions.
        """
        upper, fore = self.planar_links
        end = turned(self.planar_hand(roll), pitch)
        found: list[Joints] = []
        for first, second in two_links(
            upper, fore, forward - self.shoulder[0] - end[0], up - self.shoulder[2] - end[1]
        ):
            elbow = self.within(2, second)
            if elbow is None:
                continue
            lift = self.within(1, first)
            if lift is None:
                continue
            wrist = self.within(3, pitch - lift - elbow)
            if wrist is not None:
                found.append((pan, lift, elbow, wrist, roll))
        return found

    @cached_property
    def planar_links(self) -> tuple[Planar, Planar]:
        """Upper arm and forearm in the arm's plane, with all joints at zero."""
        return (self.upper_arm[0], self.upper_arm[2]), (self.forearm[0], self.forearm[2])

    @cached_property
    def straight_elbow(self) -> float:
        """The elbow_flex that puts upper arm and forearm in one line [rad]."""
        upper, fore = self.planar_links
        return math.atan2(-upper[1], upper[0]) - math.atan2(-fore[1], fore[0])

    def planar_hand(self, roll: float) -> Planar:
        """Return the way from the wrist_flex axis to the TCP in the arm's plane at zero pitch."""
        _, left, up = self.tool
        return self.hand[0] + self.tool[0], self.hand[2] + math.cos(roll) * up - math.sin(roll) * left

    def _lateral(self, roll: float) -> float:
        """Return how far left of the pan axis the TCP is, which only roll changes [m]."""
        _, left, up = self.tool
        return self._roll_axis_left + math.cos(roll) * left + math.sin(roll) * up

    @cached_property
    def _roll_axis_left(self) -> float:
        """How far left of the pan axis the roll axis is [m]."""
        return self.shoulder[1] + self.upper_arm[1] + self.forearm[1] + self.hand[1]

    def within(self, joint: int, angle: float) -> float | None:
        """Return the angle brought into (-pi, pi] and onto the joint's range, or None if it is outside."""
        wrapped = math.remainder(angle, math.tau)
        low, high = self.limits[joint]
        if not low - LIMIT_SLACK_RAD <= wrapped <= high + LIMIT_SLACK_RAD:
            return None
        return low if wrapped < low else high if wrapped > high else wrapped

    def _check(self, fk: ForwardKinematics) -> None:
        """Compare with the model's own forward kinematics in a pose where every joint matters."""
        for q in ((0.3, -0.5, 0.7, 0.9, -1.1), (-1.2, 0.8, -0.6, -0.4, 2.0)):
            error = float(np.linalg.norm(np.array(self.position(q)) - fk.pose(q).position))
            if error > STRUCTURE_TOLERANCE_M:
                raise KinematicsError(
                    f'expected an arm with a vertical pan axis, three parallel axes and a roll axis across, '
                    f'got a model for which that is {error * 1e3:.2f} mm wrong; use a model of the SO-101'
                )


def _tuple(vector: Array) -> tuple[float, ...]:
    return tuple(float(v) for v in vector)


def turned(vector: Planar, angle: float) -> Planar:
    """Return a vector turned down by an angle [rad]."""
    cos, sin = math.cos(angle), math.sin(angle)
    return cos * vector[0] + sin * vector[1], cos * vector[1] - sin * vector[0]


def two_links(first: Planar, second: Planar, x: float, z: float) -> tuple[Planar, ...]:
    """Return the two ways to bring the end of two links to a point.

    Args:
        first: first link at zero turn, from the origin [m].
        second: second link at zero turn, from the end of the first [m].
        x: where the end shall be, forward [m].
        z: where the end shall be, up [m].

    Returns:
        (turn of the first link, turn of the second relative to the first) [rad]; nothing where the links are
        too short or too long.
    """
    squared_1 = first[0] * first[0] + first[1] * first[1]
    squared_2 = second[0] * second[0] + second[1] * second[1]
    length_1, length_2 = math.sqrt(squared_1), math.sqrt(squared_2)
    cos_bend = (x * x + z * z - squared_1 - squared_2) / (2.0 * length_1 * length_2)
    if not -1.0 <= cos_bend <= 1.0:
        return ()
    bend = math.acos(cos_bend)
    lean = math.atan2(length_2 * math.sin(bend), length_1 + length_2 * cos_bend)
    rest = math.atan2(-first[1], first[0])
    aim = math.atan2(-z, x) - rest
    straight = rest - math.atan2(-second[1], second[0])
    return (aim - lean, straight + bend), (aim + lean, straight - bend)

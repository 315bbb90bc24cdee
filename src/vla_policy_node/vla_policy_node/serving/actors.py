# SPDX-License-Identifier: Apache-2.0
"""Who acts behind the server: from what a client shows to a chunk of joint targets.

Our policies, and the expert, say displacements of the TCP. A chunk is the way of a setpoint: it begins where the chunk
before has it by now, or at the measured TCP, and each displacement leads it on; inverse kinematics makes joints of it.
A stored policy says one step, since it has not seen what comes after; the expert plans on a point that does as it is
told.
"""

import copy
from dataclasses import replace
import math
from typing import Protocol

import numpy as np

from drqv2_policy_node.policy import Policy
from so101_contract.action import EeDeltaValue
from so101_contract.errors import ContractError
from so101_contract.joints import gripper_opening_to_rad
from so101_contract.messages import ImageSample
from so101_contract.observation import Observation
from so101_contract.observation_spec import CameraSpec
from so101_contract.task_report import GroundTruth
from so101_driver.calibration.lerobot_units import JointScale
from so101_kinematics.fk import ForwardKinematics, NUM_ARM_JOINTS, state_function
from so101_kinematics.ik import IkOptions, InverseKinematics
from so101_kinematics.profiles import KEEP_GRIPPER
from so101_sim.human.expert import Expert
from vla_policy_node.protocol import FloatArray, Offer, Pictures, Seen
from vla_policy_node.wire import Encoding

STROKES_PER_STEP = 0.2
"""How far the point's gripper opens or closes in a step, in full strokes."""

PLAN_STEPS = 6

LEAD_M = 0.02
"""How far ahead of the measured TCP a chunk may begin [m]: an arm at full speed lags by this, and a client whose chunks
come late has not done yet what the chunk before said."""


class Actor(Protocol):
    """Decides behind the server."""

    def offer(self, encoding: Encoding, camera: str) -> Offer:
        """Return what it wants to see, and says."""

    def targets(self, seen: Seen, now_s: float) -> FloatArray:
        """Return a chunk (n, 6) in the client's units.

        Raises:
            ContractError: it cannot act on this.
        """

    def reset(self) -> None:
        """Begin another episode."""


class Watch(Protocol):
    """Follows the ground truth: `truth_node.ExpertWatch`."""

    def now(self) -> tuple[Expert, GroundTruth]:
        """Return the expert as it is now, a copy, and what it sees."""


class SetpointWay:
    """Makes joint targets of displacements: where a chunk begins, and where it leads."""

    def __init__(self, tcp: str, *, scale: JointScale, step_s: float, rate_hz: float, horizon: int) -> None:
        """Prepare.

        Args:
            tcp: preset that the displacements move.
            scale: units of the targets.
            step_s: length of a displacement [s].
            rate_hz: entries of a chunk in a second [Hz].
            horizon: entries of a chunk.
        """
        self.scale, self.step_s, self.rate_hz, self.horizon = scale, step_s, rate_hz, horizon
        self._ik = InverseKinematics(ForwardKinematics(tcp), IkOptions(restarts=0))
        self.start_over()

    def start_over(self) -> None:
        """Begin the next chunk at the measured TCP, with the posture that is measured then."""
        self._posture: FloatArray | None = None
        self._way: FloatArray | None = None  # setpoints at the ends of the steps of the last chunk (n, 3) [m]
        self._began_s = -math.inf

    @property
    def entries_per_step(self) -> int:
        """Entries of a chunk in a step."""
        return max(1, round(self.rate_hz * self.step_s))

    def chunk(self, said: FloatArray, moves: list[EeDeltaValue], now_s: float) -> FloatArray:
        """Return targets (n, 6) in the client's units.

        Args:
            said: joints (6,) in the client's units, as shown.
            moves: displacement and opening of each step from now on.
            now_s: the time, on any one clock [s].
        """
        measured = self.scale.to_rad(said[None])[0]
        if now_s - self._began_s > self.horizon / self.rate_hz:
            self.start_over()
        if self._posture is None:
            self._posture = measured
        points = [self._begin(measured, now_s)]
        for move in moves:
            points.append(points[-1] + move.translation)
        self._way, self._began_s = np.array(points), now_s
        joints = self._solve(measured)
        ends = self.step_s * np.arange(len(points))
        times = np.arange(self.horizon) / self.rate_hz
        columns = [np.interp(times, ends, joints[:, k]) for k in range(NUM_ARM_JOINTS)]
        step = np.minimum((times / self.step_s).astype(int), len(moves) - 1)
        openings = np.array([move.opening for move in moves])[step]
        return self.scale.from_rad(np.column_stack([*columns, gripper_opening_to_rad(openings)]))

    def _begin(self, measured: FloatArray, now_s: float) -> FloatArray:
        """Return where the setpoint is now (3,) [m], not further ahead of the arm than it lags."""
        here = self._ik.fk.pose(measured).position
        if self._way is None:
            return here
        place = (now_s - self._began_s) / self.step_s
        ends = np.arange(len(self._way))
        lead = np.array([np.interp(place, ends, self._way[:, axis]) for axis in range(3)]) - here
        distance = float(np.linalg.norm(lead))
        return here + lead * min(1.0, LEAD_M / max(distance, 1e-9))

    def _solve(self, measured: FloatArray) -> FloatArray:
        """Return the joints (n, 5) [rad] at the ends of the steps."""
        assert self._way is not None
        joints, seed = [], measured
        for point in self._way:
            found = self._ik.solve(point, seed, posture=self._posture, preference=KEEP_GRIPPER)
            seed = found.q
            joints.append(seed[:NUM_ARM_JOINTS])
        return np.array(joints)


class PolicyActor:
    """A stored policy."""

    def __init__(self, policy: Policy, scale: JointScale, *, rate_hz: float, horizon: int) -> None:
        self._policy, self._spec = policy, policy.manifest.observation
        step_s = 1.0 / policy.manifest.control_rate_hz
        self._way = SetpointWay(self._spec.tcp, scale=scale, step_s=step_s, rate_hz=rate_hz, horizon=horizon)
        self._state = state_function(self._spec)
        profile = policy.manifest.ik_profile
        if len(self._spec.cameras) > 1 or profile != 'setpoint':
            raise ContractError(
                f'expected a policy with one camera and the profile setpoint, got {list(self._spec.camera_names)} and '
                f'{profile}; serve another one'
            )

    def offer(self, encoding: Encoding, camera: str) -> Offer:
        """Ask for the stack of frames; of the joints also for the entry before each, which tells velocities."""
        per_step = self._way.entries_per_step
        frames = [-per_step * back for back in reversed(range(self._spec.frame_stack))]
        state = tuple(time for frame in frames for time in (frame - 1, frame))
        cameras = (camera,) if self._spec.cameras else ()
        return Offer(encoding, cameras, self._way.horizon, tuple(frames), state)

    def targets(self, seen: Seen, now_s: float) -> FloatArray:
        """Return the policy's step."""
        positions = self._way.scale.to_rad(seen.state)
        velocities = np.diff(positions, axis=0)[::2] * self._way.rate_hz
        frames = zip(positions[1::2], velocities, strict=True)
        observation = Observation(
            state=np.stack([self._state(q, v) for q, v in frames]),
            images={
                camera.name: np.stack([_pixels(camera, one) for one in pictures])
                for camera, pictures in zip(self._spec.cameras, seen.video.values(), strict=True)
            },
        )
        action = self._policy.manifest.action.to_wire(self._policy.act(observation))
        return self._way.chunk(seen.state[-1], [action], now_s)

    def reset(self) -> None:
        """Begin at the measured TCP."""
        self._way.start_over()


def _pixels(camera: CameraSpec, picture: Pictures) -> Pictures:
    return ImageSample.from_raw(camera, 0, picture).image


class ExpertActor:
    """The expert of the simulation: it hears the ground truth of the twin, whatever the client shows."""

    def __init__(
        self, watch: Watch, scale: JointScale, *, tcp: str, step_s: float, rate_hz: float, horizon: int
    ) -> None:
        self._watch = watch
        self._way = SetpointWay(tcp, scale=scale, step_s=step_s, rate_hz=rate_hz, horizon=horizon)

    def offer(self, encoding: Encoding, camera: str) -> Offer:
        """Ask for the present alone."""
        return Offer(encoding, (camera,), self._way.horizon)

    def targets(self, seen: Seen, now_s: float) -> FloatArray:
        """Return what it plans."""
        expert, truth = self._watch.now()
        return self._way.chunk(seen.state[-1], plan(expert, truth, PLAN_STEPS), now_s)

    def reset(self) -> None:
        """Begin at the measured TCP."""
        self._way.start_over()


def plan(expert: Expert, truth: GroundTruth, steps: int) -> list[EeDeltaValue]:
    """Return what an expert would do next, if the grip did exactly as it is told and nothing else moved."""
    ahead, moves = copy.deepcopy(expert), []
    for _ in range(steps):
        move = ahead.act(truth)
        moves.append(move)
        x, y, z = (np.array(truth.grip_position) + move.translation).tolist()
        change = min(max(move.opening - truth.opening, -STROKES_PER_STEP), STROKES_PER_STEP)
        truth = replace(truth, grip_position=(x, y, z), opening=truth.opening + change)
    return moves

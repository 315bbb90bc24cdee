# SPDX-License-Identifier: Apache-2.0
"""A simulated arm for tests: the official model with its own stiff servos, or with springs that sag under gravity."""

import mujoco
import numpy as np
import numpy.typing as npt

from so101_contract.joints import JOINT_LIMITS_RAD, JOINT_NAMES
from so101_description.model import arm_index, build_spec

Array = npt.NDArray[np.float64]

SAGGING_STIFFNESS = 15.0
"""Sags by one to two degrees at shoulder and elbow with the arm half stretched [N m/rad]."""

TICK_RAD = 2 * np.pi / 4096


class ServoArm:
    """An arm whose six servos pull towards their goals; time advances by `step` only."""

    def __init__(
        self,
        q: npt.ArrayLike,
        *,
        tcp: str = 'so101',
        stiffness: float | None = SAGGING_STIFFNESS,
        damping: float = 1.0,
        encoder: bool = False,
        period: float = 0.02,
    ) -> None:
        """Put the arm at (6,) joint positions [rad], with these as goals.

        Args:
            q: (6,) joint positions [rad].
            tcp: TCP preset.
            stiffness: of every arm servo [N m/rad]; None keeps the model's own servos.
            damping: of those servos [N m s/rad].
            encoder: readings come in whole encoder ticks.
            period: control period [s].
        """
        spec = build_spec(tcp=tcp, visuals='none', collision=False)
        # the scene of pick-101: noslip also acts on the joints' dry friction
        spec.option.timestep = 0.002
        spec.option.noslip_iterations = 3
        spec.option.impratio = 10.0
        spec.option.cone = mujoco.mjtCone.mjCONE_ELLIPTIC
        self.model = spec.compile()
        self.index = arm_index(self.model)
        if stiffness is not None:
            for actuator in self.index.ctrl[:5]:
                self.model.actuator_gainprm[actuator, 0] = stiffness
                self.model.actuator_biasprm[actuator, 1:3] = -stiffness, -damping
        self.data = mujoco.MjData(self.model)
        self.data.qpos[self.index.qpos] = q
        self.data.ctrl[self.index.ctrl] = q
        mujoco.mj_forward(self.model, self.data)
        self.encoder = encoder
        self.stalled = False
        self._substeps = round(period / self.model.opt.timestep)
        self.period = period
        self.time = 0.0

    @property
    def q(self) -> Array:
        """(6,) joint readings [rad]."""
        q = self.data.qpos[self.index.qpos].copy()
        return np.round(q / TICK_RAD) * TICK_RAD if self.encoder else q

    @property
    def goal(self) -> Array:
        """(6,) what the servos are told [rad]."""
        return self.data.ctrl[self.index.ctrl].copy()

    @property
    def tcp(self) -> Array:
        """(3,) true TCP position [m]."""
        return self.data.site_xpos[self.index.tcp_site].copy()

    def step(self, goal: npt.ArrayLike | None = None, periods: int = 1) -> None:
        """Advance by control periods, with a new goal or the old one."""
        if goal is not None:
            goal = np.asarray(goal)
            for name, value in zip(JOINT_NAMES, goal, strict=True):
                low, high = JOINT_LIMITS_RAD[name]
                assert low <= value <= high, f'{name} commanded to {value}'
            self.data.ctrl[self.index.ctrl] = goal
        for _ in range(periods):
            self.time += self.period
            if not self.stalled:
                mujoco.mj_step(self.model, self.data, self._substeps)
        mujoco.mj_forward(self.model, self.data)

    def settle(self, seconds: float = 3.0) -> None:
        """Wait until the arm hangs still in its springs."""
        self.step(periods=round(seconds / self.period))

    def disturb(self, joint: str, by: float) -> None:
        """Turn a joint by hand [rad], at once."""
        self.data.qpos[self.index.qpos[JOINT_NAMES.index(joint)]] += by
        self.data.qvel[:] = 0.0
        mujoco.mj_forward(self.model, self.data)

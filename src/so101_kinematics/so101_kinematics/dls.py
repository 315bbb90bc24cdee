# SPDX-License-Identifier: Apache-2.0
"""A single step of linear damped least squares, which is all that some controllers take."""

import numpy as np
import numpy.typing as npt

from so101_kinematics.fk import Array, ForwardKinematics, NUM_ARM_JOINTS


def dls_step(
    fk: ForwardKinematics,
    q: Array,
    delta: Array,
    *,
    damping: float = 0.1,
    max_step: float = 0.5,
    gain: float = 1.0,
    free: npt.NDArray[np.bool_] | None = None,
) -> Array:
    """Take a single linear damped-least-squares step, as the training environment of pick-101 does.

    With the damping of 0.1 it realises about three quarters of the displacement: use `InverseKinematics`
    unless that very behaviour is wanted.

    Args:
        fk: the arm.
        q: (5,) joint positions [rad].
        delta: (3,) displacement of the TCP that is asked for [m].
        damping: the lambda of (J'J + lambda^2 I) [m/rad].
        max_step: largest motion of one joint, before the gain [rad].
        gain: part of the step that is taken.
        free: (5,) joints that may move; all of them by default.

    Returns:
        (5,) new joint positions within limits; joints that are not free keep theirs.
    """
    moving = np.ones(NUM_ARM_JOINTS, dtype=bool) if free is None else free
    J = fk.evaluate(q)[1][:, moving]
    dq = J.T @ np.linalg.solve(
        J @ J.T + damping**2 * np.eye(3), delta
    )  # the same as (J'J + lambda^2 I)^-1 J' delta
    result = q.copy()
    step = gain * np.clip(dq, -max_step, max_step)
    result[moving] = np.clip(q[moving] + step, fk.lower[moving], fk.upper[moving])
    return result

# SPDX-License-Identifier: Apache-2.0
"""One inverse-kinematics solver in a process of its own, asked over standard input; see bench_ik.py.

Each solver is given a TCP position and a seed, and answers with five joint positions. It stops as soon as its
own forward kinematics is within the tolerance; where it has come to a stop elsewhere, it begins again from a
random posture within the limits. The peers' settings are those, of a dozen combinations each, that took the
least time on 150 other targets; all of them find every target sooner or later.
"""

from collections.abc import Callable
from importlib.metadata import version
import json
from pathlib import Path
import sys
import time
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
SOURCES = ('so101_interfaces', 'so101_contract', 'so101_description', 'so101_kinematics')
ARM = ('shoulder_pan', 'shoulder_lift', 'elbow_flex', 'wrist_flex', 'wrist_roll')
TCP_LINK = 'gripper_frame_link'
TCP_SITE = 'tcp'
TOLERANCE_M = 5e-4
RESTARTS = 30

Vector = np.ndarray[Any, np.dtype[np.float64]]
Attempt = Callable[[Vector, Vector], tuple[Vector, bool]]
Solve = Callable[[Vector, Vector], Vector]


def restarting(attempt: Attempt, lower: Vector, upper: Vector) -> Solve:
    """Repeat an attempt from random postures until it succeeds."""
    rng = np.random.default_rng(0)

    def solve(target: Vector, seed: Vector) -> Vector:
        q, found = attempt(target, seed)
        for _ in range(RESTARTS):
            if found:
                break
            q, found = attempt(target, rng.uniform(lower, upper))
        return q

    return solve


def make_ours(folder: Path) -> tuple[Solve, str]:
    """so101_kinematics; the same call that the IK service makes."""
    del folder
    sys.path[:0] = [str(ROOT / 'src' / name) for name in SOURCES]
    from so101_kinematics.ik import InverseKinematics

    ik = InverseKinematics()
    return lambda target, seed: ik.solve(target, seed).q, 'this checkout'


def make_mink(folder: Path) -> tuple[Solve, str]:
    """Mink: a quadratic program per step, with the joint limits as constraints."""
    import mink
    import mujoco

    model = mujoco.MjModel.from_xml_path(str(folder / 'arm.xml'))
    configuration = mink.Configuration(model)
    task = mink.FrameTask(TCP_SITE, 'site', position_cost=1.0, orientation_cost=0.0, lm_damping=0.01)
    limits = [mink.ConfigurationLimit(model, gain=1.0)]
    lower, upper = model.jnt_range[:5].T

    def attempt(target: Vector, seed: Vector) -> tuple[Vector, bool]:
        configuration.update(np.append(seed, 0.0))
        task.set_target(mink.SE3.from_translation(target))
        for _ in range(15):
            # With dt = 1 a velocity is a whole step.
            velocity = mink.solve_ik(configuration, [task], 1.0, 'daqp', damping=1e-5, limits=limits)
            configuration.integrate_inplace(velocity, 1.0)
            if np.linalg.norm(task.compute_error(configuration)[:3]) <= TOLERANCE_M:
                return configuration.q[:5].copy(), True
            if np.abs(velocity).max() < 1e-2:
                break
        return configuration.q[:5].copy(), False

    return restarting(attempt, lower, upper), version('mink')


def make_placo(folder: Path) -> tuple[Solve, str]:
    """PlaCo: a quadratic program per step in C++, with the joint limits as constraints."""
    import placo

    robot = placo.RobotWrapper(str(folder / 'arm.urdf'), placo.Flags.ignore_collisions)
    solver = placo.KinematicsSolver(robot)
    solver.mask_fbase(True)
    solver.mask_dof('gripper')
    solver.enable_joint_limits(True)
    solver.enable_velocity_limits(False)
    task = solver.add_position_task(TCP_LINK, np.zeros(3))
    task.configure('tcp', 'soft', 1.0)
    solver.add_regularization_task(1e-4)
    lower, upper = np.array([robot.get_joint_limits(name) for name in ARM]).T

    def attempt(target: Vector, seed: Vector) -> tuple[Vector, bool]:
        for name, value in zip(ARM, seed.tolist(), strict=True):
            robot.set_joint(name, value)
        robot.update_kinematics()
        task.target_world = target
        found = False
        for _ in range(20):
            step = solver.solve(True)
            robot.update_kinematics()
            found = task.error_norm() <= TOLERANCE_M
            if found or np.abs(step).max() < 1e-3:
                break
        return np.array([robot.get_joint(name) for name in ARM]), found

    return restarting(attempt, lower, upper), version('placo')


def make_pinocchio(folder: Path) -> tuple[Solve, str]:
    """Damped least squares on Pinocchio's kinematics, with joint limits and adaptive damping."""
    import pinocchio

    whole = pinocchio.buildModelFromUrdf(str(folder / 'arm.urdf'))
    model = pinocchio.buildReducedModel(whole, [whole.getJointId('gripper')], pinocchio.neutral(whole))
    if tuple(model.names)[1:] != ARM:
        raise SystemExit(f'expected the joints {ARM} in the URDF, got {tuple(model.names)[1:]}')
    data = model.createData()
    frame = model.getFrameId(TCP_LINK)
    lower, upper = model.lowerPositionLimit, model.upperPositionLimit
    identity = np.eye(3)

    def attempt(target: Vector, seed: Vector) -> tuple[Vector, bool]:
        q = seed
        for _ in range(12):
            pinocchio.computeJointJacobians(model, data, q)
            pinocchio.updateFramePlacement(model, data, frame)
            error = target - data.oMf[frame].translation
            squared = error @ error
            if squared <= TOLERANCE_M**2:
                return q, True
            J = pinocchio.getFrameJacobian(model, data, frame, pinocchio.LOCAL_WORLD_ALIGNED)[:3]
            step = J.T @ np.linalg.solve(J @ J.T + (1e-6 + 0.1 * squared) * identity, error)
            size = np.abs(step).max()
            moved = np.minimum(np.maximum(q + step * min(1.0, 0.7 / size), lower), upper)
            if np.abs(moved - q).max() < 1e-3:
                break
            q = moved
        return q, False

    return restarting(attempt, lower, upper), version('pin')


MAKERS = {'ours': make_ours, 'mink': make_mink, 'placo': make_placo, 'pinocchio': make_pinocchio}


def main() -> None:
    """Answer blocks of targets, one JSON object a line, until the input ends."""
    name, folder = sys.argv[1:]
    solve, release = MAKERS[name](Path(folder))
    answers = sys.stdout
    sys.stdout = sys.stderr  # what a library prints must not get between the answers
    answers.write(json.dumps({'version': release}) + '\n')
    answers.flush()
    for line in sys.stdin:
        block = json.loads(line)
        targets, seeds = np.array(block['targets']), np.array(block['seeds'])
        found, seconds = [], []
        for target, seed in zip(targets, seeds, strict=True):
            begin = time.perf_counter()
            q = solve(target, seed)
            seconds.append(time.perf_counter() - begin)
            found.append(np.asarray(q).tolist())
        answers.write(json.dumps({'q': found, 'seconds': seconds}) + '\n')
        answers.flush()


if __name__ == '__main__':
    main()

# SPDX-License-Identifier: Apache-2.0
"""The robot with its table, as a MuJoCo model, in one of three kinematics.

Files come from the package gymnasium-robotics (MIT; meshes of Fetch Robotics' open description), of which nothing is
imported: its environments assert on numbers of MuJoCo 3 and bring three more packages, its models are all that is
needed. What a variant changes is changed here through MjSpec:

| variant | what moves the arm | joints that are free |
|---|---|---|
| cartesian | a mocap body that drags the hand through a soft weld, hand down; there is no motor in the arm | 7 |
| coupled | the same | 6: the upper arm's roll follows the shoulder's lift |
| joint | position actuators in the six joints; the weld is off | 6, as above |

The coupling is a joint equality, roll - roll0 = ratio (lift - lift0), so that the arm does not jump where it starts.
With ratio 0 the roll is locked: pan, then lift, elbow and wrist in one vertical plane, as in an SO-101. With ratio 1,
as in the journal that this is compared with, the elbow leaves that plane as soon as the shoulder lifts.
"""

from dataclasses import dataclass
from enum import StrEnum
from importlib import metadata
from pathlib import Path

import mujoco
import numpy as np

from so101_contract.orientation import matrix_to_quat
from so101_fetch.errors import FetchError
from so101_fetch.tasks import FetchTask, FloatArray
from so101_interfaces_py.topics import FRONT_CAMERA, WRIST_CAMERA

DISTRIBUTION, VERSION = 'gymnasium-robotics', '1.4.2'
FOLDER = 'gymnasium_robotics/envs/assets/fetch'

ARM_JOINTS = tuple(
    f'robot0:{name}_joint'
    for name in (
        *('shoulder_pan', 'shoulder_lift', 'upperarm_roll', 'elbow_flex'),
        *('forearm_roll', 'wrist_flex', 'wrist_roll'),
    )
)
"""The seven joints of the arm, from the base on."""

LIFT, ROLL = ARM_JOINTS[1], ARM_JOINTS[2]
DRIVEN = tuple(name for name in ARM_JOINTS if name != ROLL)
"""Joints with a motor in the joint variant."""

FINGERS = ('robot0:r_gripper_finger_joint', 'robot0:l_gripper_finger_joint')
WIDEST_M = 0.05
"""How far each finger opens [m]."""

HAND, GRIP, MOCAP, OBJECT, GOAL = (
    *('robot0:gripper_link', 'robot0:grip', 'robot0:mocap'),
    *('object0', 'target0'),
)
COUPLING = 'coupling'

FRONT_EYE, FRONT_AT = (2.05, 0.75, 1.05), (1.30, 0.75, 0.50)
"""Where the camera in front of the robot is, and what it looks at [m]."""

WRIST_EYE, WRIST_AT = (-0.09, 0.0, 0.12), (0.05, 0.0, 0.0)
"""The same of the wrist camera, in the frame of the hand, whose x points out of it: beside the hand, tilted, since from
where the model has it the fingers are not seen."""


class Kinematics(StrEnum):
    """The three variants."""

    CARTESIAN = 'cartesian'
    COUPLED = 'coupled'
    JOINT = 'joint'


@dataclass(frozen=True, kw_only=True)
class Variant:
    """What moves the arm.

    Attributes:
        kinematics: one of three.
        ratio: of the coupling; 0 locks the roll. Of no meaning for `cartesian`.
        kp: stiffness of the actuators of the joint variant [N m/rad]. They are critically damped: a forearm that rings
            loses the cube.
    """

    kinematics: Kinematics = Kinematics.CARTESIAN
    ratio: float = 1.0
    kp: float = 3000.0

    @property
    def is_coupled(self) -> bool:
        """Whether the roll follows the lift."""
        return self.kinematics is not Kinematics.CARTESIAN

    @property
    def is_joint(self) -> bool:
        """Whether actions are joint increments."""
        return self.kinematics is Kinematics.JOINT


def model_folder() -> Path:
    """Return the folder with the robot's MJCF files.

    Raises:
        FetchError: the package that brings them is not installed, or is of another version.
    """
    try:
        distribution = metadata.distribution(DISTRIBUTION)
    except metadata.PackageNotFoundError:
        found = 'none'
    else:
        found = distribution.version
        if found == VERSION:
            return Path(str(distribution.locate_file(FOLDER)))
    raise FetchError(
        f'expected the Python package {DISTRIBUTION} {VERSION} with the models of the Fetch robot, got {found}; run '
        f'./so101 setup, or pip install --no-deps {DISTRIBUTION}=={VERSION}'
    )


def build_model(task: FetchTask, variant: Variant) -> mujoco.MjModel:
    """Return the compiled model of a task in a variant; the coupling is off until the start is known."""
    spec = mujoco.MjSpec.from_file(str(model_folder() / task.mjcf))
    if variant.is_coupled:
        _add_coupling(spec)
    if task.keeps_closed:
        for finger in FINGERS:
            _add_joint_equality(spec, finger, finger, (0.0, 0.0))
    if variant.is_joint:
        _add_motors(spec, variant.kp)
    _add_cameras(spec)
    return spec.compile()


def _add_coupling(spec: mujoco.MjSpec) -> None:
    _add_joint_equality(spec, COUPLING, ROLL, (0.0, 0.0), LIFT)


def _add_joint_equality(
    spec: mujoco.MjSpec, name: str, joint: str, line: tuple[float, float], other: str = ''
) -> None:
    """Hold a joint to c0 + c1 times another one, both from the model's own zero; stiff enough for a milliradian."""
    equality = spec.add_equality(
        name=name, type=mujoco.mjtEq.mjEQ_JOINT, objtype=mujoco.mjtObj.mjOBJ_JOINT, name1=joint, name2=other
    )
    equality.data[:2] = line
    equality.solref[:] = (0.004, 1.0)
    equality.solimp[:3] = (0.99, 0.999, 0.001)


def _add_motors(spec: mujoco.MjSpec, kp: float) -> None:
    for name in DRIVEN:
        motor = spec.add_actuator(name=name, trntype=mujoco.mjtTrn.mjTRN_JOINT, target=name)
        motor.set_to_position(kp=kp, dampratio=1.0)
    for body in spec.bodies:
        if body.name.startswith('robot0:'):
            body.gravcomp = 1.0  # as the weld did, and as a controller that knows its arm does


def _add_cameras(spec: mujoco.MjSpec) -> None:
    """Add a front and a wrist camera that see hand, object and mark, in a light that leaves the white table grey."""
    for geom in list(spec.body(MOCAP).geoms):
        spec.delete(geom)  # axes for people
    spec.visual.headlight.ambient[:] = 0.25
    spec.visual.headlight.diffuse[:] = 0.15
    for light in spec.lights:
        light.diffuse[:] = 0.35
    spec.material('block_mat').rgba[:] = (0.15, 0.35, 0.75, 1.0)
    spec.material('puck_mat').rgba[:] = (0.15, 0.35, 0.75, 1.0)
    front = spec.worldbody.add_camera(name=FRONT_CAMERA, pos=FRONT_EYE, fovy=48.0)
    front.quat[:] = look_at(FRONT_EYE, FRONT_AT, up=(0.0, 0.0, 1.0))
    wrist = spec.body(HAND).add_camera(name=WRIST_CAMERA, pos=WRIST_EYE, fovy=75.0)
    wrist.quat[:] = look_at(WRIST_EYE, WRIST_AT, up=(0.0, 0.0, 1.0))


def look_at(
    eye: tuple[float, float, float], at: tuple[float, float, float], up: tuple[float, float, float]
) -> FloatArray:
    """Return the orientation wxyz of a camera at `eye` that looks at a point: along its own -z, with y up."""
    back = np.subtract(eye, at) / np.linalg.norm(np.subtract(eye, at))
    right = np.cross(up, back)
    right /= np.linalg.norm(right)
    return np.asarray(matrix_to_quat(np.column_stack([right, np.cross(back, right), back])))

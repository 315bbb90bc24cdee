# SPDX-License-Identifier: Apache-2.0
"""The checks of `doctor` that ask what a task needs: each of its cameras, and what its gripper does."""

from collections.abc import Callable, Mapping, Sequence
import math

from so101_contract.errors import TaskError
from so101_contract.joints import JOINT_NAMES
from so101_contract.task.files import get_task
from so101_contract.task.spec import GripperKind, TaskSpec
from so101_driver.bus.bus import ServoBus
from so101_driver.bus.errors import BusError
from so101_driver.calibration.calibration import ArmCalibration
from so101_driver.calibration.checks import matching
from so101_driver.calibration.servo import read_servo_values
from so101_driver.doctor.checks import Check, Status

GRIPPER = JOINT_NAMES[-1]

CheckCamera = Callable[[str], Check]


def check_task(word: str) -> tuple[TaskSpec | None, list[Check]]:
    """Read a task by name or file, and say what it asks for; no word, no task, no check."""
    if not word:
        return None, []
    try:
        task = get_task(word)
    except TaskError as error:
        return None, [Check('task', Status.FAIL, f'{error}.', 'See docs/your_task.md.')]
    cameras = ', '.join(camera.name for camera in task.cameras) or 'none'
    gripper = 'stays closed' if task.keeps_closed else 'opens and closes'
    resets = 'the arm' if task.put_back is not None else 'a human'
    finding = f'{task.name}: {task.instruction} Cameras: {cameras}; the gripper {gripper}; {resets} puts things back.'
    return task, [Check('task', Status.OK, finding)]


def check_task_cameras(
    task: TaskSpec, given: Sequence[str], found: Sequence[str], check_camera: CheckCamera
) -> list[Check]:
    """Examine the cameras of a task, each by its name.

    Args:
        task: what is to be done.
        given: devices by name, `name=device`, or a device alone for the first camera without one.
        found: devices that are attached.
        check_camera: opens one and watches it.
    """
    devices = {camera.name: camera.device for camera in task.cameras}
    alone = []
    for word in given:
        name, _, device = word.partition('=')
        if device and name in devices:
            devices[name] = device
        else:
            alone.append(word)
    free = alone or [device for device in found if device not in devices.values()]
    lacking = [name for name, device in devices.items() if not device]
    checks = []
    if len(lacking) == 1 and free:
        devices[lacking[0]] = free[0]
    elif len(lacking) > 1 and len(free) >= len(lacking):
        said = ' '.join(f'--camera {name}=DEVICE' for name in lacking)
        checks.append(
            Check(
                'camera',
                Status.WARN,
                f'The task does not say which of {", ".join(free)} is {" and which ".join(lacking)}.',
                f'Write device: under each camera of the task, or say {said}.',
            )
        )
        devices.update(zip(lacking, free, strict=False))
    for name, device in devices.items():
        if device:
            checks.append(_named(check_camera(device), name))
            continue
        checks.append(
            Check(
                f'camera.{name}',
                Status.FAIL,
                f'The task {task.name} observes the camera {name}, and there is none for it.',
                f'Plug it in, or say --camera {name}=DEVICE.',
            )
        )
    return checks


def check_gripper(
    task: TaskSpec, bus: ServoBus, known: Mapping[str, ArmCalibration], arm: str | None
) -> list[Check]:
    """Say what the gripper, as it is calibrated, does in the task; nothing moves."""
    try:
        owners = matching(known, read_servo_values(bus))
    except BusError:
        return []  # the checks of the arm have said so
    name = arm if arm in known else next(iter(owners), None)
    if name is None:
        return []
    degrees = math.degrees(known[name][GRIPPER].travel_rad)
    if task.gripper is GripperKind.CLOSED:
        return [Check('arm.gripper', Status.OK, f'The gripper stays closed in the task {task.name}.')]
    return [Check('arm.gripper', Status.OK, f'The gripper opens by {degrees:.0f} degrees.')]


def _named(check: Check, camera: str) -> Check:
    return Check(f'camera.{camera}', check.status, check.finding, check.remedy)

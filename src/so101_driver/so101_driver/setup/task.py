# SPDX-License-Identifier: Apache-2.0
"""The command `task`: list and check task files, and write a new one by asking, with the arm led by hand.

Start pose and corners of the workspace are where the human holds the limp arm; what a camera's crop leaves of its
picture is drawn into a picture file. Nothing is written before the last question is answered.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
import math
from pathlib import Path
import sys
from typing import Any, TypeVar

import cv2
import numpy as np
import numpy.typing as npt

from so101_contract.errors import ContractError, TaskError
from so101_contract.image import preprocess
from so101_contract.joints import gripper_rad_to_opening, JOINT_NAMES
from so101_contract.observation_spec import Crop
from so101_contract.task.files import find_task, read_task, task_names, write_task
from so101_contract.task.spec import GripperKind, TaskCamera, TaskReward, TaskSpec, TaskStart, Workspace
from so101_driver.bus.bus import ServoBus
from so101_driver.bus.errors import BusError
from so101_driver.bus.registers import Reg
from so101_driver.calibration.calibration import CalibrationError
from so101_driver.calibration.files import find_calibration
from so101_driver.calibration.servo import read_joints, torque_off
from so101_driver.camera.camera import Camera
from so101_driver.camera.config import CameraConfig
from so101_driver.setup.ports import AUTO, choose_port, find_ports
from so101_kinematics.fk import ForwardKinematics

FloatArray = npt.NDArray[np.float64]
Ask = Callable[[str], str]
Say = Callable[[str], object]
Joints = Callable[[], FloatArray]
Value = TypeVar('Value')

MARGIN_M = 0.01
"""A box that was shown with its corners is made larger by this on every side: hands are not that steady [m]."""

SEEN_PX = 84
NO = ('', 'n', 'no')


@dataclass(frozen=True)
class Held:
    """Where the human holds the arm.

    Attributes:
        tcp: position in the base frame [m].
        pitch_deg: approach below the horizontal [deg].
        roll_deg: wrist_roll [deg].
        opening: of the gripper, 0 closed .. 1 open.
    """

    tcp: tuple[float, float, float]
    pitch_deg: float
    roll_deg: float
    opening: float

    @classmethod
    def of(cls, q: FloatArray, fk: ForwardKinematics) -> 'Held':
        """Return that of joint positions (6,) [rad]."""
        x, y, z = (round(float(value), 3) for value in fk.position(q[:5]))
        return cls(
            (x, y, z),
            round(math.degrees(fk.pitch(q[:5])), 1),
            round(math.degrees(float(q[JOINT_NAMES.index('wrist_roll')])), 1),
            round(gripper_rad_to_opening(float(q[-1])), 2),
        )


class Questions:
    """Asks for everything that a task file says; an answer that cannot be is asked for again.

    Args:
        ask: shows a question and returns the answer.
        say: writes a line.
        joints: reads the limp arm (6,) [rad]; None where there is none.
        picture: returns a picture of a device (height, width, 3) BGR, or None where it has none.
    """

    def __init__(
        self,
        ask: Ask,
        say: Say,
        *,
        joints: Joints | None,
        picture: Callable[[str], npt.NDArray[np.uint8] | None],
    ) -> None:
        self._ask, self._say, self._joints, self._picture = ask, say, joints, picture
        self._fk = ForwardKinematics()

    def task(self, name: str, folder: Path) -> TaskSpec:
        """Ask for a task of a name; pictures of crops are put into a folder."""
        spec = TaskSpec(name=name, instruction='Nothing yet.')
        spec = self._until(
            'What is to be done, in a sentence? ', lambda text: replace(spec, instruction=text)
        )
        start = self._start()
        spec = replace(spec, start=start)
        spec = self._until_box(spec)
        spec = replace(spec, cameras=self._cameras(folder))
        spec = self._until(
            'How many seconds may an episode take? [10] ',
            lambda text: replace(spec, time_limit_s=float(text or 10.0)),
        )
        spec = self._until(
            'Does the gripper open and close (jaw) or stay closed (closed)? [jaw] ',
            lambda text: replace(spec, gripper=GripperKind(text or 'jaw')),
        )
        spec = self._until(
            'Who says that it is done: the simulation, on a real arm you (sim), or always you (operator)? [sim] ',
            lambda text: replace(spec, reward=TaskReward.from_dict({'source': text or 'sim', 'hold_s': 0.3})),
        )
        return self._until(
            'What does the human do between two episodes? [nothing] ', lambda text: replace(spec, human=text)
        )

    def _until(self, question: str, make: Callable[[str], Value]) -> Value:
        """Ask until something can be made of the answer."""
        while True:
            try:
                return make(self._ask(question).strip())
            except ContractError as error:
                self._say(f'{error}.')
            except ValueError:
                self._say('Expected a value as the question names them, got something else; once more.')

    def _held(self, question: str) -> Held:
        assert self._joints is not None
        self._ask(f'{question} Then press ENTER. ')
        held = Held.of(self._joints(), self._fk)
        x, y, z = held.tcp
        self._say(f'  there: x {x:.3f}, y {y:.3f}, z {z:.3f} m')
        return held

    def _start(self) -> TaskStart:
        spread = TaskStart().spread_m
        if self._joints is None:
            usual = TaskStart().xyz
            return self._until(
                f'Where does an episode begin: x y z of the TCP [m]? [{" ".join(map(str, usual))}] ',
                lambda text: TaskStart(xyz=_three(text) or usual),
            )
        while True:
            held = self._held('Hold the gripper where an episode begins.')
            low, high = max(0.0, held.opening - 0.1), min(1.0, held.opening + 0.1)
            try:
                return TaskStart(
                    xyz=held.tcp,
                    spread_m=spread,
                    pitch_deg=held.pitch_deg,
                    roll_deg=held.roll_deg,
                    opening=(round(max(0.0, min(low, 1.0)), 2), round(max(0.0, high), 2)),
                )
            except ContractError as error:
                self._say(f'{error}.')

    def _until_box(self, spec: TaskSpec) -> TaskSpec:
        """Add the workspace, which must hold the start."""
        if self._joints is None:
            return self._until(
                'Workspace: x y z of two opposite corners [m], or nothing for the usual one: ',
                lambda text: replace(spec, workspace=_box(_numbers(text, 6)) if text else None),
            )
        while True:
            first = self._held('Hold the gripper in one corner of the workspace, on the table.')
            other = self._held('Now in the opposite corner, as high as it shall ever go.')
            try:
                return replace(spec, workspace=_box([*first.tcp, *other.tcp]))
            except ContractError as error:
                self._say(f'{error}; show both corners again.')

    def _cameras(self, folder: Path) -> tuple[TaskCamera, ...]:
        cameras: list[TaskCamera] = []
        while True:
            usual = ('wrist', 'front')[len(cameras)] if len(cameras) < 2 else ''
            end = ', or "none" to go on' if cameras else ''
            name = self._ask(f'Name of a camera{end}? [{"none" if cameras else usual}] ').strip()
            name = name or ('none' if cameras else usual)
            if name == 'none' and cameras:
                return tuple(cameras)
            device = self._ask('Its device, such as /dev/video0, or nothing: ').strip()
            made = self._until_crop(name, device, folder)
            if made is not None:
                cameras.append(made)

    def _until_crop(self, name: str, device: str, folder: Path) -> TaskCamera | None:
        try:
            camera = TaskCamera(name=name, device=device)
        except ContractError as error:
            self._say(f'{error}.')
            return None
        picture = self._picture(device) if device else None
        while picture is not None:
            path = folder / f'{name}.png'
            try:
                show_crop(picture, camera.crop, path)
            except ContractError as error:
                self._say(f'{error}.')
                camera = replace(camera, crop=None)
                continue
            self._say(
                f'  what is seen of its {picture.shape[1]} x {picture.shape[0]} px lies in the frame: {path}'
            )
            text = self._ask(
                'Another crop: top left height width [px], or nothing to keep this one: '
            ).strip()
            if text in NO:
                break
            camera = self._cropped(camera, text)
        return camera

    def _cropped(self, camera: TaskCamera, text: str) -> TaskCamera:
        try:
            return replace(camera, crop=Crop(*(round(value) for value in _numbers(text, 4))))
        except ValueError as error:
            self._say(f'{error}.')
            return camera


def _numbers(text: str, count: int) -> list[float]:
    values = [float(word) for word in text.replace(',', ' ').split()]
    if len(values) != count or not all(map(math.isfinite, values)):
        raise TaskError(f'expected {count} numbers with spaces between, got {text!r}')
    return values


def _three(text: str) -> tuple[float, float, float] | None:
    if not text:
        return None
    x, y, z = _numbers(text, 3)
    return x, y, z


def _box(corners: Sequence[float]) -> Workspace:
    """Return the box between two corners, a little larger but not below the table."""
    both = np.array(corners).reshape(2, 3)
    low, high = both.min(axis=0) - MARGIN_M, both.max(axis=0) + MARGIN_M
    low[2] = max(low[2], MARGIN_M)
    return Workspace.from_dict({'low': low.round(3).tolist(), 'high': high.round(3).tolist()})


def show_crop(picture: npt.NDArray[np.uint8], crop: Crop | None, path: Path) -> None:
    """Write a picture (height, width, 3) BGR with a frame around what is seen, and beside it what networks see.

    Raises:
        ContractError: the crop does not lie in the picture, or the file cannot be written.
    """
    box = None if crop is None else crop.box
    seen = preprocess(picture, 'bgr8', size=SEEN_PX, crop=box)
    height, width = picture.shape[:2]
    edge = min(height, width)
    top, left, rows, columns = box or ((height - edge) // 2, (width - edge) // 2, edge, edge)
    framed = picture.copy()
    cv2.rectangle(framed, (left, top), (left + columns - 1, top + rows - 1), (60, 220, 60), 2)
    small = cv2.cvtColor(np.ascontiguousarray(seen.transpose(1, 2, 0)), cv2.COLOR_RGB2BGR)
    large = cv2.resize(small, (height, height), interpolation=cv2.INTER_NEAREST)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(cv2.imencode('.png', np.hstack([framed, large]))[1].tobytes())
    except OSError as error:
        raise TaskError(f'expected to write {path}, got "{error.strerror}"; name another folder') from error


def look_through(device: str) -> npt.NDArray[np.uint8] | None:
    """Return a picture of a camera (height, width, 3) BGR; None where it gives none."""
    config = CameraConfig(source=device, width=0, height=0)
    with Camera(config) as camera:
        frame = camera.wait_newer(-1, config.start_timeout_s)
        return None if frame is None else np.asarray(frame.bgr)


@contextmanager
def limp_arm(port: str, calibration: str, ask: Ask) -> Iterator[Joints]:
    """Make the arm limp, and read where the human holds it.

    Raises:
        BusError: it does not answer.
        CalibrationError: its calibration is not known.
    """
    known = find_calibration(calibration)
    bus = ServoBus(choose_port(port, find_ports()))
    bus.open()
    limp = False
    try:
        ask('The arm is about to go limp and would fall: hold it. Press ENTER to go on. ')
        limp = True
        torque_off(bus)

        def joints() -> FloatArray:
            ticks = read_joints(bus, Reg.PRESENT_POSITION)
            return np.asarray(known.ticks_to_rad([ticks[name] for name in JOINT_NAMES]))

        yield joints
    finally:
        bus.close(torque_off=limp)


def describe(task: TaskSpec, rate_hz: float = 10.0) -> list[str]:
    """Return what a task says, in lines for people."""
    box = task.workspace
    seen = [f'{camera.name} ({camera.topic}{", crop" if camera.crop else ""})' for camera in task.cameras]
    return [
        f'{task.name}: {task.instruction}',
        f'  cameras    {", ".join(seen) or "none"}',
        f'  start      {" ".join(f"{x:g}" for x in task.start.xyz)} m, {task.start.pitch_deg:g} deg down',
        f'  workspace  {"that of kinematics_node" if box is None else f"{box.low} to {box.high} m"}',
        f'  an episode up to {task.time_limit_s:g} s, {task.steps(rate_hz)} steps at {rate_hz:g} Hz; ends with '
        f'{", ".join(end.value for end in task.ends)}',
        f'  judged by  {task.reward.source}, held for {task.reward.hold_s:g} s; gripper: {task.gripper.value}',
        f'  human      {task.human or "does nothing between episodes"}',
        f'  simulated  {task.simulation.goal.value} a {task.simulation.object.value}',
        f'  hash       {task.hash[:12]}',
    ]


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser('so101 task', description='List, check and write task files.')
    what = made.add_subparsers(dest='what', required=True)
    what.add_parser('list', help='name the tasks that are there')
    check = what.add_parser('check', help='read a task, and say what it says or what is wrong')
    check.add_argument('task', help='name or file')
    new = what.add_parser('new', help='ask for a task, and write its file')
    new.add_argument('file', type=Path, help='file to write; task:=FILE uses it')
    new.add_argument('--port', default=AUTO, help='of the arm: path or serial number (default: find it)')
    new.add_argument('--calibration', default='', help='its calibration file (default: the only one)')
    new.add_argument('--no-arm', action='store_true', help='type positions instead of showing them')
    return made


def main(argv: Sequence[str] | None = None, *, ask: Ask = input, say: Say = print) -> int:
    """Run the command; returns the exit status."""
    given = parser().parse_args(argv)
    try:
        if given.what == 'list':
            for name in task_names():
                say(f'{name:<12} {read_task(find_task(name)).instruction}')
        elif given.what == 'check':
            for line in describe(read_task(find_task(given.task))):
                say(line)
        else:
            _new(given, ask, say)
    except (ContractError, BusError, CalibrationError) as error:
        sys.stderr.write(f'so101 task: {error}\n')
        return 1
    except (KeyboardInterrupt, EOFError):
        sys.stderr.write('\nso101 task: stopped; nothing was written.\n')
        return 130
    return 0


def _new(given: Any, ask: Ask, say: Say) -> None:
    path = given.file if given.file.suffix else given.file.with_suffix('.yaml')
    if path.exists():
        raise TaskError(f'expected no file at {path}, got one; name another, or change that one in an editor')
    TaskSpec(name=path.stem, instruction='The name is one.')

    def go(joints: Joints | None) -> None:
        questions = Questions(ask, say, joints=joints, picture=look_through)
        task = questions.task(path.stem, path.parent / f'{path.stem}_crops')
        write_task(path, task)
        for line in describe(task):
            say(line)
        say(f'Written to {path}. In the simulation: ./so101 up task:={path}')

    if given.no_arm:
        go(None)
        return
    with limp_arm(given.port, given.calibration, ask) as joints:
        go(joints)


if __name__ == '__main__':
    sys.exit(main())

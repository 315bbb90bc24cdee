# SPDX-License-Identifier: Apache-2.0
"""What a page draws over the pictures and around the arm: next motions, the target, scores, what is known of the scene.

Nothing is drawn into a picture: a page gets points as shares of its width and height and draws them on a sheet above
it, so that the picture stays what the policy sees. A motion is drawn as far as the hand would come in 0.3 s if
it went on like that: one step is some millimetres. While a human puts the object back, the page shows how the scene
looked when the last episode began.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
import math
import time
from typing import Any

from geometry_msgs.msg import PoseStamped
import numpy as np
from sensor_msgs.msg import CameraInfo
from so101_interfaces.msg import EeDelta, SuccessOpinion
from so101_interfaces.msg import TaskReport as TaskReportMessage

from so101_console.frames import Frames
from so101_console.page_state import Newest, Poses
from so101_console.scene.views import Optics, read_optics, StaticFrames, View, view_of
from so101_contract.joints import BASE_FRAME
from so101_contract.observation_spec import CONTROL_RATE_HZ
from so101_contract.session import EventKind, NO_EPISODE
from so101_contract.task_report import ArmStart, AtPoint, AtPose, TaskReport, to_record
from so101_description.errors import PresetError
from so101_description.pose import Pose
from so101_interfaces_py import topics
from so101_kinematics.fk import ForwardKinematics
from so101_kinematics.ik import InverseKinematics

AHEAD_S = 0.3
"""A motion is drawn as far as it would lead in this time."""
AHEAD_STEPS = AHEAD_S * CONTROL_RATE_HZ

SHARED_S = 0.05
"""Pages that ask within this time are told the same: it is worked out once."""

FRESH_S = 0.5
"""What was said longer ago is drawn no more."""

LENS_S = 1.0
"""A lens is looked at again this often: it comes with each picture, and hardly ever changes."""

SMALLEST_M, LARGEST_M = 0.0005, 0.2
"""A step shorter than this is no motion, and one that is longer is none of this arm [m]."""

SIZES_M = 0.005, 0.03
"""Half of what lies on the table is between these [m]."""

MOTIONS: Mapping[str, str] = {'policy': topics.POLICY_EE_DELTA, 'hand': topics.TELEOP_EE_DELTA}
"""Who moves the hand, and where they say how."""

Vector3 = tuple[float, float, float]


class Drawings:
    """Hears what there is to draw. The node's thread keeps it, the server's reads it when a page asks."""

    def __init__(self, newest: Newest, cameras: Sequence[str], gripper: int, start: 'PlannedStart') -> None:
        """Prepare.

        Args:
            newest: messages of each name.
            cameras: what the topics of the cameras begin with.
            gripper: number of the gripper's body among those whose poses a page gets.
            start: where an episode begins.
        """
        self.frames = StaticFrames()
        self._newest, self._cameras, self._gripper, self._start = newest, tuple(cameras), gripper, start
        self._heard_s: dict[str, float] = {}
        self._optics: dict[str, tuple[float, Optics | None]] = {}
        self._half = 0.015
        self._said: tuple[float, bool, dict[str, Any]] = -math.inf, False, {}

    def hear(self, name: str) -> Callable[[bytes], None]:
        """Return a callback for serialised messages of a topic."""
        keep = self._newest.keep(name)

        def hear(message: bytes) -> None:
            self._heard_s[name] = time.monotonic()
            keep(message)

        return hear

    def said(self, now: float, state: Mapping[str, Any], *, running: bool) -> dict[str, Any]:
        """Return what a page draws.

        Args:
            now: monotonic time [s].
            state: what else the page is told: poses of the bodies, hand, target.
            running: an episode runs; else the next one is planned.
        """
        told_s, ran, told = self._said
        if not 0.0 <= now - told_s < SHARED_S or ran is not running:
            told = self._worked_out(now, state, running=running)
            self._said = now, running, told
        return told

    def _worked_out(self, now: float, state: Mapping[str, Any], *, running: bool) -> dict[str, Any]:
        base = self._newest.read('tcp', PoseStamped, lambda message: message.header.frame_id, 'frame')
        gripper = _pose_of(state.get('poses'), self._gripper)
        views = [
            view_of(self._lens(name, now), self.frames, base or BASE_FRAME, gripper) for name in self._cameras
        ]
        task = self._fresh(topics.SIM_TASK, now, TaskReportMessage, to_record)
        hand, motions = state.get('tcp'), self._motions(now)
        return {
            'drawn': [_drawn(view, hand, state.get('target'), motions) for view in views],
            'scores': self._scores(now, task),
            'seen': [view.pyramid() for view in views if isinstance(view, View)],
            'objects': self._objects(task),
            'planned': None if running else self._start.said(None if task is None else task.arm_start),
        }

    def _fresh(self, topic: str, now: float, kind: Any, what: Callable[[Any], Any]) -> Any:
        if now - self._heard_s.get(topic, -math.inf) > FRESH_S:
            return None
        return self._newest.read(topic, kind, what)

    def _lens(self, camera: str, now: float) -> Optics | None:
        read_s, optics = self._optics.get(camera, (-math.inf, None))
        if optics is None or now - read_s > LENS_S:
            optics = self._newest.read(f'{camera}/camera_info', CameraInfo, read_optics)
            self._optics[camera] = now, optics
        return optics

    def _motions(self, now: float) -> dict[str, Vector3]:
        found = {who: self._fresh(topic, now, EeDelta, _read_motion) for who, topic in MOTIONS.items()}
        return {who: motion for who, motion in found.items() if motion is not None}

    def _scores(self, now: float, task: TaskReport | None) -> list[dict[str, Any]]:
        """Return what is thought of what can be seen now: by the classifier, and by a simulation that knows."""
        said = []
        opinion = self._fresh(topics.SUCCESS_OPINION, now, SuccessOpinion, _read_opinion)
        if opinion is not None:
            said.append({'who': 'Classifier', **opinion})
        if task is not None:
            status = task.state.status
            ends = ', done' if status.success else ', failed' if status.failure else ''
            reward = task.state.reward
            text = f'reward {reward:.2f}{ends}' if math.isfinite(reward) else f'no reward{ends}'
            said.append({'who': 'Simulation', 'share': None, 'said': text})
        return said

    def _objects(self, task: TaskReport | None) -> dict[str, Any] | None:
        """Return what lies on the table, which only a simulation knows."""
        if task is None or not task.state.truth.finite:
            return None
        truth = task.state.truth
        if truth.on_table and truth.cube_speed < SMALLEST_M:
            # Nobody says how large it is, but the middle of what lies on a table is at half its height.
            self._half = min(max(round(truth.cube_position[2], 3), SIZES_M[0]), SIZES_M[1])
        pose = [round(x, 4) for x in truth.cube_position] + [round(x, 3) for x in truth.cube_quat_wxyz]
        mark = None if truth.tray_position is None else [round(x, 4) for x in truth.tray_position]
        return {'cube': pose, 'half': self._half, 'mark': mark}


class PlannedStart:
    """The pose in which the next episode begins: the middle of what it is drawn from, and how far it may be from there.

    Args:
        tcp: TCP preset.
        usual: as the task says where no simulation says anything; None where neither does.
        poses: where the bodies are for joints (6,) [rad].
    """

    def __init__(self, tcp: str, usual: ArmStart | None, poses: Poses) -> None:
        self._ik = InverseKinematics(ForwardKinematics(tcp))
        self._usual, self._poses = usual, poses
        self._known: tuple[ArmStart | None, dict[str, Any] | None] = None, None

    def said(self, start: ArmStart | None) -> dict[str, Any] | None:
        """Return the poses of all bodies there, and the box of the hand; None where that depends on the object."""
        start = self._usual if start is None else start
        if start != self._known[0]:
            self._known = start, self._worked_out(start)
        return self._known[1]

    def _worked_out(self, start: ArmStart | None) -> dict[str, Any] | None:
        box = None
        if isinstance(start, AtPoint):
            centre, spread = np.array(start.centre), np.array(start.spread)
            box = {'low': (centre - spread).round(4).tolist(), 'high': (centre + spread).round(4).tolist()}
            opening = (sum(start.opening) / 2.0,) * 2
            start = replace(start, spread=(0.0,) * 3, pitch_spread=0.0, opening=opening)
        elif isinstance(start, AtPose):
            start = replace(start, spread=0.0)
        else:
            return None
        q = start.sample(np.random.default_rng(0), self._ik, np.zeros(3))
        return None if q is None else {'poses': self._poses(q), 'box': box}


class ResetHelp:
    """Keeps the pictures of the last start, of every camera, and whether a human is asked to arrange the scene."""

    def __init__(self, frames: Mapping[str, Frames]) -> None:
        self._frames = list(frames.values())
        self._kept: list[bytes] = []
        self._episode = NO_EPISODE
        self.asked = False
        """Whether a human is asked to arrange the scene."""

    def hear(self, kind: EventKind, episode: int) -> None:
        """Note what happened to an episode, or between two."""
        if kind is EventKind.START:
            newest = [frames.jpeg(-1) for frames in self._frames]
            self._kept = [b'' if found is None else found[1] for found in newest]
            self._episode = episode
        self.asked = kind is EventKind.NEED_RESET or (
            self.asked and kind not in (EventKind.NEED_OVER, EventKind.START)
        )

    def picture(self, camera: int) -> bytes:
        """Return the JPEG of a camera when the last episode began; empty without one."""
        return self._kept[camera] if camera < len(self._kept) else b''

    def said(self, sentence: str) -> dict[str, Any] | None:
        """Return what a page shows while a human is asked to arrange the scene, else None.

        Args:
            sentence: what the session says of it: what to do, and for how many seconds there is still time.
        """
        if not self.asked:
            return None
        return {'said': sentence, 'episode': self._episode, 'pictures': [bool(each) for each in self._kept]}


def _drawn(
    view: View | str,
    hand: Sequence[float] | None,
    target: Sequence[float] | None,
    motions: Mapping[str, Vector3],
) -> dict[str, Any]:
    """Return the lines over the pictures of one camera, or why there are none."""
    if isinstance(view, str):
        return {'lines': [], 'why': f'Nothing is drawn here: {view}.'}
    lines: list[dict[str, Any]] = []
    if target is not None:
        lines.append({'what': 'target', 'points': view.line(target)})
    for who, translation in motions.items():
        if hand is not None and math.hypot(*translation) >= SMALLEST_M:
            tip = [at + AHEAD_STEPS * by for at, by in zip(hand, translation, strict=True)]
            lines.append({'what': who, 'points': view.line(hand, tip)})
    return {'lines': [line for line in lines if line['points']], 'why': ''}


def _pose_of(poses: Sequence[float] | None, body: int) -> Pose | None:
    numbers = (poses or ())[7 * body : 7 * body + 7]
    try:
        return Pose(tuple(numbers[:3]), tuple(numbers[3:]))
    except PresetError:
        return None


def _read_motion(message: EeDelta) -> Vector3 | None:
    by = message.translation
    length = math.hypot(by.x, by.y, by.z)
    if message.source == EeDelta.SOURCE_NONE or not length <= LARGEST_M:
        return None
    return float(by.x), float(by.y), float(by.z)


def _read_opinion(message: SuccessOpinion) -> dict[str, Any]:
    share = float(message.probability)
    if not 0.0 <= share <= 1.0:
        return {'share': None, 'said': str(message.reason) or 'cannot tell'}
    return {'share': round(share, 2), 'said': f'{share:.0%} success'}

# SPDX-License-Identifier: Apache-2.0
"""What the page shows, gathered from messages. The node's thread writes whole values, the server's reads them."""

from collections.abc import Callable, Mapping
from dataclasses import asdict
import math
import time
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus
from geometry_msgs.msg import PoseStamped
import numpy as np
import numpy.typing as npt
from sensor_msgs.msg import JointState
from so101_interfaces.msg import ArmStatus, EeDelta, EpisodeEvent, LearnerStatus, PolicyStatus, Step
from visualization_msgs.msg import Marker, MarkerArray

from so101_console.archive.memory import Memory
from so101_console.coach import (
    advice,
    CoachConfig,
    Episodes,
    human_line,
    LearnerNumbers,
    Scene,
    summary,
)
from so101_console.curves import base_line, ClassifierWatch, Curves, finite, learner_line
from so101_console.headline import episode_line, headline, progress, SCRIPTED, start_line, WINDOW
from so101_console.health import (
    arm_state,
    ArmWatch,
    bus_line,
    counters,
    examine,
    GraphReport,
    NOT_RECORDED,
    read_given_up,
    RecorderWatch,
    require_whole,
    servo_rows,
)
from so101_console.model_watch import ModelWatch
from so101_contract.joints import JOINT_NAMES
from so101_contract.messages import action_record, event_record, step_record
from so101_contract.session import (
    EventKind,
    HumanSeconds,
    NO_EPISODE,
    SessionState,
    SessionStatus,
)
from so101_interfaces_py.conversions import joint_positions, LARGEST_RAD, stamp_to_ns
from so101_interfaces_py.node import read_message, reason_of, UNUSABLE


class Newest:
    """One message of each name. The node's thread keeps, the server's reads.

    Args:
        drop: told of a message that cannot be used.
    """

    def __init__(self, drop: Callable[[str, Exception], None]) -> None:
        self._drop = drop
        self._raw: dict[str, bytes] = {}
        self._read: dict[tuple[str, str], tuple[bytes, Any]] = {}

    def keep(self, name: str) -> Callable[[bytes], None]:
        """Return a callback for serialised messages."""

        def hear(message: bytes) -> None:
            self._raw[name] = message

        return hear

    def read(self, name: str, kind: Any, what: Callable[[Any], Any], purpose: str = '') -> Any:
        """Return what the newest message says, worked out once for all who ask; None before the first, or of a bad one.

        Args:
            name: what it was kept as.
            kind: type of the message.
            what: takes from a message what is wanted.
            purpose: tells what is wanted of one message for several reasons apart.
        """
        raw = self._raw.get(name)
        if raw is None:
            return None
        before = self._read.get((name, purpose))
        if before is None or before[0] is not raw:
            self._read[name, purpose] = before = raw, self._worked_out(name, raw, kind, what)
        return before[1]

    def _worked_out(self, name: str, raw: bytes, kind: Any, what: Callable[[Any], Any]) -> Any:
        try:
            return what(read_message(raw, kind))
        except UNUSABLE as error:
            self._drop(name, error)
            return None


STALE_S = 2.0
SLOW_S = 0.5
"""What changes slowly is put together this often."""
NOTE_S = 4.0
LISTED = 30
LEARNER_STALE_S = 10.0
STEPS_KEPT = 50

WARNINGS_KEPT, WARNING_S = 32, 5.0

Poses = Callable[[npt.NDArray[np.float64]], list[float]]


class PageState:
    """The newest of everything."""

    def __init__(self, poses: Poses, drop: Callable[[str, Exception], None] = lambda *_: None) -> None:
        """Prepare; `poses` says where the bodies are for joints (6,) [rad], `drop` is told of bad messages."""
        self.curves = Curves()
        self.simulated = False
        """Whether no real arm is moved."""
        self.memory = Memory()
        """The last episodes, to be looked at again."""
        self.newest = Newest(self._bad)
        """Joints, hand and markers."""
        self._body_poses, self._drop = poses, drop
        self._episodes = Episodes()
        self._arm: ArmStatus | None = None
        self._arm_watch = ArmWatch()
        self._session: dict[str, Any] = {}
        self._learner: LearnerStatus | None = None
        self._policy: PolicyStatus | None = None
        self._arm_s = self._session_s = self._learner_s = self._policy_s = self._note_s = -math.inf
        self.recorder, self.classifier, self.model = RecorderWatch(), ClassifierWatch(), ModelWatch()
        self._diagnostics: dict[str, tuple[float, str, bool]] = {}
        self._steps: dict[tuple[int, int], int] = {}
        self._slow: dict[str, Any] = {}
        self._slow_s = -math.inf
        self._note = ''
        self.arranging = False
        """Whether a human is asked to arrange the scene."""
        self.human = ''
        """Where the human is who drives from no page; see `headline`."""

    @property
    def running(self) -> bool:
        """Whether an episode runs."""
        return self._session.get('state') in (SessionState.RUNNING, SessionState.PAUSED)

    @property
    def sentence(self) -> str:
        """What the session says that goes on."""
        return str(self._session.get('sentence', ''))

    @property
    def coach(self) -> CoachConfig:
        """When the coach says something; the curves show where the numbers are well by the same."""
        return self.curves.coach

    @coach.setter
    def coach(self, when: CoachConfig) -> None:
        self.curves.coach = when

    def meaning(self, what: str) -> str:
        """Return the action that a button means now: some do the one thing or the other."""
        if what == 'pause' and self._session.get('paused'):
            return 'resume'
        if what == 'recover':
            off = self._arm is not None and self._arm.state == ArmStatus.DISABLED
            return 'enable' if off else self.meaning('clear')
        if what == 'clear' and self._arm is not None and self._arm.state == ArmStatus.FAULT:
            return 'clear_fault'
        return what

    def say(self, sentence: str) -> None:
        """Show a sentence on every page for a while."""
        self._note, self._note_s = sentence, time.monotonic()

    @property
    def policy_is_there(self) -> bool:
        """Whether a policy would act if nobody else does."""
        return time.monotonic() - self._policy_s < STALE_S

    def _bad(self, name: str, error: Exception) -> None:
        self.say(f'{name}: {reason_of(error)}')
        self._drop(name, error)

    # --- callbacks ---

    def on_arm(self, message: ArmStatus) -> None:
        """Note the state of the arm.

        Raises:
            ContractError: it says more or less than one thing of each servo.
        """
        require_whole(message)
        self._arm, self._arm_s = message, time.monotonic()
        self._arm_watch.hear(self._arm_s, message)

    def on_step(self, message: Step) -> None:
        """Note when a step began."""
        self._steps[message.episode, message.index] = stamp_to_ns(message.header.stamp)
        if len(self._steps) > STEPS_KEPT:
            del self._steps[next(iter(self._steps))]
        self.memory.step(step_record(message))

    def on_command(self, message: EeDelta) -> None:
        """Count an executed action."""
        if message.episode == NO_EPISODE:
            return
        self.memory.action(action_record(message))
        if message.source in (EeDelta.SOURCE_POLICY, EeDelta.SOURCE_TELEOP):
            begun = self._steps.get((message.episode, message.index))
            latency = None if begun is None else (stamp_to_ns(message.header.stamp) - begun) / 1e6
            human = message.source == EeDelta.SOURCE_TELEOP
            self._episodes.action(message.episode, human=human, latency_ms=latency)
        elif message.source == EeDelta.SOURCE_NONE:
            self._episodes.dropped(message.episode)

    def on_event(self, message: EpisodeEvent) -> None:
        """Note how an episode began or ended.

        Raises:
            ContractError: only a newer version knows this kind of event.
        """
        event = event_record(message)
        kind = event.kind
        standing = {} if self._arm is None else counters(self._arm)
        if kind is EventKind.START:
            self._episodes.begin(message.episode, standing, event.stamp_ns)
        self.memory.event(event, self._episodes.life)
        if kind.outcome is not None:
            outcome = kind.outcome.name.lower().replace('_', ' ')
            self._episodes.end(message.episode, outcome, message.reason, standing)
            worked = HumanSeconds(**self._session.get('human', {})).worked if self._session else math.nan
            numbers = self._episodes.numbers_of(message.episode)
            self.curves.close(self._episodes.life, message.episode, numbers, worked / 60.0)

    def on_session(self, status: SessionStatus) -> None:
        """Note the state of the session."""
        self._session, self._session_s = asdict(status), time.monotonic()

    def on_policy(self, message: PolicyStatus) -> None:
        """Note what the policy does."""
        self._policy, self._policy_s = message, time.monotonic()

    def on_learner(self, message: LearnerStatus) -> None:
        """Note how learning goes."""
        self._learner, self._learner_s = message, time.monotonic()
        fields = message.get_fields_and_field_types()
        self.memory.value(message.q_mean)
        self.curves.hear(
            {name: float(getattr(message, name)) for name in fields if _is_number(message, name)}
        )

    def on_diagnostics(self, message: DiagnosticArray) -> None:
        """Note what a node warns of."""
        now = time.monotonic()
        old = [name for name, (at, *_) in self._diagnostics.items() if now - at > WARNING_S]
        for name in (*old, *list(self._diagnostics)[:-WARNINGS_KEPT]):
            self._diagnostics.pop(name, None)
        for status in message.status[:WARNINGS_KEPT]:
            if status.name == 'so101: arm':
                continue  # arm/status says it already
            if status.level in (DiagnosticStatus.WARN, DiagnosticStatus.ERROR):
                is_error = status.level == DiagnosticStatus.ERROR
                self._diagnostics[status.name] = now, status.message, is_error
            else:
                self._diagnostics.pop(status.name, None)

    # --- what pages are told ---

    def state(self, now: float, wheel: str | None, page: str, camera: Mapping[str, Any]) -> dict[str, Any]:
        """Return how things are, for one page.

        Args:
            now: monotonic time [s].
            wheel: page that has the wheel.
            page: the page that asks.
            camera: age [s] or None, fps and problem of its pictures; `others`: the same of the other cameras.
        """
        if now - self._slow_s >= SLOW_S:
            self._slow, self._slow_s = self._slowly(now, camera), now
        arm = None if self._arm is None or now - self._arm_s > STALE_S else arm_state(self._arm)
        reason = '' if self._arm is None else self._arm.reason
        session = self._session if now - self._session_s <= STALE_S else None
        top = headline(
            arm, reason, session, wheel=wheel, page=page, human=self.human, arranging=self.arranging
        )
        intervening = bool(session and session.get('intervening'))
        holds = self._policy is not None and self._policy.mode == PolicyStatus.MODE_HOLD
        target, box = self._markers()
        return {
            'title': top.title,
            'detail': ' '.join(
                filter(None, (top.detail, base_line(self._policy) if top.drives == 'policy' else ''))
            ),
            'drives': top.drives,
            'arm': arm,
            'you_drive': wheel == page,
            'can_give': wheel == page or (wheel is None and intervening),
            'paused': bool(self._session.get('paused')),
            'start': start_line(arm, session, self.policy_is_there and not holds),
            'poses': self.newest.read('joints', JointState, self._poses, 'poses'),
            'tcp': self.newest.read('tcp', PoseStamped, lambda message: _point(message.pose.position)),
            'target': target,
            'box': box,
            'episode': episode_line(self._session),
            'human': human_line(self._session),
            'note': self._note if now - self._note_s < NOTE_S else '',
            **self._slow,
        }

    def _slowly(self, now: float, camera: Mapping[str, Any]) -> dict[str, Any]:
        arm, learner = self._arm, self._learner
        angles = self.newest.read('joints', JointState, self._angles, 'angles') or {}
        numbers = None
        if learner is not None:
            numbers = LearnerNumbers(learner.q_mean, learner.q_bound, learner.demo_size, learner.state)
        scene = Scene(self.simulated, scripted=self.human == SCRIPTED)
        episodes = self._episodes.numbers(self.coach.coach_window)
        told = advice(episodes, numbers, self.coach, scene)
        checks = examine(self._report(now, camera))
        return {
            'recording': dict(zip(('said', 'bad'), self.recorder.said(now) or NOT_RECORDED, strict=True)),
            'servos': [] if arm is None else servo_rows(arm, angles),
            'bus': '' if arm is None else bus_line(arm, self._arm_watch),
            'learner': ''
            if learner is None or now - self._learner_s > LEARNER_STALE_S
            else learner_line(learner),
            'classifier': self.classifier.said(now),
            'model': self.model.said(now),
            'coach': [*told, summary(episodes, self.coach)],
            'progress': progress(self._episodes.numbers(2 * WINDOW)),
            'episodes': [
                {**row, 'key': self.memory.key(row.pop('life'), row['episode'])}
                for row in self._episodes.rows(LISTED)
            ],
            'checks': [
                {'name': c.name, 'status': c.status.value, 'finding': c.finding, 'remedy': c.remedy}
                for c in checks
            ],
        }

    def _report(self, now: float, camera: Mapping[str, Any]) -> GraphReport:
        policy = self._policy if now - self._policy_s <= STALE_S else None
        learner = self._learner if now - self._learner_s <= LEARNER_STALE_S else None
        heard = self._arm is not None and now - self._arm_s <= STALE_S
        said = sorted(
            (name, text, bad)
            for name, (at, text, bad) in list(self._diagnostics.items())
            if now - at < WARNING_S
        )
        return GraphReport(
            arm=self._arm_watch.report(self._arm) if heard else None,
            camera_age_s=camera['age'],
            camera_hz=camera['fps'],
            camera_problem=camera.get('problem', ''),
            other_cameras=tuple(
                (f'camera {one["name"]}', one['age'], one['fps'], one['problem'])
                for one in camera.get('others', ())
            ),
            session=str(self._session.get('state', '')) if now - self._session_s <= STALE_S else '',
            jitter_p99_ms=1e3 * float(self._session.get('jitter_p99_s', 0.0)),
            policy=None if policy is None else policy.policy or 'none',
            policy_holds='' if policy is None or policy.mode != PolicyStatus.MODE_HOLD else policy.reason,
            policy_ms=math.nan if policy is None else 1e3 * policy.latency_p95,
            learner='' if learner is None else learner.state,
            learner_reason='' if learner is None else learner.reason,
            diagnostics=tuple(said),
            given_up=read_given_up(),
            recorder=self.recorder.said(now),
        )

    def _poses(self, message: JointState) -> list[float]:
        return self._body_poses(joint_positions(message, JOINT_NAMES))

    def _angles(self, message: JointState) -> dict[str, float]:
        # By name, and each for itself: where one servo is mute, its joint alone is missing.
        found = dict(zip(message.name, message.position, strict=False))
        return {
            name: round(math.degrees(found[name]), 1)
            for name in JOINT_NAMES
            if abs(found.get(name, math.nan)) <= LARGEST_RAD
        }

    def _markers(self) -> tuple[list[float] | None, dict[str, list[float]] | None]:
        """Return the target and the workspace, which kinematics_node draws as a ball and a box."""
        return self.newest.read('markers', MarkerArray, _read_markers) or (None, None)


def _read_markers(message: MarkerArray) -> tuple[list[float] | None, dict[str, list[float]] | None]:
    target, box = None, None
    for marker in message.markers:
        if marker.type == Marker.SPHERE:
            target = _point(marker.pose.position)
        elif marker.type == Marker.CUBE:
            centre, size = np.array(_point(marker.pose.position)), np.array(_point(marker.scale))
            low, high = (centre - size / 2).round(4), (centre + size / 2).round(4)
            box = {'low': low.tolist(), 'high': high.tolist()}
    return target, box


def _point(vector: Any) -> list[float]:
    return [finite(vector.x) or 0.0, finite(vector.y) or 0.0, finite(vector.z) or 0.0]


def _is_number(message: LearnerStatus, name: str) -> bool:
    return isinstance(getattr(message, name), int | float)

# SPDX-License-Identifier: Apache-2.0
"""What LeRobot's programs see of the arm, and what they may do with it: the rules between the graph and its guests.

The node's thread tells the `Lobby` what it hears; the thread of each guest asks. A guest never gets an old picture or
old joints for new ones: it waits for a while, and then hears why there are none. A stop of the arm is told to every
guest that was there, even where it is over before the guest asks again, so that LeRobot's program stops too.

Either LeRobot drives (`drives`), and nobody else may; or somebody else does, a human or a policy with its session, and
LeRobot records that: its teleoperator takes the joint commands of the graph for its actions, and its robot, to which
LeRobot hands them, does not send them once more.
"""

from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
import threading
import time

import numpy as np
import numpy.typing as npt

from so101_contract.joints import JOINT_NAMES, NUM_JOINTS
from so101_driver.calibration.calibration import ArmCalibration, CalibrationError
from so101_driver.calibration.lerobot_units import DEGREES, FloatArray, JointScale, RANGE
from so101_interfaces_py.params import check_bounds, param
from so101_session.lerobot.wire import joints_of, Json, Kind, Pictures, RefusedError, VERSION

Pixels = npt.NDArray[np.uint8]

ROBOT, TELEOPERATOR = 'robot', 'teleoperator'
ROLES = (ROBOT, TELEOPERATOR)

MOST = {DEGREES: 179.9, RANGE: 100.0}
"""The units that guests may have, and the largest value of a joint of the arm: a little less than half a turn."""

COMMAND_S = 0.5
"""For so long a joint command says where the arm is sent [s]; kinematics_node repeats its own all the time."""

GIVEN = 64
"""Actions that were handed out and may come back."""

SAME_RAD = 1e-4

FOLLOW_S = 2.0
"""An arm that does not follow for so long, while it is commanded, will not: its gate hears somebody else too, say."""

OTHER_STACK = (
    'this stack lets LeRobot record who else drives, so --teleop.type=so101_ros is the one teleoperator that it takes; '
    'for LeRobot to drive: ./so101 up --stack lerobot'
)
NOBODY_ELSE = (
    'in this stack LeRobot drives, and nobody else whom a teleoperator so101_ros could follow; use a teleoperator of '
    'LeRobot, or start the stack in which somebody drives: ./so101 up lerobot:=true'
)


@dataclass(frozen=True, kw_only=True)
class LerobotConfig:
    """Parameters of lerobot_node."""

    socket: str = param(
        '',
        doc='Socket that plug-ins connect to; empty: one for each ROS domain and namespace, in /tmp/so101-UID.',
    )
    drives: bool = param(True, doc='LeRobot may move the arm; false: it records who else does.')
    calibration: str = param(
        '',
        doc="Calibration file of the arm, for LeRobot's units; empty: the only one in ~/.config/so101/calibration.",
    )
    joints_max_age_s: float = param(
        0.25, doc='Older joint positions are not given out.', unit='s', lo=0.02, hi=10.0
    )
    picture_max_age_s: float = param(0.5, doc='Older pictures are not given out.', unit='s', lo=0.02, hi=10.0)
    command_hold_s: float = param(
        0.5,
        doc="LeRobot's last command is repeated for so long: its loop may be slower than the gate's patience.",
        unit='s',
        lo=0.05,
        hi=2.0,
    )
    patience_s: float = param(
        2.0,
        doc='So long an observation waits for newer ones before it is an error.',
        unit='s',
        lo=0.0,
        hi=60.0,
    )

    def __post_init__(self) -> None:
        """Check each value."""
        check_bounds(self)


@dataclass(frozen=True)
class ArmView:
    """What the arm says of itself.

    Attributes:
        follows: whether it is on, and would follow a joint command.
        moves: whether it follows one now.
        sentence: its state and reason.
    """

    follows: bool
    moves: bool
    sentence: str


class Lobby:
    """Keeps what the graph says, and decides what guests get of it.

    Args:
        config: parameters.
        calibration: finds the calibration of the arm.
        cameras: names those that somebody publishes now.
    """

    def __init__(
        self,
        config: LerobotConfig,
        calibration: Callable[[], ArmCalibration | None],
        cameras: Callable[[], Iterable[str]],
    ) -> None:
        self.config = config
        self._calibration, self._cameras = calibration, cameras
        self._news = threading.Condition()
        self._joints: tuple[float, FloatArray] | None = None
        self._pictures: dict[str, tuple[float, Pixels]] = {}
        self._arm: ArmView | None = None
        self._command: tuple[float, FloatArray] | None = None
        self._wanted: tuple[float, FloatArray] | None = None
        self._unheeded_s = self._moved_s = float('-inf')
        self._given: deque[FloatArray] = deque(maxlen=GIVEN)
        self._guests: list[Visitor] = []

    # --- told by the node ---

    def see_joints(self, positions: FloatArray, time_s: float) -> None:
        """Take measured positions (6,) [rad] in, and when they were measured on the monotonic clock."""
        with self._news:
            self._joints = time_s, positions
            self._news.notify_all()

    def see_picture(self, camera: str, pixels: Pixels, time_s: float) -> None:
        """Take a picture in, and when it was taken."""
        with self._news:
            self._pictures[camera] = time_s, pixels
            self._news.notify_all()

    def see_arm(self, arm: ArmView, lost: bool) -> None:
        """Take the state of the arm in, and whether the arm was lost since the one before."""
        with self._news:
            self._arm = arm
            if arm.moves:
                self._moved_s = time.monotonic()
            if lost or not arm.follows:
                self._wanted = None
                why = arm.sentence if not arm.follows else 'its driver was started again, or lost its bus'
                for guest in self._guests:
                    guest.trouble = guest.trouble or f'the arm has stopped: {why}'
            self._news.notify_all()

    def see_command(self, positions: FloatArray, time_s: float) -> None:
        """Take in where somebody else sends the joints (6,) [rad]."""
        with self._news:
            self._command = time_s, positions
            self._wanted = None

    def wanted(self) -> FloatArray | None:
        """Return where LeRobot sends the joints (6,) [rad], for as long as that counts."""
        with self._news:
            is_fresh = self._age(self._wanted, time.monotonic()) <= self.config.command_hold_s
            return self._wanted[1] if self._wanted is not None and is_fresh else None

    # --- asked by guests ---

    def enter(self) -> 'Visitor':
        """Return a new guest."""
        guest = Visitor(self)
        with self._news:
            self._guests.append(guest)
        return guest

    def leave(self, guest: 'Visitor') -> None:
        """Forget a guest, and what it was given."""
        with self._news:
            self._guests.remove(guest)
            if guest.role == ROBOT:
                self._wanted = None
            if guest.role == TELEOPERATOR:
                self._given.clear()

    def admit(self, guest: 'Visitor', role: str) -> None:
        """Let a guest be what it says.

        Raises:
            RefusedError: another one is that already.
        """
        if role == TELEOPERATOR and self.config.drives:
            raise RefusedError(Kind.REFUSED, NOBODY_ELSE)
        with self._news:
            if any(other.role == role for other in self._guests if other is not guest):
                raise RefusedError(
                    Kind.REFUSED,
                    f'another program of LeRobot is the {role} of this arm already, and there may be one; end it first',
                )
            guest.role = role

    def scale(self, units: str) -> JointScale:
        """Return how joint positions are said to a guest.

        Raises:
            RefusedError: the calibration cannot be found.
        """
        try:
            return JointScale(units, self._calibration())
        except CalibrationError as error:
            raise RefusedError(Kind.REFUSED, f'the calibration of the arm is needed: {error}') from error

    def pictures(self) -> dict[str, Pixels]:
        """Wait for a new picture of each camera.

        Raises:
            RefusedError: one shows nothing, or nothing new.
        """
        names = sorted(self._cameras())
        limit = self.config.picture_max_age_s
        self._wait(lambda now: all(self._age(self._pictures.get(n), now) <= limit for n in names))
        with self._news:
            now = time.monotonic()
            for name in names:
                if (age := self._age(self._pictures.get(name), now)) > limit:
                    raise RefusedError(
                        Kind.SILENT, f'{name} shows nothing new{_since(age)}; look at its node'
                    )
            return {name: self._pictures[name][1] for name in names}

    def joints(self) -> FloatArray:
        """Wait for new joint positions (6,) [rad].

        Raises:
            RefusedError: there are none.
        """
        limit = self.config.joints_max_age_s
        self._wait(lambda now: self._age(self._joints, now) <= limit)
        with self._news:
            age = self._age(self._joints, time.monotonic())
            if self._joints is None or age > limit:
                raise RefusedError(Kind.SILENT, f'the arm says nothing{_since(age)}; is arm_node running?')
            return self._joints[1]

    def begin(self, guest: 'Visitor') -> None:
        """Let a guest begin with what there is now.

        Raises:
            RefusedError: the arm is stopped or off.
        """
        self.joints()
        self._wait(lambda _: self._arm is not None and self._arm.follows)
        with self._news:
            guest.trouble = ''
            if self._arm is None or not self._arm.follows:
                said = 'nothing is known of its state' if self._arm is None else self._arm.sentence
                raise RefusedError(
                    Kind.STOPPED,
                    f'the arm cannot follow: {said}; enable it first, on the page or by arm/enable',
                )

    def target(self) -> FloatArray:
        """Return where the joints are sent (6,) [rad], or where they are, and remember it."""
        with self._news:
            is_sent = self._age(self._command, time.monotonic()) <= COMMAND_S
            sent = self._command[1] if self._command is not None and is_sent else None
        target = self.joints() if sent is None else sent
        with self._news:
            self._given.append(target)
        return target

    def command(self, goal: FloatArray) -> None:
        """Send the joints somewhere (6,) [rad]; the driver's gate has the last word.

        Raises:
            RefusedError: somebody else drives, or the arm does not follow.
        """
        with self._news:
            is_given = any(float(np.abs(goal - one).max()) <= SAME_RAD for one in self._given)
            is_sent = self._age(self._command, time.monotonic()) <= COMMAND_S
        if is_given:  # whoever drives has sent it
            return
        if not self.config.drives:
            raise RefusedError(Kind.REFUSED, OTHER_STACK)
        if is_sent:
            raise RefusedError(
                Kind.REFUSED, 'somebody else commands the joints on joint_command; end that first'
            )
        with self._news:
            self._heed()
            self._wanted = time.monotonic(), goal

    def _heed(self) -> None:
        """See whether the arm does what it is told."""
        now = time.monotonic()
        if self._age(self._wanted, now) > COMMAND_S:  # it is told to move again
            self._unheeded_s = now
        self._unheeded_s = max(self._unheeded_s, self._moved_s)
        if self._arm is not None and now - self._unheeded_s > FOLLOW_S:
            raise RefusedError(Kind.STOPPED, f'the arm does not follow: {self._arm.sentence}')

    def _wait(self, is_there: Callable[[float], bool]) -> None:
        with self._news:
            self._news.wait_for(lambda: is_there(time.monotonic()), self.config.patience_s)

    @staticmethod
    def _age(value: tuple[float, object] | None, now: float) -> float:
        return float('inf') if value is None else now - value[0]


class Visitor:
    """A guest: a robot or a teleoperator of one of LeRobot's programs.

    Attributes:
        role: one of `ROLES`, once it has said so.
        trouble: why the arm has stopped since the guest began.
    """

    def __init__(self, lobby: Lobby) -> None:
        self._lobby = lobby
        self._scale: JointScale | None = None
        self._asks = {
            'begin': self._begin,
            'observe': self._observe,
            'command': self._command,
            'target': self._target,
        }
        self.role = self.trouble = ''

    def answer(self, request: Json) -> tuple[Json, Pictures]:
        """Carry out a request; see `wire`.

        Raises:
            RefusedError: it is not carried out.
        """
        asked = request.get('ask')
        if asked == 'hello':
            return self._hello(request), {}
        if not isinstance(asked, str) or asked not in self._asks:
            known = ', '.join(('hello', *self._asks))
            raise RefusedError(Kind.WRONG, f'expected one of {known}, got {str(asked)[:40]!r}')
        if self._scale is None:
            raise RefusedError(Kind.WRONG, f'expected hello before {asked}')
        if self.trouble and asked != 'begin':
            raise RefusedError(Kind.STOPPED, self.trouble)
        return self._asks[asked](request, self._scale)

    def leave(self) -> None:
        """Nothing more comes."""
        self._lobby.leave(self)

    def _hello(self, request: Json) -> Json:
        version, role, units = (request.get(key) for key in ('version', 'role', 'units'))
        if version != VERSION:
            raise RefusedError(
                Kind.WRONG,
                f'expected version {VERSION}, got {str(version)[:40]}; install the plug-in of this checkout',
            )
        if role not in ROLES or units not in MOST:
            raise RefusedError(
                Kind.WRONG,
                f'expected a role out of {ROLES} and units out of {tuple(MOST)}, got {str(role)[:40]} and '
                f'{str(units)[:40]}',
            )
        self._lobby.admit(self, role)
        self._scale = self._lobby.scale(units)
        cameras = {name: list(pixels.shape) for name, pixels in self._lobby.pictures().items()}
        return {
            'version': VERSION,
            'joints': list(JOINT_NAMES),
            'cameras': cameras,
            'drives': self._lobby.config.drives,
        }

    def _begin(self, _: Json, __: JointScale) -> tuple[Json, Pictures]:
        self._lobby.begin(self)
        return {}, {}

    def _observe(self, _: Json, scale: JointScale) -> tuple[Json, Pictures]:
        pictures = self._lobby.pictures()  # first: they are what is waited for
        return _said(scale, self._lobby.joints()), pictures

    def _command(self, request: Json, scale: JointScale) -> tuple[Json, Pictures]:
        asked = joints_of(request, NUM_JOINTS)
        most = MOST[scale.units]
        if float(np.abs(asked[:-1]).max()) > 2.0 * most:
            raise RefusedError(
                Kind.WRONG, f'expected joints in {scale.units}, at most {most:.0f}, got {asked.tolist()}'
            )
        # What is half a turn and more away would come out at the other end.
        asked[:-1] = np.clip(asked[:-1], -most, most)
        asked[-1] = np.clip(asked[-1], 0.0, 100.0)
        self._lobby.command(scale.to_rad(asked[None])[0])
        return {'joints': asked.tolist()}, {}

    def _target(self, _: Json, scale: JointScale) -> tuple[Json, Pictures]:
        return _said(scale, self._lobby.target()), {}


def _said(scale: JointScale, positions: FloatArray) -> Json:
    return {'joints': scale.from_rad(positions[None])[0].tolist()}


def _since(age_s: float) -> str:
    return '' if age_s == float('inf') else f' for {age_s:.1f} s'

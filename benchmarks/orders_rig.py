# SPDX-License-Identifier: Apache-2.0
"""A running graph on the twin with a page, and what watches it: does the arm keep still, does each episode end?"""

import contextlib
from dataclasses import dataclass, field
import json
import signal
import socket
import threading
import time
from typing import Any

from graph_rig import GraphRig, Program, wait_until
import numpy as np
import numpy.typing as npt
from rclpy.serialization import deserialize_message
from sensor_msgs.msg import CameraInfo, JointState
from so101_interfaces.msg import ArmStatus, EpisodeEvent
from so101_interfaces.msg import SessionStatus as SessionStatusMessage
from so101_interfaces.srv import StartEpisode
from std_srvs.srv import SetBool, Trigger
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

from so101_contract.joints import JOINT_NAMES
from so101_contract.session import EventKind, SessionState, to_record
from so101_interfaces_py import qos, topics
from so101_interfaces_py.conversions import joint_positions

Array = npt.NDArray[np.float64]
PARAMETERS: dict[str, dict[str, Any]] = {
    # As on metal: nothing switches itself on, and the first episode waits for Start.
    'arm': {'enable_at_start': False, 'connect_timeout_s': 60.0, 'reading_timeout_s': 2.0},
    'session': {
        'autostart': False,
        'reward_source': 'operator',
        'time_limit_steps': 30,
        'no_answer_s': 1.0,
        'joint_timeout_s': 0.8,
        'reset_step_deg': 10.0,
        'reset_tolerance_m': 0.03,
    },
    'twin': {'camera_rate_hz': 0.0},
}
NODES = ('arm', 'kinematics', 'session', 'policy', 'console')
CAMERA_HZ = 20.0
CALL_S = 30.0
"""A service that is there and does not answer for so long is dead [s]."""

MOVES = (SessionState.RESETTING, SessionState.RUNNING)
"""States of the session in which the arm moves, once that was asked for."""


class Stillness:
    """Whether the arm moves although nobody has asked for it. Times are monotonic [s]; called by the node's thread.

    The arm may move while it is limp, and while an episode or a reset runs that was asked for since the last stop. In
    between it must stay where it came to rest. Where it was asked for, the news of the session may come a little later
    than the motion: one that turns out to be the beginning of an episode or a reset is none that nobody asked for.
    """

    tolerance_rad = 0.03
    settles_s = 0.4
    """After the end of a motion, or after its motors are on, the arm comes to rest within this time [s]."""

    learns_s = 5.0
    """So much later than the motion it may be known what it was [s]."""

    def __init__(self) -> None:
        self.asked = False
        self.farthest_rad = 0.0
        """Largest motion of a joint that was nobody's."""
        self.watched_s = 0.0
        """How long the arm had to keep still, with its motors on."""
        self.found: list[str] = []
        self._heard_s = np.inf
        self._arm: ArmStatus | None = None
        self._session: SessionStatusMessage | None = None
        self._restless_s = -np.inf
        self._rest: Array | None = None
        self._suspect: tuple[float, str] | None = None

    def arm(self, message: ArmStatus) -> None:
        """Hear what the arm says."""
        self._arm = message

    def session(self, message: SessionStatusMessage) -> None:
        """Hear what the session says."""
        self._session = message

    @property
    def limp(self) -> bool:
        """Whether its motors are off."""
        return self._arm is None or not all(self._arm.torque)

    def withdraw(self) -> None:
        """Note that what was asked for is taken back; what is under way comes to rest now."""
        self.asked, self._restless_s = False, time.monotonic()

    def entitled(self) -> None:
        """Note that what is asked for now may move the arm before anything tells of it."""
        self._restless_s = time.monotonic()

    def joints(self, data: bytes) -> None:
        """Hear where the joints are, and judge."""
        now, message = time.monotonic(), deserialize_message(data, JointState)
        if len(message.name) < len(JOINT_NAMES):
            return  # a servo is mute
        q = joint_positions(message, JOINT_NAMES)
        before, self._heard_s = self._heard_s, now
        if self._may_move():
            self._restless_s, self._suspect = now, None
        if now - self._restless_s < self.settles_s:
            self._rest = None
        elif self._rest is None:
            self._rest = q
        else:
            self.watched_s += max(0.0, now - before)
        if self._rest is None or self._rest is q:
            return
        if self._suspect is None:
            self._judge(now, q, self._rest)
        elif now - self._suspect[0] > self.learns_s:
            self.found.append(self._suspect[1])
            self._suspect, self._rest = None, None

    def _may_move(self) -> bool:
        if self.limp:
            return True
        if self._session is None or not self.asked:
            return False
        return to_record(self._session).state in MOVES

    def _judge(self, now: float, q: Array, rest: Array) -> None:
        moved = np.abs(q - rest)
        if moved.max() <= self.tolerance_rad:
            self.farthest_rad = max(self.farthest_rad, float(moved.max()))
            return
        said = self._session.sentence if self._session is not None else 'nothing'
        joint, when = JOINT_NAMES[int(moved.argmax())], 'between' if self.asked else 'before Start'
        sentence = f'{joint} moved by {moved.max():.2f} rad {when}; the session says: {said}'
        if self.asked:
            self._suspect = now, sentence
        else:
            self.found.append(sentence)
            self._rest = None


@dataclass
class Episodes:
    """Whether each episode that begins has an end; called by the node's thread."""

    begun: int = 0
    ended: int = 0
    killed: int = 0
    """Ended with their session."""
    lost: list[str] = field(default_factory=list)
    _open: int = 0

    def hear(self, event: EpisodeEvent) -> None:
        """Take an event of the session."""
        kind = EventKind(event.kind)
        if kind is EventKind.START:
            if self._open:
                self.lost.append(f'episode {self._open} has no end, and episode {event.episode} begins')
            self.begun, self._open = self.begun + 1, event.episode
        elif kind.outcome is not None and event.episode == self._open:
            self.ended, self._open = self.ended + 1, 0

    def session_killed(self) -> None:
        """Note that the session died: nobody is left to say how its episode ended."""
        self.killed += bool(self._open)
        self._open = 0

    @property
    def running(self) -> bool:
        """Whether one has begun and not ended."""
        return bool(self._open)


class Page:
    """A page as a browser has it: what it shows is in `now`, `ask` presses its buttons; it opens itself again."""

    def __init__(self, port: int) -> None:
        self.now: dict[str, Any] = {}
        self._port = port
        self._socket: ClientConnection | None = None
        self._open = True
        threading.Thread(target=self._read, daemon=True).start()

    def ask(self, what: str, **fields: Any) -> bool:
        """Press a button; return whether it was sent: without a connection it is not, as the page says."""
        with contextlib.suppress(ConnectionClosed, OSError):
            if self._socket is not None:
                self._socket.send(json.dumps({'do': what, **fields}))
                return True
        return False

    def close(self, *, for_good: bool = False) -> None:
        """Close it, as a browser's tab is closed."""
        self._open = self._open and not for_good
        if self._socket is not None:
            self._socket.close()

    def _read(self) -> None:
        address = f'127.0.0.1:{self._port}'
        while self._open:
            try:
                with connect(f'ws://{address}/live', origin=f'http://{address}', max_size=None) as opened:
                    self.now, self._socket = {}, opened
                    for text in opened:
                        if isinstance(text, str):
                            self._hear(json.loads(text))
            except (OSError, EOFError, ConnectionClosed, TimeoutError):
                pass
            self._socket, self.now = None, {}
            time.sleep(0.1)

    def _hear(self, message: dict[str, Any]) -> None:
        if message.get('type') == 'state':
            self.now = {**self.now, **message}


class OrdersRig(GraphRig):
    """The graph as on metal, with a camera that costs nothing, a page, and the two watchers."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(('127.0.0.1', 0))
            port = int(probe.getsockname()[1])
        super().__init__(*NODES, parameters={**PARAMETERS, 'console': {'port': port, 'camera_rate_hz': 0.0}})
        self.stillness, self.episodes, self.page = Stillness(), Episodes(), Page(port)
        self.deaths: list[str] = []

    def start(self, name: str) -> Program:
        """Start a node; the client is there before all but the twin, so that it hears everything."""
        if name == self._nodes[0] and name not in self.programs:
            self._watch()
        return super().start(name)

    def _watch(self) -> None:
        node, still = self.ear.node, self.stillness
        node.create_subscription(JointState, topics.JOINT_STATES, still.joints, qos.EVENT, raw=True)
        node.create_subscription(ArmStatus, topics.ARM_STATUS, still.arm, qos.LATCHED_EVERY)
        node.create_subscription(
            SessionStatusMessage, topics.SESSION_STATUS, still.session, qos.LATCHED_EVERY
        )
        node.create_subscription(EpisodeEvent, topics.EPISODE_EVENT, self.episodes.hear, qos.EVENT)
        camera = node.create_publisher(CameraInfo, 'gripper_cam/camera_info', qos.IMAGE)
        message = CameraInfo()

        def picture() -> None:
            message.header.stamp = node.get_clock().now().to_msg()
            camera.publish(message)

        node.create_timer(1.0 / CAMERA_HZ, picture)
        self._clients = {
            name: node.create_client(kind, name)
            for name, kind in (
                (topics.START_EPISODE_SERVICE, StartEpisode),
                (topics.RESET_SERVICE, Trigger),
                (topics.ARM_ENABLE_SERVICE, SetBool),
                (topics.ARM_E_STOP_SERVICE, SetBool),
                ('sim/unplug', SetBool),
            )
        }

    def ask(self, name: str, request: Any) -> bool:
        """Call a service whose node may be dead just now; return whether it was done."""
        client = self._clients[name]
        if not client.service_is_ready():
            return False
        future = client.call_async(request)
        with contextlib.suppress(TimeoutError):
            wait_until(future.done, CALL_S, f'{name} answers', every_s=0.002)
        return bool(future.done() and future.result().success)

    def switch(self, name: str, on: bool) -> bool:
        """Call a service that takes true or false."""
        return self.ask(name, SetBool.Request(data=on))

    def kill(self, name: str) -> None:
        """Kill a node and start it again, as a supervisor does."""
        self.programs[name].send(signal.SIGKILL)
        self.programs[name].end()
        if name == 'session':
            self.episodes.session_killed()
        self.start(name)

    def look(self) -> None:
        """Note each node that has died by itself, and start it again."""
        for name in NODES:
            if self.programs[name].code is not None:
                last = list(self.programs[name].lines)[-3:]
                self.deaths.append(f'{name} ended with code {self.programs[name].code}: {" / ".join(last)}')
                self.start(name)

    def __exit__(self, *error: Any) -> None:
        self.page.close(for_good=True)
        super().__exit__(*error)

# SPDX-License-Identifier: Apache-2.0
"""Payloads that nobody asked for, to every node of the running stack: who ends, which page is silent, what moves."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path
import tempfile
import threading
import time
from types import TracebackType
from typing import Any, Self

from faults_core import Bound, Fault, Outcome
from graph_rig import wait_until
import numpy as np
from rcl_interfaces.msg import Parameter, ParameterValue
from rcl_interfaces.srv import SetParameters
import rclpy
from rclpy.node import Node
from so101_interfaces.msg import SessionStatus, TaskReport
from so101_interfaces.srv import ComputeFk, ComputeIk, EndEpisode, StartEpisode
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Origin

from so101_contract.session import SessionState, to_record
from so101_interfaces_py import qos, topics
from so101_interfaces_py.node import read_message
from so101_interfaces_py.spin import executor_for
from so101_testing.console_rig import ConsoleRig, PATIENT
from so101_testing.payloads import Flood

START_S, ASK_AGAIN_S = 120.0, 5.0
PAUSE_S = 0.02
"""Between two payloads on a topic: nodes that are overrun hear less of them."""

STILL_M = 0.002
"""A hand that stays this close to where it was has not moved; the motors hold it against its weight."""

SILENT_S = 3.0
UNHEARD = ('/rosout', '/parameter_events')
NODES = ('session', 'recorder', 'policy', 'learner', 'teleop', 'operator')


class PayloadRig:
    """The whole stack on the twin, waiting for Start with its motors on, and one open page; a context manager."""

    def __init__(self, payloads: int) -> None:
        self.payloads = payloads
        self._directory = tempfile.TemporaryDirectory(prefix='so101-payloads-')
        arm = {**PATIENT['arm'], 'command_timeout_s': 1.0}
        self._graph = ConsoleRig('arm', 'kinematics', parameters={'arm': arm})
        self._hand: list[tuple[float, float, float]] = []
        self._status: Any = None
        self._told_s = self._longest_s = 0.0
        self._page_open = True

    def __enter__(self) -> Self:
        folder = Path(self._directory.name)
        rclpy.init()
        self.node = Node('stranger')
        self.flood = Flood(self.node)
        self._graph.__enter__()
        options: dict[str, dict[str, Any]] = {
            'session': {
                'auto': False,
                'reward_source': 'sim',
                'joint_timeout_s': 5.0,
                'camera_timeout_s': 5.0,
            },
            'recorder': {'out': folder / 'bags'},
            'policy': {'policy': 'default'},
            'learner': {'directory': folder / 'run'},
            'teleop': {'device': 'joy'},
            'operator': {'mode': 'intervene'},
        }
        for name in NODES:
            self._graph.add(name, **options[name])
        address = self._graph.console(bags=folder / 'bags')
        self._listen()
        wait_until(lambda: self._hand and self._status, START_S, 'the twin and the session have spoken')
        wait_until(lambda: len(self.node.get_node_names()) > len(NODES) + 4, START_S, 'every node is there')
        self._socket = connect(address.replace('http', 'ws') + '/live', origin=Origin(address))
        self._told_s = time.monotonic()
        threading.Thread(target=self._watch, daemon=True).start()
        time.sleep(3.0)  # the motors are on, and the arm has come to rest
        self.topics = self.flood.look(UNHEARD.__contains__)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._page_open = False
        self._socket.close()
        self._graph.__exit__(kind, error, trace)
        self._open = False
        self._thread.join()
        rclpy.try_shutdown()
        self._directory.cleanup()

    def _listen(self) -> None:
        for kind, topic, hear in (
            (TaskReport, topics.SIM_TASK, self._on_task),
            (SessionStatus, topics.SESSION_STATUS, self._on_status),
        ):
            profile = qos.LATCHED if topic == topics.SESSION_STATUS else qos.STATE_PUBLISHER
            self.node.create_subscription(kind, topic, hear, profile, raw=True)
        self._executor, self._open = executor_for(self.node), True
        self._executor.add_node(self.node)
        self._thread = threading.Thread(target=self._spin, daemon=True)
        self._thread.start()

    def _spin(self) -> None:
        while self._open:
            self._executor.spin_once(timeout_sec=0.1)

    def _on_task(self, data: bytes) -> None:
        if hash(data) not in self.flood.own:
            point = read_message(data, TaskReport).tcp
            self._hand.append((point.x, point.y, point.z))

    def _on_status(self, data: bytes) -> None:
        if hash(data) not in self.flood.own:
            self._status = to_record(read_message(data, SessionStatus))

    def _watch(self) -> None:
        try:
            while True:
                if isinstance(self._socket.recv(), str):
                    now = time.monotonic()
                    self._longest_s, self._told_s = max(self._longest_s, now - self._told_s), now
        except ConnectionClosed:
            self._longest_s = self._longest_s if not self._page_open else float('inf')

    # --- what a row asks for ---

    def say(self, text: str | bytes) -> None:
        """Send something over the page's socket."""
        self._socket.send(text)

    def call(self, kind: Any, name: str, request: Any) -> Any:
        """Call a service and return its answer."""
        client = self.node.create_client(kind, name)
        wait_until(client.service_is_ready, 30.0, f'{name} is offered')
        future = client.call_async(request)
        wait_until(future.done, 30.0, f'{name} answers')
        self.node.destroy_client(client)
        return future.result()

    def start(self) -> float:
        """Begin an episode, and return how long it takes until the policy has answered some steps [s]."""
        self.flood.close()
        began, before, asked_s = time.monotonic(), self._status.answers['policy'], float('-inf')
        client = self.node.create_client(StartEpisode, topics.START_EPISODE_SERVICE)

        def drives() -> bool:
            nonlocal asked_s
            waits = self._status.state is SessionState.WAITING and time.monotonic() - asked_s > ASK_AGAIN_S
            if waits and client.service_is_ready():  # an answer may be lost while both sides still meet
                asked_s = time.monotonic()
                client.call_async(StartEpisode.Request())
            return bool(self._status.answers['policy'] > before + 5)

        try:
            return wait_until(drives, START_S, 'the policy drives') - began
        except TimeoutError as error:
            raise TimeoutError(f'{error}; the session says: {self._status.sentence}') from error

    def judge(self, outcome: Outcome, since: int) -> None:
        """Count who has ended, whether the page is silent, and whether the hand has moved since a sample."""
        time.sleep(1.0)
        dead = [
            name for name in (*NODES, 'twin', 'arm', 'kinematics', 'console') if not self._graph.running(name)
        ]
        silent = max(self._longest_s, time.monotonic() - self._told_s)
        moved = float(np.linalg.norm(np.array(self._hand[since:]) - self._hand[since], axis=1).max())
        outcome.claim(not dead, f'ended: {", ".join(dead)}')
        outcome.claim(silent < SILENT_S, f'the page was silent for {silent:.1f} s')
        outcome.claim(moved < STILL_M, f'the hand moved by {1e3 * moved:.1f} mm')
        outcome.value = len(outcome.wrong)
        outcome.note += f'longest silence of the page {silent:.2f} s, the hand moved {1e3 * moved:.2f} mm'
        self._longest_s = 0.0

    @property
    def sample(self) -> int:
        """How often the hand has been seen."""
        return len(self._hand) - 1


NOTHING_BAD = Bound(0.0, 'bad')
EXPECTED = 'no node ends, the page goes on, the hand stays where it is; deaths, silent pages and motions'


def _flooded(sort: str) -> Callable[[PayloadRig, Outcome], None]:
    def measure(rig: PayloadRig, outcome: Outcome) -> None:
        since, sent = rig.sample, 0
        while sent < rig.payloads:
            rig.flood.send(sort)
            sent += len(rig.topics)
            time.sleep(PAUSE_S)
        outcome.note = f'{sent} payloads on {len(rig.topics)} topics; '
        rig.judge(outcome, since)

    return measure


WORDS = (
    '',
    '{',
    'null',
    '[1]',
    '[' * 1900,
    '{"do": 3}',
    '{"do":"drive","axes":"x"}',
    '9' * 1900,
    '\0',
    'x' * 3000,
)
WORDS += (
    '{"do":"drive","axes":[1e999,0,0]}',
    '{"do":"drive","axes":[NaN,0,0]}',
    '{"do":["e_stop"]}',
    '{"do":"drive"}',
)


def _page(rig: PayloadRig, outcome: Outcome) -> None:
    since, sent = rig.sample, 0
    for _ in range(20):
        for word in (*WORDS, *(word.encode() for word in WORDS)):
            rig.say(word)
            sent += 1
            time.sleep(PAUSE_S / 4)
    outcome.note = f'{sent} messages; '
    rig.judge(outcome, since)


def _requests(rig: PayloadRig, outcome: Outcome) -> None:
    since, sent = rig.sample, 0
    far = ComputeIk.Request()
    far.target.position.x, far.mode = 1e308, 200
    nowhere = ComputeFk.Request()
    nowhere.joints.name, nowhere.joints.position = ['x'] * 6, [float('nan')] * 6
    requests: list[tuple[Any, str, Any]] = [
        (ComputeIk, topics.IK_SERVICE, far),
        (ComputeFk, topics.FK_SERVICE, nowhere),
        (EndEpisode, topics.END_EPISODE_SERVICE, EndEpisode.Request(outcome=200, reason='x' * 100_000)),
        (EndEpisode, topics.END_EPISODE_SERVICE, EndEpisode.Request(outcome=1, episode=2**32 - 1)),
    ]
    for node in rig.node.get_node_names():
        if node != rig.node.get_name():
            odd = Parameter(name='rate_hz', value=ParameterValue(type=200))
            odd_names = [
                odd,
                Parameter(name='no_such', value=ParameterValue(type=4, string_value='x' * 10_000)),
            ]
            asked = SetParameters.Request(parameters=odd_names)
            requests.append((SetParameters, f'/{node}/set_parameters', asked))
    for kind, name, request in requests:
        answer = rig.call(kind, name, request)
        outcome.claim(not getattr(answer, 'success', False), f'{name} has taken a senseless request')
        sent += 1
    outcome.note = f'{sent} requests; '
    rig.judge(outcome, since)


def _afterwards(rig: PayloadRig, outcome: Outcome) -> None:
    outcome.value = rig.start()
    outcome.note = f'after {sum(map(Counter.total, rig.flood.sent.values()))} payloads in all'


SORTS = {
    'bytes': 'random bytes, none to 4000 of them, among them four',
    'damaged': 'messages of odd values, cut, stretched, with other bytes and other lengths',
    'odd': 'whole messages: NaN, 1e38, unknown kinds and states, arrays of other lengths, endless texts',
    'stamps': 'whole messages of an hour ago and ahead, of 1901 and 2038, without a stamp',
    'copies': 'the last payload once more',
}
ODD_REQUESTS = 'unknown kinds, NaN, 1e308, endless texts, parameters of a type that there is not'
FAULTS = [
    *(Fault(s, f'payloads: {s}', what, EXPECTED, NOTHING_BAD, _flooded(s)) for s, what in SORTS.items()),
    Fault(
        'page', 'messages of a page', 'no JSON, deep JSON, other types, bytes', EXPECTED, NOTHING_BAD, _page
    ),
    Fault('requests', 'requests', ODD_REQUESTS, EXPECTED, NOTHING_BAD, _requests),
    Fault(
        'afterwards',
        'Start after all of them',
        'nothing more',
        'an episode begins, and the policy answers its steps; time of both, way to the start included',
        Bound(60.0, 's'),
        _afterwards,
    ),
]

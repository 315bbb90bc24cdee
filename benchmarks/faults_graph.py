# SPDX-License-Identifier: Apache-2.0
"""Faults of the running graph: each node in turn is killed, or frozen; the camera hangs; the human's device dies."""

from collections.abc import Callable
from dataclasses import dataclass
import signal
import time

from faults_core import Bound, Fault, Outcome
from graph_rig import GraphRig, wait_until
import numpy as np
from so101_interfaces.msg import EeDelta
from std_srvs.srv import SetBool

from so101_contract.session import Driver
from so101_interfaces_py import topics

STILL_M = 0.002
"""A TCP that is this close to where it stays is at rest."""

LOOK_S = 1.5
FROZEN_S = 4.0
AT_REST = Bound(0.8, 's')
RESUME_S = 45.0

Cause = Callable[[GraphRig], None]


def rest_s(rig: GraphRig, since_s: float, until_s: float) -> float:
    """Return when the TCP was at rest [s], as the ground truth of the twin has it."""
    seen = rig.ear.since(topics.SIM_TASK, since_s, until_s)
    points = np.array([[message.tcp.x, message.tcp.y, message.tcp.z] for _, message in seen])
    times = np.array([at for at, _ in seen])
    moving = np.linalg.norm(points - points[-1], axis=1) > STILL_M
    return float(times[np.flatnonzero(moving)[-1]]) if moving.any() else since_s


def said(rig: GraphRig, since_s: float, words: str) -> str:
    """Return the session's first sentence with these words (or these: separated by |) since a time, or nothing."""
    events = [message.reason for _, message in rig.ear.since(topics.EPISODE_EVENT, since_s)]
    statuses = [m.sentence for _, m in rig.ear.since(topics.SESSION_STATUS, since_s)]
    return next(
        (sentence for sentence in [*events, *statuses] if any(some in sentence for some in words.split('|'))),
        '',
    )


def moving(rig: GraphRig) -> None:
    """Wait until the policy moves the arm."""
    rig.running(RESUME_S, beyond=5)


def stop(rig: GraphRig, name: str, freeze: bool) -> float:
    """Kill or freeze a node; return when [s]."""
    return rig.programs[name].send(signal.SIGSTOP if freeze else signal.SIGKILL)


def go_on(rig: GraphRig, name: str, freeze: bool) -> None:
    """Thaw it, or start it again."""
    if freeze:
        rig.programs[name].send(signal.SIGCONT)
    else:
        rig.start(name)


def enable(rig: GraphRig) -> None:
    """Enable the arm as a human does after a fault, as soon as it lets itself be enabled."""

    def enabled() -> bool:
        answer = rig.ear.call(SetBool, topics.ARM_ENABLE_SERVICE, SetBool.Request(data=True))
        return bool(answer.success)

    wait_until(enabled, RESUME_S, 'the arm lets itself be enabled')


def _node(
    name: str, freeze: bool, words: str, after: Cause | None = None
) -> Callable[[GraphRig, Outcome], None]:
    def measure(rig: GraphRig, outcome: Outcome) -> None:
        moving(rig)
        at = stop(rig, name, freeze)
        time.sleep(LOOK_S)
        end = time.monotonic()
        if name == 'twin':  # it is the arm's hardware: what is measured is when commands end
            last = [at_ for at_, _ in rig.ear.since(topics.EE_DELTA_CMD, at)]
            outcome.value = (max(last) if last else at) - at
        else:
            # A reset that follows the end of the episode moves the arm again.
            resets = [t for t, m in rig.ear.since(topics.EPISODE_EVENT, at, end) if m.kind == m.RESET_START]
            outcome.value = rest_s(rig, at, min([end, *resets])) - at
        if words:
            wait_until(lambda: said(rig, at, words), 8.0, f'the session says "{words}"')
            outcome.note = said(rig, at, words)
        time.sleep(max(0.0, at + FROZEN_S - time.monotonic()))
        back = time.monotonic()
        go_on(rig, name, freeze)
        if after is not None:
            after(rig)
        _resumed(rig, outcome, back)
        if name == 'session' and freeze:
            sentence = said(rig, back, 'stood still')
            outcome.claim(sentence, 'the session does not say that it stood still')
            outcome.note = f'{sentence}; {outcome.note}'

    return measure


def _resumed(rig: GraphRig, outcome: Outcome, since_s: float) -> None:
    """Note how long it takes until steps come again."""
    by_hand: list[str] = []

    def steps_come() -> bool:
        # Who stopped the arm has to ask for motion again; a machine without time for the virtual bus stops it too.
        by_hand.append(rig.keep_going())
        return len(rig.ear.since(topics.STEP, since_s)) > 5 and any(
            message.source == EeDelta.SOURCE_POLICY
            for _, message in rig.ear.since(topics.EE_DELTA_CMD, since_s)
        )

    took = wait_until(steps_come, RESUME_S, 'the policy drives again') - since_s
    outcome.note += f'{"; " if outcome.note else ""}drives again {took:.1f} s later'
    done = [what for what in ('enabled', 'started') if what in by_hand]
    outcome.note += f', {" and ".join(done)} by hand' if done else ''


def _camera(rig: GraphRig, outcome: Outcome) -> None:
    moving(rig)
    at = time.monotonic()
    rig.ear.call(SetBool, 'sim/freeze_camera', SetBool.Request(data=True))
    time.sleep(LOOK_S)
    outcome.value = rest_s(rig, at, time.monotonic()) - at
    outcome.note = said(rig, at, 'has sent no image for')
    outcome.claim(outcome.note, 'the session does not say that the camera hangs')
    back = time.monotonic()
    rig.ear.call(SetBool, 'sim/freeze_camera', SetBool.Request(data=False))
    _resumed(rig, outcome, back)


def _device(rig: GraphRig, outcome: Outcome) -> None:
    """A human takes over, moves the arm, and the device dies."""
    moving(rig)
    rig.ear.intervene(True)
    end = time.monotonic() + 1.0
    while time.monotonic() < end:
        message = EeDelta(gripper=0.5, source=EeDelta.SOURCE_TELEOP)
        message.header.frame_id = 'base_link'
        message.header.stamp = rig.ear.node.get_clock().now().to_msg()
        message.translation.y = 0.008 if end - time.monotonic() > 0.5 else -0.008
        rig.ear.teleop.publish(message)
        time.sleep(0.02)
    at = time.monotonic()
    time.sleep(LOOK_S)
    outcome.value = rest_s(rig, at, time.monotonic()) - at
    late = {message.source for _, message in rig.ear.since(topics.EE_DELTA_CMD, at + 0.6)}
    outcome.claim(late <= {EeDelta.SOURCE_NONE}, f'somebody drives: sources {late}')
    status = rig.ear.status()
    assert status is not None
    outcome.claim(status.driver is Driver.NOBODY, f'the session says that {status.driver} drives')
    back = time.monotonic()
    rig.ear.intervene(False)
    _resumed(rig, outcome, back)


@dataclass(frozen=True)
class Node:
    """A node of the graph, and what is expected when it stops.

    Attributes:
        name: in the rig.
        title: for people.
        expected: what must happen.
        words: part of the sentence in which the session reports it; empty where it cannot.
        after: what a human has to do afterwards, if anything.
        bound: for the time until rest.
    """

    name: str
    title: str
    expected: str
    words: str
    after: Cause | None = None
    bound: Bound = AT_REST

    def row(self, freeze: bool) -> Fault[GraphRig]:
        """Return its row."""
        return Fault(
            f'{"freeze" if freeze else "kill"}_{self.name}',
            f'{self.title} {"frozen" if freeze else "killed"}',
            'SIGSTOP for 4 s, then SIGCONT' if freeze else 'kill -9, started again after 4 s',
            self.expected,
            self.bound,
            _node(self.name, freeze, self.words, self.after),
        )


REST = 'the arm is at rest; the episode is cut short'
NODES = (
    Node('policy', 'policy_node', REST, 'the policy has not answered for|waits for a policy or a human'),
    Node('kinematics', 'kinematics_node', REST, 'no tcp_pose for'),
    Node('session', 'session_node', 'the arm is at rest', ''),
    Node('arm', 'arm_node', 'the servos hold; the episode is cut short', 'the arm'),
    Node(
        'twin',
        'twin_node (the hardware)',
        'no more actions; the episode is cut short',
        'the arm',
        enable,
        Bound(1.5, 's'),
    ),
)
FAULTS: tuple[Fault[GraphRig], ...] = (
    *(node.row(freeze) for node in NODES for freeze in (False, True)),
    Fault(
        'camera',
        'camera hangs',
        'sim/freeze_camera for 1.5 s',
        'the arm is at rest; the episode is cut short',
        Bound(1.2, 's'),
        _camera,
    ),
    Fault(
        'device',
        'device of the human dies',
        'a human takes over, moves the arm for 1 s; then no more messages; gives back 1.5 s later',
        'the arm is at rest; nobody drives until the human gives back',
        Bound(0.9, 's'),
        _device,
    ),
)

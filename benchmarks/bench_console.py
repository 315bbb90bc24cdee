# SPDX-License-Identifier: Apache-2.0
"""What the operator's page costs and how quickly it acts, on the running twin graph with real browsers.

Measured: processor time of console_node without a page, with one and with two, as a share of one core; pictures
per second that a page gets; the time from the stop key to the arm's own word that it has stopped; the time from the
end of a page that drives to the last motion of its target and of the hand; the regularity of the session's clock
without a page and with two. The last line is one JSON object; the exit code is 1 if a bound is exceeded.
"""

import os
from pathlib import Path
import sys
import time
from typing import Any

from graph_rig import Ear, wait_until
import numpy as np
from processes import isolate
from report import Parser, Report, Row
from rich.progress import track
from so101_interfaces.msg import ArmStatus

from so101_contract.joints import JOINT_NAMES
from so101_interfaces_py import topics
from so101_interfaces_py.conversions import joint_positions
from so101_kinematics.fk import ForwardKinematics
from so101_testing.console_rig import browser, ConsoleRig, PATIENT

BOUND_CORE = 0.15
BOUND_STOP_S = 0.2
SETTLE_S = 5.0
"""After something has started, until it is measured [s]."""
BOUND_HOLD_S = 0.3
AT_REST_M_S = 0.02
"""Speed below which the hand counts as at rest, as mean over `WINDOW_S` [m/s]."""
WINDOW_S = 0.05
STARTED = (ArmStatus.ENABLED, ArmStatus.HOLD)


def processor_s(pid: int) -> float:
    """Return the processor time that a process has used [s]."""
    fields = Path(f'/proc/{pid}/stat').read_text(encoding='utf-8').rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def share(pid: int, seconds: float) -> float:
    """Return the share of one core that a process uses for a while."""
    began, used = time.monotonic(), processor_s(pid)
    for _ in track(range(int(seconds)), description=f'process {pid}', transient=True):
        time.sleep(1.0)
    return (processor_s(pid) - used) / (time.monotonic() - began)


def state(ear: Ear) -> int:
    """Return what the arm says of itself."""
    kept = ear.heard[topics.ARM_STATUS]
    return int(kept[-1][1].state) if kept else -1


def make_ready(ear: Ear, page: Any) -> None:
    """Clear and enable by the page's buttons, as a human does."""
    deadline = time.monotonic() + 60.0
    while state(ear) not in STARTED:
        if time.monotonic() > deadline:
            raise TimeoutError('expected the motors on within 60 s')
        if state(ear) in (ArmStatus.E_STOP, ArmStatus.FAULT):
            page.click('#recover [data-do="clear"]')
        elif state(ear) == ArmStatus.DISABLED:
            page.click('#recover [data-do="enable"]')
        page.wait_for_timeout(300)


def make_run(ear: Ear, page: Any) -> None:
    """Press Start where the session waits for it, until an episode runs."""
    deadline = time.monotonic() + 60.0
    while (status := ear.status()) is None or status.state != 'running':
        if time.monotonic() > deadline:
            raise TimeoutError('expected an episode to run within 60 s')
        if status is not None and status.state == 'waiting':
            page.keyboard.press('n')
        page.wait_for_timeout(300)


def stop_once(ear: Ear, page: Any) -> float:
    """Press the stop key and return when the arm said that it has stopped [s]."""
    make_ready(ear, page)
    page.wait_for_timeout(200)
    pressed = time.monotonic()
    page.keyboard.press('Space')
    wait_until(lambda: state(ear) == ArmStatus.E_STOP, 10.0, 'the arm has stopped')
    heard = ear.since(topics.ARM_STATUS, pressed)
    return next(at for at, message in heard if message.state == ArmStatus.E_STOP) - pressed


def open_page(view: Any, address: str) -> tuple[Any, float]:
    """Open a page; return it and how long it took until it could be used [s]."""
    began = time.monotonic()
    page = view.new_page(viewport={'width': 1280, 'height': 720})
    page.goto(address)
    page.wait_for_selector('#servos tr')
    page.wait_for_selector('.frame:not(.stale)')
    return page, time.monotonic() - began


def last_motion(ear: Ear, topic: str, since_s: float) -> float:
    """Return when the hand, as the joints of a topic have it, moved for the last time, counted from there [s]."""
    fk = ForwardKinematics()
    heard = ear.since(topic, since_s - 2.0 * WINDOW_S)
    at = np.array([moment for moment, _ in heard])
    hand = np.array(
        [fk.position(np.array(joint_positions(message, JOINT_NAMES))[:5]) for _, message in heard]
    )
    before = np.searchsorted(at, at - WINDOW_S)
    way = np.linalg.norm(hand - hand[before], axis=1)
    # Where a motion ends, the window still reaches back into it: what counts is when it began to be at rest.
    moving = at[before[(way > AT_REST_M_S * WINDOW_S) & (at[before] > since_s)]]
    return float(moving[-1] - since_s) if len(moving) else 0.0


def close_once(ear: Ear, view: Any, address: str) -> tuple[float, float]:
    """Close a page in the middle of a motion; return how long target and hand went on moving [s]."""
    page, _ = open_page(view, address)
    make_ready(ear, page)
    make_run(ear, page)
    page.keyboard.press('t')
    wait_until(lambda: ear.status().driver == 'human', 20.0, 'the human drives')
    joints = ear.since(topics.JOINT_STATES, time.monotonic() - 1.0)[-1][1]
    low = ForwardKinematics().position(np.array(joint_positions(joints, JOINT_NAMES))[:5])[2] < 0.12
    page.keyboard.down('r' if low else 'f')
    page.wait_for_timeout(700)
    closed = time.monotonic()
    page.close()
    wait_until(lambda: ear.status().driver == 'nobody', 20.0, 'nobody drives')
    time.sleep(1.5)  # whatever still moves shows it
    return tuple(last_motion(ear, topic, closed) for topic in (topics.JOINT_COMMAND, topics.JOINT_STATES))


def measure(seconds: float, stops: int, closes: int) -> dict[str, Any]:
    """Run everything and return the figures."""
    found: dict[str, Any] = {}
    with ConsoleRig('arm', 'kinematics', parameters=PATIENT) as stage, browser() as view:
        ear = Ear()
        try:
            stage.add('session', time_limit_steps=100_000, joint_timeout_s=5.0, camera_timeout_s=5.0)
            stage.add('policy', policy='default')
            address = stage.console()
            pid = stage.pid('console')
            wait_until(lambda: state(ear) >= 0, 60.0, 'the arm speaks')
            wait_until(
                lambda: ear.status() is not None and ear.status().driver == 'policy',
                60.0,
                'the policy drives',
            )
            time.sleep(SETTLE_S)
            began = time.monotonic()
            found['core_no_page'] = share(pid, seconds)
            found['jitter_no_page_s'] = ear.jitter(began)
            page, found['usable_s'] = open_page(view, address)
            make_ready(ear, page)
            page.evaluate('window.shown = 0')
            page.evaluate(
                "document.getElementById('camera').addEventListener('load', () => { window.shown += 1; })"
            )
            began = time.monotonic()
            found['core_one_page'] = share(pid, seconds)
            found['pictures_hz'] = page.evaluate('window.shown') / (time.monotonic() - began)
            other, _ = open_page(view, address)
            time.sleep(SETTLE_S)
            began_two = time.monotonic()
            found['core_two_pages'] = share(pid, seconds)
            found['jitter_two_pages_s'] = ear.jitter(began_two)
            other.close()
            found['stops_s'] = [stop_once(ear, page) for _ in range(stops)]
            make_ready(ear, page)
            page.close()
            found['holds_s'] = [close_once(ear, view, address) for _ in range(closes)]
        finally:
            ear.close()
    return found


def main() -> int:
    """Measure and print."""
    parser = Parser(__doc__)
    parser.number('--seconds', 15.0, 'of each share', quick=3.0)
    parser.number('--stops', 20, 'presses of the stop key', quick=2)
    parser.number('--closes', 10, 'pages closed in the middle of a motion', quick=2)
    arguments = parser.parse_args()
    isolate()
    found = measure(arguments.seconds, arguments.stops, arguments.closes)
    stops, targets, hands = found['stops_s'], *zip(*found['holds_s'], strict=True)
    shares = (('one page', 'one_page'), ('two pages', 'two_pages'), ('no page', 'no_page'))
    rows = [
        Row(f'processor with {title}', '% of one core', 1, 100.0 * found[f'core_{key}']).beside(
            'bound', 100.0 * BOUND_CORE
        )
        for title, key in shares
    ]
    stop = Row.of('stop key to a stopped arm', 'ms', stops, 1e3).beside('bound', 1e3 * BOUND_STOP_S)
    rows += [
        Row.of('page gone to the last motion of its target', 'ms', targets, 1e3).beside(
            'bound', 1e3 * BOUND_HOLD_S
        ),
        Row.of('page gone to a hand at rest', 'ms', hands, 1e3),
        Row.of('jitter of the step without a page', 'ms', found['jitter_no_page_s'], 1e3),
        Row.of('jitter of the step with two pages', 'ms', found['jitter_two_pages_s'], 1e3),
    ]
    rows += [stop, Row('pictures of one page', 'a second', 1, found['pictures_hz'])]
    good = max(found['core_one_page'], found['core_two_pages']) <= BOUND_CORE and (stop.ratio or 0.0) >= 1.0
    good = good and float(np.median(targets)) <= BOUND_HOLD_S
    return Report('console', rows, passed=good, details=found).finish(arguments)


if __name__ == '__main__':
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""What the operator's page costs and how quickly it acts, on the running twin graph with real browsers.

Measured: processor time of console_node without a page, with one and with two, as a share of one core; pictures
per second that a page gets; the time from the stop key to the arm's own word that it has stopped; the regularity of
the session's clock with two pages open. The last line is one JSON object; the exit code is 1 if a bound is exceeded.
"""

import argparse
import json
import os
from pathlib import Path
import sys
import time
from typing import Any

from faults_rig import isolate
from graph_rig import Ear, wait_until
import numpy as np
from rich.console import Console
from rich.progress import track
from so101_interfaces.msg import ArmStatus

from so101_console.stage import browser, PATIENT, Stage
from so101_interfaces_py import topics

BOUND_CORE = 0.15
BOUND_STOP_S = 0.2
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
    """Clear and enable by the page's buttons, as a person does."""
    deadline = time.monotonic() + 60.0
    while state(ear) not in STARTED:
        if time.monotonic() > deadline:
            raise TimeoutError('expected the motors on within 60 s')
        if state(ear) in (ArmStatus.E_STOP, ArmStatus.FAULT):
            page.click('#recover [data-do="clear"]')
        elif state(ear) == ArmStatus.DISABLED:
            page.click('#recover [data-do="enable"]')
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


def measure(seconds: float, stops: int) -> dict[str, Any]:
    """Run everything and return the figures."""
    found: dict[str, Any] = {}
    with Stage('arm', 'kinematics', parameters=PATIENT) as stage, browser() as view:
        ear = Ear()
        try:
            stage.add('session', time_limit_steps=100_000, joint_timeout_s=5.0, camera_timeout_s=5.0)
            stage.add('policy', policy='default')
            address = stage.console()
            pid = stage.pid('console')
            wait_until(lambda: state(ear) >= 0, 60.0, 'the arm speaks')
            found['core_no_page'] = share(pid, seconds)
            status = ear.status()
            found['session_jitter_p99_no_page_ms'] = None if status is None else status.jitter_p99_ms
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
            found['core_two_pages'] = share(pid, seconds)
            status = ear.status()
            found['session_jitter_p99_two_pages_ms'] = None if status is None else status.jitter_p99_ms
            other.close()
            found['stops_s'] = [stop_once(ear, page) for _ in range(stops)]
        finally:
            ear.close()
    return found


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--seconds', type=float, default=15.0, help='of each share (default: %(default)s)')
    parser.add_argument(
        '--stops', type=int, default=20, help='presses of the stop key (default: %(default)s)'
    )
    parser.add_argument('--json', help='write the JSON object here too')
    arguments = parser.parse_args()
    isolate()
    out = Console(stderr=True)
    found = measure(arguments.seconds, arguments.stops)
    stops = np.array(found.pop('stops_s'))
    result = {
        'name': 'console',
        'value': round(100.0 * found['core_one_page'], 1),
        'unit': '% of one core with one page',
        'peer': 'bound',
        'peer_value': 100.0 * BOUND_CORE,
        'ratio': round(found['core_one_page'] / BOUND_CORE, 3),
        'n': len(stops),
        **{name: None if value is None else round(value, 4) for name, value in found.items()},
        'stop_p50_ms': round(1e3 * float(np.median(stops)), 1),
        'stop_max_ms': round(1e3 * float(stops.max()), 1),
    }
    out.print(
        f'{result["value"]} % of a core with one page, {100.0 * found["core_two_pages"]:.1f} % with two'
    )
    text = json.dumps(result)
    if arguments.json:
        Path(arguments.json).write_text(text + '\n', encoding='utf-8')
    print(text)
    good = (
        max(found['core_one_page'], found['core_two_pages']) <= BOUND_CORE
        and float(np.median(stops)) <= BOUND_STOP_S
    )
    return 0 if good else 1


if __name__ == '__main__':
    sys.exit(main())

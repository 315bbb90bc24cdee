# SPDX-License-Identifier: Apache-2.0
"""One control cycle on the servo bus, read and write, next to LeRobot's on the same virtual arm.

Our cycle reads the whole state and all faults of six servos (15 bytes each) and writes six goals. LeRobot's
reads the six positions (2 bytes each) and writes six goals, with the retries that its SO-101 follower uses.
Both run at 100 Hz, each in a process of its own, on one virtual arm in a third process that keeps the times
of a 1 Mbaud wire, clean and with 1, 5 and 20 % of all answers dropped, damaged or cut (a third each).

LeRobot is installed into .bench/bus on the first run.
"""

import argparse
import contextlib
from glob import glob
import json
import os
from pathlib import Path
import shutil
import subprocess
import sys
import time
from typing import Any

from peers import in_venv
from processes import ask_once, use_sources
from report import Parser, Report, Row

IDS = (1, 2, 3, 4, 5, 6)
POSITION = 2048  # where all joints stay, so that a wrong value is recognised [ticks]
PERIOD_S = 0.01
SHARES = (0.05, 0.0, 0.01, 0.2)  # the headline first
LEROBOT_RETRIES = 2  # num_read_retries of LeRobot's SO-101 follower
BAUD_RATE = 1_000_000
# What lerobot.motors.feetech imports, and no more.
REQUIREMENTS = (
    *('feetech-servo-sdk==1.0.0', 'pyserial==3.5'),
    *('deepdiff', 'draccus', 'huggingface_hub', 'numpy', 'tqdm'),
)
TORCH = 'torch==2.13.0'

SIDES = ('ours', 'lerobot', 'lerobot-whole')
Numbers = dict[str, Any]


# ---- the two sides; each runs in a process of its own ------------------------------------------------------


def measure(cycle: Any, cycles: int) -> Numbers:
    """Run `cycle` at 100 Hz; it returns the positions [ticks] by servo, fresh ones only."""
    for _ in range(20):
        cycle()
    times_s, full, wrong, processor_s = [], 0, 0, time.process_time()
    due_s = time.perf_counter()
    for _ in range(cycles):
        begin_s = time.perf_counter()
        positions = cycle()
        times_s.append(time.perf_counter() - begin_s)
        full += len(positions) == len(IDS)
        wrong += sum(position != POSITION for position in positions.values())
        due_s = max(due_s + PERIOD_S, time.perf_counter() - PERIOD_S)
        time.sleep(max(0.0, due_s - time.perf_counter()))
    processor_s = time.process_time() - processor_s
    return {
        'seconds': times_s,
        'full_share': full / cycles,
        'wrong_values': wrong,
        'cpu_ms': 1e3 * processor_s / cycles,
    }


def run_ours(port: str, cycles: int) -> Numbers:
    """Measure so101_driver."""
    use_sources('so101_driver')
    from so101_driver.bus.bus import ServoBus

    goals = dict.fromkeys(IDS, POSITION)
    with ServoBus(port) as bus:
        bus.handshake()

        def cycle() -> dict[int, int]:
            reading = bus.cycle_read()
            bus.write_goals(goals)
            return {servo.servo_id: servo.position_ticks for servo in reading.servos if servo.ok}

        return measure(cycle, cycles)


def run_lerobot(port: str, cycles: int, whole_state: bool) -> Numbers:
    """Measure LeRobot; with `whole_state`, reading as much as we do, one register at a time as it must."""
    from lerobot.motors import Motor, MotorNormMode
    from lerobot.motors.feetech import FeetechMotorsBus

    names = {f'joint_{servo_id}': servo_id for servo_id in IDS}
    mode = MotorNormMode.RANGE_M100_100
    motors = {name: Motor(servo_id, 'sts3215', mode) for name, servo_id in names.items()}
    registers = ['Present_Position']
    if whole_state:
        registers += ['Present_Velocity', 'Present_Load', 'Present_Voltage', 'Present_Temperature', 'Status']
        registers += ['Moving', 'Present_Current']
    bus = FeetechMotorsBus(port, motors)
    # Its handshake has no retries and would fail on a bad line; the bus is what is measured.
    bus.connect(handshake=False)
    bus.set_timeout()
    goals = dict.fromkeys(names, POSITION)

    def cycle() -> dict[int, int]:
        positions: dict[int, int] = {}
        with contextlib.suppress(ConnectionError):
            for register in registers:
                values = bus.sync_read(register, normalize=False, num_retry=LEROBOT_RETRIES)
                if register == 'Present_Position':
                    positions = {names[name]: int(value) for name, value in values.items()}
        bus.sync_write('Goal_Position', goals, normalize=False)
        return positions

    return measure(cycle, cycles)


# ---- the comparison ----------------------------------------------------------------------------------------


def wire_limit_ms(bytes_read: int) -> float:
    """Time on the wire of a sync read of six servos and a sync write of six goals [ms]."""
    read = (8 + len(IDS)) + len(IDS) * (6 + bytes_read)
    write = 8 + len(IDS) * 3
    return 1e3 * (read + write) * 10 / BAUD_RATE


def newest_python() -> tuple[str, tuple[int, int]]:
    """The newest interpreter from 3.10 to 3.13 that starts: the newest LeRobot wants 3.12."""
    candidates = [shutil.which(f'python3.{minor}') for minor in (13, 12)]
    pyenv = os.environ.get('PYENV_ROOT', str(Path.home() / '.pyenv'))
    candidates += sorted(glob(f'{pyenv}/versions/3.1[23]*/bin/python'), reverse=True)
    candidates.append(sys.executable)
    for candidate in filter(None, candidates):
        code = 'import sys, venv, ensurepip; print(*sys.version_info[:2])'
        result = subprocess.run([candidate, '-c', code], capture_output=True, text=True, check=False)
        if result.returncode == 0:
            major, minor = result.stdout.split()
            return candidate, (int(major), int(minor))
    raise SystemExit('No Python with venv was found; install python3-venv.')


def compare(cycles: int, seed: int) -> tuple[list[Row], str]:
    """Measure all sides on one virtual arm, in turn for each share of bad packets; return LeRobot's version too."""
    use_sources('so101_driver')
    from so101_driver.emulator.control import VirtualArmProcess

    python, version = newest_python()
    lerobot = '0.6.1' if version >= (3, 12) else '0.4.4'
    interpreter = in_venv('bus', (*REQUIREMENTS, TORCH), alone=(f'lerobot=={lerobot}',), python=python)
    environment = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    rows = []
    with VirtualArmProcess('--seed', str(seed)) as arm:
        for share in SHARES:
            found = {}
            for side in SIDES:
                arm.call('rates', drop=share / 3.0, corrupt=share / 3.0, truncate=share / 3.0)
                words = [sys.executable if side == 'ours' else interpreter, __file__]
                words += ['--side', side, '--port', arm.port, '--cycles', str(cycles)]
                found[side] = ask_once(words, environment)
                arm.call('clear_faults')
            made = {side: make_row(side, share, found[side], lerobot) for side in SIDES}
            rows.append(made['ours'].beside(made['lerobot'].name, made['lerobot'].value))
            rows += [made['lerobot'], made['lerobot-whole']]
    # What counts on a bad line is not the usual cycle but the slow one.
    ours, peer = rows[0], rows[1]
    slow = Row(f'95 % of the cycles, {SHARES[0]:.0%} bad packets', 'ms, p95', cycles, ours.p95)
    return [slow.beside(peer.name, peer.p95), *rows], lerobot


def make_row(side: str, share: float, found: Numbers, lerobot: str) -> Row:
    """Return the row of one side."""
    name = 'ours, whole state' if side == 'ours' else f'LeRobot {lerobot}, position'
    if side == 'lerobot-whole':
        name = f'LeRobot {lerobot}, whole state'
    note = (
        f'worst {1e3 * max(found["seconds"]):.1f} ms, {found["full_share"]:.1%} of the cycles full, '
        f'{found["wrong_values"]} wrong values, {found["cpu_ms"]:.2f} ms of the processor; the wire alone takes '
        f'{wire_limit_ms(2 if side == "lerobot" else 15):.2f} ms'
    )
    return Row.of(f'{name}, {share:.0%} bad packets', 'ms', found['seconds'], 1e3, note)


def main() -> int:
    """Run the benchmark, or one side of it."""
    parser = Parser(__doc__)
    parser.number('--cycles', 300, 'cycles per side and share', quick=50)
    parser.number('--seed', 0, 'of the faults')
    parser.add_argument('--side', choices=SIDES, help=argparse.SUPPRESS)
    parser.add_argument('--port', help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side == 'ours':
        print(json.dumps(run_ours(options.port, options.cycles)))
        return 0
    if options.side:
        print(json.dumps(run_lerobot(options.port, options.cycles, options.side == 'lerobot-whole')))
        return 0
    rows, lerobot = compare(options.cycles, options.seed)
    return Report('bus', rows, {'lerobot': lerobot}).finish(options)


if __name__ == '__main__':
    sys.exit(main())

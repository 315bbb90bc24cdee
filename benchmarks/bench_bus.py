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
import platform
import shutil
import statistics
import subprocess
import sys
import time
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
VENV = ROOT / '.bench' / 'bus'
IDS = (1, 2, 3, 4, 5, 6)
POSITION = 2048  # where all joints stay, so that a wrong value is recognised [ticks]
PERIOD_S = 0.01
SHARES = (0.0, 0.01, 0.05, 0.2)
HEADLINE = 0.05
LEROBOT_RETRIES = 2  # num_read_retries of LeRobot's SO-101 follower
BAUD_RATE = 1_000_000
# What lerobot.motors.feetech imports, and no more.
REQUIREMENTS = (
    *('feetech-servo-sdk==1.0.0', 'pyserial==3.5'),
    *('deepdiff', 'draccus', 'huggingface_hub', 'numpy', 'tqdm'),
)
TORCH = 'torch==2.13.0'

Numbers = dict[str, float]


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
    times_s.sort()
    numbers = {
        'median_ms': 1e3 * statistics.median(times_s),
        'p95_ms': 1e3 * times_s[min(cycles - 1, int(0.95 * cycles))],
        'worst_ms': 1e3 * times_s[-1],
        'full_share': full / cycles,
        'wrong_values': wrong,
        'cpu_ms': 1e3 * processor_s / cycles,
    }
    return {name: round(value, 4) for name, value in numbers.items()}


def run_ours(port: str, cycles: int) -> Numbers:
    """Measure so101_driver."""
    sys.path[:0] = [str(ROOT / 'src' / 'so101_driver')]
    from so101_driver.bus import ServoBus

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


def install_lerobot() -> tuple[Path, str]:
    """Interpreter of a venv with LeRobot, and LeRobot's version."""
    python, version = newest_python()
    lerobot = '0.6.1' if version >= (3, 12) else '0.4.4'
    stamp, wanted = VENV / 'stamp', f'{lerobot} {TORCH} {" ".join(REQUIREMENTS)}'
    interpreter = VENV / 'bin' / 'python'
    if not stamp.exists() or stamp.read_text() != wanted:
        sys.stderr.write(f'Installing LeRobot {lerobot} with torch into {VENV}; this takes minutes ...\n')
        shutil.rmtree(VENV, ignore_errors=True)
        subprocess.run([python, '-m', 'venv', str(VENV)], check=True)
        pip = [str(interpreter), '-m', 'pip', 'install', '--quiet', '--disable-pip-version-check']
        subprocess.run([*pip, *REQUIREMENTS, TORCH], check=True)
        subprocess.run([*pip, '--no-deps', f'lerobot=={lerobot}'], check=True)
        stamp.write_text(wanted)
    return interpreter, lerobot


def run_side(interpreter: str | Path, side: str, port: str, cycles: int) -> Numbers:
    """Measure one side in a process of its own."""
    command = [str(interpreter), str(Path(__file__)), '--side', side, '--port', port, '--cycles', str(cycles)]
    environment = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    result = subprocess.run(
        command, stdout=subprocess.PIPE, text=True, check=True, timeout=600, env=environment
    )
    numbers: Numbers = json.loads(result.stdout.splitlines()[-1])
    return numbers


def compare(cycles: int, seed: int) -> dict[str, Any]:
    """Measure all sides on one virtual arm, in turn for each share of bad packets."""
    sys.path[:0] = [str(ROOT / 'src' / 'so101_driver')]
    from so101_driver.emulator import VirtualArmProcess

    interpreter, version = install_lerobot()
    sides: dict[str, str | Path] = {
        'ours': sys.executable,
        'lerobot': interpreter,
        'lerobot-whole': interpreter,
    }
    rows: dict[str, dict[str, Numbers]] = {side: {} for side in sides}
    with VirtualArmProcess('--seed', str(seed)) as arm:
        for share in SHARES:
            for side, python in sides.items():
                part = share / 3.0
                arm.call('rates', drop=part, corrupt=part, truncate=part)
                rows[side][f'{share:g}'] = run_side(python, side, arm.port, cycles)
                arm.call('clear_faults')
    return {'rows': rows, 'lerobot': version}


def show(result: dict[str, Any]) -> None:
    """Print a table for people."""
    names = {
        'ours': 'so101_driver, whole state',
        'lerobot': f'LeRobot {result["lerobot"]}, position',
        'lerobot-whole': f'LeRobot {result["lerobot"]}, whole state',
    }
    print(f'{"":32}   bad  median ms   p95 ms    worst    full  wrong  cpu ms')
    for share in SHARES:
        for side, name in names.items():
            row = result['rows'][side][f'{share:g}']
            print(
                f'{name:32} {share:5.0%} {row["median_ms"]:10.2f} {row["p95_ms"]:8.2f} {row["worst_ms"]:8.1f}'
                f' {row["full_share"]:7.1%} {row["wrong_values"]:6.0f} {row["cpu_ms"]:7.2f}'
            )
    print(f'limit of the wire: {wire_limit_ms(15):.2f} ms whole state, {wire_limit_ms(2):.2f} ms position')


def main() -> None:
    """Run the benchmark, or one side of it."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--cycles', type=int, default=200, help='cycles per side and share (default: %(default)s)'
    )
    parser.add_argument('--seed', type=int, default=0, help='of the faults')
    parser.add_argument('--json', type=Path, help='write the last line to this file too')
    parser.add_argument('--side', choices=('ours', 'lerobot', 'lerobot-whole'), help=argparse.SUPPRESS)
    parser.add_argument('--port', help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.side == 'ours':
        print(json.dumps(run_ours(options.port, options.cycles)))
        return
    if options.side:
        print(json.dumps(run_lerobot(options.port, options.cycles, options.side == 'lerobot-whole')))
        return
    result = compare(options.cycles, options.seed)
    show(result)
    rows, key = result['rows'], f'{HEADLINE:g}'
    ours, peer = rows['ours'][key]['p95_ms'], rows['lerobot'][key]['p95_ms']
    line = {
        'name': 'bus',
        'value': round(ours, 3),
        'unit': 'ms, p95 of one read and write cycle at 5 % bad packets',
        'peer': f'LeRobot {result["lerobot"]} FeetechMotorsBus (positions only)',
        'peer_value': round(peer, 3),
        'ratio': round(peer / ours, 2),
        'n': options.cycles,
        'wire_limit_ms': {'whole_state': wire_limit_ms(15), 'position': wire_limit_ms(2)},
        'python': platform.python_version(),
        'rows': rows,
    }
    text = json.dumps(line)
    if options.json:
        options.json.write_text(text + '\n')
    print(text)


if __name__ == '__main__':
    main()

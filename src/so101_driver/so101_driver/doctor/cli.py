# SPDX-License-Identifier: Apache-2.0
"""The command `doctor`: say what is wrong with ports, arms and cameras, and what to do. Nothing moves."""

import argparse
from collections.abc import Sequence
import os
from pathlib import Path
import sys
import time

from rich.console import Console

from so101_contract.task.spec import TaskSpec
from so101_driver.bus.bus import ServoBus
from so101_driver.bus.errors import PortError
from so101_driver.bus.port import refuse_terminal
from so101_driver.calibration.calibration import ArmCalibration
from so101_driver.calibration.files import Places
from so101_driver.doctor.arm import check_arm, CYCLES
from so101_driver.doctor.checks import as_json, Check, ExtraCheck, passed, run_extra, Status
from so101_driver.doctor.task import check_gripper, check_task, check_task_cameras
from so101_driver.setup.ports import (
    AUTO,
    choose_port,
    find_ports,
    holders,
    permission_problem,
    SerialPort,
    udev_rules,
)

POLL_S = 0.1
MEASURE_S = 2.2
"""Frames are counted for a little longer than the window over which the camera measures its rate [s]."""


def find_cameras(dev: Path = Path('/dev')) -> tuple[str, ...]:
    """List the video devices that deliver images, by their stable names where they have one.

    A camera makes two nodes; the second carries metadata and cannot be opened.
    """
    by_path = sorted((dev / 'v4l' / 'by-path').glob('*-video-index0'))
    if by_path:
        return tuple(map(str, by_path))
    return tuple(str(path) for path in sorted(dev.glob('video[0-9]*')))


def check_cameras(sources: Sequence[str] = ()) -> list[Check]:
    """Examine the given cameras, or those that are found."""
    cameras = tuple(sources) or find_cameras()
    if not cameras:
        return [
            Check(
                'camera',
                Status.SKIP,
                'No camera is attached.',
                'Plug one in, or say with --camera where it is.',
            )
        ]
    return [check_camera(source) for source in cameras]


def check_camera(source: str, *, measure_s: float = MEASURE_S) -> Check:
    """Open one camera and watch it for a while.

    Args:
        source: device, URL or file.
        measure_s: how long to count its frames [s].
    """
    name = 'camera'
    try:
        from so101_driver.camera.camera import Camera
        from so101_driver.camera.config import CameraConfig
    except ImportError as error:
        return Check(name, Status.SKIP, f'Not examined: {error}.', 'Install OpenCV (python3-opencv).')
    config = CameraConfig(source=source)
    with Camera(config) as camera:
        deadline = time.monotonic() + config.start_timeout_s
        while (frame := camera.wait_newer(-1, POLL_S)) is None and time.monotonic() < deadline:
            if camera.report().stream.lost:
                break
        if frame is not None:
            time.sleep(measure_s)
        report = camera.report()
    cause, _, remedy = report.sentence.partition('; ')
    size = report.stream.size
    if report.status.value == 'ok' and size is not None:
        notes = f' ({"; ".join(report.stream.notes)})' if report.stream.notes else ''
        return Check(name, Status.OK, f'{cause} at {report.fps:.1f} frames/s{notes}.')
    status = Status.WARN if report.status.value == 'slow' else Status.FAIL
    remedy = remedy or 'Check its cable, and that no other program uses it.'
    return Check(name, status, _sentence(cause), _sentence(remedy))


def _sentence(text: str) -> str:
    end = '' if text.endswith(('.', '?')) else '.'
    return f'{text[:1].upper()}{text[1:]}{end}' if not text.startswith('/') else f'{text}{end}'


_STYLES = {Status.OK: 'green', Status.WARN: 'yellow', Status.FAIL: 'red', Status.SKIP: 'dim'}


def check_ports(wanted: str, ports: Sequence[SerialPort]) -> tuple[Check, tuple[str, ...]]:
    """Say which serial ports an arm may hang on.

    Args:
        wanted: `auto`, a path, or the serial number of an adapter.
        ports: as `find_ports` gives them.

    Returns:
        The check, and the paths to examine: all servo adapters with `auto`, else one; none when it failed.
    """
    if wanted != AUTO:
        try:
            path = choose_port(wanted, ports)
        except PortError as error:
            return Check('ports', Status.FAIL, f'{error}.'), ()
        if os.path.exists(path):
            return Check('ports', Status.OK, f'{path} is there.'), (path,)
        listed = ', '.join(map(str, ports)) or 'none'
        return (
            Check(
                'ports',
                Status.FAIL,
                f'{path} does not exist; serial ports here: {listed}.',
                'Plug the arm in, or give another --port.',
            ),
            (),
        )
    adapters = [port for port in ports if port.adapter]
    if adapters:
        finding = f'Found {len(adapters)} servo adapter(s): {", ".join(map(str, adapters))}.'
        return Check('ports', Status.OK, finding), tuple(port.stable_name for port in adapters)
    others = f' (other serial ports: {", ".join(map(str, ports))})' if ports else ''
    return (
        Check(
            'ports',
            Status.FAIL,
            f'No arm is attached: there is no servo adapter on any USB port{others}.',
            'Plug its USB cable in and switch its power supply on, or use the simulation: ./so101 up.',
        ),
        (),
    )


def check_access(path: str) -> Check:
    """Say whether this user may use a port, nobody else does, and it is none that people type in."""
    try:
        refuse_terminal(path)
        problem = permission_problem(path)
    except PortError as error:
        problem = str(error).removesuffix('.')
    if problem is not None:
        cause, _, remedy = problem.partition('; ')
        return Check('port.access', Status.FAIL, f'{_capital(cause)}.', f'{_capital(remedy)}.')
    users = holders(path)
    if users:
        return Check(
            'port.access',
            Status.FAIL,
            f'{path} is in use by {", ".join(map(str, users))}.',
            'End that program; only one may talk to the servos.',
        )
    return Check('port.access', Status.OK, f'{path} may be used, and nobody else does.')


def examine(
    wanted: str = AUTO,
    *,
    arm: str | None = None,
    cameras: Sequence[str] = (),
    task: str = '',
    cycles: int = CYCLES,
    places: Places | None = None,
    extra_checks: Sequence[ExtraCheck] = (),
) -> list[Check]:
    """Run every check.

    Args:
        wanted: port of the arm: `auto`, a path, or the serial number of an adapter.
        arm: name of the calibration that the servos should hold; None takes whichever they do.
        cameras: devices, URLs or files of the cameras; empty examines what is found.
        task: name or file of a task, whose cameras and gripper are examined.
        cycles: reads that measure the line to the servos.
        places: folders of the calibration files.
        extra_checks: checks of other packages.
    """
    known = _known(places or Places.from_environment())
    spec, checks = check_task(task)
    check, paths = check_ports(wanted, find_ports())
    checks.append(check)
    for path in paths:
        access = check_access(path)
        checks.append(access)
        if access.status is Status.OK:
            checks += _examine_arm(path, known, arm, cycles, spec)
    if not paths:
        checks.append(Check('arm', Status.SKIP, 'Not examined, since there is no port.'))
    checks += (
        check_cameras(cameras)
        if spec is None
        else check_task_cameras(spec, cameras, find_cameras(), check_camera)
    )
    for extra in extra_checks:
        checks += run_extra(extra)
    return checks


def _examine_arm(
    path: str, known: dict[str, ArmCalibration], arm: str | None, cycles: int, task: TaskSpec | None
) -> list[Check]:
    bus = ServoBus(path)
    try:
        bus.open()
        checks = check_arm(bus, known, arm, cycles=cycles)
        return checks if task is None else checks + check_gripper(task, bus, known, arm)
    except PortError as error:
        return [Check('port.open', Status.FAIL, f'{error}')]
    finally:
        bus.close(torque_off=False)  # an arm that is only looked at must not fall


def _known(places: Places) -> dict[str, ArmCalibration]:
    followers, leaders = places.load_known('follower'), places.load_known('leader')
    return followers | {
        name if name not in followers else f'{name} (leader)': calibration
        for name, calibration in leaders.items()
        if followers.get(name) != calibration
    }


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    made = argparse.ArgumentParser('doctor', description=__doc__)
    made.add_argument(
        '--port', default=AUTO, help='path or serial number of the adapter (default: all found)'
    )
    made.add_argument('--arm', metavar='NAME', help='the arm whose calibration the servos should hold')
    made.add_argument(
        '--camera',
        action='append',
        default=[],
        metavar='SOURCE',
        help='device, URL or file, of a task NAME=DEVICE; may be repeated',
    )
    made.add_argument(
        '--task', default='', help='name or file of a task: its cameras and gripper are examined'
    )
    made.add_argument('--cycles', type=int, default=CYCLES, help='reads that measure the line')
    made.add_argument('--json', action='store_true', help='print one JSON object')
    made.add_argument(
        '--udev',
        action='append',
        metavar='NAME=PORT',
        help='print the udev rules that name arms, such as so101_follower=ttyACM0; may be repeated',
    )
    return made


def main(
    argv: Sequence[str] | None = None,
    *,
    extra_checks: Sequence[ExtraCheck] = (),
    console: Console | None = None,
    places: Places | None = None,
) -> int:
    """Run the command; returns 0 when nothing failed, else 1.

    Args:
        argv: the command line without the program's name.
        extra_checks: checks of other packages, run after ours.
        console: where to write.
        places: folders of the calibration files.
    """
    arguments = parser().parse_args(argv)
    out = console or Console()
    if arguments.udev is not None:
        return _print_udev(arguments.udev, out)
    checks = examine(
        arguments.port,
        arm=arguments.arm,
        cameras=arguments.camera,
        task=arguments.task,
        cycles=max(2, arguments.cycles),
        places=places,
        extra_checks=extra_checks,
    )
    if arguments.json:
        out.print(as_json(checks), markup=False, highlight=False, soft_wrap=True)
    else:
        for check in checks:
            out.print(check.line, style=_STYLES[check.status], markup=False, highlight=False, soft_wrap=True)
    return 0 if passed(checks) else 1


def _print_udev(pairs: Sequence[str], out: Console) -> int:
    ports = find_ports()
    try:
        wanted = {
            name: choose_port(port or AUTO, ports) for name, _, port in (p.partition('=') for p in pairs)
        }
        by_name = {name: port for port in ports for name in (port.stable_name, port.device)}
        text = udev_rules({name: by_name[path] for name, path in wanted.items()})
    except (PortError, ValueError, KeyError) as error:
        Console(stderr=True).print(f'doctor: {error}', markup=False, soft_wrap=True)
        return 1
    out.print(text, markup=False, highlight=False, soft_wrap=True)
    return 0


if __name__ == '__main__':
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""Find the serial ports that an arm may hang on, say who uses them, and give them names that stay.

/dev/ttyACM0 is whichever adapter was plugged in first. The names in /dev/serial/by-id carry the adapter's
serial number and stay, and a udev rule can give an arm a name of its own.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
import grp
import os
from pathlib import Path
import re
from types import MappingProxyType

from serial.tools import list_ports

from so101_driver.bus.errors import PortError

ADAPTERS: Mapping[tuple[int, int], str] = MappingProxyType(
    {
        (0x1A86, 0x55D3): 'CH343, the bus servo adapter of most SO-101 kits',
        (0x1A86, 0x55D4): 'CH9102',
        (0x1A86, 0x7522): 'CH340',
        (0x1A86, 0x7523): 'CH340',
        (0x0403, 0x6001): 'FT232R',
        (0x0403, 0x6014): 'FT232H',
        (0x0403, 0x6015): 'FT-X',
        (0x10C4, 0xEA60): 'CP210x',
    }
)
"""USB vendor and product of the chips that bus servo adapters are built with, the usual one first."""

AUTO = 'auto'

UDEV_FILE = '/etc/udev/rules.d/70-so101.rules'
"""After the rules that find out ID_PATH (60), before those that hand devices to the seat's user (73)."""


@dataclass(frozen=True)
class SerialPort:
    """One serial device.

    Attributes:
        device: such as /dev/ttyACM0.
        by_id: its name in /dev/serial/by-id, or '' where it has none.
        by_path: its name in /dev/serial/by-path, or ''.
        vendor_id: USB vendor, or None.
        product_id: USB product, or None.
        serial_number: of the adapter, or ''.
        description: what the device says it is.
    """

    device: str
    by_id: str = ''
    by_path: str = ''
    vendor_id: int | None = None
    product_id: int | None = None
    serial_number: str = ''
    description: str = ''

    @property
    def adapter(self) -> str:
        """The chip, where it is one that servo adapters use, else ''."""
        if self.vendor_id is None or self.product_id is None:
            return ''
        return ADAPTERS.get((self.vendor_id, self.product_id), '')

    @property
    def stable_name(self) -> str:
        """The name to put into a configuration."""
        return self.by_id or self.by_path or self.device

    def __str__(self) -> str:
        return f'{self.stable_name} ({self.device}, {self.adapter or self.description or "unknown"})'


def find_ports(dev: Path = Path('/dev')) -> tuple[SerialPort, ...]:
    """List the USB serial devices of this machine, those with a known adapter first."""
    ids, paths = (_links(dev / 'serial' / folder) for folder in ('by-id', 'by-path'))
    ports = [
        SerialPort(
            device=info.device,
            by_id=ids.get(os.path.realpath(info.device), ''),
            by_path=paths.get(os.path.realpath(info.device), ''),
            vendor_id=info.vid,
            product_id=info.pid,
            serial_number=info.serial_number or '',
            description=info.description or '',
        )
        for info in list_ports.comports()
        if info.vid is not None or os.path.realpath(info.device) in ids
    ]
    return tuple(sorted(ports, key=lambda port: (not port.adapter, port.device)))


def choose_port(wanted: str, ports: Iterable[SerialPort]) -> str:
    """Return the device path for what was asked for.

    Args:
        wanted: `auto`, a path, or the serial number of an adapter.
        ports: as `find_ports` gives them.

    Raises:
        PortError: nothing fits, or `auto` has more than one choice.
    """
    known = tuple(ports)
    listed = ', '.join(map(str, known)) or 'none'
    if '/' in wanted:
        return wanted
    if wanted != AUTO:
        found = [port for port in known if wanted in (port.serial_number, os.path.basename(port.device))]
        if len(found) == 1:
            return found[0].stable_name
        raise PortError(
            f'expected one serial port with the serial number {wanted}, found {len(found)} among: {listed}; '
            f'give its path, such as /dev/ttyACM0'
        )
    candidates = [port for port in known if port.adapter]
    if len(candidates) == 1:
        return candidates[0].stable_name
    if not candidates:
        raise PortError(
            f'expected a servo adapter on a USB port, found none (serial ports: {listed}); plug the arm in '
            f'and switch it on, or give its path with --port'
        )
    raise PortError(f'expected one servo adapter, found {len(candidates)}: {listed}; say which with --port')


@dataclass(frozen=True)
class Holder:
    """A process that has a device open."""

    pid: int
    command: str

    def __str__(self) -> str:
        return f'{self.command} (process {self.pid})'


def holders(device: str, proc: Path = Path('/proc')) -> tuple[Holder, ...]:
    """List the other processes that have a device open, as far as this user may see."""
    target = os.path.realpath(device)
    found = []
    for entry in sorted(proc.glob('[0-9]*')):
        if entry.name != str(os.getpid()) and _has_open(entry, target):
            found.append(Holder(int(entry.name), _command(entry)))
    return tuple(found)


def permission_problem(device: str) -> str | None:
    """Say why this user may not use a device, and what to do; None when it may."""
    if os.access(device, os.R_OK | os.W_OK):
        return None
    try:
        group = grp.getgrgid(os.stat(device).st_gid).gr_name
    except (OSError, KeyError):
        group = 'dialout'
    return (
        f'this user may not read and write {device}, which belongs to the group {group}; run '
        f'`sudo usermod -aG {group} $USER`, then log out and in again'
    )


def udev_rules(arms: Mapping[str, SerialPort]) -> str:
    """Write the udev rules that give each arm a name of its own under /dev.

    Args:
        arms: the port of each arm, by the name that it shall have, such as so101_follower.

    Raises:
        ValueError: a name cannot be a file name, or a port can be told by nothing.
    """
    lines = [
        '# Names of SO-101 arms that stay whatever is plugged in first. Put this into',
        f'# {UDEV_FILE}, then run: sudo udevadm control --reload && sudo udevadm trigger',
    ]
    for name, port in arms.items():
        if not re.fullmatch(r'[A-Za-z0-9_-]+', name):
            raise ValueError(f'expected a device name of letters, digits, _ and -, got {name!r}')
        # ModemManager probes new serial ports with bytes that a servo bus takes for noise.
        lines.append(
            f'SUBSYSTEM=="tty", {_match(port)}, SYMLINK+="{name}", GROUP="dialout", MODE="0660", '
            f'TAG+="uaccess", ENV{{ID_MM_DEVICE_IGNORE}}="1"'
        )
    lines.append('# FTDI adapters hold answers back for 16 ms unless they are told not to.')
    lines.append('ACTION=="add", SUBSYSTEM=="usb-serial", DRIVER=="ftdi_sio", ATTR{latency_timer}="1"')
    return '\n'.join(lines) + '\n'


def _match(port: SerialPort) -> str:
    if port.vendor_id is not None and port.product_id is not None and port.serial_number:
        return (
            f'ATTRS{{idVendor}}=="{port.vendor_id:04x}", ATTRS{{idProduct}}=="{port.product_id:04x}", '
            f'ATTRS{{serial}}=="{port.serial_number}"'
        )
    if port.by_path:
        return f'ENV{{ID_PATH}}=="{os.path.basename(port.by_path).removesuffix("-port0")}"'
    raise ValueError(
        f'expected a port with a serial number or a place in /dev/serial/by-path, got {port}; '
        f'plug it straight into the computer'
    )


def _links(folder: Path) -> dict[str, str]:
    if not folder.is_dir():
        return {}
    return {os.path.realpath(link): str(link) for link in sorted(folder.iterdir())}


def _has_open(process: Path, target: str) -> bool:
    try:
        return any(os.readlink(link) == target for link in (process / 'fd').iterdir())
    except OSError:
        return False  # the process ended, or belongs to someone else


def _command(process: Path) -> str:
    try:
        return (process / 'comm').read_text().strip()
    except OSError:
        return 'unknown'

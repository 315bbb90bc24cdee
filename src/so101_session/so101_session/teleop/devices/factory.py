# SPDX-License-Identifier: Apache-2.0
"""The device that the parameters name."""

from collections.abc import Callable
import sys

from so101_driver.calibration import CalibrationError
from so101_driver.calibration_places import find_calibration
from so101_session.teleop.config import TeleopConfig
from so101_session.teleop.devices.base import Device, DeviceError
from so101_session.teleop.devices.combined import Combined
from so101_session.teleop.devices.gamepad import Gamepad
from so101_session.teleop.devices.joy import Joy
from so101_session.teleop.devices.keyboard import Keyboard
from so101_session.teleop.devices.leader import Leader, leader_arm
from so101_session.teleop.devices.leader_tracking import Tracker
from so101_session.teleop.devices.shadow import Shadow
from so101_session.teleop.devices.terminal import Terminal


def make_device(config: TeleopConfig) -> Device:
    """Return the device, opened.

    Raises:
        DeviceError: it is missing, or cannot be used.
    """
    makers: dict[str, Callable[[TeleopConfig], Device]] = {
        'keyboard': lambda chosen: _keyboard(chosen, motion=True),
        'gamepad': _gamepad,
        'joy': _joy,
        'leader': _leader,
    }
    return makers[config.device](config)


def _keyboard(config: TeleopConfig, *, motion: bool) -> Device:
    return Keyboard(Terminal(), config.keys, config.speed, motion)


def _gamepad(config: TeleopConfig) -> Device:
    return Gamepad(
        config.pad_path,
        pad=config.pad,
        changes=config.pad_changes,
        deadzone=config.deadzone,
        speed=config.speed,
        needs_deadman=config.deadman,
    )


def _joy(config: TeleopConfig) -> Device:
    return Joy(
        pad=config.pad,
        changes=config.pad_changes,
        deadzone=config.deadzone,
        speed=config.speed,
        needs_deadman=config.deadman,
    )


def _leader(config: TeleopConfig) -> Device:
    if not config.leader_port:
        raise DeviceError(
            'expected the port of the leader arm, got none; say leader_port:=/dev/..., as ./so101 doctor lists them'
        )
    try:
        calibration = find_calibration(config.leader_calibration, kind='leader')
    except CalibrationError as error:
        raise DeviceError(f'the leader arm needs its calibration: {error}') from error
    leader = Leader(
        leader_arm(config.leader_port, calibration, config.leader_torque, config.leader_supply_max_v),
        Tracker(config.tcp, config.action.translation_scale_m, config.leader_leash_m, config.locks()),
        Shadow(
            config.leader_align_speed_rad_s,
            config.leader_speed_rad_s,
            config.leader_pull_rad,
            config.leader_pull_s,
        ),
    )
    try:
        return Combined(leader, _askers(config))
    except DeviceError:
        leader.close()
        raise


def _askers(config: TeleopConfig) -> list[Device]:
    """Return what asks for events beside a leader, which has no buttons."""
    wanted = config.events_from
    if wanted == 'keyboard' or (wanted == 'auto' and sys.stdin is not None and sys.stdin.isatty()):
        return [_keyboard(config, motion=False)]
    return [_gamepad(config)] if wanted in ('gamepad', 'auto') else []

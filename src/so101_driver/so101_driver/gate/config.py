# SPDX-License-Identifier: Apache-2.0
"""Every limit of the safety gate, as one documented value."""

from dataclasses import dataclass
from enum import StrEnum
import math

from so101_contract.config import SERVO_HOT_C, SERVO_WARM_C
from so101_contract.joints import GRIPPER, JOINT_LIMITS_RAD, JOINT_NAMES
from so101_interfaces_py.params import check_bounds, param

GRIPPER_INDEX = JOINT_NAMES.index(GRIPPER)


class StopAction(StrEnum):
    """What happens to the torque when the gate stops on its own or by the stop button.

    `RELEASE` cuts the torque: nothing is pushed or squeezed any more, and a raised arm falls (the tip reaches
    the table after about half a second). `HOLD` leaves the torque on and writes no further goal: the arm
    stands, and keeps pressing on whatever it presses on. `PARK` moves slowly to the rest pose, then releases.
    """

    RELEASE = 'release'
    HOLD = 'hold'
    PARK = 'park'


class ExitPolicy(StrEnum):
    """What the driver does with the arm when it ends. Servos have no watchdog: what is left on stays on."""

    PARK_AND_RELEASE = 'park_and_release'
    RELEASE = 'release'
    HOLD = 'hold'


@dataclass(frozen=True, kw_only=True)
class GateConfig:
    """Limits of the safety gate; six values are in the order of `JOINT_NAMES`."""

    joint_lower_rad: tuple[float, ...] = param(
        tuple(JOINT_LIMITS_RAD[name][0] for name in JOINT_NAMES),
        doc='Lowest goal of each joint.',
        unit='rad',
        lo=-2 * math.pi,
        hi=2 * math.pi,
    )
    joint_upper_rad: tuple[float, ...] = param(
        tuple(JOINT_LIMITS_RAD[name][1] for name in JOINT_NAMES),
        doc='Highest goal of each joint.',
        unit='rad',
        lo=-2 * math.pi,
        hi=2 * math.pi,
    )
    max_speed_rad_s: tuple[float, ...] = param(
        (2.0, 2.0, 2.0, 2.0, 2.0, 3.0),
        doc='Fastest that the goal of each joint moves. The servo runs at 4.7 rad/s without load; '
        '2 rad/s is 0.6 m/s at the tip of a half stretched arm.',
        unit='rad/s',
        lo=0.01,
        hi=6.0,
    )
    max_acceleration_rad_s2: float = param(
        0.0,
        doc="Fastest change of a goal's speed; 0 leaves it to the servo.",
        unit='rad/s^2',
        lo=0.0,
        hi=500.0,
    )
    max_lead_rad: float = param(
        0.35,
        doc='Farthest that a goal runs ahead of the measured joint. An unloaded servo trails a 2 rad/s ramp '
        'by 0.1 to 0.2 rad and gives full output from less than that, so more lead adds no force, only a '
        'jump when an obstacle gives way.',
        unit='rad',
        lo=0.02,
        hi=2.0,
    )
    recovery_speed_rad_s: float = param(
        0.3,
        doc='Speed at which a joint found outside its limits is led back inside.',
        unit='rad/s',
        lo=0.01,
        hi=2.0,
    )
    max_outside_rad: float = param(
        0.6,
        doc='A joint that reads farther than this outside its limits is not believed: the real stops lie '
        'within 0.2 rad of the model and a careless calibration adds 0.3.',
        unit='rad',
        lo=0.0,
        hi=2.0,
    )
    max_tick_s: float = param(
        0.02,
        doc='Longest time that one tick may account for: two periods of the control loop. After a stall the '
        'goal goes on from where it was instead of catching up.',
        unit='s',
        lo=0.001,
        hi=0.5,
    )
    command_timeout_s: float = param(
        0.2, doc='A joint command older than this is not followed: the arm holds.', unit='s', lo=0.02, hi=5.0
    )
    hold_release_s: float = param(
        0.0,
        doc='Release the arm after holding this long; 0 never does (a released arm falls).',
        unit='s',
        lo=0.0,
        hi=86400.0,
    )
    reading_max_age_s: float = param(
        0.05,
        doc='With a joint reading older than this the arm holds. A few lost packets stay below it.',
        unit='s',
        lo=0.01,
        hi=1.0,
    )
    reading_timeout_s: float = param(
        0.5, doc='With a joint reading older than this the gate goes to FAULT.', unit='s', lo=0.02, hi=10.0
    )
    enable_tolerance_rad: float = param(
        0.05,
        doc='While enabling, torque comes on only if the joint is this close to the goal just written.',
        unit='rad',
        lo=0.005,
        hi=0.5,
    )
    enable_timeout_s: float = param(
        0.5,
        doc='Enabling is given up when the arm has not kept still for this long.',
        unit='s',
        lo=0.05,
        hi=10.0,
    )
    temperature_warn_c: float = param(
        SERVO_WARM_C, doc='Servo temperature that is worth a warning.', unit='degC', lo=30.0, hi=80.0
    )
    temperature_stop_c: float = param(
        SERVO_HOT_C,
        doc='Servo temperature that ends the motion; the servo itself gives up at 70.',
        unit='degC',
        lo=35.0,
        hi=85.0,
    )
    supply_min_v: float = param(
        4.5,
        doc='Below this the arm is not enabled, and a sag is reported while it runs. 12 V servos: 9.5.',
        unit='V',
        lo=3.0,
        hi=14.0,
    )
    supply_max_v: float = param(
        8.4,
        doc='Above this the arm is not enabled: a 12 V supply destroys 7.4 V servos. 12 V servos: 14.0.',
        unit='V',
        lo=5.0,
        hi=16.0,
    )
    confirm_readings: int = param(
        3,
        doc='A fault counts after this many readings in a row: one damaged packet is no fault.',
        lo=1,
        hi=100,
    )
    e_stop_action: str = param(
        StopAction.RELEASE.value,
        doc='Torque after the stop button. Release, because the button is mostly pressed while the arm '
        'pushes or squeezes something; hold where a fall does more harm than a push.',
        choices=(StopAction.RELEASE.value, StopAction.HOLD.value),
    )
    fault_action: str = param(
        StopAction.HOLD.value,
        doc='Torque after a fault. Hold, because after lost readings or one overloaded joint the rest of '
        'the arm can stand.',
        choices=(StopAction.HOLD.value, StopAction.RELEASE.value),
    )
    overheat_action: str = param(
        StopAction.PARK.value,
        doc='What to do at temperature_stop_c. Park, because a hot servo that holds gets hotter, and one '
        'that gives up drops the arm.',
        choices=(StopAction.PARK.value, StopAction.HOLD.value, StopAction.RELEASE.value),
    )
    exit_policy: str = param(
        ExitPolicy.PARK_AND_RELEASE.value,
        doc='What happens to the arm when the driver ends.',
        choices=tuple(policy.value for policy in ExitPolicy),
    )
    torque_limit: tuple[float, ...] = param(
        (1.0, 1.0, 1.0, 1.0, 1.0, 0.5),
        doc='Torque limit of each joint, fraction of full torque, for both registers that hold it (16, 48).',
        lo=0.0,
        hi=1.0,
    )
    gripper_hot_torque: float = param(
        0.35, doc="The gripper's torque limit while it is above temperature_warn_c.", lo=0.0, hi=1.0
    )
    gripper_contact_load: float = param(
        0.2,
        doc='Load (fraction of full output) from which a gripper that does not move is in contact.',
        lo=0.02,
        hi=1.0,
    )
    gripper_contact_speed_rad_s: float = param(
        0.1, doc='A gripper slower than this does not move.', unit='rad/s', lo=0.001, hi=2.0
    )
    gripper_contact_s: float = param(
        0.1, doc='Contact is believed after this long.', unit='s', lo=0.0, hi=2.0
    )
    gripper_squeeze_rad: float = param(
        0.04,
        doc='In contact the goal of the gripper stays this close to where the gripper is.',
        unit='rad',
        lo=0.0,
        hi=0.5,
    )
    rest_rad: tuple[float, ...] = param(
        (0.0, -1.7, 1.55, 1.0, 0.0, 0.0),
        doc='Pose in which the arm is released: folded, the tip 15 mm above the table. The gripper stays '
        'as it is, so the last value is not used.',
        unit='rad',
        lo=-2 * math.pi,
        hi=2 * math.pi,
    )
    park_speed_rad_s: float = param(
        1.5, doc='Fastest joint speed on the way to the rest pose.', unit='rad/s', lo=0.05, hi=4.0
    )
    park_timeout_s: float = param(
        6.0,
        doc='Parking ends, and the arm is released where it is, after this long.',
        unit='s',
        lo=0.5,
        hi=60.0,
    )
    torque_refresh_s: float = param(
        0.5,
        doc='The torque switch is written again this often, in case a packet was lost.',
        unit='s',
        lo=0.05,
        hi=60.0,
    )

    def __post_init__(self) -> None:
        """Check each value, and the values against each other."""
        check_bounds(self)
        for name in ('joint_lower_rad', 'joint_upper_rad', 'max_speed_rad_s', 'torque_limit', 'rest_rad'):
            values = getattr(self, name)
            if len(values) != len(JOINT_NAMES):
                raise ValueError(
                    f'{name} needs one value per joint ({", ".join(JOINT_NAMES)}), got {len(values)} values.'
                )
        for joint, lower, upper, rest in zip(
            JOINT_NAMES, self.joint_lower_rad, self.joint_upper_rad, self.rest_rad, strict=True
        ):
            if not lower < upper:
                raise ValueError(
                    f'{joint}: joint_lower_rad {lower} is not below joint_upper_rad {upper}; correct one.'
                )
            if joint != GRIPPER and not lower <= rest <= upper:
                raise ValueError(
                    f'{joint}: rest_rad {rest} is outside [{lower}, {upper}] rad; choose a rest pose inside.'
                )
        self._check_order('temperature_warn_c', 'temperature_stop_c')
        self._check_order('supply_min_v', 'supply_max_v')
        self._check_order('reading_max_age_s', 'reading_timeout_s')
        if self.gripper_contact_load >= min(self.gripper_hot_torque, self.torque_limit[GRIPPER_INDEX]):
            raise ValueError(
                f'gripper_contact_load = {self.gripper_contact_load} is not below the torque limits of the '
                f'gripper ({self.gripper_hot_torque} hot, {self.torque_limit[GRIPPER_INDEX]} normal), so '
                'contact would never be seen; lower it.'
            )

    def _check_order(self, low: str, high: str) -> None:
        if not getattr(self, low) < getattr(self, high):
            raise ValueError(f'{low} = {getattr(self, low)} must be below {high} = {getattr(self, high)}.')

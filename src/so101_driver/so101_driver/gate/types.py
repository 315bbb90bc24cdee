# SPDX-License-Identifier: Apache-2.0
"""What the safety gate says: its states, findings and answers, and what it wants from the servos."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from so101_contract.joints import JOINT_NAMES

Vector = npt.NDArray[np.float64]
NUM_JOINTS = len(JOINT_NAMES)


class GateState(StrEnum):
    """State of the gate; `gate.py` has the table of transitions."""

    DISABLED = 'disabled'
    ENABLED = 'enabled'
    HOLD = 'hold'
    E_STOP = 'e_stop'
    FAULT = 'fault'


class Level(StrEnum):
    """How bad a finding is."""

    WARN = 'warn'
    FAULT = 'fault'


class Reply(NamedTuple):
    """Answer to a request: whether it is carried out, and one sentence that says why."""

    accepted: bool
    sentence: str


@dataclass(frozen=True)
class Finding:
    """Something wrong with one joint.

    Attributes:
        level: whether it stops the arm.
        code: short name, the same for every joint: 'overheat', 'hot', 'overvoltage', 'sag', 'voltage',
            'encoder', 'temperature', 'current', 'overload'.
        joint: name of the joint.
        sentence: names the joint, its servo, the value and what to do.
    """

    level: Level
    code: str
    joint: str
    sentence: str


@dataclass
class GateCounters:
    """How often each thing happened since the gate was made.

    Attributes:
        commands: commands taken.
        refused: commands refused for what they hold (NaN, names, lengths).
        stale: commands too old, or from the future, on arrival.
        dropped: good commands that came while none is followed.
        clamped: commands with a joint outside its limits.
        ramp_limited: ticks in which the ramp cut a step.
        lead_limited: ticks in which a goal waited for its joint.
        holds: changes to HOLD because commands or readings stopped.
        faults: changes to FAULT.
        e_stops: changes to E_STOP.
        late_ticks: ticks after a gap longer than `max_tick_s`.
        clock_jumps: ticks whose time was not finite or ran backwards.
    """

    commands: int = 0
    refused: int = 0
    stale: int = 0
    dropped: int = 0
    clamped: int = 0
    ramp_limited: int = 0
    lead_limited: int = 0
    holds: int = 0
    faults: int = 0
    e_stops: int = 0
    late_ticks: int = 0
    clock_jumps: int = 0


@dataclass(frozen=True)
class GateOutput:
    """What one tick wants from the servos. Write the goal first, then the torque switch.

    Attributes:
        state: state of the gate.
        reason: why it is in this state, one sentence.
        torque: the wanted torque switch of all joints.
        write_torque: the switch is to be written now: it changed, or it is time to repeat it.
        goal_rad: goal positions (6,) [rad] to write, or None: write no goal. A goal write switches the
            torque of this servo on, whatever the switch says.
        prime: the goal is the measured position, written before the torque comes on.
        torque_limit: torque limit of each joint (6,), fraction of full torque. The configured limit goes into
            both registers once; what changes here while running belongs into the volatile one only.
        parking: the arm is on its way to the rest pose.
        findings: everything that is wrong with the servos now.
        events: sentences about what changed since the last tick, each said once.
    """

    state: GateState
    reason: str
    torque: bool
    write_torque: bool
    goal_rad: Vector | None
    prime: bool
    torque_limit: Vector
    parking: bool
    findings: tuple[Finding, ...] = ()
    events: tuple[str, ...] = field(default=())

# SPDX-License-Identifier: Apache-2.0
"""The ground truth of the twin as a message, and back.

It is one JSON object in a `std_msgs/String`: the fields of `GroundTruth`, and `stamp_ns`, `task`, `preset`, `resets`,
`success`, `failure`, `reason`, `good_steps`, `dropped`, `reward`, and `reward_terms` (the dense reward, by name). Only
simulations publish it, and only what plays the human or judges a simulation may read it.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
import json
from typing import Any

from std_msgs.msg import String

from so101_sim.errors import SimulationError
from so101_sim.scene.ground_truth import GroundTruth
from so101_sim.tasks import Status
from so101_sim.twin.twin import TaskState

TOPIC = 'sim/task'
RESET_SERVICE = 'sim/reset'
POWER_SERVICE = 'sim/power'


@dataclass(frozen=True)
class TaskReport:
    """What a `sim/task` message says.

    Attributes:
        stamp_ns: when it was so, on the clock of the graph [ns].
        task: name of the task.
        preset: name of its difficulty.
        state: the scene and where the task stands.
    """

    stamp_ns: int
    task: str
    preset: str
    state: TaskState


def task_message(report: TaskReport) -> String:
    """Build the message."""
    state = report.state
    values = {
        'stamp_ns': report.stamp_ns,
        'task': report.task,
        'preset': report.preset,
        'resets': state.resets,
        'reward': state.reward,
        'reward_terms': dict(state.terms),
        **asdict(state.status),
        **asdict(state.truth),
    }
    return String(data=json.dumps(values))


def read_task_message(message: String) -> TaskReport:
    """Read a message.

    Raises:
        SimulationError: it is not what `task_message` makes.
    """
    try:
        values: Mapping[str, Any] = json.loads(message.data)
        status = Status(
            success=bool(values['success']),
            failure=bool(values['failure']),
            good_steps=int(values['good_steps']),
            dropped=bool(values['dropped']),
            reason=str(values['reason']),
        )
        truth = GroundTruth.from_mapping(values)
        terms = {str(name): float(value) for name, value in values['reward_terms'].items()}
        state = TaskState(truth, status, float(values['reward']), int(values['resets']), terms)
        return TaskReport(int(values['stamp_ns']), str(values['task']), str(values['preset']), state)
    except (AttributeError, KeyError, TypeError, json.JSONDecodeError) as error:
        raise SimulationError(
            f'expected the ground truth of the twin on {TOPIC}, got something else ({error}); '
            f'let only twin_node publish there'
        ) from error

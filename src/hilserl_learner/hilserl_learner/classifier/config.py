# SPDX-License-Identifier: Apache-2.0
"""Parameters of classifier_node."""

from dataclasses import dataclass
from pathlib import Path

from so101_contract.observation_spec import (
    CONTROL_RATE_HZ,
    DEFAULT_OBSERVATION,
    OBSERVATIONS,
    ObservationSpec,
)
from so101_contract.task.files import observed, told_task
from so101_contract.task.spec import TaskReward, TaskSpec
from so101_interfaces_py.params import check_bounds, param


@dataclass(frozen=True, kw_only=True)
class ClassifierConfig:
    """Where labels and network are kept, what they are of, and when it learns."""

    directory: str = param(
        'classifiers/mine', doc='Folder of the classifier: the labels that it learns from, and its network.'
    )
    task: str = param('', doc='What is to be done: name or file of a task; empty: nobody says.')
    cameras: tuple[str, ...] = param(
        ('',), doc='Cameras that are observed; empty: those of the task, or else of the observation.'
    )
    observation: str = param(
        DEFAULT_OBSERVATION, doc='What the session observes.', choices=tuple(OBSERVATIONS)
    )
    rate_hz: float = param(CONTROL_RATE_HZ, doc='Steps per second.', unit='Hz', lo=1.0, hi=100.0)
    threshold: float = param(0.8, doc='Probability from which a picture shows success.', lo=0.05, hi=0.99)
    doubt: float = param(
        0.3, doc='A picture is asked about whose probability is so close to a half.', lo=0.0, hi=0.5
    )
    train_after: int = param(
        150, doc='New labels after which it learns by itself; 0: only when it is asked to.', lo=0, hi=100_000
    )
    train_steps: int = param(200, doc='Updates of a training.', lo=1, hi=100_000)
    torch_threads: int = param(1, doc='Threads of the network.', lo=1, hi=64)

    def __post_init__(self) -> None:
        """Check each value."""
        check_bounds(self)

    @property
    def folder(self) -> Path:
        """Folder of the classifier."""
        return Path(self.directory).expanduser()

    @property
    def task_spec(self) -> TaskSpec | None:
        """What is to be done; None where nobody says."""
        return told_task(self.task, self.cameras)

    @property
    def observation_spec(self) -> ObservationSpec:
        """What the session observes; only its cameras matter here."""
        return observed(self.task_spec, self.observation, cameras=self.cameras)

    @property
    def hold_steps(self) -> int:
        """For how many steps success must last."""
        task = self.task_spec
        return (
            max(1, round(TaskReward().hold_s * self.rate_hz))
            if task is None
            else task.hold_steps(self.rate_hz)
        )

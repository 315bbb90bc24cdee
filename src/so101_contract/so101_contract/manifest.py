# SPDX-License-Identifier: Apache-2.0
"""The manifest of a policy: everything about it that its tensors do not say, as a JSON file next to them."""

from collections.abc import Collection
from dataclasses import dataclass
from enum import Enum
import re
from typing import ClassVar

import numpy as np
import numpy.typing as npt

from so101_contract.action import ACTION_SIZE, ActionSpec
from so101_contract.errors import ManifestError
from so101_contract.joints import JOINT_NAMES
from so101_contract.observation import Observation
from so101_contract.observation_spec import ObservationSpec
from so101_contract.record import Record
from so101_contract.task.spec import TaskSpec, Workspace

__all__ = [
    'MUST_AGREE',
    'SHOULD_AGREE',
    'Golden',
    'LiveConfig',
    'PolicyManifest',
    'StepUnit',
    'Workspace',
    'golden_observation',
]

_SHA256 = re.compile(r'[0-9a-f]{64}')

MUST_AGREE = ('task', 'observation', 'action', 'control_rate_hz', 'ik_profile')
"""A policy does something else than it was trained for where one of these differs."""

SHOULD_AGREE = ('reset_pose', 'workspace', 'calibration_id')
"""A policy starts, or ends up, where it was not trained where one of these differs."""

_TOLERANCE = {'reset_pose': 0.05, 'workspace': 0.005}  # [rad], [m]: below what anybody would notice


class StepUnit(Enum):
    """What a schedule's step counts."""

    ITERATIONS = 'iterations'
    """Passes of RoboBase's main loop, each one step of every parallel environment."""
    ENV_STEPS = 'env_steps'
    """Actions sent to an arm."""
    UPDATES = 'updates'
    """Gradient updates."""


@dataclass(frozen=True, kw_only=True)
class Golden(Record):
    """What the policy answers to a fixed observation, so that whoever loads it can tell that it still does.

    Attributes:
        pattern: seed of the observation, see `golden_observation`.
        action: mean action in network units, (4,) where it moves the TCP.
        tolerance: largest difference per entry that other machines may show.
    """

    KIND: ClassVar[str] = 'so101_contract/golden/1'
    ERROR = ManifestError

    pattern: int
    action: tuple[float, ...]
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        """Check the size of the action."""
        super().__post_init__()
        if self.pattern < 0 or len(self.action) < ACTION_SIZE or not self.tolerance > 0:
            raise ManifestError(
                f'expected a pattern >= 0, {ACTION_SIZE} action entries or more and a tolerance above 0, got {self}; '
                f'export the policy again'
            )

    def check(self, action: npt.ArrayLike) -> None:
        """Refuse an answer to the golden observation that is not the recorded one.

        Raises:
            ManifestError: with both actions.
        """
        got = np.asarray(action, dtype=np.float64)
        expected = np.array(self.action)
        if got.shape != expected.shape or not np.all(np.abs(got - expected) <= self.tolerance):
            raise ManifestError(
                f'expected the action {expected.tolist()} for the golden observation, got {got.tolist()}; '
                f'the weights are damaged or do not belong to this manifest'
            )


@dataclass(frozen=True, kw_only=True)
class LiveConfig(Record):
    """What a policy is about to run in; None means unknown and is not compared.

    Attributes:
        observation: what the session observes.
        action: what its actions mean.
        control_rate_hz: steps per second [Hz].
        ik_profile: name of the controller's profile.
        reset_pose: joints at the start of an episode (6,) [rad].
        workspace: box of the TCP's target.
        calibration_id: hash of the arm's calibration.
        task: what is to be done.
    """

    KIND: ClassVar[str] = 'so101_contract/live/1'
    ERROR = ManifestError
    OPTIONAL = frozenset({'task'})

    observation: ObservationSpec | None = None
    action: ActionSpec | None = None
    control_rate_hz: float | None = None
    ik_profile: str | None = None
    reset_pose: tuple[float, ...] | None = None
    workspace: Workspace | None = None
    calibration_id: str | None = None
    task: TaskSpec | None = None


ON_BASE_MODES, ON_BASE_RULES = ('choice', 'residual'), ('mean', 'unanimous', 'min_max')


@dataclass(frozen=True, kw_only=True)
class OnBaseManifest(Record):
    """What a policy that acts on top of a base policy may do; its terms are those of `drqv2_policy_node.on_base`.

    Attributes:
        mode: choice, or residual.
        rule: which critics have to prefer its actions.
        margin: by how much.
        hold_steps: steps for which a choice holds.
        residual_scale: largest correction of the base, in network units.
        base_std: exploration noise on the base's actions, in network units.
        share: how often it is heard, 0..1.
        alone: it acts in every step, without a look at the base.
    """

    KIND: ClassVar[str] = 'so101_contract/on_base/1'
    ERROR = ManifestError

    mode: str
    rule: str
    margin: float
    hold_steps: int
    residual_scale: float
    base_std: float
    share: float
    alone: bool

    def __post_init__(self) -> None:
        """Check the values."""
        super().__post_init__()
        known = self.mode in ON_BASE_MODES and self.rule in ON_BASE_RULES
        bounded = 0.0 <= self.margin <= 1e3 and 1 <= self.hold_steps <= 1000 and 0.0 <= self.share <= 1.0
        if not (known and bounded and 0.01 <= self.residual_scale <= 2.0 and 0.0 <= self.base_std <= 1.0):
            raise ManifestError(
                f'expected a mode of {list(ON_BASE_MODES)}, a rule of {list(ON_BASE_RULES)}, a share of 0 to 1 and a '
                f'margin, steps, a scale and noise within their bounds, got {self}; export the policy again'
            )


@dataclass(frozen=True, kw_only=True)
class PolicyManifest(Record):
    """Everything about a policy that its tensors do not say.

    TCP and camera preset are fields of the observation spec.

    Attributes:
        name: for people.
        version: counts up with every publication of the learner; 0 for a file from elsewhere.
        observation: what it sees.
        action: what its output means.
        control_rate_hz: steps per second that it was trained at [Hz].
        ik_profile: name of the controller's profile that executed its actions.
        reset_pose: joints at the start of its episodes, (6,) of an SO-101 [rad].
        workspace: box of the TCP's target.
        std_schedule: exploration noise over training, e.g. `linear(0.2,0.1,10000)`.
        std_unit: what the schedule's step counts.
        calibration_id: hash of the calibration of the arm that it learned on; None for a simulation.
        golden: its answer to a fixed observation.
        tensors_sha256: hash of the tensor file.
        source_sha256: hash of the file that it was converted from; None where it was trained here.
        task: what it was trained to do; None where it does not say, as those that are older than task files.
        on_base: what it may do on top of a base policy; None where it acts alone.
    """

    KIND: ClassVar[str] = 'so101_contract/policy_manifest/1'
    ERROR = ManifestError
    OPTIONAL = frozenset({'task', 'on_base'})

    name: str
    version: int
    observation: ObservationSpec
    action: ActionSpec
    control_rate_hz: float
    ik_profile: str
    reset_pose: tuple[float, ...]
    workspace: Workspace
    std_schedule: str
    std_unit: StepUnit
    calibration_id: str | None
    golden: Golden
    tensors_sha256: str
    source_sha256: str | None
    task: TaskSpec | None = None
    on_base: OnBaseManifest | None = None

    def __post_init__(self) -> None:
        """Check the values that have a form."""
        super().__post_init__()
        if self.version < 0 or not self.control_rate_hz > 0 or len(self.reset_pose) < len(JOINT_NAMES):
            raise ManifestError(
                f'expected a version >= 0, a control rate above 0 Hz and {len(JOINT_NAMES)} reset joints or more, '
                f'got {self.version}, {self.control_rate_hz} and {len(self.reset_pose)}; export it again'
            )
        if len(self.golden.action) != self.action.size:
            raise ManifestError(
                f'expected a golden action of {self.action.size} entries, got {len(self.golden.action)}; export the '
                f'policy again'
            )
        if not self.name or not self.ik_profile or not self.std_schedule:
            raise ManifestError(
                'expected a name, an IK profile and a std schedule, got an empty one; export the policy again'
            )
        for digest in (self.tensors_sha256, self.source_sha256):
            if digest is not None and not _SHA256.fullmatch(digest):
                raise ManifestError(f'expected a SHA-256 in lower-case hex, got {digest!r}; compute it again')

    def check_compatible(self, other: 'PolicyManifest | LiveConfig', there: str = 'running') -> list[str]:
        """Return one line per difference that forbids to run, or to go on training, this policy there."""
        return self._compare(other, MUST_AGREE, there)

    def check_recommended(self, other: 'PolicyManifest | LiveConfig', there: str = 'running') -> list[str]:
        """Return one line per difference that the user should know: pose, workspace, calibration."""
        return self._compare(other, SHOULD_AGREE, there)

    def _compare(
        self, other: 'PolicyManifest | LiveConfig', fields: Collection[str], there: str
    ) -> list[str]:
        lines = []
        for name in fields:
            mine, theirs = getattr(self, name), getattr(other, name)
            if mine is None or theirs is None or _close(mine, theirs, _TOLERANCE.get(name, 0.0)):
                continue
            if isinstance(mine, Record):
                lines += [f'{name}.{line}' for line in mine.diff(theirs, ('policy', there))]
            else:
                lines.append(f'{name}: {mine} policy, {theirs} {there}')
        return lines


def golden_observation(spec: ObservationSpec, pattern: int) -> Observation:
    """Return the observation that golden actions belong to: integer arithmetic, the same on every machine.

    States lie in -1..1, pixels cover 0..255, and no two steps, cameras or channels are alike.
    """
    stack, size = spec.frame_stack, spec.image_size
    count = np.arange(stack * spec.state_size, dtype=np.int64)
    state = ((count * 7919 + 104729 * (pattern + 1)) % 2001 - 1000) / 1000.0
    images = {}
    for camera, name in enumerate(spec.camera_names):
        frame, channel, row, column = np.indices((stack, 3, size, size), dtype=np.int64)
        value = (
            3 * row + 5 * column + 67 * channel + 31 * frame + 101 * camera + 17 * pattern + row * column // 7
        )
        images[name] = (value % 256).astype(np.uint8)
    return Observation(state.reshape(stack, spec.state_size).astype(np.float32), images)


def _close(one: object, two: object, tolerance: float) -> bool:
    """Whether two values are equal, or all their numbers are within the tolerance."""
    if isinstance(one, Workspace) and isinstance(two, Workspace):
        one, two = one.low + one.high, two.low + two.high
    if tolerance and isinstance(one, tuple) and isinstance(two, tuple) and len(one) == len(two):
        return bool(np.allclose(one, two, rtol=0.0, atol=tolerance))
    return one == two

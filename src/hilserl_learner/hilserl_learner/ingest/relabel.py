# SPDX-License-Identifier: Apache-2.0
"""Giving recorded episodes other rewards, and actions where they have none.

Rewards come from the simulator's truth, from the human's labels, from a classifier, or from a script:

| name | reward |
|---|---|
| bag | as it was recorded, late labels included |
| operator | what the human said at the end, 0 before |
| classifier:FOLDER | 1 where a classifier sees success for long enough, and the episode's end; 0 else |
| sim, sim:NAME | a reward of `so101_sim.tasks` (sparse where no name is given), from the recorded ground truth |
| FILE.py | its function `reward(transition)`: a number, or a number and whether the episode ends there |

Where a recorder runs without kinematics, all recorded actions are zero although the arm moved. The displacement of the
TCP between two steps, by forward kinematics (FK), says what the action did; it is what a policy would have to say to
get the same.
"""

from bisect import bisect_right
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
import hashlib
import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hilserl_learner.errors import IngestError
from hilserl_learner.ingest.classifier import identity, load_classifier, success_from
from so101_bags.messages import Decoders
from so101_bags.records import normal_namespace
from so101_bags.storage import open_bags
from so101_contract.action import ActionSpec, AXES, ClipCounter, EeDeltaValue
from so101_contract.joints import gripper_rad_to_opening
from so101_contract.observation import Frame
from so101_contract.observation_spec import ObservationSpec
from so101_contract.session import Outcome
from so101_contract.task_report import from_json, TaskReport, to_record
from so101_contract.transition import EpisodeReport, Transition
from so101_kinematics.fk import ForwardKinematics
from so101_sim.scene.presets import get_preset
from so101_sim.tasks import get_reward, Moment

TRUTH_TOPIC = 'sim/task'
STRING = 'std_msgs/msg/String'
TRUTH_AGE_NS = 500_000_000
"""Older ground truth says nothing about a step [ns]."""

MOVED_M = 0.01
"""A TCP that got this far from where it began has moved [m]."""

ZERO_M = 1e-6
"""Displacements below this are none [m]."""

FloatArray = npt.NDArray[np.float64]
Rewarder = Callable[[Sequence[Transition], EpisodeReport | None], list[Transition]]
"""Takes the transitions of an episode in order and its report; returns them with other rewards."""


@dataclass(frozen=True)
class RewardChoice:
    """Which reward, and a text that changes whenever it would give other numbers."""

    name: str
    identity: str


def choose_reward(name: str) -> RewardChoice:
    """Check the name of a reward.

    Raises:
        IngestError: there is none of that name.
    """
    if name in ('bag', 'operator'):
        return RewardChoice(name, name)
    if name == 'sim' or name.startswith('sim:'):
        get_reward(_sim_reward(name))
        return RewardChoice(name, f'sim:{_sim_reward(name)}')
    if name.startswith('classifier:'):
        return RewardChoice(name, identity(_folder(name)))
    if name.endswith('.py'):
        try:
            content = Path(name).read_bytes()
        except OSError as error:
            raise IngestError(
                f'expected a script at {name}, got "{error.strerror}"; correct the path'
            ) from error
        return RewardChoice(name, f'script:{hashlib.sha256(content).hexdigest()}')
    raise IngestError(
        f'expected the reward bag, operator, sim, sim:NAME, classifier:FOLDER or FILE.py, got {name!r}; choose one'
    )


def make_rewarder(
    choice: RewardChoice, bag: Path, namespace: str, observation: ObservationSpec, action: ActionSpec
) -> Rewarder:
    """Return what gives the episodes of one bag their rewards.

    Raises:
        IngestError: the bag has no ground truth, or the script no function `reward`.
        ClassifierError: the classifier was trained on other pictures.
    """
    if choice.name == 'bag':
        return lambda episode, _: list(episode)
    if choice.name == 'operator':
        return _from_labels
    if choice.name.startswith('sim'):
        return _FromTruth(bag, namespace, _sim_reward(choice.name), action)
    if choice.name.startswith('classifier:'):
        model, manifest = load_classifier(_folder(choice.name))
        manifest.require_observation(observation)
        return lambda episode, _: success_from(model, manifest, episode)
    return _FromScript(Path(choice.name))


def _folder(name: str) -> Path:
    return Path(name.partition(':')[2]).expanduser()


def _sim_reward(name: str) -> str:
    return name.partition(':')[2] or 'sparse'


def _from_labels(episode: Sequence[Transition], report: EpisodeReport | None) -> list[Transition]:
    """Reward 1 for the last step of an episode that the human called a success, and 0 else."""
    outcome = None if report is None else report.outcome
    rewarded = [replace(t, reward=0.0, terminated=False, truncated=False) for t in episode]
    if rewarded and outcome is not None:
        rewarded[-1] = replace(
            rewarded[-1],
            reward=float(outcome is Outcome.SUCCESS),
            terminated=outcome.terminal,
            truncated=not outcome.terminal,
        )
    return rewarded


class _FromTruth:
    """Rewards by what the simulator knew at the end of each step; the first success or failure ends the episode."""

    def __init__(self, bag: Path, namespace: str, reward: str, action: ActionSpec) -> None:
        self._reward = get_reward(reward)
        self._action = action
        topic = f'{normal_namespace(namespace)}/{TRUTH_TOPIC}'
        with open_bags(bag) as raw:
            decoders = Decoders(raw.topics.values())
            self._reports = [
                _report(decoders.whole(message.msgtype, message.data), message.msgtype)
                for message in raw.messages([topic] if topic in raw.topics else [])
            ]
        self._stamps = [report.stamp_ns for report in self._reports]
        if not self._reports:
            raise IngestError(
                f'expected the ground truth of a simulation on {topic} in {bag}, got none; '
                f'choose another reward, or record that topic too'
            )

    def __call__(self, episode: Sequence[Transition], report: EpisodeReport | None) -> list[Transition]:
        rewarded: list[Transition] = []
        last_action = None
        for transition in episode:
            wire = transition.action
            action = self._action.from_wire(wire.translation, wire.opening).values
            report_then = self._at(transition.next_frame.stamp_ns)
            status = report_then.state.status
            moment = Moment(
                report_then.state.truth,
                status,
                action,
                action if last_action is None else last_action,
                wire.opening,
            )
            task = get_preset(report_then.preset, report_then.task).task
            ends = status.success or status.failure
            rewarded.append(
                replace(
                    transition,
                    reward=float(sum(self._reward(moment, task).values())),
                    terminated=ends,
                    truncated=transition.ends and not ends,
                )
            )
            if ends:
                break
            last_action = action
        return rewarded

    def _at(self, stamp_ns: int) -> TaskReport:
        """Return what was true at the end of a step."""
        place = bisect_right(self._stamps, stamp_ns) - 1
        if place < 0 or stamp_ns - self._stamps[place] > TRUTH_AGE_NS:
            raise IngestError(
                f'expected ground truth at most {TRUTH_AGE_NS / 1e9} s before the step at {stamp_ns} ns, got none; '
                f'choose another reward for this bag'
            )
        return self._reports[place]


def _report(message: Any, msgtype: str) -> TaskReport:
    """Read ground truth; bags of before TaskReport hold it as JSON in a String."""
    return from_json(message.data) if msgtype == STRING else to_record(message)


class _FromScript:
    """Rewards by a function that the user wrote."""

    def __init__(self, path: Path) -> None:
        spec = importlib.util.spec_from_file_location('so101_user_reward', path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        function = getattr(module, 'reward', None)
        if not callable(function):
            raise IngestError(f'expected a function reward(transition) in {path}, got none; define it')
        self._function, self._path = function, path

    def __call__(self, episode: Sequence[Transition], report: EpisodeReport | None) -> list[Transition]:
        rewarded: list[Transition] = []
        for transition in episode:
            result = self._function(transition)
            reward, ends = result if isinstance(result, tuple) else (result, transition.terminated)
            if not isinstance(reward, int | float | np.number) or not np.isfinite(reward):
                raise IngestError(
                    f'expected a finite number, or a number and a bool, from reward() in {self._path}, got {result!r}; '
                    f'correct the script'
                )
            rewarded.append(
                replace(
                    transition,
                    reward=float(reward),
                    terminated=bool(ends),
                    truncated=transition.ends and not ends,
                )
            )
            if ends:
                break
        return rewarded


@dataclass(frozen=True, kw_only=True)
class Repair:
    """What was done to the actions of some episodes.

    Attributes:
        episodes: their numbers.
        transitions: how many actions were replaced.
        clipped: share of them that had to be clipped to what a network can say, by axis, 0..1.
    """

    episodes: tuple[int, ...]
    transitions: int
    clipped: dict[str, float]


class FkRepair:
    """Finds and repairs zero actions of one observation spec; counts what it had to clip."""

    def __init__(self, observation: ObservationSpec, action: ActionSpec) -> None:
        """Prepare.

        Raises:
            IngestError: the state says neither where the TCP is nor how the joints stand.
        """
        self._action = action
        self._counter = ClipCounter()
        self._episodes: list[int] = []
        blocks = observation.block_names
        if 'joint_pos' not in blocks:
            raise IngestError(
                f'expected joint_pos in the state to look for zero actions, got {list(blocks)}; '
                f'ingest with an observation that has it'
            )
        self._joints = observation.slice_of('joint_pos')
        self._fk = ForwardKinematics(observation.tcp)

    @property
    def report(self) -> Repair:
        """What was done so far."""
        fraction = {axis: round(self._counter.fraction[axis], 6) for axis in AXES}
        return Repair(episodes=tuple(self._episodes), transitions=self._counter.total, clipped=fraction)

    def tcp(self, frame: Frame) -> FloatArray:
        """Return where the TCP was [m] (3,)."""
        return self._fk.pose(frame.state[self._joints].astype(np.float64)).position

    def opening(self, frame: Frame) -> float:
        """Return how far the gripper was open, 0..1."""
        return float(gripper_rad_to_opening(float(frame.state[self._joints][-1])))

    def is_zero(self, episode: Sequence[Transition]) -> bool:
        """Whether an episode has no displacement in any action although the TCP moved."""
        if any(np.abs(transition.action.translation).max() > ZERO_M for transition in episode):
            return False
        places = np.array([self.tcp(f) for t in episode for f in (t.frames[-1], t.next_frame)])
        return bool(len(places)) and bool(np.linalg.norm(places - places[0], axis=1).max() > MOVED_M)

    def repair(self, episode: Sequence[Transition]) -> list[Transition]:
        """Return the episode with actions from the displacement and the gripper of the next step."""
        repaired = []
        for transition in episode:
            before, after = transition.frames[-1], transition.next_frame
            moved = EeDeltaValue(self.tcp(after) - self.tcp(before), self.opening(after))
            value = self._action.limit(moved)
            self._counter.add(value)
            action = replace(transition.action, translation=value.translation, opening=value.opening)
            repaired.append(replace(transition, action=action))
        self._episodes += sorted({transition.episode for transition in episode})
        return repaired

# SPDX-License-Identifier: Apache-2.0
"""Giving recorded episodes other rewards, and actions where they have none.

Rewards come from the simulator's truth, from the human's labels, from a classifier, or from a script:

| name | reward |
|---|---|
| bag | as it was recorded, late labels included |
| operator | what the human said at the end, 0 before |
| success | 1 for the last step of each episode, which ends in success; 0 before: demonstrations without rewards |
| classifier:FOLDER | 1 where a classifier sees success for long enough, and the episode's end; 0 else |
| gripper | 1 where the gripper has held something for long enough, and the episode's end; 0 else |
| classifier:FOLDER,gripper | 1 where both say so |
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
import math
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from hilserl_learner.classifier.model import identity, load_classifier, pictures, probabilities
from hilserl_learner.errors import EpisodeError, IngestError
from hilserl_learner.lerobot.dataset import is_dataset
from so101_bags.messages import Decoders
from so101_bags.metadata import read_session_metadata, task_of_bag
from so101_bags.records import normal_namespace
from so101_bags.storage import open_bags
from so101_contract.action import ActionSpec, AXES, ClipCounter, EeDeltaValue
from so101_contract.joints import gripper_rad_to_opening
from so101_contract.observation import Frame
from so101_contract.observation_spec import CONTROL_RATE_HZ, ObservationSpec
from so101_contract.session import Outcome
from so101_contract.task.reward import Evidence, Grip, Jury, Opinion, RewardSource, Word
from so101_contract.task.spec import TaskReward, TaskSpec
from so101_contract.task_report import from_json, TaskReport, to_record
from so101_contract.transition import EpisodeReport, Transition
from so101_kinematics.fk import ForwardKinematics
from so101_sim.scene.presets import get_preset
from so101_sim.tasks import get_reward, Moment, Task

TRUTH_TOPIC = 'sim/task'
STRING = 'std_msgs/msg/String'
TRUTH_AGE_NS = 500_000_000
"""Older ground truth says nothing about a step [ns]."""

GRIPPER = 'gripper'

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
    if name in ('bag', 'operator', 'success'):
        return RewardChoice(name, name)
    if name == 'sim' or name.startswith('sim:'):
        get_reward(_sim_reward(name))
        return RewardChoice(name, f'sim:{_sim_reward(name)}')
    if _by_sources(name):
        parts = [identity(_folder(part)) if part != GRIPPER else GRIPPER for part in name.split(',')]
        return RewardChoice(name, ','.join(parts))
    if name.endswith('.py'):
        try:
            content = Path(name).read_bytes()
        except OSError as error:
            raise IngestError(
                f'expected a script at {name}, got "{error.strerror}"; correct the path'
            ) from error
        return RewardChoice(name, f'script:{hashlib.sha256(content).hexdigest()}')
    raise IngestError(
        f'expected the reward bag, operator, success, sim, sim:NAME, gripper, classifier:FOLDER, the last two with a '
        f'comma between, or FILE.py, got {name!r}; choose one'
    )


def make_rewarder(
    choice: RewardChoice,
    bag: Path,
    namespace: str,
    observation: ObservationSpec,
    action: ActionSpec,
    *,
    task: TaskSpec | None = None,
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
    if choice.name == 'success':
        return lambda episode, _: _with_outcome(episode, Outcome.SUCCESS)
    if choice.name.startswith('sim') and is_dataset(bag):
        raise IngestError(
            f'expected a bag of a simulation for the reward {choice.name}, got the dataset {bag}, which has no ground '
            f'truth; choose bag, operator, success, a classifier or a script'
        )
    if choice.name.startswith('sim'):
        return _FromTruth(bag, namespace, _sim_reward(choice.name), action)
    if _by_sources(choice.name):
        return _BySources(choice.name.split(','), observation, task)
    return _FromScript(Path(choice.name))


def _by_sources(name: str) -> bool:
    """Whether a reward is by sources that a real arm has, one or both."""
    kinds = [GRIPPER if part == GRIPPER else part.partition(':')[0] for part in name.split(',')]
    return len(set(kinds)) == len(kinds) and set(kinds) <= {GRIPPER, 'classifier'}


class _BySources:
    """Rewards by the sources that judge live too: `so101_contract.task.reward`; a load is not known here."""

    def __init__(self, parts: Sequence[str], observation: ObservationSpec, task: TaskSpec | None) -> None:
        self._model = self._manifest = None
        reward = TaskReward() if task is None else task.reward
        hold_steps = max(1, round(reward.hold_s * CONTROL_RATE_HZ))
        for part in parts:
            if part != GRIPPER:
                self._model, self._manifest = load_classifier(_folder(part))
                self._manifest.require_observation(observation, None if task is None else task.name)
                hold_steps = self._manifest.hold_steps
        if GRIPPER in parts and 'joint_pos' not in observation.block_names:
            raise IngestError(
                f'expected joint_pos in the state for the reward gripper, got {list(observation.block_names)}; '
                f'ingest with an observation that has it'
            )
        self._joints = observation.slice_of('joint_pos') if GRIPPER in parts else slice(0)
        sources = [RewardSource.GRIPPER if part == GRIPPER else RewardSource.CLASSIFIER for part in parts]
        self._jury = Jury(sources, hold_steps=hold_steps, grip=reward.grip or Grip())

    def __call__(self, episode: Sequence[Transition], report: EpisodeReport | None) -> list[Transition]:
        opinions = self._opinions(episode)
        self._jury.begin()
        rewarded: list[Transition] = []
        for transition, opinion in zip(episode, opinions, strict=True):
            evidence = Evidence(
                episode=transition.episode,
                index=transition.index + 1,
                opinion=opinion,
                commanded=transition.action.opening,
                opening=self._opening(transition.next_frame),
            )
            done = self._jury.judge(evidence)[0] is Word.SUCCESS
            rewarded.append(
                replace(
                    transition, reward=float(done), terminated=done, truncated=transition.ends and not done
                )
            )
            if done:
                break
        return rewarded

    def _opinions(self, episode: Sequence[Transition]) -> list[Opinion | None]:
        if self._model is None or self._manifest is None:
            return [None] * len(episode)
        told = probabilities(self._model, pictures([t.next_frame for t in episode])).tolist()
        threshold = self._manifest.threshold
        return [
            Opinion(t.episode, t.index + 1, probability, probability >= threshold)
            for t, probability in zip(episode, told, strict=True)
        ]

    def _opening(self, frame: Frame) -> float:
        joints = frame.state[self._joints]
        return float(gripper_rad_to_opening(float(joints[-1]))) if len(joints) else math.nan


def _folder(name: str) -> Path:
    return Path(name.partition(':')[2]).expanduser()


def _sim_reward(name: str) -> str:
    return name.partition(':')[2] or 'sparse'


def _from_labels(episode: Sequence[Transition], report: EpisodeReport | None) -> list[Transition]:
    """Reward 1 for the last step of an episode that the human called a success, and 0 else."""
    return _with_outcome(episode, None if report is None else report.outcome)


def _with_outcome(episode: Sequence[Transition], outcome: Outcome | None) -> list[Transition]:
    """Let an episode end with an outcome, and with reward 1 where that is a success."""
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
        self._told = task_of_bag(read_session_metadata(bag))
        self._tasks: dict[tuple[str, str], Task] = {}
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
            task = self._task_of(report_then)
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

    def _task_of(self, report: TaskReport) -> Task:
        """Return what is judged: as the bag says the task, or else by its name."""
        known = (report.preset, report.task)
        if known not in self._tasks:
            told = self._told if self._told is not None and self._told.name == report.task else report.task
            self._tasks[known] = get_preset(report.preset, told).task
        return self._tasks[known]

    def _at(self, stamp_ns: int) -> TaskReport:
        """Return what was true at the end of a step."""
        place = bisect_right(self._stamps, stamp_ns) - 1
        if place < 0 or stamp_ns - self._stamps[place] > TRUTH_AGE_NS:
            raise EpisodeError(
                f'expected ground truth at most {TRUTH_AGE_NS / 1e9} s before the step at {stamp_ns} ns, got none; '
                f'choose another reward for it'
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

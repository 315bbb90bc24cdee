# SPDX-License-Identifier: Apache-2.0
"""The classifier of success against minutes of labels, and what it does under another light.

The graph runs on the twin: the scripted operator drives, a scripted human presses `success now` and `not yet` with a
reaction time, through the services that the page's buttons call, and classifier_node keeps the labels. What was
labelled in the first 1, 3 and 5 minutes is learned from, and judged on minutes that come after, by the simulation's
truth of each step, which nobody else has seen. Then the twin starts again in another light.
The table is for docs/results.md; the last line is one JSON object.
"""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
from dataclasses import dataclass, field
import json
from pathlib import Path
import shutil
import sys
import tempfile
import threading
import time
from typing import Any

from graph_rig import GraphRig
import numpy as np
from processes import isolate
from report import Parser, Report, Row
from sensor_msgs.msg import Image
from so101_interfaces.msg import EpisodeEvent, Step
from std_srvs.srv import Trigger

from hilserl_learner.classifier.judge import StepJudge
from hilserl_learner.classifier.labels import Eyes, Labelled, LABELS, newest, read_labels, Seen
from hilserl_learner.classifier.model import (
    ClassifierError,
    Judged,
    load_classifier,
    probabilities,
    save_classifier,
)
from hilserl_learner.classifier.training import judge, learn, Stretch, stretches_of
from hilserl_learner.training.trainer import prepare_cpu
from so101_bags.messages import Decoders
from so101_bags.records import ArmTopics, RecordMaker
from so101_bags.storage import RawMessage
from so101_contract.messages import StepRecord
from so101_contract.observation_spec import ObservationSpec
from so101_contract.task.files import get_task, observed
from so101_interfaces_py import qos, topics

REACTION_S, SPREAD_S = 0.3, 0.1
"""Of the human: mean and standard deviation [s]."""
SETTLED_S = 0.5
"""Pictures so close to a change of the truth count in no figure but one: nobody could say what they show [s]."""

Stretches = list[Stretch]


@dataclass
class Watched:
    """What was seen, and what was true then, episode by episode."""

    seen: dict[int, dict[int, Seen]] = field(default_factory=dict)
    truth: list[tuple[int, bool]] = field(default_factory=list)

    def stretches(self, first: int, last: int) -> Stretches:
        """Return the episodes of these numbers with the truth of each step."""
        stamps = np.array([stamp for stamp, _ in self.truth])
        made = []
        for number in range(first, last + 1):
            steps = self.seen.get(number, {})
            if len(steps) < 20:
                continue
            order = sorted(steps)
            places = np.searchsorted(stamps, [steps[k].step.stamp_ns for k in order], side='right') - 1
            success = np.array([self.truth[max(0, place)][1] for place in places], dtype=np.bool_)
            made.append(Stretch(np.stack([steps[k].images for k in order]), success))
        return made


class Human:
    """Looks at the arm and presses two buttons; only this one sees the truth while the arm runs."""

    def __init__(self, rig: GraphRig, spec: ObservationSpec, seed: int) -> None:
        self.rig, self.random = rig, np.random.default_rng(seed)
        self.watched, self.presses = Watched(), 0
        self._eyes = Eyes(spec)
        arm = ArmTopics.of('', spec)
        self._maker = RecordMaker(arm, spec, Decoders())
        self._lock = threading.Lock()
        node = rig.ear.node
        self._success = node.create_client(Trigger, topics.SUCCESS_NOW_SERVICE)
        self._other = node.create_client(Trigger, topics.NOT_YET_SERVICE)
        kinds = {arm.step: (Step, 'so101_interfaces/msg/Step', qos.EVENT)}
        for topic in arm.images.values():
            kinds[topic] = (Image, 'sensor_msgs/msg/Image', qos.IMAGE_EVERY)
        for topic, (kind, name, profile) in kinds.items():
            node.create_subscription(kind, topic, self._taker(topic, name), profile, raw=True)
        self._said: bool | None = None
        self._meant: tuple[float, bool] | None = None
        self._episode = 0
        self._task_at = 0

    def _taker(self, topic: str, name: str) -> Any:
        def take(data: bytes) -> None:
            with self._lock:
                for record in self._maker.push(RawMessage(topic, name, time.time_ns(), bytes(data))):
                    for seen in self._eyes.push(record):
                        self.watched.seen.setdefault(seen.step.episode, {})[seen.step.index] = seen

        return take

    def look(self) -> None:
        """Look once, and press what is due; called many times a second."""
        ear = self.rig.ear
        with contextlib.suppress(TimeoutError):  # on a busy machine: it is asked again
            self.rig.keep_going()
        heard = ear.heard[topics.SIM_TASK]
        for _, report in list(heard)[self._task_at :]:
            stamp = report.header.stamp.sec * 10**9 + report.header.stamp.nanosec
            self.watched.truth.append((stamp, report.good_steps > 0 or report.success))
            self._task_at += 1
        status = ear.status()
        if status is None or status.state != 'running' or not self.watched.truth:
            return
        if status.episode != self._episode:
            self._episode, self._said, self._meant = status.episode, None, None
        truly = self.watched.truth[-1][1]
        now = time.monotonic()
        if truly is self._said:
            self._meant = None
        elif self._meant is None or self._meant[1] is not truly:
            self._meant = now + max(0.1, self.random.normal(REACTION_S, SPREAD_S)), truly
        elif now >= self._meant[0]:
            (self._success if truly else self._other).call_async(Trigger.Request())
            self._said, self._meant, self.presses = truly, None, self.presses + 1


def lived(human: Human, minutes: float) -> Iterator[float]:
    """Let the arm run for so many minutes of running episodes; yield how many have passed."""
    passed, before = 0.0, time.monotonic()
    while passed < 60.0 * minutes:
        human.look()
        time.sleep(0.02)
        now = time.monotonic()
        status = human.rig.ear.status()
        if status is not None and status.state == 'running':
            passed += now - before
        before = now
        yield passed / 60.0


def newest_episode(rig: GraphRig) -> int:
    """Return the number of the newest episode."""
    starts = [m for _, m in rig.ear.since(topics.EPISODE_EVENT, 0.0) if m.kind == EpisodeEvent.START]
    return max((m.episode for m in starts), default=0)


def rig_of(preset: str, folder: Path, limit: int, seed: int) -> GraphRig:
    """Return the graph in a light, with the operator driving and nobody judging."""
    patient = {'joint_timeout_s': 3.0, 'camera_timeout_s': 3.0, 'no_answer_s': 30.0, 'stall_steps': 30}
    parameters = {
        'twin': {'preset': preset, 'seed': seed},
        'arm': {'reading_timeout_s': 5.0, 'connect_timeout_s': 60.0},
        'operator': {'mode': 'demonstrate', 'noise': 0.2, 'seed': seed},
        'classifier': {'directory': folder, 'task': 'lift', 'train_after': 0},
        'session': {
            **patient,
            'task': 'lift',
            'reward_source': 'operator',
            'simulated': True,
            'time_limit_steps': limit,
        },
    }
    return GraphRig('arm', 'kinematics', 'classifier', 'session', 'operator', parameters=parameters)


def settled(stretches: Sequence[Stretch], told: Sequence[Any], hz: float = 10.0) -> float:
    """Return the share of pictures that are told right, but for those close to a change of the truth."""
    right = count = 0
    for stretch, seen in zip(stretches, told, strict=True):
        near = np.zeros(len(seen), dtype=np.bool_)
        width = round(SETTLED_S * hz)
        for place in np.flatnonzero(np.diff(stretch.success.astype(int))):
            near[max(0, place + 1 - width) : place + 1 + width] = True
        right += int((seen == stretch.success)[~near].sum())
        count += int((~near).sum())
    return right / max(1, count)


@dataclass(frozen=True)
class Taught:
    """A classifier of so many minutes.

    Attributes:
        minutes: of driving in which labels were pressed.
        labels: pictures of success, and others.
        own: how it judges itself, on episodes that were left out.
        test: how it does on the episodes that came later, by the truth.
        settled: share of the pictures told right, but for those close to a change.
        seconds: processor time of its training [s].
    """

    minutes: float
    labels: tuple[int, int]
    own: Judged
    test: Judged
    settled: float
    seconds: float


def taught(
    minutes: float, labels: Sequence[Labelled], test: Stretches, spec: ObservationSpec, folder: Path
) -> Taught:
    """Train on labels, keep the classifier, and judge it."""
    began = time.process_time()
    task = get_task('lift')
    learned = learn(stretches_of(labels), spec.cameras, task='lift', hold_steps=task.hold_steps(10.0))
    seconds = time.process_time() - began
    save_classifier(folder, learned.model, learned.manifest)
    told = [probabilities(learned.model, s.images) >= learned.manifest.threshold for s in test]
    good = sum(label.success for label in labels)
    assert learned.manifest.judged is not None
    return Taught(
        minutes,
        (good, len(labels) - good),
        learned.manifest.judged,
        judge(told, test, learned.manifest.hold_steps),
        settled(test, told),
        seconds,
    )


@dataclass(frozen=True)
class Dark:
    """What a classifier does in another light.

    Attributes:
        name: of the light.
        steps: until it says that the light is another one; -1 where it never does.
        told: share of the steps after the first two seconds at which it says so.
        false_success: steps at which it calls success what is none.
        blind: share of the pictures that the network would have told right, had it not said so.
    """

    name: str
    steps: int
    told: float
    false_success: int
    blind: float


def in_light(name: str, stretches: Stretches, folder: Path, spec: ObservationSpec) -> Dark:
    """Show a classifier pictures in a light, step by step."""
    told = StepJudge(spec, 'lift', 'bench', 0.0)
    told.load(folder)
    model, manifest = load_classifier(folder)
    first, says, wrong, right, k = -1, [], 0, 0, 0
    for number, stretch in enumerate(stretches, 1):
        blind = probabilities(model, stretch.images) >= manifest.threshold
        right += int((blind == stretch.success).sum())
        for index, images in enumerate(stretch.images):
            opinion = told.judge(Seen(StepRecord(number, index, k, k, (k,)), images))
            says.append(bool(opinion.reason))
            first = k if opinion.reason and first < 0 else first
            wrong += opinion.success and not stretch.success[index]
            k += 1
    return Dark(name, first, float(np.mean(says[20:])), wrong, right / k)


def dimmed(stretches: Stretches, factors: tuple[float, float, float]) -> Stretches:
    """Return the same pictures under a lamp of another colour."""
    scale = np.array(factors, np.float32)[:, None, None]
    return [Stretch(np.clip(s.images * scale, 0, 255).astype(np.uint8), s.success) for s in stretches]


def latency_ms(folder: Path, spec: ObservationSpec, test: Stretches) -> list[float]:
    """Return how long a judgement of one step takes [ms]."""
    told = StepJudge(spec, 'lift', 'bench', 0.3)
    told.load(folder)
    times = []
    for index, images in enumerate(test[0].images):
        seen = Seen(StepRecord(1, index, index, index, (index,)), images)
        began = time.process_time()
        told.judge(seen)
        times.append(1e3 * (time.process_time() - began))
    return times[5:]


COUNTS = 'counts.json'


def collect(options: Any, goals: Sequence[float], folder: Path, spec: ObservationSpec) -> None:
    """Run the graph, twice, and keep what came of it: labels, the steps to judge by, and those in another light."""
    limit, counts = get_task('lift').steps(10.0), dict.fromkeys(map(str, goals), 0)
    with rig_of(options.preset, folder / 'mine', limit, options.seed) as rig:
        human = Human(rig, spec, options.seed)
        waiting = list(goals)
        for passed in lived(human, goals[-1]):
            if waiting and passed >= waiting[0]:
                counts[str(waiting.pop(0))] = sum(1 for _ in read_labels(folder / 'mine' / LABELS))
        presses, taught_until = human.presses, newest_episode(rig)
        for _ in lived(human, options.test):
            pass
        save_stretches(folder / 'test.npz', human.watched.stretches(taught_until + 1, newest_episode(rig)))
    with rig_of(options.other, folder / 'other', limit, options.seed + 1) as rig:
        human = Human(rig, spec, options.seed + 1)
        for _ in lived(human, min(1.0, options.test)):
            pass
        save_stretches(folder / 'other.npz', human.watched.stretches(1, newest_episode(rig)))
    (folder / COUNTS).write_text(json.dumps({'counts': counts, 'presses': presses}))


def save_stretches(path: Path, stretches: Stretches) -> None:
    """Write episodes with their truth."""
    arrays = {f'images{k}': s.images for k, s in enumerate(stretches)}
    arrays |= {f'success{k}': s.success for k, s in enumerate(stretches)}
    np.savez(path, **arrays)  # type: ignore[arg-type]


def load_stretches(path: Path) -> Stretches:
    """Read what `save_stretches` wrote."""
    with np.load(path) as held:
        return [Stretch(held[f'images{k}'], held[f'success{k}']) for k in range(len(held.files) // 2)]


def main() -> int:
    """Command line."""
    parser = Parser(__doc__)
    parser.number('--test', 4, 'minutes of driving to judge by', quick=1)
    parser.number('--seed', 0, 'of scene, operator and human')
    parser.add_argument('--minutes', type=float, nargs='+', default=[1.0, 3.0, 5.0], help='of labels')
    parser.add_argument('--preset', default='gap', help='of the scene (default: %(default)s)')
    parser.add_argument('--other', default='easy', help='scene in another light (default: %(default)s)')
    parser.add_argument(
        '--keep', type=Path, help='folder for labels and classifiers; what was collected there is used'
    )
    options = parser.parse_args()
    isolate()
    prepare_cpu(1)
    spec = observed(get_task('lift'), 'compact')
    folder = options.keep or Path(tempfile.mkdtemp(prefix='so101-classifier-'))
    goals = sorted(options.minutes)
    if not (folder / COUNTS).exists():
        collect(options, goals, folder, spec)
    said = json.loads((folder / COUNTS).read_text())
    counts: Mapping[str, int] = said['counts']
    test, other = (load_stretches(folder / f'{name}.npz') for name in ('test', 'other'))
    everything = list(read_labels(folder / 'mine' / LABELS))
    rows, found = [], []
    for minutes in goals:
        try:
            one = taught(
                minutes,
                newest(iter(everything[: counts[str(minutes)]])),
                test,
                spec,
                folder / f'of_{minutes:g}',
            )
        except ClassifierError as error:
            rows.append(Row(f'{minutes:g} minutes', '%', 0, None, note=str(error)))
            continue
        found.append(one)
        rows.append(
            Row(
                f'{minutes:g} minutes of labels: pictures told right',
                '%',
                one.test.frames,
                100.0 * one.test.frame_accuracy,
                note=f'episodes {one.test.episode_accuracy:.1%} of {one.test.episodes}, precision '
                f'{one.test.precision:.1%}, recall {one.test.recall:.1%}, base rate {one.test.base_rate:.1%}; away '
                f'from changes {one.settled:.1%}; {one.labels[0]} + {one.labels[1]} labels; it judges itself: '
                f'{one.own}; trained in {one.seconds:.0f} s of one core',
            )
        )
    last = folder / f'of_{goals[-1]:g}'
    if found:
        rows.append(Row.of('one judgement', 'ms', latency_ms(last, spec, test)))
        lights = [
            ('as taught', test),
            (f'preset {options.other}', other),
            ('two thirds', dimmed(test, (0.67, 0.67, 0.67))),
            ('half', dimmed(test, (0.5, 0.5, 0.5))),
            ('a warm lamp', dimmed(test, (1.0, 0.8, 0.55))),
        ]
        for name, stretches in lights:
            dark = in_light(name, stretches, last, spec)
            rows.append(
                Row(
                    f'light {name}: steps at which it says that it cannot tell',
                    '%',
                    sum(len(s.success) for s in stretches),
                    100.0 * dark.told,
                    note=f'first at step {dark.steps}, {dark.false_success} steps falsely called success; unasked it '
                    f'would tell {dark.blind:.1%} of the pictures right',
                )
            )
    details = {'presses': said['presses'], 'preset': options.preset, 'folder': str(folder)}
    if options.keep is None:
        shutil.rmtree(folder, ignore_errors=True)
    return Report('classifier', rows, passed=bool(found), details=details).finish(options)


if __name__ == '__main__':
    sys.exit(main())

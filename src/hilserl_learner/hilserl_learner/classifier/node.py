# SPDX-License-Identifier: Apache-2.0
"""The classifier as a ROS node: says of each step whether its pictures show success, and learns what a human shows it.

It hears the steps, the events and the pictures that the policy hears, as bytes, and takes them the way that those of a
bag take. Labels are on the disk before anything is made of them. It learns in a process of its own, and takes the new
network between two steps; the old one judges until then.
"""

from collections import deque
import io
import math
import os
from pathlib import Path
import signal
import subprocess
import sys
import time
from typing import Any

import numpy as np
from PIL import Image as Picture
from rclpy.clock import Clock, ClockType
from sensor_msgs.msg import CompressedImage, Image
from so101_interfaces.msg import ClassifierStatus, EpisodeEvent, Step, SuccessOpinion
from std_srvs.srv import SetBool, Trigger

from hilserl_learner.classifier.config import ClassifierConfig
from hilserl_learner.classifier.judge import StepJudge
from hilserl_learner.classifier.labels import (
    Eyes,
    Labelled,
    Labeller,
    LABELS,
    LabelsHeader,
    LabelStore,
    newest,
    read_labels,
    Seen,
)
from hilserl_learner.classifier.model import ClassifierError, folder_of, MANIFEST
from hilserl_learner.classifier.training import FEWEST_EPISODES, FEWEST_PICTURES
from hilserl_learner.errors import LearnerError
from hilserl_learner.live.process import DirectoryLock
from hilserl_learner.training.trainer import prepare_cpu
from so101_bags.messages import Decoders
from so101_bags.records import ArmTopics, RecordMaker
from so101_bags.storage import RawMessage
from so101_contract.errors import ContractError
from so101_contract.messages import EpisodeEventRecord, StepRecord
from so101_contract.task.reward import opinion_message
from so101_interfaces_py import qos, topics
from so101_interfaces_py.conversions import ns_to_stamp
from so101_interfaces_py.params import load_config, ParameterError
from so101_interfaces_py.spin import run_node, SoleNode
from so101_interfaces_py.voices import Voices

CONFIG = (ClassifierConfig,)
TICK_S, STATUS_TICKS = 0.1, 10
LATENCIES = 200
LOCK, LOG = 'classifier.lock', 'training.log'
NICE = 15
"""Of a training: the arm goes first, but it gets there on a busy machine too."""

_MESSAGES = {
    'so101_interfaces/msg/Step': (Step, qos.EVENT),
    'so101_interfaces/msg/EpisodeEvent': (EpisodeEvent, qos.EVENT),
    'sensor_msgs/msg/Image': (Image, qos.IMAGE_EVERY),
}


class LabelCount:
    """How many labels there are, of which episodes, and how many are new since the last training."""

    def __init__(self) -> None:
        self.success = self.other = self.fresh = 0
        self.episodes: set[str] = set()

    def add(self, labelled: Labelled, fresh: bool = True) -> None:
        """Count a label."""
        self.success += labelled.success
        self.other += not labelled.success
        self.fresh += fresh
        self.episodes.add(labelled.episode)

    @property
    def missing(self) -> str:
        """What is missing for a training, as a sentence; empty where it is enough."""
        enough = min(self.success, self.other) >= FEWEST_PICTURES and len(self.episodes) >= FEWEST_EPISODES
        if enough:
            return ''
        return (
            f'labels: {self.success} of {FEWEST_PICTURES} pictures of success, {self.other} of {FEWEST_PICTURES} '
            f'others, {len(self.episodes)} of {FEWEST_EPISODES} episodes'
        )


class Training:
    """A training in a process of its own."""

    def __init__(self, folder: Path, words: list[str]) -> None:
        self.began_s = time.monotonic()
        self._log = folder / LOG
        command = [sys.executable, '-m', 'hilserl_learner.classifier.cli', str(folder), *words]
        environment = {
            **os.environ,
            'PYTHONPATH': os.pathsep.join(filter(None, sys.path)),
            'OMP_NUM_THREADS': '1',
        }
        with self._log.open('wb') as log:
            self._process = subprocess.Popen(
                ['nice', '-n', str(NICE), *command],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,  # an interrupt from the terminal is for the node
            )

    @property
    def code(self) -> int | None:
        """Its exit code; None while it runs."""
        return self._process.poll()

    @property
    def said(self) -> str:
        """Its last line."""
        lines = self._log.read_text(encoding='utf-8', errors='replace').strip().splitlines()
        return lines[-1] if lines else 'it said nothing'

    def close(self) -> None:
        """End it."""
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGKILL)  # what it writes appears whole or not at all
            self._process.wait()


class ClassifierNode(SoleNode):
    """Callbacks judge and store; the tick looks after the training and says how things are."""

    def __init__(self, **node_options: Any) -> None:
        super().__init__('classifier_node', **node_options)
        config = self._config = load_config(self, ClassifierConfig)
        prepare_cpu(config.torch_threads)
        spec, task = config.observation_spec, config.task_spec
        name, stream = None if task is None else task.name, f'{time.time_ns():x}'
        self._folder = config.folder
        self._lock = DirectoryLock(self._folder / LOCK)
        self._store = LabelStore(self._folder / LABELS, LabelsHeader(cameras=spec.cameras, task=name))
        self._count = LabelCount()
        for labelled in newest(read_labels(self._folder / LABELS)):
            self._count.add(labelled, fresh=False)
        self._judge = StepJudge(spec, name, stream, config.doubt)
        self._eyes, self._labeller = Eyes(spec), Labeller(stream)
        self._training: Training | None = None
        self._trouble = ''
        self._came_s: dict[tuple[int, int], float] = {}
        self._latencies: deque[float] = deque(maxlen=LATENCIES)
        self._asked: object = self
        self._said: tuple[object, ...] = ()
        self._ticks = 0
        if (folder_of(self._folder) / MANIFEST).exists():
            self._load()
        self._opinions = self.create_publisher(SuccessOpinion, topics.SUCCESS_OPINION, qos.EVENT)
        self._status = self.create_publisher(ClassifierStatus, topics.CLASSIFIER_STATUS, qos.LATCHED)
        self._doubt = self.create_publisher(CompressedImage, topics.CLASSIFIER_DOUBT, qos.LATCHED)
        self.create_service(Trigger, topics.CLASSIFIER_TRAIN_SERVICE, self._on_train)
        self.create_service(SetBool, topics.CLASSIFIER_ANSWER_SERVICE, self._on_answer)
        arm = ArmTopics.of(self.get_namespace(), spec)
        self._maker = RecordMaker(arm, spec, Decoders())
        voices = Voices(self)
        kinds = {
            arm.step: 'so101_interfaces/msg/Step',
            arm.event: 'so101_interfaces/msg/EpisodeEvent',
            **dict.fromkeys(arm.images.values(), 'sensor_msgs/msg/Image'),
        }
        for topic, kind in kinds.items():
            message, profile = _MESSAGES[kind]

            def hear(data: bytes, topic: str = topic, kind: str = kind) -> None:
                self._hear(RawMessage(topic, kind, time.time_ns(), data))

            self.create_subscription(message, topic, voices.only(topic, hear), profile, raw=True)
        self.create_timer(TICK_S, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME))
        self.get_logger().info(f'{self._folder}: {self._judge.reason or self._judge.manifest}')

    def close(self) -> None:
        """End the training; bring the labels to the disk."""
        if self._training is not None:
            self._training.close()
        self._store.close()
        self._lock.close()

    # --- callbacks ---

    def _hear(self, raw: RawMessage) -> None:
        for record in self._maker.push(raw):
            if isinstance(record, EpisodeEventRecord):
                self._keep(self._labeller.hear(record))
                continue
            if isinstance(record, StepRecord):
                self._came_s[record.episode, record.index] = time.monotonic()
                if len(self._came_s) > LATENCIES:
                    del self._came_s[next(iter(self._came_s))]
            for seen in self._eyes.push(record):
                self._see(seen)

    def _see(self, seen: Seen) -> None:
        step = seen.step
        opinion = self._judge.judge(seen)
        self._opinions.publish(opinion_message(opinion, step.stamp_ns))
        came_s = self._came_s.pop((step.episode, step.index), None)
        if came_s is not None:
            self._latencies.append(time.monotonic() - came_s)
        self._keep(self._labeller.see(seen))

    def _keep(self, labels: list[Labelled]) -> None:
        for labelled in labels:
            self._store.append(labelled)
            self._count.add(labelled)

    def _on_train(self, _: Trigger.Request, response: Trigger.Response) -> Trigger.Response:
        why = self._count.missing if self._training is None else 'it learns already'
        if not why:
            self._train()
        response.success, response.message = not why, why or 'it learns in the background'
        return response

    def _on_answer(self, request: SetBool.Request, response: SetBool.Response) -> SetBool.Response:
        labelled = self._judge.doubts.answer(request.data)
        if labelled is not None:
            self._keep([labelled])
        response.success = labelled is not None
        response.message = 'noted' if response.success else 'there is no picture that I ask about'
        return response

    # --- the tick ---

    def _tick(self) -> None:
        training, after = self._training, self._config.train_after
        if training is not None and training.code is not None:
            self._training = None
            self._take(training)
        elif training is None and 0 < after <= self._count.fresh and not self._count.missing:
            self._train()
        self._ask()
        self._ticks += 1
        if self._standing != self._said or self._ticks % STATUS_TICKS == 0:
            self._said = self._standing
            self._status.publish(self._status_message())

    def _train(self) -> None:
        config = self._config
        self._count.fresh = 0
        words = ['--steps', str(config.train_steps), '--threshold', str(config.threshold)]
        self._training = Training(self._folder, [*words, '--hold', str(config.hold_steps)])
        self.get_logger().info('learns in the background from what was labelled')

    def _take(self, training: Training) -> None:
        if training.code:
            self._trouble = training.said
            self.get_logger().error(self._trouble)
            return
        self.get_logger().info(f'{time.monotonic() - training.began_s:.0f} s: {training.said}')
        self._load()

    def _load(self) -> None:
        try:
            self._judge.load(self._folder)
            self._trouble = ''
        except (LearnerError, ContractError) as error:
            self._trouble = str(error)
            self.get_logger().error(self._trouble)

    def _ask(self) -> None:
        """Show the picture that is asked about, or that none is."""
        asked = self._judge.doubts.asked
        if asked is self._asked:
            return
        self._asked = asked
        message = CompressedImage(format='jpeg')
        if asked is not None:
            message.header.stamp = ns_to_stamp(asked.seen.step.stamp_ns)
            message.data = _jpeg(asked.seen)
        self._doubt.publish(message)

    # --- status ---

    @property
    def _standing(self) -> tuple[object, ...]:
        """What is told at once when it changes."""
        return self._state, self._judge.manifest, self._trouble

    @property
    def _state(self) -> int:
        if self._trouble:
            return int(ClassifierStatus.FAILED)
        if self._training is not None:
            return int(ClassifierStatus.TRAINING)
        if self._judge.manifest is None:
            return int(ClassifierStatus.COLLECTING)
        return int(ClassifierStatus.DRIFTED if self._judge.drifted else ClassifierStatus.READY)

    def _status_message(self) -> ClassifierStatus:
        manifest, count = self._judge.manifest, self._count
        judged = None if manifest is None else manifest.judged
        collecting = self._judge.manifest is None and self._training is None
        message = ClassifierStatus(
            state=self._state,
            reason=self._trouble or (collecting and count.missing) or self._judge.reason,
            classifier='' if manifest is None else manifest.hash,
            success_pictures=count.success,
            other_pictures=count.other,
            episodes=len(count.episodes),
            doubts=len(self._judge.doubts),
            held_out_episodes=0 if judged is None else judged.episodes,
            light=self._judge.light,
            latency_p50=self._latency(50),
            latency_p95=self._latency(95),
        )
        for name in ('frame_accuracy', 'episode_accuracy', 'precision', 'recall', 'base_rate'):
            setattr(message, name, math.nan if judged is None else getattr(judged, name))
        message.header.stamp = self.get_clock().now().to_msg()
        return message

    def _latency(self, percent: float) -> float:
        return float(np.percentile(list(self._latencies), percent)) if self._latencies else math.nan


def _jpeg(seen: Seen) -> bytes:
    """Return the pictures of a step side by side."""
    wide = np.concatenate([image.transpose(1, 2, 0) for image in seen.images], axis=1)
    out = io.BytesIO()
    Picture.fromarray(wide).save(out, format='JPEG', quality=90)
    return out.getvalue()


def main() -> None:
    """Run the node."""
    sys.exit(run_node(ClassifierNode, (ClassifierError, LearnerError, ContractError, ParameterError)))


if __name__ == '__main__':
    main()

# SPDX-License-Identifier: Apache-2.0
"""What the node does with each step, without ROS: judge it, follow the light, and keep what it doubts.

A picture that the network is least sure of teaches most where a human labels it (uncertainty sampling: Lewis and Gale,
A Sequential Algorithm for Training Text Classifiers, 1994); a few of each episode are enough, for neighbours are alike.
"""

from dataclasses import dataclass
import math
from pathlib import Path

from hilserl_learner.classifier.labels import Labelled, Seen
from hilserl_learner.classifier.light import LightWatch
from hilserl_learner.classifier.model import Classifier, ClassifierManifest, load_classifier, probabilities
from so101_contract.observation_spec import ObservationSpec
from so101_contract.task.reward import Opinion

MOST_DOUBTS, PER_EPISODE = 24, 2
NO_CLASSIFIER = 'no classifier yet: press success now and not yet while driving'
DRIFTED = (
    'the light is not that in which the classifier was trained: label the episodes '
    'yourself, or press success now and not yet for it to learn this light'
)


@dataclass(frozen=True, eq=False)
class Doubt:
    """A picture that a human is asked about.

    Attributes:
        seen: the step.
        episode: its name among the labels.
        probability: what the network thinks of it.
    """

    seen: Seen
    episode: str
    probability: float

    @property
    def certainty(self) -> float:
        """Distance from not knowing at all, 0..0.5."""
        return abs(self.probability - 0.5)


class Doubts:
    """The pictures that are worth asking about, the least certain one first; the one that is asked about stays."""

    def __init__(self, margin: float) -> None:
        self._margin = margin
        self._kept: list[Doubt] = []
        self.asked: Doubt | None = None

    def __len__(self) -> int:
        return len(self._kept) + (self.asked is not None)

    def consider(self, doubt: Doubt) -> None:
        """Keep a picture, if it is doubtful, and more so than others."""
        if not doubt.certainty < self._margin:
            return
        same = [kept for kept in self._kept if kept.episode == doubt.episode]
        if len(same) >= PER_EPISODE:
            surest = max(same, key=lambda kept: kept.certainty)
            if surest.certainty <= doubt.certainty:
                return
            self._kept.remove(surest)
        self._kept.append(doubt)
        self._kept.sort(key=lambda kept: kept.certainty)
        del self._kept[MOST_DOUBTS:]
        self._ask()

    def answer(self, success: bool) -> Labelled | None:
        """Take a human's answer about the picture that is asked about; None where none is."""
        if self.asked is None:
            return None
        asked, self.asked = self.asked, None
        self._ask()
        return Labelled(asked.episode, asked.seen.step.index, success, asked.seen.images)

    def forget(self) -> None:
        """Forget those of another network; the one that is asked about may be answered still."""
        self._kept.clear()

    def _ask(self) -> None:
        if self.asked is None and self._kept:
            self.asked = self._kept.pop(0)


class StepJudge:
    """Judges the pictures of each step with the network that there is."""

    def __init__(self, observation: ObservationSpec, task: str | None, stream: str, margin: float) -> None:
        """Prepare; it knows nothing before `load`.

        Args:
            observation: what is observed.
            task: name of what is to be done; None where nobody says.
            stream: name of this session among the labels.
            margin: see `Doubts`.
        """
        self._observation, self._task, self._stream = observation, task, stream
        self._model: Classifier | None = None
        self.manifest: ClassifierManifest | None = None
        self.doubts = Doubts(margin)
        self._light: LightWatch | None = None

    @property
    def light(self) -> float:
        """Distance of the light from that of the training, as a share of its bound; NaN where nobody knows."""
        return math.nan if self._light is None else self._light.share

    @property
    def drifted(self) -> bool:
        """Whether the light is another one."""
        return self._light is not None and self._light.drifted

    @property
    def reason(self) -> str:
        """Why it cannot tell; empty where it can."""
        if self._model is None:
            return NO_CLASSIFIER
        return DRIFTED if self.drifted else ''

    def load(self, folder: Path) -> None:
        """Take a classifier; the one before goes on judging where this one is refused.

        Raises:
            ClassifierError: it is damaged, or of other pictures or another task.
        """
        model, manifest = load_classifier(folder)
        manifest.require_observation(self._observation, self._task)
        self._model, self.manifest = model, manifest
        self._light = None if manifest.light is None else LightWatch(manifest.light)
        self.doubts.forget()

    def judge(self, seen: Seen) -> Opinion:
        """Return what it says of a step, and keep the step where it is in doubt."""
        step = seen.step
        if self._model is None or self.manifest is None:
            return Opinion(step.episode, step.index, math.nan, False, NO_CLASSIFIER)
        if self._light is not None:
            self._light.see(seen.images)
        probability = float(probabilities(self._model, seen.images[None])[0])
        self.doubts.consider(Doubt(seen, f'{self._stream}/{step.episode}', probability))
        reason = self.reason
        if reason:
            return Opinion(step.episode, step.index, math.nan, False, reason)
        return Opinion(step.episode, step.index, probability, probability >= self.manifest.threshold)

# SPDX-License-Identifier: Apache-2.0
"""How a classifier learns: from stretches of labelled pictures, judged on episodes that it has not seen.

Pictures of one episode are alike, so a share of them says nothing about others of the same: whole episodes are left
out, each of them once (cross-validation by groups), and the classifier that is kept learns from all. A batch has as
many successes as others, whatever the base rate.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
import time

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from hilserl_learner.classifier.labels import Labelled
from hilserl_learner.classifier.light import Light
from hilserl_learner.classifier.model import (
    Classifier,
    ClassifierError,
    ClassifierManifest,
    Judged,
    network_spec,
    Pictures,
    pictures,
    probabilities,
)
from hilserl_learner.data.augment import color_jitter, random_shift
from so101_contract.observation import Frame
from so101_contract.observation_spec import CameraSpec
from so101_contract.transition import Transition

FOLDS = 3
LEARNING_RATE, BATCH, SHIFT, JITTER = 3e-4, 64, 4, 0.3
FEWEST_PICTURES, FEWEST_EPISODES = 20, 3
"""Of each kind, and in all: with fewer there is nothing to learn from, or nothing to judge by."""

Bools = npt.NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Stretch:
    """Labelled pictures of one episode, in the order of its steps.

    Attributes:
        images: (N, V, 3, S, S).
        success: (N,) whether each shows success.
    """

    images: Pictures
    success: Bools


def stretches_of(labels: Iterable[Labelled]) -> list[Stretch]:
    """Return labels by episode."""
    episodes: dict[str, dict[int, Labelled]] = {}
    for labelled in labels:
        episodes.setdefault(labelled.episode, {})[labelled.index] = labelled
    return [
        Stretch(
            np.stack([steps[index].images for index in sorted(steps)]),
            np.array([steps[index].success for index in sorted(steps)], dtype=np.bool_),
        )
        for steps in episodes.values()
    ]


def stretches_by_outcome(episodes: Sequence[Sequence[Transition]], hold_steps: int) -> list[Stretch]:
    """Return the pictures of whole episodes: the last steps of the successful ones show success, all others do not."""
    made = []
    for episode in episodes:
        frames: list[Frame] = [transition.next_frame for transition in episode]
        if not frames:
            continue
        success = np.zeros(len(frames), dtype=np.bool_)
        success[-hold_steps:] = episode[-1].terminated and episode[-1].reward > 0
        made.append(Stretch(pictures(frames), success))
    return made


def require_enough(stretches: Sequence[Stretch], fewest: int = FEWEST_PICTURES) -> None:
    """Refuse what cannot be learned from.

    Raises:
        ClassifierError: there are too few pictures of one kind, or too few episodes.
    """
    good = sum(int(stretch.success.sum()) for stretch in stretches)
    rest = sum(len(stretch.success) for stretch in stretches) - good
    if min(good, rest) < fewest or len(stretches) < FEWEST_EPISODES:
        raise ClassifierError(
            f'expected at least {fewest} pictures of success, as many of other moments, and {FEWEST_EPISODES} episodes '
            f'that have both outcomes, got {good}, {rest} and {len(stretches)}; label or record more'
        )


def fit(model: Classifier, stretches: Sequence[Stretch], *, steps: int = 200, seed: int = 0) -> list[float]:
    """Train encoder and head on batches of as many successes as others; return the losses."""
    images = [stretch.images for stretch in stretches]
    places = [(i, k) for i, stretch in enumerate(stretches) for k in range(len(stretch.success))]
    success = np.concatenate([stretch.success for stretch in stretches])
    kinds = [np.flatnonzero(success), np.flatnonzero(~success)]
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), LEARNING_RATE)
    labels = torch.cat([torch.ones(BATCH // 2), torch.zeros(BATCH // 2)])
    losses = []
    model.train()
    for _ in range(steps):
        rows = np.concatenate([kind[rng.integers(0, len(kind), BATCH // 2)] for kind in kinds])
        drawn = torch.from_numpy(np.stack([images[i][k] for i, k in (places[row] for row in rows)]))
        drawn = color_jitter(random_shift(drawn, SHIFT, generator), JITTER, generator)
        loss = functional.binary_cross_entropy_with_logits(model(drawn), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(loss.detach()))
    model.eval()
    return losses


def runs(seen: Bools, hold_steps: int) -> Bools:
    """Return at which steps something has been seen for so many in a row."""
    counts, run = np.zeros(len(seen), dtype=np.int64), 0
    for k, good in enumerate(seen):
        run = run + 1 if good else 0
        counts[k] = run
    result: Bools = counts >= hold_steps
    return result


def episode_is_right(seen: Bools, success: Bools, hold_steps: int) -> bool:
    """Whether success is found for long enough where it is, and nowhere else."""
    found = runs(seen, hold_steps)
    there = bool(runs(success, hold_steps).any())
    return not bool((found & ~success).any()) and bool((found & success).any()) >= there


def judge(told: Sequence[Bools], stretches: Sequence[Stretch], hold_steps: int) -> Judged:
    """Return how well what was told of the pictures of each episode fits what they show."""
    seen = np.concatenate([*told])
    success = np.concatenate([stretch.success for stretch in stretches])
    both = int((seen & success).sum())
    right = [
        episode_is_right(one, stretch.success, hold_steps)
        for one, stretch in zip(told, stretches, strict=True)
    ]
    return Judged(
        episodes=len(stretches),
        frames=len(success),
        frame_accuracy=float((seen == success).mean()),
        episode_accuracy=float(np.mean(right)),
        precision=both / int(seen.sum()) if seen.any() else 1.0,
        recall=both / int(success.sum()) if success.any() else 1.0,
        base_rate=float(success.mean()),
    )


@dataclass(frozen=True)
class Learned:
    """What came of a training.

    Attributes:
        model: learned from all episodes.
        manifest: what it looks at, and how well those did that had not seen the episodes they were judged by.
        seconds: how long all of it took [s].
    """

    model: Classifier
    manifest: ClassifierManifest
    seconds: float


def learn(
    stretches: Sequence[Stretch],
    cameras: Sequence[CameraSpec],
    *,
    task: str | None = None,
    steps: int = 200,
    threshold: float = 0.8,
    hold_steps: int = 3,
    seed: int = 0,
    fewest: int = FEWEST_PICTURES,
) -> Learned:
    """Train a classifier and judge it.

    Args:
        stretches: labelled pictures, episode by episode.
        cameras: whose pictures they are.
        task: name of what is to be done; None where nobody says.
        steps: updates of each training.
        threshold: probability from which a picture shows success.
        hold_steps: for how many steps in a row it must.
        seed: of what is drawn.
        fewest: pictures of each kind that there must be.

    Raises:
        ClassifierError: there is too little to learn from.
    """
    began = time.perf_counter()
    require_enough(stretches, fewest)
    spec = network_spec(cameras)

    def trained(some: Sequence[Stretch]) -> Classifier:
        model = Classifier(spec, torch.Generator().manual_seed(seed))
        fit(model, some, steps=steps, seed=seed)
        return model

    told: dict[int, Bools] = {}
    for fold in range(min(FOLDS, len(stretches))):
        kept = [stretch for i, stretch in enumerate(stretches) if i % FOLDS != fold]
        success = np.concatenate([stretch.success for stretch in kept])
        if success.all() or not success.any():
            continue  # every success is in the episodes that are left out
        model = trained(kept)
        for i in range(fold, len(stretches), FOLDS):
            told[i] = probabilities(model, stretches[i].images) >= threshold
    if not told:
        raise ClassifierError(
            'expected success in more than one episode, and other moments too, got it in one; record episodes with '
            'both outcomes'
        )
    judged = judge([told[i] for i in sorted(told)], [stretches[i] for i in sorted(told)], hold_steps)
    manifest = ClassifierManifest(
        cameras=tuple(cameras),
        threshold=threshold,
        hold_steps=hold_steps,
        accuracy=0.5 * (judged.recall + _specificity(judged)),
        task=task,
        judged=judged,
        light=Light.of([stretch.images for stretch in stretches]),
    )
    return Learned(trained(stretches), manifest, time.perf_counter() - began)


def _specificity(judged: Judged) -> float:
    """Return the share of the other pictures that are told right."""
    success = judged.base_rate * judged.frames
    right = judged.frame_accuracy * judged.frames - judged.recall * success
    return right / max(1.0, judged.frames - success)

# SPDX-License-Identifier: Apache-2.0
"""Telling success from a picture: learned from episodes whose end a human has labelled (`./so101 train-classifier`).

With it recorded episodes get rewards without a simulator and without a human (`ingest --reward
classifier:FOLDER`). Its file says how its pictures were cropped and scaled; other pictures are refused.
"""

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
import hashlib
import os
from pathlib import Path
import shutil
import sys
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn, Tensor
from torch.nn import functional

from drqv2_policy_node.networks import Encoder, EncoderPreset, fill, from_bytes, NetworkSpec, to_bytes
from hilserl_learner.data.augment import random_shift
from hilserl_learner.data.store import read_buffer, read_header, write_whole
from hilserl_learner.errors import LearnerError
from hilserl_learner.training.trainer import prepare_cpu
from so101_contract.errors import ContractError
from so101_contract.image import IMAGE_PIPELINE
from so101_contract.observation import Frame
from so101_contract.observation_spec import CameraSpec, ObservationSpec
from so101_contract.record import Record
from so101_contract.transition import Transition

MANIFEST, TENSORS = 'classifier.json', 'classifier.safetensors'
WIDTH = 64


class ClassifierError(LearnerError, ContractError):
    """A classifier cannot be trained or used on what it is given."""


@dataclass(frozen=True, kw_only=True)
class ClassifierManifest(Record):
    """What a classifier looks at, and how well it does.

    Attributes:
        cameras: whose pictures, with size and crop.
        image_pipeline: how they are scaled.
        threshold: probability from which a picture shows success.
        hold_steps: for how many steps in a row it must.
        accuracy: on episodes that it was not trained on, mean over both kinds of pictures.
        tensors_sha256: hash of the tensor file.
    """

    KIND: ClassVar[str] = 'hilserl_learner/classifier/1'
    ERROR = ClassifierError

    cameras: tuple[CameraSpec, ...]
    image_pipeline: str = IMAGE_PIPELINE
    threshold: float = 0.8
    hold_steps: int = 2
    accuracy: float = 0.0
    tensors_sha256: str = ''

    def require_observation(self, spec: ObservationSpec) -> None:
        """Refuse pictures of other cameras, sizes or crops.

        Raises:
            ClassifierError: with every difference.
        """
        other = replace(self, cameras=spec.cameras, image_pipeline=spec.image_pipeline)
        lines = self.diff(other, ('classifier', 'observation'))
        if lines:
            raise ClassifierError(
                'expected pictures like those that the classifier was trained on, got the differences below; '
                'train it for this observation:\n  ' + '\n  '.join(lines)
            )


class Classifier(nn.Module):
    """One picture of each camera to the logit of success."""

    def __init__(self, spec: NetworkSpec, generator: torch.Generator | None = None) -> None:
        super().__init__()
        self.encoder = Encoder(spec, generator)
        self.head = nn.Sequential(
            nn.Linear(self.encoder.feature_size, WIDTH), nn.LayerNorm(WIDTH), nn.Tanh(), nn.Linear(WIDTH, 1)
        )

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (B,) of images (B, V, 3, S, S), uint8."""
        return self.head(self.encoder(images)).squeeze(1)  # type: ignore[no-any-return]


def network_spec(spec: ObservationSpec) -> NetworkSpec:
    """Return the shapes of a classifier's encoder: one frame of each camera."""
    return NetworkSpec.from_observation(replace(spec, frame_stack=1), encoder=EncoderPreset.CPU)


def pictures(frames: Sequence[Frame]) -> npt.NDArray[np.uint8]:
    """Return the pictures of frames (B, V, 3, S, S)."""
    return np.stack([np.stack(list(frame.images.values())) for frame in frames])


@dataclass(frozen=True)
class Examples:
    """Labelled pictures.

    Attributes:
        success: (N, V, 3, S, S) uint8, at the end of successful episodes.
        other: the same, of everything else.
    """

    success: npt.NDArray[np.uint8]
    other: npt.NDArray[np.uint8]


def examples(episodes: Sequence[Sequence[Transition]], hold_steps: int) -> Examples:
    """Return the pictures of episodes: those of the last steps of the successful ones, and all others.

    Raises:
        ClassifierError: there are none of one kind.
    """
    good: list[Frame] = []
    rest: list[Frame] = []
    for episode in episodes:
        won = bool(episode) and episode[-1].terminated and episode[-1].reward > 0
        frames = [transition.next_frame for transition in episode]
        good += frames[-hold_steps:] if won else []
        rest += frames[:-hold_steps] if won else frames
    if not good or not rest:
        raise ClassifierError(
            f'expected pictures of success and of other moments, got {len(good)} and {len(rest)}; '
            f'record episodes with both outcomes'
        )
    return Examples(pictures(good), pictures(rest))


def train(
    model: Classifier, data: Examples, *, steps: int = 300, batch: int = 64, shift: int = 4, seed: int = 0
) -> list[float]:
    """Train encoder and head on batches of as many successes as others; return the losses."""
    rng, generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    optimizer = torch.optim.Adam(model.parameters(), 3e-4)
    labels = torch.cat([torch.ones(batch // 2), torch.zeros(batch // 2)])
    losses = []
    for _ in range(steps):
        rows = [kind[rng.integers(0, len(kind), batch // 2)] for kind in (data.success, data.other)]
        images = random_shift(torch.from_numpy(np.concatenate(rows)), shift, generator)
        loss = functional.binary_cross_entropy_with_logits(model(images), labels)
        optimizer.zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


def accuracy(model: Classifier, data: Examples, threshold: float) -> float:
    """Return the share of pictures that are told right, the mean over both kinds."""
    kinds = ((data.success, True), (data.other, False))
    right = [float(((probabilities(model, kind) >= threshold) == wanted).mean()) for kind, wanted in kinds]
    return sum(right) / len(right)


def probabilities(model: Classifier, images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float32]:
    """Return the probability of success of each picture (B,)."""
    with torch.inference_mode():
        parts = torch.split(torch.from_numpy(images), 256)
        logits = torch.cat([model(part) for part in parts])
        result: npt.NDArray[np.float32] = torch.sigmoid(logits).numpy()
    return result


def save_classifier(directory: Path, model: Classifier, manifest: ClassifierManifest) -> ClassifierManifest:
    """Write a classifier; it appears whole or not at all. Return its manifest with the hash."""
    payload = to_bytes(model.encoder.spec, {'encoder': model.encoder, 'head': model.head})
    manifest = replace(manifest, tensors_sha256=hashlib.sha256(payload).hexdigest())
    aside = directory.with_name(f'.{directory.name}.{os.getpid()}')
    shutil.rmtree(aside, ignore_errors=True)
    write_whole(aside / TENSORS, payload)
    write_whole(aside / MANIFEST, manifest.to_json().encode())
    if (directory / MANIFEST).exists():
        shutil.rmtree(directory)
    aside.rename(directory)
    return manifest


def load_classifier(directory: Path) -> tuple[Classifier, ClassifierManifest]:
    """Return a classifier, verified.

    Raises:
        ClassifierError: a file is missing, damaged, or belongs to another classifier.
    """
    try:
        text, payload = (directory / MANIFEST).read_bytes(), (directory / TENSORS).read_bytes()
    except OSError as error:
        raise ClassifierError(
            f'expected a classifier in {directory}, got "{error.strerror}"; train one with train-classifier'
        ) from error
    manifest = ClassifierManifest.from_json(text)
    digest = hashlib.sha256(payload).hexdigest()
    if digest != manifest.tensors_sha256:
        raise ClassifierError(
            f'expected tensors with the hash {manifest.tensors_sha256[:12]} in {directory}, got {digest[:12]}; '
            f'train it again'
        )
    spec, tensors = from_bytes(payload)
    sizes = {camera.size for camera in manifest.cameras}
    if sizes != {spec.image_size} or len(manifest.cameras) != spec.cameras:
        raise ClassifierError(
            f'expected a network for {len(manifest.cameras)} pictures of {sorted(sizes)} px, got one for '
            f'{spec.cameras} of {spec.image_size} px; train it again'
        )
    model = Classifier(spec)
    fill(model.encoder, tensors, 'encoder')
    fill(model.head, tensors, 'head')
    return model.eval(), manifest


def success_from(
    model: Classifier, manifest: ClassifierManifest, episode: Sequence[Transition]
) -> list[Transition]:
    """Return an episode with reward 1 and its end where success was seen for long enough, and 0 else."""
    seen = probabilities(model, pictures([t.next_frame for t in episode])) >= manifest.threshold
    rewarded: list[Transition] = []
    run = 0
    for transition, good in zip(episode, seen, strict=True):
        run = run + 1 if good else 0
        done = run >= manifest.hold_steps
        rewarded.append(
            replace(transition, reward=float(done), terminated=done, truncated=transition.ends and not done)
        )
        if done:
            break
    return rewarded


def identity(directory: Path) -> str:
    """Return a text that changes whenever a classifier would decide otherwise."""
    _, manifest = load_classifier(directory)
    return f'classifier:{manifest.hash}'


def summary(manifest: ClassifierManifest, counts: Mapping[str, int]) -> str:
    """Return one sentence about a trained classifier."""
    return (
        f'{counts["success"]} pictures of success and {counts["other"]} others; '
        f'{manifest.accuracy:.1%} right on episodes that were left out'
    )


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog='so101 train-classifier', description='Learn from labelled episodes what success looks like.'
    )
    parser.add_argument(
        'buffer', type=Path, help='what ingest wrote, with episodes that succeed and that do not'
    )
    parser.add_argument('--out', type=Path, required=True, help='folder of the classifier')
    parser.add_argument('--steps', type=int, default=300, help='updates (default: %(default)s)')
    parser.add_argument(
        '--threshold', type=float, default=0.8, help='of the probability (default: %(default)s)'
    )
    parser.add_argument('--hold', type=int, default=2, help='steps in a row (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='(default: %(default)s)')
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = make_parser().parse_args(argv)
    prepare_cpu(1)
    try:
        spec = read_header(options.buffer).observation
        episodes = read_episodes(options.buffer)
        left_out = examples(episodes[::5], options.hold)
        data = examples([e for i, e in enumerate(episodes) if i % 5], options.hold)
        model = Classifier(network_spec(spec), torch.Generator().manual_seed(options.seed))
        train(model, data, steps=options.steps, seed=options.seed)
        manifest = ClassifierManifest(
            cameras=spec.cameras, threshold=options.threshold, hold_steps=options.hold
        )
        manifest = replace(manifest, accuracy=accuracy(model.eval(), left_out, options.threshold))
        save_classifier(options.out, model, manifest)
    except (LearnerError, ContractError) as error:
        print(f'so101 train-classifier: {error}', file=sys.stderr)  # noqa: T201
        return 1
    print(summary(manifest, {'success': len(data.success), 'other': len(data.other)}))  # noqa: T201
    return 0


def read_episodes(buffer: Path) -> list[list[Transition]]:
    """Return the episodes of a buffer, each in order; of revised transitions the last one."""
    held: dict[tuple[str, int], dict[int, Transition]] = {}
    for entry in read_buffer(buffer):
        if isinstance(entry.output, Transition):
            held.setdefault((entry.stream, entry.output.episode), {})[entry.output.index] = entry.output
        elif entry.output.discarded:
            held.pop((entry.stream, entry.output.episode), None)
    return [[steps[index] for index in sorted(steps)] for steps in held.values()]


if __name__ == '__main__':
    sys.exit(main())

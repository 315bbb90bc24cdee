# SPDX-License-Identifier: Apache-2.0
"""The classifier of success: one picture of each camera to the probability of success, as a network and as files.

Its manifest says of which cameras, crops and task its pictures were, how well it did on episodes that it was not
trained on, and in which light; other pictures are refused. What is loaded is bounded before anything is made of it:
the network is that which the manifest's cameras have, and no other.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
import hashlib
import os
from pathlib import Path
import shutil
from typing import ClassVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn, Tensor

from drqv2_policy_node.networks import Encoder, EncoderPreset, fill, from_bytes, NetworkSpec, to_bytes
from hilserl_learner.classifier.light import Light
from hilserl_learner.data.store import write_whole
from hilserl_learner.errors import LearnerError
from so101_contract.errors import ContractError
from so101_contract.image import IMAGE_PIPELINE
from so101_contract.observation import Frame
from so101_contract.observation_spec import CameraSpec, ObservationSpec
from so101_contract.record import Record
from so101_interfaces_py.files import read_file

MANIFEST, TENSORS = 'classifier.json', 'classifier.safetensors'
MODEL = 'model'
"""Folder of the network beside the labels that it was trained on."""
WIDTH = 64
LARGEST_PX, MOST_CAMERAS, LONGEST_HOLD = 512, 8, 1000
MOST_TENSORS = 2**28
"""Of a tensor file [B]: that of the largest network has a quarter of it."""

Pictures = npt.NDArray[np.uint8]


class ClassifierError(LearnerError, ContractError):
    """A classifier cannot be trained or used on what it is given."""


@dataclass(frozen=True, kw_only=True)
class Judged(Record):
    """How well a classifier does on episodes that it was not trained on.

    Attributes:
        episodes: how many.
        frames: pictures in them.
        frame_accuracy: share of the pictures that it tells right, 0..1.
        episode_accuracy: share of the episodes in which it sees success for long enough where there is, and nowhere
            else.
        precision: share of what it calls success that is; 1 where it calls nothing so.
        recall: share of the successes that it sees.
        base_rate: share of the pictures that show success.
    """

    KIND: ClassVar[str] = 'hilserl_learner/judged/1'
    ERROR = ClassifierError

    episodes: int
    frames: int
    frame_accuracy: float
    episode_accuracy: float
    precision: float
    recall: float
    base_rate: float

    def __str__(self) -> str:
        return (
            f'{self.frame_accuracy:.1%} of {self.frames} pictures and {self.episode_accuracy:.1%} of {self.episodes} '
            f'episodes right, precision {self.precision:.1%}, recall {self.recall:.1%}, base rate {self.base_rate:.1%}'
        )


@dataclass(frozen=True, kw_only=True)
class ClassifierManifest(Record):
    """What a classifier looks at, and how well it does.

    Attributes:
        cameras: whose pictures, with size and crop.
        image_pipeline: how they are scaled.
        threshold: probability from which a picture shows success.
        hold_steps: for how many steps in a row it must, where nobody says otherwise.
        accuracy: on episodes that it was not trained on, mean over both kinds of pictures.
        tensors_sha256: hash of the tensor file.
        task: name of what is to be done; None where nobody said.
        judged: how well it does on episodes that it was not trained on; None where nobody looked.
        light: in which light it was trained; None where nobody looked.
    """

    KIND: ClassVar[str] = 'hilserl_learner/classifier/1'
    ERROR = ClassifierError
    OPTIONAL = frozenset({'task', 'judged', 'light'})

    cameras: tuple[CameraSpec, ...]
    image_pipeline: str = IMAGE_PIPELINE
    threshold: float = 0.8
    hold_steps: int = 2
    accuracy: float = 0.0
    tensors_sha256: str = ''
    task: str | None = None
    judged: Judged | None = None
    light: Light | None = None

    def __post_init__(self) -> None:
        """Check that such a network can be made, and such a threshold be passed."""
        super().__post_init__()
        sizes = {camera.size for camera in self.cameras}
        if not (1 <= len(self.cameras) <= MOST_CAMERAS and len(sizes) == 1 and max(sizes) <= LARGEST_PX):
            raise ClassifierError(
                f'expected 1 to {MOST_CAMERAS} cameras of one size up to {LARGEST_PX} px, got {len(self.cameras)} of '
                f'{sorted(sizes)} px; train it again'
            )
        if not (0.0 < self.threshold < 1.0 and 1 <= self.hold_steps <= LONGEST_HOLD):
            raise ClassifierError(
                f'expected a threshold within 0..1 and 1 to {LONGEST_HOLD} steps, got {self.threshold} and '
                f'{self.hold_steps}; train it again'
            )
        if self.light is not None and self.light.views != len(self.cameras):
            raise ClassifierError(
                f'expected the light of {len(self.cameras)} cameras, got that of {self.light.views}; train it again'
            )

    def require_observation(self, spec: ObservationSpec, task: str | None = None) -> None:
        """Refuse pictures of other cameras, sizes or crops, and another task.

        Raises:
            ClassifierError: with every difference.
        """
        mine = replace(self, light=None)  # of as many cameras as it was trained on
        other = replace(mine, cameras=spec.cameras, image_pipeline=spec.image_pipeline)
        if self.task is not None and task is not None:
            other = replace(other, task=task)
        lines = mine.diff(other, ('classifier', 'observation'))
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


def network_spec(cameras: Sequence[CameraSpec]) -> NetworkSpec:
    """Return the shapes of a classifier's encoder: one frame of each camera."""
    return NetworkSpec(
        image_size=cameras[0].size, frame_stack=1, cameras=len(cameras), encoder=EncoderPreset.CPU
    )


def pictures(frames: Sequence[Frame]) -> Pictures:
    """Return the pictures of frames (B, V, 3, S, S)."""
    return np.stack([np.stack(list(frame.images.values())) for frame in frames])


def probabilities(model: Classifier, images: Pictures) -> npt.NDArray[np.float32]:
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


def folder_of(directory: Path) -> Path:
    """Return the folder of the network: the one that is named, or the one beside labels in it."""
    inner = directory / MODEL
    return inner if (inner / MANIFEST).exists() else directory


def load_classifier(directory: Path) -> tuple[Classifier, ClassifierManifest]:
    """Return a classifier, verified.

    Raises:
        ClassifierError: a file is missing, damaged, or belongs to another classifier.
    """
    directory = folder_of(directory)
    try:
        text, payload = read_file(directory / MANIFEST), read_file(directory / TENSORS, MOST_TENSORS)
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
    said, tensors = from_bytes(payload)
    spec = network_spec(manifest.cameras)
    # The network is made of the manifest, never of what the file says of itself.
    if any(getattr(said, name) != getattr(spec, name) for name in _SHAPES):
        raise ClassifierError(
            f'expected a network for {spec.cameras} pictures of {spec.image_size} px, got one for {said.cameras} of '
            f'{said.image_size} px, or of other shapes; train it again'
        )
    model = Classifier(spec)
    fill(model.encoder, tensors, 'encoder')
    fill(model.head, tensors, 'head')
    return model.eval(), manifest


_SHAPES = ('image_size', 'frame_stack', 'cameras', 'encoder', 'channels', 'convs')


def identity(directory: Path) -> str:
    """Return a text that changes whenever a classifier would decide otherwise."""
    _, manifest = load_classifier(directory)
    return f'classifier:{manifest.hash}'

# SPDX-License-Identifier: Apache-2.0
"""`./so101 adapt POLICY OUT`: make up for a light, a table or a camera that differs from those of the training.

A camera in another room sees other mean colours than the camera, or the renderer, of the training. The first
convolution then works far from where it learned to, and most of what comes after it is silent: a policy that does
nothing right, and that learns more slowly than a fresh one. The difference of the means, seen through the weights of
that convolution, is a constant per channel; taken off its bias, the shape of the network stays as it is.
"""

import argparse
from collections.abc import Iterable, Mapping, Sequence
import copy
from itertools import islice
from pathlib import Path
import sys
from typing import Any

import numpy as np
import torch

from drqv2_policy_node.policy import Policy
from drqv2_policy_node.store import load_critics, load_policy, save_policy
from hilserl_learner.data.collect import Collector, Environment
from hilserl_learner.data.store import read_buffer, read_header
from hilserl_learner.errors import LearnerError
from hilserl_learner.training.evaluate import ImageStatistics
from hilserl_learner.training.settings import make_env, observation_name
from hilserl_learner.training.trainer import prepare_cpu
from so101_contract.observation_spec import ObservationSpec
from so101_contract.transition import Transition

PICTURES = 500
"""So many say enough about the colours."""

CameraColors = Mapping[str, ImageStatistics]
"""What each camera sees."""

KEPT = (
    'version',
    'observation',
    'action',
    'control_rate_hz',
    'ik_profile',
    'reset_pose',
    'workspace',
    'std_schedule',
    'std_unit',
    'calibration_id',
    'source_sha256',
)
"""Fields of the manifest that stay as they are."""


def colors_of(transitions: Iterable[Transition]) -> CameraColors:
    """Return what the cameras saw, from the first pictures.

    Raises:
        LearnerError: there are none.
    """
    frames = [transition.frames[-1].images for transition in islice(transitions, PICTURES)]
    if not frames:
        raise LearnerError('expected transitions with pictures, got none; record or collect some first')
    return {
        camera: ImageStatistics.of(np.stack([images[camera] for images in frames])) for camera in frames[0]
    }


def colors_of_buffer(directory: Path, spec: ObservationSpec) -> CameraColors:
    """Return what the cameras saw in a buffer.

    Raises:
        ContractError: it is no buffer, or one of another observation.
    """
    spec.require_same(read_header(directory).observation, ('policy', 'buffer'))
    entries = (entry.output for entry in read_buffer(directory))
    return colors_of(output for output in entries if isinstance(output, Transition))


def colors_of_env(env: Environment, policy: Policy, seed: int = 0) -> CameraColors:
    """Return what the cameras see while a policy acts."""
    collector = Collector(env, seed=seed)
    return colors_of(collector.step(policy.act).transition for _ in range(PICTURES))


def adapt_encoder(policy: Policy, seen: CameraColors, now: CameraColors, name: str) -> Policy:
    """Return a policy to which pictures with the colours `now` look like those with the colours `seen`.

    Args:
        policy: as it was trained.
        seen: the colours that it was trained with.
        now: the colours that it is to work with.
        name: of the new policy.
    """
    encoder = copy.deepcopy(policy.encoder)
    stack = policy.manifest.observation.frame_stack
    for convolutions, camera in zip(
        encoder.convs_per_cam, policy.manifest.observation.camera_names, strict=True
    ):
        difference = (np.array(seen[camera].mean) - np.array(now[camera].mean)) / 255.0
        first: Any = next(convolutions.children())
        with torch.no_grad():
            shift = torch.tensor(np.tile(difference, stack), dtype=first.weight.dtype)
            first.bias += torch.einsum('ochw,c->o', first.weight, shift)
    fields = {field: getattr(policy.manifest, field) for field in KEPT}
    return Policy.create(encoder, policy.actor, name=name, **fields)


EXAMPLES = """
Pictures come from a buffer (see `so101 ingest`; that of a training run is RUN/buffer), or from the simulation as
ENVIRONMENT:PRESET, in which the policy then acts for a minute. The policy is not trained by this, only shown the new
colours; give the result to `so101 train --policy` or `so101 up checkpoint:=`.

examples:
  so101 adapt policies/sim policies/here --seen SO101Lift-v0:wide --now buffers/demos
  so101 adapt runs/wide/best policies/here --seen runs/wide/buffer --now buffers/demos
"""


def parser() -> argparse.ArgumentParser:
    """Return the command's arguments."""
    made = argparse.ArgumentParser(
        prog='so101 adapt',
        description='Change the first bias of a policy so that the mean colours of what it sees now look to it like '
        'those that it was trained with.',
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument('policy', type=Path, help='directory of a stored policy')
    made.add_argument('out', type=Path, help='directory to make')
    made.add_argument('--seen', required=True, metavar='PICTURES', help='what it was trained with')
    made.add_argument('--now', required=True, metavar='PICTURES', help='what it is to work with')
    made.add_argument('--overwrite', action='store_true', help='replace a policy that is at OUT')
    return made


def colors_in(source: str, policy: Policy) -> CameraColors:
    """Return the colours of a buffer, or of an environment.

    Raises:
        LearnerError: it is neither.
    """
    if Path(source).is_dir():
        return colors_of_buffer(Path(source), policy.manifest.observation)
    env_id, colon, preset = source.partition(':')
    if not colon:
        raise LearnerError(
            f'expected the directory of a buffer, or ENVIRONMENT:PRESET, got {source!r}, which is neither; '
            f'correct it'
        )
    env = make_env(env_id, preset, observation_name(policy))
    try:
        return colors_of_env(env, policy)
    finally:
        env.close()


def main(argv: Sequence[str] | None = None) -> int:
    """Measure both and write the policy."""
    options = parser().parse_args(argv)
    prepare_cpu(1)
    try:
        policy = load_policy(options.policy)
        seen, now = colors_in(options.seen, policy), colors_in(options.now, policy)
        made = adapt_encoder(policy, seen, now, options.out.name)
        # The critics see the same features as before, so they go along.
        save_policy(options.out, made, critics=load_critics(options.policy), overwrite=options.overwrite)
    except (ValueError, OSError) as error:
        print(f'so101 adapt: {error}', file=sys.stderr)
        return 1
    for camera in seen:
        then, here = ([round(value) for value in one[camera].mean] for one in (seen, now))
        print(f'{camera}: mean RGB {then} in training, {here} now')
    print(f'{options.out}: written; `so101 eval {options.out}` says what it is worth in the simulation')
    return 0


if __name__ == '__main__':
    sys.exit(main())

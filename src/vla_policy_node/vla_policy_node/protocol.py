# SPDX-License-Identifier: Apache-2.0
"""What GR00T's messages for an SO-101 mean: what a server offers, what is asked, and the targets that it answers.

Both ends use it: the node builds requests and reads answers, `serve-policy` reads requests and builds answers. The
joints are `single_arm` (five of them) and `gripper`, in the units of the training's data, whatever those were.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from so101_contract.joints import ARM_JOINTS, NUM_JOINTS
from vla_policy_node.wire import Encoding, encoding_of, Modality, Value, WireError
from vla_policy_node.zmtp import ServerError

FloatArray: TypeAlias = npt.NDArray[np.float64]
Pictures: TypeAlias = npt.NDArray[np.uint8]

ARM, GRIPPER = 'single_arm', 'gripper'
STATE, VIDEO, ACTION, LANGUAGE = 'state', 'video', 'action', 'language'
INSTRUCTION = 'annotation.human.task_description'

LONGEST_HORIZON = 64
"""Entries of a chunk; N1.7 has 50 at most."""

MOST_TIMES, OLDEST = 8, -64
"""How many entries of its past a server may ask for, and how far back."""

LONGEST_TEXT = 200
"""Characters of a server's own words that are told."""


@dataclass(frozen=True)
class Offer:
    """What a server wants to see, and what it says.

    Attributes:
        encoding: of its messages.
        cameras: its names of the cameras.
        video_times: times of the pictures relative to now, in entries of a chunk.
        state_times: the same of the joints.
        horizon: entries of a chunk.
        language: key of the instruction; empty where it takes none.
    """

    encoding: Encoding
    cameras: tuple[str, ...]
    horizon: int
    video_times: tuple[int, ...] = (0,)
    state_times: tuple[int, ...] = (0,)
    language: str = INSTRUCTION

    @classmethod
    def from_value(cls, value: Value) -> 'Offer':
        """Read the answer to `get_modality_config`.

        Raises:
            ServerError: it is none, or that of another robot.
        """
        encoding = encoding_of(value)
        assert isinstance(value, dict)
        parts = {name: part for name, part in value.items() if isinstance(part, Modality)}
        missing = [name for name in (STATE, VIDEO, ACTION) if name not in parts]
        if missing:
            raise ServerError(
                f'expected what the server sees and says, got a configuration without {missing}'
            )
        names = {name: _bare(part.keys, name) for name, part in parts.items()}
        for name in (STATE, ACTION):
            if set(names[name]) != {ARM, GRIPPER}:
                raise ServerError(
                    f'expected a server for an SO-101, with {ARM} and {GRIPPER} as its {name}, got '
                    f'{list(names[name])[:8]}; serve a model that was trained with the configuration of the SO-100'
                )
        horizon = parts[ACTION].indices
        if horizon != tuple(range(len(horizon))) or not 0 < len(horizon) <= LONGEST_HORIZON:
            raise ServerError(
                f'expected chunks of 1 to {LONGEST_HORIZON} entries from now on, got {list(horizon)[:8]}'
            )
        words = parts.get(LANGUAGE, Modality((), ())).keys
        video, state = _past(parts[VIDEO], VIDEO), _past(parts[STATE], STATE)
        return cls(encoding, names[VIDEO], len(horizon), video, state, words[0] if words else '')

    def to_value(self) -> dict[str, Modality]:
        """Return what `from_value` takes."""
        flat = self.encoding.is_flat

        def modality(name: str, keys: tuple[str, ...], times: tuple[int, ...]) -> Modality:
            named = tuple(f'{name}.{key}' for key in keys) if flat else keys
            more = {} if flat else dict.fromkeys(('sin_cos_embedding_keys', 'mean_std_embedding_keys'))
            return Modality(named, times, more, self.encoding)

        language = Modality((self.language,), (0,), {}, self.encoding)
        return {
            VIDEO: modality(VIDEO, self.cameras, self.video_times),
            STATE: modality(STATE, (ARM, GRIPPER), self.state_times),
            ACTION: modality(ACTION, (ARM, GRIPPER), tuple(range(self.horizon))),
            LANGUAGE: language,
        }


def _bare(keys: tuple[str, ...], modality: str) -> tuple[str, ...]:
    """Return keys without the prefix that N1.5 has."""
    return tuple(key.removeprefix(f'{modality}.') for key in keys)


def _past(part: Modality, name: str) -> tuple[int, ...]:
    times = part.indices
    if not 0 < len(times) <= MOST_TIMES or not all(OLDEST <= time <= 0 for time in times):
        raise ServerError(
            f'expected a server that wants 1 to {MOST_TIMES} entries of the past as its {name}, not older than '
            f'{-OLDEST} entries of a chunk, got {list(times)[:8]}'
        )
    return times


@dataclass(frozen=True)
class Seen:
    """What a policy is shown.

    Attributes:
        video: pictures (T, height, width, 3) RGB by the server's name of the camera, oldest first.
        state: joint positions (T, 6) in the server's units.
        instruction: in words.
    """

    video: Mapping[str, Pictures]
    state: FloatArray
    instruction: str


def request_of(seen: Seen, offer: Offer) -> dict[str, Any]:
    """Return the data of a `get_action`."""
    arm, gripper = seen.state[:, :-1], seen.state[:, -1:]
    if offer.encoding.is_flat:
        flat: dict[str, Any] = {f'{VIDEO}.{name}': pictures for name, pictures in seen.video.items()}
        flat |= {f'{STATE}.{ARM}': arm, f'{STATE}.{GRIPPER}': gripper}
        return flat | ({offer.language: [seen.instruction]} if offer.language else {})
    observation: dict[str, Any] = {
        VIDEO: {name: pictures[None] for name, pictures in seen.video.items()},
        STATE: {ARM: arm[None].astype(np.float32), GRIPPER: gripper[None].astype(np.float32)},
    }
    if offer.language:
        observation[LANGUAGE] = {offer.language: [[seen.instruction]]}
    return {'observation': observation, 'options': None}


def seen_of(data: Value, offer: Offer) -> Seen:
    """Return what a request shows.

    Raises:
        WireError: something is missing, or has another shape than was offered.
    """
    flat = offer.encoding.is_flat
    whole = data if flat or not isinstance(data, dict) else data.get('observation')
    if not isinstance(whole, dict):
        raise WireError(f'expected an observation as a map, got {type(whole).__name__}')

    def entry(modality: str, key: str) -> Any:
        group: Any = whole if flat else whole.get(modality)
        found = group.get(f'{modality}.{key}' if flat else key) if isinstance(group, dict) else None
        if not isinstance(found, np.ndarray):
            raise WireError(f"{modality} key '{key}' must be a numpy array. Got {type(found)}")
        return found if flat else found[0] if found.ndim and len(found) == 1 else found[None]

    video = {name: _pictures(entry(VIDEO, name), name, offer) for name in offer.cameras}
    arm, gripper = (np.asarray(entry(STATE, key), dtype=np.float64) for key in (ARM, GRIPPER))
    times = len(offer.state_times)
    if arm.shape != (times, len(ARM_JOINTS)) or gripper.shape != (times, 1):
        raise WireError(f'expected {times} times 5 and 1 joints, got {arm.shape} and {gripper.shape}')
    state = np.concatenate([arm, gripper], axis=1)
    if not np.isfinite(state).all():
        raise WireError('expected finite joint positions, got others')
    said = whole.get(offer.language) if flat else (whole.get(LANGUAGE) or {})
    words = said.get(offer.language) if isinstance(said, dict) else said
    while isinstance(words, list) and words:
        words = words[0]
    return Seen(video, state, words if isinstance(words, str) else '')


def _pictures(found: npt.NDArray[Any], name: str, offer: Offer) -> Pictures:
    times = len(offer.video_times)
    if found.dtype != np.uint8 or found.ndim != 4 or found.shape[0] != times or found.shape[-1] != 3:
        raise WireError(
            f'expected {times} uint8 pictures (height, width, 3) of {name}, got {found.dtype} {found.shape}'
        )
    return found


def answer_of(targets: FloatArray, offer: Offer) -> Any:
    """Return what answers a `get_action` with targets (n, 6) in the server's units."""
    said = targets.astype(np.float32)
    if offer.encoding.is_flat:
        return {f'{ACTION}.{ARM}': said[:, :-1], f'{ACTION}.{GRIPPER}': said[:, -1:]}
    return [{ARM: said[None, :, :-1], GRIPPER: said[None, :, -1:]}, {}]


def targets_of(answer: Value, offer: Offer) -> FloatArray:
    """Return the targets (n, 6) of an answer, in the server's units.

    Raises:
        ServerError: it is no chunk of this arm, has another length than was offered, or is not finite.
    """
    said = answer[0] if isinstance(answer, list) and len(answer) == 2 else answer
    prefix = f'{ACTION}.' if offer.encoding.is_flat else ''
    keys = list(said) if isinstance(said, dict) else []
    arm, gripper = (said.get(prefix + key) if isinstance(said, dict) else None for key in (ARM, GRIPPER))
    if not isinstance(arm, np.ndarray) or not isinstance(gripper, np.ndarray):
        wrapped = any(key.startswith(f'{ACTION}.') for key in keys) and not prefix
        hint = '; start the server without --use-sim-policy-wrapper' if wrapped else ''
        raise ServerError(
            f'expected {prefix}{ARM} and {prefix}{GRIPPER} as arrays in an answer, got {keys[:6] or said!r:.120}{hint}'
        )
    shapes = f'{arm.shape} and {gripper.shape}'
    if arm.size != offer.horizon * len(ARM_JOINTS) or gripper.size != offer.horizon:
        raise ServerError(
            f'expected {offer.horizon} entries of 5 and 1 joints, as the server offered, got arrays of {shapes}'
        )
    targets = np.empty((offer.horizon, NUM_JOINTS))
    targets[:, :-1] = arm.reshape(offer.horizon, -1)
    targets[:, -1] = gripper.reshape(offer.horizon)
    if not np.isfinite(targets).all():
        raise ServerError('expected finite targets, got NaN or infinity in an answer')
    return targets

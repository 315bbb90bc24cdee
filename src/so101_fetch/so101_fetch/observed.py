# SPDX-License-Identifier: Apache-2.0
"""What is observed: blocks of the state, and the two observations that have a name.

| name | state | cameras |
|---|---|---|
| state | hand, fingers, object, goal and differences of them; the joints too where actions move joints | none |
| pixels | what a robot measures itself, and the goal that it is told | front and wrist, 64 px, three frames |

The 25 + 3 numbers of Gymnasium-Robotics are all there; velocities are in metres and radians a second, and what a
network needs most, the way from the object to the goal, is said instead of left to be subtracted.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from so101_contract.observation_spec import CameraSpec, Normalization, ObservationSpec, StateBlock
from so101_fetch.errors import FetchError
from so101_fetch.model import ARM_JOINTS, Variant
from so101_fetch.tasks import FetchTask, FloatArray
from so101_interfaces_py.topics import FRONT_CAMERA, WRIST_CAMERA

STATE, PIXELS = 'state', 'pixels'
OBSERVATIONS = (STATE, PIXELS)
"""Names of the observations, the default first."""

IMAGE_PX = 64
FRAME = 'fetch'
"""Frame of all positions: the world of the models; the name stands where an SO-101's policy names its own."""

LARGEST = 20.0
"""No entry gets larger; what the physics throws beyond is cut [m, m/s, rad, rad/s]."""


@dataclass(frozen=True)
class Entry:
    """A block of the state.

    Attributes:
        size: entries.
        low: what is brought to -1 for a network.
        high: what is brought to 1.
        of_object: it is about the object: a camera would have to see it.
    """

    size: int
    low: tuple[float, ...]
    high: tuple[float, ...]
    of_object: bool = False


PLACE = (1.0, 0.4, 0.35), (1.9, 1.1, 0.95)


def _around(size: int, reach: float, *, of_object: bool = False) -> Entry:
    return Entry(size, (-reach,) * size, (reach,) * size, of_object)


ENTRIES: Mapping[str, Entry] = MappingProxyType(
    {
        'hand_pos': Entry(3, *PLACE),
        'hand_vel': _around(3, 1.0),
        'finger_pos': Entry(2, (0.0, 0.0), (0.05, 0.05)),
        'finger_vel': _around(2, 0.5),
        'arm_pos': _around(len(ARM_JOINTS), 2.0),
        'arm_vel': _around(len(ARM_JOINTS), 2.0),
        'object_pos': Entry(3, *PLACE, of_object=True),
        'object_rel': _around(3, 0.1, of_object=True),
        'object_euler': _around(3, 3.2, of_object=True),
        'object_vel': _around(3, 1.0, of_object=True),
        'object_spin': _around(3, 20.0, of_object=True),
        'goal_pos': Entry(3, *PLACE),
        'goal_rel': _around(3, 0.15, of_object=True),
    }
)
"""Blocks by name. `goal_rel` is from what shall come to the goal, to the goal."""


def block_names(task: FetchTask, variant: Variant, name: str) -> tuple[str, ...]:
    """Return the blocks of an observation."""
    joints = ('arm_pos', 'arm_vel') if variant.is_joint else ()
    own = tuple(entry for entry in ENTRIES if not entry.startswith(('arm', 'object')))
    if name == PIXELS:
        return tuple(
            entry for entry in ENTRIES if entry in joints or (not ENTRIES[entry].of_object and entry in own)
        )
    objects = tuple(entry for entry in ENTRIES if entry.startswith('object')) if task.has_object else ()
    return tuple(entry for entry in ENTRIES if entry in (*own, *joints, *objects))


def observation_spec(task: FetchTask, variant: Variant, name: str) -> ObservationSpec:
    """Return what is observed.

    Args:
        task: what is to be done.
        variant: what moves the arm.
        name: one of `OBSERVATIONS`.

    Raises:
        FetchError: there is none of that name.
    """
    if name not in OBSERVATIONS:
        raise FetchError(
            f'expected one of the observations {list(OBSERVATIONS)} of the Fetch environments, got {name!r}; name one'
        )
    names = block_names(task, variant, name)
    low, high = (np.concatenate([getattr(ENTRIES[one], side) for one in names]) for side in ('low', 'high'))
    cameras = (FRONT_CAMERA, WRIST_CAMERA) if name == PIXELS else ()
    return ObservationSpec(
        state=tuple(StateBlock(one, ENTRIES[one].size, ENTRIES[one].of_object) for one in names),
        frame_stack=3 if cameras else 1,
        cameras=tuple(CameraSpec(camera, IMAGE_PX) for camera in cameras),
        normalization=Normalization.from_range(low, high),
        tcp='fetch',
        camera_preset='fetch',
        frame_id=FRAME,
    )


def build_state(spec: ObservationSpec, values: Mapping[str, FloatArray]) -> npt.NDArray[np.float32]:
    """Return the state vector (D,) of the blocks of a spec."""
    state = np.concatenate([values[name] for name in spec.block_names])
    return np.asarray(np.nan_to_num(np.clip(state, -LARGEST, LARGEST)), dtype=np.float32)

# SPDX-License-Identifier: Apache-2.0
"""Experience in memory: every frame once, stacks and n-step windows put together when they are drawn.

A transition lives in the slot of the frame that it starts from. It names the slots of its stack and of the
frame that follows, so the transition after it is the one that lives in that next slot, and a window ends
where there is none: at the end of the episode, at a gap, or at the newest step.
"""

from collections.abc import Sequence
import os

import numpy as np
import numpy.typing as npt
import torch

from hilserl_learner.data.batch import Arrays, Batch, FREE, Slots, Stream, Windows
from hilserl_learner.errors import NotReadyError, ReplayError
from so101_contract.action import ActionSpec, GripperConvention
from so101_contract.observation import Frame
from so101_contract.observation_spec import ObservationSpec
from so101_contract.transition import Transition


def bytes_per_frame(spec: ObservationSpec, action: ActionSpec | None = None) -> int:
    """Return the memory that one frame takes with everything that belongs to it [B]."""
    pixels = len(spec.cameras) * 3 * spec.image_size**2
    # The bookkeeping: stack, next slot, references, place among the live ones and back, revision, order.
    bookkeeping = 8 * spec.frame_stack + 8 + 4 + 8 + 8 + 4
    return pixels + 4 * spec.state_size + 2 * 4 * (action or ActionSpec()).size + 4 + 3 + bookkeeping


class ReplayBuffer:
    """A ring of transitions of any number of episodes and arms.

    Memory is bounded by `capacity` frames and claimed on construction (the system hands it out as it is
    used); an episode of N transitions takes N + 1 frames. When it is full, the transitions that came first go
    first. `stream` tells arms, bags and sessions apart whose episode numbers may be the same.
    """

    def __init__(
        self,
        observation: ObservationSpec,
        action: ActionSpec,
        *,
        capacity: int,
        windows: Windows | None = None,
        is_demo: bool = False,
        device: torch.device | str = 'cpu',
    ) -> None:
        """Make an empty buffer.

        Args:
            observation: what the transitions were assembled with.
            action: turns executed actions into network units.
            capacity: frames that it holds.
            windows: how rewards are summed up.
            is_demo: what the batches of this buffer say.
            device: where frames are kept and batches are made.
        """
        stack = observation.frame_stack
        if capacity < stack + 1:
            raise ReplayError(
                f'expected a capacity of at least {stack + 1} frames, got {capacity}; one transition needs them'
            )
        if action.gripper is GripperConvention.DISCRETE:
            raise ReplayError(
                'expected a continuous gripper convention, got DISCRETE; use an action spec with SIGNED'
            )
        claimed, there = capacity * bytes_per_frame(observation, action), _physical_memory()
        if torch.device(device).type == 'cpu' and claimed > there:
            raise ReplayError(
                f'expected a capacity that fits into {there / 1e9:.1f} GB of memory, got {capacity} frames of '
                f'{claimed / 1e9:.1f} GB; lower it'
            )
        self.observation, self.action = observation, action
        self.windows = windows or Windows()
        self.is_demo = is_demo
        self.capacity = capacity
        self.device = torch.device(device)
        size, on_host = observation.image_size, self.device.type == 'cpu'
        self._cameras = observation.camera_names
        self._images = [
            torch.empty((capacity, 3, size, size), dtype=torch.uint8, device=self.device)
            for _ in self._cameras
        ]
        # A view for writing without torch's overhead, where the frames are in this machine's memory.
        self._host_images = [images.numpy() for images in self._images] if on_host else []
        self._states = np.empty((capacity, observation.state_size), dtype=np.float32)
        self._actions = np.empty((capacity, action.size), dtype=np.float32)
        self._bases = np.full((capacity, action.size), np.nan, dtype=np.float32)  # of the frame, whoever acts
        self._rewards = np.zeros(capacity, dtype=np.float32)
        self._terminated = np.zeros(capacity, dtype=np.bool_)
        self._truncated = np.zeros(capacity, dtype=np.bool_)
        self._intervened = np.zeros(capacity, dtype=np.bool_)
        self._stacks = np.zeros((capacity, stack), dtype=np.int64)
        self._nexts = np.zeros(capacity, dtype=np.int64)
        self._revisions = np.zeros(capacity, dtype=np.int32)
        self._references = np.zeros(capacity, dtype=np.int32)
        self._live = np.zeros(capacity, dtype=np.int64)
        self._place = np.full(capacity, FREE, dtype=np.int64)  # where in _live; free: no transition there
        self._size = 0
        self._free = list(range(capacity - 1, -1, -1))
        self._order: dict[int, None] = {}  # transitions, the one that came first first
        self._episodes: dict[tuple[Stream, int], dict[tuple[int, int], int]] = {}
        self._keys: dict[int, tuple[Stream, int, int, int]] = {}

    def __len__(self) -> int:
        return self._size

    @property
    def frames(self) -> int:
        """Frames that are stored now."""
        return self.capacity - len(self._free)

    @property
    def nbytes(self) -> int:
        """Memory that is claimed [B], whatever is stored."""
        arrays = (
            *(self._states, self._actions, self._bases, self._rewards),
            *(self._terminated, self._truncated, self._intervened),
            *(self._stacks, self._nexts, self._revisions, self._references, self._live, self._place),
        )
        pixels = sum(images.numel() for images in self._images)
        return pixels + sum(array.nbytes for array in arrays)

    def add(self, transition: Transition, stream: Stream = '') -> None:
        """Store a transition, or what a later revision of it says.

        Raises:
            ReplayError: it was assembled with another observation spec; nothing was changed.
        """
        self._check(transition)
        newest = self._slot(transition.frames[-1], stream)
        if newest is not None and self._place[newest] != FREE:
            if transition.revision > self._revisions[newest]:
                self._label(newest, transition)
            return
        frames = (*transition.frames, transition.next_frame)
        self._make_room(frames, stream)
        slots = [self._store(frame, stream) for frame in frames]
        slot = slots[-2]
        wire = transition.action
        self._actions[slot] = self.action.from_wire(wire.translation, wire.opening).values
        self.tell_base(transition, stream)
        self._intervened[slot] = transition.intervened
        self._stacks[slot] = slots[:-1]
        self._nexts[slot] = slots[-1]
        for held in slots:
            self._references[held] += 1
        self._label(slot, transition)
        self._live[self._size] = slot
        self._place[slot] = self._size
        self._size += 1
        self._order[slot] = None

    def tell_base(self, transition: Transition, stream: Stream = '') -> None:
        """Take what the base policy said at a frame that is here already, as the end of an earlier transition."""
        slot, base = self._slot(transition.frames[-1], stream), transition.action.base
        if slot is not None and base is not None:
            self._bases[slot] = self.action.from_wire(base.translation, base.opening).values

    def discard(self, episode: int, stream: Stream = '') -> int:
        """Forget every transition of an episode; return how many they were."""
        held = self._episodes.get((stream, episode), {})
        slots = [slot for slot in held.values() if self._place[slot] != FREE]
        for slot in slots:
            self._remove(slot)
        return len(slots)

    def draw(self, batch_size: int, generator: np.random.Generator) -> Slots:
        """Return the slots of transitions, each as likely as every other, with replacement.

        Raises:
            NotReadyError: there are none.
        """
        if self._size == 0:
            raise NotReadyError('expected at least one transition, got an empty buffer; wait for data')
        return self._live[generator.integers(0, self._size, size=batch_size)]

    def sample(self, batch_size: int, generator: np.random.Generator) -> Batch:
        """Draw a batch of exactly that size.

        Raises:
            NotReadyError: the buffer is empty.
        """
        return gather([(self, self.draw(batch_size, generator))])

    def _window(self, slots: Slots) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64], Slots]:
        """Return reward sum, discount and last transition of the windows that start in these slots."""
        gamma = self.windows.gamma
        last = slots
        reward = self._rewards[slots].astype(np.float64)
        discount = np.full(len(slots), gamma)
        for _ in range(self.windows.n_step - 1):
            after = self._nexts[last]
            goes_on = (self._place[after] != FREE) & ~(self._terminated[last] | self._truncated[last])
            reward += np.where(goes_on, discount * self._rewards[after], 0.0)
            # A window that has ended has `goes_on` false ever after, since `last` stays.
            discount = np.where(goes_on, discount * gamma, discount)
            last = np.where(goes_on, after, last)
        return reward, np.where(self._terminated[last], 0.0, discount), last

    def _ahead(self, slots: Slots, actions: npt.NDArray[np.generic], known: npt.NDArray[np.generic]) -> None:
        """Write the actions (B, K, A) from these slots on, and which of them there are (B, K)."""
        at, there = slots, np.ones(len(slots), dtype=np.bool_)
        for step in range(self.windows.chunk):
            actions[:, step], known[:, step] = self._actions[at], there
            after = self._nexts[at]
            there = there & (self._place[after] != FREE) & ~(self._terminated[at] | self._truncated[at])
            at = np.where(there, after, at)

    def fill(
        self, slots: Slots, rows: slice, arrays: 'Arrays', images: torch.Tensor, next_images: torch.Tensor
    ) -> None:
        """Write the windows that start in these slots into rows of a batch."""
        reward, discount, last = self._window(slots)
        stacks = self._stacks[slots]
        next_stacks = np.concatenate([self._stacks[last, 1:], self._nexts[last, None]], axis=1)
        arrays['state'][rows] = self._states[stacks].reshape(len(slots), -1)
        arrays['next_state'][rows] = self._states[next_stacks].reshape(len(slots), -1)
        self._ahead(slots, arrays['actions'][rows], arrays['known'][rows])
        arrays['base'][rows] = self._bases[slots]
        arrays['next_base'][rows] = self._bases[self._nexts[last]]
        arrays['reward'][rows] = reward
        arrays['discount'][rows] = discount
        arrays['intervened'][rows] = self._intervened[slots]
        arrays['is_demo'][rows] = self.is_demo
        self._pixels(stacks, images[rows])
        self._pixels(next_stacks, next_images[rows])

    def _pixels(self, stacks: Slots, out: torch.Tensor) -> None:
        """Write the stacked images of frame slots (B, T) to `out` (B, V, 3T, S, S)."""
        index = torch.from_numpy(stacks.reshape(-1)).to(self.device)
        for view, frames in enumerate(self._images):
            if len(self._images) == 1:  # in place: no copy in between
                torch.index_select(frames, 0, index, out=out.view(len(index), *frames.shape[1:]))
            else:
                out[:, view] = frames.index_select(0, index).view(out[:, view].shape)

    def _check(self, transition: Transition) -> None:
        spec, frame = self.observation, transition.next_frame
        shapes = {camera: image.shape for camera, image in frame.images.items()}
        expected = dict.fromkeys(self._cameras, (3, spec.image_size, spec.image_size))
        if (
            len(transition.frames) != spec.frame_stack
            or frame.state.shape != (spec.state_size,)
            or shapes != expected
        ):
            raise ReplayError(
                f'expected transitions with {spec.frame_stack} frames, {spec.state_size} state entries and '
                f'images {expected}, got {len(transition.frames)}, {frame.state.shape} and {shapes}; '
                f'assemble them with the observation spec of this buffer'
            )

    def _label(self, slot: int, transition: Transition) -> None:
        self._rewards[slot] = transition.reward
        self._terminated[slot] = transition.terminated
        self._truncated[slot] = transition.truncated and not transition.terminated
        self._revisions[slot] = transition.revision

    def _slot(self, frame: Frame, stream: Stream) -> int | None:
        held = self._episodes.get((stream, frame.episode))
        return None if held is None else held.get((frame.index, frame.stamp_ns))

    def _make_room(self, frames: tuple[Frame, ...], stream: Stream) -> None:
        """Forget the oldest transitions until these frames find room."""
        while True:
            missing = {(f.index, f.stamp_ns) for f in frames if self._slot(f, stream) is None}
            if len(missing) <= len(self._free):
                return
            self._remove(next(iter(self._order)))

    def _store(self, frame: Frame, stream: Stream) -> int:
        """Return the slot of a frame, copied there if it is new."""
        known = self._slot(frame, stream)
        if known is not None:
            return known
        slot = self._free.pop()
        self._episodes.setdefault((stream, frame.episode), {})[frame.index, frame.stamp_ns] = slot
        self._keys[slot] = (stream, frame.episode, frame.index, frame.stamp_ns)
        self._states[slot] = frame.state
        self._bases[slot] = np.nan
        for view, camera in enumerate(self._cameras):
            if self._host_images:
                self._host_images[view][slot] = frame.images[camera]
            else:
                self._images[view][slot].copy_(torch.from_numpy(frame.images[camera].copy()))
        return slot

    def _remove(self, slot: int) -> None:
        """Forget a transition, and the frames that no other one needs."""
        place, moved = int(self._place[slot]), int(self._live[self._size - 1])
        self._live[place], self._place[moved] = moved, place
        self._place[slot] = FREE
        self._size -= 1
        del self._order[slot]
        for held in (*map(int, self._stacks[slot]), int(self._nexts[slot])):
            self._references[held] -= 1
            if self._references[held] == 0:
                stream, episode, index, stamp_ns = self._keys.pop(held)
                frames = self._episodes[stream, episode]
                del frames[index, stamp_ns]
                if not frames:
                    del self._episodes[stream, episode]
                self._free.append(held)


def gather(parts: Sequence[tuple[ReplayBuffer, Slots]]) -> Batch:
    """Return one batch of the transitions in these slots of these buffers, which observe and act alike."""
    first = parts[0][0]
    spec, device = first.observation, first.device
    rows = sum(len(slots) for _, slots in parts)
    arrays: Arrays = {
        'state': np.empty((rows, spec.frame_stack * spec.state_size), dtype=np.float32),
        'next_state': np.empty((rows, spec.frame_stack * spec.state_size), dtype=np.float32),
        'actions': np.empty((rows, first.windows.chunk, first.action.size), dtype=np.float32),
        'known': np.empty((rows, first.windows.chunk), dtype=np.bool_),
        'base': np.empty((rows, first.action.size), dtype=np.float32),
        'next_base': np.empty((rows, first.action.size), dtype=np.float32),
        'reward': np.empty(rows, dtype=np.float32),
        'discount': np.empty(rows, dtype=np.float32),
        'intervened': np.empty(rows, dtype=np.bool_),
        'is_demo': np.empty(rows, dtype=np.bool_),
    }
    size = spec.image_size
    shape = (rows, len(spec.cameras), 3 * spec.frame_stack, size, size)
    images = torch.empty(shape, dtype=torch.uint8, device=device)
    next_images = torch.empty(shape, dtype=torch.uint8, device=device)
    start = 0
    for buffer, slots in parts:
        end = start + len(slots)
        buffer.fill(slots, slice(start, end), arrays, images, next_images)
        start = end
    tensors = {name: torch.from_numpy(array).to(device) for name, array in arrays.items()}
    return Batch(images=images, next_images=next_images, **tensors)


class SymmetricSampler:
    """Draws one part of each batch from the demonstrations and the rest from what the arm lived through."""

    def __init__(self, demo: ReplayBuffer, online: ReplayBuffer, *, demo_fraction: float = 0.5) -> None:
        """Make a sampler.

        Args:
            demo: demonstrations and interventions.
            online: everything that was executed.
            demo_fraction: share of a batch that comes from `demo` where both have data.
        """
        demo.observation.require_same(online.observation, ('demonstrations', 'online'))
        if not 0.0 <= demo_fraction <= 1.0:
            raise ReplayError(f'expected a demo_fraction in 0..1, got {demo_fraction}; correct it')
        self.demo, self.online = demo, online
        self.demo_fraction = demo_fraction

    def __len__(self) -> int:
        return len(self.demo) + len(self.online)

    def split(self, batch_size: int) -> tuple[int, int]:
        """Return how many rows of a batch come from the demonstrations and how many from online data."""
        if not len(self.demo) or not len(self.online):
            return (0, batch_size) if len(self.online) else (batch_size, 0)
        from_demo = round(batch_size * self.demo_fraction)
        return from_demo, batch_size - from_demo

    def sample(self, batch_size: int, generator: np.random.Generator) -> Batch:
        """Draw exactly `batch_size` transitions; all from one buffer as long as the other one is empty.

        Raises:
            NotReadyError: both are empty.
        """
        from_demo, from_online = self.split(batch_size)
        parts = [
            (buffer, buffer.draw(rows, generator))
            for buffer, rows in ((self.demo, from_demo), (self.online, from_online))
            if rows
        ]
        return gather(parts)


def _physical_memory() -> int:
    """Return the memory of this machine [B]."""
    return os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES')

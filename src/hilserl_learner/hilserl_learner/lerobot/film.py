# SPDX-License-Identifier: Apache-2.0
"""A film of one episode: its cameras side by side, with who drove, how far it is, and what reward came."""

from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from hilserl_learner.errors import DatasetError
from hilserl_learner.lerobot.export import BufferEpisode, rate_of, written_aside
from hilserl_learner.lerobot.writer import VideoFile
from so101_contract.observation import Frame
from so101_contract.transition import Transition

Picture = npt.NDArray[np.uint8]

EDGE = 384
"""Height and width of a camera's picture in the film [px]."""

BAR = 32
"""Height of the line of text below the pictures [px]."""

HUMAN, POLICY, PLAIN = (240, 150, 40), (90, 170, 240), (220, 220, 220)
"""Colours of the text, RGB."""

LINGER_S = 1.0
"""How long the last picture stays [s]."""


def choose_episode(episodes: Iterable[BufferEpisode], number: int) -> BufferEpisode:
    """Return the episode with that number.

    Raises:
        DatasetError: there is none.
    """
    numbers = []
    for episode in episodes:
        if episode.number == number:
            return episode
        numbers.append(episode.number)
    shown = ', '.join(map(str, numbers[:20])) or 'none'
    raise DatasetError(f'expected an episode {number}, got {shown}; choose one of these with --episode')


def write_film(episode: BufferEpisode, out: Path, *, rate_hz: int = 0, codec: str = 'h264') -> int:
    """Write an episode as a film, and return its frames; the file appears whole or not at all.

    Raises:
        DatasetError: something is there already, or the episode has no pictures.
    """
    if not episode.transitions[0].next_frame.images:
        raise DatasetError('expected an episode with pictures, got one without; nothing can be shown')
    fps = rate_hz or rate_of(episode)
    with written_aside(out) as aside:
        film: VideoFile | None = None
        try:
            for picture in _pictures(episode, round(LINGER_S * fps)):
                if film is None:
                    film = VideoFile(aside, codec, fps, picture.shape[:2])
                film.add(picture)
        finally:
            if film is not None:
                film.close()
    assert film is not None
    return film.frames


def _pictures(episode: BufferEpisode, linger: int) -> Iterator[Picture]:
    total, length = 0.0, len(episode.transitions)
    for step, transition in enumerate(episode.transitions):
        total += transition.reward
        line = f'{step + 1}/{length}  reward {transition.reward:g}  sum {total:g}'
        yield _drawn(transition.frames[-1], _driver(transition), line)
    last = episode.transitions[-1]
    ended = episode.outcome.name.lower().replace('_', ' ') if episode.outcome else 'end'
    for _ in range(max(linger, 1)):
        yield _drawn(last.next_frame, _driver(last), f'{ended}  sum {total:g}')


def _driver(transition: Transition) -> tuple[str, tuple[int, int, int]]:
    return ('human', HUMAN) if transition.intervened else ('policy', POLICY)


def _drawn(frame: Frame, driver: tuple[str, tuple[int, int, int]], line: str) -> Picture:
    views = [
        cv2.resize(image.transpose(1, 2, 0), (EDGE, EDGE), interpolation=cv2.INTER_NEAREST)
        for image in frame.images.values()
    ]
    below = np.zeros((BAR, EDGE * len(views), 3), dtype=np.uint8)
    picture = np.ascontiguousarray(np.vstack([np.hstack(views), below]))
    name, colour = driver
    for text, place, shade in ((name, 8, colour), (line, 90, PLAIN)):
        cv2.putText(picture, text, (place, EDGE + 22), cv2.FONT_HERSHEY_SIMPLEX, 0.5, shade, 1, cv2.LINE_AA)
    cv2.rectangle(picture, (0, 0), (picture.shape[1] - 1, EDGE - 1), colour, 3)
    return picture

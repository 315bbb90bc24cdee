# SPDX-License-Identifier: Apache-2.0
"""Help for the human who puts the object back: how the scene looked when the last episode began."""

from collections.abc import Mapping
from typing import Any

from so101_console.frames import Frames
from so101_contract.session import EventKind, NO_EPISODE


class ResetHelp:
    """Keeps the pictures of the last start, of every camera, and whether a human is asked to arrange the scene."""

    def __init__(self, frames: Mapping[str, Frames]) -> None:
        self._frames = list(frames.values())
        self._kept: list[bytes] = []
        self._episode = NO_EPISODE
        self.asked = False
        """Whether a human is asked to arrange the scene."""

    def hear(self, kind: EventKind, episode: int) -> None:
        """Note what happened to an episode, or between two."""
        if kind is EventKind.START:
            newest = [frames.jpeg(-1) for frames in self._frames]
            self._kept = [b'' if found is None else found[1] for found in newest]
            self._episode = episode
        self.asked = kind is EventKind.NEED_RESET or (
            self.asked and kind not in (EventKind.NEED_OVER, EventKind.START)
        )

    def picture(self, camera: int) -> bytes:
        """Return the JPEG of a camera when the last episode began; empty without one."""
        return self._kept[camera] if camera < len(self._kept) else b''

    def said(self, sentence: str) -> dict[str, Any] | None:
        """Return what a page shows while a human is asked to arrange the scene, else None.

        Args:
            sentence: what the session says of it: what to do, and for how many seconds there is still time.
        """
        if not self.asked:
            return None
        return {'said': sentence, 'episode': self._episode, 'pictures': [bool(each) for each in self._kept]}

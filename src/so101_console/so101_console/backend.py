# SPDX-License-Identifier: Apache-2.0
"""What pages see and do, between the server's thread and the node's: the one place where the two meet."""

from collections.abc import Callable, Mapping
import queue
import time
from typing import Any

from so101_console.arm_model import ArmModel
from so101_console.episode_browser import EpisodeBrowser
from so101_console.frames import Frames
from so101_console.operator_input import DriveError, read_wish, Wheel
from so101_console.page_state import PageState

ASKS = frozenset(
    (
        'e_stop',
        'success',
        'failure',
        'discard',
        'start',
        'reset',
        'pause',
        'enable',
        'release',
        'park',
        'clear',
    )
)
"""What a page may ask for by name, beside driving."""


class PageBackend:
    """What a page can see and do; the server's thread calls it.

    What a page asks for is put into a queue; `wake` makes the node take it at once.
    """

    def __init__(
        self, arm: ArmModel, page_state: PageState, frames: Frames, browser: EpisodeBrowser, wheel: Wheel
    ) -> None:
        self.asked: queue.SimpleQueue[str] = queue.SimpleQueue()
        """Names of actions, for the node to carry out."""
        self.wake: Callable[[], None] = lambda: None
        self._arm_file = arm.file()
        self._page_state = page_state
        self._frames = frames
        self._browser = browser
        self._wheel = wheel

    def arm_file(self) -> bytes:
        """Return the meshes."""
        return self._arm_file

    def state(self, page: str) -> dict[str, Any]:
        """Return how things are, for one page."""
        now = time.monotonic()
        age = self._frames.age(now)
        camera = {
            'age': None if age is None else round(age, 2),
            'fps': round(self._frames.rate(now)),
            'problem': self._frames.refused,
        }
        state = self._page_state.state(now, self._wheel.driver, page, camera)
        return {'type': 'state', 'camera': camera, **state}

    def curves(self, since: int) -> dict[str, Any]:
        """Return the rows of the curves from one on."""
        return self._page_state.curves.since(since)

    def frame(self, newer_than: int) -> tuple[int, bytes] | None:
        """Return the newest picture as JPEG and its number, if there is a newer one."""
        return self._frames.jpeg(newer_than)

    def act(self, page: str, message: Mapping[str, Any]) -> str:
        """Do what a page asks for; return a sentence where it cannot be done.

        Raises:
            DriveError: the message means nothing.
        """
        what = message.get('do')
        if what == 'drive':
            self._wheel.hear(page, read_wish(message), time.monotonic())
            return ''
        if what == 'take':
            before = self._wheel.take(page)
            self.ask('take')
            return 'Another page was driving; you drive now.' if before else ''
        if what == 'give':
            if not self._wheel.give_back(page) and self._wheel.driver is not None:
                return 'Another page drives; take over first.'
            self.ask('give')
            return ''
        if not isinstance(what, str) or what not in ASKS:
            raise DriveError(
                f'expected one of {sorted(ASKS)}, drive, take or give, got {what!r:.40}; nothing was done'
            )
        self.ask(what)
        return ''

    def closed(self, page: str) -> None:
        """A page has gone; if it drove, nobody does, and the arm holds."""
        if self._wheel.give_back(page):
            self.ask('hold')

    def episodes(self) -> dict[str, Any]:
        """Return the list of recorded episodes."""
        return {'rows': self._browser.episodes(), 'problems': self._browser.problems}

    def episode(self, key: str) -> dict[str, Any] | None:
        """Return one recorded episode, without its pictures."""
        return self._browser.episode(key)

    def episode_frame(self, key: str, index: int) -> bytes | None:
        """Return the picture of one step of it as JPEG."""
        return self._browser.frame(key, index)

    def ask(self, what: str) -> None:
        """Let the node do something, at once."""
        self.asked.put(what)
        self.wake()

# SPDX-License-Identifier: Apache-2.0
"""What pages see and do, between the server's thread and the node's: the one place where the two meet."""

from collections.abc import Callable, Mapping
import io
import math
from pathlib import Path
import queue
import time
from typing import Any

from so101_console.archive.browser import EpisodeBrowser
from so101_console.archive.jobs import Jobs
from so101_console.archive.runs import Runs
from so101_console.arm_model import ArmModel
from so101_console.frames import Frames
from so101_console.model_watch import instruction_of
from so101_console.operator_input import DriveError, read_wish, Wheel
from so101_console.page_state import PageState
from so101_console.scene.drawings import Drawings, ResetHelp
from so101_contract.task.spec import TaskSpec
from so101_interfaces_py.node import reason_of, UNUSABLE

ASKS = frozenset(
    (
        'e_stop',
        'success',
        'failure',
        'discard',
        'success_now',
        'not_yet',
        'doubt_success',
        'doubt_other',
        'train_classifier',
        'learner_save',
        'learner_pause',
        'learner_resume',
        'start',
        'reset',
        'pause',
        'enable',
        'release',
        'park',
        'clear',
        'recover',
    )
)
"""What a page may ask for by name, beside driving."""


LABELS = frozenset(('success', 'failure', 'discard'))
"""What an episode of this run may be called afterwards."""
MOST_EPISODES = 2**31

LONGEST_TEXT = 600
"""What is longer is cut: it would push the buttons off the page [characters]."""


def showable(value: Any) -> Any:
    """Return a value as a page can take it: numbers that JSON has, and texts that leave room for the buttons."""
    if isinstance(value, dict):
        return {str(key): showable(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [showable(entry) for entry in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, str):
        return value if len(value) <= LONGEST_TEXT else f'{value[:LONGEST_TEXT]}…'
    return value


def code_picture(address: str) -> bytes:
    """Return an address as a QR code, SVG; empty where the package that draws it is missing."""
    try:
        import segno
    except ModuleNotFoundError:
        return b''
    out = io.BytesIO()
    segno.make(address, error='m').save(out, kind='svg', scale=6, border=3, light='#fff')
    return out.getvalue()


def _camera(name: str, frames: Frames, now: float) -> dict[str, Any]:
    """Return how the pictures of a camera come."""
    age = frames.age(now)
    said = {'age': None if age is None else round(age, 2), 'fps': round(frames.rate(now))}
    return {'name': name, **said, 'problem': frames.refused}


class PageBackend:
    """What a page can see and do; the server's thread calls it.

    What a page asks for is put into a queue; `wake` makes the node take it at once.
    """

    def __init__(
        self,
        arm: ArmModel,
        page_state: PageState,
        frames: Frames | Mapping[str, Frames],
        browser: EpisodeBrowser,
        wheel: Wheel,
        *,
        task: TaskSpec | None = None,
        drawings: Drawings | None = None,
        runs: str = 'runs',
    ) -> None:
        """Prepare; `frames` are those of the wrist camera, or of several cameras by name; `runs` is where runs lie."""
        self.phone_code = b''
        """The address for a phone as a picture (SVG); empty where the page is this machine's alone."""
        self.labels: queue.SimpleQueue[tuple[str, int]] = queue.SimpleQueue()
        """Labels of episodes that have ended, for the node to pass on."""
        self._jobs, self._runs = Jobs(), Runs(runs)
        self.asked: queue.SimpleQueue[str] = queue.SimpleQueue()
        """Names of actions, for the node to carry out."""
        self.wake: Callable[[], None] = lambda: None
        self.instruct: Callable[[str], None] = lambda _: None
        """Tells a policy that takes words what to do."""
        self.pad_owner = ''
        """Who reads a gamepad beside the pages, which leave theirs alone then; or empty."""
        self._arm_file = arm.file()
        self._page_state = page_state
        self._frames = {'wrist': frames} if isinstance(frames, Frames) else dict(frames)
        self.help = ResetHelp(self._frames)
        """For a human who arranges the scene."""
        self._drawings = drawings
        self._doubt = b''
        self._task = {} if task is None else {'instruction': task.instruction, 'human': task.human}
        self._browser = browser
        self._wheel = wheel

    def on_doubt(self, message: Any) -> None:
        """Keep the picture that the classifier asks about; empty where it asks about none."""
        self._doubt = bytes(message.data)

    def doubt(self) -> bytes:
        """Return that picture as JPEG."""
        return self._doubt

    def arm_file(self) -> bytes:
        """Return the meshes."""
        return self._arm_file

    def state(self, page: str) -> dict[str, Any]:
        """Return how things are, for one page."""
        now = time.monotonic()
        self._page_state.arranging = self.help.asked
        first, *others = (_camera(name, frames, now) for name, frames in self._frames.items())
        state = self._page_state.state(now, self._wheel.driver, page, {**first, 'others': others})
        said: dict[str, Any] = {'camera': first, 'cameras': others, 'task': self._task}
        said |= {'pad_owner': self.pad_owner, 'help': self.help.said(self._page_state.sentence)}
        state['phone'] = bool(self.phone_code)
        if self._drawings is not None:
            try:
                said |= self._drawings.said(now, state, running=self._page_state.running)
            except UNUSABLE as error:  # what is drawn never takes the state of the arm with it
                self._page_state.say(f'nothing is drawn: {reason_of(error)}')
        shown: dict[str, Any] = showable({'type': 'state', **said, **state})
        return shown

    def curves(self, since: int) -> dict[str, Any]:
        """Return the rows of the curves from one on."""
        return self._page_state.curves.since(since)

    @property
    def cameras(self) -> int:
        """How many there are."""
        return len(self._frames)

    def frame(self, newer_than: int, camera: int = 0) -> tuple[int, bytes] | None:
        """Return the newest picture of a camera as JPEG and its number, if there is a newer one.

        Those of all but the first camera have its number as a byte in front, which no JPEG begins with.
        """
        found = list(self._frames.values())[camera].jpeg(newer_than)
        return found if found is None or not camera else (found[0], bytes([camera]) + found[1])

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
        with_more = {'label': self._label, 'instruct': self._instruct}
        if isinstance(what, str) and what in with_more:
            with_more[what](message)
            return ''
        if not isinstance(what, str) or what not in ASKS:
            others = 'drive, label, take, give or instruct'
            raise DriveError(f'expected one of {sorted(ASKS)}, {others}, got {what!r:.40}; nothing was done')
        self.ask(what)
        return ''

    def closed(self, page: str) -> None:
        """A page has gone; if it drove, nobody does, and the arm holds."""
        if self._wheel.give_back(page):
            self.ask('hold')

    def _instruct(self, message: Mapping[str, Any]) -> None:
        try:
            self.instruct(instruction_of(message))
        except ValueError as error:
            raise DriveError(str(error)) from error

    def _label(self, message: Mapping[str, Any]) -> None:
        outcome, episode = message.get('outcome'), message.get('episode')
        known = isinstance(episode, int) and not isinstance(episode, bool) and 0 < episode < MOST_EPISODES
        if not isinstance(outcome, str) or outcome not in LABELS or not known or not isinstance(episode, int):
            raise DriveError(
                f'expected one of {sorted(LABELS)} and the number of an episode, got {outcome!r:.40} and '
                f'{episode!r:.20}; nothing was done'
            )
        self.labels.put((outcome, episode))
        self.wake()

    def episodes(self) -> dict[str, Any]:
        """Return the list of recorded episodes as far as it is known, and how far the reading of bags is."""
        folder = self._page_state.recorder.folder
        if folder is not None:
            self._browser.also_in(folder)
        return self._browser.look()

    def episode(self, key: str) -> dict[str, Any] | None:
        """Return one episode, of this run or recorded, without its pictures."""
        return self._page_state.memory.account(key) or self._browser.episode(key)

    def episode_frame(self, key: str, index: int, camera: int = 0) -> bytes | None:
        """Return the picture of one camera at one step of it as JPEG."""
        memory = self._page_state.memory
        if memory.find(key) is not None:
            return memory.frame(key, index, camera)
        return self._browser.frame(key, index, camera)

    def make_film(self, key: str) -> str:
        """Begin to make a film of an episode; return a sentence where that cannot be."""
        episode = self._page_state.memory.find(key) or self._browser.find(key)
        return 'There is no such episode.' if episode is None else self._jobs.film(episode)

    def film(self, key: str) -> Path | None:
        """Return the film that was made of an episode."""
        return self._jobs.file(key)

    def job(self) -> dict[str, Any] | None:
        """Return how the job is that runs, or that has ended last."""
        return self._jobs.account()

    def runs(self) -> list[dict[str, Any]]:
        """Return the list of runs."""
        return self._runs.rows()

    def run(self, name: str) -> dict[str, Any] | None:
        """Return the curve of a run."""
        return self._runs.curve(name)

    def export_run(self, name: str) -> str:
        """Begin to make a dataset of a run's experience; return a sentence where that cannot be."""
        return self._runs.export(name, self._jobs)

    def close(self) -> None:
        """End what runs for pages."""
        self._jobs.close()

    def ask(self, what: str) -> None:
        """Let the node do something, at once."""
        self.asked.put(what)
        self.wake()

# SPDX-License-Identifier: Apache-2.0
"""The node's view of the training process: started, listened to, started again, ended."""

from collections.abc import Mapping
import logging
import subprocess
import sys
import threading
import time
from typing import Any

from hilserl_learner.channel import Channel, ChannelClosedError, Letter

RESTART_S = 3.0
"""Time before a training process that ended by itself is started again [s]."""

CLOSE_S = 0.5
"""How long the node waits for its end [s]; a node that takes longer is killed by whoever started it."""

SILENT_S = 30.0
"""A training process that tells nothing for so long hangs, or has far too little of the processor [s]."""

_log = logging.getLogger(__name__)


class TrainChild:
    """Owns the training process. `tick` is called now and then; nothing here waits for it except `close`.

    Attributes:
        status: the latest status that it told; empty before the first.
        failure: why it is not running; empty while it is.
        restarts: how often it was started again.
    """

    def __init__(self, setup: Mapping[str, Any]) -> None:
        """Start it.

        Args:
            setup: its configuration, see `train_process.run`.
        """
        self.status: dict[str, Any] = {}
        self.failure = ''
        self.restarts = 0
        self._setup = dict(setup)
        self._lock = threading.Lock()
        self._weights: Letter | None = None
        self._answers: list[dict[str, Any]] = []
        self._fatal = False
        self._heard_s = time.monotonic()
        self._ended_s: float | None = None
        self._start()

    @property
    def pid(self) -> int:
        """Of the process."""
        return self._process.pid

    @property
    def silence(self) -> str:
        """A sentence where nothing was heard of it for too long; empty else."""
        silent_s = time.monotonic() - self._heard_s
        if self.failure or silent_s < SILENT_S:
            return ''
        return f'the training process has told nothing for {silent_s:.0f} s; see what else uses the processor'

    def tick(self) -> None:
        """Notice when it ended, and start it again after a while."""
        code = self._process.poll()
        if code is None:
            return
        if self._ended_s is None:
            self._ended_s = time.monotonic()
            self._thread.join(1.0)
            self.failure = self.failure or f'the training process ended with exit code {code}; see its output'
            _log.error('%s', self.failure)
        if not self._fatal and time.monotonic() - self._ended_s >= RESTART_S:
            self.restarts += 1
            self._start()

    def take_weights(self) -> Letter | None:
        """Return the newest weights, once."""
        with self._lock:
            weights, self._weights = self._weights, None
        return weights

    def take_answers(self) -> list[dict[str, Any]]:
        """Return what it answered to commands, once."""
        with self._lock:
            answers, self._answers = self._answers, []
        return answers

    def command(self, word: str) -> bool:
        """Ask for something; return False where there is nobody to ask."""
        try:
            self._channel.send({'command': word})
        except ChannelClosedError:
            return False
        return True

    def close(self) -> None:
        """Tell it to save and end; it may still be saving when this returns. Safe to call twice."""
        self.command('stop')
        try:
            self._process.wait(CLOSE_S)
        except subprocess.TimeoutExpired:
            _log.info('the training process goes on saving, and ends by itself')
        self._channel.close()
        self._thread.join(0.5)

    def _start(self) -> None:
        self._channel, other = Channel.pair()
        with other:
            self._process = subprocess.Popen(
                [sys.executable, '-m', 'hilserl_learner.live.process', str(other.fileno())],
                pass_fds=(other.fileno(),),
                stdin=subprocess.DEVNULL,
                start_new_session=True,  # an interrupt from the terminal is for the node
            )
        self._ended_s, self.failure = None, ''
        self._heard_s = time.monotonic()
        self._channel.send(self._setup)
        self._thread = threading.Thread(
            target=self._listen, args=(self._channel,), name='train_child', daemon=True
        )
        self._thread.start()

    def _listen(self, channel: Channel) -> None:
        while True:
            try:
                letters = channel.receive(None)
            except ChannelClosedError:
                return
            self._heard_s = time.monotonic()
            with self._lock:
                for letter in letters:
                    kind = letter.header['kind']
                    if kind == 'weights':
                        self._weights = letter
                    elif kind == 'status':
                        self.status = letter.header
                    elif kind == 'failed':
                        self.failure, self._fatal = letter.header['text'], True
                    else:
                        self._answers.append(letter.header)

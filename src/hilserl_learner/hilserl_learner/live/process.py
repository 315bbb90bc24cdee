# SPDX-License-Identifier: Apache-2.0
"""The process that trains beside learner_node: `python -m hilserl_learner.live.process FD`.

The node hands it one end of a socket pair. It gets its configuration and commands from there, and gives weights
and status back. It ends when the node does, however that ends.
"""

from collections.abc import Mapping
import contextlib
import fcntl
import json
import logging
from pathlib import Path
import select
import signal
import socket
import struct
import subprocess
import sys
import threading
import time
from typing import Any, NamedTuple

from hilserl_learner.errors import LearnerError

_HEAD = struct.Struct('<II')
_MAX_BYTES = 2**30
_CHUNK = 2**20


class ChannelClosedError(LearnerError):
    """The other process is gone."""


class Letter(NamedTuple):
    """One message: what it says, and bytes that belong to it."""

    header: dict[str, Any]
    payload: bytes


class Channel:
    """One end. Any thread may send; one thread receives."""

    def __init__(self, end: socket.socket) -> None:
        self._socket = end
        self._lock = threading.Lock()
        self._buffer = bytearray()

    @classmethod
    def pair(cls) -> tuple['Channel', socket.socket]:
        """Return this process's end, and the socket to hand to the other one."""
        mine, other = socket.socketpair()
        return cls(mine), other

    def send(self, header: Mapping[str, Any], payload: bytes = b'') -> None:
        """Send a message, waiting for room.

        Raises:
            ChannelClosedError: nobody is there to receive it.
        """
        text = json.dumps(header).encode()
        try:
            with self._lock:
                self._socket.sendall(_HEAD.pack(len(text), len(payload)) + text)
                if payload:
                    self._socket.sendall(payload)
        except OSError as error:
            raise _gone() from error

    def receive(self, timeout_s: float | None) -> list[Letter]:
        """Return the messages that have come, after waiting for the first one for some time at most.

        Args:
            timeout_s: how long [s]; None for as long as it takes.

        Raises:
            ChannelClosedError: the other end is closed and everything was received.
        """
        letters = self._take()
        while not letters:
            try:
                ready, _, _ = select.select([self._socket], [], [], timeout_s)
                if not ready:
                    return []
                data = self._socket.recv(_CHUNK)
            except (OSError, ValueError) as error:
                raise _gone() from error
            if not data:
                raise _gone()
            self._buffer += data
            letters = self._take()
            timeout_s = None if timeout_s is None else max(timeout_s, 0.001)
        return letters

    def close(self) -> None:
        """Close this end; the other one notices. A thread that waits here wakes up."""
        with contextlib.suppress(OSError):  # the other end is closed already
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()

    def _take(self) -> list[Letter]:
        letters = []
        while len(self._buffer) >= _HEAD.size:
            text, payload = _HEAD.unpack_from(self._buffer)
            if max(text, payload) > _MAX_BYTES:
                raise ChannelClosedError(
                    f'expected messages up to {_MAX_BYTES} B, got one of {text + payload} B'
                )
            end = _HEAD.size + text + payload
            if len(self._buffer) < end:
                break
            header = json.loads(self._buffer[_HEAD.size : _HEAD.size + text])
            letters.append(Letter(header, bytes(self._buffer[_HEAD.size + text : end])))
            del self._buffer[:end]
        return letters


def _gone() -> ChannelClosedError:
    return ChannelClosedError('expected the other process at its end of the channel, got none; it has ended')


LOCK = 'learner.lock'
_PATIENCE_S = 20.0
_IDLE_S = 0.02
_log = logging.getLogger(__name__)


class DirectoryLock:
    """Keeps a second learner out of a run's directory; the system lets go of it when the process ends."""

    def __init__(self, path: Path, *, patience_s: float = _PATIENCE_S) -> None:
        """Wait for the lock.

        Args:
            path: of the lock file.
            patience_s: how long a predecessor may take to end [s].

        Raises:
            LearnerError: somebody else works there.
        """
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file = path.open('w')
        deadline = time.monotonic() + patience_s
        while True:
            try:
                fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError:
                if time.monotonic() > deadline:
                    self._file.close()
                    raise LearnerError(
                        f'expected nobody else to work in {path.parent}, got another learner; '
                        f'stop it, or name another directory'
                    ) from None
                time.sleep(0.05)

    def close(self) -> None:
        """Let go of it."""
        self._file.close()


def run(channel: Channel, setup: Mapping[str, Any]) -> int:
    """Train until the node is gone or says stop; return the exit code."""
    from hilserl_learner.live.config import LearnerConfig
    from hilserl_learner.live.trainer import LiveTrainer
    from hilserl_learner.training.trainer import prepare_cpu, TrainerConfig
    from so101_interfaces_py.params import from_mapping

    def tell(header: Mapping[str, Any], payload: bytes) -> None:
        with contextlib.suppress(
            ChannelClosedError
        ):  # receiving notices it too, and then everything is saved
            channel.send(header, payload)

    lock = None
    try:
        config = from_mapping(LearnerConfig, setup['learner'])
        prepare_cpu(config.threads)
        lock = DirectoryLock(config.run / LOCK)
        trainer = LiveTrainer(config, from_mapping(TrainerConfig, setup['trainer']), setup['agent'], tell)
    except (ValueError, OSError) as error:
        tell({'kind': 'failed', 'text': str(error)}, b'')
        if lock is not None:
            lock.close()
        return 1
    busy = True
    try:
        while True:
            for letter in channel.receive(0.0 if busy else _IDLE_S):
                if letter.header['command'] == 'stop':
                    return 0
                trainer.command(letter.header)
            busy = trainer.round()
    except ChannelClosedError:
        _log.warning('the node is gone: training ends')
        return 0
    finally:
        trainer.close()
        lock.close()


def main(argv: list[str] | None = None) -> int:
    """Run the process."""
    arguments = sys.argv[1:] if argv is None else argv
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)  # the node says when it is over
    logging.basicConfig(level=logging.INFO, format='train_process: %(message)s', stream=sys.stderr)
    channel = Channel(socket.socket(fileno=int(arguments[0])))
    try:
        (letter, *_) = channel.receive(None)
    except ChannelClosedError:
        return 1
    if letter.header['learner']['yields']:
        from hilserl_learner.training.trainer import step_back

        step_back()
    return run(channel, letter.header)


if __name__ == '__main__':
    sys.exit(main())


RESTART_S = 3.0
"""Time before a training process that ended by itself is started again [s]."""

CLOSE_S = 0.5
"""How long the node waits for its end [s]; a node that takes longer is killed by whoever started it."""

SILENT_S = 30.0
"""A training process that tells nothing for so long hangs, or has far too little of the processor [s]."""


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

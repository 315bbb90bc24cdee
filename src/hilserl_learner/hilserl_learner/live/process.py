# SPDX-License-Identifier: Apache-2.0
"""The process that trains beside learner_node, and the node's handle on it.

The node starts `python -m hilserl_learner.live.process FD` with one end of a pipe. The process gets its configuration
and commands from there, and gives weights and status back. It ends when the node does, however that ends; when it ends
by itself, the node starts it again.
"""

from collections.abc import Mapping
import contextlib
import fcntl
import json
import logging
from multiprocessing.connection import Connection, Pipe
import os
from pathlib import Path
import signal
import socket
import subprocess
import sys
import threading
import time
from typing import Any, NamedTuple

from hilserl_learner.errors import LearnerError
from so101_interfaces_py.endings import leave

LOCK = 'learner.lock'

RESTART_S = 3.0
"""Time before a training process that ended by itself is started again [s]."""

CLOSE_S = 0.5
"""How long the node waits for its end [s]; a node that takes longer is killed by whoever started it."""

SILENT_S = 30.0
"""A training process that tells nothing for so long hangs, or has far too little of the processor [s]."""

_MAX_BYTES = 2**30
_PATIENCE_S = 20.0
_IDLE_S = 0.02
_log = logging.getLogger(__name__)


class ChannelClosedError(LearnerError):
    """The other process is gone."""


class Message(NamedTuple):
    """What one side tells the other: a JSON object, and bytes that belong to it."""

    header: dict[str, Any]
    payload: bytes


class Channel:
    """One end of a pipe of messages; nothing is ever unpickled. Any thread may send; one thread receives."""

    def __init__(self, end: Connection) -> None:
        self._end = end
        self._lock = threading.Lock()

    @classmethod
    def pair(cls) -> tuple['Channel', Connection]:
        """Return this process's end, and the connection to hand to the other one."""
        mine, other = Pipe()
        return cls(mine), other

    def send(self, header: Mapping[str, Any], payload: bytes = b'') -> None:
        """Send a message, waiting for room.

        Raises:
            ChannelClosedError: nobody is there to receive it.
        """
        text = json.dumps(header).encode()
        try:
            with self._lock:
                self._end.send_bytes(text)
                self._end.send_bytes(payload)
        except OSError as error:
            raise _gone() from error

    def receive(self, timeout_s: float | None) -> list[Message]:
        """Return the messages that have come, after waiting for the first one for some time at most.

        Args:
            timeout_s: how long [s]; None for as long as it takes.

        Raises:
            ChannelClosedError: the other end is closed and everything was received.
        """
        messages: list[Message] = []
        try:
            while self._end.poll(0.0 if messages else timeout_s):
                header = json.loads(self._end.recv_bytes(_MAX_BYTES))
                messages.append(Message(header, self._end.recv_bytes(_MAX_BYTES)))
        except (OSError, EOFError) as error:
            if not messages:
                raise _gone() from error
        return messages

    def close(self) -> None:
        """End the conversation: the other side notices, and a thread that waits here wakes up.

        The handle itself goes with this object, since that thread may still be about to read from it.
        """
        with socket.socket(fileno=os.dup(self._end.fileno())) as end, contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)  # fails where the other end is closed already


def _gone() -> ChannelClosedError:
    return ChannelClosedError('expected the other process at its end of the channel, got none; it has ended')


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


class TrainingProcess:
    """Owns the training process. `tick` is called now and then; nothing here waits for it except `close`.

    Attributes:
        status: the latest status that it told; empty before the first.
        failure: why it is not running; empty while it is.
        restarts: how often it was started again.
    """

    def __init__(self, setup: Mapping[str, Any]) -> None:
        """Start it.

        Args:
            setup: its configuration, see `run`.
        """
        self.status: dict[str, Any] = {}
        self.failure = ''
        self.restarts = 0
        self._setup = dict(setup)
        self._lock = threading.Lock()
        self._weights: Message | None = None
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

    def take_weights(self) -> Message | None:
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
            target=self._listen, args=(self._channel,), name='training_process', daemon=True
        )
        self._thread.start()

    def _listen(self, channel: Channel) -> None:
        while True:
            try:
                messages = channel.receive(None)
            except ChannelClosedError:
                return
            self._heard_s = time.monotonic()
            with self._lock:
                for message in messages:
                    kind = message.header['kind']
                    if kind == 'weights':
                        self._weights = message
                    elif kind == 'status':
                        self.status = message.header
                    elif kind == 'failed':
                        self.failure, self._fatal = message.header['text'], True
                    else:
                        self._answers.append(message.header)


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
            for message in channel.receive(0.0 if busy else _IDLE_S):
                if message.header['command'] == 'stop':
                    return 0
                trainer.command(message.header)
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
    logging.basicConfig(level=logging.INFO, format='training process: %(message)s', stream=sys.stderr)
    channel = Channel(Connection(int(arguments[0])))
    try:
        (message, *_) = channel.receive(None)
    except ChannelClosedError:
        return 1
    if message.header['learner']['yields']:
        from hilserl_learner.training.trainer import step_back

        step_back()
    return run(channel, message.header)


if __name__ == '__main__':
    leave(main())

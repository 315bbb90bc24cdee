# SPDX-License-Identifier: Apache-2.0
"""The process that trains beside learner_node: `python -m hilserl_learner.live.process FD`.

The node hands it one end of a socket pair. It gets its configuration and commands from there, and gives weights
and status back. It ends when the node does, however that ends.
"""

from collections.abc import Mapping
import contextlib
import fcntl
import logging
from pathlib import Path
import signal
import socket
import sys
import time
from typing import Any

from hilserl_learner.channel import Channel, ChannelClosedError
from hilserl_learner.errors import LearnerError

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
    from hilserl_learner.cpu import prepare_cpu
    from hilserl_learner.live.config import LearnerConfig
    from hilserl_learner.live.trainer import LiveTrainer
    from hilserl_learner.training.trainer import TrainerConfig
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
        from hilserl_learner.cpu import step_back

        step_back()
    return run(channel, letter.header)


if __name__ == '__main__':
    sys.exit(main())

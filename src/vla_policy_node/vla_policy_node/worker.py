# SPDX-License-Identifier: Apache-2.0
"""The thread that waits for the server, so that the control clock does not.

It keeps greeting until a server answers, then does one thing at a time: a chunk for what was seen, or the news of
another episode. The node gives it a job where it is idle, and takes what came of it between two of its own callbacks.
Nothing of a job is kept that was given up: what comes for an older episode is thrown away by whoever takes it.
"""

from collections import deque
from contextlib import suppress
from dataclasses import dataclass
import threading
import time

from so101_contract.errors import ContractError
from vla_policy_node.client import PolicyServer, RefusalError
from vla_policy_node.protocol import FloatArray, Offer, Seen

RETRY_S = 1.0
"""Between two attempts to find the server [s]."""

MOST_NEWS = 16


@dataclass(frozen=True, eq=False)
class Job:
    """What is asked of the server.

    Attributes:
        episode: that it belongs to.
        stamp_ns: of the observation [ns].
        measured: joints (6,) that it shows [rad].
        seen: the observation in the server's words.
        fresh: the server is told of a new episode first.
    """

    episode: int
    stamp_ns: int
    measured: FloatArray
    seen: Seen
    fresh: bool = False


@dataclass(frozen=True, eq=False)
class News:
    """What came of the server.

    Attributes:
        offer: what it offers, where it has just been found.
        job: what was asked.
        targets: the answer (n, 6) in the server's units.
        latency_s: from the question to the answer [s].
        trouble: why there is none, a sentence; empty where there is.
    """

    offer: Offer | None = None
    job: Job | None = None
    targets: FloatArray | None = None
    latency_s: float = 0.0
    trouble: str = ''


class Worker:
    """Asks one server, in a thread of its own."""

    def __init__(self, server: PolicyServer) -> None:
        self._server = server
        self._job: Job | None = None
        self._busy = self._closed = False
        self._news: deque[News] = deque(maxlen=MOST_NEWS)
        self._wake = threading.Condition()
        self._thread = threading.Thread(target=self._run, name='policy-server', daemon=True)
        self._thread.start()

    @property
    def busy(self) -> bool:
        """Whether it waits for an answer, or has no server yet."""
        return self._busy or self._job is not None

    def ask(self, job: Job) -> None:
        """Give it a job; only where it is not busy."""
        with self._wake:
            self._job = job
            self._wake.notify()

    def take(self) -> News | None:
        """Return the oldest news, or None."""
        return self._news.popleft() if self._news else None

    def close(self) -> None:
        """End the thread; an answer that it waits for is not waited for."""
        with self._wake:
            self._closed = True
            self._wake.notify()

    def _run(self) -> None:
        while not self._closed:
            self._busy = True
            if self._greet():
                self._work()
            else:
                self._pause()
        self._server.close()

    def _greet(self) -> bool:
        try:
            self._news.append(News(offer=self._server.greet()))
        except ContractError as error:
            self._news.append(News(trouble=str(error)))
            return False
        return True

    def _work(self) -> None:
        """Do jobs until one fails."""
        while not self._closed:
            with self._wake:
                self._busy = False
                self._wake.wait_for(lambda: self._job is not None or self._closed)
                job, self._job, self._busy = self._job, None, True
            if job is not None and not self._do(job):
                return

    def _do(self, job: Job) -> bool:
        began = time.monotonic()
        try:
            if job.fresh:
                with suppress(RefusalError):  # a server that knows no episodes is as good
                    self._server.reset()
            targets = self._server.targets(job.seen)
        except ContractError as error:
            self._news.append(News(job=job, trouble=str(error), latency_s=time.monotonic() - began))
            return False
        self._news.append(News(job=job, targets=targets, latency_s=time.monotonic() - began))
        return True

    def _pause(self) -> None:
        with self._wake:
            self._wake.wait_for(lambda: self._closed, RETRY_S)

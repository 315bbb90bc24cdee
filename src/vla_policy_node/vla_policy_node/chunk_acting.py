# SPDX-License-Identifier: Apache-2.0
"""A policy behind a socket answers steps: chunks are asked for ahead, and each step takes its target from them.

    acting.sight.add_picture(...)        # beside the assembler
    acting.begin(step, now_ns); acting.decide(now_ns, age_ns)

A server that is quick enough is waited for within the step, so that its answer is to what is seen now; a slow one never
is. Where there is no target (the server is gone, late, or says what no good policy says) the step stays unanswered:
the arm holds, with the reason.
"""

from collections import deque
from collections.abc import Mapping
from typing import Any

import numpy as np

from drqv2_policy_node.answering import Answer, Answering, Hold, HoldReason
from so101_contract.action import ActionSpec
from so101_contract.assembly import Assembler
from so101_contract.errors import ContractError
from so101_contract.messages import StepRecord
from so101_contract.session import NO_EPISODE
from vla_policy_node.chunks import Chunk, ChunkError, Plausibility, Timeline
from vla_policy_node.path import EePath, FloatArray
from vla_policy_node.protocol import Offer
from vla_policy_node.sight import Sight
from vla_policy_node.worker import Job, News, Worker

RECENT = 20
"""Answers that tell how quick the server is."""

HOLDS_TO_START_OVER = 2
"""After so many steps without an action the controller starts over from the measured TCP, and so does the path."""

FIRST = 'its first chunk of the episode is on the way'
USED_UP = 'its chunk is used up, and the next one has not come'


class ChunkActing(Answering):
    """Has a server's chunks answer the steps.

    Attributes:
        sight: what the server is shown; whoever receives joints and images pushes them there too.
        timeline: the chunks in use.
        path: from their targets to actions.
        instruction: what the policy is told to do.
        offer: of the server; None while there is none.
        accepted: chunks so far.
        refused: answers that were refused, or never came.
        first_rad: distance of the newest chunk's first target from the arm [rad].
    """

    def __init__(
        self,
        assembler: Assembler,
        worker: Worker,
        *,
        sight: Sight,
        timeline: Timeline,
        path: EePath,
        plausibility: Plausibility,
        spec: ActionSpec,
        step_ns: int,
        cameras: Mapping[str, str],
        **how: Any,
    ) -> None:
        """Prepare.

        Args:
            assembler: of what the session observes.
            worker: asks the server.
            sight: what it is shown.
            timeline: for its chunks.
            path: from targets to actions.
            plausibility: what a chunk may ask for.
            spec: of the actions.
            step_ns: length of a step [ns].
            cameras: our camera for each of the server's, as far as somebody has said it.
            how: `timing` and `mode` of `Answering`.
        """
        super().__init__(assembler, **how)
        self.sight, self.timeline, self.path = sight, timeline, path
        self.instruction = ''
        self.offer: Offer | None = None
        self.accepted = self.refused = 0
        self.first_rad = float('nan')
        self._worker, self._plausibility, self._spec = worker, plausibility, spec
        self._step_ns, self._cameras = step_ns, cameras
        self._latencies: deque[float] = deque(maxlen=RECENT)
        self._episode, self._fresh, self._holds = NO_EPISODE, False, 0
        self._asked: StepRecord | None = None  # the newest step with whose observation a chunk was asked for
        self._absent = ''  # why there is no server
        self._complaint = ''  # what its last answer lacked
        self._doubt = ''  # why it may not begin

    @property
    def ready(self) -> bool:
        """Whether there is a server."""
        return self.offer is not None

    @property
    def standing(self) -> tuple[HoldReason, str] | None:
        """Why no step is answered; a server whose very first targets are implausible is not asked again."""
        return super().standing or ((HoldReason.REFUSED, self._doubt) if self._doubt else None)

    @property
    def trouble(self) -> str:
        """What the server, or its last answer, lacks; empty where it lacks nothing."""
        return self._absent or self._complaint

    def latency_s(self, percent: float) -> float:
        """Return a percentile of the last latencies [s]; NaN before the first."""
        return float(np.percentile(list(self._latencies), percent)) if self._latencies else float('nan')

    def take_news(self, now_ns: int) -> None:
        """Take what came of the server, at a time on the clock of the steps [ns]."""
        while (news := self._worker.take()) is not None:
            if news.offer is not None:
                self._found(news.offer)
            elif news.targets is None or news.job is None:
                self._failed(news)
            elif news.job.episode == self._episode:
                self._latencies.append(news.latency_s)
                self._came(news.job, news.targets, now_ns)
        self.waiting_for = self.trouble or 'looking for the server'

    def driven_by_other(self) -> None:
        """Take note that another one has moved the arm in this step."""
        self.path.start_over()
        self.timeline.forget_older()

    def _found(self, offer: Offer) -> None:
        try:
            self.sight.fit(offer, self._cameras)
        except ContractError as error:
            self.offer, self._absent = None, str(error)
            return
        self.offer, self._absent, self._fresh = offer, '', True

    def _failed(self, news: News) -> None:
        if news.job is None:
            self.offer, self._absent = None, news.trouble
        else:
            self._complaint = news.trouble
            self.refused += 1
            self.timeline.took(late=True)

    def _came(self, job: Job, said: FloatArray, now_ns: int) -> None:
        """Take a chunk, or say why not."""
        try:
            targets = self._plausibility.targets(said, job.measured)
        except ChunkError as error:
            self.refused += 1
            self._complaint = str(error)
            self._doubt = '' if self.accepted else self._complaint
            return
        self.accepted += 1
        self._complaint = ''
        self.first_rad = float(self._plausibility.distances(said, job.measured).max())
        pace = self.timeline.pace
        self.timeline.add(Chunk(self.accepted, job.stamp_ns, pace.period_ns, targets), now_ns)

    def _act(self, step: StepRecord, age_ns: int) -> Answer | Hold | None:
        now_ns = step.stamp_ns + age_ns
        if step.episode != self._episode:
            self._begin_episode(step.episode)
        self.take_news(now_ns)
        measured = self.sight.measured(step)
        if measured is None:
            return Hold(step, HoldReason.MISSING, 'the joint reading is gone')
        self._ask(step, measured)
        if self._worth_waiting(step, age_ns):
            return None
        target = self.timeline.target(now_ns, step.stamp_ns + self._step_ns)
        if target is None:
            return self._no_target(step)
        self._holds = 0
        value = self.path.action(target, measured)
        return Answer(
            step=step,
            action=self._spec.from_wire(value.translation, value.opening).values,
            wire=value,
            frame_id=self._spec.frame_id,
            input_ns=self._input_age_ns(step, age_ns),
        )

    def _begin_episode(self, episode: int) -> None:
        self._episode, self._fresh, self._holds = episode, True, 0
        self.timeline.clear()
        self.path.start_over()

    def _ask(self, step: StepRecord, measured: FloatArray) -> None:
        """Ask for a chunk, once with the observation of a step at most, where one is due and the worker idle."""
        offer = self.offer
        if offer is None or self._worker.busy or self._asked is step:
            return
        expected_s = self.latency_s(50) if self._latencies else 0.0
        if not self.timeline.wants(step.stamp_ns, expected_s):
            return
        seen = self.sight.seen(step, offer, self.instruction)
        if seen is not None:
            self._asked = step
            self._worker.ask(Job(step.episode, step.stamp_ns, measured, seen, self._fresh))
            self._fresh = False

    def _worth_waiting(self, step: StepRecord, age_ns: int) -> bool:
        """Whether an answer to the observation of this very step is about to come."""
        wait_ns = self._step_ns // 2  # an action needs the rest of the step to be carried out
        if self._asked is not step or not self._worker.busy or age_ns >= wait_ns:
            return False
        return not self._latencies or self.latency_s(95) * 1e9 < wait_ns

    def _no_target(self, step: StepRecord) -> Hold:
        self._holds += 1
        if self._holds >= HOLDS_TO_START_OVER:
            self.path.start_over()
        why = self.trouble or (FIRST if self.timeline.latest is None else USED_UP)
        return Hold(step, HoldReason.NO_TARGET, why)

# SPDX-License-Identifier: Apache-2.0
"""What people ask a session for, as services."""

from collections.abc import Callable
from functools import partial
from typing import Any

from so101_interfaces.srv import EndEpisode, StartEpisode
from std_srvs.srv import SetBool, Trigger

from so101_contract.session import Outcome
from so101_interfaces_py import topics
from so101_session.session.episode import SessionError
from so101_session.session.machine import Effect, Session

LABELS = frozenset({Outcome.SUCCESS, Outcome.FAILURE, Outcome.DISCARD, Outcome.TIME_LIMIT})
"""What a human may call an episode; an abort is the session's own word."""


class SessionServices:
    """Passes requests on and answers with a sentence where something is refused."""

    def __init__(
        self, node: Any, session: Session, do: Callable[[list[Effect]], None], now: Callable[[], float]
    ) -> None:
        """Offer the services on a node; `do` carries out what the session wants, `now` is its time [s]."""
        self._session, self._do, self._now = session, do, now
        node.create_service(StartEpisode, topics.START_EPISODE_SERVICE, self._start)
        node.create_service(EndEpisode, topics.END_EPISODE_SERVICE, self._end)
        node.create_service(SetBool, topics.INTERVENE_SERVICE, self._intervene)
        node.create_service(SetBool, topics.PAUSE_SERVICE, self._pause)
        node.create_service(Trigger, topics.SUCCESS_NOW_SERVICE, partial(self._see, True))
        node.create_service(Trigger, topics.NOT_YET_SERVICE, partial(self._see, False))
        node.create_service(Trigger, topics.RESET_SERVICE, self._reset)

    def _start(self, request: Any, response: Any) -> Any:
        def start() -> None:
            response.episode = self._session.start_episode(request.skip_reset)

        return _answer(response, start)

    def _end(self, request: Any, response: Any) -> Any:
        if request.outcome not in LABELS:
            response.message = (
                f'expected an outcome out of {sorted(LABELS)} (EndEpisode.srv), got {request.outcome}'
            )
            return response
        outcome, number, reason = Outcome(request.outcome), request.episode, request.reason
        return _answer(response, lambda: self._do(self._session.end_episode(outcome, number, reason)))

    def _intervene(self, request: Any, response: Any) -> Any:
        said = 'the human takes over' if request.data else 'the human gives back'
        return _answer(response, lambda: self._do(self._session.intervene(request.data, self._now())), said)

    def _pause(self, request: Any, response: Any) -> Any:
        self._session.paused = request.data
        response.success = True
        response.message = 'pausing after this step' if request.data else 'going on'
        return response

    def _see(self, success: bool, _: Any, response: Any) -> Any:
        return _answer(response, lambda: self._do(self._session.see(success)))

    def _reset(self, _: Any, response: Any) -> Any:
        return _answer(response, self._session.reset_scene, 'the arm goes back to the start')


def _answer(response: Any, ask: Callable[[], object], message: str = '') -> Any:
    """Ask the session, and say so, or why it refuses."""
    try:
        ask()
    except SessionError as error:
        response.message = str(error)
        return response
    response.success, response.message = True, message
    return response

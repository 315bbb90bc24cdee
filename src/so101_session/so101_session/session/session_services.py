# SPDX-License-Identifier: Apache-2.0
"""What people ask the session for, as services."""

from collections.abc import Callable
import time
from typing import Any

from so101_interfaces.srv import EndEpisode, StartEpisode
from std_srvs.srv import SetBool, Trigger

from so101_contract.episodes import Outcome
from so101_interfaces_py import topics
from so101_session.session.effects import Effect
from so101_session.session.errors import SessionError
from so101_session.session.machine import Session

LABELS = frozenset({Outcome.SUCCESS, Outcome.FAILURE, Outcome.DISCARD, Outcome.TIME_LIMIT})
"""What a person may call an episode; an abort is the session's own word."""


class SessionServices:
    """Passes requests on and answers with a sentence where something is refused."""

    def __init__(self, node: Any, session: Session, do: Callable[[list[Effect]], None]) -> None:
        """Offer the services on a node; `do` carries out what the session wants."""
        self._session, self._do = session, do
        node.create_service(StartEpisode, topics.START_EPISODE_SERVICE, self._start)
        node.create_service(EndEpisode, topics.END_EPISODE_SERVICE, self._end)
        node.create_service(SetBool, topics.INTERVENE_SERVICE, self._intervene)
        node.create_service(SetBool, topics.PAUSE_SERVICE, self._pause)
        node.create_service(Trigger, topics.RESET_SERVICE, self._reset)

    def _start(self, request: Any, response: Any) -> Any:
        try:
            response.episode = self._session.start_episode(request.skip_reset)
        except SessionError as error:
            response.message = str(error)
            return response
        response.success = True
        return response

    def _end(self, request: Any, response: Any) -> Any:
        if request.outcome not in LABELS:
            response.message = (
                f'expected an outcome out of {sorted(LABELS)} (EndEpisode.srv), got {request.outcome}'
            )
            return response
        try:
            self._do(self._session.end_episode(Outcome(request.outcome), request.episode, request.reason))
        except SessionError as error:
            response.message = str(error)
            return response
        response.success = True
        return response

    def _intervene(self, request: Any, response: Any) -> Any:
        self._do(self._session.intervene(request.data, time.monotonic()))
        response.success = True
        response.message = 'the person takes over' if request.data else 'the person gives back'
        return response

    def _pause(self, request: Any, response: Any) -> Any:
        self._session.paused = request.data
        response.success = True
        response.message = 'pausing after this step' if request.data else 'going on'
        return response

    def _reset(self, _: Any, response: Any) -> Any:
        try:
            self._session.reset_scene()
        except SessionError as error:
            response.message = str(error)
            return response
        response.success, response.message = True, 'the arm goes back to the start'
        return response

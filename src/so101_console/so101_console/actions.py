# SPDX-License-Identifier: Apache-2.0
"""What the buttons do: one service call each, made in the thread that spins the node."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from rclpy.node import Node
from rclpy.task import Future
from so101_interfaces.srv import EndEpisode, StartEpisode
from std_srvs.srv import SetBool, Trigger

from so101_interfaces_py import topics

Say = Callable[[str], None]


@dataclass(frozen=True)
class Action:
    """One button.

    Attributes:
        service: Its name.
        kind: Its type.
        fields: Of the request.
    """

    service: str
    kind: type[Any]
    fields: Mapping[str, Any] = field(default_factory=dict)


ACTIONS: Mapping[str, Action] = {
    'e_stop': Action(topics.ARM_E_STOP_SERVICE, SetBool, {'data': True}),
    'take': Action(topics.INTERVENE_SERVICE, SetBool, {'data': True}),
    'give': Action(topics.INTERVENE_SERVICE, SetBool, {'data': False}),
    'success': Action(topics.END_EPISODE_SERVICE, EndEpisode, {'outcome': EndEpisode.Request.SUCCESS}),
    'failure': Action(topics.END_EPISODE_SERVICE, EndEpisode, {'outcome': EndEpisode.Request.FAILURE}),
    'discard': Action(topics.END_EPISODE_SERVICE, EndEpisode, {'outcome': EndEpisode.Request.DISCARD}),
    'start': Action(topics.START_EPISODE_SERVICE, StartEpisode),
    'reset': Action(topics.RESET_SERVICE, Trigger),
    'enable': Action(topics.ARM_ENABLE_SERVICE, SetBool, {'data': True}),
    'release': Action(topics.ARM_ENABLE_SERVICE, SetBool, {'data': False}),
    'park': Action(topics.ARM_PARK_SERVICE, Trigger),
    'clear': Action(topics.ARM_E_STOP_SERVICE, SetBool, {'data': False}),
    'clear_fault': Action(topics.ARM_CLEAR_FAULT_SERVICE, Trigger),
    'pause': Action(topics.PAUSE_SERVICE, SetBool, {'data': True}),
    'resume': Action(topics.PAUSE_SERVICE, SetBool, {'data': False}),
}


class Actions:
    """The clients of a node, one for each service."""

    def __init__(self, node: Node, say: Say) -> None:
        self._node = node
        self._say = say
        self._clients = {name: node.create_client(a.kind, a.service) for name, a in _services().items()}

    def ask(self, name: str) -> None:
        """Call the service of a button; its answer is said where it is a refusal."""
        action = ACTIONS[name]
        client = self._clients[action.service]
        if not client.service_is_ready():
            self._say(f'Nobody offers {action.service}: the node that does is not running.')
            return
        request = action.kind.Request(**action.fields)
        client.call_async(request).add_done_callback(lambda future: self._answered(name, future))

    def _answered(self, name: str, future: Future) -> None:
        response = future.result()
        if response is not None and not response.success:
            self._say(
                f'{name.replace("_", " ").capitalize()}: {response.message or "refused without a reason"}'
            )


def _services() -> dict[str, Action]:
    return {action.service: action for action in ACTIONS.values()}

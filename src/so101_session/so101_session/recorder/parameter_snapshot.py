# SPDX-License-Identifier: Apache-2.0
"""Asks every node of the graph for its parameters, once, so that a bag tells how it came about."""

from collections.abc import Callable, Iterable, Mapping
import json
from typing import Any

from rcl_interfaces.srv import GetParameters, ListParameters
from rclpy.node import Node
from rclpy.parameter import parameter_value_to_python

Tell = Callable[[str, Mapping[str, str]], None]


class ParameterSnapshot:
    """Answers come when they come; nothing waits for them."""

    def __init__(self, node: Node, namespaces: Iterable[str], tell: Tell) -> None:
        """Prepare.

        Args:
            node: whose executor carries the requests.
            namespaces: in which to ask, each with a slash in front.
            tell: called with the name of a node and its parameters as JSON values.
        """
        self._node, self._namespaces, self._tell = node, set(namespaces), tell
        self._asked: dict[str, Any] = {}

    def look(self) -> None:
        """Ask the nodes that were not asked yet."""
        for name, namespace in self._node.get_node_names_and_namespaces():
            if namespace not in self._namespaces or name.startswith('_'):
                continue
            full = f'{namespace.rstrip("/")}/{name}'
            if full not in self._asked:
                self._asked[full] = self._node.create_client(ListParameters, f'{full}/list_parameters')
            client = self._asked[full]
            if client is not None and client.service_is_ready():
                self._asked[full] = None
                self._list(full, client)

    def _list(self, full: str, client: Any) -> None:
        def listed(future: Any) -> None:
            self._node.destroy_client(client)
            answer = future.result()
            if answer is not None and answer.result.names:
                self._get(full, list(answer.result.names))

        client.call_async(ListParameters.Request()).add_done_callback(listed)

    def _get(self, full: str, names: list[str]) -> None:
        client = self._node.create_client(GetParameters, f'{full}/get_parameters')

        def got(future: Any) -> None:
            self._node.destroy_client(client)
            answer = future.result()
            if answer is not None:
                values = map(parameter_value_to_python, answer.values)
                self._tell(full, {name: _text(value) for name, value in zip(names, values, strict=False)})

        client.call_async(GetParameters.Request(names=names)).add_done_callback(got)


def _text(value: Any) -> str:
    # Arrays come as array.array, byte arrays as bytes.
    return json.dumps(
        value, default=lambda array: [str(item) if isinstance(item, bytes) else item for item in array]
    )

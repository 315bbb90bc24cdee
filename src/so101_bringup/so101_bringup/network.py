# SPDX-License-Identifier: Apache-2.0
"""From which machines the nodes of a stack can be reached, and whether they may start beside what runs already."""

from collections.abc import Mapping, Sequence
import os
import socket

from so101_bringup.options import OptionError, Options
from so101_bringup.programs import NodeSpec
from so101_interfaces_py import graph


def environment(options: Options, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the variables that decide from which machines the nodes can be reached.

    Raises:
        OptionError: network:= names a machine that is not known here.
    """
    network = str(options['network'])
    if network not in (graph.LOOPBACK, graph.LAN):
        for name in network.split(','):
            try:
                socket.getaddrinfo(name.strip() or '?', None, socket.AF_INET)
            except (OSError, UnicodeError) as error:
                raise OptionError(
                    f'network:={network}: expected loopback, lan, or addresses of machines with commas between; '
                    f'{name!r} is not one ({error}).'
                ) from error
    return graph.variables(network, environ)


def network_notes(options: Options, environ: Mapping[str, str] = os.environ) -> list[str]:
    """Return what must be said of the network before anything starts, in sentences."""
    network, asked = str(options['network']), environ.get(graph.RANGE, 'LOCALHOST')
    notes = []
    if network != graph.LOOPBACK:
        who = 'anybody near' if network == graph.LAN else f'whoever reaches it from the network of {network}'
        keys = 'and has keys ' if options['security'] else ''
        notes.append(
            f'the graph is open: {who} with ROS 2 {keys}can move the arm, clear its e-stop and send it weights; '
            'network:=loopback closes it.'
        )
    elif graph.is_open(environ):
        notes.append(
            f'{graph.RANGE}={asked} {graph.PEERS}={environ.get(graph.PEERS, "")} is not followed: the graph stays on '
            'this machine; network:=lan, or network:= with addresses, opens it.'
        )
    profile = graph.users_profile(environ)
    if profile:
        notes.append(
            f'{graph.PROFILES}={profile} is yours: it decides which interfaces DDS uses, not network:=.'
        )
    return notes


def check_alone(nodes: Sequence[NodeSpec], options: Options) -> None:
    """See whether the nodes may start beside what runs already in the domain; call it before any of them does.

    Raises:
        OptionError: one of them runs already, here or on a machine that the graph reaches.
    """
    from so101_interfaces_py.spin import look_around  # rclpy takes a while to import

    namespace = '/' + str(options['namespace']).strip('/')
    names = {node.name for node in nodes if node.is_ros}
    domain = graph.domain_of()
    try:
        for name in sorted(names):
            graph.check_free(domain, namespace, name)
    except graph.TakenError as error:
        raise OptionError(f'nothing is started: {error}') from error
    # Who has not claimed its name: a node of another machine, or none of ours. With keys, a look needs some too.
    for seen in [] if options['security'] else look_around()[0]:
        if seen.name in names and seen.namespace == namespace:
            raise OptionError(
                f'nothing is started: {seen.label} runs already in ROS domain {domain}, and there may be one; end it '
                f'first, or start this stack with another {graph.DOMAIN} or namespace.'
            )

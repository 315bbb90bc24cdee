# SPDX-License-Identifier: Apache-2.0
"""Who may speak on what moves the arm: a node acts on messages and calls only while nobody else may send them.

Neither a message nor a call tells who sent it; the graph tells who may.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fnmatch import fnmatchcase
import os
import time
from typing import Any, TYPE_CHECKING

from so101_interfaces_py import topics
from so101_interfaces_py.graph import DOMAIN, TakenError, TRUSTED

if TYPE_CHECKING:
    from rclpy.node import Node

UNKNOWN = '_NODE_NAME_UNKNOWN_'
LOOK_S = 1.0
"""How long a finding stands while as many speak as before [s]; `LOOK_AGAIN_S` while one too many does."""
LOOK_AGAIN_S = 0.05
GHOST_S = 30.0
"""For this long DDS may list a participant that was killed; its lease is 20 s."""
PARAMETERS = '/parameter_events'
EPROSIMA = b'\x01\x0f'


@dataclass(frozen=True)
class Voice:
    """Who may speak on a topic, or call a service: each of the family once, and so many others.

    Attributes:
        family: Nodes of the stack.
        others: How many more may speak beside the family; where none of it is there, one always may.
    """

    family: tuple[str, ...]
    others: int = 0


ARM_CALLERS = Voice(('console_node', 'operator_node', 'teleop_node'))
VOICES: Mapping[str, Voice] = {
    topics.JOINT_STATES: Voice(('arm_node',)),
    topics.ARM_STATUS: Voice(('arm_node',)),
    topics.JOINT_COMMAND: Voice(('kinematics_node', 'session_node', 'operator_node', 'lerobot_node')),
    topics.EE_DELTA_CMD: Voice(('session_node',)),
    topics.STEP: Voice(('session_node',)),
    topics.EPISODE_EVENT: Voice(('session_node',)),
    topics.POLICY_EE_DELTA: Voice(('policy_node',)),
    topics.POLICY_BASE: Voice(('policy_node',)),
    topics.BASE_EE_DELTA: Voice(('vla_policy_node',)),
    # A device of your own is one more; two of them are one too many.
    topics.TELEOP_EE_DELTA: Voice(('console_node', 'operator_node', 'teleop_node'), others=1),
    topics.SUCCESS_OPINION: Voice(('classifier_node',)),
    topics.WEIGHTS: Voice(('learner_node', 'trial_node')),
    topics.ARM_ENABLE_SERVICE: ARM_CALLERS,
    topics.ARM_E_STOP_SERVICE: ARM_CALLERS,
    topics.ARM_CLEAR_FAULT_SERVICE: ARM_CALLERS,
    topics.ARM_PARK_SERVICE: ARM_CALLERS,
}


@dataclass(frozen=True)
class Speaker:
    """A node that may send something."""

    name: str
    namespace: str
    gid: bytes

    def is_on(self, host: bytes) -> bool:
        """Whether it runs on a machine, as `host_of` has it."""
        return host[:2] == EPROSIMA and self.gid[:4] == host

    @property
    def pid(self) -> int:
        """The lower 16 bits of its process's number, where Fast DDS made the identifier."""
        return int.from_bytes(self.gid[4:6], 'little')

    @property
    def process(self) -> bytes:
        """Which machine and process it is, as DDS has it."""
        return self.gid[:12]

    @property
    def label(self) -> str:
        """Name with its namespace."""
        return f'{self.namespace.rstrip("/")}/{self.name}'


def _speakers(node: 'Node', name: str, as_dds: bool = False) -> list[Speaker]:
    found = node.get_publishers_info_by_topic(name, as_dds)
    return [Speaker(f.node_name, f.node_namespace, bytes(f.endpoint_gid)) for f in found]


def nodes_of(node: 'Node') -> list[Speaker]:
    """Return every other node that a node knows of: each has a topic for its parameters."""
    known = [s for s in _speakers(node, PARAMETERS) if s.name != UNKNOWN]
    return [s for s in known if (s.name, s.namespace) != _own(node)]


def host_of(node: 'Node') -> bytes:
    """Return what Fast DDS's identifiers on this machine begin with: the vendor, and a number of the host."""
    own = (s.gid[:4] for s in _speakers(node, PARAMETERS) if (s.name, s.namespace) == _own(node))
    return next(own, b'')


def check_only_here(node: 'Node') -> None:
    """See whether a node that has its name on this machine has it on the whole network.

    Raises:
        TakenError: another machine has one of that name too.
    """
    host = host_of(node)
    same = [s for s in _speakers(node, PARAMETERS) if (s.name, s.namespace) == _own(node)]
    if any(s.gid[:4] != host for s in same):
        raise TakenError(
            f'{same[0].label} runs already on another machine in ROS domain {node.context.get_domain_id()}, and there '
            f'may be one; end it first, or start this one with another {DOMAIN} or namespace.'
        )


def _own(node: 'Node') -> tuple[str, str]:
    return node.get_name(), node.get_namespace()


def voice_of(topic: str) -> Voice | None:
    """Return who may speak on a topic or call a service, of whichever namespace."""
    return next((voice for name, voice in VOICES.items() if f'/{topic}'.endswith(f'/{name}')), None)


def one_too_many(voice: Voice, speakers: list[Speaker], trusted: tuple[str, ...] = ()) -> list[str]:
    """Return the labels of all that speak, where one too many does; else nothing."""
    nodes = {(s.label, s.process): s for s in speakers}.values()
    family = [s.name for s in nodes if s.name in voice.family]
    others = [s for s in nodes if s.name not in voice.family]
    others = [s for s in others if not any(fnmatchcase(s.name, pattern) for pattern in trusted)]
    allowed = voice.others if family else max(1, voice.others)
    if len(set(family)) == len(family) and len(others) <= allowed:
        return []
    return sorted(s.label for s in nodes)


@dataclass(frozen=True)
class Finding:
    """What a look at a topic has shown: how many publish, how long that stands, and what is wrong, or nothing."""

    number: int | None
    until: float
    sentence: str


class Voices:
    """Lets a node hear what it acts on only while nobody speaks who should not.

    A message does not tell who sent it, so while one too many may speak nothing is heard at all: the arm holds still.
    """

    def __init__(self, node: 'Node') -> None:
        self._node = node
        self._host = host_of(node)
        self._found: dict[str, Finding] = {}
        self._gone: dict[bytes, float] = {}
        self._trusted = tuple(filter(None, os.environ.get(TRUSTED, '').split(',')))

    @property
    def trouble(self) -> str:
        """What is wrong, in a sentence, or nothing."""
        lately = time.monotonic() - LOOK_S
        return next(
            (found.sentence for found in self._found.values() if found.sentence and found.until > lately), ''
        )

    def only(self, topic: str, heard: Callable[[Any], object]) -> Callable[[Any], object]:
        """Wrap the callback of a subscription; where anybody may speak, it stays as it is."""
        if voice_of(topic) is None:
            return heard

        def hear(message: Any) -> None:
            name = self._node.resolve_topic_name(topic)
            number = self._node.count_publishers(name)  # quick enough for each message
            if not self._objection(topic, name, number, as_dds=False):
                heard(message)

        return hear

    def calls(
        self,
        service: str,
        answer: Callable[[Any, Any], Any],
        is_safe: Callable[[Any], bool] = lambda _: False,
    ) -> Callable[[Any, Any], Any]:
        """Wrap the callback of a service; a request that `is_safe` is answered whoever calls."""

        def call(request: Any, response: Any) -> Any:
            if is_safe(request):
                return answer(request, response)
            name = self._node.resolve_service_name(service)
            objection = self._objection(service, f'rq{name}Request', None, as_dds=True)
            if not objection:
                return answer(request, response)
            response.success, response.message = False, objection
            return response

        return call

    def _objection(self, topic: str, name: str, number: int | None, as_dds: bool) -> str:
        """Return why nobody is heard, or nothing."""
        now = time.monotonic()
        before = self._found.get(topic)
        if before is not None and before.number == number and now < before.until and number is not None:
            return before.sentence
        was = '' if before is None else before.sentence
        said = self._look(topic, name, as_dds)
        if said != was and UNKNOWN not in said:  # a name comes a moment after what it publishes
            log = self._node.get_logger()
            log.error(said) if said else log.info(f'{topic}: no more than may speak do, and they are heard.')
        self._found[topic] = Finding(number, now + (LOOK_AGAIN_S if said else LOOK_S), said)
        return said

    def _look(self, topic: str, name: str, as_dds: bool) -> str:
        speakers = _speakers(self._node, name, as_dds)
        voice = voice_of(topic) or Voice(())
        if one_too_many(voice, speakers, self._trusted):
            speakers = self._living(speakers)
        labels = one_too_many(voice, speakers, self._trusted)
        if not labels:
            return ''
        return (
            f'{" and ".join(labels)} may {"call" if as_dds else "publish"} {topic}, which is one too many: nobody is '
            'heard there until one ends; ./so101 doctor says who is in the domain.'
        )

    def _living(self, speakers: list[Speaker]) -> list[Speaker]:
        """Leave out those of this machine whose process is gone: DDS lists who was killed for a while."""
        processes = {int(entry) & 0xFFFF for entry in os.listdir('/proc') if entry.isdecimal()}
        now = time.monotonic()
        living = []
        for speaker in speakers:
            is_gone = speaker.is_on(self._host) and speaker.pid not in processes
            first = self._gone.setdefault(speaker.process, now) if is_gone else now
            if not is_gone or now - first > GHOST_S:
                living.append(speaker)
        return living

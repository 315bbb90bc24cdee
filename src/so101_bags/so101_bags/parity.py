# SPDX-License-Identifier: Apache-2.0
"""Whether the observation that a bag gives is, bit for bit, the one that the policy saw live."""

from collections.abc import Iterable
from dataclasses import dataclass, field
import json
from pathlib import Path

from so101_bags.messages import Decoders, STRING
from so101_bags.records import choose_arm, read_records
from so101_bags.storage import BagError, DecodeError, open_bags, Progress
from so101_contract.assembly import Assembler, Limits
from so101_contract.errors import AssemblyError
from so101_contract.messages import StepRecord
from so101_contract.observation import observation_digest
from so101_contract.observation_spec import ObservationSpec
from so101_interfaces_py import topics
from so101_kinematics.fk import state_function


@dataclass
class ParityReport:
    """The outcome of the comparison; steps are named by episode and index.

    Attributes:
        compared: steps whose observation the policy logged and the bag gives.
        different: those that differ.
        lost: those that the policy saw and the bag cannot give, with the reason.
        unseen: steps that the bag gives and the policy did not log.
    """

    compared: int = 0
    different: list[tuple[int, int]] = field(default_factory=list)
    lost: list[tuple[int, int, str]] = field(default_factory=list)
    unseen: int = 0

    @property
    def equal(self) -> int:
        """Steps that are bit-identical."""
        return self.compared - len(self.different)


def check_parity(
    paths: Iterable[Path | str] | Path | str,
    spec: ObservationSpec,
    *,
    namespace: str | None = None,
    progress: Progress | None = None,
) -> ParityReport:
    """Rebuild the observation of every step that the policy logged, and compare the hashes.

    Raises:
        BagError: a bag cannot be read, or the policy logged nothing in it.
    """
    paths = [paths] if isinstance(paths, str | Path) else list(paths)
    live = read_observed(paths, namespace=namespace)
    if not live:
        raise BagError(
            f'expected hashes on {topics.POLICY_OBSERVED} in {paths[0]}, got none; record while a policy runs'
        )
    report = ParityReport()
    assembler = Assembler(
        spec, state_function(spec), limits=Limits(joints=6000, images=2000, steps=20000, episodes=5)
    )
    steps: dict[int, list[int]] = {}
    seen: set[tuple[int, int]] = set()

    def settle(episode: int) -> None:
        for index in steps.pop(episode, []):
            _compare(assembler, live.get((episode, index)), (episode, index), report)
        assembler.close(episode)

    for record in read_records(paths, spec, namespace=namespace, any_spec=True, progress=progress):
        if isinstance(record, StepRecord) and record.episode:
            begins_again = record.index == 0 and any(episode >= record.episode for episode in steps)
            for older in [episode for episode in steps if begins_again or episode < record.episode - 1]:
                settle(older)
            steps.setdefault(record.episode, []).append(record.index)
            seen.add((record.episode, record.index))
        assembler.push(record)
    for episode in list(steps):
        settle(episode)
    report.lost += [(*key, 'its step is not in the bag') for key in live if key not in seen]
    return report


def read_observed(
    paths: Iterable[Path | str], *, namespace: str | None = None
) -> dict[tuple[int, int], set[str]]:
    """Return the hashes that the policy logged, by episode and index; several where a session was restarted."""
    live: dict[tuple[int, int], set[str]] = {}
    with open_bags(paths) as bag:
        topic = f'{choose_arm(bag.topics, namespace, str(bag.paths[0]))}/{topics.POLICY_OBSERVED}'
        text = Decoders(bag.topics.values()).fields(STRING, ['data'])
        for message in bag.messages([topic]):
            try:
                # Only what is needed: what else the policy logs may change from version to version.
                said = json.loads(text(message.data)['data'])
                live.setdefault((int(said['episode']), int(said['index'])), set()).add(str(said['sha256']))
            except (DecodeError, ValueError, KeyError, TypeError) as error:
                raise BagError(
                    f'expected JSON with episode, index and sha256 on {topic}, got {type(error).__name__} ({error}); '
                    f'record again'
                ) from error
    return live


def _compare(assembler: Assembler, live: set[str] | None, key: tuple[int, int], report: ParityReport) -> None:
    if live is None:
        report.unseen += assembler.ready(*key)
        return
    try:
        offline = observation_digest(assembler.observation(*key))
    except AssemblyError as error:
        report.lost.append((*key, str(error)))
        return
    report.compared += 1
    if offline not in live:
        report.different.append(key)

# SPDX-License-Identifier: Apache-2.0
"""What a bag says about itself beside its messages: contract, calibration, configuration."""

from collections.abc import Iterable, Iterator
from contextlib import suppress
import json
import os
from pathlib import Path
import struct
from typing import BinaryIO

from so101_bags import mcap_format as mcap
from so101_bags.errors import BagError
from so101_bags.storage import read_metadata, storage_files
from so101_contract.errors import ContractError
from so101_contract.observation_spec import ObservationSpec
from so101_contract.presets import OBSERVATIONS


def read_facts(bag: Path) -> dict[str, str]:
    """Return what the recorder stored about contract and calibration; empty for a foreign bag."""
    facts: dict[str, str] = {}
    with suppress(BagError):
        if bag.is_dir():
            custom = read_metadata(bag).get('custom_data') or {}
            facts.update({str(key): str(value) for key, value in custom.items()})
    for file in storage_files(bag):
        if file.storage == '.mcap' and not file.zipped:
            for name, values in read_named(file.path):
                if name == 'so101':
                    facts.update(values)
    return facts


def read_named(path: Path) -> Iterator[tuple[str, dict[str, str]]]:
    """Yield the named maps of strings of a closed MCAP file, in the order in which they were written."""
    with suppress(ValueError, struct.error, OSError, UnicodeDecodeError), path.open('rb') as file:
        for place, size in _places(file, mcap.METADATA_INDEX):
            file.seek(place + mcap.RECORD_HEAD)
            body = file.read(size - mcap.RECORD_HEAD)
            name, at = mcap.read_text(body, 0)
            yield name.decode(), mcap.read_mapping(body, at)[0]


def read_attachments(path: Path) -> dict[str, bytes]:
    """Return the files that a closed MCAP file carries."""
    found: dict[str, bytes] = {}
    with path.open('rb') as file:
        for place, size in _places(file, mcap.ATTACHMENT_INDEX):
            file.seek(place + mcap.RECORD_HEAD)
            body = file.read(size - mcap.RECORD_HEAD)
            name, at = mcap.read_text(body, 16)
            _, at = mcap.read_text(body, at)
            (length,) = struct.unpack_from('<Q', body, at)
            found[name.decode()] = body[at + 8 : at + 8 + length]
    return found


def observation_of_bag(hashes: Iterable[str], facts: dict[str, str]) -> ObservationSpec | None:
    """Return the observation spec whose hash a bag names: the one that it carries, or a preset; None where neither."""
    wanted = next((one for one in (*hashes, facts.get('observation_hash', '')) if one), '')
    candidates = [make() for make in OBSERVATIONS.values()]
    if 'observation' in facts:
        with suppress(ContractError, ValueError, KeyError, TypeError):
            candidates.insert(0, ObservationSpec.from_dict(json.loads(facts['observation'])['fields']))
    return next((spec for spec in candidates if spec.hash == wanted), None)


def _places(file: BinaryIO, opcode: int) -> Iterator[tuple[int, int]]:
    """Yield offset and length of the records that the summary's index of one kind points to."""
    size = file.seek(0, os.SEEK_END)
    file.seek(size - 28)
    (start,) = struct.unpack('<Q', file.read(8))
    file.seek(start)
    summary = file.read(size - 37 - start)
    for span in mcap.spans(summary, 0, len(summary)):
        if span.opcode == opcode:
            place, length = struct.unpack_from('<QQ', summary, span.body)
            yield place, length

# SPDX-License-Identifier: Apache-2.0
"""Turning a bag into transitions, next to the time that `rosbags` takes to read the same bag and nothing else.

The bag is made up: 20 episodes of a person's length with pictures at 30 Hz and joints at 100 Hz, as an arm gives
them. The peer only fetches the serialised messages, which everybody who reads a bag has to do; the time that
`rosbags` takes to deserialise them too is printed beside it. Ingest's time includes the hash of the whole bag.
"""

import argparse
import json
from pathlib import Path
import platform
import shutil
import statistics
import sys
import tempfile
import time
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ('so101_interfaces', 'so101_contract', 'so101_description', 'so101_kinematics', 'so101_driver')
PACKAGES += ('so101_sim', 'drqv2_policy_node', 'so101_session', 'hilserl_learner')


def make_bag(path: Path, episodes: int, steps: int, size: tuple[int, int]) -> Path:
    """Write the bag."""
    from bagmaker import Plan, Session

    session = Session(path, size=size, images_per_step=3, joints_per_step=10)
    made: Path = session.write([Plan(steps) for _ in range(episodes)])
    return made


def read_raw(bag: Path) -> float:
    """Return how long rosbags takes to read every message, without decoding any [s]."""
    from rosbags.rosbag2 import Reader

    begin = time.perf_counter()
    with Reader(bag) as reader:
        for _ in reader.messages():
            pass
    return time.perf_counter() - begin


def read_decoded(bag: Path) -> float:
    """Return how long rosbags takes to read and deserialise every message [s]."""
    from bagmaker import typestore
    from rosbags.rosbag2 import Reader

    store = typestore()
    begin = time.perf_counter()
    with Reader(bag) as reader:
        for connection, _, data in reader.messages():
            store.deserialize_cdr(data, connection.msgtype)
    return time.perf_counter() - begin


def convert(bag: Path, out: Path) -> tuple[float, float, int]:
    """Return how long ingest takes [s], the processor time in it [s], and the transitions that it gave."""
    from hilserl_learner.ingest import Conversion, ingest
    from so101_contract.action import ActionSpec
    from so101_contract.presets import get_observation

    shutil.rmtree(out, ignore_errors=True)
    conversion = Conversion(observation=get_observation('compact'), action=ActionSpec())
    begin, processor_s = time.perf_counter(), time.process_time()
    (done,) = ingest([bag], out, conversion)
    return time.perf_counter() - begin, time.process_time() - processor_s, done.report.transitions


def compare(options: argparse.Namespace) -> dict[str, Any]:
    """Measure both, in turns."""
    with tempfile.TemporaryDirectory(dir=options.directory) as folder:
        bag = make_bag(Path(folder) / 'bag', options.episodes, options.steps, (options.height, options.width))
        size = sum(file.stat().st_size for file in bag.iterdir())
        raw, decoded, ours, processor, transitions = [], [], [], [], 0
        for _ in range(options.rounds):
            raw.append(read_raw(bag))
            decoded.append(read_decoded(bag))
            took, busy, transitions = convert(bag, Path(folder) / 'buffer')
            ours.append(took)
            processor.append(busy)
    return {
        'raw_s': round(statistics.median(raw), 3),
        'decoded_s': round(statistics.median(decoded), 3),
        'ours_s': round(statistics.median(ours), 3),
        'ours_processor_s': round(statistics.median(processor), 3),
        'transitions': transitions,
        'bag_bytes': size,
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--episodes', type=int, default=20, help='(default: %(default)s)')
    parser.add_argument('--steps', type=int, default=50, help='of an episode (default: %(default)s)')
    parser.add_argument('--width', type=int, default=320, help='of a picture [px] (default: %(default)s)')
    parser.add_argument('--height', type=int, default=240, help='of a picture [px] (default: %(default)s)')
    parser.add_argument('--rounds', type=int, default=3, help='(default: %(default)s)')
    parser.add_argument('--directory', type=Path, help='where there is room for the bag')
    parser.add_argument('--json', type=Path, help='write the last line to this file too')
    options = parser.parse_args()
    sys.path[:0] = [str(ROOT / 'src' / package) for package in PACKAGES]
    sys.path[:0] = [str(ROOT / 'src' / 'hilserl_learner' / 'test')]
    result = compare(options)
    rate, peer = result['transitions'] / result['ours_s'], result['transitions'] / result['raw_s']
    print(
        f'{result["transitions"]} transitions of a bag of {result["bag_bytes"] / 1e9:.2f} GB: ingest '
        f'{result["ours_s"]:.2f} s ({rate:,.0f}/s), rosbags reading alone {result["raw_s"]:.2f} s, '
        f'reading and deserialising {result["decoded_s"]:.2f} s'
    )
    line = {
        'name': 'ingest',
        'value': round(rate),
        'unit': 'transitions/s out of a bag with pictures at 30 Hz',
        'peer': 'rosbags, reading the messages of the same bag without decoding them',
        'peer_value': round(peer),
        'ratio': round(rate / peer, 3),
        'n': options.rounds,
        'python': platform.python_version(),
        **result,
    }
    text = json.dumps(line)
    if options.json:
        options.json.write_text(text + '\n')
    print(text)


if __name__ == '__main__':
    main()

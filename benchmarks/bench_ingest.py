# SPDX-License-Identifier: Apache-2.0
"""Turning a bag into transitions, next to the time that `rosbags` takes to read the same bag and nothing else.

Two bags of 20 episodes of a human's length, with joints at 100 Hz. The first is what the stack records unless
told otherwise: wrist pictures of the twin, 320 x 240 at 20 Hz, written by the recorder's own writer with zstd. The
second is the hard case: pictures of noise at 30 Hz, uncompressed, so that there are 40 times as many bytes to hash.

The peer only fetches the serialised messages, which everybody who reads a bag has to do; the time that `rosbags`
takes to deserialise them too is printed beside it. Ingest's time includes the hash of the whole bag.
"""

from importlib.metadata import version
import itertools
import os
from pathlib import Path
import shutil
import statistics
import sys
import tempfile
import time
from typing import Any

from report import Parser, Report, Row

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ('so101_interfaces', 'so101_contract', 'so101_description', 'so101_kinematics', 'so101_driver')
PACKAGES += ('so101_sim', 'drqv2_policy_node', 'so101_session', 'hilserl_learner')


STEP_HZ = 10
NOISE_HZ = 30
FLUSH_NS = 500_000_000
"""How often the recorder brings what it has to the file [ns]."""


def make_noise(path: Path, episodes: int, steps: int, size: tuple[int, int], rate: int) -> Path:
    """Write a bag whose pictures are noise, without compression."""
    from bagmaker import Plan, Session

    session = Session(path, size=size, images_per_step=rate // STEP_HZ, joints_per_step=10)
    made: Path = session.write([Plan(steps) for _ in range(episodes)])
    return made


def draw_pictures(size: tuple[int, int], episodes: int = 4) -> list[bytes]:
    """Return what the twin's wrist camera sees while the scripted expert works."""
    import numpy as np

    from so101_sim.env import ArmEnv, WRIST_CAMERA
    from so101_sim.human.expert import Expert

    env = ArmEnv(task='lift', preset='easy', images=False, render_mode='rgb_array')
    expert = Expert(env.preset.task, env.action_spec)
    pictures = []
    for seed in range(episodes):
        env.reset(seed=seed)
        expert.reset(np.random.default_rng(seed))
        while not env.is_over:
            pictures.append(env.picture(WRIST_CAMERA, size[1], size[0]).tobytes())
            env.step(expert.network_action(env.truth()))
    env.close()
    return pictures


def record_again(path: Path, source: Path, pictures: list[bytes]) -> Path:
    """Write a bag as recorder_node would have, with these pictures in turn instead of its own."""
    from rosbags.rosbag2 import Reader

    from so101_bags.metadata import definition_of
    from so101_bags.write import BagWriter

    writer, flushed_ns, drawn = BagWriter(path, compression='zstd'), 0, itertools.cycle(pictures)
    with Reader(source) as reader:
        for connection in reader.connections:
            writer.add_topic(connection.topic, definition_of(connection.msgtype))
        for connection, log_ns, data in reader.messages():
            message = data
            if connection.msgtype == 'sensor_msgs/msg/Image':  # the pixels are its last field
                pixels = next(drawn)
                message = data[: -len(pixels)] + pixels
            writer.write(connection.topic, log_ns, log_ns, message)
            if log_ns - flushed_ns > FLUSH_NS:
                writer.flush()
                flushed_ns = log_ns
    writer.close()
    return path


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
    from hilserl_learner.ingest.ingest import Conversion, ingest
    from so101_contract.action import ActionSpec
    from so101_contract.observation_spec import get_observation

    shutil.rmtree(out, ignore_errors=True)
    conversion = Conversion(observation=get_observation('compact'), action=ActionSpec())
    begin, processor_s = time.perf_counter(), time.process_time()
    (done,) = ingest([bag], out, conversion)
    return time.perf_counter() - begin, time.process_time() - processor_s, done.report.transitions


def compare(bag: Path, rounds: int) -> dict[str, Any]:
    """Measure both on one bag, in turns."""
    os.sync()  # else ingest, which ends with its buffer on the disk, waits for the bag to get there too
    raw, raw_processor, decoded, ours, processor, transitions = [], [], [], [], [], 0
    for _ in range(rounds):
        busy = time.process_time()
        raw.append(read_raw(bag))
        raw_processor.append(time.process_time() - busy)
        decoded.append(read_decoded(bag))
        took, busy, transitions = convert(bag, bag.parent / 'buffer')
        ours.append(took)
        processor.append(busy)
    return {
        'raw_s': round(statistics.median(raw), 3),
        'raw_processor_s': round(statistics.median(raw_processor), 3),
        'decoded_s': round(statistics.median(decoded), 3),
        'ours_s': round(statistics.median(ours), 3),
        'ours_processor_s': round(statistics.median(processor), 3),
        'transitions': transitions,
        'bag_bytes': sum(file.stat().st_size for file in bag.iterdir()),
    }


def row_of(name: str, found: dict[str, Any], rounds: int) -> Row:
    """Return what was found as a row of the report."""
    count = found['transitions']
    note = (
        f'{count} transitions of a bag of {found["bag_bytes"] / 1e9:.2f} GB, ingested in {found["ours_s"]:.2f} s, '
        f'{1000 * found["ours_processor_s"] / count:.2f} s of a processor per 1000, of which reading alone is '
        f'{found["raw_processor_s"] / found["ours_processor_s"]:.0%}; '
        f'rosbags alone reads it in {found["raw_s"]:.2f} s, and deserialises it too in {found["decoded_s"]:.2f} s'
    )
    row = Row(name, 'transitions/s', rounds, count / found['ours_s'], note=note)
    return row.beside('rosbags, which only reads the messages', count / found['raw_s'], more_is_better=True)


def main() -> int:
    """Run the benchmark."""
    parser = Parser(__doc__)
    parser.number('--episodes', 20, '', quick=2)
    parser.number('--steps', 50, 'of an episode')
    parser.number('--width', 320, 'of a picture [px]')
    parser.number('--height', 240, 'of a picture [px]')
    parser.number('--rate', 20, 'pictures per second, of the first bag')
    parser.number('--rounds', 3, '', quick=1)
    parser.add_argument('--directory', type=Path, help='where there is room for the bag')
    options = parser.parse_args()
    sys.path[:0] = [str(ROOT / 'src' / package) for package in PACKAGES]
    sys.path[:0] = [str(ROOT / 'src' / 'hilserl_learner' / 'test')]
    size = options.height, options.width
    with tempfile.TemporaryDirectory(dir=options.directory) as name:
        folder = Path(name)
        source = make_noise(folder / 'source', options.episodes, options.steps, size, options.rate)
        recorded = compare(record_again(folder / 'bag', source, draw_pictures(size)), options.rounds)
        shutil.rmtree(source)
        noise_bag = make_noise(folder / 'noise', options.episodes, options.steps, size, NOISE_HZ)
        noise = compare(noise_bag, options.rounds)
    rows = [
        row_of(f'a bag as the stack records it, {size[1]} x {size[0]}', recorded, options.rounds),
        row_of(f'noise at {NOISE_HZ} Hz, uncompressed, {size[1]} x {size[0]}', noise, options.rounds),
    ]
    return Report(
        'ingest', rows, {'rosbags': version('rosbags')}, details={'recorded': recorded, 'noise': noise}
    ).finish(options)


if __name__ == '__main__':
    sys.exit(main())

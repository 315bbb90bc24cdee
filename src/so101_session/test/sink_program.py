# SPDX-License-Identifier: Apache-2.0
"""A program for tests: feeds a sink as fast as a busy graph would, until it is killed.

python sink_program.py FOLDER COMPRESSION   prints the number of the newest message that is older than a second
"""

from pathlib import Path
import sys
import time

import numpy as np

from so101_bags.metadata import definition_of, OfferedQos
from so101_bags.write import BagWriter
from so101_session.recorder.sink import NewMessage, NewTopic, Sink


def main():
    """Submit a batch each 50 ms; the number of a message is in its first bytes."""
    writer = BagWriter(Path(sys.argv[1]), compression=sys.argv[2], split_bytes=4_000_000)
    sink = Sink(writer, metadata={})
    sink.submit([NewTopic('/chatter', definition_of('std_msgs/msg/String'), [OfferedQos()], False)])
    noise = np.random.default_rng(0).integers(0, 256, 30_000, dtype=np.uint8).tobytes()
    number, said = 0, {}
    while True:
        batch = []
        for _ in range(20):
            number += 1
            batch.append(NewMessage('/chatter', time.time_ns(), 0, number.to_bytes(8, 'little') + noise))
        sink.submit(batch)
        said[number] = time.monotonic()
        old = [count for count, when in said.items() if when < time.monotonic() - 1.0]
        if old:
            print(max(old), flush=True)
            said = {count: when for count, when in said.items() if count >= max(old)}
        time.sleep(0.05)


if __name__ == '__main__':
    main()

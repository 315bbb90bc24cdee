# SPDX-License-Identifier: Apache-2.0
"""LeRobot's own loader and writer, for bench_lerobot; it runs in LeRobot's environment and imports nothing else.

`read FOLDER BACKEND` goes through a dataset from the first frame to the last, and `write FOLDER ROWS.npz VIDEO` records
one. Each prints a line of JSON. What is imported and opened once is not counted.
"""

import json
from pathlib import Path
import sys
import time
from typing import Any


def read(folder: str, backend: str) -> dict[str, Any]:
    """Load every frame, in order, as a training on it would."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset

    dataset = LeRobotDataset('local/bench', root=folder, video_backend=backend or None)
    dataset[0]
    begin = time.perf_counter()
    for row in range(len(dataset)):
        dataset[row]
    return {'seconds': time.perf_counter() - begin, 'frames': len(dataset)}


def write(folder: str, rows: str, video: bool) -> dict[str, Any]:
    """Record episodes as LeRobot's own recorder does."""
    from lerobot.datasets.lerobot_dataset import LeRobotDataset
    import numpy as np

    with np.load(rows) as found:
        pictures, states, actions = (found[name] for name in ('pictures', 'states', 'actions'))
    episodes, length, height, width, _ = pictures.shape
    names = [f'joint_{k}' for k in range(6)]
    vector = {'dtype': 'float32', 'shape': (6,), 'names': names}
    kind = 'video' if video else 'image'
    camera = {'dtype': kind, 'shape': (height, width, 3), 'names': ['height', 'width', 'channels']}
    features = {'observation.state': vector, 'action': vector, 'observation.images.wrist': camera}
    begin = time.perf_counter()
    dataset = LeRobotDataset.create('local/bench', fps=30, features=features, root=folder, use_videos=video)
    for episode in range(episodes):
        for row in range(length):
            frame = {'observation.state': states[episode, row], 'action': actions[episode, row]}
            dataset.add_frame(
                {**frame, 'observation.images.wrist': pictures[episode, row], 'task': 'Lift it'}
            )
        dataset.save_episode()
    dataset.finalize()
    seconds = time.perf_counter() - begin
    size = sum(path.stat().st_size for path in Path(folder).rglob('*') if path.is_file())
    return {'seconds': seconds, 'frames': episodes * length, 'bytes': size}


def main() -> None:
    """Do what the command line says."""
    word, *rest = sys.argv[1:]
    found = read(*rest) if word == 'read' else write(rest[0], rest[1], rest[2] == 'video')
    print(json.dumps(found))


if __name__ == '__main__':
    main()

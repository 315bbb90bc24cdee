# SPDX-License-Identifier: Apache-2.0
"""Shows what the reality gap does to a policy: `python tools/check_gap.py`.

A policy is learned in the preset easy, from the wrist camera and the joints. Then it acts in the same task with the
differences of the preset gap, all together and one by one. The last line is a JSON object.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
import json
import sys

from rich.console import Console
from rich.progress import Progress

from so101_sim.env import ArmEnv
from so101_sim.imitation import Imitator
from so101_sim.scene.presets import GAP_SCENE, get_preset, NOMINAL_SCENE, SCENE_PARTS
from so101_sim.scene.scene import SceneConfig

DIFFERENCES: dict[str, SceneConfig] = {
    'nothing': NOMINAL_SCENE,
    **{
        part: replace(NOMINAL_SCENE, **{name: getattr(GAP_SCENE, name) for name in names})
        for part, names in SCENE_PARTS.items()
    },
    'everything': GAP_SCENE,
}
"""Scenes between the nominal one and the gap's."""


def gap_rates(
    episodes: int, rounds: int = 3, seed: int = 0, progress: Progress | None = None
) -> dict[str, float]:
    """Return the success rate of a policy from the nominal scene in each of `DIFFERENCES`."""
    easy = get_preset('easy')
    bar = None if progress is None else progress.add_task('learning', total=rounds * 40)
    env = ArmEnv(preset=easy)
    imitator = Imitator(env, seed)
    imitator.learn(
        rounds, after_episode=lambda: None if progress is None or bar is None else progress.advance(bar)
    )
    env.close()
    rates = {}
    for name, scene in DIFFERENCES.items():
        env = ArmEnv(preset=replace(easy, scene=scene))
        rates[name] = round(imitator.success_rate(env, episodes), 3)
        env.close()
    return rates


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog='python tools/check_gap.py', description=__doc__)
    parser.add_argument('--episodes', type=int, default=40, help='episodes for each difference')
    parser.add_argument('--seed', type=int, default=0)
    options = parser.parse_args(arguments)
    with Progress(console=Console(stderr=True)) as progress:
        rates = gap_rates(options.episodes, seed=options.seed, progress=progress)
    report = {
        'name': 'gap',
        'value': rates['everything'],
        'unit': 'success rate with every difference of the preset gap',
        'n': options.episodes,
        'rates': rates,
    }
    sys.stdout.write(json.dumps(report) + '\n')
    return 0


if __name__ == '__main__':
    sys.exit(main())

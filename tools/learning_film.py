# SPDX-License-Identifier: Apache-2.0
"""Films learning from nothing in fast motion: `python tools/learning_film.py docs/images/learning.gif`.

The arm learns to lift the cube on `easy`, with five demonstrations and the scripted human who takes over, as
`./so101 train` does it. After each stage its policy acts alone, in episodes that it has never met; below stands how
long the arm has worked by then, and how often it succeeds. Takes about five minutes; what is trained already is kept.
"""

import argparse
from collections.abc import Iterator, Sequence
import csv
from pathlib import Path
import shutil
import subprocess
import sys

from film import Studio, with_inset, write_gif
import numpy as np
from PIL import Image, ImageDraw, ImageFont
from rich.console import Console
from rich.progress import track

from drqv2_policy_node.store import load_policy
from hilserl_learner.training.evaluate import EVALUATION_SEED
from so101_contract.image import preprocess
from so101_contract.observation_spec import DEFAULT_OBSERVATION, get_observation
from so101_interfaces_py.topics import WRIST_CAMERA
from so101_sim.env import ArmEnv
from so101_sim.render import UInt8Array
from so101_sim.scene.scene import OVERVIEW

STAGES = (1, 500, 1000, 1500, 2000, 3000)
"""Steps of training [0.1 s]."""
EPISODES = 2
"""Shown of each stage."""
SHOWN_STEPS = 45
"""Of an episode that leads nowhere."""
EVERY = 2
"""One step of so many is a picture, twenty pictures a second: four times as fast as the arm."""
FRAMES_PER_S = 20.0
LAST_FRAMES = 6
SIZE = (400, 300)
STRIP, INSET = 64, 96
INK, PAPER, LINE, GRID = (30, 30, 34), (250, 250, 250), (0, 110, 180), (205, 205, 210)


def train(run: Path, steps: int, seed: int) -> None:
    """Let a run go on to so many steps.

    Raises:
        subprocess.CalledProcessError: it failed.
    """
    words = ['--preset', 'easy', '--demos', 5, '--seed', seed, '--steps', steps, '--out', run]
    words += ['--set', 'eval_every=500', '--set', 'eval_episodes=40']
    words += ['--resume'] if (run / 'config.json').is_file() else []
    command = [sys.executable, '-m', 'so101_bringup.cli', 'train', *map(str, words)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def curve(run: Path) -> list[tuple[int, float]]:
    """Return how often the policy of a run succeeded, by steps; where it was tried twice, the second time in more."""
    with (run / 'evaluation.csv').open(newline='') as file:
        return list({int(row['steps']): float(row['success']) for row in csv.DictReader(file)}.items())


def acting(policy_folder: Path) -> Iterator[UInt8Array]:
    """Yield pictures of a stored policy that acts alone."""
    policy = load_policy(policy_folder)
    env = ArmEnv(preset='easy', observation=get_observation(DEFAULT_OBSERVATION))
    scene = Studio(env.preset.scene, *SIZE)
    for number in range(EPISODES):
        env.reset(seed=EVALUATION_SEED + number)
        steps, left = 0, LAST_FRAMES
        while left:
            if steps % EVERY == 0 or env.is_over:
                seen = preprocess(env.picture(WRIST_CAMERA, 2 * INSET, 2 * INSET), size=INSET)
                yield with_inset(scene.draw(env, OVERVIEW), seen.transpose(1, 2, 0))
            if env.is_over or steps == SHOWN_STEPS:
                left -= 1
                continue
            env.step(policy.act(env.observation()))
            steps += 1
    scene.close()
    env.close()


def with_strip(picture: UInt8Array, steps: int, known: Sequence[tuple[int, float]]) -> UInt8Array:
    """Return the picture with what is known by then below it: how long, how often, and the curve."""
    width, height = SIZE
    sheet = Image.new('RGB', (width, height + STRIP), PAPER)
    sheet.paste(Image.fromarray(picture), (0, 0))
    pen, large, small = ImageDraw.Draw(sheet), ImageFont.load_default(17), ImageFont.load_default(12)
    success = known[-1][1] if known else 0.0
    pen.text((12, height + 9), f'{steps / 600:.1f} min of the arm', INK, large)
    pen.text((12, height + 36), f'alone it succeeds in {success:.0%}', INK, small)
    left, right, top, bottom = width // 2 + 10, width - 34, height + 10, height + STRIP - 10
    for share in (0.0, 1.0):
        y = bottom + (top - bottom) * share
        pen.line([(left, y), (right, y)], GRID)
        pen.text((right + 4, y - 7), f'{share:.0%}', INK, ImageFont.load_default(10))
    places = [
        (left + (right - left) * at / STAGES[-1], bottom + (top - bottom) * share) for at, share in known
    ]
    if len(places) > 1:
        pen.line(places, LINE, 2)
    for x, y in places[-1:]:
        pen.ellipse([x - 3, y - 3, x + 3, y + 3], LINE)
    return np.asarray(sheet)


def main(arguments: Sequence[str] | None = None) -> int:
    """Train, film and write."""
    parser = argparse.ArgumentParser(
        prog='python tools/learning_film.py',
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument('output', type=Path, help='the .gif')
    parser.add_argument('--run', type=Path, default=Path('runs/film'), help='(default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='of the training (default: %(default)s)')
    options = parser.parse_args(arguments)
    frames: list[UInt8Array] = []
    for steps in track(STAGES, 'stages', console=Console(stderr=True)):
        stage = options.run / f'stage_{steps}'
        if not stage.is_dir():
            train(options.run, steps, options.seed)
            shutil.copytree(options.run / 'last', stage)
        known = [(at, share) for at, share in curve(options.run) if at <= steps]
        frames += [with_strip(picture, steps, known) for picture in acting(stage)]
    write_gif(options.output, frames, FRAMES_PER_S)
    return 0


if __name__ == '__main__':
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""GIFs, films, and a policy learned from pictures."""

from check_gap import Imitator
import film
import learning_film
import numpy as np
from PIL import Image, ImageSequence
import pytest

from so101_sim.env import ArmEnv


def read_gif(path) -> list[np.ndarray]:
    """The frames as they are shown, ten a second."""
    frames = []
    with Image.open(path) as animation:
        for frame in ImageSequence.Iterator(animation):
            frames += [np.asarray(frame.convert('RGB'))] * round(frame.info.get('duration', 100) / 100)
    return frames


def test_a_written_animation_reads_back(tmp_path):
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (40, 3), dtype=np.uint8)
    frames = [colours[rng.integers(0, 40, (50, 70))] for _ in range(3)]
    frames.append(frames[-1].copy())
    frames[-1][10:20, 10:20] = colours[0]
    film.write_gif(tmp_path / 'a.gif', frames, 10.0)
    shown = read_gif(tmp_path / 'a.gif')
    assert len(shown) == len(frames)
    for frame, seen in zip(frames, shown, strict=True):
        assert np.abs(frame.astype(int) - seen).max() <= 16  # five bits a channel


def test_a_picture_with_many_colours_is_close_to_itself(tmp_path):
    y, x = np.mgrid[0:120, 0:160]
    frame = np.stack([x * 255 // 159, y * 255 // 119, (x + y) * 255 // 278], axis=2).astype(np.uint8)
    film.write_gif(tmp_path / 'b.gif', [frame], 5.0)
    error = np.abs(frame.astype(int) - read_gif(tmp_path / 'b.gif')[0])
    assert error.mean() < 8


@pytest.mark.usefixtures('renders')
def test_the_film_command_writes_a_film_that_moves_and_pictures_of_the_wrist(tmp_path, monkeypatch):
    monkeypatch.setattr(film, 'SIZE', (120, 90))
    monkeypatch.setattr(film, 'INSET', 32)
    monkeypatch.setattr(film, 'SUPERSAMPLING', 1)
    assert film.main([str(tmp_path / 'lift.gif'), '--seed', '2']) == 0
    frames = read_gif(tmp_path / 'lift.gif')
    assert len(frames) > 15
    assert (np.abs(frames[0].astype(int) - frames[-1]).max(axis=2) > 30).mean() > 0.05
    assert film.main([str(tmp_path / 'wrist.png')]) == 0
    assert (tmp_path / 'wrist.png').stat().st_size > 5000
    with pytest.raises(SystemExit):
        film.main([str(tmp_path / 'lift.mov')])


def test_the_strip_below_the_film_of_learning_shows_what_the_run_has_reached_by_then(tmp_path):
    rows = 'steps,success\n1,0.0\n1000,0.6\n3000,0.95\n'
    (tmp_path / 'evaluation.csv').write_text(rows)
    known = learning_film.curve(tmp_path)
    assert known == [(1, 0.0), (1000, 0.6), (3000, 0.95)]
    width, height = learning_film.SIZE
    picture = np.full((height, width, 3), 90, np.uint8)
    early, late = (learning_film.with_strip(picture, steps, known[:n]) for steps, n in ((1000, 2), (3000, 3)))
    for sheet in (early, late):
        assert sheet.shape == (height + learning_film.STRIP, width, 3)
        assert (sheet[:height] == 90).all()
    drawn = [
        np.argwhere((sheet[height:] == learning_film.LINE).all(axis=2))[:, 1].max() for sheet in (early, late)
    ]
    assert drawn[0] < drawn[1]


@pytest.mark.usefixtures('renders')
def test_lifting_can_be_learned_from_what_is_observed():
    env = ArmEnv()
    imitator = Imitator(env)
    imitator.learn(rounds=1, episodes=20)
    assert imitator.success_rate(env, 5) >= 0.4
    env.close()

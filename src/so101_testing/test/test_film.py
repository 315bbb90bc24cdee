# SPDX-License-Identifier: Apache-2.0
"""GIFs, films, and a policy learned from pictures."""

from check_gap import Imitator
import film
import numpy as np
import pytest

from so101_sim.env import ArmEnv
from so101_sim.errors import SimulationError
from so101_sim.gif import make_palette, write_gif


def read_gif(data: bytes) -> list[np.ndarray]:
    """A plain decoder, slow and short: the frames as they are shown."""
    assert data[:6] == b'GIF89a'
    width, height = int.from_bytes(data[6:8], 'little'), int.from_bytes(data[8:10], 'little')
    palette = np.frombuffer(data[13 : 13 + 768], np.uint8).reshape(256, 3)
    at, frames, shown, transparent = 13 + 768, [], np.zeros((height, width, 3), np.uint8), None
    while data[at] != 0x3B:
        if data[at] == 0x21:
            transparent = data[at + 6] if data[at + 1] == 0xF9 and data[at + 3] & 1 else transparent
            at += 2
            while data[at]:
                at += data[at] + 1
            at += 1
            continue
        assert data[at] == 0x2C
        at += 11
        packed = bytearray()
        while data[at]:
            packed += data[at + 1 : at + 1 + data[at]]
            at += data[at] + 1
        at += 1
        indices = np.frombuffer(decompress(bytes(packed)), np.uint8).reshape(height, width)
        shown = np.where((indices == transparent)[..., None], shown, palette[indices])
        frames.append(shown)
    return frames


def decompress(packed: bytes) -> bytes:
    bits = int.from_bytes(packed, 'little')
    table, width, out, previous = [], 9, bytearray(), b''
    while True:
        code, bits = bits & ((1 << width) - 1), bits >> width
        if code == 257:
            return bytes(out)
        if code == 256:
            table, width, previous = [bytes([i]) for i in range(256)] + [b'', b''], 9, b''
            continue
        entry = table[code] if code < len(table) else previous + previous[:1]
        if previous and len(table) < 4096:
            table.append(previous + entry[:1])
        out += entry
        previous = entry
        if len(table) == 1 << width and width < 12:
            width += 1


def test_a_written_animation_reads_back(tmp_path):
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (40, 3), dtype=np.uint8)
    frames = [colours[rng.integers(0, 40, (50, 70))] for _ in range(3)]
    frames.append(frames[-1].copy())
    frames[-1][10:20, 10:20] = colours[0]
    write_gif(tmp_path / 'a.gif', frames, 10.0)
    shown = read_gif((tmp_path / 'a.gif').read_bytes())
    assert len(shown) == len(frames)
    for frame, seen in zip(frames, shown, strict=True):
        assert np.abs(frame.astype(int) - seen).max() <= 16  # five bits a channel


def test_a_picture_with_many_colours_is_close_to_itself(tmp_path):
    y, x = np.mgrid[0:120, 0:160]
    frame = np.stack([x * 255 // 159, y * 255 // 119, (x + y) * 255 // 278], axis=2).astype(np.uint8)
    write_gif(tmp_path / 'b.gif', [frame], 5.0)
    error = np.abs(frame.astype(int) - read_gif((tmp_path / 'b.gif').read_bytes())[0])
    assert error.mean() < 8


def test_long_runs_and_noise_survive_a_full_table(tmp_path):
    rng = np.random.default_rng(1)
    frame = (rng.integers(0, 16, (300, 300, 1), dtype=np.uint8) * 17).repeat(3, axis=2)
    frame[100:200] = 0
    write_gif(tmp_path / 'c.gif', [frame], 10.0)
    assert np.abs(frame.astype(int) - read_gif((tmp_path / 'c.gif').read_bytes())[0]).max() <= 16


def test_the_palette_has_no_more_colours_than_it_may():
    frames = [np.random.default_rng(0).integers(0, 256, (60, 60, 3), dtype=np.uint8)]
    assert len(make_palette(frames)) <= 255


@pytest.mark.parametrize(
    'frames',
    [[], [np.zeros((4, 4, 3), np.uint8), np.zeros((4, 5, 3), np.uint8)], [np.zeros((4, 4), np.uint8)]],
)
def test_frames_that_make_no_film_are_refused(tmp_path, frames):
    with pytest.raises(SimulationError, match='one size'):
        write_gif(tmp_path / 'd.gif', frames, 10.0)


@pytest.mark.usefixtures('renders')
def test_the_film_command_writes_a_film_that_moves_and_pictures_of_the_wrist(tmp_path, monkeypatch):
    monkeypatch.setattr(film, 'SIZE', (120, 90))
    monkeypatch.setattr(film, 'INSET', 32)
    monkeypatch.setattr(film, 'SUPERSAMPLING', 1)
    assert film.main([str(tmp_path / 'lift.gif'), '--seed', '2']) == 0
    frames = read_gif((tmp_path / 'lift.gif').read_bytes())
    assert len(frames) > 15
    assert (np.abs(frames[0].astype(int) - frames[-1]).max(axis=2) > 30).mean() > 0.05
    assert film.main([str(tmp_path / 'wrist.png')]) == 0
    assert (tmp_path / 'wrist.png').stat().st_size > 5000
    with pytest.raises(SystemExit):
        film.main([str(tmp_path / 'lift.mov')])


@pytest.mark.usefixtures('renders')
def test_lifting_can_be_learned_from_what_is_observed():
    env = ArmEnv()
    imitator = Imitator(env)
    imitator.learn(rounds=1, episodes=20)
    assert imitator.success_rate(env, 5) >= 0.4
    env.close()

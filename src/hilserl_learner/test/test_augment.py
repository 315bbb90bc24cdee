# SPDX-License-Identifier: Apache-2.0
from hypothesis import given, settings
from hypothesis import strategies as st
import numpy as np
import pytest
import torch
from torch.nn import functional

from hilserl_learner.data.augment import color_jitter, random_shift, shifted, table_randomization


def robobase_shift(images, shifts, pad):
    """DrQ-v2's form: bilinear sampling of the padded image, with the shift on a grid of -1..1."""
    n, _, size, _ = images.shape
    padded = functional.pad(images, (pad,) * 4, 'replicate')
    edge = size + 2 * pad
    steps = torch.linspace(-1.0 + 1.0 / edge, 1.0 - 1.0 / edge, edge)[:size]
    columns = steps.repeat(size, 1).unsqueeze(2)
    grid = torch.cat([columns, columns.transpose(1, 0)], dim=2).repeat(n, 1, 1, 1)
    moved = grid + (shifts + pad).view(n, 1, 1, 2) * (2.0 / edge)
    return functional.grid_sample(padded, moved, padding_mode='zeros', align_corners=False)


def pictures(batch, views, channels, size, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 256, (batch, views, channels, size, size), dtype=torch.uint8, generator=generator)


def every_shift(pad):
    steps = torch.arange(-pad, pad + 1)
    return torch.stack(torch.meshgrid(steps, steps, indexing='xy'), dim=2).view(-1, 1, 2)


@pytest.mark.parametrize('size', [32, 84])
def test_shifts_are_those_of_robobases_bilinear_sampling(size):
    shifts = every_shift(4)
    images = pictures(len(shifts), 1, 3, size)
    expected = robobase_shift(images[:, 0].float(), shifts[:, 0].float(), 4)
    assert (shifted(images, shifts)[:, 0].float() - expected).abs().max() < 0.02


@given(
    batch=st.integers(1, 4),
    views=st.integers(1, 3),
    channels=st.sampled_from([3, 6, 9, 12]),
    size=st.integers(5, 40),
    pad=st.integers(1, 4),
    seed=st.integers(0, 100),
)
@settings(max_examples=30, deadline=None)
def test_both_ways_of_shifting_are_the_same(batch, views, channels, size, pad, seed):
    images = pictures(batch, views, channels, size, seed)
    shifts = torch.randint(-pad, pad + 1, (batch, views, 2), generator=torch.Generator().manual_seed(seed))
    by_rectangle = shifted(images, shifts)
    assert by_rectangle.dtype == torch.uint8
    assert torch.equal(by_rectangle.float(), shifted(images.float(), shifts))


def displacements(count, pad=4):
    """How far a single bright pixel moves, in many images."""
    images = torch.zeros(count, 1, 3, 21, 21, dtype=torch.uint8)
    images[:, :, :, 10, 10] = 255
    moved = random_shift(images, pad, torch.Generator().manual_seed(0))
    found = moved[:, 0, 0].flatten(1).argmax(dim=1).numpy()
    assert (moved[:, 0, 0].flatten(1).sum(dim=1) == 255).all()
    return np.stack([found % 21, found // 21], axis=1) - 10


def test_B31_displacement_is_uniform_not_triangular_and_not_always_zero():
    moves = displacements(8100)
    for axis in (0, 1):
        counts = np.bincount(moves[:, axis] + 4, minlength=9)
        assert len(counts) == 9
        assert counts.min() > 780
        assert counts.max() < 1020  # 900 expected; twice the shift would be a triangle from 100 to 900
    assert abs(np.corrcoef(moves.T)[0, 1]) < 0.05


def test_all_frames_of_a_stack_move_alike_and_views_apart():
    one = pictures(64, 1, 3, 32)
    stack = one.repeat(1, 2, 3, 1, 1)
    moved = random_shift(stack, 4, torch.Generator().manual_seed(1))
    assert torch.equal(moved[:, :, :3], moved[:, :, 3:6])
    assert torch.equal(moved[:, :, :3], moved[:, :, 6:])
    assert sum(torch.equal(a, b) for a, b in zip(moved[:, 0], moved[:, 1], strict=True)) < 10


def test_the_same_seed_gives_the_same_shifts_and_the_input_stays():
    images = pictures(8, 2, 9, 32)
    before = images.clone()
    one, two = (random_shift(images, 4, torch.Generator().manual_seed(5)) for _ in range(2))
    assert torch.equal(one, two)
    assert not torch.equal(one, random_shift(images, 4, torch.Generator().manual_seed(6)))
    assert torch.equal(images, before)


def test_no_shift_changes_nothing():
    images = pictures(2, 1, 9, 32)
    assert random_shift(images, 0, torch.Generator()) is images


def test_images_that_are_views_of_a_buffer_are_shifted_too():
    images = pictures(4, 2, 9, 32).transpose(0, 1)
    shifts = torch.randint(-4, 5, (2, 4, 2), generator=torch.Generator().manual_seed(0))
    assert torch.equal(shifted(images, shifts), shifted(images.contiguous(), shifts))


def factors_of(images, lit):
    """The factor of each colour of each frame, where all pixels of a frame agree on it."""
    ratio = (lit.double() + 0.5) / images
    return ratio.mean(dim=(-2, -1))


def test_a_light_is_one_factor_for_each_colour_in_all_frames_of_a_stack():
    images = torch.full((400, 2, 9, 6, 6), 200, dtype=torch.uint8)
    lit = color_jitter(images, 1.0, torch.Generator().manual_seed(0))
    assert lit.dtype == torch.uint8
    assert lit.shape == images.shape
    assert torch.equal(lit, lit[..., :1, :1].expand_as(lit))  # all pixels alike
    assert torch.equal(lit[:, :, :3], lit[:, :, 3:6])
    assert torch.equal(lit[:, :, :3], lit[:, :, 6:])
    factors = factors_of(images, lit)[:, :, :3]
    kept = (lit == images).flatten(2).all(dim=2)
    assert 0.2 < kept.double().mean() < 0.3
    assert 0.35 * 0.6 - 0.01 < factors.min() < 0.26
    assert 1.1 < factors.max() < 1.16
    assert (factors.std(dim=2)[~kept] > 0.01).double().mean() > 0.95  # colours differ
    assert (lit[:, 0] != lit[:, 1]).flatten(1).any(dim=1).double().mean() > 0.9  # so do the views


def test_less_strength_changes_the_same_images_by_less():
    images = torch.full((50, 1, 3, 4, 4), 180, dtype=torch.uint8)
    whole = color_jitter(images, 1.0, torch.Generator().manual_seed(3))
    none = color_jitter(images, 0.0, torch.Generator().manual_seed(3))
    half = color_jitter(images, 0.5, torch.Generator().manual_seed(3))
    assert none is images
    changed = (whole != images).any(dim=-1).any(dim=-1)
    assert torch.equal(changed, (half != images).any(dim=-1).any(dim=-1))
    loss = 180.0 - half[..., 0, 0].double(), 180.0 - whole[..., 0, 0].double()
    assert (loss[0].abs() <= loss[1].abs() + 1.0).all()
    assert loss[0].mean() > 0.5 * loss[1].mean()


def test_bright_pixels_stay_within_range_and_the_layout_is_kept():
    images = torch.full((64, 1, 9, 8, 8), 255, dtype=torch.uint8)
    flat = images.view(64, 9, 8, 8).to(memory_format=torch.channels_last).view(64, 1, 9, 8, 8)
    lit = color_jitter(flat, 1.0, torch.Generator().manual_seed(1))
    assert lit.max() == 255
    assert (lit == 255).flatten(1).all(dim=1).double().mean() > 0.2
    assert lit.stride() == flat.stride()
    assert torch.equal(flat, images)  # new images, not those of the buffer


TABLE, CUBE, MIXED = (150, 145, 120), (200, 30, 20), (175, 88, 70)


def scene(count=200, frames=3, size=24):
    """A plain table, a little brighter on one side, with a cube that has mixed pixels around it."""
    picture = torch.tensor(TABLE, dtype=torch.uint8)[:, None, None].repeat(1, size, size)
    picture += torch.linspace(0, 9, size).to(torch.uint8)
    for colour, edge in ((MIXED, 8), (CUBE, 9)):
        picture[:, edge:-edge, edge:-edge] = torch.tensor(colour, dtype=torch.uint8)[:, None, None]
    return picture.repeat(count, 1, frames, 1, 1).view(count, 1, 3 * frames, size, size)


def test_a_table_gets_one_colour_in_all_frames_of_a_stack_and_the_cube_keeps_its_own():
    images = scene()
    shown = table_randomization(images, 1.0, torch.Generator().manual_seed(0))
    assert shown.dtype == torch.uint8
    assert shown.shape == images.shape
    assert torch.equal(shown[..., 9:-9, 9:-9], images[..., 9:-9, 9:-9])
    table = shown[..., :8, :].flatten(3)
    assert (table == table[..., :1]).all()  # plain
    assert torch.equal(table[:, :, :3], table[:, :, 6:])
    colours = table[:, 0, :3, 0].double()
    assert colours.max(dim=1).values.min() < 30  # darker than the cube
    assert colours.min(dim=1).values.max() > 180  # brighter than before
    assert colours.std(dim=1).max() > 40  # and not only grey
    assert torch.equal(images, scene())  # new images, not those of the buffer


def test_the_edge_of_a_table_is_covered_in_most_images_and_an_outline_in_the_others():
    images = scene()
    shown = table_randomization(images, 1.0, torch.Generator().manual_seed(0))
    mixed = (shown[..., 8, 10] == images[..., 8, 10]).all(dim=2)[:, 0]
    assert 0.2 < mixed.double().mean() < 0.45
    covered = shown[~mixed]
    assert torch.equal(covered[..., 8, 10], covered[..., 0, 0])


@pytest.mark.parametrize(('share', 'low', 'high'), [(0.0, 0.0, 0.0), (0.5, 0.4, 0.6), (1.0, 1.0, 1.0)])
def test_a_share_of_the_images_gets_another_table(share, low, high):
    images = scene()
    shown = table_randomization(images, share, torch.Generator().manual_seed(1))
    changed = (shown != images).flatten(1).any(dim=1).double().mean()
    assert low <= changed <= high
    assert (shown is images) == (share == 0.0)


@pytest.mark.parametrize('value', [0, 3, 128, 252, 255])
def test_a_table_of_any_brightness_is_found(value):
    images = torch.full((20, 2, 6, 16, 16), value, dtype=torch.uint8)
    images[..., 4:8, 4:8] = 255 - value if value != 128 else 20
    shown = table_randomization(images, 1.0, torch.Generator().manual_seed(0))
    assert torch.equal(shown[..., 5:7, 5:7], images[..., 5:7, 5:7])
    assert (shown[..., 0, 0] != value).any(dim=2).double().mean() > 0.9
    assert (shown[:, 0] != shown[:, 1]).flatten(1).any(dim=1).double().mean() > 0.9  # views differ


@given(size=st.integers(5, 30), frames=st.integers(1, 4), seed=st.integers(0, 100))
@settings(max_examples=30, deadline=None)
def test_pixels_are_either_as_they_were_or_of_one_colour(size, frames, seed):
    images = pictures(3, 2, 3 * frames, size, seed)
    shown = table_randomization(images, 1.0, torch.Generator().manual_seed(seed))
    for before, after in zip(images.flatten(0, 1), shown.flatten(0, 1), strict=True):
        changed = (before != after).unflatten(0, (-1, 3)).any(dim=1)
        found = after.unflatten(0, (-1, 3)).movedim(1, -1)[changed]
        assert len(found.unique(dim=0)) <= 1

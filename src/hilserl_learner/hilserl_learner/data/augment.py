# SPDX-License-Identifier: Apache-2.0
"""Augmentation: random shifts, which repeat the edge; colour jitter; and randomization of the table.

The shift gives what DrQ-v2's bilinear sampling of the padded image gives, whose shifts are whole pixels too, without
leaving uint8. The other two are ours: what is learned on one table under one lamp is to be of use elsewhere. A
brightness alone does not do it: a cube that is darker than its table in all pictures stays darker.
"""

import numpy as np
import torch
from torch import Tensor

DARKEST, BRIGHTEST, PALEST, AS_IT_IS = -0.65, 0.15, -0.4, 0.25
"""Of the jitter: change of the whole image, change of a single colour; share of images that keep theirs."""

DARK, BRIGHT, GREY = 20.0, 235.0, 0.5
"""Of a table: its darkest and brightest colour, and the smallest share of that which each of its colours has."""
NEAR, EDGES = 20, 2.0 / 3.0
"""What counts as table: pixels so close to the usual one, and in that share of images those beside them too."""


def random_shift(images: Tensor, shift: int, generator: torch.Generator) -> Tensor:
    """Shift each image by up to `shift` pixels, all frames of a stack alike.

    Args:
        images: (B, V, C, S, S); every sample and view gets a shift of its own.
        shift: largest shift along each axis, in both directions [px].
        generator: source of the shifts, on any device.

    Returns:
        new images of the same type and shape.
    """
    if shift == 0:
        return images
    size = (*images.shape[:2], 2)
    drawn = torch.randint(-shift, shift + 1, size, generator=generator, device=generator.device)
    return shifted(images, drawn)


def color_jitter(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Darken or brighten each image, and each of its colours, by factors of its own; all frames of a stack alike.

    Args:
        images: (B, V, 3T, S, S), uint8; every sample and view gets factors of its own, one in four none.
        strength: 1 for anything between dusk and a bit more than was recorded; 0 for none.
        generator: source of the factors, on any device.

    Returns:
        new images of the same type, shape and layout.
    """
    if strength == 0.0:
        return images
    batch, views, channels = images.shape[:3]
    drawn = torch.rand(batch, views, 5, generator=generator, device=generator.device)
    whole = 1.0 + strength * (DARKEST + (BRIGHTEST - DARKEST) * drawn[..., :1])
    colours = 1.0 + strength * PALEST * drawn[..., 1:4]
    factors = torch.where(drawn[..., 4:] < AS_IT_IS, 1.0, whole * colours)
    factors = factors.repeat(1, 1, channels // 3)[..., None, None].to(images.device)
    return images.to(torch.float32).mul_(factors).clamp_(max=255.0).to(images.dtype)


def table_randomization(images: Tensor, share: float, generator: torch.Generator) -> Tensor:
    """Give the table in some images another colour; all frames of a stack alike.

    The table is what has nearly the usual colour of a frame. Pixels at its edge are mixtures, which would outline
    what lies on a new table; so in most images the new colour covers them as well.

    Args:
        images: (B, V, 3T, S, S), uint8; every sample and view gets a table of its own.
        share: of the images that get one; 0 for none.
        generator: source of the tables, on any device.

    Returns:
        new images of the same type and shape.
    """
    if share == 0.0:
        return images
    batch, views, channels, *edges = images.shape
    frames = images.reshape(batch * views, channels // 3, 3, *edges)
    drawn = torch.rand(len(frames), 6, generator=generator, device=generator.device).to(images.device)
    colours = (DARK + (BRIGHT - DARK) * drawn[:, :1]) * (GREY + (1.0 - GREY) * drawn[:, 1:4])
    table = _table(frames)
    table |= _widened(table) & (drawn[:, 4] < EDGES)[:, None, None, None]
    table &= (drawn[:, 5] < share)[:, None, None, None]
    # In uint8, where differences wrap around and back: many times faster than to choose pixel by pixel.
    change = colours.to(torch.uint8)[:, None, :, None, None] - frames
    change *= table[:, :, None].view(torch.uint8)
    return (change + frames).view_as(images)


def _table(frames: Tensor) -> Tensor:
    """Return which pixels (N, T, S, S) of frames (N, T, 3, S, S) have nearly the usual colour."""
    step = max(1, frames.shape[-1] // 8)
    usual = frames[..., step // 2 :: step, step // 2 :: step].flatten(3).median(dim=-1).values
    lowest = (usual.clamp(NEAR, 255 - NEAR) - NEAR)[..., None, None]
    above = frames - lowest  # what is darker wraps around to far above
    red, green, blue = above.unbind(dim=2)
    return torch.maximum(torch.maximum(red, green), blue) <= 2 * NEAR


def _widened(mask: Tensor) -> Tensor:
    """Return the mask (..., S, S) with the pixels beside it."""
    wide = mask.clone()
    wide[..., 1:, :] |= mask[..., :-1, :]
    wide[..., :-1, :] |= mask[..., 1:, :]
    wide[..., 1:] |= mask[..., :-1]
    wide[..., :-1] |= mask[..., 1:]
    return wide


def shifted(images: Tensor, shifts: Tensor) -> Tensor:
    """Return the images (B, V, C, S, S) where (B, V, 2) says from how far right, and below, each pixel comes."""
    if images.device.type == 'cpu' and images.dtype == torch.uint8:
        return _copied(images, shifts)
    return _gathered(images, shifts.to(images.device))


def _copied(images: Tensor, shifts: Tensor) -> Tensor:
    """Copy rectangle by rectangle: about twenty times faster on a CPU than gathering pixels."""
    out = torch.empty(images.shape, dtype=images.dtype)
    sources, targets = images.flatten(0, 1).numpy(), out.flatten(0, 1).numpy()
    size = images.shape[-1]
    shifts_list = shifts.flatten(0, 1).cpu().tolist()
    for source, target, (right, down) in zip(sources, targets, shifts_list, strict=True):
        left, width = max(0, -right), size - abs(right)
        top, height = max(0, -down), size - abs(down)
        inside = np.s_[:, top : top + height, left : left + width]
        target[inside] = source[:, top + down : top + down + height, left + right : left + right + width]
        _repeat_edges(target, top, height, left, width)
    return out


def _repeat_edges(image: 'np.ndarray[tuple[int, ...], np.dtype[np.uint8]]', *box: int) -> None:
    """Fill an image (C, S, S) around the box (top, height, left, width) with the nearest pixel of the box."""
    top, height, left, width = box
    rows = np.s_[top : top + height]
    if left:
        image[:, rows, :left] = image[:, rows, left : left + 1]
    image[:, rows, left + width :] = image[:, rows, left + width - 1 : left + width]
    if top:
        image[:, :top] = image[:, top : top + 1]
    image[:, top + height :] = image[:, top + height - 1 : top + height]


def _gathered(images: Tensor, shifts: Tensor) -> Tensor:
    """Gather pixel by pixel, in one piece, for a GPU."""
    size, channels = images.shape[-1], images.shape[2]
    flat, moves = images.flatten(0, 1), shifts.flatten(0, 1)
    steps = torch.arange(size, device=images.device)
    columns, rows = ((steps + moves[:, axis : axis + 1]).clamp(0, size - 1) for axis in (0, 1))
    image = torch.arange(len(flat), device=images.device)[:, None, None, None]
    channel = torch.arange(channels, device=images.device)[:, None, None]
    return flat[image, channel, rows[:, None, :, None], columns[:, None, None, :]].view_as(images)

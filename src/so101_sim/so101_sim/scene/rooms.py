# SPDX-License-Identifier: Apache-2.0
"""Rooms: other tables, lamps, walls, cameras, servos and cubes, each room drawn by a number.

A policy that has seen one table only knows that one. `room-17` is a room, the same wherever it is named; `rooms` is
another one in each episode, by which a policy is trained for rooms that it has never seen (domain randomisation,
Tobin et al. 2017, arXiv:1703.06907). Those are drawn below `FIRST_UNSEEN`: try policies in rooms from there on.
"""

import colorsys
from dataclasses import replace
import math
import re

import mujoco
import numpy as np

from so101_sim.scene.scene import SceneConfig
from so101_sim.scene.servo import ServoModel
from so101_sim.scene.surroundings import Pattern, Rgb, Vector3, Weave

FIRST_UNSEEN = 10_000
"""Training draws from the rooms below this number."""
LAST = 2**31 - 1

ROOM, ROOMS = 'room-N', 'rooms'
_NAME = re.compile(r'room-(\d{1,10})')
_STREAM = 0x726F6F6D  # keeps the numbers of rooms apart from other seeds

WEAVES: tuple[Weave, ...] = ('flat', 'checker', 'gradient')
SOFT, STIFF = 20.0, 100.0
"""Stiffness of servos as arms show it, and as the nominal ones have it [N m/rad]."""


def number_of(name: str) -> int | None:
    """Return the number in the name of a room; None where it names none."""
    found = _NAME.fullmatch(name)
    number = -1 if found is None else int(found[1])
    return number if 0 <= number <= LAST else None


def draw_room(number: int, scene: SceneConfig) -> SceneConfig:
    """Return a scene as it is in that room.

    Args:
        number: of the room.
        scene: what is done there: what of it makes a room is replaced. The size of a can is part of its task.
    """
    rng = np.random.default_rng([_STREAM, number])
    # Drawn in this order; a room of tomorrow is the one of today only while it stays so.
    return replace(
        scene,
        table_rgb=_colour(rng, saturation=(0.0, 0.5), value=(0.2, 0.85)),
        table_pattern=Pattern(
            weave=WEAVES[rng.integers(len(WEAVES))],
            second_rgb=_colour(rng, saturation=(0.0, 0.3), value=(0.6, 1.0)),
            speck_rgb=_colour(rng, saturation=(0.0, 0.3), value=(0.4, 1.0)),
            specks=float(rng.uniform(0.0, 0.2)),
            size_m=float(rng.uniform(0.05, 0.3)),
        ),
        walls=(_wall(rng), _wall(rng)),
        light_direction=_from_above(rng),
        light_strength=float(rng.uniform(0.3, 0.8)),
        ambient=float(rng.uniform(0.2, 0.5)),
        camera_shift_m=_vector(rng, 0.008),
        camera_turn_deg=_vector(rng, 3.0),
        gripper_shift_m=_vector(rng, 0.006),
        servo=_servo(rng),
        cube_half_size=_half_size(rng, scene),
        cube_mass=float(rng.uniform(0.015, 0.06)),
        cube_friction=float(rng.uniform(0.7, 1.2)),
    )


def enter(model: mujoco.MjModel, room: mujoco.MjModel) -> None:
    """Give a compiled scene all numbers of another that has the same parts."""
    for name in dir(room):
        value = getattr(room, name)
        if isinstance(value, np.ndarray) and value.flags.writeable:
            getattr(model, name)[...] = value
    model.vis.headlight.ambient[:] = room.vis.headlight.ambient
    for name in ('extent', 'center', 'meansize', 'meanmass', 'meaninertia'):
        setattr(model.stat, name, getattr(room.stat, name))


def _servo(rng: np.random.Generator) -> ServoModel:
    """Return servos between the nominal ones and soft, lagging, loose ones."""
    share = rng.uniform()  # of softness
    return ServoModel(
        stall_torque=float(rng.uniform(1.6, 2.2)),
        no_load_speed=float(rng.uniform(4.4, 5.5)),
        stiffness=STIFF * (SOFT / STIFF) ** share,
        damping=2.5 - 1.5 * share,
        friction=float(rng.uniform(0.045, 0.06)),
        lag_s=float(rng.uniform(0.0, 0.08)),
        backlash_rad=math.radians(rng.uniform(0.0, 1.2)),
    )


def _half_size(rng: np.random.Generator, scene: SceneConfig) -> float:
    drawn = float(rng.uniform(0.0125, 0.0175))
    return drawn if scene.shape == 'cube' else scene.cube_half_size


def _wall(rng: np.random.Generator) -> Rgb:
    return _colour(rng, saturation=(0.0, 0.4), value=(0.2, 0.9))


def _colour(rng: np.random.Generator, *, saturation: tuple[float, float], value: tuple[float, float]) -> Rgb:
    return colorsys.hsv_to_rgb(rng.uniform(), rng.uniform(*saturation), rng.uniform(*value))


def _vector(rng: np.random.Generator, most: float) -> Vector3:
    x, y, z = rng.uniform(-most, most, size=3).tolist()
    return x, y, z


def _from_above(rng: np.random.Generator) -> Vector3:
    """Return where a lamp shines to that hangs between 35 and 90 degrees above the table."""
    azimuth, elevation = rng.uniform(0.0, 2.0 * math.pi), math.radians(rng.uniform(35.0, 90.0))
    across = math.cos(elevation)
    return across * math.cos(azimuth), across * math.sin(azimuth), -math.sin(elevation)

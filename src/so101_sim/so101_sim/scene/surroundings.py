# SPDX-License-Identifier: Apache-2.0
"""What stands around the arm: a table, plain or with a pattern, the floor below it, walls, and one lamp."""

from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

import mujoco

TABLE, FLOOR, SUN, WALLS = 'table', 'floor', 'sun', 'sky'

TABLE_HALF_SIZE = (0.45, 0.55)
TABLE_CENTRE = (0.22, 0.0)
FLOOR_Z = -0.72
GRID = 2.0  # spacing of the squares that planes are drawn with [m]: a fine grid takes longer to draw than the arm
PATTERN_PX = 128

Rgb = tuple[float, float, float]
Vector3 = tuple[float, float, float]
Weave = Literal['flat', 'checker', 'gradient']
_BUILTINS = MappingProxyType(
    {
        'flat': mujoco.mjtBuiltin.mjBUILTIN_FLAT,
        'checker': mujoco.mjtBuiltin.mjBUILTIN_CHECKER,
        'gradient': mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
    }
)

GREY_WALLS = ((0.75, 0.78, 0.82), (0.45, 0.48, 0.52))
"""Above and below."""


@dataclass(frozen=True, kw_only=True)
class Pattern:
    """What the table's colour is multiplied with.

    Attributes:
        weave: the kind.
        second_rgb: its second colour; the first is white.
        speck_rgb: colour of the specks.
        specks: share of the points that are specks.
        size_m: edge of one repeat [m].
    """

    weave: Weave = 'flat'
    second_rgb: Rgb = (0.9, 0.9, 0.9)
    speck_rgb: Rgb = (0.8, 0.8, 0.8)
    specks: float = 0.0
    size_m: float = 0.1


def add_surroundings(
    spec: mujoco.MjSpec,
    *,
    table_rgb: Rgb,
    pattern: Pattern | None,
    walls: tuple[Rgb, Rgb],
    light_direction: Vector3,
    light_strength: float,
) -> None:
    """Add them to a scene.

    Args:
        spec: the scene.
        table_rgb: colour of the table.
        pattern: on it; None for none.
        walls: colours of what is seen far away, above and below.
        light_direction: where the lamp shines to.
        light_strength: its brightness, 0..1.
    """
    world = spec.worldbody
    spec.add_texture(
        name=WALLS,
        type=mujoco.mjtTexture.mjTEXTURE_SKYBOX,
        builtin=mujoco.mjtBuiltin.mjBUILTIN_GRADIENT,
        rgb1=walls[0],
        rgb2=walls[1],
        width=32,
        height=192,
    )
    world.add_light(
        name=SUN,
        type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL,
        pos=tuple(-1.5 * value for value in light_direction),
        dir=light_direction,
        diffuse=(light_strength,) * 3,
        specular=(0.15,) * 3,
        castshadow=False,
    )
    table = world.add_geom(
        name=TABLE,
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        pos=(*TABLE_CENTRE, 0.0),
        size=(*TABLE_HALF_SIZE, GRID),
        rgba=(*table_rgb, 1.0),
    )
    if pattern is not None:
        table.material = _add_pattern(spec, pattern)
    world.add_geom(
        name=FLOOR,
        type=mujoco.mjtGeom.mjGEOM_PLANE,
        pos=(0.0, 0.0, FLOOR_Z),
        size=(4.0, 4.0, GRID),
        rgba=(0.35, 0.33, 0.31, 1.0),
        contype=0,
        conaffinity=0,
    )


def _add_pattern(spec: mujoco.MjSpec, pattern: Pattern) -> str:
    """Add texture and material of a table; return the name of the material."""
    spec.add_texture(
        name=TABLE,
        type=mujoco.mjtTexture.mjTEXTURE_2D,
        builtin=_BUILTINS[pattern.weave],
        rgb1=(1.0, 1.0, 1.0),
        rgb2=pattern.second_rgb,
        mark=mujoco.mjtMark.mjMARK_RANDOM,
        markrgb=pattern.speck_rgb,
        random=pattern.specks,
        width=PATTERN_PX,
        height=PATTERN_PX,
    )
    repeats = [1.0 / pattern.size_m] * 2
    material = spec.add_material(name=TABLE, texrepeat=repeats, texuniform=True)
    textures = list(material.textures)
    textures[mujoco.mjtTextureRole.mjTEXROLE_RGB] = TABLE
    material.textures = textures
    return TABLE

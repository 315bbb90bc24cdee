# SPDX-License-Identifier: Apache-2.0
"""Draws a MuJoCo model by casting rays, without OpenGL.

MuJoCo casts the rays, from the eye through the pixels and from the lights to what the eye sees. So this works
on any machine, in one thread, and gives the same picture each time. 960 x 540 pixels take some 15 seconds: it
is made for documents, not for streams of images.
"""

import copy
import math

import mujoco
import numpy as np
import numpy.typing as npt

from so101_description.errors import DescriptionError
from so101_description.pose import Pose

Floats = npt.NDArray[np.float64]
Image = npt.NDArray[np.uint8]

BACKGROUND = (236, 240, 244)
"""RGB of what is behind everything; the table under the open sky has the same, so no horizon shows."""

DRAWN_GROUPS = np.array([1, 1, 1, 0, 0, 0], dtype=np.uint8)  # what MuJoCo's own viewer shows at first
FAR_M = 20.0
SURFACE_M = 1e-3  # what a light meets this close before a point is the point's own surface
GAMMA = 2.2

GRID_M, GRID_LINE_M, GRID_DARKNESS, GRID_RADIUS_M = 0.1, 0.0012, 0.08, 0.9

LIGHTS = 16  # points of the key light, and of the sky: enough for soft shadows
LIGHT_DISTANCE_M = 4.0
KEY_DIRECTION, KEY_RADIUS = (-0.45, -0.55, 1.0), 0.045
SKY_RADIUS = 0.85  # of 1: light from close to the horizon casts shadows all over the table
KEY_STRENGTH, SKY_STRENGTH, BOUNCE_STRENGTH = 0.95, 0.72, 0.22
GLOSS, GLOSS_EXPONENT = 0.09, 12


def render(  # noqa: PLR0917 - in the order in which cameras are described everywhere
    model: mujoco.MjModel,
    data: mujoco.MjData,
    camera_pose: Pose,
    fovy: float,
    width: int,
    height: int,
    *,
    samples: int = 2,
) -> Image:
    """Draw the geoms of groups 0 to 2, on a table at z = 0.

    Args:
        model: any compiled model; the colours are those of its materials and geoms.
        data: its state, after `mj_forward`.
        camera_pose: pose of MuJoCo's camera frame (looks along -z, y up) in the world.
        fovy: vertical field of view [deg].
        width: width of the image [px].
        height: height of the image [px].
        samples: rays along each edge of a pixel; 1 is quick, 2 is smooth.

    Returns:
        RGB image (height, width, 3).

    Raises:
        DescriptionError: a number is out of its range.
    """
    if min(width, height, samples) < 1 or not 0 < fovy < 180:
        raise DescriptionError(
            'expected width, height and samples of at least 1 and fovy between 0 and 180 degrees, '
            f'got {width}, {height}, {samples} and {fovy}; correct them'
        )
    # MuJoCo's many-ray function leaves out a body when a ray misses the volume around its colliding geoms, so
    # finger pads would hide the jaws that are only drawn. Bodies without such a volume are always looked at.
    model = copy.copy(model)
    model.body_bvhadr[:] = -1
    origin = np.array(camera_pose.position)
    count = samples**2
    lights = _lights(max(LIGHTS, count))
    total = np.zeros((height * width, 3))
    for number in range(count):
        place = (np.array(divmod(number, samples)) + 0.5) / samples
        rays = _rays(camera_pose, fovy, width, height, place)
        # Each ray of a pixel asks other lights; together they ask all of them.
        total += _colours(model, data, origin, rays, lights[:, number::count])
    encoded = (total / count) ** (1 / GAMMA)
    return (encoded.reshape(height, width, 3) * 255 + 0.5).astype(np.uint8)


def drawn_corners(model: mujoco.MjModel, data: mujoco.MjData) -> Floats:
    """Return the corners (n, 3) [m] of boxes that hold the drawn geoms, one box each."""
    drawn = DRAWN_GROUPS[model.geom_group] > 0
    signs = np.array([[x, y, z] for x in (-1, 1) for y in (-1, 1) for z in (-1, 1)])
    boxes = model.geom_aabb[drawn]
    corners = boxes[:, None, :3] + signs * boxes[:, None, 3:]
    rotations = data.geom_xmat[drawn].reshape(-1, 3, 3)
    placed = np.einsum('nij,nkj->nki', rotations, corners) + data.geom_xpos[drawn][:, None]
    return np.asarray(placed.reshape(-1, 3))


def _unit(vectors: Floats) -> Floats:
    return np.asarray(vectors / np.linalg.norm(vectors, axis=-1, keepdims=True))


def _rays(camera_pose: Pose, fovy: float, width: int, height: int, place: Floats) -> Floats:
    """Return unit directions (height * width, 3) in the world, through that (row, column) of each pixel."""
    rows, columns = np.mgrid[:height, :width] + place[:, None, None]
    scale = 2 * math.tan(math.radians(fovy) / 2) / height
    x, y = (columns - width / 2) * scale, (height / 2 - rows) * scale
    return _unit(np.stack([x, y, -np.ones_like(x)], axis=-1).reshape(-1, 3) @ camera_pose.rotation().T)


def _lights(count: int) -> Floats:
    """Return directions (2, count, 3) towards points of the key light, a disc, and of the sky, a dome."""
    turn = np.arange(count) * math.pi * (3 - math.sqrt(5))  # the golden angle spreads points evenly
    radius = np.sqrt((np.arange(count) + 0.5) / count)
    disc = np.stack([radius * np.cos(turn), radius * np.sin(turn), np.zeros(count)], axis=-1)
    key = _unit(np.array(KEY_DIRECTION)) + KEY_RADIUS * disc
    sky = SKY_RADIUS * disc
    sky[:, 2] = np.sqrt(1 - (SKY_RADIUS * radius) ** 2)
    return _unit(np.stack([key, sky]))


def _cast(
    model: mujoco.MjModel, data: mujoco.MjData, origin: Floats, rays: Floats
) -> tuple[npt.NDArray[np.int32], Floats, Floats]:
    """Return geom (-1: none), distance [m] (then `FAR_M`) and normal of the first hit of each ray (n, 3)."""
    geoms, distances = np.full(len(rays), -1, dtype=np.int32), np.full(len(rays), FAR_M)
    normals = np.zeros((len(rays), 3))
    near = np.flatnonzero(_meets_box(origin, rays, drawn_corners(model, data)))
    count = len(near)
    if count:
        geom, distance, normal = np.empty(count, dtype=np.int32), np.empty(count), np.empty(3 * count)
        mujoco.mj_multiRay(
            model,
            data,
            origin,
            rays[near].ravel(),
            DRAWN_GROUPS,
            True,
            -1,
            geom,
            distance,
            normal,
            count,
            FAR_M,
        )
        geoms[near], distances[near] = geom, np.where(geom >= 0, distance, FAR_M)
        normals[near] = normal.reshape(-1, 3)
    return geoms, distances, normals


def _meets_box(origin: Floats, rays: Floats, corners: Floats) -> npt.NDArray[np.bool_]:
    """Return which rays (n, 3) are worth a cast: those that meet the box around the corners (m, 3)."""
    if len(corners) == 0:
        return np.zeros(len(rays), dtype=np.bool_)
    start, end = np.zeros(len(rays)), np.full(len(rays), FAR_M)
    for axis in range(3):
        step = np.where(rays[:, axis] == 0, 1e-12, rays[:, axis])
        one = (corners[:, axis].min() - origin[axis]) / step
        other = (corners[:, axis].max() - origin[axis]) / step
        start, end = np.maximum(start, np.minimum(one, other)), np.minimum(end, np.maximum(one, other))
    return np.asarray(start <= end)


def _received(
    model: mujoco.MjModel, data: mujoco.MjData, points: Floats, normals: Floats, lights: Floats
) -> Floats:
    """Return how much of the lights (k, 3) the surfaces (n, 3) receive, as mean cosine (n,)."""
    total = np.zeros(len(points))
    for light in lights:
        cosine = normals @ light
        facing = np.flatnonzero(cosine > 0)
        source = light * LIGHT_DISTANCE_M
        way = points[facing] - source
        length = np.linalg.norm(way, axis=1)
        blocker, first, _ = _cast(model, data, source, way / length[:, None])
        total[facing] += cosine[facing] * ((blocker < 0) | (first > length - SURFACE_M))
    return total / len(lights)


def _colours(
    model: mujoco.MjModel, data: mujoco.MjData, origin: Floats, rays: Floats, lights: Floats
) -> Floats:
    """Return the linear colours (n, 3), 0 to 1, that the rays (n, 3) see under the lights (2, k, 3)."""
    geoms, distances, normals = _cast(model, data, origin, rays)
    to_table = np.full(len(rays), FAR_M)
    falling = (rays[:, 2] < 0) & (origin[2] > 0)
    to_table[falling] = -origin[2] / rays[falling, 2]
    distances = np.minimum(distances, to_table)
    background = (np.array(BACKGROUND) / 255) ** GAMMA
    colours = np.tile(background, (len(rays), 1))

    seen = np.flatnonzero(distances < FAR_M)
    geoms, distances, rays = np.where(to_table <= distances, -1, geoms)[seen], distances[seen], rays[seen]
    table = geoms < 0
    points = origin + rays * distances[:, None]
    normals = np.where(table[:, None], (0.0, 0.0, 1.0), normals[seen])
    normals *= -np.sign(np.einsum('ij,ij->i', normals, rays))[
        :, None
    ]  # a surface is lit from where it is seen
    key, sky = (_received(model, data, points, normals, group) for group in lights)
    light = KEY_STRENGTH * key + SKY_STRENGTH * sky

    open_sky = KEY_STRENGTH * lights[0, :, 2].mean() + SKY_STRENGTH * lights[1, :, 2].mean()
    on_table = background * (light / open_sky * _grid(points))[:, None]
    halfway = _unit(lights[0].mean(axis=0) - rays)
    gloss = GLOSS * np.einsum('ij,ij->i', normals, halfway).clip(0) ** GLOSS_EXPONENT * (key > 0)
    bounce = BOUNCE_STRENGTH * (1 - normals[:, 2]) / 2  # from the table, upwards
    on_geoms = _albedo(model)[geoms] * (light + bounce)[:, None] + gloss[:, None]
    colours[seen] = np.where(table[:, None], on_table, on_geoms).clip(0, 1)
    return colours


def _grid(points: Floats) -> Floats:
    """Return the brightness (n,) of the table: thin lines that fade with the distance from the base."""
    to_line = np.abs((points[:, :2] + GRID_M / 2) % GRID_M - GRID_M / 2).min(axis=1)
    fade = (1 - np.linalg.norm(points[:, :2], axis=1) / GRID_RADIUS_M).clip(0, 1)
    return np.asarray(1 - GRID_DARKNESS * fade * (to_line < GRID_LINE_M))


def _albedo(model: mujoco.MjModel) -> Floats:
    """Return the linear colour (ngeom + 1, 3) of each geom, and black for -1, no geom."""
    rgba = model.geom_rgba.copy()
    painted = model.geom_matid >= 0
    rgba[painted] = model.mat_rgba[model.geom_matid[painted]]
    return np.vstack([np.asarray(rgba[:, :3], dtype=np.float64) ** GAMMA, np.zeros((1, 3))])

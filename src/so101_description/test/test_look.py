# SPDX-License-Identifier: Apache-2.0
"""Do the light meshes look like the full ones? Answered by geometry, by cast rays, and by OpenGL where there is one."""

import json
import os
import subprocess
import sys

from decimate import read_stl
import mujoco
import numpy as np
import pytest

from so101_description.cameras import CAMERA_PRESETS
from so101_description.model import arm_index, build_spec, decimated_directory, load_model, official_directory

POSE = (0.3, -0.3, 0.4, 0.6, 0.3, 0.5)
PARTS = sorted(path.name for path in decimated_directory().glob('*.stl'))
VISUAL_ONLY = np.array([0, 0, 1, 0, 0, 0], dtype=np.uint8)


def distance_to_surface(points, triangles):
    """Distance of each point (n, 3) to the nearest of the triangles (m, 3, 3)."""
    a, b, c = (triangles[:, i].astype(np.float64) for i in range(3))
    nearest = np.full(len(points), np.inf)
    for start, end in ((a, b), (b, c), (c, a)):
        edge = end - start
        along = np.einsum('nmi,mi->nm', points[:, None] - start, edge) / (edge**2).sum(1)
        closest = start + along.clip(0, 1)[..., None] * edge
        nearest = np.minimum(nearest, np.linalg.norm(points[:, None] - closest, axis=2).min(1))
    normal = np.cross(b - a, c - a)
    length = np.linalg.norm(normal, axis=1)
    keep = length > 0
    a, b, c, normal = a[keep], b[keep], c[keep], normal[keep] / length[keep, None]
    inside = np.ones((len(points), len(a)), dtype=bool)
    for start, end in ((a, b), (b, c), (c, a)):
        inside &= np.einsum('nmi,mi->nm', points[:, None] - start, np.cross(normal, end - start)) >= 0
    height = np.abs(np.einsum('nmi,mi->nm', points[:, None] - a, normal))
    return np.minimum(nearest, np.where(inside, height, np.inf).min(1))


def sample_surface(triangles, count, rng):
    """Return points (count, 3) spread evenly over the surface."""
    t = triangles.astype(np.float64)
    area = np.linalg.norm(np.cross(t[:, 1] - t[:, 0], t[:, 2] - t[:, 0]), axis=1)
    chosen = t[rng.choice(len(t), count, p=area / area.sum())]
    u, v = rng.random((2, count))
    flip = u + v > 1
    u, v = np.where(flip, 1 - u, u), np.where(flip, 1 - v, v)
    return (
        chosen[:, 0] + u[:, None] * (chosen[:, 1] - chosen[:, 0]) + v[:, None] * (chosen[:, 2] - chosen[:, 0])
    )


@pytest.mark.parametrize('name', PARTS)
def test_surfaces_lie_within_half_a_millimetre_of_each_other(name):
    rng = np.random.default_rng(101)
    full = read_stl(official_directory() / 'assets' / name)
    light = read_stl(decimated_directory() / name)
    there = distance_to_surface(sample_surface(full, 150, rng), light)
    back = distance_to_surface(sample_surface(light, 10, rng), full)
    assert max(there.max(), back.max()) < 0.5e-3
    assert there.mean() < 0.1e-3


def view_directions(fovy_deg, rotation, size):
    """Ray directions (size * size, 3) in the world of a square image; MuJoCo's camera looks along -z."""
    half = np.tan(np.radians(fovy_deg) / 2)
    edge = (np.arange(size) + 0.5) / size * 2 - 1
    x, y = np.meshgrid(edge * half, -edge * half)
    rays = np.stack([x, y, -np.ones_like(x)], axis=-1).reshape(-1, 3) @ rotation.T
    return rays / np.linalg.norm(rays, axis=1, keepdims=True)


def look_at(origin, target):
    backward = (origin - target) / np.linalg.norm(origin - target)
    right = np.cross((0, 0, 1), backward)
    right /= np.linalg.norm(right)
    return np.stack([right, np.cross(backward, right), backward], axis=1)


def cast(visuals, view, size=84):
    """Return depth (inf where nothing is seen) and body (-1 there) of each pixel."""
    model = load_model(visuals=visuals, collision=False)
    data = mujoco.MjData(model)
    arm = arm_index(model)
    data.qpos[arm.qpos] = POSE
    mujoco.mj_forward(model, data)
    if view == 'wrist':
        origin, rotation = data.cam_xpos[arm.camera].copy(), data.cam_xmat[arm.camera].reshape(3, 3)
        fovy = CAMERA_PRESETS['nexus'].fovy_deg
    else:
        origin = np.array([0.45, -0.45, 0.35])
        rotation, fovy = look_at(origin, np.array([0.15, -0.03, 0.12])), 45.0
    rays = view_directions(fovy, rotation, size)
    geom = np.full(len(rays), -1, dtype=np.int32)
    depth = np.empty(len(rays))
    mujoco.mj_multiRay(
        model, data, origin, rays.ravel(), VISUAL_ONLY, True, -1, geom, depth, None, len(rays), 10.0
    )
    body = np.where(geom >= 0, model.geom_bodyid[geom], -1)
    return np.where(geom >= 0, depth, np.inf), body


@pytest.mark.parametrize('view', ['wrist', 'outside'])
def test_depth_and_outline_agree_without_opengl(view):
    full_depth, full_body = cast('full', view)
    depth, body = cast('decimated', view)
    seen = np.isfinite(full_depth)
    assert seen.mean() > 0.05, 'the arm is not in the picture'
    assert (np.isfinite(depth) != seen).mean() < 0.003
    assert (body != full_body).mean() < 0.005
    both = seen & (body == full_body)
    error = np.abs(depth[both] - full_depth[both])
    assert np.median(error) < 0.1e-3
    assert np.quantile(error, 0.97) < 1e-3


FIND_OPENGL = """
import json
import mujoco

try:
    mujoco.Renderer(mujoco.MjSpec().compile(), 8, 8).close()
except Exception as error:  # any of a dozen, one for each way in which OpenGL can be absent
    print(json.dumps({'missing': f'{type(error).__name__}: {error}'}))
    raise SystemExit(0)
"""

RENDER = """
import json, sys
import mujoco, numpy as np
from so101_description.model import arm_index
from so101_description.model import build_spec

pose = json.loads(sys.argv[1])

def pictures(visuals):
    scene = mujoco.MjSpec()
    scene.visual.quality.offsamples = 0
    scene.worldbody.add_light(
        type=mujoco.mjtLightType.mjLIGHT_DIRECTIONAL, pos=[0, 0, 2], dir=[0.2, 0.1, -1], castshadow=False
    )
    scene.worldbody.add_geom(type=mujoco.mjtGeom.mjGEOM_PLANE, size=[1, 1, 0.1], rgba=[0.6, 0.6, 0.6, 1])
    scene.worldbody.add_camera(
        name='outside', pos=[0.65, -0.45, 0.35], mode=mujoco.mjtCamLight.mjCAMLIGHT_TARGETBODY,
        targetbody='arm/upper_arm',
    )
    scene.attach(
        build_spec(visuals=visuals, collision=False), prefix='arm/', frame=scene.worldbody.add_frame()
    )
    model = scene.compile()
    data = mujoco.MjData(model)
    data.qpos[arm_index(model, 'arm/').qpos] = pose
    mujoco.mj_forward(model, data)
    with mujoco.Renderer(model, 480, 640) as renderer:
        for camera in ('arm/gripper_cam', 'outside'):
            renderer.update_scene(data, camera)
            yield renderer.render().astype(float)

def psnr(a, b):
    return 10 * np.log10(255**2 / max(np.mean((a - b) ** 2), 1e-9))

full = list(pictures('full'))
print(json.dumps({
    'psnr': [psnr(a, b) for a, b in zip(full, pictures('decimated'))],
    'contrast': [float(a.std()) for a in full],
}))
"""


def render_in_a_process_of_its_own(script, *arguments):
    env = os.environ | {
        'MUJOCO_GL': 'egl',
        'PYTHONPATH': os.pathsep.join(sys.path),
        '_ROS_WHEELS_BOOTSTRAP_COMPLETE': '1',
    }
    result = subprocess.run(
        [sys.executable, '-c', FIND_OPENGL + script, *arguments],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )
    if result.returncode < 0:
        pytest.skip(f'OpenGL ends the process with signal {-result.returncode}')
    assert result.returncode == 0, result.stderr
    answer = json.loads(result.stdout.splitlines()[-1])
    if 'missing' in answer:
        pytest.skip(f'no OpenGL here: {answer["missing"].splitlines()[0]}')
    return answer


def test_rendered_pictures_are_alike_to_33_decibel():
    answer = render_in_a_process_of_its_own(RENDER, json.dumps(POSE))
    assert min(answer['contrast']) > 5, 'a picture is empty'
    assert min(answer['psnr']) > 33.0


PROJECT = """
import json
import mujoco, numpy as np
from so101_description.cameras import CAMERA_PRESETS
from so101_description.model import build_spec

errors = []
for name, preset in CAMERA_PRESETS.items():
    spec = build_spec(camera=name, visuals='none', collision=False)
    camera_to_gripper = preset.optical_pose
    for point in ((0, 0, 0.3), (0.06, 0.04, 0.3), (-0.08, 0.03, 0.3)):
        ball = (camera_to_gripper.matrix() @ (*point, 1))[:3]
        spec.body('gripper').add_geom(
            type=mujoco.mjtGeom.mjGEOM_SPHERE, size=[0.006] * 3, pos=ball, mass=0, rgba=[1, 1, 1, 1]
        )
    model = spec.compile()
    data = mujoco.MjData(model)
    mujoco.mj_forward(model, data)
    for width, height in ((640, 480), (84, 84), (320, 180)):
        k = preset.intrinsics(width, height)
        with mujoco.Renderer(model, height, width) as renderer:
            renderer.enable_segmentation_rendering()
            renderer.update_scene(data, 'gripper_cam')
            ids = renderer.render()[..., 0]
        for geom, (x, y, z) in enumerate(((0, 0, 0.3), (0.06, 0.04, 0.3), (-0.08, 0.03, 0.3))):
            rows, columns = np.nonzero(ids == geom)
            if len(rows) == 0:
                errors.append(1e9)
                continue
            errors.append(abs(columns.mean() - (k.fx * x / z + k.cx)))
            errors.append(abs(rows.mean() - (k.fy * y / z + k.cy)))
print(json.dumps({'pixels': errors}))
"""


def test_intrinsics_say_where_the_renderer_draws_a_point():
    answer = render_in_a_process_of_its_own(PROJECT)
    assert max(answer['pixels']) < 0.5


def test_wrist_camera_sees_both_fingers():
    _, body = cast('decimated', 'wrist')
    model = build_spec(visuals='none', collision=False).compile()
    for name in ('gripper', 'moving_jaw_so101_v1'):
        assert (body == model.body(name).id).mean() > 0.01

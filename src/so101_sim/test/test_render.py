# SPDX-License-Identifier: Apache-2.0
import os
import subprocess
import sys

import mujoco
import numpy as np
import pytest

from so101_contract.image import preprocess
from so101_contract.joints import limits_arrays
from so101_kinematics.ik import InverseKinematics
from so101_sim import render
from so101_sim.errors import RenderError
from so101_sim.render import Renderer
from so101_sim.scene.presets import get_preset
from so101_sim.scene.scene import OVERVIEW, SceneConfig
from so101_sim.scene.simulation import Simulation
from so101_sim.scene.start import home_pose

pytestmark = pytest.mark.usefixtures('renders')


def over_the_cube() -> Simulation:
    simulation = Simulation()
    ik = InverseKinematics()
    q = ik.solve((0.235, 0.0, 0.05), home_pose(ik), pitch=np.radians(75.0)).q
    q[-1] = 0.5
    simulation.reset(q, (0.26, 0.0, 0.015))
    return simulation


def test_the_wrist_camera_sees_the_cube_between_the_jaws():
    simulation = over_the_cube()
    with Renderer(simulation.model, 320, 240) as renderer:
        picture = renderer.draw(simulation.data, simulation.index.arm.camera).astype(int)
    red, green, blue = picture[..., 0], picture[..., 1], picture[..., 2]
    cube = (red > 2 * green) & (red > 2 * blue) & (red > 60)
    jaws = (red > 60) & (green > 0.6 * red) & (blue < 0.4 * red)
    assert cube.sum() > 0.01 * cube.size
    rows, columns = np.nonzero(cube)
    assert abs(columns.mean() - 160) < 60
    assert jaws[:, : int(columns.min())].sum() > 0.01 * jaws.size
    assert jaws[:, int(columns.max()) :].sum() > 0.001 * jaws.size
    assert np.nonzero(jaws)[0].mean() > rows.mean()  # the jaws come from below


def test_the_overview_shows_the_whole_arm_in_its_colour():
    simulation = over_the_cube()
    with Renderer(simulation.model, 320, 240) as renderer:
        picture = renderer.draw(simulation.data, OVERVIEW).astype(int)
    yellow = (picture[..., 0] > 100) & (picture[..., 1] > 0.6 * picture[..., 0]) & (picture[..., 2] < 80)
    assert 0.03 < yellow.mean() < 0.4
    edge = np.concatenate([yellow[0], yellow[-1], yellow[:, 0], yellow[:, -1]])
    assert not edge.any()


def test_leaving_out_what_is_out_of_view_changes_no_pixel():
    simulation = Simulation(get_preset('easy', 'place').scene)
    low, high = limits_arrays()
    rng = np.random.default_rng(0)
    everything = np.ones(simulation.model.ngeom, dtype=np.bool_)
    with Renderer(simulation.model, 84, 84) as renderer:
        culling, hidden = renderer._in_view, 0
        for _ in range(15):
            simulation.data.qpos[simulation.index.arm.qpos] = rng.uniform(low, high)
            mujoco.mj_forward(simulation.model, simulation.data)
            for camera in (simulation.index.arm.camera, simulation.model.camera(OVERVIEW).id):
                renderer._in_view = culling
                quick = renderer.draw(simulation.data, camera)
                hidden += int((~culling(simulation.data, camera)).sum())
                renderer._in_view = lambda *_: everything
                assert np.array_equal(quick, renderer.draw(simulation.data, camera))
    assert hidden > 100


def test_drawing_leaves_the_model_as_it_was():
    simulation = over_the_cube()
    groups = simulation.model.geom_group.copy()
    with Renderer(simulation.model, 64, 64) as renderer:
        renderer.draw(simulation.data, OVERVIEW)
    assert np.array_equal(simulation.model.geom_group, groups)


def test_a_square_picture_is_the_centre_of_a_wide_one():
    simulation = over_the_cube()
    with Renderer(simulation.model, 640, 480) as wide, Renderer(simulation.model, 168, 168) as square:
        camera = simulation.index.arm.camera
        expected = preprocess(wide.draw(simulation.data, camera)).astype(float)
        small = preprocess(square.draw(simulation.data, camera)).astype(float)
    error = np.mean((expected - small) ** 2)
    assert 10.0 * np.log10(255.0**2 / error) > 38.0


def test_two_renderers_draw_in_turn():
    simulation = over_the_cube()
    with Renderer(simulation.model, 64, 48) as first, Renderer(simulation.model, 48, 64) as second:
        a = first.draw(simulation.data, OVERVIEW)
        b = second.draw(simulation.data, OVERVIEW)
        assert np.array_equal(first.draw(simulation.data, OVERVIEW), a)
    assert (a.shape, b.shape) == ((48, 64, 3), (64, 48, 3))


def test_a_new_colour_shows_in_the_next_picture():
    simulation = over_the_cube()
    with Renderer(simulation.model, 64, 64) as renderer:
        camera = simulation.index.arm.camera
        red = renderer.draw(simulation.data, camera)
        simulation.model.geom_rgba[simulation.index.cube_geom] = (0.0, 0.0, 1.0, 1.0)
        assert not np.array_equal(renderer.draw(simulation.data, camera), red)


def test_closing_twice_is_harmless():
    renderer = Renderer(Simulation().model, 16, 16)
    renderer.close()
    renderer.close()


@pytest.mark.parametrize('size', [(0, 10), (10, 5000)])
def test_an_impossible_size_is_refused(size):
    with pytest.raises(RenderError, match='picture'):
        Renderer(Simulation().model, *size)


def choose(code: str = '', **environment: str) -> 'subprocess.CompletedProcess[str]':
    kept = {k: v for k, v in os.environ.items() if k not in (render.REMEMBERED, render.CHOSEN_BY_USER)}
    return subprocess.run(
        [sys.executable, '-c', f'from so101_sim import render\n{code}\nprint(render.backend())'],
        capture_output=True,
        text=True,
        check=False,
        env={**kept, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path)), **environment},
    )


def test_a_backend_that_is_known_to_work_is_not_tried_again():
    done = choose('render.why_not = None', **{render.REMEMBERED: 'osmesa'})
    assert done.stdout.strip() == 'osmesa'


def test_a_backend_that_kills_its_process_is_passed_over():
    trial = "render._TRIAL = \"import os, sys\\nos.kill(os.getpid(), 11) if sys.argv[1] == 'egl' else sys.stdout.write('works')\""
    assert choose(trial).stdout.strip() == 'osmesa'


def test_without_any_backend_one_sentence_says_what_is_missing_and_what_to_install():
    trial = 'render._TRIAL = "import sys\\nsys.exit(\'no library \' + sys.argv[1])"'
    message = choose(trial).stderr.strip().splitlines()[-1]
    assert 'egl: no library egl; osmesa: no library osmesa' in message
    assert 'apt install' in message


def test_a_wish_is_the_only_one_tried():
    trial = 'render._TRIAL = "import sys\\nsys.exit(\'broken\')"'
    message = choose(trial, **{render.CHOSEN_BY_USER: 'osmesa'}).stderr.strip().splitlines()[-1]
    assert 'osmesa: broken' in message
    assert 'egl:' not in message


def test_a_wish_for_a_backend_with_a_screen_is_refused():
    assert "got 'glfw'" in choose(**{render.CHOSEN_BY_USER: 'glfw'}).stderr


def test_a_scene_without_visual_meshes_can_be_drawn():
    simulation = Simulation(SceneConfig(visuals='none'))
    with Renderer(simulation.model, 32, 32) as renderer:
        assert renderer.draw(simulation.data, OVERVIEW).any()

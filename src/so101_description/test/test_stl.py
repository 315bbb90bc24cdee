# SPDX-License-Identifier: Apache-2.0
from decimate import face_normals, read_stl, stl_bytes, weld
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
import numpy as np
import pytest

from so101_description.errors import MeshError
from so101_description.urdf import write_atomically

TRIANGLES = hnp.arrays(
    np.float32,
    st.tuples(st.integers(0, 20), st.just(3), st.just(3)),
    elements=st.floats(-10, 10, width=32),
)
TETRAHEDRON = np.array(
    [
        [[0, 0, 0], [0, 1, 0], [1, 0, 0]],
        [[0, 0, 0], [1, 0, 0], [0, 0, 1]],
        [[0, 0, 0], [0, 0, 1], [0, 1, 0]],
        [[1, 0, 0], [0, 1, 0], [0, 0, 1]],
    ],
    dtype=np.float32,
)


@given(TRIANGLES)
@settings(max_examples=50, deadline=None)
def test_written_triangles_are_read_back_bit_for_bit(tmp_path_factory, triangles):
    path = tmp_path_factory.mktemp('stl') / 'part.stl'
    write_atomically(path, stl_bytes(triangles, 'a part'))
    assert path.stat().st_size == 84 + 50 * len(triangles)
    np.testing.assert_array_equal(read_stl(path), triangles)


def test_bytes_depend_on_the_arguments_alone():
    assert stl_bytes(TETRAHEDRON, 'x') == stl_bytes(TETRAHEDRON.copy(), 'x')


def test_normals_point_out_of_a_counter_clockwise_face():
    np.testing.assert_allclose(face_normals(TETRAHEDRON)[0], (0, 0, -1))
    np.testing.assert_allclose(face_normals(TETRAHEDRON)[3], np.full(3, 3**-0.5), atol=1e-6)


def test_a_triangle_without_area_gets_no_normal():
    np.testing.assert_array_equal(face_normals(np.zeros((1, 3, 3), np.float32)), np.zeros((1, 3)))


def test_welding_shares_corners_and_keeps_the_surface():
    vertices, faces = weld(TETRAHEDRON)
    assert len(vertices) == 4
    np.testing.assert_array_equal(vertices[faces], TETRAHEDRON)


def test_welding_leaves_out_faces_that_are_lines():
    line = np.array([[[0, 0, 0], [1, 0, 0], [1, 0, 0]]], dtype=np.float32)
    _, faces = weld(np.concatenate([TETRAHEDRON, line]))
    assert len(faces) == 4


@pytest.mark.parametrize(
    'content',
    [
        b'',
        b'solid text\nfacet normal 0 0 1\n' * 10,
        b'version https://git-lfs.github.com/spec/v1\n',
        stl_bytes(TETRAHEDRON, 'x')[:-1],
        stl_bytes(TETRAHEDRON, 'x') + b'0',
    ],
    ids=['empty', 'text', 'git-lfs', 'short', 'long'],
)
def test_what_is_no_binary_stl_is_refused(tmp_path, content):
    path = tmp_path / 'part.stl'
    path.write_bytes(content)
    with pytest.raises(MeshError, match=r'expected a binary STL in .*part\.stl'):
        read_stl(path)


def test_coordinates_that_are_no_numbers_are_refused(tmp_path):
    path = tmp_path / 'part.stl'
    content = bytearray(stl_bytes(TETRAHEDRON, 'x'))
    content[100:104] = np.float32(np.inf).tobytes()
    path.write_bytes(content)
    with pytest.raises(MeshError, match='finite coordinates'):
        read_stl(path)


def test_a_missing_file_is_refused_by_name(tmp_path):
    with pytest.raises(MeshError, match=r'missing\.stl'):
        read_stl(tmp_path / 'missing.stl')


@pytest.mark.parametrize('title', ['solid part', 'x' * 81])
def test_a_header_that_readers_would_misread_is_refused(title):
    with pytest.raises(MeshError, match='title'):
        stl_bytes(TETRAHEDRON, title)


def test_nothing_is_left_beside_a_written_file(tmp_path):
    write_atomically(tmp_path / 'a', b'1')
    write_atomically(tmp_path / 'a', b'2')
    assert [p.name for p in tmp_path.iterdir()] == ['a']
    assert (tmp_path / 'a').read_bytes() == b'2'

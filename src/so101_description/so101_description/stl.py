# SPDX-License-Identifier: Apache-2.0
"""Binary STL files: read, write, and turn a heap of triangles into shared vertices and faces."""

import os
from pathlib import Path
import tempfile

import numpy as np
import numpy.typing as npt

from so101_description.errors import MeshError

Triangles = npt.NDArray[np.float32]  # (faces, 3 corners, 3 coordinates)
Faces = npt.NDArray[np.uint32]  # (faces, 3 indices of vertices)

_HEADER_BYTES = 80
_RECORD = np.dtype([('normal', '<f4', 3), ('corners', '<f4', (3, 3)), ('attribute', '<u2')])


def read_stl(path: Path) -> Triangles:
    """Return the triangles (n, 3, 3) of a binary STL file, in the file's unit.

    Raises:
        MeshError: there is no such file, or it is not a complete binary STL.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise MeshError(
            f'expected an STL file at {path}, got {error.strerror}; reinstall its package'
        ) from error
    start = _HEADER_BYTES + 4
    count = int.from_bytes(content[_HEADER_BYTES:start], 'little') if len(content) >= start else -1
    if len(content) != start + count * _RECORD.itemsize:
        raise MeshError(
            f'expected a binary STL in {path}, got {len(content)} bytes that are none; '
            'convert a text STL, and fetch the file if it is a Git LFS pointer'
        )
    triangles = np.frombuffer(content, dtype=_RECORD, offset=start)['corners'].astype(np.float32)
    if not np.isfinite(triangles).all():
        raise MeshError(f'expected finite coordinates in {path}, got NaN or infinity; replace the file')
    return triangles


def stl_bytes(triangles: Triangles, title: str) -> bytes:
    """Return a binary STL file.

    The bytes depend on the arguments alone: no date, no program version.

    Args:
        triangles: corners (n, 3, 3), counter-clockwise seen from outside.
        title: up to 80 ASCII characters for the header.
    """
    header = title.encode('ascii')
    if len(header) > _HEADER_BYTES or header.startswith(b'solid'):
        raise MeshError(
            f"expected a title of at most 80 characters that does not start with 'solid', got {title!r}"
        )
    records = np.zeros(len(triangles), dtype=_RECORD)
    records['corners'] = triangles
    records['normal'] = face_normals(triangles)
    return header.ljust(_HEADER_BYTES, b' ') + len(triangles).to_bytes(4, 'little') + records.tobytes()


def write_atomically(path: Path, content: bytes) -> None:
    """Write a file aside and rename it, so that a reader never meets half of it."""
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(content)
    Path(file.name).chmod(0o644)
    os.replace(file.name, path)


def face_normals(triangles: Triangles) -> Triangles:
    """Return the unit normals (n, 3) of triangles (n, 3, 3); zero where a triangle has no area."""
    corners = triangles.astype(np.float64)
    normals = np.cross(corners[:, 1] - corners[:, 0], corners[:, 2] - corners[:, 0])
    lengths = np.linalg.norm(normals, axis=1, keepdims=True)
    unit = normals / np.where(lengths > 0, lengths, 1.0)
    return unit.astype(np.float32)


def weld(triangles: Triangles) -> tuple[npt.NDArray[np.float32], Faces]:
    """Share equal corners between triangles.

    Args:
        triangles: corners (n, 3, 3).

    Returns:
        Vertices (v, 3) in sorted order without duplicates, and faces (n', 3) that index them. Faces with two
        equal corners are left out.
    """
    vertices, indices = np.unique(triangles.reshape(-1, 3), axis=0, return_inverse=True)
    faces = indices.reshape(-1, 3)
    proper = (faces[:, 0] != faces[:, 1]) & (faces[:, 1] != faces[:, 2]) & (faces[:, 2] != faces[:, 0])
    return np.ascontiguousarray(vertices), np.ascontiguousarray(faces[proper], dtype=np.uint32)

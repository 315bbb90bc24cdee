# SPDX-License-Identifier: Apache-2.0
"""Which pictures of a dataset are those of a camera of the observation, and how they become what a network sees.

Pictures go through the one image pipeline. Those of our own export have gone through it already: they are scaled, where
another size is wanted, but never cut out of the middle a second time.
"""

from collections.abc import Mapping, Sequence

from hilserl_learner.errors import DatasetError
from hilserl_learner.lerobot.dataset import DatasetInfo, EpisodeInfo
from hilserl_learner.lerobot.reader import DatasetReader, UInt8Array
from so101_contract.image import preprocess
from so101_contract.observation_spec import CameraSpec, ObservationSpec


def camera_key(name: str) -> str:
    """Return the feature that holds the pictures of a camera."""
    return f'observation.images.{name}'


class Cameras:
    """The cameras of an observation in a dataset."""

    def __init__(self, reader: DatasetReader, observation: ObservationSpec, chosen: Sequence[str]) -> None:
        """Find them.

        Args:
            reader: of the dataset.
            observation: whose cameras.
            chosen: `NAME=FEATURE` where the names differ.

        Raises:
            DatasetError: it is not clear which, or our export cut them out otherwise.
        """
        self._reader, self._cameras = reader, observation.cameras
        self._keys = match_cameras(reader.info, observation, chosen)
        own = reader.info.provenance
        known = {} if own is None else {camera_key(camera.name): camera for camera in own.observation.cameras}
        self._sources = {camera.name: known.get(self._keys[camera.name]) for camera in observation.cameras}
        for camera in observation.cameras:
            source = self._sources[camera.name]
            if source is not None and source.crop != camera.crop:
                raise DatasetError(
                    f'expected pictures of {self._keys[camera.name]} cut out at {camera.box}, got an export of an '
                    f'observation that cuts them at {source.box}; export with the observation that you ingest with'
                )

    @property
    def features(self) -> tuple[str, ...]:
        """The features with the pictures, in the order of the cameras."""
        return tuple(self._keys.values())

    def pictures(self, episode: EpisodeInfo, rows: Sequence[int]) -> dict[int, dict[str, UInt8Array]]:
        """Return the pictures of each camera at some rows of an episode, as networks see them."""
        found: dict[int, dict[str, UInt8Array]] = {row: {} for row in rows}
        for camera in self._cameras:
            for row, picture in self._reader.pictures(episode, self._keys[camera.name], rows):
                found[row][camera.name] = self._processed(camera, picture)
        return found

    def processed(self, pictures: Mapping[str, UInt8Array]) -> dict[str, UInt8Array]:
        """Return pictures by camera as networks see them, of pictures by feature."""
        return {c.name: self._processed(c, pictures[self._keys[c.name]]) for c in self._cameras}

    def _processed(self, camera: CameraSpec, picture: UInt8Array) -> UInt8Array:
        crop = camera.box if self._sources[camera.name] is None else None
        return preprocess(picture, size=camera.size, crop=crop)


def match_cameras(info: DatasetInfo, observation: ObservationSpec, chosen: Sequence[str]) -> dict[str, str]:
    """Return the feature with the pictures of each camera of an observation.

    Raises:
        DatasetError: it is not clear which.
    """
    there = [key for key in info.cameras if not info.features[key].depth]
    said = dict(part.split('=', 1) for part in chosen if '=' in part)
    foreign = [
        part for part in chosen if part.split('=', 1)[0] not in observation.camera_names or '=' not in part
    ]
    if foreign:
        raise DatasetError(
            f'expected --camera NAME=FEATURE with one of the names {list(observation.camera_names)}, got {foreign}'
        )
    matched: dict[str, str] = {}
    for name in observation.camera_names:
        single = there[0] if len(there) == len(observation.camera_names) == 1 else ''
        asked = said.get(name, '')
        wanted = asked if asked in there else camera_key(asked or name)
        key = wanted if wanted in there else '' if asked else single
        if not key or key in matched.values():
            raise DatasetError(
                f'expected the pictures of the camera {name} in {info.folder}, got {there}; say which it is: '
                f'--camera {name}={there[0] if there else "FEATURE"}'
            )
        matched[name] = key
    return matched

# SPDX-License-Identifier: Apache-2.0
"""The camera's lens as `sensor_msgs/CameraInfo` wants it: from a calibration file, or a plain pinhole."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from so101_description.cameras import Intrinsics

MODELS = {'plumb_bob': 5, 'rational_polynomial': 8, 'equidistant': 4}
"""Distortion models of ROS and how many coefficients each has."""


class LensError(ValueError):
    """A camera calibration cannot be used; the message says why."""


@dataclass(frozen=True)
class Lens:
    """Calibration of one camera for one image size; matrices row by row.

    Attributes:
        width: image width [px].
        height: image height [px].
        model: distortion model.
        d: distortion coefficients.
        k: camera matrix (9).
        r: rectification (9).
        p: projection (12).
    """

    width: int
    height: int
    model: str
    d: tuple[float, ...]
    k: tuple[float, ...]
    r: tuple[float, ...]
    p: tuple[float, ...]

    def __post_init__(self) -> None:
        """Check sizes."""
        if self.width <= 0 or self.height <= 0:
            raise LensError(
                f'expected an image size, got {self.width}x{self.height}; calibrate the camera again'
            )
        if self.model not in MODELS:
            raise LensError(f'expected a distortion model of {", ".join(MODELS)}, got {self.model!r}')
        for name, length in (('d', MODELS[self.model]), ('k', 9), ('r', 9), ('p', 12)):
            if len(getattr(self, name)) != length:
                raise LensError(f'expected {length} numbers in {name}, got {len(getattr(self, name))}')

    @classmethod
    def pinhole(cls, intrinsics: Intrinsics) -> 'Lens':
        """Make the lens of a camera without distortion, for example of a preset."""
        fx, fy, cx, cy = intrinsics.fx, intrinsics.fy, intrinsics.cx, intrinsics.cy
        return cls(
            width=intrinsics.width,
            height=intrinsics.height,
            model='plumb_bob',
            d=(0.0,) * 5,
            k=(fx, 0.0, cx, 0.0, fy, cy, 0.0, 0.0, 1.0),
            r=(1.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0, 1.0),
            p=(fx, 0.0, cx, 0.0, 0.0, fy, cy, 0.0, 0.0, 0.0, 1.0, 0.0),
        )

    @classmethod
    def from_yaml(cls, path: Path) -> 'Lens':
        """Read the file that ROS's camera calibrator writes.

        Raises:
            LensError: the file is missing or is no camera calibration.
        """
        try:
            content = yaml.safe_load(path.read_text())
            return cls(
                width=int(content['image_width']),
                height=int(content['image_height']),
                model=str(content['distortion_model']),
                d=_numbers(content['distortion_coefficients']),
                k=_numbers(content['camera_matrix']),
                r=_numbers(content['rectification_matrix']),
                p=_numbers(content['projection_matrix']),
            )
        except LensError as error:
            raise LensError(f'{path}: {error}') from error
        except OSError as error:
            raise LensError(f'the camera calibration {path} cannot be read ({error.strerror})') from error
        except (yaml.YAMLError, KeyError, TypeError, ValueError) as error:
            raise LensError(
                f'{path} is no camera calibration ({type(error).__name__}: {error}); '
                'expected the file that `cameracalibrator` writes'
            ) from error

    def scaled(self, width: int, height: int) -> 'Lens':
        """Return the lens for images of another size [px] of the same view.

        Raises:
            LensError: the aspect ratio differs, so that the view is not the same.
        """
        if abs(width * self.height - height * self.width) > max(self.width, self.height):
            raise LensError(
                f'expected the aspect ratio of {self.width}x{self.height}, got {width}x{height}; '
                'calibrate the camera at the size that you use'
            )
        sx, sy = width / self.width, height / self.height
        k, p = list(self.k), list(self.p)
        # Pixel centres have integer coordinates: the first one moves when the pixels change size.
        k[0], k[1], k[2] = k[0] * sx, k[1] * sx, (k[2] + 0.5) * sx - 0.5
        k[4], k[5] = k[4] * sy, (k[5] + 0.5) * sy - 0.5
        p[0], p[1], p[2], p[3] = p[0] * sx, p[1] * sx, (p[2] + 0.5) * sx - 0.5, p[3] * sx
        p[5], p[6], p[7] = p[5] * sy, (p[6] + 0.5) * sy - 0.5, p[7] * sy
        return replace(self, width=width, height=height, k=tuple(k), p=tuple(p))


def _numbers(block: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in block['data'])

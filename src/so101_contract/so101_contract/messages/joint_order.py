# SPDX-License-Identifier: Apache-2.0
"""Values that come with joint names in any order, put into ours."""

from collections.abc import Iterable
import functools

import numpy as np
import numpy.typing as npt

from so101_contract.errors import JointError
from so101_contract.joints import JOINT_NAMES


class MissingJointError(JointError, KeyError):
    """A joint of this arm is not among the names that came."""

    __str__ = Exception.__str__  # KeyError would show the message in quotes


def order_by_name(names: Iterable[str], values: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Put values that come with joint names into `JOINT_NAMES` order.

    Args:
        names: joint names as they came, in any order; names of other joints are ignored.
        values: one value per name (n,), any unit.

    Returns:
        The (6,) values of this arm's joints, as a new array.

    Raises:
        JointError: a joint is named twice, or the lengths differ.
        MissingJointError: a joint is missing; it is a `KeyError` as well.
    """
    given = tuple(names)
    array = np.asarray(values, dtype=np.float64)
    if array.shape != (len(given),):
        raise JointError(
            f'expected one value per joint name, got {len(given)} names and values of shape {array.shape}; '
            f'fill both lists of the message'
        )
    return array[_places(given)]


@functools.lru_cache(maxsize=16)
def _places(given: tuple[str, ...]) -> npt.NDArray[np.intp]:
    """Return where the joints of this arm stand among the names; they are the same in every message of a topic."""
    index = {name: i for i, name in enumerate(given)}
    if len(index) != len(given):
        twice = sorted({name for name in given if given.count(name) > 1})
        raise JointError(
            f'expected each joint once, got {twice} more than once in {list(given)}; rename them'
        )
    missing = [name for name in JOINT_NAMES if name not in index]
    if missing:
        raise MissingJointError(
            f'expected the joints {list(JOINT_NAMES)}, got {list(given)} without {missing}; '
            f'publish every joint in each message'
        )
    places = np.array([index[name] for name in JOINT_NAMES], dtype=np.intp)
    places.setflags(write=False)
    return places

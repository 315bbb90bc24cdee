# SPDX-License-Identifier: Apache-2.0
"""The interval of a rate."""

import pytest

from so101_contract.interval import wilson


def test_the_interval_of_a_rate_is_wilsons():
    assert wilson(200, 200)[0] == pytest.approx(0.981, abs=0.001)
    assert wilson(0, 0) == (0.0, 1.0)
    assert wilson(15, 20) == pytest.approx((0.531, 0.888), abs=0.001)

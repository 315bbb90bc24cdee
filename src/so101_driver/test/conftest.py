# SPDX-License-Identifier: Apache-2.0
"""A virtual arm that answers at once, and a bus on it."""

from collections.abc import Callable, Iterator
import time

import pytest

from so101_driver.bus.bus import ServoBus
from so101_driver.bus.config import BusConfig
from so101_driver.emulator.arm import VirtualArm

PATIENT = BusConfig(min_timeout_s=0.03, timeout_s=0.1, retries=4, budget_s=0.5)


@pytest.fixture
def virtual_arm() -> Iterator[VirtualArm]:
    with VirtualArm(pacing=False) as arm:
        yield arm


@pytest.fixture
def bus(virtual_arm: VirtualArm) -> Iterator[ServoBus]:
    # patient, since the machine that runs the tests may be busy
    with ServoBus(virtual_arm.port, config=PATIENT) as bus:
        yield bus
        virtual_arm.faults.clear()


@pytest.fixture
def wait_until() -> Callable[..., None]:
    def wait(condition: Callable[[], object], what: str, deadline_s: float = 100.0) -> None:
        end = time.monotonic() + deadline_s
        while not condition():
            if time.monotonic() > end:
                pytest.fail(f'Not within {deadline_s} s: {what}')
            time.sleep(0.002)

    return wait

# SPDX-License-Identifier: Apache-2.0
"""Parameters of console_node."""

from dataclasses import dataclass

from so101_contract.observation_spec import CONTROL_RATE_HZ
from so101_interfaces_py.params import check_bounds, param


@dataclass(frozen=True)
class ConsoleConfig:
    """Where the page is served and how often it is told what."""

    host: str = param(
        '127.0.0.1',
        doc='Address to serve on; any other than this machine needs a token (SO101_CONSOLE_TOKEN).',
    )
    port: int = param(8101, doc='Port to serve on; 0 takes a free one.', lo=0, hi=65535)
    token: str = param(
        '', doc='Secret that a browser must know; empty: the one in SO101_CONSOLE_TOKEN, or none.'
    )
    rate_hz: float = param(
        2.0 * CONTROL_RATE_HZ,
        doc='How often the graph hears what the person at the page wants.',
        unit='Hz',
        lo=1.0,
        hi=50.0,
    )
    state_rate_hz: float = param(
        10.0, doc='How often a page hears how things are.', unit='Hz', lo=1.0, hi=30.0
    )
    camera_rate_hz: float = param(
        10.0, doc='Most pictures per second sent to a page.', unit='Hz', lo=0.0, hi=30.0
    )
    jpeg_quality: int = param(80, doc='Of the pictures sent to a page.', lo=10, hi=100)
    silence_s: float = param(
        0.2, doc='A page that drives and is silent for so long drives no more.', unit='s', lo=0.05, hi=1.0
    )
    speed: float = param(
        0.5, doc='Of the hand at full stick, as a share of the largest action.', lo=0.05, hi=1.0
    )
    bags: str = param('bags', doc='Folder of the bags whose episodes can be looked at again.')

    def __post_init__(self) -> None:
        """Check each value."""
        check_bounds(self)

# SPDX-License-Identifier: Apache-2.0
"""What `./so101 up` shows in a terminal: a status that stays in place; what the nodes say goes to a file."""

from so101_bringup.terminal.listener import Listener
from so101_bringup.terminal.screen import Screen

__all__ = ['Listener', 'Screen']

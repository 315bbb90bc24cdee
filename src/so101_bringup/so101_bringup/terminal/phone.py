# SPDX-License-Identifier: Apache-2.0
"""`phone:=true`: the page for a phone in the same network, by a token, and its address as a code to photograph."""

from collections.abc import Callable, Mapping, Sequence
import os
import secrets

from so101_bringup.options import OptionError, Options
from so101_bringup.supervisor import Output
from so101_bringup.terminal.board import page_address
from so101_console.access import TOKEN_VARIABLE

TOKEN_BYTES = 12
HALVES = {(False, False): ' ', (True, False): '▀', (False, True): '▄', (True, True): '█'}
"""Two rows of a code in one line of a terminal, by whether the upper and the lower one is dark."""
QUIET = 2
"""Light modules around a code."""


def phone_environment(options: Options, environ: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return the token that a page for others needs: the one that is set, or a new one for this start.

    Raises:
        OptionError: there is no page.
    """
    if not options['phone']:
        return {}
    if not options['console']:
        raise OptionError(
            "phone:=true shows the operator's page on a phone, and console:=false leaves it out."
        )
    return {TOKEN_VARIABLE: environ.get(TOKEN_VARIABLE) or secrets.token_urlsafe(TOKEN_BYTES)}


def code_lines(address: str) -> list[str]:
    """Return an address as a QR code in the characters of a terminal, dark on light."""
    import segno

    rows = [[bool(dark) for dark in row] for row in segno.make(address, error='m').matrix_iter(border=QUIET)]
    if len(rows) % 2:
        rows.append([False] * len(rows[0]))
    return [
        ''.join(HALVES[pair] for pair in zip(upper, lower, strict=True))
        for upper, lower in zip(rows[::2], rows[1::2], strict=True)
    ]


class PhoneCode:
    """Shows the code once the page has an address, and passes everything on.

    Args:
        output: takes what there is to read of the stack.
        show: takes the lines of the code.
    """

    def __init__(self, output: Output, show: Callable[[Sequence[str]], None]) -> None:
        self._output, self._show = output, show
        self._shown = ''

    def write(self, label: str, line: str) -> None:
        """Take a line of a process."""
        self._output.write(label, line)
        address = page_address(line)
        if address and address != self._shown:
            self._shown = address
            self._show(code_lines(address))

    def tell(self, label: str, sentence: str) -> None:
        """Take a sentence about a process."""
        self._output.tell(label, sentence)

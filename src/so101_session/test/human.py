# SPDX-License-Identifier: Apache-2.0
"""A human at a pseudo-terminal, and the terminal that the human sits at."""

import os
import pty
import select
import termios
import time


class Human:
    """Types on the one end of a terminal; `slave` is the other one.

    Args:
        kitty: the terminal speaks the kitty keyboard protocol.
        flags: what it does of the protocol once it is asked for all of it.
        answers: the terminal answers when it is asked.
    """

    def __init__(self, kitty=False, answers=True, flags=11):
        self.master, self.slave = pty.openpty()
        os.set_blocking(self.master, False)
        self.kitty, self.answers, self.flags = kitty, answers, flags
        self.said = b''
        self.before = termios.tcgetattr(self.slave)

    def type(self, data):
        os.write(self.master, data if isinstance(data, bytes) else data.encode())

    def look(self):
        """Read what is shown, and answer as a terminal does."""
        while select.select([self.master], [], [], 0.0)[0]:
            try:
                data = os.read(self.master, 4096)
            except OSError:
                return self.said
            self.said += data
            if self.answers:
                if self.kitty and b'\x1b[?u' in data:
                    asked = b'\x1b[>11u' in self.said
                    self.type(b'\x1b[?%du' % (self.flags if asked else 0))
                self.type(b'\x1b[0n' * data.count(b'\x1b[5n'))
        return self.said

    def restored(self):
        return termios.tcgetattr(self.slave) == self.before

    def close(self):
        for handle in (self.master, self.slave):
            os.close(handle)


def hold(human, presses, act, period=0.02, pause=0.5, rate=30.0):
    """Type in real time as somebody who holds keys of a plain terminal; call `act` each period."""
    from typematic import bytes_of

    queue = bytes_of(presses, pause, rate)
    begin = time.monotonic()
    end = max(press.up for press in presses)
    while (now := time.monotonic() - begin) < end:
        while queue and queue[0][0] <= now:
            human.type(queue.pop(0)[1])
        human.look()
        act(now)
        time.sleep(period)

# SPDX-License-Identifier: Apache-2.0
"""arm_node, with an Arm whose cycle fails from some call on: what a bug in the loop would do."""

import sys
import time

from so101_driver import arm_node

FIRST = 150


class FailingArm(arm_node.Arm):
    """An arm with a bug."""

    calls = 0

    def cycle(self) -> arm_node.ArmState:
        """Fail from the call `FIRST` on."""
        self.calls += 1
        if self.calls == FIRST:
            sys.stderr.write(f'CYCLE FAILS {time.monotonic()}\n')
        if self.calls >= FIRST:
            raise RuntimeError('a bug in the loop')
        return super().cycle()


if __name__ == '__main__':
    arm_node.Arm = FailingArm
    arm_node.main()

# SPDX-License-Identifier: Apache-2.0
"""Lets the tests of this package import what they share; one thread each, the suite shares the machine."""

from pathlib import Path
import sys

from hypothesis import settings
import torch

sys.path.insert(0, str(Path(__file__).parent))
torch.set_num_threads(1)

# A busy machine may take its time over one example; the suite's timeout still ends what hangs.
settings.register_profile('so101', deadline=None)
settings.load_profile('so101')

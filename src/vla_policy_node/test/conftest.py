# SPDX-License-Identifier: Apache-2.0
"""Lets the tests of this package import what they share."""

from pathlib import Path
import sys

from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))

# A busy machine may take its time over one example; the suite's timeout still ends what hangs.
settings.register_profile('so101', deadline=None)
settings.load_profile('so101')

# SPDX-License-Identifier: Apache-2.0
"""Makes the helpers in this folder importable."""

from pathlib import Path
import sys

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[2] / 'so101_bags' / 'test'))  # its maker of bags

# SPDX-License-Identifier: Apache-2.0
"""DrQ-v2 policies: networks, RoboBase checkpoints, policy store, and the node that acts."""

# SPDX-License-Identifier: Apache-2.0
"""What every SO-101 package agrees on: joints, actions, observations, episodes, policy manifests."""

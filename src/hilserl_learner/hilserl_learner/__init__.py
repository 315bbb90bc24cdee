# SPDX-License-Identifier: Apache-2.0
"""The learner: replay, bags, agents, trainer, checkpoints, and the node that learns live."""

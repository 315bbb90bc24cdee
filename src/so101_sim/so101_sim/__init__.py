# SPDX-License-Identifier: Apache-2.0
"""The SO-101 in MuJoCo: scene and tasks, Gymnasium environments, a scripted operator, and the twin behind the bus."""

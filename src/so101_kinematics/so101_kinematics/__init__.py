# SPDX-License-Identifier: Apache-2.0
"""Forward and inverse kinematics of the SO-101, and the end-effector controller; only the node knows ROS."""

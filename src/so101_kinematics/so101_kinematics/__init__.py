# SPDX-License-Identifier: Apache-2.0
"""Forward and inverse kinematics of the SO-101, and the end-effector controller; only the node knows ROS.

`fk` and `ik` answer where the TCP is and how to bring it somewhere; `ee_controller` turns displacements into joint
goals, with the parameters of `config`, which say where the TCP may be.
"""

__all__ = ['config', 'ee_controller', 'errors', 'fk', 'ik', 'kinematics_node', 'profiles', 'visualization']

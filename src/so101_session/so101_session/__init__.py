# SPDX-License-Identifier: Apache-2.0
"""The session: control clock, arbitration between policy and human, episodes, teleoperation, recording.

Rooms: `session` decides who acts and what an episode is, `teleop` is how a human acts, `recorder` keeps it all,
`lerobot` lets LeRobot's programs look on or drive.
"""

__all__ = ['lerobot', 'recorder', 'session', 'teleop']

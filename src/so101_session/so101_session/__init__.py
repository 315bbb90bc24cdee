# SPDX-License-Identifier: Apache-2.0
"""The session: control clock, arbitration between policy and person, episodes, teleoperation, recording."""

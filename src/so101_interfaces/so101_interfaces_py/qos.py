# SPDX-License-Identifier: Apache-2.0
"""QoS profiles, part of the interface: a publisher and a subscriber of one kind always match."""

from rclpy.qos import DurabilityPolicy, HistoryPolicy, QoSProfile, ReliabilityPolicy


def _profile(reliable: bool, depth: int, latched: bool = False) -> QoSProfile:
    return QoSProfile(
        reliability=ReliabilityPolicy.RELIABLE if reliable else ReliabilityPolicy.BEST_EFFORT,
        durability=DurabilityPolicy.TRANSIENT_LOCAL if latched else DurabilityPolicy.VOLATILE,
        history=HistoryPolicy.KEEP_LAST,
        depth=depth,
    )


# joint_states, tcp_pose: reliable, so that every tool can subscribe; our own loops want the newest only.
STATE_PUBLISHER = _profile(reliable=True, depth=10)
STATE_SUBSCRIBER = _profile(reliable=False, depth=1)
# ... except where a step may name any of them: policy and learner want each one.
STATE_EVERY = _profile(reliable=True, depth=100)
# Camera images: newest only; a frame that waits for a resend is worth less than the next one.
IMAGE = _profile(reliable=False, depth=1)
# For those who must find the image that a step names.
IMAGE_EVERY = _profile(reliable=False, depth=10)
# joint_command, ee_delta_cmd: a stale set-point is worse than a lost one, and the receiver has a watchdog.
COMMAND = _profile(reliable=True, depth=1)
# Steps and events: none may be lost, an edge happens once.
EVENT = _profile(reliable=True, depth=100)
# Status, weights' manifest, robot_description: whoever joins late gets the present value.
LATCHED = _profile(reliable=True, depth=1, latched=True)
# ... and for those who must not miss a state that lasts for a moment only, such as a stop.
LATCHED_EVERY = _profile(reliable=True, depth=100, latched=True)
# ... from a publisher that keeps enough to send again what was lost on the way.
LATCHED_RECENT = _profile(reliable=True, depth=10, latched=True)
# Weights come in chunks: all of the newest version must be there for whoever joins late.
WEIGHTS = _profile(reliable=True, depth=64, latched=True)
# /tf and markers, with the depths that RViz expects.
TF = _profile(reliable=True, depth=100)
MARKERS = _profile(reliable=True, depth=1)
DIAGNOSTICS = _profile(reliable=True, depth=10)

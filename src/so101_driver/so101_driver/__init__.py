# SPDX-License-Identifier: Apache-2.0
"""Driver of the SO-101 arm: servo bus, calibration, safety gate, camera and a virtual arm."""

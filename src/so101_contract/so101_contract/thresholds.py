# SPDX-License-Identifier: Apache-2.0
"""Numbers by which several parts judge the same thing: said once, so that no two of them advise differently.

What a single part decides for itself is a parameter of that part; what driver, doctor, page and bag check all have an
opinion about stands here.
"""

SERVO_WARM_C = 55.0
"""Temperature of a servo that is worth a warning [degC]."""

SERVO_HOT_C = 65.0
"""Temperature at which a servo is switched off [degC]: its windings are specified to 70."""

LONG_INTERVENTION_STEPS = 30
"""A takeover of more steps in a row teaches little: HIL-SERL (Luo et al., 2024) asks for short corrections
rather than whole episodes by hand, which make the critic optimistic about states that the policy never reaches."""

STICK_DEAD_ZONE = 0.15
"""Share of a stick's way that counts as rest; worn hobby pads come to rest within a tenth."""

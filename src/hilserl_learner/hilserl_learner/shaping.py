# SPDX-License-Identifier: Apache-2.0
"""A price on opening and closing the gripper for nothing (SERL's grasp penalty).

It is taken off the reward when a transition is stored, so it is in every target that is computed from it, however
many critic updates there are for each update of the actor.
"""

from dataclasses import replace

from so101_contract.joints import gripper_rad_to_opening
from so101_contract.observation_spec import ObservationSpec
from so101_contract.transition import Transition

TOGGLE = 0.5
"""Difference between the opening asked for and the opening now that counts as opening or closing."""


class GripperPrice:
    """Takes the price off transitions in which the gripper is told to open or close."""

    def __init__(self, observation: ObservationSpec, price: float) -> None:
        """Prepare.

        Args:
            observation: says where the gripper's angle is in the state.
            price: taken off the reward of each such step; 0 changes nothing.
        """
        self.price = price
        self._gripper = observation.slice_of('joint_pos').stop - 1 if price else 0

    def applied(self, transition: Transition) -> Transition:
        """Return the transition with the price taken off where it is due."""
        if not self.price:
            return transition
        now = gripper_rad_to_opening(float(transition.frames[-1].state[self._gripper]))
        if abs(transition.action.opening - now) < TOGGLE:
            return transition
        return replace(transition, reward=transition.reward - self.price)

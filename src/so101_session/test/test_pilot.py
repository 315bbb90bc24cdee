# SPDX-License-Identifier: Apache-2.0
"""From what a human does to actions: when to speak, and what to say."""

from dataclasses import replace

import numpy as np
import pytest

from so101_contract.action import ActionSpec, GripperConvention
from so101_session.teleop.devices.base import DeviceState, Event, Feedback
from so101_session.teleop.pilot import Hand, Pilot

PERIOD = 0.1
FORWARD = DeviceState(active=True, axes=(0.5, 0.0, 0.0))


class Puppet:
    """A device that says what it is told to say."""

    def __init__(self):
        self.state = DeviceState()
        self.events = []

    def poll(self, now):
        events, self.events = tuple(self.events), []
        return replace(self.state, events=events)

    def feel(self, feedback, now):
        pass

    def close(self):
        pass


@pytest.fixture
def pilot():
    made = Pilot(Puppet(), Hand(ActionSpec(), 0.12), PERIOD)
    made.hand.commanded(0.3)
    return made


def test_a_human_that_does_not_act_says_nothing(pilot):
    assert all(pilot.step(1, index, False, Feedback(), index * PERIOD).say is None for index in range(5))
    assert all(pilot.tick(Feedback(), 1.0 + tick * 0.02).say is None for tick in range(50))


def test_each_step_is_answered_once_and_at_once(pilot):
    pilot.device.state = FORWARD
    for index in range(5):
        now = index * PERIOD
        said = [pilot.step(7, index, False, Feedback(), now).say]
        said += [pilot.tick(Feedback(), now + tick * 0.02).say for tick in range(1, 5)]
        assert [(say.episode, say.index) for say in said if say] == [(7, index)]
        assert said[0] is not None


def test_a_step_is_answered_as_soon_as_the_human_begins_to_act(pilot):
    assert pilot.step(7, 3, False, Feedback(), 0.0).say is None
    pilot.device.state = FORWARD
    assert pilot.tick(Feedback(), 0.04).say.index == 3


def test_without_steps_actions_come_at_their_rate(pilot):
    pilot.device.state = FORWARD
    said = [pilot.tick(Feedback(), 10.0 + tick * 0.02).say for tick in range(500)]
    assert sum(say is not None for say in said) == pytest.approx(100, abs=2)


def test_the_last_step_of_an_episode_is_not_answered(pilot):
    pilot.device.state = FORWARD
    pilot.step(1, 4, False, Feedback(), 0.0)
    assert pilot.step(1, 5, True, Feedback(), 0.05).say is None


def test_a_dead_device_says_nothing_whatever_it_held(pilot):
    pilot.device.state = replace(FORWARD, alive=False)
    assert all(pilot.step(1, index, False, Feedback(), index * PERIOD).say is None for index in range(5))


def test_a_dead_device_still_stops_the_arm(pilot):
    pilot.device.state = DeviceState(alive=False)
    pilot.device.events = [Event.E_STOP]
    assert pilot.tick(Feedback(), 0.0).events == (Event.E_STOP,)


def test_who_ceases_to_act_ends_the_motion_once(pilot):
    pilot.device.state = FORWARD
    assert pilot.step(1, 0, False, Feedback(), 0.0).rest is None
    pilot.device.state = DeviceState()
    turns = [pilot.tick(Feedback(), 0.02 * tick) for tick in range(1, 5)]
    assert [turn.rest is None for turn in turns] == [False, True, True, True]
    assert not turns[0].rest.value.translation.any()
    assert turns[0].rest.value.opening == 0.3
    assert not turns[0].rest.gone


def test_a_device_that_dies_in_motion_says_that_its_human_is_gone(pilot):
    pilot.device.state = FORWARD
    pilot.step(1, 0, False, Feedback(), 0.0)
    pilot.device.state = DeviceState(alive=False)
    assert pilot.tick(Feedback(), 0.02).rest.gone
    assert pilot.tick(Feedback(), 0.04).rest is None


def test_T7_events_are_passed_on_once(pilot):
    pilot.device.events = [Event.SUCCESS]
    told = [pilot.tick(Feedback(), tick * 0.02).events for tick in range(10)]
    assert told == [(Event.SUCCESS,)] + [()] * 9


def test_A6_the_opening_begins_with_what_was_commanded_last(pilot):
    pilot.device.state = FORWARD
    assert pilot.step(1, 0, False, Feedback(), 0.0).say.value.opening == 0.3


def test_A6_the_opening_is_absolute_and_stays_between_closed_and_open(pilot):
    pilot.device.state = DeviceState(active=True, gripper=1.0)
    said = [pilot.step(1, index, False, Feedback(), index * PERIOD).say.value.opening for index in range(10)]
    assert said[:3] == pytest.approx([0.42, 0.54, 0.66])
    assert said[-1] == 1.0
    pilot.device.state = DeviceState(active=True, gripper=-1.0)
    said = [
        pilot.step(1, index, False, Feedback(), index * PERIOD).say.value.opening for index in range(10, 20)
    ]
    assert said[-1] == 0.0


def test_A6_a_human_and_a_policy_mean_the_same_opening():
    spec, hand = ActionSpec(gripper=GripperConvention.SIGNED), Hand(ActionSpec(), 0.12)
    for network, opening in ((-1.0, 0.0), (0.0, 0.5), (1.0, 1.0)):
        hand.rest()
        hand.commanded(opening)
        value = hand.move(FORWARD)
        assert spec.to_wire([0.0, 0.0, 0.0, network]).opening == value.opening
        assert spec.from_wire(value.translation, value.opening).values[3] == network


def test_A6_what_others_tell_the_gripper_counts_again_once_the_human_rests(pilot):
    pilot.device.state = DeviceState(active=True, gripper=1.0)
    pilot.step(1, 0, False, Feedback(), 0.0)
    pilot.hand.commanded(0.9)  # an echo of another one, late: it does not move the hand of who acts
    assert pilot.hand.opening == pytest.approx(0.42)
    pilot.device.state = DeviceState()
    pilot.tick(Feedback(), 0.1)
    pilot.hand.commanded(0.9)
    assert pilot.hand.opening == 0.9


def test_A6_the_measured_gripper_counts_before_the_first_command():
    hand = Hand(ActionSpec(), 0.12)
    assert hand.move(FORWARD) is None
    hand.measured(0.7)
    assert hand.move(FORWARD).opening == 0.7
    hand.rest()
    hand.commanded(0.1)
    hand.measured(0.7)
    assert hand.opening == 0.1


def test_A6_displacements_are_metres_within_the_scale(pilot):
    pilot.device.state = DeviceState(active=True, axes=(0.5, -1.0, 0.25))
    value = pilot.step(1, 0, False, Feedback(), 0.0).say.value
    assert np.allclose(value.translation, [0.01, -0.02, 0.005])
    pilot.device.state = DeviceState(active=True, displacement=(0.05, 0.0, 0.0))
    value = pilot.step(1, 1, False, Feedback(), 0.1).say.value
    assert np.allclose(value.translation, [0.02, 0.0, 0.0])
    assert value.clipped[0]

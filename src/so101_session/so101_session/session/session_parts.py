# SPDX-License-Identifier: Apache-2.0
"""Puts a session together from its parameters."""

from collections.abc import Callable

from so101_contract.action import ActionSpec
from so101_contract.observation_spec import ObservationSpec
from so101_session.session.arbiter import Arbiter
from so101_session.session.clock import Senses, Source
from so101_session.session.config import ResetConfig, SessionConfig
from so101_session.session.machine import Session
from so101_session.session.reset import StartPlanner
from so101_session.session.takeover import GripperRamp, Takeover, TakeoverRules
from so101_sim.task_messages import TaskReport


def make_senses(config: SessionConfig, observation: ObservationSpec) -> Senses:
    """Return what a step observes: joints, cameras in the order of the observation, and signs of life."""
    return Senses(
        joints=Source('the arm has sent no joint_states', config.joint_timeout_s),
        cameras=[
            Source(f'the camera {camera} has sent no image', config.camera_timeout_s)
            for camera in observation.camera_names
        ],
        kinematics=Source('kinematics_node has sent no tcp_pose', config.joint_timeout_s),
    )


def make_session(
    config: SessionConfig,
    reset: ResetConfig,
    action: ActionSpec,
    senses: Senses,
    report: Callable[[], TaskReport | None],
) -> Session:
    """Return a session; `report` returns the newest ground truth of a simulation."""
    rules = TakeoverRules(
        auto_takeover=config.auto_takeover,
        give_back_s=config.give_back_s,
        timeout_s=config.teleop_timeout_s,
        dwell_steps=config.dwell_steps,
    )
    ramp = GripperRamp(config.gripper_ramp, config.gripper_ramp_steps)
    return Session(
        config,
        reset,
        arbiter=Arbiter(action, Takeover(rules), ramp, config.period_s),
        senses=senses,
        planner=StartPlanner(reset, config.tcp),
        report=report,
    )

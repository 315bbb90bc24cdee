# SPDX-License-Identifier: Apache-2.0
"""A vision-language-action model that acts through its own server, as a ROS node: steps in, actions out."""

import sys
import time
from typing import Any

from rclpy.publisher import Publisher
from sensor_msgs.msg import Image
from so101_interfaces.msg import ChunkStatus, EeDelta, EpisodeEvent, PolicyStatus
from std_msgs.msg import String

from drqv2_policy_node.answering import LIMITS, Mode
from drqv2_policy_node.config import AnsweringConfig
from drqv2_policy_node.policy_requirements import live_config
from drqv2_policy_node.step_node import StepNode
from so101_contract.assembly import Assembler
from so101_contract.errors import ContractError
from so101_contract.messages import action_record, image_pixels, JointSample
from so101_contract.observation_spec import CameraSpec
from so101_contract.session import Source
from so101_interfaces_py import qos, topics
from so101_interfaces_py.conversions import stamp_to_ns
from so101_interfaces_py.endings import leave
from so101_interfaces_py.params import load_config, ParameterError
from so101_interfaces_py.spin import run_node
from so101_kinematics.config import Workspace
from so101_kinematics.fk import state_function
from vla_policy_node.chunk_acting import ChunkActing
from vla_policy_node.chunks import Timeline
from vla_policy_node.client import PolicyServer
from vla_policy_node.config import VlaPolicyNodeConfig
from vla_policy_node.path import EePath
from vla_policy_node.sight import Sight
from vla_policy_node.worker import Worker

CONFIG = (VlaPolicyNodeConfig,)

SWITCH_INTERVAL_S = 0.0005
"""How long the thread that waits for the server may keep an action waiting [s]."""

STATUS_PERIOD_S = 0.5
LONGEST_INSTRUCTION = 400
"""Characters."""


class VlaPolicyNode(StepNode):
    """Answers steps with the chunks of a policy server."""

    _config: VlaPolicyNodeConfig
    _acting: ChunkActing

    def __init__(self, **node_options: Any) -> None:
        super().__init__('vla_policy_node', **node_options)
        config = load_config(self, VlaPolicyNodeConfig)
        live = live_config(config)
        spec, action = live.observation, live.action
        assert spec is not None
        assert action is not None
        assert live.workspace is not None
        plausibility, pace = config.plausibility(), config.pace()
        box = Workspace(live.workspace.low, live.workspace.high)
        self._worker = Worker(PolicyServer(config.server, token=config.token, timeout_s=config.timeout_s))
        acting = ChunkActing(
            Assembler(spec, state_function(spec), limits=LIMITS),
            self._worker,
            sight=Sight(spec.camera_names, plausibility.scale, pace.period_ns),
            timeline=Timeline(pace),
            path=EePath(spec.tcp, action, box),
            plausibility=plausibility,
            spec=action,
            step_ns=round(1e9 / config.control_rate_hz),
            cameras=config.camera_map(),
            timing=config.timing,
            mode=Mode(config.mode),
        )
        acting.instruction = config.instruction
        self._next_chunks, self._told_trouble = 0.0, ''
        self.answer_steps(config, live, acting, speaks=self._to_policy_node() if config.as_base else None)
        self._chunks = self.create_publisher(ChunkStatus, topics.POLICY_CHUNKS, qos.LATCHED)
        self.create_subscription(String, topics.POLICY_INSTRUCTION, self._on_instruction, qos.EVENT)
        executed = self.voices.only(topics.EE_DELTA_CMD, self._on_executed)
        self.create_subscription(EeDelta, topics.EE_DELTA_CMD, executed, qos.COMMAND)

    def _to_policy_node(self) -> tuple[Publisher, Publisher]:
        """Return where a base policy speaks: who acts on top of it, not the session, hears it there."""
        return (
            self.create_publisher(EeDelta, topics.BASE_EE_DELTA, qos.EVENT),
            self.create_publisher(PolicyStatus, topics.BASE_STATUS, qos.LATCHED),
        )

    def close(self) -> None:
        """End the thread that waits for the server."""
        self._worker.close()

    def seen(self, camera: CameraSpec, message: Image) -> None:
        """Keep the picture as the camera sent it: a server scales it down itself."""
        self._acting.sight.add_picture(camera.name, stamp_to_ns(message.header.stamp), image_pixels(message))

    def read_joints(self, sample: JointSample) -> None:
        """Keep the reading."""
        self._acting.sight.add_joints(sample)

    def refresh(self) -> None:
        """Take what came of the server, and say how it does."""
        if self._unheard:
            return
        self._acting.take_news(self.get_clock().now().nanoseconds)
        trouble = self._acting.trouble
        if trouble and trouble != self._told_trouble:
            self.get_logger().error(trouble)
        elif self._told_trouble and not trouble:
            self.get_logger().info('the policy server answers again')
        self._told_trouble = trouble
        now_s = time.monotonic()
        if now_s >= self._next_chunks:
            self._next_chunks = now_s + STATUS_PERIOD_S
            self._chunks.publish(self._chunk_status())

    def _on_instruction(self, message: String) -> None:
        if len(message.data) > LONGEST_INSTRUCTION:
            raise ContractError(
                f'expected an instruction of at most {LONGEST_INSTRUCTION} characters, got {len(message.data)}'
            )
        self._acting.instruction = message.data

    def _on_executed(self, message: EeDelta) -> None:
        if message.source in (Source.TELEOP, Source.RESET):
            self._acting.driven_by_other()
        elif self._config.as_base and message.source == Source.POLICY:
            self._acting.path.carried_out(action_record(message).translation)

    def started(self, event: EpisodeEvent) -> None:
        """Say what is going to be done."""
        told = self._acting.instruction
        self.get_logger().info(f'episode {event.episode}: {told!r}' if told else 'no instruction was given')

    def reconfigured(self, before: AnsweringConfig) -> None:
        """Take the instruction of the parameter, where that is what was set: the topic may have said another one."""
        assert isinstance(before, VlaPolicyNodeConfig)
        if self._config.instruction != before.instruction:
            self._acting.instruction = self._config.instruction

    # --- status ---

    def identity(self) -> tuple[Any, ...]:
        """Return the server's encoding, once it is known."""
        offer = self._acting.offer
        return () if offer is None else (offer.encoding,)

    def fill_status(self, message: PolicyStatus) -> None:
        """Say which server it is."""
        message.policy = self._config.server

    def _chunk_status(self) -> ChunkStatus:
        acting, now = self._acting, self.get_clock().now()
        chunk, offer = acting.timeline.latest, acting.offer
        message = ChunkStatus(
            server=self._config.server,
            encoding='' if offer is None else offer.encoding.value,
            instruction=acting.instruction,
            trouble=acting.trouble,
            accepted=acting.accepted,
            refused=acting.refused,
            chunk=0 if chunk is None else chunk.number,
            left=0 if chunk is None else chunk.left(now.nanoseconds),
            latency_p50=acting.latency_s(50),
            latency_p95=acting.latency_s(95),
            late_share=acting.timeline.late_share,
            first_distance=acting.first_rad,
            cut_share=acting.path.cut_share,
        )
        message.header.stamp = now.to_msg()
        return message


def main() -> None:
    """Run the node."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    leave(run_node(VlaPolicyNode, (ContractError, ParameterError)))


if __name__ == '__main__':
    main()

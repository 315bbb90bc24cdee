# SPDX-License-Identifier: Apache-2.0
"""The trial as a ROS node: gives the policy node the policy whose turn it is, and writes down how each episode ends.

A trial is one episode that the policy drives alone. Success counts as the session labels it; the limit of time and a
human's help are failures; what was thrown away or cut short by a fault is tried again. Nobody is told whose turn it is.
"""

from dataclasses import dataclass
from pathlib import Path
import time
from typing import Any

from rclpy.clock import Clock, ClockType
from so101_interfaces.msg import EpisodeEvent, PolicyStatus, PolicyWeights, SessionStatus
from so101_interfaces.srv import StartEpisode

from drqv2_policy_node.store import load_policy, pack
from drqv2_policy_node.weights import to_messages
from hilserl_learner.errors import LearnerError
from hilserl_learner.trial.protocol import Plan, Record, Trial
from so101_contract.errors import ContractError
from so101_contract.session import EventKind, Outcome, SessionState, to_record
from so101_interfaces_py import qos, topics
from so101_interfaces_py.endings import leave
from so101_interfaces_py.params import check_bounds, load_config, param, ParameterError
from so101_interfaces_py.spin import run_node, SoleNode, stop_spinning

TICK_S, ASK_AGAIN_S = 0.1, 2.0
COUNTS = {Outcome.SUCCESS: True, Outcome.FAILURE: False, Outcome.TIME_LIMIT: False}


@dataclass(frozen=True, kw_only=True)
class TrialConfig:
    """What is tried, and who says when."""

    plan: str = param('', doc='Folder of the plan that `./so101 trial` wrote; results are written there too.')
    starts: bool = param(
        False, doc='Begin each trial without Start, where a simulated scene arranges itself.'
    )

    most_repeats: int = param(
        10, doc='Times in a row that a trial is cut short or discarded before the whole ends.', lo=1, hi=1000
    )

    def __post_init__(self) -> None:
        """Check each value."""
        check_bounds(self)


CONFIG = (TrialConfig,)


class TrialNode(SoleNode):
    """Callbacks note, the tick goes on."""

    def __init__(self, **node_options: Any) -> None:
        super().__init__('trial_node', **node_options)
        self._config = load_config(self, TrialConfig)
        folder = Path(self._config.plan)
        self._plan = Plan.read(folder)
        self._record = Record(self._plan, folder)
        self._packed = {
            who: pack(load_policy(Path(policy)))
            for who, policy in zip('AB', self._plan.policies, strict=False)
        }
        self._sender, self._version = f'trial-{time.time_ns():x}', 0
        self._number: int | None = None
        self._repeats = 0
        self._episode, self._helped = 0, False
        self._unaided: dict[int, int] = {}
        """Trial of each episode of this session that a late label may correct."""
        self._state, self._acting_version = SessionState.UNKNOWN, 0
        self._asked_s = float('-inf')
        self._weights = self.create_publisher(PolicyWeights, topics.WEIGHTS, qos.WEIGHTS)
        self.create_subscription(EpisodeEvent, topics.EPISODE_EVENT, self._on_event, qos.EVENT)
        self.create_subscription(SessionStatus, topics.SESSION_STATUS, self._on_session, qos.LATCHED)
        self.create_subscription(PolicyStatus, topics.POLICY_STATUS, self._on_policy, qos.LATCHED)
        self._start = self.create_client(StartEpisode, topics.START_EPISODE_SERVICE)
        self.create_timer(TICK_S, self._tick, clock=Clock(clock_type=ClockType.STEADY_TIME))

    # --- callbacks ---

    def _on_session(self, message: SessionStatus) -> None:
        self._state = to_record(message).state

    def _on_policy(self, message: PolicyStatus) -> None:
        self._acting_version = message.version

    def _on_event(self, message: EpisodeEvent) -> None:
        try:
            kind = EventKind(message.kind)
        except ValueError:  # one that only a newer version knows
            return
        if kind is EventKind.START:
            self._begin(message.episode)
        elif message.episode == self._episode and kind is EventKind.INTERVENTION_START:
            self._helped = True
        elif kind.outcome is not None:
            self._end(message.episode, kind.outcome, message.reason)

    # --- what goes on ---

    def _begin(self, episode: int) -> None:
        if self._number is not None and self._loaded:
            self._episode, self._helped = episode, False
        else:
            self.get_logger().warning(
                f'episode {episode} begins before its policy is there, so it counts for nothing'
            )

    def _end(self, episode: int, outcome: Outcome, reason: str) -> None:
        if outcome not in COUNTS:
            if episode == self._episode:
                self._episode, self._repeats = 0, self._repeats + 1
                self.get_logger().warning(f'{outcome.name.lower()} ({reason}): the same trial again')
            return
        if episode in self._unaided:
            if self._record.relabel(self._unaided[episode], COUNTS[outcome], reason):
                self.get_logger().info(f'episode {episode}: corrected to {outcome.name.lower()}')
        elif episode == self._episode and self._number is not None:
            self._write_down(self._number, COUNTS[outcome], reason)

    def _write_down(self, number: int, success: bool, reason: str) -> None:
        if self._helped:
            success, reason = False, 'a human helped'
        else:
            self._unaided[self._episode] = number
        self._record.add(Trial(number, self._episode, success, reason))
        self._number, self._episode, self._repeats = None, 0, 0
        ended = 'success' if success else f'failure ({reason})'
        self.get_logger().info(f'trial {len(self._record.trials)}: {ended}')

    @property
    def _loaded(self) -> bool:
        return self._version > 0 and self._acting_version == self._version

    def _tick(self) -> None:
        if self._repeats >= self._config.most_repeats:
            self.get_logger().error(
                f'cut short {self._repeats} times in a row: see why, then go on with --resume'
            )
            self._finish()
        elif self._episode:
            return
        elif self._number is None:
            number = self._record.next()
            if number is None or self._record.is_over:
                self._finish()
            else:
                self._prepare(number)
        elif self._config.starts and self._loaded and self._state is SessionState.WAITING:
            self._ask_to_start()

    def _prepare(self, number: int) -> None:
        """Let the policy of a trial act, and say where the object goes."""
        self._number, self._version = number, self._version + 1
        place, who = self._plan.trials[number]
        stamp = self.get_clock().now().to_msg()
        for message in to_messages(*self._packed[who], self._version, 0, stamp=stamp, sender=self._sender):
            self._weights.publish(message)
        if not self._config.starts:
            at = self._plan.places[place]
            self.get_logger().info(
                f'trial {number + 1} of {len(self._plan.trials)}: put the object on mark {place + 1} of the sheet '
                f'(x {at.x * 1000:.0f} mm, y {at.y * 1000:.0f} mm), then Start'
            )

    def _ask_to_start(self) -> None:
        now = time.monotonic()
        if now - self._asked_s >= ASK_AGAIN_S and self._start.service_is_ready():
            self._asked_s = now
            self._start.call_async(StartEpisode.Request())

    def _finish(self) -> None:
        for line in self._record.report():
            self.get_logger().info(line)
        stop_spinning()


def main() -> None:
    """Run the node."""
    leave(run_node(TrialNode, (ParameterError, LearnerError, ContractError, OSError)))

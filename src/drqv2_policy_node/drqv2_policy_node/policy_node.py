# SPDX-License-Identifier: Apache-2.0
"""The policy as a ROS node: steps in, actions out, each from exactly the messages that its step names."""

from dataclasses import replace
import sys
from typing import Any

from so101_interfaces.msg import EeDelta, EpisodeEvent, LearnerStatus, PolicyStatus, PolicyWeights
from std_msgs.msg import String
import torch

from drqv2_policy_node.acting import Acting, Decision, exploration_std, Installed, Observed
from drqv2_policy_node.acting_on_base import ActingOnBase, Base, HeardBase, StoredBase
from drqv2_policy_node.answering import Answer, LIMITS, Mode
from drqv2_policy_node.config import AnsweringConfig, PolicyNodeConfig
from drqv2_policy_node.on_base import BaseTerms, OnBase
from drqv2_policy_node.policy import PolicyError
from drqv2_policy_node.policy_requirements import live_config, start_remark
from drqv2_policy_node.step_node import StepNode
from drqv2_policy_node.store import find_policy, load_policy, NO_POLICY
from drqv2_policy_node.weights import examine, Loaded, WeightsLoader
from so101_contract.action import EeDeltaValue
from so101_contract.assembly import Assembler
from so101_contract.errors import ContractError
from so101_contract.manifest import LiveConfig
from so101_contract.messages import action_message, action_record
from so101_contract.observation import observation_digest
from so101_contract.session import Source
from so101_interfaces_py import qos, topics
from so101_interfaces_py.endings import leave
from so101_interfaces_py.params import load_config, ParameterError
from so101_interfaces_py.spin import run_node
from so101_kinematics.fk import state_function

CONFIG = (PolicyNodeConfig,)

SERVER = 'server'
"""Base that vla_policy_node asks."""

BASE_WAIT = 0.5
"""Share of a step for which the base's word is waited for: an action needs the rest of it."""

SWITCH_INTERVAL_S = 0.0005
"""How long another thread of this process may keep an action waiting [s]."""


class PolicyNode(StepNode):
    """Answers steps with a stored policy, or with what the learner sends."""

    _config: PolicyNodeConfig
    _acting: Acting

    def __init__(self, **node_options: Any) -> None:
        super().__init__('policy_node', **node_options)
        config = load_config(self, PolicyNodeConfig)
        torch.set_num_threads(config.torch_threads)
        live = live_config(config)
        assert live.observation is not None
        acting = _acting(config, live)
        self._loaded: Loaded | None = None  # the policy in use
        self._arrived: Loaded | None = None  # assigned by the loader's thread
        self._remarks: tuple[str, ...] = ()
        self._env_steps = 0
        self.answer_steps(config, live, acting)
        self._observed = self.create_publisher(String, topics.POLICY_OBSERVED, qos.EVENT)
        self._base_said = self.create_publisher(EeDelta, topics.POLICY_BASE, qos.EVENT)
        if isinstance(acting, ActingOnBase) and isinstance(acting.base, HeardBase):
            base = self.voices.only(topics.BASE_EE_DELTA, self._on_base)
            self.create_subscription(EeDelta, topics.BASE_EE_DELTA, base, qos.EVENT)
        self._load_from_disk()
        self._loader = WeightsLoader(lambda: self._live, self._on_arrived)
        self.create_subscription(LearnerStatus, topics.LEARNER_STATUS, self._on_learner, qos.LATCHED)
        if config.follow_learner:
            weights = self.voices.only(topics.WEIGHTS, self._loader.put)
            self.create_subscription(PolicyWeights, topics.WEIGHTS, weights, qos.WEIGHTS)

    def close(self) -> None:
        """End the loader's thread."""
        self._loader.close()

    def started(self, event: EpisodeEvent) -> None:
        """Compare the arm's calibration with that of the policy."""
        if event.calibration_id and event.calibration_id != self._live.calibration_id:
            self._live = replace(self._live, calibration_id=event.calibration_id)
            if self._loaded is not None:
                self._remark(tuple(self._loaded.policy.manifest.check_recommended(self._live)))

    def _on_learner(self, message: LearnerStatus) -> None:
        self._env_steps = int(message.env_steps)
        self._set_noise()

    def _on_base(self, message: EeDelta) -> None:
        assert isinstance(self._acting, ActingOnBase)
        assert isinstance(self._acting.base, HeardBase)
        try:
            self._acting.base.take(action_record(message))
        except ContractError as error:
            self.warn(f'{topics.BASE_EE_DELTA}: {error}')
        self._answer()

    def reconfigured(self, before: AnsweringConfig) -> None:
        """Hold the noise to its new bound."""
        self._set_noise()

    def answered(self, answer: Answer, latency_s: float) -> None:
        """Say what was seen, what the base said, and whether the episode begins where those of the training did."""
        assert isinstance(answer, Decision)
        if answer.base is not None:
            self._tell_base(answer)
        if self._observed.get_subscription_count():
            self._observed.publish(String(data=_observed(answer, latency_s).to_json(indent=None)))
        if answer.step.index == 0 and self._loaded is not None and 'joint_pos' in self._spec.block_names:
            joints = answer.observation.state[-1, self._spec.slice_of('joint_pos')]
            remark = start_remark(self._loaded.policy.manifest, joints)
            if remark:
                self.get_logger().warning(remark, throttle_duration_sec=60.0)

    def _tell_base(self, answer: Decision) -> None:
        """Say what the base said, for whoever learns; it is the source where the step was left to it."""
        assert answer.base is not None
        base = answer.base
        self._base_said.publish(
            action_message(
                EeDeltaValue(base.translation, base.opening),
                Source.POLICY if base.acts else Source.NONE,
                self.get_clock().now().nanoseconds,
                episode=answer.step.episode,
                index=answer.step.index,
                frame_id=answer.frame_id,
            )
        )

    # --- policies ---

    def _load_from_disk(self) -> None:
        folder = find_policy(self._config.policy, self._config.observation, self._spec)
        if folder is not None:
            policy = load_policy(folder, on_base=isinstance(self._acting, ActingOnBase))
            self._arrived = examine(policy, self._live)
        elif self._config.follow_learner:
            self.get_logger().info('no policy to begin with: waiting for the learner')

    def _on_arrived(self, loaded: Loaded) -> None:
        """Take a policy from the loader's thread; the next action is its own.

        Raises:
            PolicyError: it corrects a base policy, and there is none here.
        """
        said = loaded.policy.manifest.on_base
        if said is not None and said.mode == 'residual' and not isinstance(self._acting, ActingOnBase):
            raise PolicyError('expected a policy that acts alone, got one that corrects a base; set base too')
        self._arrived = loaded

    def refresh(self) -> None:
        """Exchange the policy for the newest one, between two actions; the first one once there is something to see."""
        if self._unheard or self._arrived is None:
            wanted = sorted(self._unheard) or (['the learner'] if self._config.follow_learner else [])
            self._acting.waiting_for = f'waiting for {", ".join(wanted)}' if wanted else ''
            return
        loaded, self._arrived = self._arrived, None
        first, self._loaded = self._loaded is None or self._loaded.version == 0, loaded
        manifest = loaded.policy.manifest
        installed = Installed(
            policy=loaded.policy,
            action=manifest.action,
            name=manifest.name,
            version=loaded.version,
            std=0.0,
            observation_hash=manifest.observation.hash,
            stamp_ns=loaded.stamp_ns,
        )
        if isinstance(self._acting, ActingOnBase):
            self._acting.install(installed, loaded.policy)
        else:
            self._acting.installed = installed
        self._set_noise()
        self._remark(loaded.remarks)
        if first:
            self.get_logger().info(f'policy {manifest.name}, version {loaded.version}')

    def _set_noise(self) -> None:
        loaded, installed = self._loaded, self._acting.installed
        if loaded is None or installed is None:
            return
        std = exploration_std(
            loaded.schedule,
            loaded.policy.manifest.std_unit,
            updates=loaded.step,
            env_steps=self._env_steps,
            limit=self._config.max_std,
        )
        self._acting.installed = replace(installed, std=std)

    def _remark(self, remarks: tuple[str, ...]) -> None:
        """Tell the user what differs from training, once."""
        if remarks and remarks != self._remarks:
            self.get_logger().warning('not as in training: ' + '; '.join(remarks))
        self._remarks = remarks

    # --- status ---

    def identity(self) -> tuple[Any, ...]:
        """Return name and version of the policy in use."""
        installed = self._acting.installed
        return () if installed is None else (installed.name, installed.version)

    def fill_status(self, message: PolicyStatus) -> None:
        """Say which policy it is, with how much noise, how old its weights are, and what it is on top of."""
        if isinstance(self._acting, ActingOnBase):
            message.base, message.base_trouble = self._acting.base.name, self._acting.trouble
            message.actor_share = self._acting.mixed.recent_share
        installed = self._acting.installed
        if installed is None:
            return
        message.policy, message.version = installed.name, installed.version
        message.observation_hash = installed.observation_hash
        message.noise_std = installed.std if self._acting.mode is Mode.EXPLORE else 0.0
        if installed.stamp_ns is not None:
            message.weights_age = (self.get_clock().now().nanoseconds - installed.stamp_ns) * 1e-9


def _acting(config: PolicyNodeConfig, live: LiveConfig) -> Acting:
    """Return who answers the steps: a policy alone, or on top of a base."""
    spec, action = live.observation, live.action
    assert spec is not None
    assert action is not None
    assembler = Assembler(spec, state_function(spec), limits=LIMITS)
    how: dict[str, Any] = {'timing': config.timing, 'mode': Mode(config.mode), 'seed': config.seed}
    if config.base in NO_POLICY:
        return Acting(assembler, **how)
    base: Base
    if config.base == SERVER:
        base = HeardBase('policy server', action, round(BASE_WAIT * 1e9 / config.control_rate_hz))
    else:
        folder = find_policy(config.base, config.observation, spec)
        if folder is None:
            raise ParameterError(
                f'expected the folder of a policy as base, got {config.base!r}, which there is none for here; name it'
            )
        base = StoredBase(examine(load_policy(folder), live).policy, '/'.join(folder.parts[-2:]))
    mixed = OnBase(lambda _: None, None, spec, BaseTerms())
    return ActingOnBase(assembler, base, mixed, action, **how)


def _observed(decision: Decision, latency_s: float) -> Observed:
    return Observed(
        episode=decision.step.episode,
        index=decision.step.index,
        sha256=observation_digest(decision.observation),
        version=decision.by.version,
        std=decision.std,
        seed=decision.seed,
        latency_s=latency_s,
    )


def main() -> None:
    """Run the node."""
    sys.setswitchinterval(SWITCH_INTERVAL_S)
    leave(run_node(PolicyNode, (ContractError, ParameterError)))


if __name__ == '__main__':
    main()

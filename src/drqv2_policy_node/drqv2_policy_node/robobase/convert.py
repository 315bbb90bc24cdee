# SPDX-License-Identifier: Apache-2.0
"""From a RoboBase snapshot to a policy with a manifest.

Tensors, the Hydra configuration of the training, and what neither says (`ManifestFields`) make the manifest together.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
import re

from drqv2_policy_node.networks import CriticKind, EncoderPreset, NetworkSpec
from drqv2_policy_node.policy import Policy
from drqv2_policy_node.robobase.layout import read_agent, RoboBaseAgent, RoboBaseError
from drqv2_policy_node.robobase.schedule import parse_schedule
from drqv2_policy_node.robobase.snapshot import read_snapshot, Snapshot
from drqv2_policy_node.store import save_policy
from so101_contract.action import ACTION_SIZE, ActionSpec
from so101_contract.manifest import StepUnit, Workspace
from so101_contract.observation_spec import CameraSpec, DEFAULT_STATE, ObservationSpec, StateBlock
from so101_contract.record import Json

_REFERENCE = re.compile(r'\$\{([\w.]+)\}')
_MAX_REFERENCES = 10

_SCALED = 'the numbers of that scaling are not in the snapshot'
_OTHER = 'the networks here do something else'

_SAME: Mapping[str, tuple[Json, str]] = {
    'use_standardization': (False, _SCALED),
    'use_min_max_normalization': (False, _SCALED),
    'norm_obs': (False, _SCALED),
    'action_sequence': (1, 'a policy here gives one action at a time'),
    'frame_stack_on_channel': (True, _OTHER),
    'method.distributional_critic': (False, _OTHER),
    'method.encoder_model.kernel_size': (3, _OTHER),
    'method.encoder_model.padding': (0, _OTHER),
    'method.encoder_model.channels_multiplier': (1, _OTHER),
    'method.encoder_model.activation': ('relu', _OTHER),
    'method.encoder_model.norm': ('identity', _OTHER),
    'method.encoder_model.normalise_inputs': (True, _OTHER),
    **{
        f'method.{model}.{key}': (value, _OTHER)
        for model in ('actor_model', 'critic_model')
        for key, value in (
            ('activation', 'relu'),
            ('norm_after_bottleneck', True),
            ('tanh_after_bottleneck', True),
            ('linear_bias', True),
        )
    },
    'method.actor_model.norm': ('identity', _OTHER),
}
"""Settings that shapes do not show, with the value that the networks here stand for, and what else goes wrong."""


@dataclass(frozen=True)
class TrainingConfig:
    """Settings of the training.

    Attributes:
        values: the configuration as plain values.
    """

    values: Mapping[str, Json]

    def get(self, path: str) -> Json:
        """Return the value at a dotted path, with references to other values followed; None where there is none."""
        value = self._at(path)
        for _ in range(_MAX_REFERENCES):
            found = _REFERENCE.fullmatch(value) if isinstance(value, str) else None
            if found is None:
                return value
            value = self._at(found[1])
        return None

    def _at(self, path: str) -> Json:
        value: Json = dict(self.values)
        for key in path.split('.'):
            if not isinstance(value, dict):
                return None
            value = value.get(key)
        return value

    @property
    def image_size(self) -> int | None:
        """Edge of the images [px]."""
        shape = self.get('visual_observation_shape')
        if not isinstance(shape, list) or len(shape) != 2:
            return None
        if shape[0] != shape[1] or not isinstance(shape[0], int):
            raise RoboBaseError(f'expected square images, got {shape}; train with square ones')
        return shape[0]

    @property
    def encoder(self) -> EncoderPreset | None:
        """Which convolutions halve the picture: the first one, or all but the last; None where it does not say."""
        halving, others = (
            self.get(f'method.encoder_model.num_{which}_convs') for which in ('downsample', 'post_downsample')
        )
        if halving is None:
            return None
        if halving == 1:
            return EncoderPreset.ROBOBASE
        if others == 1:
            return EncoderPreset.CPU
        raise RoboBaseError(
            f'expected num_downsample_convs 1, or num_post_downsample_convs 1, in method.encoder_model, got '
            f'{halving} and {others}; the networks here have no such strides'
        )

    @property
    def schedule(self) -> str | None:
        """Exploration noise over iterations of the main loop."""
        text = self.get('method.stddev_schedule')
        return None if text is None else str(text)

    def require_plain(self, spec: NetworkSpec) -> None:
        """Refuse a training whose policy does something that its tensors do not show.

        Raises:
            RoboBaseError: names the settings.
        """
        wanted: dict[str, tuple[Json, str]] = dict(_SAME)
        wanted['frame_stack'] = (spec.frame_stack, 'the tensors say otherwise')
        if spec.cameras > 1:
            wanted['method.view_fusion_model.mode'] = ('flatten', _OTHER)
        norm = 'layer' if spec.critic is CriticKind.RLPD else 'identity'
        wanted['method.critic_model.norm'] = (norm, _OTHER)
        lines = []
        for path, (value, reason) in wanted.items():
            got = self.get(path)
            if got is not None and got != value:
                lines.append(f'{path}: expected {value}, got {got}; {reason}')
        if lines:
            raise RoboBaseError(
                'expected a training whose policy is all in its tensors, got the settings below; '
                'train again without them:\n  ' + '\n  '.join(lines)
            )


ITERATIONS = '_main_loop_iterations'
UNKNOWN_SCHEDULE = '0.0'
PRIVILEGED_STATE = (*DEFAULT_STATE, StateBlock.named('cube_pos'))


@dataclass(frozen=True, kw_only=True)
class ManifestFields:
    """What a snapshot does not say about its policy; None for what must still be supplied.

    Attributes:
        tcp: name of the TCP preset whose pose it was fed with.
        camera: name of the preset that says where the wrist camera sat.
        control_rate_hz: its actions per second [Hz].
        ik_profile: name of the controller's profile that executed them.
        action_scale_m: displacement for 1.0 [m].
        reset_pose: joints at the start of its episodes (6,) [rad].
        workspace: box of the TCP's target.
        camera_names: its cameras in the order of training.
        state: blocks of its state vector; empty for the known vectors of 18 and 21 entries.
        simulation_only: whether it may see what only a simulator knows.
    """

    tcp: str | None = None
    camera: str | None = None
    control_rate_hz: float | None = None
    ik_profile: str = 'setpoint'
    action_scale_m: float = 0.02
    reset_pose: tuple[float, ...] = (0.0701, 0.3068, -0.2174, 1.5708, 1.5708, 1.0734)
    workspace: Workspace = field(
        default_factory=lambda: Workspace(low=(0.10, -0.30, 0.01), high=(0.50, 0.30, 0.40))
    )
    camera_names: tuple[str, ...] = ('gripper_cam',)
    state: tuple[StateBlock, ...] = ()
    simulation_only: bool = False

    @property
    def missing(self) -> list[str]:
        """What has no default and is not there."""
        needed = {'--tcp': self.tcp, '--camera': self.camera, '--control-rate': self.control_rate_hz}
        return [name for name, value in needed.items() if value is None]


PICK101 = ManifestFields(tcp='pick101', camera='pick101', control_rate_hz=50.0, ik_profile='pick101')
"""Those of policies of ggand0/pick-101: TCP over a cube at (0.25, 0), wrist turned down and by a quarter."""

PRESETS = {'pick101': PICK101}


@dataclass(frozen=True, eq=False)
class Source:
    """A snapshot that was read and found complete.

    Attributes:
        snapshot: the file's content.
        agent: its networks.
        config: its training's settings.
    """

    snapshot: Snapshot
    agent: RoboBaseAgent
    config: TrainingConfig

    @property
    def std_now(self) -> float | None:
        """Std of the exploration noise where the training stopped; None where the settings do not say."""
        iterations = self.snapshot.counters.get(ITERATIONS)
        if self.config.schedule is None or iterations is None:
            return None
        return parse_schedule(self.config.schedule)(iterations)

    def describe(self) -> list[str]:
        """Return what the file says, a line each."""
        spec, agent = self.agent.spec, self.agent
        tensors = len(self.snapshot.tensors)
        lines = [
            f'tensors      {tensors} = {agent.unique} unique + {agent.aliases} aliases + {agent.hidden} hidden_state',
            f'images       {spec.cameras} camera(s), {spec.image_size} px, {spec.frame_stack} frames '
            f'({agent.other_image_size} px would give the same shapes)',
            f'state        {spec.stacked_state} = {spec.frame_stack} x {spec.state_size} entries, raw',
            f'encoder      {spec.convs} convolutions of the strides {" ".join(map(str, spec.strides))}',
            f'networks     {spec.action_size} actions, bottleneck {spec.bottleneck}, hidden layers {list(spec.mlp)}, '
            f'{spec.num_critics} critics',
            f'training     {agent.envs} environments; '
            + ', '.join(f'{name.strip("_")} {count}' for name, count in self.snapshot.counters.items()),
        ]
        lines += self._steps()
        if self.std_now is not None:
            iterations = self.snapshot.counters[ITERATIONS]
            lines.append(
                f'noise        {self.config.schedule} over iterations: {self.std_now:.4g} at iteration {iterations}'
            )
        if self.snapshot.best is not None:
            lines.append(
                f'best reward  {self.snapshot.best:.4g} (a reward, not a success rate: evaluate it before use)'
            )
        return lines

    def _steps(self) -> list[str]:
        iterations, envs = self.snapshot.counters.get(ITERATIONS), self.config.get('num_train_envs')
        repeat = self.config.get('action_repeat') or 1
        if not isinstance(envs, int) or not isinstance(repeat, int) or iterations is None:
            return []
        actions = iterations * envs
        return [
            f'steps        {iterations} iterations x {envs} environments = {actions} actions'
            + (
                f'; RoboBase counts {actions * repeat}, with an action repeat of {repeat}'
                if repeat > 1
                else ''
            )
        ]


def read_source(
    path: str | Path, *, image_size: int | None = None, encoder: EncoderPreset | None = None
) -> Source:
    """Read a snapshot and account for everything in it; what is given here counts where it does not say.

    Raises:
        ContractError: it is damaged, not complete, or its policy is not all in its tensors.
    """
    snapshot = read_snapshot(path)
    config = TrainingConfig(snapshot.config)
    agent = read_agent(
        snapshot.tensors,
        image_size=image_size or config.image_size,
        encoder=config.encoder or encoder or EncoderPreset.ROBOBASE,
    )
    config.require_plain(agent.spec)
    return Source(snapshot, agent, config)


def observation_of(source: Source, given: ManifestFields) -> ObservationSpec:
    """Return the observation spec of a snapshot's policy.

    Raises:
        RoboBaseError: the state is not known, not what was given, or only a simulator knows it.
    """
    spec = source.agent.spec
    known = {sum(block.size for block in blocks): blocks for blocks in (DEFAULT_STATE, PRIVILEGED_STATE)}
    state = given.state or known.get(spec.state_size, ())
    size = sum(block.size for block in state)
    if size != spec.state_size:
        raise RoboBaseError(
            f'expected the blocks of a state of {spec.state_size} entries, got '
            f'{[block.name for block in state]} with {size}; name them with --state, in the order of training'
        )
    if len(given.camera_names) != spec.cameras:
        raise RoboBaseError(
            f'expected the names of {spec.cameras} cameras, got {list(given.camera_names)}; name them with '
            f'--camera-names, in the order of training (Gymnasium sorts them by name)'
        )
    assert given.tcp is not None
    assert given.camera is not None
    observation = ObservationSpec(
        state=state,
        frame_stack=spec.frame_stack,
        cameras=tuple(CameraSpec(name, spec.image_size) for name in given.camera_names),
        tcp=given.tcp,
        camera_preset=given.camera,
    )
    if observation.privileged and not given.simulation_only:
        raise RoboBaseError(
            f'expected a state that an arm can measure, got {spec.stacked_state} = {spec.frame_stack} x '
            f'{spec.state_size} entries, which hold {list(observation.privileged)}; use a policy trained without '
            f'them, or convert it with --simulation-only'
        )
    return observation


def convert(source: Source, given: ManifestFields, name: str) -> Policy:
    """Return the policy of a snapshot.

    Raises:
        ContractError: something must still be supplied, or does not fit the snapshot.
    """
    if given.missing:
        raise RoboBaseError(
            f'expected what a snapshot does not say, got no {", ".join(given.missing)}; supply it, or name a preset: '
            f'{", ".join(PRESETS)}'
        )
    if source.agent.spec.action_size != ACTION_SIZE:
        raise RoboBaseError(
            f'expected {ACTION_SIZE} actions, got {source.agent.spec.action_size}; '
            f'a policy of another arm cannot move this one'
        )
    scale = given.action_scale_m
    return Policy.create(
        source.agent.encoder,
        source.agent.actor,
        name=name,
        version=0,
        observation=observation_of(source, given),
        action=ActionSpec(translation_scale_m=(scale, scale, scale)),
        control_rate_hz=given.control_rate_hz,
        ik_profile=given.ik_profile,
        reset_pose=given.reset_pose,
        workspace=given.workspace,
        std_schedule=source.config.schedule or UNKNOWN_SCHEDULE,
        std_unit=StepUnit.ITERATIONS,
        calibration_id=None,
        source_sha256=source.snapshot.sha256,
    )


def save_converted(directory: str | Path, source: Source, policy: Policy, *, overwrite: bool = False) -> Path:
    """Write a converted policy with its critics and what is known of its training."""
    metadata: dict[str, Json] = {
        'sha256': source.snapshot.sha256,
        'counters': dict(source.snapshot.counters),
        'envs': source.agent.envs,
        'best_eval_reward': source.snapshot.best,
        'config': dict(source.snapshot.config),
    }
    critics = source.agent.critic, source.agent.critic_target
    return save_policy(directory, policy, critics=critics, source=metadata, overwrite=overwrite)

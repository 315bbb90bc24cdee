# SPDX-License-Identifier: Apache-2.0
"""What the agents are built of, and how one is made by name; what an update does is in the module of each agent.

`Agent` is what trainer, live learner and command line know of an agent: it acts, it updates from a batch, it gives
its policy away, and its state is one flat mapping of names to tensors, as safetensors files and checksums like it.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
import copy
import pkgutil
from typing import Any, ClassVar, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from torch import nn, Tensor

from drqv2_policy_node.networks import Actor, Critic, CriticKind, Encoder, EncoderPreset, NetworkSpec
from drqv2_policy_node.policy import Policy, policy_inputs
from drqv2_policy_node.store import load_critics
from hilserl_learner.data.batch import Batch
from so101_contract.observation import Observation
from so101_contract.observation_spec import ObservationSpec
from so101_interfaces_py.params import from_mapping, ParameterError

Metrics: TypeAlias = dict[str, Tensor]
"""Numbers of one update without gradient. Reading one makes a GPU's caller wait, so it is left to the reader."""

MAX_ACTION = 1.0 - 1e-6
"""Largest entry of an action that noise was added to, as in DrQ-v2."""

OUTPUT_SHRINK = 0.01
"""Share that is left of the last layer of fresh critics."""

_CLASSES = {
    'hil': 'hilserl_learner.agents.hil:HilAgent',
    'hil_on_base': 'hilserl_learner.agents.on_base:OnBaseAgent',
    'faithful': 'hilserl_learner.agents.drqv2:FaithfulAgent',
    'sac': 'hilserl_learner.agents.sac:SacAgent',
    'bc': 'hilserl_learner.agents.bc:BcAgent',
}

AGENTS = tuple(_CLASSES)
"""Names of the agents, the default first."""

RENAMED = {
    'policy_tau': 'ema_tau',
    'policy_settles': 'ema_growth_updates',
    'hold_weight': 'prior_weight',
    'hold_updates': 'prior_updates',
    'critics_first': 'critic_warmup_updates',
    'light': 'color_jitter',
    'table': 'table_randomization',
    'gripper_price': 'grasp_penalty',
    'acting_encoder': 'ema_encoder',
    'acting_actor': 'ema_actor',
}
"""Old name -> new name of values and networks. Run folders and checkpoints that were written with the old ones are
read with `with_new_names`; whoever sets a value must use the new one, which `refuse_old_names` tells."""


class AgentError(ValueError):
    """An agent cannot be built, or cannot take over the state it was given."""


# ---- by name ---------------------------------------------------------------------------------------------


def agent_class(name: str) -> 'type[Agent]':
    """Return the class of an agent.

    Raises:
        AgentError: there is no such agent.
    """
    if name not in _CLASSES:
        raise AgentError(f'expected one of the agents {list(AGENTS)}, got {name!r}; name one of them')
    found: type[Agent] = pkgutil.resolve_name(_CLASSES[name])
    return found


def agent_config(name: str, options: Mapping[str, Any] | None = None) -> Any:
    """Return the configuration of an agent, with some of its values given.

    Raises:
        AgentError: there is no such agent.
        ParameterError: it has no such option, or the value is not allowed.
    """
    refuse_old_names(options or {})
    return from_mapping(agent_class(name).config_type, options or {})


def make_agent(
    name: str, observation: ObservationSpec, options: Mapping[str, Any] | None = None, **more: Any
) -> 'Agent':
    """Build an agent by name.

    Args:
        name: one of `AGENTS`.
        observation: what it sees.
        options: values of its configuration that differ from the defaults.
        more: what its constructor takes: `policy`, `action_size`, `seed`, `device`.
    """
    return agent_class(name)(observation, agent_config(name, options), **more)


def with_new_names(stored: Mapping[str, Any]) -> dict[str, Any]:
    """Return what was stored, with the names of today, at every level; of `a.b.c` the first part is the name."""
    renamed: dict[str, Any] = {}
    for key, value in stored.items():
        name, dot, rest = key.partition('.')
        renamed[f'{RENAMED.get(name, name)}{dot}{rest}'] = (
            with_new_names(value) if isinstance(value, Mapping) else value
        )
    return renamed


def refuse_old_names(names: Iterable[str]) -> None:
    """Refuse values that are set by a name of before.

    Raises:
        ParameterError: naming the new one.
    """
    for name in names:
        if name in RENAMED:
            raise ParameterError(
                f'expected {RENAMED[name]}, got {name}, which it was called before; set {RENAMED[name]} instead'
            )


# ---- pieces of an update ---------------------------------------------------------------------------------


def explore(
    mean: npt.NDArray[np.float32], std: float, rng: np.random.Generator | None
) -> npt.NDArray[np.float32]:
    """Return an action to execute: the mean itself, or with Gaussian noise where std is above 0.

    Args:
        mean: (A,) in network units.
        std: of the noise, in network units.
        rng: source of the noise; needed where std is above 0.
    """
    if not std > 0.0:
        return mean
    if rng is None:
        raise ValueError(f'expected a random generator for noise of std {std}, got none; pass rng')
    noisy = mean + std * rng.standard_normal(mean.shape)
    return np.clip(noisy, -MAX_ACTION, MAX_ACTION).astype(np.float32)


def with_noise(mean: Tensor, std: float, clip: float, generator: torch.Generator) -> Tensor:
    """Return actions (B, A) for a loss: Gaussian noise cut to +-clip, and the sum cut to the action's range.

    The gradient with respect to the mean is 1, also where the sum was cut (straight-through, as in DrQ-v2).
    """
    noise = torch.randn(mean.shape, generator=generator, device=mean.device) * std
    free = mean + noise.clamp(-clip, clip)
    return free - (free - free.clamp(-MAX_ACTION, MAX_ACTION)).detach()


def channels_last(images: Tensor) -> Tensor:
    """Return images (B, V, C, S, S) laid out with the channels innermost: a CPU convolves those a third faster."""
    return images.permute(0, 1, 3, 4, 2).contiguous().permute(0, 1, 4, 2, 3)


def masked_mean(values: Tensor, rows: Tensor) -> Tensor:
    """Return the mean of the values (B,) over the chosen rows (B,) bool; 0 where there are none."""
    chosen = rows.to(values.dtype)
    return (values * chosen).sum() / chosen.sum().clamp(min=1.0)


def soft_update(target: nn.Module, online: nn.Module, tau: float) -> None:
    """Move the parameters of a network that follows towards those of the online one by the share tau."""
    following: list[Tensor] = list(target.parameters())
    leading: list[Tensor] = list(online.parameters())
    with torch.no_grad():
        if following:  # an encoder of no cameras has none
            torch._foreach_lerp_(following, leading, tau)


@contextmanager
def frozen(module: nn.Module) -> Iterator[None]:
    """Let gradients pass through a module without computing those of its parameters."""
    module.requires_grad_(False)
    try:
        yield
    finally:
        module.requires_grad_(True)


def shrink_output_init(critic: Critic) -> None:
    """Make fresh critics of an RLPD ensemble say next to nothing.

    As they are initialised their values are up to 1 off, all in the same direction, and it takes thousands of updates
    until bootstrapping has forgotten that.
    """
    with torch.no_grad():
        critic.shared.ensemble.out.weight.mul_(OUTPUT_SHRINK)


def critic_metrics(loss: Tensor, values: Tensor, target: Tensor, batch: Batch) -> Metrics:
    """Return what is logged of an update of the critics, whose values are (B, critics) and whose target is (B,)."""
    values = values.detach()
    return {
        'critic_loss': loss.detach(),
        'q_mean': values.mean(),
        'q_max': values.max(),
        'q_spread': values.std(dim=1).mean() if values.shape[1] > 1 else values.new_zeros(()),
        'target_mean': target.mean(),
        'reward_mean': batch.reward.mean(),
    }


# ---- an agent --------------------------------------------------------------------------------------------


class Agent(ABC):
    """Encoder, actor and critics, and what improves them.

    Attributes:
        config_type: class of its configuration.
        observation: what it sees.
        spec: shapes of its networks.
        encoder: of the images, for actor and critics.
        actor: learns what to do.
        critic: learns what comes of it.
        critic_target: follows the critic.
        acting: encoder and actor that act, and are given away.
        device: where its tensors live.
        chunk: actions of a batch that it learns from, the first one's successors included.
        std: exploration noise now, in network units; the trainer sets it from its schedule.
        updates: gradient updates so far.
    """

    config_type: ClassVar[type[Any]]
    spec: NetworkSpec
    encoder: Encoder
    actor: Actor
    critic: Critic
    critic_target: Critic
    acting: tuple[Encoder, Actor]

    def __init__(
        self,
        observation: ObservationSpec,
        config: Any,
        *,
        policy: Policy | None,
        seed: int,
        device: torch.device | str,
    ) -> None:
        """Begin; the networks are the subclass's, which then calls `_place`.

        Args:
            observation: what it sees.
            config: how it learns; None for the defaults.
            policy: whose encoder and actor it begins with; None for fresh ones.
            seed: of the initial weights and of all that is left to chance.
            device: where it lives.

        Raises:
            SpecMismatchError: the policy sees something else.
        """
        if policy is not None:
            observation.require_same(policy.manifest.observation, ('here', 'policy'))
        self.observation = observation
        self.config: Any = self.config_type() if config is None else config
        self.device = torch.device(device)
        self.std, self.updates, self.chunk = 0.0, 0, 1
        self.generator = torch.Generator(self.device).manual_seed(seed)

    def _begin_with(self, policy: Policy) -> None:
        """Take over a policy's encoder and actor."""
        self.encoder, self.actor = copy.deepcopy(policy.encoder), copy.deepcopy(policy.actor)

    def _place(
        self,
        trained: Mapping[str, nn.Module],
        following: Mapping[str, nn.Module],
        optimizer: Callable[[Iterable[nn.Parameter]], torch.optim.Optimizer],
    ) -> None:
        """Bring all networks to the device, and give those that learn from gradients an optimiser each."""
        self._modules = {**trained, **following}
        for name, module in self._modules.items():
            module.to(self.device).requires_grad_(name in trained)
        self._optimizers = {
            name: optimizer(module.parameters())
            for name, module in trained.items()
            if any(True for _ in module.parameters())
        }

    # ---- acting ------------------------------------------------------------------------------------------

    def act(
        self, observation: Observation, *, std: float = 0.0, rng: np.random.Generator | None = None
    ) -> npt.NDArray[np.float32]:
        """Return an action in network units (A,): the mean, or with noise of that std."""
        encoder, actor = self.acting
        with torch.inference_mode():
            images, state = self._inputs(observation)
            mean = actor(encoder(images), state)[0].cpu().numpy()
        return explore(mean, std, rng)

    def _inputs(self, observation: Observation) -> tuple[Tensor, Tensor]:
        images, state = policy_inputs(observation, self.observation)
        return torch.from_numpy(images).to(self.device), torch.from_numpy(state).to(self.device)

    def policy(self, **fields: Any) -> Policy:
        """Return a copy of what acts: encoder and actor; the fields are those of `Policy.create`."""
        return Policy.create(*self.acting, **fields)

    @property
    def critics(self) -> tuple[Critic, Critic] | None:
        """Critics and their targets, to be stored with the policy for whoever goes on; None for what is of no use."""
        return self.critic, self.critic_target

    # ---- learning ----------------------------------------------------------------------------------------

    @abstractmethod
    def update(self, batch: Batch) -> Metrics:
        """Learn from one batch; its reward, discount and next observation know where episodes end."""

    def _step(self, loss: Tensor, *names: str, grad_clip: float = 0.0) -> None:
        """Step the optimisers of these networks down the gradient of a loss, cut to a norm where that is not 0."""
        names = tuple(name for name in names if name in self._optimizers)
        for name in names:
            self._optimizers[name].zero_grad(set_to_none=True)
        loss.backward()  # type: ignore[no-untyped-call]
        for name in names:
            if grad_clip:
                nn.utils.clip_grad_norm_(self._modules[name].parameters(), grad_clip)
            self._optimizers[name].step()

    # ---- state -------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Tensor]:
        """Return copies of all that training goes on from: weights, moments of the optimisers, chance, counters."""
        state: dict[str, Tensor] = {}
        for name, module in self._modules.items():
            for key, value in module.state_dict().items():
                state[f'{name}.{key}'] = value.detach().contiguous().clone()
        for name, optimizer in self._optimizers.items():
            for key, parameter in self._modules[name].named_parameters():
                for entry, value in optimizer.state.get(parameter, {}).items():
                    moment = torch.as_tensor(value).detach().contiguous().clone()
                    state[f'{name}.optimizer.{key}.{entry}'] = moment
        state['generator.torch'] = self.generator.get_state()
        for name, number in (('updates', self.updates), ('std', self.std)):
            state[f'counter.{name}'] = torch.tensor(float(number), dtype=torch.float64)
        return state

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        """Take over what `state_dict` returned.

        Raises:
            AgentError: it is of another agent, or of other networks; nothing was changed.
        """
        state = with_new_names(state)
        wanted, got = _shapes(self.state_dict()), _shapes(state)
        if wanted != got:
            wrong = sorted(key for key in wanted | got if wanted.get(key) != got.get(key))
            raise AgentError(
                f'expected the state of an agent with these networks, got other names or shapes for {wrong[:6]}'
                f'{" and more" if len(wrong) > 6 else ""}; use the configuration that it was saved with'
            )
        with torch.no_grad():
            for name, module in self._modules.items():
                for key, value in module.state_dict().items():
                    value.copy_(state[f'{name}.{key}'])
        for name, optimizer in self._optimizers.items():
            for key, parameter in self._modules[name].named_parameters():
                prefix = f'{name}.optimizer.{key}.'
                entries = {k.removeprefix(prefix): v for k, v in state.items() if k.startswith(prefix)}
                if not entries:
                    optimizer.state.pop(parameter, None)
                    continue
                # On the device all of it: fused optimisers count their steps there too.
                optimizer.state[parameter] = {
                    entry: value.clone().to(parameter.device) for entry, value in entries.items()
                }
        self.generator.set_state(state['generator.torch'].to(torch.uint8).cpu())
        self.updates, self.std = int(state['counter.updates']), float(state['counter.std'])


def rlpd_networks(observation: ObservationSpec, config: Any, action_size: int) -> NetworkSpec:
    """Return the shapes of a fresh agent's networks, with RLPD's critics: their LayerNorm bounds what they say.

    A state that is seen alone says more than 50 numbers hold: where there is no camera the bottleneck is as wide as the
    layers behind it.
    """
    widths = {} if observation.cameras else {'bottleneck': config.width}
    return NetworkSpec.from_observation(
        observation,
        mlp=(config.width, config.width),
        num_critics=config.num_critics,
        encoder=EncoderPreset(config.encoder),
        critic=CriticKind.RLPD,
        action_size=action_size,
        **widths,
    )


def critics_beside(policy: Policy | None, spec: NetworkSpec) -> tuple[Critic, Critic] | None:
    """Return the critics and targets that are stored next to a policy, where they have this shape."""
    found = None if policy is None or policy.directory is None else load_critics(policy.directory)
    return None if found is None or found[0].spec != spec else found


def _shapes(state: Mapping[str, Tensor]) -> dict[str, torch.Size]:
    """Return what an agent's state must agree in; optimisers have no moments before their first step."""
    return {key: value.shape for key, value in state.items() if '.optimizer.' not in key}

# SPDX-License-Identifier: Apache-2.0
"""How far a learned actor may leave its base policy: base alone, both and actor alone, on the same episodes.

The actor is heard in no step at first. After each evaluation in which both together did no worse than the base alone it
is heard more often (as in Policy Decorator, Yuan et al. 2024, arXiv:2412.13630, but by evaluations and not by time),
and less often after one in which they did worse. Where it does as well alone, it acts alone, and the base is needed no
more. What is given away is never worse on these episodes than the base.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
import math
from typing import Any

from drqv2_policy_node.on_base import BaseTerms, Mode, OnBase, Proposer
from drqv2_policy_node.policy import Policy
from drqv2_policy_node.store import find_policy, load_policy
from hilserl_learner.agents.common import Agent
from hilserl_learner.agents.on_base import OnBaseAgent
from hilserl_learner.errors import LearnerError
from hilserl_learner.training.evaluate import EpisodeOutcome, EvalScore, evaluate, EvaluatedEnv, Evaluation
from so101_contract.interval import wilson
from so101_contract.observation_spec import ObservationSpec

AGENT, ON_BASE = 'hil', 'hil_on_base'
"""The agent that learns on top of a base, and its name where it does."""


def agent_on(base: str, agent: str) -> str:
    """Return the name of the agent that learns on top of a base; the same agent where there is none.

    Raises:
        LearnerError: that agent cannot, or has nothing to learn on.
    """
    if base and agent in (AGENT, ON_BASE):
        return ON_BASE
    if base or agent == ON_BASE:
        raise LearnerError(
            f'expected the agent {AGENT} on top of a base, got the agent {agent} and '
            f'{"the base " + base if base else "no base"}; leave one of both out'
        )
    return agent


def load_base(name: str, observation: str, spec: ObservationSpec) -> Proposer:
    """Return the base policy of that name.

    Args:
        name: folder of a stored policy, or `default` for the one that is shipped.
        observation: name of what is observed.
        spec: what is observed.

    Raises:
        LearnerError: there is none, or it is behind a socket.
    """
    if name.startswith('tcp://'):
        raise LearnerError(
            f'expected a stored policy as the base of a run without the graph, got {name}; a server is the base of '
            f'`so101 up base:={name}`'
        )
    folder = find_policy(name, observation, spec)
    if folder is None:
        raise LearnerError(f'expected a stored policy as the base, got {name!r}; name its folder')
    policy = load_policy(folder)
    spec.require_same(policy.manifest.observation, ('run', 'base'))
    return policy.act


def act_on(base: Proposer, policy: Policy) -> OnBase:
    """Return who acts where a stored policy acts on top of a base.

    Raises:
        LearnerError: it acts alone.
    """
    if policy.manifest.on_base is None:
        raise LearnerError(
            f'expected a policy that acts on top of a base, got {policy.manifest.name}, which acts alone; leave out '
            '--base'
        )
    acting = OnBase(base, None, policy.manifest.observation, BaseTerms())
    acting.learned(policy)
    return acting


class Share:
    """How often the actor is heard, 0..1: as often as evaluations have allowed so far.

    Attributes:
        now: the share.
        alone: the actor does as well alone.
    """

    def __init__(self, step: float) -> None:
        self.now, self.alone = 0.0, False
        self._step = step

    @property
    def next(self) -> float:
        """The share that is tried next."""
        return min(1.0, self.now + self._step)

    def judge(self, base: float, both: float, actor: float) -> None:
        """Take what an evaluation at the next share came to: rates of success on the same episodes."""
        self.now = self.next if both >= base else max(0.0, self.now - self._step)
        self.alone = actor >= max(base, both)


class LiveShare:
    """The same on an arm, where nobody evaluates: windows of episodes without help stand for evaluations.

    First the base acts alone, then the actor is heard more often from window to window, at last it acts alone. A window
    that is certainly worse than the base, by Wilson's interval, takes the last step back.

    Attributes:
        base_rate: of the base alone; NaN before its window is full.
        settled: the actor has acted alone in a window, and did as well as the base.
    """

    def __init__(self, step: float, window: int) -> None:
        self.base_rate, self.settled = math.nan, False
        self._step, self._window, self._stage = step, window, 0
        self._unaided: list[bool] = []

    @property
    def now(self) -> float:
        """How often the actor is heard, 0..1."""
        return min(1.0, self._stage * self._step)

    @property
    def alone(self) -> bool:
        """Whether the actor acts without a look at the base."""
        return self._stage * self._step >= 1.0 + self._step

    def add(self, unaided: bool, *, ready: bool = True) -> bool:
        """Take an episode; return whether another share counts from now on.

        Args:
            unaided: it succeeded, and nobody helped.
            ready: the critics have learned enough for the actor to be heard.
        """
        self._unaided.append(unaided)
        if len(self._unaided) < self._window or not ready:
            return False
        wins, episodes = sum(self._unaided), len(self._unaided)
        rate, before = wins / episodes, self._stage
        self._unaided.clear()
        if self._stage == 0:
            self.base_rate = rate
            self._stage = 1
        elif wilson(wins, episodes)[1] < self.base_rate:
            self._stage -= 1
            self.settled = False
        elif rate >= self.base_rate:
            self.settled = self.alone
            self._stage += not self.alone
        return self._stage != before


@dataclass(frozen=True)
class Standing:
    """What an evaluation came to.

    Attributes:
        base: the base alone.
        both: base and actor.
        actor: the actor alone; None for a residual, which is nothing alone.
        share: of the steps that the actor was to be heard in, for both.
        by_actor: of the steps that it had a part in.
    """

    base: Evaluation
    both: Evaluation
    actor: Evaluation | None
    share: float
    by_actor: float

    def row(self) -> dict[str, float]:
        """Return it as columns of the table of evaluations, beside those of both."""
        return {
            'base': self.base.rate,
            'actor': math.nan if self.actor is None else self.actor.rate,
            'share': self.share,
            'by_actor': self.by_actor,
        }


class BaseRun:
    """One run on top of a base policy.

    Attributes:
        acting: base and actor, as they collect experience.
        share: how often the actor is heard.
    """

    def __init__(self, agent: OnBaseAgent, base: Proposer) -> None:
        self.share = Share(agent.config.share_step)
        self.acting = agent.on(base)
        self._agent, self._base = agent, base
        self._alone: Evaluation | None = None

    def act(self, steps: int, std: float) -> OnBase:
        """Return who acts in training, after so many steps of it."""
        acting = self.acting
        heard = steps >= self._agent.config.base_alone_steps
        acting.share, acting.std = self.share.now if heard else 0.0, std
        acting.alone = heard and self.share.alone
        return acting

    def evaluate(
        self, env: EvaluatedEnv, episodes: int, steps: int, after_episode: Callable[[EpisodeOutcome], None]
    ) -> Standing:
        """Try all three, both with the share that comes next, and let the share rise or fall."""

        def tried(share: float) -> tuple[Evaluation, OnBase]:
            acting = self._agent.on(self._base)
            acting.share = share
            return evaluate(env, acting, episodes, after_episode=after_episode), acting

        if self._alone is None or self._alone.episodes < episodes:
            self._alone, _ = tried(0.0)
        base = replace(self._alone, outcomes=self._alone.outcomes[:episodes])
        if steps < self._agent.config.base_alone_steps:
            return Standing(base, base, self._actor_alone(env, episodes, after_episode), 0.0, 0.0)
        share = self.share.next
        both, acting = tried(share)
        actor = self._actor_alone(env, episodes, after_episode)
        self.share.judge(base.rate, both.rate, 0.0 if actor is None else actor.rate)
        return Standing(base, both, actor, share, acting.by_actor / max(acting.steps, 1))

    def policy(self, **fields: Any) -> Policy:
        """Return a copy of what acts on top of the base now."""
        return self._agent.policy_on_base(self.share.now, self.share.alone, **fields)

    def take_up(self, rows: Iterable[Mapping[str, str]]) -> EvalScore | None:
        """Bring the share to where the evaluations of an earlier life have brought it; return the best actor's."""
        best: EvalScore | None = None
        for row in rows:
            base, both, actor = (float(row[name]) for name in ('base', 'success', 'actor'))
            if float(row['share']) > 0.0:
                self.share.judge(base, both, 0.0 if math.isnan(actor) else actor)
            if actor >= base and (best is None or actor > best.rate):
                episodes = int(row['episodes'])
                best = EvalScore(round(actor * episodes), episodes, math.nan, int(row['steps']))
        return best

    def _actor_alone(
        self, env: EvaluatedEnv, episodes: int, after_episode: Callable[[EpisodeOutcome], None]
    ) -> Evaluation | None:
        if self._agent.config.base_mode == Mode.RESIDUAL:
            return None
        return evaluate(env, self._agent.act, episodes, after_episode=after_episode)


def base_run(agent: Agent, base: Proposer | None) -> BaseRun | None:
    """Return the run of an agent on top of a base; None where there is no base."""
    if base is None:
        return None
    assert isinstance(agent, OnBaseAgent)
    return BaseRun(agent, base)

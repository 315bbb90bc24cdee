# SPDX-License-Identifier: Apache-2.0
"""How live episodes went, from what assemblers put out."""

from hilserl_learner.data.collect import EpisodeResult
from hilserl_learner.data.store import Entry
from so101_contract.episodes import Outcome
from so101_contract.transition import Transition


class EpisodeAccount:
    """Collects the transitions of open episodes; says how one went when its report comes."""

    def __init__(self) -> None:
        self._open: dict[tuple[str, int], dict[int, tuple[float, bool]]] = {}

    def add(self, entry: Entry) -> EpisodeResult | None:
        """Take an entry; return the account of the episode that it closes, unless that was thrown away."""
        output = entry.output
        if isinstance(output, Transition):
            steps = self._open.setdefault((entry.stream, output.episode), {})
            steps[output.index] = (output.reward, output.intervened)
            return None
        steps = self._open.pop((entry.stream, output.episode), {})
        if output.discarded or not steps:
            return None
        helped = [steps[index][1] for index in sorted(steps)]
        takeovers = sum(now and not before for before, now in zip([False, *helped], helped, strict=False))
        return EpisodeResult(
            episode=output.episode,
            success=output.outcome is Outcome.SUCCESS,
            steps=len(steps),
            reward=sum(reward for reward, _ in steps.values()),
            intervened=sum(helped),
            takeovers=takeovers,
        )

# SPDX-License-Identifier: Apache-2.0
"""What there is to say about a session: the record of its `SessionStatus` message."""

from so101_contract.session import Driver, NO_EPISODE, SessionState, SessionStatus
from so101_session.session.arbiter import Arbiter
from so101_session.session.clock import Jitter
from so101_session.session.config import SessionConfig
from so101_session.session.episode import Account, Episode


def status_of(
    now: tuple[SessionState, str, Driver, bool],
    episode: Episode | None,
    account: Account,
    arbiter: Arbiter,
    *,
    config: SessionConfig,
    jitter: Jitter,
) -> SessionStatus:
    """Return the state of a session.

    Args:
        now: what it does, in words too, who drives, and whether it is paused.
        episode: the running one.
        account: of all episodes.
        arbiter: who answered the steps.
        config: what was asked for.
        jitter: of the control clock.
    """
    state, sentence, driver, paused = now
    measured = account.measured()
    return SessionStatus(
        state=state,
        sentence=sentence,
        driver=driver,
        intervening=arbiter.takeover.intervening,
        paused=paused,
        episode=NO_EPISODE if episode is None else episode.number,
        index=0 if episode is None else episode.index,
        limit=0 if episode is None else episode.limit,
        episodes=account.counted,
        wanted=config.episodes,
        outcomes=account.tally(),
        answers=dict(arbiter.counts),
        clipped=arbiter.clips.fraction,
        jitter_p50_s=jitter.quantile(0.5),
        jitter_p99_s=jitter.quantile(0.99),
        intervention_rate=account.intervention_rate,
        intervention_length=account.intervention_length,
        reward=config.reward_source,
        measured=measured['measured'],
        truly=measured['truly'],
        false_success=measured['false_success'],
        false_failure=measured['false_failure'],
    )

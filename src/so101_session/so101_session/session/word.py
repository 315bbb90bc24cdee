# SPDX-License-Identifier: Apache-2.0
"""What a human says about episodes: labels, a veto, and corrections that come late. It wins over every other source."""

from so101_contract.session import EventKind, NO_EPISODE, Outcome
from so101_contract.task.reward import Jury
from so101_session.session.dialogue import Say
from so101_session.session.episode import Account, Episode, Event, outcome_name, SessionError, Verdict


class HumanWord:
    """Takes what a human says; returns what is to be told."""

    def __init__(self, account: Account, jury: Jury) -> None:
        self._account, self._jury = account, jury

    def label(self, episode: Episode | None, outcome: Outcome, number: int, reason: str) -> list[Event | Say]:
        """Take a label: of the running episode, or a late one.

        Args:
            episode: the running one.
            outcome: the label.
            number: of the episode; 0 for the running one, or else for the last one.
            reason: for people.

        Raises:
            SessionError: there is no such episode.
        """
        if episode is not None and number in (NO_EPISODE, episode.number):
            said = reason or f'the human says {outcome_name(outcome)}'
            episode.end(Verdict(outcome, said, by_human=True))
            return []
        number = self._account.relabel(number, outcome)
        event = Event(EventKind(outcome.value), number, 0, reason or 'late label', by_human=True)
        return [event, Say(f'episode {number} is relabelled: {outcome_name(outcome)}')]

    def see(self, episode: Episode | None, success: bool) -> list[Event | Say]:
        """Take a word about what can be seen now.

        In an episode it labels the pictures from here on, and `not yet` holds back sources that take them for success.
        Between two episodes it corrects the last one: a success that was none was cut short, and one that came to
        nobody's notice is one.

        Raises:
            SessionError: there is no episode that it could be about.
        """
        if episode is None:
            return self._afterwards(success)
        if episode.index == 0:
            raise SessionError('expected an episode that runs, but it has not begun; say it while you see it')
        if not success:
            self._jury.veto()
            if episode.verdict is not None and episode.verdict.outcome is Outcome.SUCCESS:
                episode.verdict = None
        kind = EventKind.SUCCESS_NOW if success else EventKind.NOT_YET
        return [Event(kind, episode.number, episode.index - 1)]

    def _afterwards(self, success: bool) -> list[Event | Say]:
        number, outcome = self._account.last
        if success == (outcome is Outcome.SUCCESS):
            raise SessionError(
                f'expected an episode that runs, or another outcome of episode {number} to correct, which ended as '
                f'{outcome_name(outcome)}; there is nothing to do'
            )
        said = 'the human has seen success' if success else 'the human has seen no success'
        return self.label(None, Outcome.SUCCESS if success else Outcome.TIME_LIMIT, number, said)

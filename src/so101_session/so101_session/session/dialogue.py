# SPDX-License-Identifier: Apache-2.0
"""What people ask of the session, and what it says to them.

Start asks for an episode, and with `auto` for one after the other; Reset asks for the way back alone. Both move the
arm, so neither outlives a stop: an arm that was off, stopped or at fault, that was silent, connected again or started
again, waits for another Start, whatever was asked for before. Nor is anything kept that cannot be done when it is
asked for: the arm would move later, when nobody thinks of it any more.
"""

from dataclasses import dataclass, field

from so101_contract.session import EventKind, NO_EPISODE, SessionState, what_start_does
from so101_contract.task.spec import TaskSpec
from so101_session.session.clock import Problem, STOPPED
from so101_session.session.config import SessionConfig
from so101_session.session.episode import Episode, Event, SessionError


@dataclass(frozen=True)
class Say:
    """Tell people, in one sentence."""

    sentence: str
    warning: bool = False


@dataclass
class Requests:
    """What is still to be done of what was asked for.

    Attributes:
        auto: begin the next episode by itself.
        episode: an episode is asked for.
        human: what a human does before an episode; empty for nothing.
        reset: the way back alone is asked for.
        stopped: why the arm was stopped since the last look, as a clause; empty where it was not.
        withdrawn: why the last request was taken back, as a clause; empty where none was.
        missing: why nothing can be done, as the last look has found; None where everything is there.
    """

    auto: bool
    episode: bool = False
    human: str = ''
    reset: bool = False
    stopped: str = ''
    withdrawn: str = ''
    missing: Problem | None = field(default_factory=lambda: Problem('the session has not looked at it yet'))
    _was_on: bool = False

    @classmethod
    def of(cls, config: SessionConfig, task: TaskSpec | None) -> 'Requests':
        """Return what is asked for at the beginning."""
        human = '' if task is None or config.arranges_scene else task.human
        return cls(config.auto, episode=config.auto and config.autostart, human=human)

    @property
    def any(self) -> bool:
        """Whether anything is to be done."""
        return self.episode or self.reset

    def ask(self, *, episode: bool) -> None:
        """Take Start, or Reset, which nothing follows.

        Raises:
            SessionError: it cannot be done now.
        """
        missing = str(self.missing) if self.missing is not None else self.stopped
        if missing:
            raise SessionError(f'expected an arm that can move, but {missing}; mend that, then ask again')
        self.episode, self.reset, self.withdrawn = episode, not episode, ''

    def begun(self) -> None:
        """An episode begins; with `auto`, another one is asked for with it."""
        self.episode = self.auto

    def stop(self, why: str) -> None:
        """Take everything back at once, since the arm was stopped, for however short a time."""
        self.stopped = why
        self._withdraw(why)

    def look(self, problem: Problem | None, arm: Problem | None) -> Problem | None:
        """Return why nothing can be done, be it over by now.

        Args:
            problem: what is missing now.
            arm: why the arm cannot be driven now.
        """
        if arm is not None and self._was_on:
            self._withdraw(STOPPED)
        self._was_on |= arm is None
        stopped, self.stopped = self.stopped, ''
        self.missing = problem
        return problem or (Problem(stopped) if stopped else None)

    def waiting(self, state: SessionState, policy_drives: bool) -> str:
        """Return the sentence while Start is waited for: why, what it will do, and what the human does before."""
        why = f', since {self.withdrawn}' if self.withdrawn else ''
        before = f'. Before: {self.human}' if self.human else ''
        return f'waiting for Start{why}: {what_start_does(state, policy_drives)}{before}'

    def withdraw(self, why: str) -> None:
        """Take back what was asked for: somebody has to look first, and ask again."""
        self.episode = self.reset = False
        self.withdrawn = why

    def _withdraw(self, why: str) -> None:
        if self.any:
            self.withdrawn = why
        self.episode = self.reset = False


class Needs:
    """What a human is needed for between episodes; who counts hears when that begins, and when it is over."""

    def __init__(self) -> None:
        self.now: EventKind | None = None
        """What this tick has found: `NEED_RESET`, `NEED_START`, or nothing."""
        self._said: EventKind | None = None

    def events(self, reason: str) -> tuple[list[Event], list[Event]]:
        """Return what is to be said before, and after, all else that the tick has to say."""
        if self.now is self._said:
            return [], []
        over = [Event(EventKind.NEED_OVER, NO_EPISODE, 0)] if self._said is not None else []
        begun = [Event(self.now, NO_EPISODE, 0, reason)] if self.now is not None else []
        self._said = self.now
        return over, begun


class Speech:
    """The sentence that says what goes on; it is said again only when it is about something new."""

    def __init__(self) -> None:
        self.sentence = self._topic = 'starting'
        self.tells_hold = False
        """Whether the sentence is about an episode that nobody drives."""

    def note(self, sentence: str) -> None:
        """Keep a sentence that is not worth saying."""
        self.sentence = self._topic = sentence

    def say(self, sentence: str, warning: bool = False, topic: str = '') -> list[Say]:
        """Keep the sentence, and say it if it is about something new.

        Args:
            sentence: for people.
            warning: it is worth one.
            topic: what it is about: the sentence without what grows in it, such as a time.
        """
        topic = topic or sentence
        news = topic != self._topic
        self.sentence, self._topic, self.tells_hold = sentence, topic, False
        return [Say(sentence, warning)] if news else []

    def while_it_runs(self, episode: Episode, holds: str, mute: str, *, idle: bool) -> list[Say]:
        """Say how an episode goes, where there is something to say.

        Args:
            episode: it runs.
            holds: why the policy holds; empty where it does not.
            mute: which source of the reward is silent; empty for none.
            idle: nobody has answered its steps for a while.
        """
        runs = f'episode {episode.number} runs'
        if idle:
            alone = '' if episode.policy_was_there else '; nobody drives: take over, or label it'
            return [*self.say_hold(f'{runs}{alone}', holds, warning=True)]
        if mute:
            return [*self.say_hold(f'{runs}; {mute}', '', warning=True)]
        return [*self.say(runs)] if self.tells_hold else []

    def say_hold(self, sentence: str, holds: str, warning: bool = False) -> list[Say]:
        """Say a sentence about an episode that nobody drives, and why the policy holds where it does."""
        said = self.say(with_hold(sentence, holds), warning, with_hold(sentence, 'x' if holds else ''))
        self.tells_hold = True
        return said


def with_hold(sentence: str, holds: str) -> str:
    """Add why the policy holds, where it does."""
    return f'{sentence}; the policy holds: {holds}' if holds else sentence

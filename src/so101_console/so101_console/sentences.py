# SPDX-License-Identifier: Apache-2.0
"""Lines of the page that put numbers into words."""

from collections.abc import Mapping
import math
from typing import Any


def episode_line(session: Mapping[str, Any]) -> str:
    """Return which episode runs and how the others ended; `session` is what the session says of itself."""
    if not session:
        return ''
    outcomes = session.get('outcomes', {})
    tally = ', '.join(
        f'{count} {name.lower().replace("_", " ")}' for name, count in outcomes.items() if count
    )
    if session.get('episode'):
        limit = f' of {session["limit"]}' if session.get('limit') else ''
        return f'Episode {session["episode"]}, step {session.get("index", 0)}{limit} · {tally or "the first"}'
    return f'Between episodes · {tally or "none yet"}'


def learner_line(learner: Any) -> str:
    """Return what a LearnerStatus says."""
    rate = learner.updates_per_second
    text = (
        f'{learner.state.capitalize()}: version {learner.version}, {learner.updates} updates at '
        f'{f"{rate:.1f}" if math.isfinite(rate) else "-"}/s, {learner.env_steps} steps in {learner.episodes} episodes'
    )
    return f'{text}. {learner.reason}' if learner.reason else text

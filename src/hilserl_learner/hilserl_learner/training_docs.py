# SPDX-License-Identifier: Apache-2.0
"""Writes the tables of docs/training.md from the configurations: `python -m hilserl_learner.training_docs PAGE`."""

from collections.abc import Sequence
from pathlib import Path
import re
import sys

from hilserl_learner.agents.drqv2 import FaithfulConfig
from hilserl_learner.agents.hil import HilConfig
from hilserl_learner.agents.sac import SacConfig
from hilserl_learner.train_run import RunConfig
from hilserl_learner.trainer import TrainerConfig
from so101_interfaces_py.params import table

CONFIGS: tuple[type, ...] = (HilConfig, TrainerConfig, RunConfig, SacConfig, FaithfulConfig)

END = '<!-- end -->'


def render(page: str) -> str:
    """Return the page with the table of each configuration between its marks."""
    for config in CONFIGS:
        mark = f'<!-- {config.__name__} -->'
        pattern = re.compile(f'{re.escape(mark)}.*?{re.escape(END)}', re.DOTALL)
        text = f'{mark}\n\n{table(config)}\n{END}'
        page = pattern.sub(text.replace('\\', r'\\'), page)
    return page


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the page."""
    (name,) = sys.argv[1:] if arguments is None else arguments
    path = Path(name)
    path.write_text(render(path.read_text()))
    return 0


if __name__ == '__main__':
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""Write the tables of docs/training.md from the configurations of agents, trainer and runs."""

import argparse
from collections.abc import Sequence
from pathlib import Path
import re
import sys

from hilserl_learner.agents.bc import BcConfig
from hilserl_learner.agents.drqv2 import FaithfulConfig
from hilserl_learner.agents.hil import HilConfig
from hilserl_learner.agents.on_base import OnBaseConfig
from hilserl_learner.agents.sac import SacConfig
from hilserl_learner.training.settings import RunConfig
from hilserl_learner.training.trainer import TrainerConfig
from so101_interfaces_py.params import table

CONFIGS: tuple[type, ...] = (
    HilConfig,
    TrainerConfig,
    RunConfig,
    OnBaseConfig,
    SacConfig,
    FaithfulConfig,
    BcConfig,
)

END = '<!-- end -->'
PAGE = Path(__file__).resolve().parents[1] / 'docs' / 'training.md'


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
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        'page', type=Path, nargs='?', default=PAGE, help='page with the marks (default: docs/training.md)'
    )
    path = parser.parse_args(arguments).page
    path.write_text(render(path.read_text()))
    return 0


if __name__ == '__main__':
    sys.exit(main())

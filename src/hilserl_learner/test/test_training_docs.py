# SPDX-License-Identifier: Apache-2.0
from pathlib import Path

import pytest

from hilserl_learner.training_docs import CONFIGS, render
from so101_interfaces_py.params import describe

PAGE = Path(__file__).resolve().parents[3] / 'docs' / 'training.md'


def test_the_tables_of_the_training_page_are_those_of_the_code():
    assert render(PAGE.read_text()) == PAGE.read_text(), (
        'run python -m hilserl_learner.training_docs docs/training.md'
    )


@pytest.mark.parametrize('config', CONFIGS, ids=lambda config: config.__name__)
def test_every_value_is_explained(config):
    page = PAGE.read_text()
    assert all(f'`{name}`' in page for name in describe(config))

# SPDX-License-Identifier: Apache-2.0

import pytest
from training_docs import CONFIGS, PAGE, render

from so101_interfaces_py.params import describe


def test_the_tables_of_the_training_page_are_those_of_the_code():
    assert render(PAGE.read_text()) == PAGE.read_text(), 'run .venv/bin/python tools/training_docs.py'


@pytest.mark.parametrize('config', CONFIGS, ids=lambda config: config.__name__)
def test_every_value_is_explained(config):
    page = PAGE.read_text()
    assert all(f'`{name}`' in page for name in describe(config))

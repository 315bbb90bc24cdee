# SPDX-License-Identifier: Apache-2.0
"""The documentation says what the code does."""

from pathlib import Path
import re
import runpy

import pitfall_docs
import pytest
import yaml

from so101_bringup.parameter_files import FILES
from so101_interfaces_py import topics

ROOT = Path(__file__).parents[3]
DOCS = ROOT / 'docs'
PAGES = [*DOCS.glob('*.md'), *ROOT.glob('*.md'), *ROOT.glob('src/*/README.md')]


def test_every_pitfall_in_the_table_has_a_test_and_every_such_test_a_row():
    rows = {name for name, _ in pitfall_docs.ROW.findall((DOCS / 'pitfalls.md').read_text())}
    assert rows == set(pitfall_docs.tests_by_id(ROOT))


def test_the_pitfalls_name_the_tests_that_there_are():
    assert (DOCS / 'pitfalls.md').read_text() == pitfall_docs.render(ROOT)


def test_every_topic_and_service_is_described():
    text = (DOCS / 'interfaces.md').read_text()
    names = [value for name, value in vars(topics).items() if name.isupper() and isinstance(value, str)]
    assert [name for name in names if f'`{name}`' not in text] == []


def test_the_parameter_page_is_up_to_date():
    pytest.importorskip('rclpy')
    from parameter_docs import render

    assert (DOCS / 'parameters.md').read_text() == render()


def test_the_examples_of_the_parameter_files_are_up_to_date():
    from parameter_docs import examples

    for name in FILES:
        text = (ROOT / 'config' / name).read_text()
        if yaml.safe_load(text) is None:  # else somebody has changed it
            assert text == examples(name)


def test_the_pages_of_the_packages_are_up_to_date():
    pytest.importorskip('rclpy')
    from package_readmes import outdated, PACKAGES, page_of, read_modules

    modules = read_modules()
    assert {page_of(package, modules).parent for package in PACKAGES} == {
        path.parent for path in ROOT.glob('src/*/package.xml')
    }
    assert list(outdated(modules)) == []


def test_cells_of_the_packages_tables_are_short_enough_to_read():
    cells = [
        cell
        for page in ROOT.glob('src/*/README.md')
        for line in page.read_text().splitlines()
        if line.startswith('|')
        for cell in line.split(' | ')
    ]
    assert [cell for cell in cells if len(cell) > 150] == []


@pytest.mark.parametrize('page', ROOT.glob('src/*/README.md'), ids=lambda path: path.parent.name)
def test_the_example_of_a_package_runs(page, tmp_path):
    (code,) = re.findall(r'```python\n(.*?)```', page.read_text(), flags=re.DOTALL)
    program = tmp_path / 'example.py'
    program.write_text(code)
    runpy.run_path(str(program))


@pytest.mark.parametrize('page', PAGES, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page):
    links = re.findall(r'\]\((?!https?:|#)([^)#]+)', page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_every_command_of_the_readme_exists():
    from so101_bringup.cli import COMMANDS

    used = set(re.findall(r'\./so101 ([a-z-]+)', ''.join(page.read_text() for page in PAGES)))
    assert used <= set(COMMANDS)

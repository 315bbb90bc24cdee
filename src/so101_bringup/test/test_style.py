# SPDX-License-Identifier: Apache-2.0
"""The checks that a reviewer is tired of, so that one command says yes or no."""

from pathlib import Path
import subprocess
import sys

import pytest

ROOT = Path(__file__).parents[3]
CODE = ('src', 'benchmarks', 'launch', 'plugins', 'tools')


@pytest.mark.parametrize(
    'command',
    [
        ['ruff', 'check', *CODE],
        ['ruff', 'format', '--check', *CODE],
        ['mypy'],
        [
            'codespell',
            '--toml',
            'pyproject.toml',
            'src',
            'docs',
            'launch',
            'config',
            'benchmarks',
            'tools',
            'README.md',
        ],
    ],
    ids=['lint', 'format', 'types', 'spelling'],
)
@pytest.mark.timeout(0)  # mypy takes what it takes
def test_the_code_passes(command):
    name, *arguments = command
    module = 'codespell_lib' if name == 'codespell' else name
    done = subprocess.run(
        [sys.executable, '-m', module, *arguments], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_source_file_states_its_licence():
    files = [path for folder in CODE for path in (ROOT / folder).rglob('*.py') if path.name != 'setup.py']
    assert len(files) > 30
    assert [
        str(path) for path in files if 'SPDX-License-Identifier: Apache-2.0' not in path.read_text()[:200]
    ] == []

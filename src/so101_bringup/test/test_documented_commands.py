# SPDX-License-Identifier: Apache-2.0
"""Every command in a block of README or docs is one that the program takes, word by word."""

import argparse
from pathlib import Path
import re
import shlex
import subprocess
import sys

import pytest

from so101_bringup import cli
from so101_bringup.options import parse_options
from so101_bringup.stack import STACKS

ROOT = Path(__file__).resolve().parents[3]
PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted((ROOT / 'docs').rglob('*.md'))]
WRITTEN = re.compile(r'^ {4,}\./so101 +([a-z].*)$', re.MULTILINE)


def documented():
    """Words of each command as it is written."""
    found = []
    for page in PAGES:
        for line in WRITTEN.findall(page.read_text(encoding='utf-8').replace('\\\n', ' ')):
            words = shlex.split(line.replace('...', '').replace('…', ''), comments=True)
            if words not in found:
                found.append(words)
    return found


class Taken(Exception):
    """The words were understood."""


@pytest.fixture
def parses(monkeypatch):
    parse = argparse.ArgumentParser.parse_args

    def parse_args(parser, args=None, namespace=None):
        parse(parser, args, namespace)
        raise Taken

    monkeypatch.setattr(sys, 'argv', ['so101'])
    monkeypatch.setattr(argparse.ArgumentParser, 'parse_args', parse_args)


def test_there_are_many():
    assert len(documented()) > 60
    assert {words[0] for words in documented()} <= set(cli.COMMANDS)
    assert set(cli.COMMANDS) - {words[0] for words in documented()} <= {'record'}


@pytest.mark.parametrize('words', documented(), ids=' '.join)
def test_a_documented_command_is_taken(words, parses):
    command, *rest = words
    if command == 'up':
        stack = 'hilserl'
        if '--stack' in rest:
            at = rest.index('--stack')
            stack = rest[at + 1]
            del rest[at : at + 2]
        if '--minutes' in rest:
            at = rest.index('--minutes')
            float(rest[at + 1])
            del rest[at : at + 2]
        assert stack in STACKS
        parse_options(rest)
        return
    if command == 'test':  # the rest is pytest's
        return
    with pytest.raises(Taken):
        cli.COMMANDS[command].run(rest)


@pytest.mark.parametrize(
    'name',
    [
        'bags',
        'buffers',
        'classifiers',
        'compared',
        'datasets',
        'demos',
        'keys',
        'log',
        'policies',
        'runs',
        'trials',
    ],
)
def test_what_the_commands_of_the_documents_write_is_no_part_of_the_checkout(name):
    if not (ROOT / '.git').exists():
        pytest.skip('this is no clone')
    words = ['git', 'check-ignore', '-q', f'{name}/something']
    assert subprocess.run(words, cwd=ROOT, check=False).returncode == 0

# SPDX-License-Identifier: Apache-2.0
"""The terminal of `./so101 up`: what it says, and that it goes on without anybody who looks."""

import io
import os
import subprocess
import sys

import pytest
from rich.console import Console

from so101_bringup.terminal.board import Board, LAST_WORDS
from so101_bringup.terminal.screen import KEPT_LOGS, Screen
from so101_contract.session import ANSWERS, Driver, OUTCOMES, SessionState, SessionStatus


def status(**changes):
    plain = {
        'state': SessionState.RUNNING, 'sentence': 'episode 3 runs', 'driver': Driver.POLICY,
        'intervening': False, 'paused': False, 'episode': 3, 'index': 7, 'limit': 40, 'episodes': 2, 'wanted': 20,
        'outcomes': dict.fromkeys(OUTCOMES, 0) | {'success': 1, 'time_limit': 1},
        'answers': dict.fromkeys(ANSWERS, 0) | {'policy': 30}, 'clipped': {},
        'jitter_p50_s': 0.0, 'jitter_p99_s': 0.0, 'intervention_rate': 0.25, 'intervention_length': 6.0, 'reward': 'sim', 'measured': 0, 'truly': 0, 'false_success': 0, 'false_failure': 0,
    }  # fmt: skip
    return SessionStatus(**plain | changes)


def words(board):
    return {row.name: row.words for row in board.rows()}


def test_it_says_who_drives_and_how_it_went():
    board = Board('up.log')
    assert words(board)['now'] == 'the nodes start'
    board.hear_session(status())
    assert words(board)['now'] == 'episode 3, step 7 of 40: the policy drives'
    assert words(board)['episodes'] == '2 of 20: 1 success, 1 time limit'
    assert 'human' not in words(board)
    board.hear_session(status(driver=Driver.HUMAN, answers=dict.fromkeys(ANSWERS, 0) | {'human': 9}))
    assert words(board)['now'].endswith('the human drives')
    assert words(board)['human'] == (
        '0.0 minutes of work; 25 % of the actions of the last 20 episodes, 6 steps at a time'
    )


@pytest.mark.parametrize('state', list(SessionState))
@pytest.mark.parametrize('driver', list(Driver))
def test_every_state_has_words(state, driver):
    board = Board('up.log')
    board.hear_session(status(state=state, driver=driver, limit=0, wanted=0, sentence='the sentence'))
    assert words(board)['now']


def test_warnings_are_counted_and_the_page_is_named():
    board = Board('up.log')
    board.hear(
        'console_node',
        '[INFO] [1796097386.758258831] [console_node]: the page is http://127.0.0.1:8100/?token=x',
    )
    for index in range(3):
        board.hear('policy_node', f'[WARN] [1796097386.{index}] [policy_node]: holding at step {index}')
    board.hear('arm_node', '[ERROR] [left.arm_node]: no power')
    board.hear('arm_node', 'a line that is [WARN] in no form at all')
    assert words(board)['page'] == 'http://127.0.0.1:8100/?token=x'
    assert words(board)['warnings'] == '4 (policy_node 3, arm_node 1); last: left.arm_node: no power'


def test_an_arm_that_stands_still_says_why():
    board = Board('up.log')
    board.hear_arm('enabled', '')
    assert 'arm' not in words(board)
    board.hear_arm('e-stop', 'somebody pressed stop')
    assert words(board)['arm'] == 'e-stop: somebody pressed stop'


def test_what_nodes_say_goes_to_a_file_and_their_last_words_to_the_screen(tmp_path):
    out = io.StringIO()
    console = Console(file=out, width=100, force_terminal=True)
    for number in range(KEPT_LOGS + 5):
        (tmp_path / f'up_2026{number:04}_000000.log').touch()
    with Screen('hilserl', tmp_path, console) as screen:
        for index in range(20):
            screen.write('learner_node', f'[INFO] [1796097386.758258831] [learner_node]: line {index}')
        assert 'line' not in out.getvalue()
        screen.tell('learner_node', 'ended with exit code 1; starts again in 1 s')
    said = out.getvalue()
    assert said.count('learner_node | ') == LAST_WORDS
    assert 'line 19' in said
    assert 'ended with exit code 1' in said
    kept = screen.log.read_text().splitlines()
    assert len(kept) == 21
    assert kept[0].endswith('learner_node | [INFO] [learner_node]: line 0'), 'no epoch, but a time of day'
    assert len(list(tmp_path.glob('up_*.log'))) == KEPT_LOGS


LOST = """
import sys, time
from pathlib import Path
from so101_bringup.terminal.screen import Screen
with Screen('hilserl', Path(sys.argv[1])) as screen:
    print('drawn', file=sys.stderr, flush=True)
    sys.stdin.read()
    for index in range(50):
        screen.tell('arm_node', 'parks')
        time.sleep(0.01)
Path(sys.argv[1], 'parked').touch()
"""


def test_a_terminal_that_closes_keeps_nothing_from_its_end(tmp_path):
    master, slave = os.openpty()
    process = subprocess.Popen(
        [sys.executable, '-c', LOST, tmp_path], stdin=subprocess.PIPE, stdout=slave, stderr=subprocess.PIPE
    )
    os.close(slave)
    assert process.stderr.readline() == b'drawn\n'
    os.close(master)
    _, said = process.communicate(b'', timeout=120.0)
    assert process.returncode == 0, said
    assert (tmp_path / 'parked').exists()

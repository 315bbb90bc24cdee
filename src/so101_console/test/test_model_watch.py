# SPDX-License-Identifier: Apache-2.0
"""What the page says of a policy behind a socket, and what it may tell it."""

import math
import time

import pytest

from so101_console.model_watch import instruction_of, LONGEST_INSTRUCTION, ModelWatch, STALE_S

pytest.importorskip('rclpy')

from so101_interfaces.msg import ChunkStatus


def heard(**values):
    watch = ModelWatch()
    watch.hear(ChunkStatus(server='tcp://127.0.0.1:5555', encoding='n1.6', instruction='lift it', **values))
    return watch.said(time.monotonic())


def test_nothing_is_said_where_no_model_acts():
    assert ModelWatch().said(0.0) is None


def test_a_model_that_has_gone_is_said_no_more():
    watch = ModelWatch()
    watch.hear(ChunkStatus(chunk=1))
    assert watch.said(time.monotonic() + STALE_S + 1.0) is None


def test_it_says_how_the_server_answers():
    said = heard(chunk=7, left=5, latency_p50=0.081, latency_p95=0.12, late_share=0.25, cut_share=0.5)
    assert said['instruction'] == 'lift it'
    assert not said['bad']
    for words in (
        'tcp://127.0.0.1:5555 (n1.6)',
        '81 ms',
        '120 ms',
        '25% late',
        '50% of the actions',
        '5 targets',
    ):
        assert words in said['said']


def test_trouble_is_said_in_the_words_of_the_node():
    said = heard(chunk=7, trouble='it is busy, stuck or far away')
    assert said['bad']
    assert 'busy, stuck' in said['said']


def test_numbers_that_nobody_knows_yet_are_dashes():
    said = heard(chunk=1, latency_p50=math.nan, latency_p95=math.inf, late_share=math.nan, cut_share=math.nan)
    assert '- ms' in said['said']
    assert 'nan' not in said['said']


def test_an_instruction_is_one_line():
    assert instruction_of({'text': '  pick up\n the\tcube '}) == 'pick up the cube'
    assert len(instruction_of({'text': 'x' * LONGEST_INSTRUCTION})) == LONGEST_INSTRUCTION


@pytest.mark.parametrize('text', [None, 3, '', '  \n', ['lift'], 'x' * (LONGEST_INSTRUCTION + 1)])
def test_what_is_no_instruction_is_refused_in_a_sentence(text):
    with pytest.raises(ValueError, match='expected an instruction of 1 to 200 characters'):
        instruction_of({'text': text})

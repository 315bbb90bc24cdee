# SPDX-License-Identifier: Apache-2.0
import pytest

from so101_console.access import Access, AccessError, is_loopback

HERE = {'host': '127.0.0.1:8101', 'origin': 'http://127.0.0.1:8101'}
TOKEN = 'correct-horse'


def refusal(headers, query='', access=None, is_socket=True):
    return (access or Access('127.0.0.1')).refusal(headers, query, is_socket=is_socket)


def test_the_page_that_the_console_served_may_talk_to_it():
    assert refusal(HERE) == ''
    assert refusal({'host': 'localhost:8101', 'origin': 'http://localhost:8101'}) == ''


@pytest.mark.parametrize(
    'origin', ['https://evil.example', 'http://127.0.0.1:9000', 'http://localhost:8101', 'null']
)
def test_a_page_of_another_origin_is_refused(origin):
    assert 'not from this console' in refusal({**HERE, 'origin': origin})


def test_a_socket_without_an_origin_is_refused_but_a_plain_request_is_not():
    assert refusal({'host': HERE['host']})
    assert refusal({'host': HERE['host']}, is_socket=False) == ''


@pytest.mark.parametrize('host', ['evil.example:8101', '192.168.1.7:8101', ''])
def test_a_name_that_was_made_to_point_here_is_refused(host):
    assert refusal({'host': host, 'origin': f'http://{host}'})


def test_serving_others_needs_a_token_that_is_no_guess():
    with pytest.raises(AccessError, match='SO101_CONSOLE_TOKEN'):
        Access('0.0.0.0')
    for token in ('short', 'x' * 300):
        with pytest.raises(AccessError, match='8 to 200 characters'):
            Access('0.0.0.0', token)
    for token in ('correct horse', 'correct;horse', 'correct"horse', 'körrekt-horse', 'correct\nhorse'):
        with pytest.raises(AccessError, match='letters, digits'):
            Access('0.0.0.0', token)


@pytest.mark.parametrize(
    ('query', 'cookie', 'allowed'),
    [
        (f'token={TOKEN}', '', True),
        ('', f'so101_token={TOKEN}', True),
        ('', '', False),
        ('token=wrong-horse', '', False),
        ('', 'so101_token=wrong-horse', False),
        ('', f'other={TOKEN}', False),
        ('', f'{Access("0.0.0.0", TOKEN).cookie}={TOKEN}', True),
        ('', f'a[]=1; {{"b": 2}}; =; ;; "; so101_token={TOKEN}', True),
        ('', f'so101_token=of-another-arm; so101_token={TOKEN}', True),
        (f'token={TOKEN}', 'so101_token=wrong-horse', True),
    ],
)
def test_the_token_opens_and_nothing_else_does(query, cookie, allowed):
    headers = {'host': '192.168.1.5:8101', 'origin': 'http://192.168.1.5:8101', 'cookie': cookie}
    assert (refusal(headers, query, Access('0.0.0.0', TOKEN)) == '') is allowed


def test_two_consoles_of_one_machine_keep_their_cookies_apart():
    assert Access('0.0.0.0', TOKEN).cookie != Access('0.0.0.0', 'battery-staple').cookie


@pytest.mark.parametrize(
    'odd', ['[', '[::1', 'http://[', 'http://\u2100', '//', '\x00', '[v1.x]', 'a' * 100_000]
)
def test_an_odd_header_is_refused_in_a_short_sentence(odd):
    for headers in ({'host': odd, 'origin': HERE['origin']}, {**HERE, 'origin': odd}):
        assert 0 < len(refusal(headers)) < 250


def test_loopback_is_this_machine():
    assert all(map(is_loopback, ['127.0.0.1', '127.8.8.8', 'localhost', '::1']))
    assert not any(map(is_loopback, ['0.0.0.0', '10.0.0.1', 'so101.local', '']))

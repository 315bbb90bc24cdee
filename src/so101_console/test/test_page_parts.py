# SPDX-License-Identifier: Apache-2.0
"""Charts, episodes and runs in a real browser, on the real server and state; only the graph's messages are made here."""

import json
from pathlib import Path
import re
import shutil

import bag_maker
from bag_maker import Session, write
import pytest

from conftest import until

pytest.importorskip('rclpy')

from builtin_interfaces.msg import Time
from diagnostic_msgs.msg import DiagnosticStatus, KeyValue
import numpy as np
from rclpy.serialization import serialize_message
from sensor_msgs.msg import Image
from so101_interfaces.msg import ArmStatus, EeDelta, EpisodeEvent, LearnerStatus, Step
from std_msgs.msg import Header

from so101_console.access import Access
from so101_console.archive.browser import EpisodeBrowser
from so101_console.archive.memory import Memory
from so101_console.arm_model import ArmModel
from so101_console.backend import PageBackend
from so101_console.frames import Frames
from so101_console.operator_input import Wheel
from so101_console.page_state import PageState
from so101_console.server import application, Server
from so101_contract.joints import JOINT_NAMES
from so101_contract.session import EventKind

PATIENCE_MS = 300_000
STEPS = 8
MIDDLE = 'elements => elements.map(e => Number(e.textContent)).filter(Number.isFinite)'


def header(seconds):
    return Header(stamp=Time(sec=int(seconds), nanosec=round(seconds % 1 * 1e9)))


class Arm:
    """What the nodes of a graph would say, said to the page's state."""

    def __init__(self, state, frames):
        self.state, self.frames = state, frames
        self.now, self.episode = 1000.0, 0
        self.state.on_arm(
            ArmStatus(
                state=ArmStatus.ENABLED, name=list(JOINT_NAMES), temperature=[30.0] * 6, voltage=[7.4] * 6,
                load=[0.0] * 6, error=[0] * 6, torque=[True] * 6,
            )
        )  # fmt: skip

    def event(self, kind, episode=None, index=0, reason=''):
        self.state.on_event(
            EpisodeEvent(
                header=header(self.now),
                episode=episode or self.episode,
                kind=int(kind),
                index=index,
                reason=reason,
            )
        )

    def live(self, outcome, helped=False):
        """Live through an episode."""
        self.episode += 1
        self.event(EventKind.START)
        for index in range(STEPS):
            self.now += 0.1
            pixels = np.full((24, 32, 3), 20 * index, np.uint8)
            stamp = header(self.now).stamp
            self.frames.add(
                serialize_message(
                    Image(
                        header=header(self.now),
                        height=24,
                        width=32,
                        encoding='rgb8',
                        step=96,
                        data=pixels.tobytes(),
                    )
                )
            )
            self.frames.jpeg(-1)  # as for a page that looks
            self.state.on_step(
                Step(
                    header=header(self.now),
                    episode=self.episode,
                    index=index,
                    joint_stamp=stamp,
                    image_stamps=[stamp],
                )
            )
            by = EeDelta.SOURCE_TELEOP if helped and index > 4 else EeDelta.SOURCE_POLICY
            message = EeDelta(
                header=header(self.now + 0.01), episode=self.episode, index=index, gripper=0.5, source=by
            )
            message.translation.x = 0.01
            self.state.on_command(message)
        self.event(outcome, index=STEPS - 1)
        self.now += 1.0


@pytest.fixture
def desk(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state, frames = PageState(ArmModel('so101').poses), Frames(80)
    state.memory = Memory(('wrist',))
    frames.keep = lambda stamp, jpeg: state.memory.picture('wrist', stamp, jpeg)
    bags = tmp_path / 'bags'
    backend = PageBackend(
        ArmModel('so101'), state, frames, EpisodeBrowser(str(bags)), Wheel(0.2), runs=str(tmp_path / 'runs')
    )
    server = Server(application(backend, Access('127.0.0.1'), 0.05, 0.0), '127.0.0.1', 0)
    server.start(lambda: None)
    yield Arm(state, frames), backend, f'http://127.0.0.1:{server.port}', bags
    server.close()
    backend.close()


@pytest.fixture
def open_page(chromium, desk):
    opened = []

    def open_(**options):
        options.setdefault('viewport', {'width': 1280, 'height': 900})
        page = chromium.new_page(**options)
        page.set_default_timeout(PATIENCE_MS)
        page.on('pageerror', lambda error: opened.append(str(error)))
        page.goto(desk[2])
        page.wait_for_selector('#servos tr')
        opened.append(page)
        return page

    yield open_
    for page in opened:
        assert not isinstance(page, str), page
        page.close()


def wait(page, condition):
    """Wait for a condition of the page; its own rules forbid what playwright would do for that."""
    until(lambda: page.evaluate(condition), condition)


def learned(arm, episodes):
    for number in range(episodes):
        good = number >= episodes // 2
        arm.live(EventKind.SUCCESS if good else EventKind.FAILURE, helped=not good)
        arm.state.on_learner(
            LearnerStatus(
                state='learning', q_mean=number / 60, q_bound=1.0, utd=1.5, online_size=number * STEPS
            )
        )


def ticks(page, title):
    """The numbers along the axis of a chart, from left to right."""
    figure = page.locator('#charts figure', has_text=title).first
    along = figure.locator('.axes text[text-anchor="middle"]')
    return [float(text) for text in along.all_text_contents()]


def test_charts_have_axes_with_numbers_units_episodes_and_the_healthy_range(desk, open_page):
    learned(desk[0], 40)
    page = open_page()
    page.wait_for_selector('#charts svg .line')
    wait(page, "document.querySelector('#charts svg').getAttribute('aria-label').includes('episode 1 to 40')")
    success = page.locator('#charts figure', has_text='Success').first
    assert {'0', '50', '100'} <= set(success.locator('.axes text').all_text_contents())
    assert ticks(page, 'Success')[-1] == 40
    assert 'episode' in success.locator('.axes text').all_text_contents()
    said = success.locator('figcaption b').text_content()
    assert re.search(r'100 % \(83\.9 to 100 %\) of the last 20, 100 % without help', said), said
    assert success.locator('.interval').get_attribute('d').startswith('M')
    healthy = success.locator('.healthy')
    assert healthy.get_attribute('visibility') == 'visible'
    assert 'healthy from 33.3 %' in success.locator('svg').get_attribute('aria-label')
    for title in ('By hand', 'Correction', 'Q of its bound', 'Updates per step', 'Steps to learn from'):
        assert page.locator('#charts figure', has_text=title).first.is_visible(), title
    assert page.locator('#charts figure', has_text='Human work').is_hidden(), 'nothing is known of it'


def test_charts_are_zoomed_by_drag_wheel_and_keys_and_all_is_shown_again(desk, open_page):
    learned(desk[0], 40)
    page = open_page()
    page.wait_for_selector('#charts svg .line')
    shown = "document.querySelector('#charts svg').getAttribute('aria-label').match(/episode (\\d+) to (\\d+)/).slice(1).map(Number)"
    shows = lambda words: wait(page, f'(() => {{ const [from, to] = {shown}; return {words}; }})()')
    chart = page.locator('#charts svg').first
    chart.scroll_into_view_if_needed()
    box = chart.bounding_box()
    middle, height = box['x'] + box['width'] * 0.5, box['y'] + box['height'] * 0.4
    page.mouse.move(middle, height)
    page.mouse.down()
    page.mouse.move(box['x'] + box['width'] * 0.8, height, steps=4)
    page.mouse.up()
    shows('from > 15 && to < 35')
    assert 15 < ticks(page, 'By hand')[0] < 25, 'all charts show the same episodes'
    page.mouse.dblclick(middle, height)
    shows('from === 1 && to === 40')
    page.focus('#charts')
    for _ in range(4):
        page.keyboard.press('+')
    shows('to - from < 25')
    page.keyboard.press('ArrowLeft')
    shows('from + to < 40')
    page.keyboard.press('Escape')
    shows('from === 1 && to === 40')
    page.mouse.move(middle, height)
    page.mouse.wheel(0, -300)
    shows('to - from < 39')
    page.keyboard.press('Home')
    shows('from === 1 && to === 40')


def test_the_last_failure_is_shown_with_one_press_though_nothing_is_recorded(desk, open_page):
    arm = desk[0]
    arm.live(EventKind.FAILURE)
    for _ in range(50):  # it was long ago
        arm.live(EventKind.SUCCESS)
    page = open_page()
    page.wait_for_selector('#episodes tr')
    page.click('#last-failure')
    page.wait_for_selector('#replay:not([hidden])')
    assert page.text_content('#replay-title') == 'This run · 1: failure'
    wait(page, "document.getElementById('replay-frame').naturalWidth === 32")
    assert 'Policy: +10' in page.text_content('#replay-action')


def test_a_label_that_is_corrected_in_a_replay_goes_to_the_session(desk, open_page):
    arm, backend, *_ = desk
    arm.live(EventKind.FAILURE)
    page = open_page()
    page.wait_for_selector('#episodes tr button')
    page.click('#episodes button')
    page.click('#replay-labels [data-label="success"]')
    assert backend.labels.get(timeout=PATIENCE_MS / 1000) == ('success', 1)
    arm.event(EventKind.SUCCESS, episode=1, reason='corrected at the page')
    wait(page, "document.getElementById('replay-title').textContent.includes('success')")
    assert page.get_attribute('#replay-labels [data-label="success"]', 'aria-pressed') == 'true'


def test_a_replay_is_scrubbed_paused_and_played_at_another_speed(desk, open_page):
    arm = desk[0]
    arm.live(EventKind.SUCCESS, helped=True)
    page = open_page()
    page.wait_for_selector('#episodes tr button')
    page.click('#episodes button')
    page.wait_for_selector('.timeline .who.human')
    assert page.locator('.timeline .who').count() == 2, 'the policy, then the human'
    assert page.locator('.timeline .trace.grip').count() == 1
    assert 'start' in page.text_content('#replay-events')
    line = page.locator('#replay .timeline')
    line.scroll_into_view_if_needed()
    box = line.bounding_box()
    page.mouse.click(box['x'] + box['width'] - 2, box['y'] + 20)
    assert page.text_content('#replay-number') == str(STEPS - 1)
    assert 'Human' in page.text_content('#replay-action')
    page.focus('#replay-step')
    page.keyboard.press('Home')
    assert page.text_content('#replay-number') == '0'
    page.select_option('#replay-speed', '4')
    page.click('#replay-play')
    wait(page, f"document.getElementById('replay-number').textContent === '{STEPS - 1}'")
    wait(page, "document.getElementById('replay-play').textContent === 'Play'")
    page.select_option('#replay-speed', '0.25')
    page.click('#replay-play')
    assert page.text_content('#replay-play') == 'Pause'
    page.click('#replay-play')
    assert page.text_content('#replay-play') == 'Play'


def test_two_episodes_are_compared_side_by_side_and_move_together(desk, open_page):
    arm = desk[0]
    arm.live(EventKind.SUCCESS)
    arm.live(EventKind.FAILURE)
    page = open_page()
    wait(page, "document.querySelectorAll('#episodes button').length === 2")
    page.click('#episodes button >> nth=0')
    page.click('#episodes button:has-text("Compare")')
    page.wait_for_selector('#replay2:not([hidden])')
    page.focus('#replay-step')
    for _ in range(3):
        page.keyboard.press('ArrowRight')
    wait(page, "document.getElementById('replay2-number').textContent === '3'")
    page.check('#episodes-apart')
    page.focus('#replay2-step')
    page.keyboard.press('End')
    assert page.text_content('#replay-number') == '3'
    page.click('#replay2-close')
    assert page.is_hidden('#replay2')


def test_bags_are_found_where_the_recorder_puts_them_with_progress_and_this_runs_episodes_stay(
    desk, open_page, tmp_path
):
    arm, _, _, bags = desk
    arm.live(EventKind.SUCCESS)
    for number in range(3):
        write(
            bags / f'bag{number}',
            Session(episodes=2, steps=6, start_ns=bag_maker.START_NS + number * 10**12).messages(),
        )
    elsewhere = write(tmp_path / 'else' / 'where', Session(episodes=1, steps=6).messages())
    arm.state.recorder.hear(
        DiagnosticStatus(message='Records', values=[KeyValue(key='folder', value=str(elsewhere))])
    )
    page = open_page()
    page.evaluate(
        "(() => { window.seen = []; new MutationObserver(() => window.seen.push(document.getElementById('episodes-load')."
        "textContent)).observe(document.getElementById('episodes-load'), { childList: true, characterData: true, subtree: true }); })()"
    )
    page.click('#episodes-load')
    wait(page, "document.getElementById('episodes-load').textContent === 'Read the bags again'")
    labels = page.locator('#episodes tr td:first-child').all_text_contents()
    assert labels[0] == 'This run · 1'
    assert sorted(labels[1:]) == sorted(['where · 1', *(f'bag{n} · {k}' for n in range(3) for k in (1, 2))])
    seen = page.evaluate('window.seen')
    assert any('Looking for bags' in text or 'Reading ' in text for text in seen), seen


def test_a_film_of_a_recorded_episode_is_made_beside_the_arm_and_comes_as_a_file(desk, open_page, tmp_path):
    pytest.importorskip('av')
    arm, _, _, bags = desk
    write(bags / 'bag', Session(episodes=2, steps=6).messages())
    arm.live(EventKind.SUCCESS)
    page = open_page()
    page.click('#episodes-load')
    page.click('#episodes button[aria-label="Replay episode bag · 2"]')
    with page.expect_download() as waited:
        page.click('#replay-film')
    film = tmp_path / 'seen.mp4'
    waited.value.save_as(film)
    assert waited.value.suggested_filename == 'bag-2.mp4'
    import av

    with av.open(str(film)) as video:
        assert len(list(video.decode(video=0))) >= 5
    page.click('#episodes button[aria-label="Replay episode This run · 1"]')
    page.click('#replay-film')
    page.wait_for_selector('#note:not([hidden])')
    assert 'record:=true' in page.text_content('#note')


@pytest.mark.parametrize('size', [(1280, 720), (1920, 1080), (390, 844)], ids=str)
@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_axe_finds_nothing_with_charts_replays_and_runs_open(desk, open_page, axe, make_runs, size, scheme):
    arm, *_ = desk
    learned(arm, 12)
    make_runs('one', 'two')
    page = open_page(viewport={'width': size[0], 'height': size[1]}, color_scheme=scheme)
    page.wait_for_selector('#charts svg .line')
    page.click('#episodes button >> nth=0')
    page.click('#episodes button:has-text("Compare") >> nth=0')
    page.wait_for_selector('#replay2:not([hidden])')
    page.click('#runs-details summary')
    page.check('#runs input >> nth=0')
    page.check('#runs input >> nth=1')
    page.click('#runs button >> nth=0')
    page.wait_for_selector('#runs-charts svg .line')
    page.evaluate(axe)
    found = page.evaluate('axe.run()')['violations']
    assert not [
        (rule['id'], node['target'], node['failureSummary']) for rule in found for node in rule['nodes']
    ]
    assert page.evaluate('document.documentElement.scrollWidth <= innerWidth'), (
        'nothing is wider than the window'
    )


@pytest.fixture
def make_runs(tmp_path):
    from test_runs import make_run

    return lambda *names: [
        make_run(tmp_path / 'runs' / name, wins=n) for n, name in enumerate(names, start=2)
    ]


def test_the_runs_are_listed_compared_and_their_commands_copied(desk, open_page, make_runs):
    one, two = make_runs('one', 'two')
    page = open_page()
    page.click('#runs-details summary')
    wait(page, "document.querySelectorAll('#runs tr').length === 2")
    rows = page.locator('#runs tr').all_text_contents()
    assert any('one' in row and 'simulated arm, lift, easy' in row and '%' in row for row in rows)
    for place in (0, 1):
        page.check(f'#runs input >> nth={place}')
    page.wait_for_selector('#runs-charts .line1')
    label = page.locator('#runs-charts svg').first.get_attribute('aria-label')
    assert 'one' in label
    assert 'two' in label
    page.click('#runs button[aria-label="Commands for two"]')
    words = page.locator('#run-commands code').all_text_contents()
    assert f'./so101 up run:={two}' in words
    assert any(word.startswith(f'./so101 trial {two}/checkpoints/best/policy') for word in words)
    page.context.grant_permissions(['clipboard-read', 'clipboard-write'])
    page.click('#run-commands button[aria-label="Copy: Go on with it"]')
    page.wait_for_selector('#note:not([hidden])')
    assert page.evaluate('getSelection().toString()') == f'./so101 up run:={two}'
    shutil.rmtree(one)


def test_what_a_page_may_ask_of_labels_and_jobs_is_bounded(desk):
    _, backend, *_ = desk
    from so101_console.operator_input import DriveError

    for message in ({}, {'outcome': 'abort', 'episode': 1}, {'outcome': 'success', 'episode': -1}, {'outcome': [], 'episode': 1},
                    {'outcome': 'success', 'episode': 2**40}, {'outcome': 'success', 'episode': True}):  # fmt: skip
        with pytest.raises(DriveError):
            backend.act('me', {'do': 'label', **message})
    assert backend.labels.empty()
    for name in ('../../etc', '/etc', '', '\0', 'x' * 3000):
        assert backend.run(name) is None
        assert backend.export_run(name)
        assert backend.make_film(name)
        assert backend.film(name) is None
    json.dumps(backend.runs())
    assert Path('datasets').exists() is False

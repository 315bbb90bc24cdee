# SPDX-License-Identifier: Apache-2.0
"""What a new user wants of the page, and the pictures that they go by: on the real graph, in a real browser."""

from contextlib import contextmanager
import time

import pytest

pytest.importorskip('rclpy')

from so101_interfaces.msg import ArmStatus
from test_console_graph import SESSION, sits_at

from so101_contract.session import EventKind

SCREEN = {'width': 1280, 'height': 720}
CAMERAS = ['wrist', 'front']
MOST_ACTIONS = 2


@pytest.fixture(scope='module')
def desk(ear, chromium, wait_until, tmp_path_factory):
    cameras = {'drawn_cameras': CAMERAS}
    bags = tmp_path_factory.mktemp('bags')
    with sits_at(ear, chromium, wait_until, bags, twin=cameras, cameras=CAMERAS) as desk:
        yield desk


class NewUser:
    """Somebody with nothing but the first screen, who counts what they do."""

    def __init__(self, page):
        self.page, self.actions = page, 0

    def press(self, key):
        self.actions += 1
        self.page.keyboard.press(key)

    @contextmanager
    def holds(self, key):
        self.actions += 1
        self.page.keyboard.down(key)
        yield
        self.page.keyboard.up(key)

    def click(self, selector):
        """Press a button that is seen: to look for it would be an action too."""
        assert on_screen(self.page, selector), f'{selector} is not on the screen'
        self.actions += 1
        self.page.click(selector)


def on_screen(page, selector):
    box = page.locator(selector).first.bounding_box()
    bottom = None if box is None else box['y'] + box['height']
    return box is not None and box['y'] >= 0 and bottom <= SCREEN['height']


@pytest.fixture
def user(desk):
    page = desk.page
    desk.runs()
    page.goto(desk.address)
    page.wait_for_selector('#servos tr')
    page.wait_for_selector('.frame:not(.stale)')
    user = NewUser(page)
    yield user
    assert user.actions <= MOST_ACTIONS
    desk.enable()


def test_make_it_stop(desk, user):
    user.click('#e-stop')
    desk.until(lambda: desk.ear.last('arm').state == ArmStatus.E_STOP, 'stopped')
    desk.shows('STOPPED')


def test_help_it(desk, user):
    began = time.monotonic()
    user.click('#take')
    desk.shows('You drive')
    height = desk.ear.hand()[2]
    with user.holds('r' if height < 0.12 else 'f'):
        desk.until(lambda: abs(desk.ear.hand()[2] - height) > 0.01, 'the hand goes where the user wants')
    assert EventKind.INTERVENTION_START in desk.kinds(began)
    desk.press('g')
    desk.until(lambda: desk.ear.session().driver != 'human', 'given back')


def test_this_one_failed(desk, user):
    began = time.monotonic()
    user.click('[data-do="failure"]')
    desk.until(lambda: EventKind.FAILURE in desk.kinds(began), 'the failure is an event')


def test_show_the_last_failure(desk, user):
    page = desk.page
    pictured = "document.getElementById('replay-frame').naturalWidth > 0"

    def shown():
        """The recorder may not have written it yet."""
        user.actions = 0
        user.click('#last-failure')
        page.wait_for_timeout(1000)
        if page.is_hidden('#replay'):
            page.evaluate('scrollTo(0, 0)')
        return page.is_visible('#replay')

    desk.until(shown, 'the last failure is shown')
    assert 'failure' in page.text_content('#replay-title')
    assert on_screen(page, '#replay-frame')
    page.focus('#replay-step')

    def has_a_picture():
        """A busy recorder may have missed that of a step."""
        if not page.evaluate(pictured):
            at_end = page.input_value('#replay-step') == page.get_attribute('#replay-step', 'max')
            desk.press('Home' if at_end else 'ArrowRight')
            page.wait_for_timeout(400)
        return page.evaluate(pictured)

    desk.until(has_a_picture, 'its steps have pictures')


def test_is_it_getting_better(desk, user):
    assert on_screen(desk.page, '#progress')
    desk.shows('episode', '#progress')
    desk.shows('better', '#progress')


# --- what is drawn ---

SHEETS = '.frame .sheet'
INK = """(sheet) => {
  const { data } = sheet.getContext('2d').getImageData(0, 0, sheet.width, sheet.height);
  return data.filter((value, n) => n % 4 === 3 && value > 0).length;
}"""


def drawn(page, camera=0):
    return (page.locator(SHEETS).nth(camera).get_attribute('data-shows') or '').split()


def test_the_policys_motion_and_the_target_are_drawn_over_the_picture_and_not_into_it(desk):
    page = desk.page
    desk.runs()
    desk.until(lambda: {'policy', 'target'} <= set(drawn(page)), 'motion and target are drawn')
    assert page.locator(SHEETS).first.evaluate(INK) > 50
    sheet, picture = page.locator(SHEETS).first.bounding_box(), page.locator('#camera').bounding_box()
    assert sheet == picture
    assert page.get_attribute('#camera', 'src').startswith('blob:'), 'the picture is that of the camera'


def test_what_the_human_does_is_drawn_too(desk):
    page = desk.page
    desk.take()
    key = 'r' if desk.ear.hand()[2] < 0.12 else 'f'
    page.keyboard.down(key)
    desk.until(lambda: 'hand' in drawn(page), 'the motion of the human is drawn')
    page.keyboard.up(key)
    desk.until(lambda: 'hand' not in drawn(page), 'a human who rests draws nothing')
    desk.press('g')
    desk.until(lambda: desk.ear.session().driver != 'human', 'given back')


def test_a_camera_that_stands_on_the_table_is_drawn_over_where_its_place_is_known(desk):
    page = desk.page
    desk.until(lambda: 'target' in drawn(page, 1), 'the target is drawn in the front camera too')
    assert not page.locator('.why').nth(1).text_content()


def test_the_score_is_told_on_the_picture(desk):
    desk.shows('Simulation: reward', '#scores')


def test_a_switch_turns_the_drawings_off_for_good(desk):
    page = desk.page
    desk.runs()
    page.click('#drawings')
    page.wait_for_timeout(500)
    assert drawn(page) == []
    assert page.locator(SHEETS).first.evaluate(INK) == 0
    assert page.is_hidden('#scores')
    page.reload()
    page.wait_for_selector('#servos tr')
    assert page.get_attribute('#drawings', 'aria-pressed') == 'false'
    page.click('#drawings')
    desk.until(lambda: drawn(page), 'they are back')


def test_nothing_is_drawn_while_nobody_looks(desk):
    page = desk.page
    hide = "Object.defineProperty(document, 'hidden', {{ value: {}, configurable: true }});"
    sheets = "[...document.querySelectorAll('.sheet, #arm')]"
    desk.runs()
    page.evaluate(hide.format('true'))
    page.wait_for_timeout(500)
    page.evaluate(f"{sheets}.forEach((sheet) => {{ sheet.dataset.shows = 'untouched'; }})")
    page.wait_for_timeout(1500)
    assert set(page.evaluate(f'{sheets}.map((sheet) => sheet.dataset.shows)')) == {'untouched'}
    page.evaluate(hide.format('false'))
    page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
    again = lambda: 'untouched' not in page.evaluate(f'{sheets}.map((sheet) => sheet.dataset.shows)')
    desk.until(again, 'they are drawn again')


def test_around_the_arm_is_what_is_known_of_the_scene(desk):
    page = desk.page
    desk.runs()
    wanted = {'arm', 'table', 'workspace', 'target', 'trail', 'cameras', 'objects'}
    shows = lambda: set((page.get_attribute('#arm', 'data-shows') or '').split())
    desk.until(lambda: wanted <= shows(), f'{wanted} are drawn')
    assert 'planned' not in shows(), 'not while an episode runs'
    desk.press('Space')
    desk.until(lambda: 'planned' in shows(), 'where the next episode begins is drawn between episodes')
    desk.enable()
    desk.runs()


# --- the human arranges the scene; last, since another session begins ---


def seconds_left(page):
    words = (page.text_content('#help-said') or '').split()
    return int(words[words.index('left,') - 2]) if 'left,' in words else None


def test_the_start_lies_over_the_picture_while_the_human_arranges_the_scene_and_start_says_ready(desk):
    page, ear = desk.page, desk.ear
    desk.runs()
    desk.stage.stop('session')
    ear.heard['session'].clear()
    desk.stage.add('session', reset_pause_s=600.0, **SESSION)

    def asked():
        desk.enable()
        if page.is_hidden('#help') and (session := ear.session()) is not None and session.state == 'waiting':
            desk.press('n')
            page.wait_for_timeout(400)
        return page.is_visible('#help')

    desk.until(asked, 'the human is asked to arrange the scene')
    loaded = "[...document.querySelectorAll('.before')].every((image) => image.naturalWidth > 0)"
    desk.until(lambda: page.evaluate(loaded), 'the start is shown over the pictures of both cameras')
    assert page.locator('.before').first.evaluate('(image) => getComputedStyle(image).opacity') == '0.5'
    desk.until(lambda: seconds_left(page) is not None, 'for how long there is time is said')
    first = seconds_left(page)
    desk.until(lambda: (seconds_left(page) or first) < first, 'it counts down')
    began = time.monotonic()
    page.click('#help button')
    desk.until(
        lambda: EventKind.START in desk.kinds(began), 'the episode begins long before the time is over'
    )
    desk.until(lambda: page.is_hidden('#help'), 'and the help is gone')
    assert page.locator('.before').first.is_hidden()

# SPDX-License-Identifier: Apache-2.0
"""A person at the page, in a real browser, on the real graph with a policy that drives: does the arm do as told?"""

from collections import Counter
from contextlib import contextmanager, suppress
import itertools
import json
import time

import numpy as np
import pytest

pytest.importorskip('rclpy')

from so101_interfaces.msg import ArmStatus, ChunkStatus, EeDelta
from std_msgs.msg import String
from std_srvs.srv import SetBool
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from so101_bags.messages import Decoders
from so101_bags.storage import open_bags
from so101_console.archive.browser import EpisodeBrowser
from so101_contract.session import EventKind, Source
from so101_interfaces_py import qos, topics
from so101_session.teleop.devices.controls import page_controls
from so101_testing.console_rig import ConsoleRig, PATIENT
from so101_testing.payloads import Flood

PAYLOADS = 500
TOKEN = 'correct-horse-battery'


class Desk:
    """The graph, its address, and a page that a person sits at."""

    def __init__(self, stage, address, bags, ear, browser, until):
        self.stage, self.address, self.bags = stage, address, bags
        self.ear, self.browser, self.until = ear, browser, until
        self.page = None

    def open(self):
        page = self.browser.new_page(viewport={'width': 1280, 'height': 720})
        page.set_default_timeout(300_000)
        page.goto(self.address)
        page.wait_for_selector('#servos tr')
        page.wait_for_selector('.frame:not(.stale)')
        self.page = page
        return page

    def enable(self):
        """As a person does after a stop, or after a fault of a machine that is too busy for the twin."""
        refused = itertools.count(1)

        def ready():
            state = self.ear.last('arm').state if self.ear.last('arm') else None
            if state in (ArmStatus.E_STOP, ArmStatus.FAULT):
                self.page.click('#recover [data-do="clear"]')
            elif state == ArmStatus.DISABLED:
                if next(refused) % 8 == 0:  # an overloaded servo stays so until its power was away
                    for on in (False, True):
                        self.ear.call(SetBool, topics.SIM_POWER_SERVICE, SetBool.Request(data=on))
                self.page.click('#recover [data-do="enable"]')
            else:
                return state is not None
            self.page.wait_for_timeout(400)
            return False

        self.until(ready, 'the motors are on')

    def runs(self):
        def running():
            self.enable()
            session = self.ear.session()
            if session is not None and session.intervening and session.driver == 'nobody':
                # Who had taken over is gone or silent: the arm holds, and no episode begins, before it is given back.
                for key in 'tg':
                    self.press(key)
                    self.page.wait_for_timeout(400)
            if session is not None and session.state == 'waiting':
                self.press('n')
                self.page.wait_for_timeout(400)
            return session is not None and session.state == 'running' and session.index > 2

        self.until(running, 'an episode runs')

    def shows(self, words, selector='#state', page=None):
        page = page or self.page
        self.until(lambda: words in (page.text_content(selector) or ''), f'{selector} shows {words!r}')

    def press(self, key):
        self.page.keyboard.press(key)

    def take(self):
        def drives():
            if self.ear.session().driver != 'human':
                self.runs()  # on a busy machine an episode may have been cut short
                self.press('t')
                self.page.wait_for_timeout(400)
            return self.ear.session().driver == 'human'

        self.until(drives, 'the person drives')

    def kinds(self, since):
        return [EventKind(m.kind) for _, m in self.ear.since('event', since)]

    def speed(self, since, window=0.05):
        """Return (times, speeds [m/s]) of the hand."""
        seen = self.ear.since('tcp', since)
        at = np.array([t for t, _ in seen])
        where = np.array([[m.pose.position.x, m.pose.position.y, m.pose.position.z] for _, m in seen])
        first = np.searchsorted(at, at - window)
        gaps = np.maximum(at - at[first], 1e-3)
        return at, np.linalg.norm(where - where[first], axis=1) / gaps


SESSION = {
    'time_limit_steps': 100_000,
    'joint_timeout_s': 5.0,
    'camera_timeout_s': 5.0,
    'no_answer_s': 30.0,
}


@contextmanager
def sits_at(ear, chromium, wait_until, bags, *, twin=None, **console):
    """Yield the desk of a graph in which an episode runs, with parameters for the twin and for the console."""
    # A machine that runs other tests beside these is no reason to cut an episode short.
    patient = {'arm': {**PATIENT['arm'], 'command_timeout_s': 1.0}, 'twin': twin or {}}
    with ConsoleRig('arm', 'kinematics', parameters=patient) as stage:
        stage.add('session', **SESSION)
        stage.add('recorder', out=bags)
        stage.add('policy', policy='default')
        desk = Desk(stage, stage.console(bags=bags, **console), bags, ear, chromium, wait_until)
        desk.open()
        desk.runs()
        yield desk


@pytest.fixture(scope='module')
def desk(ear, chromium, wait_until, tmp_path_factory):
    with sits_at(ear, chromium, wait_until, tmp_path_factory.mktemp('bags')) as desk:
        yield desk


def test_the_page_is_usable(desk):
    assert desk.page.is_enabled('#take')
    assert 'SO-101' in desk.page.title()


def test_nothing_is_loaded_from_any_other_host(desk):
    asked = []
    desk.page.on('request', lambda request: asked.append(request.url))
    desk.page.reload()
    desk.page.wait_for_selector('#servos tr')
    assert asked
    assert all(url.startswith((desk.address, 'blob:', 'data:')) for url in asked)


def help_and_label(desk):
    """Take over, drive 5 cm sideways, give back and label; return the episode, the key and how far the hand went."""
    ear, page = desk.ear, desk.page
    desk.runs()
    began = time.monotonic()
    desk.take()
    episode, start = ear.session().episode, ear.hand()
    key = 'a' if start[1] < 0 else 'd'  # towards the middle
    page.keyboard.down(key)
    desk.until(lambda: abs(ear.hand()[1] - start[1]) > 0.05 or EventKind.ABORT in desk.kinds(began), '5 cm')
    page.keyboard.up(key)
    page.wait_for_timeout(600)
    moved = ear.hand() - start
    desk.press('g')
    desk.until(lambda: ear.session().driver != 'human', 'the person gave back')
    page.wait_for_timeout(500)
    desk.press('1')
    desk.until(lambda: EventKind.SUCCESS in desk.kinds(began), 'the success is an event')
    page.wait_for_timeout(500)
    # A servo that a busy machine left alone may have cut it short; that is another story.
    return None if EventKind.ABORT in desk.kinds(began) else (episode, key, moved)


def test_what_a_person_does_at_the_page_is_what_the_bag_holds(desk):
    helped = None
    while helped is None:
        helped = help_and_label(desk)
    episode, key, moved = helped
    desk.stage.stop('recorder')

    events, executed = {}, {}
    with open_bags(desk.bags) as raw:
        decoders = Decoders(raw.topics.values())
        event, told = decoders.event(), decoders.action()
        for message in raw.messages(['/session/event', '/ee_delta_cmd']):
            if message.topic == '/session/event':
                said = event(message.data)
                events.setdefault(said.episode, []).append((said.kind, said.index))
            else:
                action = told(message.data)
                executed.setdefault(action.episode, {})[action.index] = action
    kinds = [kind for kind, _ in events[episode]]
    assert kinds == [
        EventKind.START,
        EventKind.INTERVENTION_START,
        EventKind.INTERVENTION_END,
        EventKind.SUCCESS,
    ]
    (first, last) = (index for kind, index in events[episode] if 'INTERVENTION' in kind.name)
    by_hand = [i for i, action in executed[episode].items() if action.source == Source.TELEOP]
    assert by_hand
    assert set(by_hand) <= set(range(first, last)), 'only between the two events'
    told = np.sum([executed[episode][i].translation for i in by_hand], axis=0)
    assert np.sign(told[1]) == (1 if key == 'a' else -1)
    assert abs(told[1]) > 0.04
    assert told[0] == told[2] == 0.0, 'nothing but the key that was held'
    assert abs(abs(moved[1]) - 0.05) < 0.05


def test_the_episode_browser_shows_that_episode_and_its_pictures(desk):
    rows = [row for row in EpisodeBrowser(str(desk.bags)).episodes() if row['outcome'] == 'success']
    assert rows
    row = rows[0]
    assert row['interventions'] == 1
    assert 0 < row['intervened'] < row['steps']
    assert row['latency_ms'] is not None
    assert row['clamped'] >= 0
    page = desk.page
    page.click('#episodes-load')
    page.wait_for_selector('#episodes button')
    page.click('#episodes button')
    pictured = "document.getElementById('replay-frame').naturalWidth > 0"
    desk.until(lambda: page.evaluate(pictured), 'the picture of the first step is there')
    page.focus('#replay-step')
    for _ in range(5):
        desk.press('ArrowRight')
    last = min(5, int(page.get_attribute('#replay-step', 'max')))  # the newest episode may have just begun
    desk.shows(str(last), '#replay-number')
    assert 'mm' in page.text_content('#replay-action') or 'Nobody' in page.text_content('#replay-action')


def test_a_label_that_is_corrected_in_a_replay_is_an_event_of_that_episode(desk):
    page, began = desk.page, time.monotonic()
    page.click('#episodes button >> nth=0')
    page.wait_for_selector('#replay-labels')
    episode = int(page.text_content('#replay-title').partition(':')[0].rpartition(' ')[2])
    page.click('#replay-labels [data-label="discard"]')
    corrected = lambda: [
        m for _, m in desk.ear.since('event', began) if (m.kind, m.episode) == (EventKind.DISCARD, episode)
    ]
    desk.until(corrected, 'the correction is an event')
    assert corrected()[0].by_human
    desk.shows('discard', '#replay-title')


def test_buttons_joystick_and_gamepad_say_what_the_keys_say(desk):
    page = desk.page
    desk.runs()
    desk.take()

    def told(wanted, what):
        began = time.monotonic()
        seen = lambda: [m.translation for _, m in desk.ear.since('teleop', began)]
        desk.until(lambda: any(wanted(vector) for vector in seen()), what)

    def rest():
        began = time.monotonic()
        still = lambda: [
            t
            for t, m in desk.ear.since('teleop', began)
            if not any((m.translation.x, m.translation.y, m.translation.z))
        ]
        desk.until(lambda: len(still()) > 2, 'the hand is told to rest')

    page.hover('[data-axis="2"][data-sign="1"]')
    page.mouse.down()
    told(lambda vector: vector.z > 0.0, 'the button R moves up')
    page.mouse.up()
    rest()
    stick = page.locator('#stick').bounding_box()
    page.mouse.move(stick['x'] + stick['width'] / 2, stick['y'] + stick['height'] / 2)
    page.mouse.down()
    page.mouse.move(stick['x'] + stick['width'] * 0.8, stick['y'] + stick['height'] / 2)
    told(lambda vector: vector.y < 0.0, 'the joystick to the right moves right')
    page.mouse.up()
    rest()
    pad = (
        "navigator.getGamepads = () => [{ index: 0, mapping: 'standard', axes: [0, 1, 0, 0], buttons: Array.from("
        '{ length: 17 }, (_, k) => ({ value: 0, pressed: k === %d })) }]'
    )
    deadman = page_controls()['pad']['deadman']
    page.evaluate(pad % -1)
    rest()
    page.evaluate(pad % deadman)
    told(lambda vector: vector.x < 0.0, 'the left stick towards oneself moves back while the deadman is held')
    node = desk.ear.node
    owner = node.create_publisher(String, topics.TELEOP_DEVICE, qos.LATCHED)
    owner.publish(String(data='gamepad'))
    desk.shows('is read by teleop_node', '#gamepad')
    rest()
    node.destroy_publisher(owner)
    desk.shows('works too', '#gamepad')
    page.evaluate('navigator.getGamepads = () => []')
    rest()
    desk.press('g')
    desk.until(lambda: desk.ear.session().driver != 'human', 'given back')


NEEDED = (
    '#state',
    '#e-stop',
    '.frame',
    '#take',
    '#give',
    '[data-do="success"]',
    '[data-do="failure"]',
    '#stick',
)


@pytest.mark.parametrize('size', [(1280, 720), (1920, 1080), (390, 844)], ids=str)
def test_what_an_operator_needs_is_seen_without_scrolling(desk, size):
    page = desk.page
    page.set_viewport_size({'width': size[0], 'height': size[1]})
    page.evaluate('scrollTo(0, 0)')
    for what in NEEDED:
        box = page.locator(what).first.bounding_box()
        assert box['x'] >= 0, what
        assert box['x'] + box['width'] <= size[0], what
        assert box['y'] + box['height'] <= size[1], f'{what} ends at {box["y"] + box["height"]:.0f}'
    assert page.locator('.frame').first.bounding_box()['width'] > 0.3 * size[0], (
        'the picture is the largest thing'
    )
    page.set_viewport_size({'width': 1280, 'height': 720})


def test_the_tones_are_switched_off_for_good(desk):
    page = desk.page
    assert page.get_attribute('#tones', 'aria-pressed') == 'true'
    page.click('#tones')
    page.reload()
    page.wait_for_selector('#servos tr')
    assert page.get_attribute('#tones', 'aria-pressed') == 'false'
    page.click('#tones')


@pytest.mark.parametrize(
    ('scheme', 'size'), [('light', (1280, 720)), ('dark', (390, 844))], ids=['light desktop', 'dark phone']
)
def test_axe_finds_nothing_that_somebody_could_not_use(desk, axe, scheme, size):
    page = desk.page
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({'width': size[0], 'height': size[1]})
    page.wait_for_timeout(300)
    page.evaluate(axe)
    found = page.evaluate('axe.run()')['violations']
    page.emulate_media(color_scheme='light')
    page.set_viewport_size({'width': 1280, 'height': 720})
    assert not [
        (rule['id'], node['target'], node['failureSummary']) for rule in found for node in rule['nodes']
    ]


def test_the_keyboard_alone_reaches_everything(desk):
    page = desk.page
    page.evaluate('document.body.tabIndex = -1; document.body.focus()')
    wanted = page.evaluate(
        '[...document.querySelectorAll(\'button:not(:disabled), input, canvas#arm, [tabindex="0"]\')]'
        '.filter((e) => e.checkVisibility()).map((e, n) => (e.dataset.tab = n))'
    )
    reached = set()
    for _ in range(2 * len(wanted) + 10):
        if set(wanted) <= reached:
            break
        desk.press('Tab')
        reached.add(page.evaluate('Number(document.activeElement.dataset.tab ?? -1)'))
    assert set(wanted) <= reached


def test_the_essentials_need_no_scrolling(desk):
    for name in (
        '#state',
        '#e-stop',
        '#arm',
        '#camera',
        '#take',
        '#give',
        '[data-do="success"]',
        '#coach',
        '#stick',
    ):
        box = desk.page.locator(name).first.bounding_box()
        assert box['y'] + box['height'] <= 720, name


def test_the_stop_key_stops_at_once_wherever_the_focus_is(desk):
    latencies = []
    for focus in ('#take', '#replay-step', '#arm', '#e-stop'):
        desk.enable()
        desk.page.wait_for_timeout(100)
        desk.page.focus(focus)
        pressed = time.monotonic()
        desk.press('Space')
        desk.until(lambda: desk.ear.last('arm').state == ArmStatus.E_STOP, f'stopped from {focus}', 5)
        at = next(t for t, m in desk.ear.since('arm', pressed) if m.state == ArmStatus.E_STOP)
        latencies.append(at - pressed)
    print(f'key to stop: median {1e3 * np.median(latencies):.0f} ms, longest {1e3 * max(latencies):.0f} ms')
    assert np.median(latencies) < 0.2 * 2.5, 'the promise is 0.2 s; this machine may be busy'
    desk.shows('STOPPED')
    desk.enable()


def test_a_model_is_told_in_words_what_to_do(desk):
    page, node, told = desk.page, desk.ear.node, []
    chunks = node.create_publisher(ChunkStatus, topics.POLICY_CHUNKS, qos.LATCHED)
    node.create_subscription(String, topics.POLICY_INSTRUCTION, lambda m: told.append(m.data), qos.EVENT)
    status = ChunkStatus(server='tcp://gpu:5555', encoding='n1.6', instruction='lift it', chunk=3)

    def shown():
        chunks.publish(status)
        page.wait_for_timeout(100)
        return page.is_visible('#instruction') and 'tcp://gpu:5555' in page.text_content('#model-said')

    desk.until(shown, 'the model is there')
    desk.enable()
    page.fill('#instruction', '')
    page.type('#instruction', 'put the cube down')
    page.keyboard.press('Enter')
    desk.until(lambda: told, 'the model is told')
    assert told == ['put the cube down']
    assert desk.ear.last('arm').state != ArmStatus.E_STOP, 'a space between words is no stop'
    page.focus('#instruction')
    desk.press('Escape')
    desk.press('Space')
    desk.until(lambda: desk.ear.last('arm').state == ArmStatus.E_STOP, 'outside of the field it is one')
    node.destroy_publisher(chunks)


def test_motors_on_leaves_the_arm_where_it_is_and_the_page_says_what_start_does(desk):
    desk.runs()
    desk.press('Space')
    desk.until(lambda: desk.ear.last('arm').state == ArmStatus.E_STOP, 'stopped', 30)
    desk.shows('not before the motors are on', '#start-does')
    desk.page.wait_for_timeout(1500)  # it falls
    desk.enable()
    hand, on = np.array(desk.ear.hand()), time.monotonic()
    desk.shows('Waiting for Start, since the arm was stopped: back to the start pose, then the policy drives')
    desk.shows('Start: back to the start pose, then the policy drives.', '#start-does')
    desk.page.wait_for_timeout(2500)
    assert np.linalg.norm(np.array(desk.ear.hand()) - hand) < 0.005
    assert not [m for t, m in desk.ear.since('command', on) if m.source != EeDelta.SOURCE_NONE]
    desk.press('n')
    desk.runs()
    desk.shows('Start: ends this episode, back to the start pose, then the policy drives.', '#start-does')


def test_a_page_that_goes_while_it_drives_leaves_an_arm_that_holds(desk):
    desk.runs()
    desk.take()
    up = 'r' if desk.ear.hand()[2] < 0.12 else 'f'
    desk.page.keyboard.down(up)
    desk.page.wait_for_timeout(500)
    desk.page.close()  # a busy browser takes its time for it, and the key is down all the while
    where, closed = desk.ear.hand(), time.monotonic()
    time.sleep(1.5)
    words = [m for _, m in desk.ear.since('teleop', closed) if m.translation.z != 0.0]
    actions = [m for _, m in desk.ear.since('command', closed) if m.translation.z != 0.0]
    # In steps of 0.1 s: a machine that is busy makes them longer.
    assert len({m.index for m in actions}) <= 3 + 2, (
        'the human is given up after 0.3 s, and a step that runs ends'
    )
    assert len(words) <= 0.3 * 60, 'pages speak 60 times a second at most'

    def at_rest():
        speeds = desk.speed(time.monotonic() - 0.5)[1]
        return speeds.size > 5 and speeds.max() < 0.02

    desk.until(at_rest, 'the hand is at rest')
    assert np.linalg.norm(desk.ear.hand() - where) < 0.15
    assert desk.ear.session().intervening, 'the policy does not get control by itself'
    assert desk.ear.session().driver == 'nobody'
    assert not [m for _, m in desk.ear.since('command', closed + 0.5) if m.source == EeDelta.SOURCE_POLICY]

    desk.open()
    # An episode that a busy machine has cut short meanwhile is no longer one that nobody drives.
    desk.until(
        lambda: 'Nobody drives' in desk.page.text_content('#state') or desk.ear.session().state != 'running',
        'the page says it',
    )

    def policy_drives():
        desk.runs()  # takes over and gives back
        return desk.ear.session().driver == 'policy'

    desk.until(policy_drives, 'the policy has it again')


def test_of_two_pages_only_one_drives(desk):
    desk.runs()
    first, second = desk.page, desk.open()

    def takes(page, other):
        """Take over with one page until the other says so: a busy browser may keep a page silent for too long."""

        def said():
            if 'Another page drives' in (other.text_content('#state') or ''):
                return True
            desk.page = page
            desk.runs()
            desk.press('t')
            page.wait_for_timeout(400)
            return False

        desk.until(said, 'the other page says that another drives')

    takes(first, second)
    second.keyboard.down('r')
    second.wait_for_timeout(400)
    asked = time.monotonic()
    second.wait_for_timeout(400)
    assert all(m.translation.z == 0.0 for _, m in desk.ear.since('teleop', asked)), 'it has not taken over'
    second.keyboard.up('r')
    takes(second, first)
    second.keyboard.press('g')
    desk.until(lambda: desk.ear.session().driver != 'human', 'given back')
    first.close()


def refused(address, **options):
    try:
        with connect(address, **options) as socket:
            socket.send(json.dumps({'do': 'take'}))
            socket.recv(timeout=200.0)
    except (InvalidStatus, ConnectionClosed):
        return True
    return False


def test_a_page_of_another_origin_is_refused_by_the_server(desk):
    live, began = f'ws://127.0.0.1:{desk.stage.port}/live', time.monotonic()
    assert refused(live, origin='http://evil.example')
    assert refused(live)
    assert not desk.ear.since('teleop', began)
    assert not [k for k in desk.kinds(began) if k is EventKind.INTERVENTION_START]


@pytest.mark.parametrize(
    'garbled',
    ['{', 'null', '[1]', '{"do": 3}', '{"do":"drive","axes":[9,0,0]}', 'x' * 5000, '[' * 1900],
    ids=['cut', 'null', 'list', 'number', 'too fast', 'long', 'deep'],
)
def test_a_garbled_message_moves_nothing_and_harms_nobody(desk, garbled):
    live = f'ws://127.0.0.1:{desk.stage.port}/live'
    began = time.monotonic()
    with connect(live, origin=desk.address) as socket:
        socket.send(garbled)
        said = [json.loads(m) for m in (socket.recv(timeout=200.0) for _ in range(6)) if isinstance(m, str)]
        assert any(m['type'] == 'note' and 'noth' in m['text'] for m in said)
    assert not desk.ear.since('teleop', began)
    assert desk.stage.running('console')


def test_a_huge_message_closes_the_socket_and_nothing_else(desk):
    live = f'ws://127.0.0.1:{desk.stage.port}/live'
    began = time.monotonic()
    with connect(live, origin=desk.address) as socket, suppress(ConnectionClosed):
        socket.send('x' * 1_000_000)
        while time.monotonic() < began + 100.0:
            socket.recv(timeout=200.0)
    assert time.monotonic() < began + 100.0, 'the server has closed it'
    assert desk.stage.running('console')


def flooded(desk):
    """Send all sorts of payloads to an arm that waits for Start; return whether it had power all the time."""
    desk.press('Space')
    desk.until(lambda: desk.ear.last('arm').state == ArmStatus.E_STOP, 'stopped')
    desk.enable()
    desk.until(lambda: desk.ear.session().state == 'waiting', 'it waits for Start')
    desk.page.wait_for_timeout(1500)
    before, flood, powered = desk.ear.hand(), Flood(desk.ear.node), all(desk.ear.last('arm').torque)
    flood.look(lambda topic: topic in ('/rosout', '/parameter_events'))
    while sum(map(Counter.total, flood.sent.values())) < PAYLOADS:
        flood.send()
        desk.page.wait_for_timeout(20)
    flood.close()
    desk.page.wait_for_timeout(1500)
    # Without power it stays without until it is enabled again; what was said in between is a part of the flood.
    powered = powered and all(desk.ear.last('arm').torque)
    if powered:
        assert np.linalg.norm(desk.ear.hand() - before) < 0.005
    return powered


def test_hundreds_of_payloads_end_no_node_silence_no_page_and_move_nothing(desk):
    """`./so101 bench faults_payloads` sends 20,000 of them, to every node that there is."""
    nodes = ('twin', 'arm', 'kinematics', 'session', 'policy', 'recorder', 'console')
    run = list(filter(desk.stage.running, nodes))
    while not flooded(desk):  # an arm without power sinks, whoever sends what
        pass
    assert list(filter(desk.stage.running, nodes)) == run
    desk.until(lambda: desk.page.is_hidden('#alarm'), 'the page goes on')
    desk.runs()


def test_the_stop_works_when_the_session_is_gone(desk):
    desk.runs()
    desk.stage.kill('session')
    desk.press('Space')
    desk.until(lambda: desk.ear.last('arm').state == ArmStatus.E_STOP, 'stopped', 30)


def test_a_page_without_a_console_says_so_in_big_letters(desk):
    desk.stage.kill('console')
    desk.page.wait_for_selector('#alarm:not([hidden])', timeout=100_000)
    assert 'No connection' in desk.page.text_content('#alarm')
    desk.press('Space')
    desk.shows('not confirmed', '#alarm')

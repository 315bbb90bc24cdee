# SPDX-License-Identifier: Apache-2.0
"""`./so101 bench faults_orders`: a few random orders to the real graph, and whether its watchers see what they must."""

import importlib
import json
from pathlib import Path
import subprocess
import sys

import numpy as np
import pytest

pytest.importorskip('rclpy')
from rclpy.serialization import serialize_message
from so101_interfaces.msg import ArmStatus, EpisodeEvent, SessionStatus

from so101_contract.joints import JOINT_NAMES
from so101_interfaces_py.conversions import joint_state

BENCHMARKS = Path(__file__).parents[3] / 'benchmarks'


@pytest.fixture(scope='module')
def bench():
    sys.path.insert(0, str(BENCHMARKS))
    yield importlib.import_module('bench_faults_orders')
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture
def watched(bench, monkeypatch):
    """A watcher of stillness, and a function that shows it the arm for a second."""
    rig = importlib.import_module('orders_rig')
    still, clock = rig.Stillness(), [100.0]
    monkeypatch.setattr(rig.time, 'monotonic', lambda: clock[0])

    def show(where, moves=0.0, torque=True, state=SessionStatus.WAITING, seconds=1.0):
        still.arm(ArmStatus(torque=[torque] * 6))
        still.session(SessionStatus(state=state, clipped=[0.0] * 4))
        for part in np.linspace(0.0, 1.0, round(100 * seconds)):
            clock[0] += 0.01
            q = np.full(6, where + part * moves)
            still.joints(serialize_message(joint_state(JOINT_NAMES, q.tolist())))
        return still.found

    return still, show


def test_a_motion_before_start_is_seen_and_one_of_an_episode_or_of_a_limp_arm_is_none(watched):
    still, show = watched
    assert show(0.0) == []
    assert show(0.0, moves=0.5, torque=False) == []
    assert show(0.5) == []
    still.asked = True
    assert show(0.5, moves=0.3, state=SessionStatus.RUNNING) == []
    assert show(0.8, seconds=2.0) == []
    still.withdraw()
    assert 'before Start' in show(0.8, moves=0.2, state=SessionStatus.RUNNING)[0]


def test_a_motion_between_episodes_is_seen_once_it_is_sure_that_none_has_begun(watched):
    still, show = watched
    still.asked = True
    show(0.0, seconds=2.0)
    assert show(0.0, moves=0.2) == []
    assert show(0.2, state=SessionStatus.RUNNING) == []
    show(0.2, seconds=2.0)
    show(0.2, moves=0.2)
    assert 'between' in show(0.4, seconds=6.0)[0]


def test_an_episode_without_an_end_is_lost_unless_its_session_was_killed(bench):
    episodes = importlib.import_module('orders_rig').Episodes()
    for number, kind in ((1, EpisodeEvent.START), (1, EpisodeEvent.ABORT), (2, EpisodeEvent.START)):
        episodes.hear(EpisodeEvent(episode=number, kind=kind))
    episodes.session_killed()
    for number in (1, 2):
        episodes.hear(EpisodeEvent(episode=number, kind=EpisodeEvent.START))
    assert episodes.lost == ['episode 1 has no end, and episode 2 begins']
    assert (episodes.begun, episodes.ended, episodes.killed) == (4, 1, 1)


def test_the_way_out_is_what_the_page_names_and_nothing_where_it_names_nothing(bench):
    remedies = [{'name': 'arm', 'remedy': '“Clear stop or fault”, “Motors on”, and “Start”.'}]
    assert bench.way_out({'arm': 'stopped', 'title': 'STOPPED', 'checks': remedies}) == 'clear'
    assert bench.way_out({'arm': 'stopped', 'title': 'STOPPED', 'checks': []}) is None
    waits = {'arm': 'ready', 'title': 'Waiting', 'detail': 'Waiting for Start: you drive.'}
    assert bench.way_out({**waits, 'start': 'you drive'}) == 'start'
    assert bench.way_out({**waits, 'start': ''}) is None
    assert bench.way_out({'arm': 'ready', 'title': 'Nobody drives', 'detail': 'Hm.'}) is None


def test_the_same_seed_gives_the_same_orders(bench):
    orders = [list(bench.drawn(200, bench.random.Random(seed))) for seed in (1, 1, 2)]
    assert orders[0] == orders[1] != orders[2]
    assert set(bench.drawn(5000, bench.random.Random(0))) == set(bench.ORDERS)


def test_forty_random_orders_move_nothing_unasked_lose_nothing_and_leave_a_way_out(tmp_path):
    out = tmp_path / 'found.json'
    words = [sys.executable, BENCHMARKS / 'bench_faults_orders.py', '--orders', '40', '--seed', '1']
    done = subprocess.run([*words, '--json', out], capture_output=True, text=True, timeout=900, check=False)
    assert out.exists(), done.stderr
    found = json.loads(out.read_text())
    assert found['details']['wrong'] == []
    assert found['passed']

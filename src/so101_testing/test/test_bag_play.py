# SPDX-License-Identifier: Apache-2.0
"""A bag of ours that is played again feeds a learner: over real DDS, with the QoS that the bag says."""

import hashlib
import time

import pytest

rclpy = pytest.importorskip('rclpy')

from hilserl_learner.data.store import read_buffer
from hilserl_learner.ingest.cli import main as ingest
from so101_contract.transition import Transition
from so101_interfaces_py import topics
from so101_testing.bag_player import BagPlayer

from .test_old_data import BEFORE

BAG = BEFORE / 'bag'
HEARD = (topics.STEP, topics.EPISODE_EVENT, topics.EE_DELTA_CMD, topics.JOINT_STATES, topics.IMAGE)
PATIENCE_S = 300.0


def learned(folder):
    """What there is to learn from: what was seen, and what was done, by episode and step."""
    found = [entry.output for entry in read_buffer(folder) if isinstance(entry.output, Transition)]
    return {
        (one.episode, one.index): (
            hashlib.sha256(next(iter(one.next_frame.images.values())).tobytes()).hexdigest(),
            one.next_frame.state.tolist(),
            one.action.translation.tolist(),
            one.intervened,
        )
        for one in found
    }


@pytest.fixture
def player():
    rclpy.init()
    player = BagPlayer(BAG, rate=4.0)
    yield player
    player.close()
    rclpy.try_shutdown()


def test_what_is_played_is_learned_from_as_if_it_were_live(player, start, tmp_path):
    run = tmp_path / 'run'
    given = {'directory': run, 'width': 16, 'num_critics': 2, 'batch_size': 8, 'capacity': 2000}
    words = [word for name, value in given.items() for word in ('-p', f'{name}:={value}')]
    learner = start('hilserl_learner', 'learner_node', '--ros-args', *words)
    assert player.wait_for({f'/{topic}': 1 for topic in HEARD}, PATIENCE_S)
    sent = player.play()
    assert all(sent[f'/{topic}'] for topic in HEARD)

    assert ingest([str(BAG), '--out', str(tmp_path / 'ingested')]) == 0
    expected = learned(tmp_path / 'ingested')
    deadline = time.monotonic() + PATIENCE_S
    while True:
        heard = learned(run / 'online') if (run / 'online' / 'live').exists() else {}
        if len(heard) >= len(expected) - 2 or time.monotonic() > deadline:
            break
        assert learner.poll() is None
        time.sleep(0.2)
    # Of best-effort pictures one may be lost on a busy machine, and with it a step.
    assert len(expected) - 2 <= len(heard) <= len(expected)
    assert all(expected[key] == value for key, value in heard.items())

# SPDX-License-Identifier: Apache-2.0
"""`serve-policy` as a process of its own: our policy behind the protocol, in each encoding, for any client."""

from contextlib import contextmanager
import os
import re
import signal
import subprocess
import sys

import numpy as np
import pytest

from drqv2_policy_node.store import find_policy, load_policy
from so101_contract.messages import ImageSample
from so101_contract.observation import Observation
from so101_driver.calibration.lerobot_units import JointScale
from so101_kinematics.fk import ForwardKinematics, state_function
from so101_sim.human.expert import Expert
from so101_sim.tasks import Lift
from vla_policy_node.client import PolicyServer, RefusalError
from vla_policy_node.protocol import Seen
from vla_policy_node.serving.actors import plan, PolicyActor, SetpointWay
from vla_policy_node.serving.server import Answers, Terms
from vla_policy_node.wire import decode, encode, Encoding

SCALE = JointScale('degrees')
ARM = np.array([0.0, -0.4, 0.6, 0.8, 0.0, 0.5])
PATIENT_S = 120.0


@contextmanager
def served(*words):
    """The process, and where it listens."""
    command = [sys.executable, '-m', 'vla_policy_node.serving.cli', *words, '--port', '0']
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path))}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        said = process.stdout.readline()
        yield process, re.search(r'tcp://[0-9.]+:[0-9]+', said)[0]
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60.0)
        process.stdout.close()


def seen(offer):
    rng = np.random.default_rng(3)
    video = {
        name: rng.integers(0, 256, (len(offer.video_times), 48, 64, 3), dtype=np.uint8)
        for name in offer.cameras
    }
    times = np.array(offer.state_times)[:, None]
    return Seen(video, SCALE.from_rad(ARM + 0.01 * times), 'pick up the cube')


def test_a_served_policy_says_what_it_says_in_process_for_any_client():
    policy = load_policy(find_policy('default', 'compact'))
    with served('default', '--token', 'secret', '--delay-ms', '30') as (process, address):
        with pytest.raises(RefusalError, match='Unauthorized'):
            PolicyServer(address, timeout_s=PATIENT_S).greet()
        client = PolicyServer(address, token='secret', timeout_s=PATIENT_S)
        offer = client.greet()
        assert (offer.video_times, offer.state_times) == ((-6, -3, 0), (-7, -6, -4, -3, -1, 0))
        shown = seen(offer)
        client.reset()
        targets = SCALE.to_rad(client.targets(shown))
        with pytest.raises(RefusalError, match='expected 3 uint8 pictures'):
            client.targets(Seen({'front': shown.video['front'][:1]}, shown.state, ''))
        with pytest.raises(RefusalError, match='must be a numpy array'):
            client.targets(Seen({}, shown.state, ''))
        client.close()
        process.send_signal(signal.SIGINT)
        assert process.wait(200.0) == 0
    fk, spec = ForwardKinematics('so101'), policy.manifest.observation
    positions = SCALE.to_rad(shown.state)
    state = state_function(spec)
    camera = spec.cameras[0]
    observation = Observation(
        state=np.stack([state(positions[k + 1], (positions[k + 1] - positions[k]) * 30) for k in (0, 2, 4)]),
        images={
            camera.name: np.stack([ImageSample.from_raw(camera, 0, p).image for p in shown.video['front']])
        },
    )
    wire = policy.manifest.action.to_wire(policy.act(observation))
    moved = fk.positions(targets) - fk.pose(positions[-1]).position
    np.testing.assert_allclose(moved[0], 0.0, atol=1e-4)
    np.testing.assert_allclose(moved[3], wire.translation, atol=1e-3)
    np.testing.assert_allclose(moved[-1], wire.translation, atol=1e-3)


@pytest.mark.parametrize('encoding', Encoding)
def test_every_encoding_has_its_endpoints(encoding):
    policy = load_policy(find_policy('default', 'compact'))
    actor = PolicyActor(policy, SCALE, rate_hz=30.0, horizon=16)
    answers = Answers(actor, Terms(actor.offer(encoding, 'front')))

    def ask(endpoint, **data):
        return decode(answers.answer(encode({'endpoint': endpoint, **data}, encoding)))

    assert ask('ping') == {'status': 'ok', 'message': 'Server is running'}
    assert ask('kill') == {'error': 'Unknown endpoint: kill'}
    assert ask('reset', data={'options': None}) == (
        {'error': 'Unknown endpoint: reset'} if encoding.is_flat else {}
    )
    assert decode(answers.answer(b'junk'))['error'].startswith('expected')
    assert decode(answers.answer(b'\x80\x04K\x01.'))['error'].startswith('expected msgpack')


def test_a_way_goes_on_where_the_chunk_before_has_it_by_now():
    fk = ForwardKinematics('so101')
    way = SetpointWay('so101', scale=SCALE, step_s=0.1, rate_hz=30.0, horizon=16)
    said = SCALE.from_rad(ARM[None])[0]
    moves = plan_of((0.01, 0.0, 0.0))
    first = fk.positions(SCALE.to_rad(way.chunk(said, moves, 10.0)))
    second = fk.positions(SCALE.to_rad(way.chunk(said, moves, 10.1)))
    np.testing.assert_allclose(second[0], first[3], atol=1e-3)
    third = fk.positions(SCALE.to_rad(way.chunk(said, moves, 20.0)))
    np.testing.assert_allclose(third[0], fk.pose(ARM).position, atol=1e-3)


def plan_of(*moves):
    from so101_contract.action import EeDeltaValue

    return [EeDeltaValue(np.array(move), 0.5) for move in moves]


def test_the_expert_plans_ahead_without_losing_its_own_place():
    from so101_sim.env import ArmEnv

    env = ArmEnv(images=False)
    env.reset(seed=1)
    expert = Expert(Lift())
    expert.reset(np.random.default_rng(1))
    moves = plan(expert, env.truth(), 6)
    assert len(moves) == 6
    np.testing.assert_array_equal(expert.act(env.truth()).translation, moves[0].translation)


def test_a_policy_that_is_not_there_ends_it_with_a_sentence(tmp_path):
    command = [sys.executable, '-m', 'vla_policy_node.serving.cli', str(tmp_path / 'none')]
    environment = {**os.environ, 'PYTHONPATH': os.pathsep.join(filter(None, sys.path))}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.startswith('so101 serve-policy: ')
    assert 'Traceback' not in done.stderr

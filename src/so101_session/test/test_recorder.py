# SPDX-License-Identifier: Apache-2.0
"""The recorder on a real graph: what it stores, and what is left of it when it is killed."""

from pathlib import Path
import random
import resource
import shutil
import signal
import struct
import subprocess
import sys
import time

import pytest
from rosbags.rosbag2 import Reader

from so101_bags.check.bag import check_bag, check_parity
from so101_bags.fix import fix_bag
from so101_bags.messages import Decoders
from so101_bags.metadata import read_attachments, read_mcap_metadata, read_session_metadata
from so101_bags.storage import open_bags
from so101_interfaces_py.params import ParameterError
from so101_session.recorder.cli import main as record
from so101_session.recorder.cli import parser, ros_arguments
from so101_session.recorder.config import RecorderConfig

FOLDER = Path(__file__).parent
CONFIG = FOLDER.parents[2] / 'config'
PATIENCE_S = 60.0


def wait_for(condition, what):
    """Wait until a condition holds."""
    deadline = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


def program(*words, **options):
    """Start a Python program of this folder or module."""
    return subprocess.Popen([sys.executable, *map(str, words)], **options)


def recorder(*words, **options):
    """Start a recorder."""
    return program('-m', 'so101_session.recorder.cli', *words, stderr=subprocess.PIPE, text=True, **options)


@pytest.fixture(scope='module')
def graph():
    """A session with 5 % of its camera frames lost, and somebody who watches as a policy does."""
    pytest.importorskip('rclpy')
    feeder = FOLDER / 'session_feeder.py'
    processes = [program(feeder, 'feed', 300, 0.05), program(feeder, 'watch', 300)]
    yield processes
    for process in processes:
        process.send_signal(signal.SIGINT)
    for process in processes:
        process.wait(10.0)


@pytest.fixture(scope='module')
def recorded(graph, tmp_path_factory):
    """A bag of some episodes, recorded from the graph and ended by SIGINT."""
    out = tmp_path_factory.mktemp('bags')
    process = recorder('--out', out, '--name', 'run', '--split-episodes', 2, '--config', CONFIG)
    bag = out / 'run'
    wait_for(lambda: len(list(bag.glob('*.mcap'))) >= 3, 'three files of two episodes each')
    noted = b'parameters /feeder'
    wait_for(
        lambda: any(noted in file.read_bytes() for file in bag.glob('*.mcap')), 'the answer of each node'
    )
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=100.0)
    assert process.returncode == 0, said
    assert 'closed' in said.splitlines()[-1]
    return bag


def test_P24_the_observation_rebuilt_from_the_bag_is_bit_identical_to_the_live_one(recorded):
    report = check_parity(recorded, check_spec())
    assert report.compared > 5  # who watches on a busy machine sees fewer
    assert report.different == []
    # The first episodes began before the recorder did; after that a frame is lost at most where the machine is.
    lost = [one for one in report.lost if one[0] > 2]
    assert len(lost) <= max(2, 0.05 * report.compared)


def test_the_check_finds_no_fault_in_it(recorded):
    report = check_bag(recorded, parity=True)
    assert report.faults == []
    assert report.calibration == 'cal-7'
    assert sum(row.outcome == 'success' for row in report.episodes) >= 4


def test_every_file_begins_with_an_episode_and_can_be_read_alone(recorded):
    files = sorted(recorded.glob('*.mcap'))
    for number, file in enumerate(files):
        with open_bags(file) as bag:
            events = [Decoders().event()(m.data) for m in bag.messages(['/session/event'])]
            assert bag.topics['/arm/status'].count >= 1
        if number and events:
            assert events[0].kind == 0
        if 0 < number < len(files) - 1:
            assert [event.kind for event in events] == [0, 1, 0, 1]


def test_other_readers_find_topics_definitions_and_qos(recorded):
    with Reader(recorded) as reader:
        found = {connection.topic: connection for connection in reader.connections}
        assert sum(1 for _ in reader.messages()) == reader.message_count
    image, status = found['/gripper_cam/image_raw'], found['/arm/status']
    assert image.msgdef.data.startswith('# This message contains an uncompressed image')
    assert image.ext.offered_qos_profiles[0].reliability.name == 'BEST_EFFORT'
    assert status.ext.offered_qos_profiles[0].durability.name == 'TRANSIENT_LOCAL'
    assert all(connection.digest.startswith('RIHS01_') for connection in found.values())


def test_contract_calibration_and_configuration_are_inside(recorded):
    metadata = read_session_metadata(recorded)
    assert metadata['observation_hash'] == check_spec().hash
    assert metadata['calibration_id'] == 'cal-7'
    assert metadata['action_hash']
    attached = read_attachments(sorted(recorded.glob('*.mcap'))[-1])
    assert attached['driver.yaml'] == (CONFIG / 'driver.yaml').read_bytes()
    named = dict(read_mcap_metadata(sorted(recorded.glob('*.mcap'))[-1]))
    assert named['parameters /recorder_node']['split_episodes'] == '2'
    assert '/feeder' in ' '.join(named)


def test_P19_a_killed_recorder_loses_at_most_the_last_second_of_the_graph(graph, tmp_path):
    rng = random.Random(4)
    processes = [
        recorder(
            *('--out', tmp_path, '--name', f'k{i}', '--compression', ('none', 'zstd')[i % 2]),
            *('--ros-args', '-r', f'__node:=recorder_{i}'),  # one node of a name
        )
        for i in range(3)
    ]
    wait_for(lambda: len(list(tmp_path.glob('k*/*.mcap'))) == len(processes), 'all recorders to begin')
    killed = []
    for process in processes:
        time.sleep(rng.uniform(0.5, 1.5))
        process.kill()
        killed.append(time.time_ns())
        process.communicate()
    heard = []
    for i in range(len(processes)):
        with open_bags(tmp_path / f'k{i}') as bag:
            heard.append([(row.log_ns, ticks(row.data)) for row in bag.messages(['/joint_states'])])
        counts = [count for _, count in heard[-1]]
        assert counts == sorted(set(counts))
        assert len(counts) > 0.9 * (counts[-1] - counts[0]), 'a busy machine may lose some on the way'
    # What the graph had sent until then is known by the recorder that was killed last. Counted in messages: a busy
    # machine sends fewer of them.
    (began_ns, first), (ended_ns, last) = heard[-1][0], heard[-1][-1]
    a_second = (last - first) / ((ended_ns - began_ns) / 1e9)
    for rows, when in zip(heard[:-1], killed, strict=False):
        sent = max(count for log_ns, count in heard[-1] if log_ns <= when)
        assert sent - rows[-1][1] <= 1.5 * a_second, 'a second, and what is on its way to the disk'


@pytest.mark.parametrize('compression', ['none', 'zstd'])
def test_P19_bag_fix_recovers_everything_but_the_last_second_at_ten_random_moments(compression, tmp_path):
    rng = random.Random(compression)
    processes = [
        program(
            FOLDER / 'sink_program.py', tmp_path / f'bag{i}', compression, stdout=subprocess.PIPE, text=True
        )
        for i in range(5)
    ]
    for i, process in enumerate(processes):
        process.stdout.readline()
        time.sleep(rng.uniform(0.0, 0.3))
        process.kill()
        said, _ = process.communicate()
        report = fix_bag(tmp_path / f'bag{i}')
        with open_bags(report.target) as bag:
            numbers = [int.from_bytes(message.data[:8], 'little') for message in bag.messages()]
        assert numbers == list(range(1, len(numbers) + 1))
        assert len(numbers) >= int(said.split()[-1] if said.split() else 0)
        shutil.rmtree(tmp_path / f'bag{i}')
        shutil.rmtree(report.target)


def test_it_listens_as_the_publishers_offer_and_gets_what_was_latched_before_it_began(ros, tmp_path):
    from geometry_msgs.msg import PoseStamped
    from rclpy.node import Node
    from rclpy.qos import QoSProfile, ReliabilityPolicy
    from sensor_msgs.msg import JointState
    from std_msgs.msg import String

    from so101_interfaces_py import qos

    lossy = QoSProfile(depth=5, reliability=ReliabilityPolicy.BEST_EFFORT)  # as other drivers publish
    node = Node('foreign', namespace='foreign')
    joints = node.create_publisher(JointState, 'joint_states', lossy)
    pose = node.create_publisher(PoseStamped, 'tcp_pose', lossy)
    description = node.create_publisher(String, 'robot_description', qos.LATCHED)
    description.publish(String(data='<robot/>'))
    process = recorder('--out', tmp_path, '--name', 'f', '--namespace', 'foreign', '--topics', 'extra')
    extra = node.create_publisher(String, 'extra', qos.EVENT)

    def recording():
        joints.publish(JointState(name=['a'], position=[0.0]))
        pose.publish(PoseStamped())
        extra.publish(String(data='more'))
        return (tmp_path / 'f').exists()

    wait_for(recording, 'the recorder to begin')
    for _ in range(20):
        recording()
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=100.0)
    with open_bags(tmp_path / 'f') as bag:
        counts = {topic: info.count for topic, info in bag.topics.items()}
    assert counts['/foreign/robot_description'] == 1
    assert min(counts['/foreign/joint_states'], counts['/foreign/tcp_pose'], counts['/foreign/extra']) >= 10
    node.destroy_node()


def test_T1_recording_refuses_to_start_without_kinematics(tmp_path):
    words = ['--out', tmp_path, '--ros-args', '-r', '__ns:=/lonely', '-p', 'wait_s:=1.0']
    process = recorder(*words)
    _, said = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 1
    assert '/lonely/joint_states, /lonely/tcp_pose' in said
    assert 'start the arm and kinematics_node' in said
    assert list(tmp_path.iterdir()) == []


def test_a_recording_that_fails_pauses_the_session_says_so_and_goes_on_in_another_bag(graph, ros, tmp_path):
    from diagnostic_msgs.msg import DiagnosticStatus
    from rclpy.node import Node
    from std_srvs.srv import SetBool

    from so101_interfaces_py import qos, topics

    node, asked, told = Node('session'), [], []

    def pause(request, response):
        asked.append(request.data)
        response.success = True
        return response

    node.create_service(SetBool, topics.PAUSE_SERVICE, pause)
    node.create_subscription(DiagnosticStatus, topics.RECORDER_STATUS, told.append, qos.LATCHED)

    def heard(level, text):
        ros.spin_once(node, timeout_sec=0.05)
        return any(one.level == level and text in one.message for one in told)

    process = recorder(
        *('--out', tmp_path, '--compression', 'none', '--ros-args', '-p', 'pauses_session:=true'),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000)),
    )
    wait_for(lambda: heard(DiagnosticStatus.OK, f'Records into {tmp_path}/so101_'), 'it to record')
    assert 'GB are left on the disk' in told[-1].message
    wait_for(
        lambda: heard(DiagnosticStatus.ERROR, 'Nothing is recorded: expected to write to'), 'it to say so'
    )
    wait_for(lambda: ros.spin_once(node, timeout_sec=0.05) or asked, 'the session to be paused')
    told.clear()
    wait_for(lambda: heard(DiagnosticStatus.OK, 'Records into'), 'another bag')
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=100.0)
    assert process.returncode == 0, said
    assert set(asked) == {True}
    bags = sorted(tmp_path.iterdir())
    assert len(bags) >= 2
    known = []
    for bag in bags[:2]:
        with open_bags(bag) as raw:
            assert raw.count > 0
            known.append('/arm/status' in raw.topics)
    assert known == sorted(known)  # latched: once heard, it is in each bag, which can be read alone
    node.destroy_node()


def test_the_command_line_becomes_parameters():
    words = ros_arguments(
        ['--out', 'x', '--topics', 'a', '/b', '--split-episodes', '5', '--ros-args', '-r', 'c:=d']
    )
    assert words[0] == '--ros-args'
    assert "more_topics:=['a', '/b']" in words
    assert 'split_episodes:=5' in words
    assert words[-2:] == ['-r', 'c:=d']
    assert 'require_kinematics:=true' in words
    assert 'require_kinematics:=false' in ros_arguments(['--only', '/chatter'])


def test_help_tells_every_option(capsys):
    with pytest.raises(SystemExit):
        record(['--help'])
    text = capsys.readouterr().out
    assert all(action.help for action in parser()._actions)
    assert '--split-episodes' in text


def test_names_are_taken_in_each_namespace():
    config = RecorderConfig(topics=('joint_states', '/tf'), namespaces=('left', '/right/'))
    assert list(config.expected('/ignored')) == ['/left/joint_states', '/tf', '/right/joint_states']
    assert list(RecorderConfig(topics=('a',)).expected('/arm')) == ['/arm/a']
    assert list(RecorderConfig(topics=('a',)).expected('/')) == ['/a']


def test_a_configuration_without_topics_or_with_a_path_as_name_is_refused():
    with pytest.raises(ParameterError, match='topics is empty'):
        RecorderConfig(topics=('',))
    with pytest.raises(ParameterError, match='plain name'):
        RecorderConfig(name='a/b')


def check_spec():
    """The observation of the feeder."""
    from so101_contract.observation_spec import get_observation

    return get_observation('compact')


def ticks(data):
    """The number that the feeder wrote into frame_id."""
    (size,) = struct.unpack_from('<I', data, 12)
    return int(data[16 : 16 + size - 1])

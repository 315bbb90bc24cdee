# SPDX-License-Identifier: Apache-2.0
"""Whatever the options name is looked for before the first node starts, and refused with one sentence."""

import os
from pathlib import Path
import pty
import shutil
import socket
import subprocess
import sys

import pytest

from drqv2_policy_node.store import find_policy
from hilserl_learner.live.identity import begin_or_go_on, RunIdentity
from so101_bringup.options import OptionError, parse_options
from so101_bringup.preflight import prepare
from so101_bringup.stack import STACKS
from so101_driver.calibration.files import find_calibration

ROOT = Path(__file__).parents[3]
PORT = 'console_port:=0'


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An empty folder to work in, and nobody's calibrations."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv('HOME', str(tmp_path))
    return tmp_path


def ready(*words, stack='hilserl', said=None):
    """The nodes of a stack by name, ready to start."""
    options = parse_options([PORT, *words])
    say = [].append if said is None else said.append
    nodes = prepare(STACKS[stack](options), options, ROOT / 'config', say)
    return {node.name: node for node in nodes}


def refused(*words, **how):
    """The one sentence with which it is refused."""
    with pytest.raises(OptionError) as error:
        ready(*words, **how)
    assert '\n' not in str(error.value)
    return str(error.value)


def calibrated(folder):
    """A calibration file: that of the virtual arm."""
    path = folder / 'arm.json'
    shutil.copyfile(ROOT / 'src/so101_testing/test/data/before/calibration/virtual.json', path)
    return path


@pytest.mark.parametrize(
    ('word', 'sentence'),
    [
        ('checkpoint:=/nowhere', 'expected the folder of a policy'),
        ('checkpoint:=here', 'expected the folder of a policy'),
        ('demos:=/nowhere', 'expected a buffer'),
        ('record:=file/bags', 'expected a folder, got the file'),
        ('record:=/proc/bags', 'can be written'),
        ('run:=file/run', 'expected a folder, got the file'),
        ('from:=/nowhere', 'expected the folder of a live run'),
        ('camera:=/dev/video77', 'expected a device or file, got nothing'),
        ('camera:=77', 'expected a device or file, got nothing'),
        ('camera:=pictures/', 'expected a device or file, got nothing'),
        ('camera:=http://', 'expected a URL with a host'),
        ('console_port:=99999', 'from 0 to 65535'),
        ('console_port:=-1', 'from 0 to 65535'),
        ('console_port:=' + '9' * 400, 'from 0 to 65535'),
        ('console_port:=\u0663', 'from 0 to 65535'),
        ('episodes:=99999999', 'from 0 to 1000000'),
        ('namespace:=my-arm', 'letters, digits and _'),
        ('namespace:=1', 'letters, digits and _'),
        ('preset:=hard', 'expected one of the presets'),
        ('preset:=rooms', 'name a room'),
        ('preset:=room-x', 'expected one of the presets'),
        ('tcp:=mine', 'is not one of'),
        ('task:=lifting', 'expected one of the tasks lift, place, push_can'),
        ('leader:=/dev/nobody', 'expected a device, got nothing'),
    ],
)
def test_what_cannot_be_had_is_refused_with_one_sentence(word, sentence, folder):
    (folder / 'file').touch()
    said = refused(word, *(['teleop:=leader'] if word.startswith('leader') else []))
    assert sentence in said
    assert said.startswith(word.partition(':=')[0]) or 'from:=' in said


def test_a_preset_for_another_task_is_refused():
    assert 'pick-101 only lifts' in refused('preset:=pick101', 'task:=place')


def test_a_policy_that_is_damaged_is_refused_and_a_whole_one_is_not(folder):
    mine = shutil.copytree(find_policy('default', 'compact'), folder / 'mine')
    assert ready('checkpoint:=mine')['policy_node'].parameters['policy'] == 'mine'
    tensors = mine / 'policy.safetensors'
    content = tensors.read_bytes()
    tensors.write_bytes(content[:-1] + b'x')
    assert 'expected whole tensors, got damaged ones' in refused('checkpoint:=mine')
    tensors.unlink()
    assert 'policy.safetensors' in refused('checkpoint:=mine')


def test_a_port_that_somebody_uses_is_refused():
    with socket.create_server(('127.0.0.1', 0)) as other:
        number = other.getsockname()[1]
        assert 'say console_port:=0 for a free one' in refused(f'console_port:={number}')
        ready(f'console_port:={number}', 'console:=false')


def test_a_token_that_nobody_could_use_is_refused(monkeypatch):
    monkeypatch.setenv('SO101_CONSOLE_TOKEN', 'with a space')
    assert 'letters, digits' in refused()


def test_a_disk_without_room_for_a_recording_is_refused(monkeypatch):
    usage = shutil.disk_usage('/')
    monkeypatch.setattr(shutil, 'disk_usage', lambda _: usage._replace(free=10**6))
    assert 'expected at least 500 MB free, got 1 MB' in refused('record:=true')


def test_nothing_is_written_before_everything_is_there(folder):
    refused('record:=bags', 'checkpoint:=/nowhere')
    ready('record:=bags')
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize('stack', ['hilserl', 'driver', 'teleop', 'policy'])
def test_a_real_arm_needs_its_port_and_its_calibration(stack, folder):
    mine = calibrated(folder)
    master, slave = pty.openpty()
    port = os.ttyname(slave)
    (folder / 'plain').touch()
    assert 'port:=/dev/so101: expected a device, got nothing' in refused('sim:=false', stack=stack)
    assert 'got something else' in refused('sim:=false', 'port:=plain', stack=stack)
    said = refused('sim:=false', f'port:={port}', 'calibration:=nobody', stack=stack)
    assert 'expected nobody.json' in said
    assert 'found none' in refused('sim:=false', f'port:={port}', stack=stack)
    (folder / 'broken.json').write_text('{}')
    assert 'broken.json' in refused('sim:=false', f'port:={port}', 'calibration:=broken.json', stack=stack)
    assert ready('sim:=false', f'port:={port}', f'calibration:={mine}', stack=stack)['arm_node']
    os.close(master)
    os.close(slave)


# ---- runs --------------------------------------------------------------------------------------------------


def directory(*words, **how):
    return ready(*words, **how)['learner_node'].parameters['directory']


def begun(*words):
    """A run that was begun by these words, as learner_node begins it."""
    node = ready(*words)['learner_node']
    run = Path(node.parameters['directory'])
    begin_or_go_on(run, RunIdentity.of(node.parameters))
    (run / 'online').mkdir()
    (run / 'online' / 'buffer.json').touch()
    return str(run)


def test_another_combination_gets_a_run_of_its_own_and_the_same_goes_on_loudly():
    said = []
    first = begun()
    assert first.startswith('runs/lift-easy-20')
    assert directory(said=said) == first
    assert said == [f'the learner goes on with {first}, 0 steps']
    others = [
        ['preset:=gap'],
        ['task:=place'],
        ['checkpoint:=none'],
        ['observation:=full'],
        ['tcp:=menagerie'],
    ]
    assert first not in {directory(*words) for words in others}
    assert directory('preset:=gap').startswith('runs/lift-gap-20')
    assert 'preset' not in refused('task:=place', f'run:={first}').partition('(')[0]
    assert 'lift, easy" there' in refused('task:=place', f'run:={first}')


def test_a_run_of_the_simulation_never_becomes_that_of_a_real_arm_without_a_word(folder):
    first, mine = begun(), calibrated(folder)
    master, slave = pty.openpty()
    real = ['sim:=false', f'port:={os.ttyname(slave)}', f'calibration:={mine}', 'teleop:=gamepad']
    name = find_calibration(str(mine)).calibration_id[:8]
    assert directory(*real).startswith(f'runs/arm-{name}-20')
    assert f'say from:={first}' in refused(*real, f'run:={first}')
    os.close(master)
    os.close(slave)


def test_the_agent_of_a_parameter_file_is_part_of_it(tmp_path):
    first = begun()
    config = shutil.copytree(ROOT / 'config', tmp_path / 'config')
    (config / 'learner.yaml').write_text('/**/learner_node:\n  ros__parameters:\n    agent: sac\n')
    options = parse_options([PORT])
    nodes = prepare(STACKS['hilserl'](options), options, config, [].append)
    assert first not in {node.parameters.get('directory') for node in nodes}


def test_the_command_line_ends_with_2_and_starts_nothing(folder):
    command = [sys.executable, '-m', 'so101_bringup.cli', 'up', 'checkpoint:=/nowhere']
    done = subprocess.run(command, capture_output=True, text=True, timeout=600.0, check=False)
    assert done.returncode == 2
    assert 'checkpoint:=/nowhere: expected the folder of a policy' in done.stderr
    # What killed nodes of other tests have left behind may be cleared, and is told.
    assert all('left behind' in line for line in done.stdout.splitlines())
    assert list(folder.iterdir()) == []

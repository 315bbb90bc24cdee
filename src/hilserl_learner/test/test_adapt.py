# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import numpy as np
import pytest

from drqv2_policy_node.store import find_policy, load_policy, save_policy
from hilserl_learner.cli import adapt as module
from hilserl_learner.cli.adapt import adapt_encoder, colors_of, main
from hilserl_learner.errors import LearnerError
from hilserl_learner.training.evaluate import ImageStatistics
from so101_bringup.cli import main as so101
from so101_contract.errors import SpecMismatchError
from so101_contract.observation import Observation
from so101_contract.observation_spec import get_observation

from .experience import make_episode, small_spec

CAMERA = 'gripper_cam'


@pytest.fixture(scope='module')
def shipped():
    return load_policy(find_policy('default', 'compact'))


def pictures(rng, low=60, high=160):
    spec = get_observation('compact')
    state = rng.uniform(-0.5, 0.5, (spec.frame_stack, spec.state_size)).astype(np.float32)
    shape = (spec.frame_stack, 3, spec.image_size, spec.image_size)
    return Observation(state, {CAMERA: rng.integers(low, high, shape, dtype=np.uint8)})


def in_other_light(observation, change):
    images = observation.images[CAMERA] + np.array(change, np.int16)[:, None, None]
    return Observation(observation.state, {CAMERA: images.astype(np.uint8)})


def test_B22_a_policy_does_in_another_light_what_it_did_in_the_first(shipped):
    rng, change = np.random.default_rng(0), (70, -35, 12)
    seen = ImageStatistics((110.0, 110.0, 110.0), (30.0, 30.0, 30.0))
    now = replace(seen, mean=tuple(110.0 + one for one in change))
    made = adapt_encoder(shipped, {CAMERA: seen}, {CAMERA: now}, 'here')
    for _ in range(5):
        first = pictures(rng)
        other = in_other_light(first, change)
        wanted = shipped.act(first)
        np.testing.assert_allclose(made.act(other), wanted, atol=1e-4)
        assert np.abs(shipped.act(other) - wanted).max() > 1e-2
    made.self_test()
    assert made.manifest.name == 'here'
    assert made.manifest.check_compatible(shipped.manifest) == []


def test_the_same_light_changes_nothing(shipped):
    seen = {CAMERA: ImageStatistics((90.0, 80.0, 70.0), (20.0, 20.0, 20.0))}
    made = adapt_encoder(shipped, seen, seen, shipped.manifest.name)
    assert made.manifest.tensors_sha256 == shipped.manifest.tensors_sha256


def test_the_light_is_the_mean_of_each_camera():
    spec = small_spec(cameras=2)
    episode = make_episode(spec, 1, 6)
    found = colors_of(iter(episode))
    for camera in spec.camera_names:
        images = np.stack([transition.frames[-1].images[camera] for transition in episode])
        assert found[camera].mean == pytest.approx(images.mean(axis=(0, 2, 3)))
    with pytest.raises(LearnerError, match='got none'):
        colors_of(iter(()))


def test_the_command_writes_a_policy_that_loads(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(module, 'PICTURES', 12)
    shipped = str(find_policy('default', 'compact'))
    out = tmp_path / 'here'
    words = [shipped, str(out), '--seen', 'SO101Lift-v0:easy', '--now', 'SO101Lift-v0:gap']
    assert main(words) == 0
    assert 'gripper_cam: mean RGB [' in capsys.readouterr().out
    assert load_policy(out).manifest.name == 'here'
    before = (out / 'SHA256SUMS').read_text()
    assert main(words) == 1  # what is there stays, unless it is to go
    assert (out / 'SHA256SUMS').read_text() == before
    assert main([*words, '--overwrite']) == 0


@pytest.mark.parametrize('source', ['nowhere', 'SO101Lift-v0:moon', 'Other-v0:easy'])
def test_a_source_that_is_none_is_refused_in_a_sentence(tmp_path, capsys, source):
    shipped = str(find_policy('default', 'compact'))
    assert main([shipped, str(tmp_path / 'out'), '--seen', source, '--now', source]) == 1
    said = capsys.readouterr().err
    assert 'expected' in said
    assert source.split(':')[-1] in said or source.split(':')[0] in said
    assert not (tmp_path / 'out').exists()


def test_pictures_of_another_observation_are_refused(tmp_path, shipped):
    from hilserl_learner.training.settings import RunDirectory
    from so101_contract.action import ActionSpec

    run = RunDirectory(tmp_path / 'run', small_spec(), ActionSpec())
    run.begin({})
    run.close()
    with pytest.raises(SpecMismatchError):
        module.colors_of_buffer(tmp_path / 'run' / 'buffer', shipped.manifest.observation)
    save_policy(tmp_path / 'p', shipped)
    assert main([str(tmp_path / 'p'), str(tmp_path / 'o'), '--seen', str(tmp_path), '--now', 'x']) == 1


def test_the_command_of_before_names_the_one_of_today(capsys):
    assert so101(['relight', 'a', 'b']) == 2
    assert 'expected adapt' in capsys.readouterr().err

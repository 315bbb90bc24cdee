# SPDX-License-Identifier: Apache-2.0
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.nn import functional as F

from hilserl_learner.classifier.cli import main
from hilserl_learner.classifier.model import (
    Classifier,
    ClassifierError,
    ClassifierManifest,
    load_classifier,
    network_spec,
    probabilities,
    save_classifier,
)
from hilserl_learner.data.store import BufferHeader, BufferWriter, Entry, Part, write_header
from hilserl_learner.errors import IngestError
from hilserl_learner.ingest.relabel import choose_reward, make_rewarder
from hilserl_learner.training.trainer import prepare_cpu
from so101_contract.joints import gripper_opening_to_rad
from so101_contract.observation_spec import CameraSpec, Crop

from .experience import ACTION, make_episode, make_frame, small_spec

SPEC = small_spec(48)


@pytest.fixture(autouse=True, scope='module')
def one_thread():
    prepare_cpu(1)


def make_model(seed=0):
    return Classifier(network_spec(SPEC.cameras), torch.Generator().manual_seed(seed))


def lit_episode(number, steps, won):
    """An episode in which success is a bright corner."""
    frames = []
    for index in range(steps + 1):
        frame = make_frame(SPEC, number, index)
        image = frame.images['cam0'] // 3
        if won and index >= steps - 1:
            image = image.copy()
            image[:, 8:40, 8:40] = 250
        frames.append(replace(frame, images={'cam0': image}))
    made = make_episode(SPEC, number, steps, terminated=won, truncated=not won, frames=frames)
    return [replace(t, reward=float(won and t.ends)) for t in made]


@pytest.fixture(scope='module')
def buffer(tmp_path_factory):
    path = tmp_path_factory.mktemp('data') / 'buffer'
    write_header(path, BufferHeader(observation=SPEC, action=ACTION, parts=(Part(name='a'),)))
    writer = BufferWriter(path / 'a')
    for number in range(1, 16):
        for transition in lit_episode(number, 8, number % 3 > 0):
            writer.append(Entry('', transition))
    writer.close()
    return path


@pytest.fixture(scope='module')
def folder(buffer, tmp_path_factory):
    path = tmp_path_factory.mktemp('classifier') / 'success'
    assert main([str(buffer), '--out', str(path), '--steps', '60']) == 0
    return path


def test_it_tells_success_on_episodes_that_it_has_not_seen(folder):
    _, manifest = load_classifier(folder)
    assert manifest.accuracy > 0.95
    rewarder = make_rewarder(choose_reward(f'classifier:{folder}'), folder, '', SPEC, ACTION)
    rewarded = rewarder(lit_episode(50, 9, True), None)
    assert [t.reward for t in rewarded] == [0.0] * 8 + [1.0]
    assert rewarded[-1].terminated
    failed = rewarder(lit_episode(51, 9, False), None)
    assert [t.reward for t in failed] == [0.0] * 9
    assert failed[-1].truncated


def test_rewards_by_a_classifier_are_one_of_the_choices_of_ingest(folder, tmp_path):
    choice = choose_reward(f'classifier:{folder}')
    rewarder = make_rewarder(choice, tmp_path, '', SPEC, ACTION)
    assert sum(t.reward for t in rewarder(lit_episode(60, 7, True), None)) == 1.0


def gripping(number, steps, holds):
    """An episode in which the gripper holds something from a step on, by joints and actions."""
    made = []
    for t in lit_episode(number, steps, False):
        closed = t.index >= holds
        state = t.next_frame.state.copy()
        state[5] = gripper_opening_to_rad(0.3 if closed else 0.9)
        action = replace(t.action, opening=0.0 if closed else 0.9)
        made.append(replace(t, next_frame=replace(t.next_frame, state=state), action=action))
    return made


def test_rewards_by_the_gripper_end_an_episode_where_it_has_held_something_for_long_enough(tmp_path):
    rewarder = make_rewarder(choose_reward('gripper'), tmp_path, '', SPEC, ACTION)
    rewarded = rewarder(gripping(1, 12, 5), None)
    assert [t.reward for t in rewarded] == [0.0] * 7 + [1.0]
    assert rewarded[-1].terminated
    assert rewarder(gripping(2, 12, 11), None)[-1].truncated


def test_a_conjunction_of_classifier_and_gripper_needs_both(folder, tmp_path):
    choice = choose_reward(f'classifier:{folder},gripper')
    rewarder = make_rewarder(choice, tmp_path, '', SPEC, ACTION)
    assert sum(t.reward for t in rewarder(lit_episode(60, 7, True), None)) == 0.0
    assert sum(t.reward for t in rewarder(gripping(3, 12, 2), None)) == 0.0
    with pytest.raises(IngestError, match='gripper'):
        choose_reward('gripper,gripper')


def test_B26_a_classifier_that_was_trained_on_another_crop_is_refused_with_the_difference(folder, tmp_path):
    crop = replace(SPEC, cameras=(CameraSpec('cam0', 48, Crop(top=0, left=0, height=400, width=400)),))
    with pytest.raises(ClassifierError, match='crop'):
        make_rewarder(choose_reward(f'classifier:{folder}'), tmp_path, '', crop, ACTION)


def test_B26_the_crop_is_stored_with_the_classifier(tmp_path):
    camera = CameraSpec('cam0', 48, Crop(top=1, left=2, height=300, width=300))
    save_classifier(tmp_path / 'c', make_model(), ClassifierManifest(cameras=(camera,)))
    assert load_classifier(tmp_path / 'c')[1].cameras == (camera,)


def test_B27_pictures_of_another_size_are_refused(folder, tmp_path):
    with pytest.raises(ClassifierError, match='size'):
        make_rewarder(choose_reward(f'classifier:{folder}'), tmp_path, '', small_spec(64), ACTION)


def test_B27_a_network_of_another_size_than_its_manifest_is_refused(tmp_path):
    save_classifier(tmp_path / 'c', make_model(), ClassifierManifest(cameras=(CameraSpec('cam0', 128),)))
    with pytest.raises(ClassifierError, match='128'):
        load_classifier(tmp_path / 'c')


def test_B27_the_gradient_reaches_every_layer_of_encoder_and_head():
    model = make_model()
    images = torch.randint(0, 256, (8, 1, 3, 48, 48), dtype=torch.uint8)
    F.binary_cross_entropy_with_logits(model(images), torch.tensor([0.0, 1.0] * 4)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_a_stored_classifier_decides_like_the_one_in_memory(tmp_path):
    model = make_model(3)
    save_classifier(tmp_path / 'c', model, ClassifierManifest(cameras=SPEC.cameras))
    images = np.random.default_rng(0).integers(0, 256, (5, 1, 3, 48, 48), dtype=np.uint8)
    np.testing.assert_array_equal(
        probabilities(load_classifier(tmp_path / 'c')[0], images), probabilities(model, images)
    )


def test_damaged_tensors_are_refused(folder, tmp_path):
    save_classifier(tmp_path / 'c', make_model(), ClassifierManifest(cameras=SPEC.cameras))
    path = tmp_path / 'c' / 'classifier.safetensors'
    path.write_bytes(path.read_bytes()[:-4] + b'ABCD')
    with pytest.raises(ClassifierError, match='hash'):
        load_classifier(tmp_path / 'c')


def test_without_any_success_there_is_a_sentence(tmp_path, capsys):
    write_header(tmp_path, BufferHeader(observation=SPEC, action=ACTION, parts=(Part(name='a'),)))
    writer = BufferWriter(tmp_path / 'a')
    for transition in lit_episode(1, 4, False):
        writer.append(Entry('', transition))
    assert main([str(tmp_path), '--out', str(tmp_path / 'c')]) == 1
    assert 'both outcomes' in capsys.readouterr().err


def test_B13_another_classifier_is_another_conversion(folder, tmp_path):
    save_classifier(tmp_path / 'c', make_model(), ClassifierManifest(cameras=SPEC.cameras))
    one, two = (choose_reward(f'classifier:{path}') for path in (folder, tmp_path / 'c'))
    assert one.identity != two.identity

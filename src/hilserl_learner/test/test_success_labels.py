# SPDX-License-Identifier: Apache-2.0
"""From what a human presses to labelled pictures, the light they were seen in, and what is asked about."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from hilserl_learner.classifier.cli import main
from hilserl_learner.classifier.judge import Doubt, Doubts, MOST_DOUBTS, PER_EPISODE, StepJudge
from hilserl_learner.classifier.labels import (
    Eyes,
    HEADER,
    Labelled,
    Labeller,
    LABELS,
    LabelsHeader,
    LabelStore,
    newest,
    read_labels,
    Seen,
    WAITING,
)
from hilserl_learner.classifier.light import Light, LightWatch, WINDOW
from hilserl_learner.classifier.model import (
    Classifier,
    ClassifierError,
    ClassifierManifest,
    load_classifier,
    MODEL,
    network_spec,
    save_classifier,
)
from hilserl_learner.classifier.training import episode_is_right, judge, Stretch
from so101_contract.errors import ContractError
from so101_contract.messages import EpisodeEventRecord, ImageSample, StepRecord
from so101_contract.observation_spec import CameraSpec
from so101_contract.session import EventKind

from .experience import small_spec

MS = 1_000_000
SPEC = small_spec(48)
HEADER_OF = LabelsHeader(cameras=SPEC.cameras, task='lift')


def stamp(index, episode=1):
    return (episode * 1000 + index) * 100 * MS


def seen(index, episode=1, images=None):
    step = StepRecord(episode, index, stamp(index, episode), 0, (stamp(index, episode),))
    return Seen(step, np.full((1, 3, 48, 48), index, np.uint8) if images is None else images)


def said(kind, index, episode=1, after_ms=0):
    return EpisodeEventRecord(episode, kind, stamp(index, episode) + after_ms * MS, index)


def labelled_by(labeller, presses, steps, episode=1, end=None):
    """Let the steps of an episode pass with a press after some of them; return success by index."""
    labels = labeller.hear(EpisodeEventRecord(episode, EventKind.START, stamp(0, episode) - 1))
    for index in range(steps):
        labels += labeller.see(seen(index, episode))
        if index in presses:
            labels += labeller.hear(said(presses[index], index, episode, after_ms=50))
    if end is not None:
        labels += labeller.hear(said(end, steps, episode))
    return {label.index: label.success for label in labels}


# --- what a human says ---


def test_a_word_counts_from_its_moment_on_and_what_came_shortly_before_the_next_one_belongs_to_neither():
    labels = labelled_by(Labeller('s'), {2: EventKind.NOT_YET, 20: EventKind.SUCCESS_NOW}, 40)
    assert labels == {**dict.fromkeys(range(3, 14), False), **dict.fromkeys(range(21, 33), True)}


def test_nothing_is_labelled_before_the_first_word_and_saying_it_twice_changes_nothing():
    assert labelled_by(Labeller('s'), {}, 30) == {}
    once = labelled_by(Labeller('s'), {2: EventKind.NOT_YET}, 30)
    assert labelled_by(Labeller('s'), {2: EventKind.NOT_YET, 9: EventKind.NOT_YET}, 30) == once


def test_how_an_episode_ends_is_nobodys_label_since_nobody_could_react_any_more():
    labels = labelled_by(Labeller('s'), {0: EventKind.NOT_YET}, 20, end=EventKind.TIME_LIMIT)
    assert max(labels) == 12
    sources_said = labelled_by(Labeller('s'), {}, 20, end=EventKind.SUCCESS)
    assert sources_said == {}, 'a classifier does not learn from what it said itself'


def test_a_late_correction_labels_the_last_pictures_of_its_episode():
    labeller = Labeller('s')
    labelled_by(labeller, {}, 10, episode=3, end=EventKind.SUCCESS)
    labelled_by(labeller, {}, 10, episode=4, end=EventKind.TIME_LIMIT)
    wrong = labeller.hear(said(EventKind.TIME_LIMIT, 0, 3, after_ms=10**6))
    assert [(label.episode, label.index, label.success) for label in wrong] == [
        ('s/3', 8, False),
        ('s/3', 9, False),
    ]
    missed = labeller.hear(said(EventKind.SUCCESS, 0, 4, after_ms=10**6))
    assert [(label.index, label.success) for label in missed] == [(8, True), (9, True)]


def test_two_sessions_with_the_same_numbers_are_not_mixed_and_memory_is_bounded():
    labeller = Labeller('a')
    for number in range(1, 500):
        labeller.see(seen(0, number))
    assert len(labeller._episodes) < 20
    a, b = (
        Labelled(name, 0, success, np.zeros((1, 3, 48, 48), np.uint8))
        for name, success in (('a/1', True), ('b/1', False))
    )
    assert len(newest(iter([a, b]))) == 2
    assert [label.success for label in newest(iter([a, replace(a, success=False)]))] == [False]


@pytest.mark.parametrize('image_first', [True, False])
def test_a_step_is_seen_when_its_pictures_have_come_in_whatever_order(image_first):
    eyes, spec = Eyes(SPEC), SPEC
    image = ImageSample(spec.camera_names[0], 7, np.zeros((3, 48, 48), np.uint8))
    step = StepRecord(1, 0, 9, 8, (7,))
    records = [image, step] if image_first else [step, image]
    assert [len(eyes.push(record)) for record in records] == [0, 1]
    for k in range(10, 10 + 3 * WAITING):
        eyes.push(StepRecord(1, k, k, k, (10**6 + k,)))
        eyes.push(ImageSample(spec.camera_names[0], k, image.image))
    assert len(eyes._steps) <= WAITING
    assert len(eyes._images) <= WAITING


# --- on disk ---


def test_labels_come_back_from_disk_and_a_torn_one_is_left_out(tmp_path):
    store = LabelStore(tmp_path, HEADER_OF)
    given = [Labelled('s/1', k, k > 1, np.full((1, 3, 48, 48), k, np.uint8)) for k in range(4)]
    for label in given:
        store.append(label)
    store.close()
    read = list(read_labels(tmp_path))
    assert [(r.episode, r.index, r.success) for r in read] == [('s/1', k, k > 1) for k in range(4)]
    assert all((r.images == g.images).all() for r, g in zip(read, given, strict=True))
    (segment,) = tmp_path.glob('*.seg')
    segment.write_bytes(segment.read_bytes()[:-100])
    assert len(list(read_labels(tmp_path))) == 3


def test_labels_of_other_pictures_or_another_task_are_refused_with_the_difference(tmp_path):
    LabelStore(tmp_path, HEADER_OF).close()
    with pytest.raises(ClassifierError, match='"lift" labels there'):
        LabelStore(tmp_path, replace(HEADER_OF, task='place'))
    with pytest.raises(ClassifierError, match='size'):
        LabelStore(tmp_path, replace(HEADER_OF, cameras=(CameraSpec('cam0', 40),)))
    (tmp_path / HEADER).write_text(LabelsHeader(cameras=(CameraSpec('cam0', 32),)).to_json())
    LabelStore(tmp_path / 'other', HEADER_OF).append(
        Labelled('s/1', 0, True, np.zeros((1, 3, 48, 48), np.uint8))
    )
    (tmp_path / 'other' / HEADER).write_text((tmp_path / HEADER).read_text())
    with pytest.raises(ClassifierError, match='not of'):
        list(read_labels(tmp_path / 'other'))


def shining(success, level=120, seed=0):
    """A picture in which success is a bright square."""
    image = np.random.default_rng(seed).integers(level - 20, level + 20, (1, 3, 48, 48)).astype(np.uint8)
    if success:
        image[:, :, 8:16, 8:16] = 250
    return image


def fill_store(folder, episodes=6, steps=24):
    store = LabelStore(folder / LABELS, HEADER_OF)
    for number in range(episodes):
        for index in range(steps):
            success = index >= steps // 2
            store.append(Labelled(f's/{number}', index, success, shining(success, seed=100 * number + index)))
    store.close()


@pytest.fixture(scope='module')
def taught(tmp_path_factory):
    folder = tmp_path_factory.mktemp('classifier')
    fill_store(folder)
    assert main([str(folder), '--steps', '60', '--hold', '3']) == 0
    return folder


def test_what_was_pressed_is_learned_and_judged_on_episodes_that_were_left_out(taught):
    _, manifest = load_classifier(taught)
    judged = manifest.judged
    assert (judged.episodes, judged.frames, judged.base_rate) == (6, 144, 0.5)
    assert min(judged.frame_accuracy, judged.episode_accuracy, judged.precision, judged.recall) > 0.9
    assert (manifest.task, manifest.hold_steps) == ('lift', 3)


def test_too_few_labels_are_told_with_what_there_is(tmp_path, capsys):
    fill_store(tmp_path, episodes=1, steps=10)
    assert main([str(tmp_path)]) == 1
    assert 'got 5, 5 and 1' in capsys.readouterr().err


def test_an_episode_is_right_where_success_is_found_and_nowhere_else():
    success = np.array([0, 0, 0, 1, 1, 1, 1], bool)
    assert episode_is_right(success, success, 3)
    assert not episode_is_right(np.zeros(7, bool), success, 3), 'missed'
    assert not episode_is_right(np.array([1, 1, 1, 0, 1, 1, 1], bool), success, 3), 'a false alarm'
    assert episode_is_right(np.array([1, 0, 1, 0, 1, 1, 1], bool), success, 3), 'too short to count'
    stretch = Stretch(np.zeros((7, 1, 3, 4, 4), np.uint8), success)
    judged = judge([np.array([0, 1, 0, 0, 1, 1, 1], bool)], [stretch], 3)
    assert (judged.precision, judged.recall) == (0.75, 0.75)
    assert judged.frame_accuracy == pytest.approx(5 / 7)


# --- light ---


def test_another_light_is_told_within_two_seconds_and_the_old_one_is_no_drift():
    episodes = [np.stack([shining(k > 9, seed=50 * e + k) for k in range(40)]) for e in range(5)]
    watch = LightWatch(Light.of(episodes))
    for k in range(40):
        watch.see(shining(k > 9, seed=9000 + k))
        assert not watch.drifted
    for k in range(WINDOW):
        watch.see(shining(k > 9, level=60, seed=9500 + k))
    assert watch.drifted
    for k in range(WINDOW):
        watch.see(shining(k > 9, seed=9700 + k))
    assert not watch.drifted


def test_in_another_light_the_judge_says_so_and_never_success(taught):
    told = StepJudge(SPEC, 'lift', 's', 0.3)
    assert told.judge(seen(0)).reason.startswith('no classifier')
    told.load(taught)
    right = [told.judge(seen(k, images=shining(True, seed=k))) for k in range(30)]
    assert all(opinion.success and not opinion.reason for opinion in right)
    dark = [told.judge(seen(k, 2, images=shining(True, level=40, seed=k))) for k in range(60)]
    assert all('light' in opinion.reason for opinion in dark[WINDOW:])
    assert not any(opinion.success for opinion in dark[WINDOW:])


# --- what is asked about ---


def test_the_least_certain_pictures_are_asked_about_a_few_of_each_episode():
    doubts = Doubts(0.3)
    for episode in range(40):
        for index in range(10):
            doubts.consider(Doubt(seen(index, 1), f's/{episode}', 0.25 + 0.01 * index + 0.004 * episode))
    assert len(doubts) == MOST_DOUBTS + 1
    kept = [doubt.episode for doubt in doubts._kept]
    assert max(kept.count(name) for name in kept) <= PER_EPISODE
    asked = doubts.asked
    doubts.consider(Doubt(seen(0), 's/99', 0.5))
    assert doubts.asked is asked, 'what is shown stays until it is answered'
    label = doubts.answer(True)
    assert (label.episode, label.success) == (asked.episode, True)
    assert doubts.asked.episode == 's/99'


def test_what_is_certain_is_not_asked_about():
    doubts = Doubts(0.3)
    for probability in (0.01, 0.19, 0.81, 0.99, float('nan')):
        doubts.consider(Doubt(seen(0), 's/1', probability))
    assert doubts.answer(True) is None


# --- hostile files ---


def save(folder, **fields):
    model = Classifier(network_spec(SPEC.cameras), torch.Generator().manual_seed(0))
    return save_classifier(folder / MODEL, model, ClassifierManifest(cameras=SPEC.cameras, **fields))


@pytest.mark.parametrize(
    ('key', 'value'),
    [
        ('threshold', -1.0),
        ('threshold', 1e999),
        ('hold_steps', 0),
        ('hold_steps', 10**9),
        ('cameras', []),
        ('cameras', 'all'),
        ('task', ['lift']),
        ('judged', {'episodes': 1}),
        ('light', {'mean': [0.0], 'spread': [1.0], 'bound': 1.0}),
        ('light', {'mean': [0.0] * 18, 'spread': [1.0] * 18, 'bound': 1.0}),
        ('light', {'mean': [0.0] * 9, 'spread': [0.0] * 9, 'bound': 1.0}),
        ('tensors_sha256', '../../etc/passwd'),
        ('unheard_of', 1),
    ],
)
def test_a_manifest_that_says_what_cannot_be_is_refused_with_a_sentence(tmp_path, key, value):
    import json

    save(tmp_path)
    path = tmp_path / MODEL / 'classifier.json'
    content = json.loads(path.read_text())
    content[key] = value
    path.write_text(json.dumps(content))
    with pytest.raises(ContractError, match='expected'):
        load_classifier(tmp_path)


def test_a_network_as_large_as_the_memory_is_refused_before_it_is_made(tmp_path):
    import hashlib
    import json

    from drqv2_policy_node.networks import EncoderPreset, NetworkSpec, to_bytes

    save(tmp_path)
    huge = NetworkSpec(image_size=2048, channels=1024, encoder=EncoderPreset.ROBOBASE)
    model = Classifier(network_spec(SPEC.cameras))
    payload = to_bytes(huge, {'encoder': model.encoder, 'head': model.head})
    (tmp_path / MODEL / 'classifier.safetensors').write_bytes(payload)
    path = tmp_path / MODEL / 'classifier.json'
    content = json.loads(path.read_text())
    content['tensors_sha256'] = hashlib.sha256(payload).hexdigest()
    path.write_text(json.dumps(content))
    with pytest.raises(ClassifierError, match='2048'):
        load_classifier(tmp_path)


def test_no_pickle_is_read_and_no_device_is_waited_for(tmp_path):
    import os
    import pickle

    save(tmp_path)
    tensors = tmp_path / MODEL / 'classifier.safetensors'
    tensors.write_bytes(pickle.dumps({'encoder': 1}))
    with pytest.raises(ClassifierError, match='hash'):
        load_classifier(tmp_path)
    tensors.unlink()
    os.mkfifo(tensors)
    with pytest.raises(ClassifierError, match='pipe or a device'):
        load_classifier(tmp_path)


def test_a_classifier_of_another_task_is_refused(tmp_path):
    save(tmp_path, task='place')
    with pytest.raises(ClassifierError, match='"place" classifier'):
        StepJudge(SPEC, 'lift', 's', 0.3).load(tmp_path)
    StepJudge(SPEC, None, 's', 0.3).load(tmp_path)

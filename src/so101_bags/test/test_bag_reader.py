# SPDX-License-Identifier: Apache-2.0
"""The reader gives the same records for every form of rosbag2, and one sentence for everything else."""

from pathlib import Path
import shutil
import sqlite3

from backports import zstd
import bag_maker
from bag_maker import edited, Session, SPEC, write
import numpy as np
import pytest
from rosbags.rosbag2 import CompressionFormat, CompressionMode, StoragePlugin, Writer

from so101_bags.messages import Decoders
from so101_bags.records import arms_of, read_records, ReadReport
from so101_bags.storage import BagError, open_bags
from so101_contract.assembly import Assembler
from so101_contract.image import preprocess
from so101_contract.messages import ExecutedAction, ImageSample, JointSample, StepRecord
from so101_contract.observation_spec import get_observation
from so101_contract.transition import settle
from so101_interfaces_py.conversions import stamp_to_ns
from so101_kinematics.fk import state_function

GENUINE = Path(__file__).parent / 'data' / 'genuine'
FORMS = ['mcap_plain', 'mcap_zstd_file', 'sqlite3_plain']


def write_foreign(folder, messages, plugin, mode=CompressionMode.NONE):
    """Write a bag with another library's writer."""
    writer = Writer(folder, version=9, storage_plugin=plugin)
    writer.set_compression(mode, CompressionFormat.ZSTD)
    with writer:
        connections = {}
        for message in messages:
            if message.topic not in connections:
                connection = writer.add_connection(
                    message.topic, message.msgtype, typestore=bag_maker.store()
                )
                connections[message.topic] = connection
            writer.write(connections[message.topic], message.log_ns, message.data)
    return folder


def key(record):
    """A record as something that can be compared."""
    if isinstance(record, ImageSample):
        return 'image', record.stamp_ns, record.image.tobytes()
    if isinstance(record, JointSample):
        return 'joints', record.stamp_ns, record.position.tobytes(), record.velocity.tobytes()
    if isinstance(record, ExecutedAction):
        return (
            'action',
            record.episode,
            record.index,
            record.translation.tobytes(),
            record.opening,
            record.source,
        )
    return record


def keys(paths, spec=SPEC, **options):
    return [key(record) for record in read_records(paths, spec, **options)]


@pytest.fixture(scope='module')
def messages():
    return Session().messages()


@pytest.fixture(scope='module')
def bag(messages, tmp_path_factory):
    return write(tmp_path_factory.mktemp('own') / 'bag', messages)


@pytest.mark.parametrize('form', FORMS)
def test_a_bag_of_ros2_bag_record_is_read(form):
    with open_bags(GENUINE / form) as bag:
        found = list(bag.messages())
        decoders = Decoders(bag.topics.values())
        joints, image = decoders.joints(), decoders.image()
        samples = [joints(m.data) for m in found if m.topic == '/joint_states']
        images = [image(m.data) for m in found if m.topic == '/gripper_cam/image_raw']
    assert len(found) == bag.count >= 300
    assert [m.log_ns for m in found] == sorted(m.log_ns for m in found)
    assert all(len(sample.name) == len(sample.position) == 6 for sample in samples)
    assert {(i.height, i.width, i.encoding, i.data.size) for i in images} == {(48, 64, 'bgr8', 9216)}
    assert np.diff([stamp_to_ns(sample.header.stamp) for sample in samples]).min() > 0


@pytest.mark.parametrize('form', FORMS)
def test_quick_decoding_equals_that_of_the_bags_own_definitions(form):
    with open_bags(GENUINE / form) as bag:
        decoders = Decoders(bag.topics.values())
        quick_joints, quick_image = decoders.joints(), decoders.image()
        for message in bag.messages(['/joint_states', '/gripper_cam/image_raw']):
            slow = decoders.store.deserialize_cdr(message.data, message.msgtype)
            stamp = stamp_to_ns(slow.header.stamp)
            if message.topic == '/joint_states':
                quick = quick_joints(message.data)
                assert (stamp_to_ns(quick.header.stamp), quick.name) == (stamp, slow.name)
                assert quick.position.tobytes() == slow.position.tobytes()
                assert quick.velocity.tobytes() == slow.velocity.tobytes()
            else:
                quick = quick_image(message.data)
                assert stamp_to_ns(quick.header.stamp) == stamp
                assert (quick.step, quick.encoding) == (slow.step, slow.encoding)
                assert quick.data.tobytes() == slow.data.tobytes()


@pytest.mark.parametrize(
    ('plugin', 'mode'),
    [
        (StoragePlugin.MCAP, CompressionMode.NONE),
        (StoragePlugin.MCAP, CompressionMode.FILE),
        (StoragePlugin.MCAP, CompressionMode.MESSAGE),
        (StoragePlugin.MCAP, CompressionMode.STORAGE),
        (StoragePlugin.SQLITE3, CompressionMode.NONE),
        (StoragePlugin.SQLITE3, CompressionMode.FILE),
        (StoragePlugin.SQLITE3, CompressionMode.MESSAGE),
    ],
)
def test_every_storage_and_compression_gives_the_same_records(plugin, mode, messages, bag, tmp_path):
    assert keys(write_foreign(tmp_path / 'foreign', messages, plugin, mode)) == keys(bag)


def test_an_older_sqlite_bag_without_definitions_is_read_by_the_types_known_here(messages, bag, tmp_path):
    old = write_foreign(tmp_path / 'old', messages, StoragePlugin.SQLITE3)
    with sqlite3.connect(next(old.glob('*.db3'))) as database:
        database.execute('DROP TABLE message_definitions')
        database.execute('DROP TABLE schema')
    database.close()
    with open_bags(old) as raw:
        assert not raw.topics['/session/step'].definitions
    assert keys(old) == keys(bag)


def test_split_bare_and_folder_of_bags_give_the_same_records(messages, bag, tmp_path):
    split = write(tmp_path / 'several' / 'split', messages, split_bytes=150_000)
    files = sorted(split.glob('*.mcap'))
    assert len(files) > 3
    assert keys(split) == keys(files) == keys(tmp_path / 'several') == keys(bag)
    (split / 'metadata.yaml').unlink()
    assert keys(split) == keys(bag)


def test_a_bag_cut_in_two_bags_gives_the_same_records(messages, bag, tmp_path):
    half = len(messages) // 2
    parts = [write(tmp_path / f'part{i}', m) for i, m in enumerate((messages[half:], messages[:half]))]
    assert keys(parts) == keys(bag)


def test_more_than_ten_split_files_are_read_in_order_without_metadata(messages, bag, tmp_path):
    split = write(tmp_path / 'split', messages, split_bytes=60_000)
    (split / 'metadata.yaml').unlink()
    assert len(list(split.glob('*.mcap'))) > 10
    assert keys(split) == keys(bag)


def test_an_image_comes_out_before_the_step_that_names_it_and_no_other_does(bag):
    report, held = ReadReport(), set()
    for record in read_records(bag, SPEC, report=report):
        if isinstance(record, ImageSample):
            held.add(record.stamp_ns)
        if isinstance(record, StepRecord):
            assert set(record.image_stamps_ns) <= held
    assert report.unnamed_images > 0
    assert report.records['ImageSample'] == len(held)


def test_an_image_that_is_logged_after_its_step_is_not_lost(messages, bag, tmp_path):
    late = edited(messages, '/gripper_cam/image_raw', lambda m: m._replace(log_ns=m.log_ns + 300_000_000))
    other = write(tmp_path / 'late', sorted(late, key=lambda m: m.log_ns))
    assert sorted(map(str, keys(other))) == sorted(map(str, keys(bag)))


def test_all_images_are_read_on_request_and_preprocessed_by_the_contract(messages, bag):
    raw = [m for m in messages if m.topic == '/gripper_cam/image_raw']
    images = [r for r in read_records(bag, SPEC, all_images=True) if isinstance(r, ImageSample)]
    assert len(images) == len(raw)
    pixels = np.frombuffer(raw[5].data[-48 * 64 * 3 :], np.uint8).reshape(48, 64, 3)
    assert np.array_equal(images[5].image, preprocess(pixels, size=SPEC.image_size))


def test_two_arms_are_read_apart(messages, bag, tmp_path):
    both = [*Session(namespace='/left').messages(), *Session(namespace='/right', seed=9).messages()]
    two = write(tmp_path / 'two', sorted(both, key=lambda m: m.log_ns))
    assert keys(two, namespace='left') == keys(bag)
    assert keys(two, namespace='/right') != keys(bag)
    with pytest.raises(BagError, match=r'namespaces \[./left., ./right.\].*choose one'):
        keys(two)
    with pytest.raises(BagError, match='middle'):
        keys(two, namespace='middle')
    assert arms_of(['/joint_states', '/a/b/session/step']) == ['/a/b']


def test_T3_an_episode_of_n_steps_yields_n_minus_1_transitions_and_none_crosses_its_edge(tmp_path):
    bag = write(tmp_path / 'bag', Session(episodes=3, steps=9).messages())
    assembler = Assembler(SPEC, state_function(SPEC))
    outputs = [out for record in read_records(bag, SPEC) for out in assembler.push(record)]
    transitions = settle(outputs + assembler.flush())
    assert [(t.episode, t.index) for t in transitions] == [(e, i) for e in (1, 2, 3) for i in range(8)]
    assert all({f.episode for f in (*t.frames, t.next_frame)} == {t.episode} for t in transitions)
    assert [t.terminated for t in transitions] == ([False] * 7 + [True]) * 3


@pytest.mark.parametrize(
    'topic', ['/session/step', '/ee_delta_cmd', '/joint_states', '/gripper_cam/image_raw']
)
def test_B14_a_missing_topic_is_named_before_anything_is_read(topic, messages, tmp_path):
    bag = write(tmp_path / 'bag', [m for m in messages if m.topic != topic])
    with pytest.raises(BagError, match=f'missing: {topic};'):
        next(read_records(bag, SPEC))


def test_B14_a_compressed_image_is_no_substitute_and_the_sentence_says_so(messages, tmp_path):
    compressed = edited(
        messages, '/gripper_cam/image_raw', lambda m: m._replace(topic=m.topic + '/compressed')
    )
    with pytest.raises(BagError, match='JPEG changes the pixels'):
        keys(write(tmp_path / 'bag', compressed))


def test_B14_a_message_definition_without_a_needed_field_is_named(messages, tmp_path, monkeypatch):
    from so101_bags import metadata as definitions

    whole = definitions.definition_of('so101_interfaces/msg/EeDelta')
    text = '\n'.join(line for line in whole.text.splitlines() if not line.startswith('float64 gripper'))
    old = definitions.Definition(whole.msgtype, text)
    monkeypatch.setattr(
        bag_maker, 'definition_of', lambda t: old if t == old.msgtype else definitions.definition_of(t)
    )
    with pytest.raises(BagError, match=r"fields \['gripper'\] in so101_interfaces/msg/EeDelta"):
        keys(write(tmp_path / 'bag', messages))


def test_a_message_definition_with_more_fields_than_known_is_read_by_names(
    messages, bag, tmp_path, monkeypatch
):
    from rosbags.typesys import get_types_from_msg, get_typestore, Stores

    from so101_bags import metadata as definitions

    whole = definitions.definition_of('so101_interfaces/msg/EpisodeEvent')
    newer = definitions.Definition(
        whole.msgtype, whole.text.replace('string reason', 'float64 mood\nstring reason')
    )
    store = get_typestore(Stores.ROS2_JAZZY)
    store.register(get_types_from_msg(newer.text, newer.msgtype))
    old = bag_maker.store()

    def grown(message):
        content = old.deserialize_cdr(message.data, message.msgtype)
        fields = {
            name: getattr(content, name) for name in content.__dataclass_fields__ if name != '__msgtype__'
        }
        made = store.types[newer.msgtype](mood=0.5, **fields)
        return message._replace(data=bytes(store.serialize_cdr(made, newer.msgtype)))

    monkeypatch.setattr(
        bag_maker, 'definition_of', lambda t: newer if t == newer.msgtype else definitions.definition_of(t)
    )
    assert keys(write(tmp_path / 'bag', edited(messages, '/session/event', grown))) == keys(bag)


def test_P22_another_observation_spec_is_refused_unless_allowed(bag):
    full = get_observation('full')
    with pytest.raises(BagError, match=f'{full.hash[:12]}.*{SPEC.hash[:12]}'):
        keys(bag, full)
    images = [r for r in read_records(bag, full, any_spec=True) if isinstance(r, ImageSample)]
    assert images[0].image.shape == (3, 84, 84)


def test_a_bag_of_mixed_specs_is_refused(tmp_path):
    later = bag_maker.START_NS + 10**10
    both = [*Session().messages(), *Session(start_ns=later, observation_hash='ab' * 32).messages()]
    with pytest.raises(BagError, match='abababababab'):
        keys(write(tmp_path / 'bag', both))


def test_velocities_are_estimated_where_the_bag_has_none(messages, tmp_path):
    def without(message):
        content = bag_maker.store().deserialize_cdr(message.data, message.msgtype)
        stamp = content.header.stamp.sec * 10**9 + content.header.stamp.nanosec
        return message._replace(data=bag_maker.joints(stamp, content.position, []))

    bag = write(tmp_path / 'bag', edited(messages, '/joint_states', without))
    samples = [r for r in read_records(bag, SPEC) if isinstance(r, JointSample)]
    assert samples[10].velocity[0] == pytest.approx(0.21, abs=0.01)


def test_a_damaged_message_is_skipped_and_counted(messages, tmp_path):
    count = 0

    def damage(message):
        nonlocal count
        count += 1
        return message._replace(data=message.data[:30]) if count == 7 else message

    report = ReadReport()
    bag = write(tmp_path / 'bag', edited(messages, '/joint_states', damage))
    found = list(read_records(bag, SPEC, report=report))
    assert len(found) > 100
    assert sum(report.skipped.values()) == 1
    assert '/joint_states: expected a whole sensor_msgs/msg/JointState' in next(iter(report.skipped))


def test_progress_ends_with_everything_read(bag):
    calls = []
    list(read_records(bag, SPEC, progress=lambda done, total: calls.append((done, total))))
    assert calls[0][0] == 0
    assert calls[-1][0] == calls[-1][1] > 400


@pytest.mark.parametrize(
    ('name', 'content', 'sentence'),
    [
        ('a.mcap', b'', 'empty file'),
        ('a.mcap', b'nonsense' * 20, 'expected a rosbag2 file'),
        ('a.db3', b'SQLite format 3\0' + bytes(200), 'expected a rosbag2 file'),
        ('a.mcap.zstd', b'nonsense' * 20, 'expected a rosbag2 file'),
        ('a.txt', b'text', 'expected a bag folder'),
    ],
)
def test_a_foreign_file_gives_one_sentence(name, content, sentence, tmp_path):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(BagError, match=sentence) as error:
        keys(path)
    assert '\n' not in str(error.value)


def test_an_empty_folder_and_a_missing_path_give_one_sentence(tmp_path):
    for path, sentence in ((tmp_path, 'folder without'), (tmp_path / 'no', 'found nothing')):
        with pytest.raises(BagError, match=sentence):
            keys(path)


def test_a_bag_whose_metadata_name_a_missing_file_is_refused(bag, tmp_path):
    copy = tmp_path / 'copy'
    shutil.copytree(bag, copy)
    next(copy.glob('*.mcap')).rename(copy / 'other.txt')
    with pytest.raises(BagError, match='missing; copy the whole folder'):
        keys(copy)


@pytest.mark.parametrize('keep', [0.3, 0.7, 0.98])
def test_a_truncated_file_is_read_up_to_its_last_whole_chunk_but_not_one_that_was_packed(bag, tmp_path, keep):
    content = next(bag.glob('*.mcap')).read_bytes()
    path = tmp_path / 'cut.mcap'
    path.write_bytes(content[: int(len(content) * keep)])
    with open_bags(bag) as whole, open_bags(path) as cut:
        everything, found = list(whole.messages()), list(cut.messages())
        assert cut.unfinished == [path]
        assert not whole.unfinished
        assert cut.count == len(found)
    assert len(found) > (keep - 0.15) * len(everything)
    assert found == everything[: len(found)]
    packed = tmp_path / 'cut.mcap.zstd'
    packed.write_bytes(zstd.compress(content)[: int(len(content) * keep * 0.5)])
    with pytest.raises(BagError):
        keys(packed)


def test_a_file_that_is_nothing_but_its_beginning_is_refused_with_the_way_out(bag, tmp_path):
    path = tmp_path / 'cut.mcap'
    path.write_bytes(next(bag.glob('*.mcap')).read_bytes()[:200])
    with pytest.raises(BagError, match='run bag-fix on it'):
        keys(path)


@pytest.mark.parametrize('compression', ['none', 'zstd'])
def test_a_file_cut_at_any_byte_is_read_or_refused_and_never_asks_for_giant_memory(
    compression, messages, tmp_path
):
    bag = write(tmp_path / 'bag', messages[:60], flush_every=20, compression=compression)
    content = next(bag.glob('*.mcap')).read_bytes()
    everything = [message.data for message in messages[:60]]
    path = tmp_path / 'cut.mcap'
    rng = np.random.default_rng(1)
    for size in sorted({*rng.integers(1, len(content), 80).tolist(), *range(1, 80), len(content) - 1}):
        noise = rng.integers(0, 256, 40, dtype=np.uint8).tobytes()  # what a power cut may leave behind
        for tail in (b'', noise, bytes(40), b'\x06' + b'\xff' * 39):
            path.write_bytes(content[:size] + tail)
            try:
                with open_bags(path) as cut:
                    found = [message.data for message in cut.messages()]
            except BagError:
                continue
            assert found == everything[: len(found)]


def test_damaged_bytes_in_the_middle_are_refused(messages, tmp_path):
    bag = write(tmp_path / 'bag', messages, compression='zstd')
    path = next(bag.glob('*.mcap'))
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 64] = bytes(64)
    path.write_bytes(content)
    with pytest.raises(BagError, match='damaged'):
        keys(bag)

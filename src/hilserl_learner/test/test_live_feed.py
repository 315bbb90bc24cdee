# SPDX-License-Identifier: Apache-2.0
import numpy as np
import pytest

from hilserl_learner.data.store import read_buffer
from hilserl_learner.ingest.ingest import Conversion, ingest
from hilserl_learner.live.feed import LiveFeed
from so101_bags.storage import open_bags
from so101_contract.action import ActionSpec
from so101_contract.observation_spec import get_observation
from so101_contract.session import EventKind
from so101_contract.transition import EpisodeReport, Transition

from .bagmaker import Plan, Session
from .test_buffer_store import assert_same

SPEC, ACTION = get_observation('compact'), ActionSpec()
PLANS = (
    Plan(8, intervened=frozenset({2})),
    Plan(6, EventKind.TIME_LIMIT),
    Plan(5, label=EventKind.DISCARD),
    Plan(4),
)


@pytest.fixture(scope='module')
def bag(tmp_path_factory):
    return Session(tmp_path_factory.mktemp('bags') / 'session').write(PLANS)


def messages(bag):
    with open_bags(bag) as raw:
        return list(raw.messages())


def feed_all(feed, stream):
    entries = []
    for message in stream:
        if message.topic in feed.topics:
            entries += feed.push(message.topic, message.log_ns, message.data)
    return entries


def test_what_is_learned_live_is_what_a_recording_gives(bag, tmp_path):
    feed = LiveFeed(SPEC, ACTION)
    entries = feed_all(feed, messages(bag)) + feed.flush()
    discarded = {
        e.output.episode for e in entries if isinstance(e.output, EpisodeReport) and e.output.discarded
    }
    live = [
        e.output for e in entries if isinstance(e.output, Transition) and e.output.episode not in discarded
    ]
    list(ingest([bag], tmp_path / 'buffer', Conversion(observation=SPEC, action=ACTION)))
    recorded = [e.output for e in read_buffer(tmp_path / 'buffer') if isinstance(e.output, Transition)]
    assert len(live) == len(recorded) == 18
    for one, two in zip(live, recorded, strict=True):
        assert_same(one, two)


def test_B20_a_transition_comes_out_with_the_message_that_completes_it(bag):
    feed = LiveFeed(SPEC, ACTION)
    for message in messages(bag):
        if message.topic in feed.topics:
            for entry in feed.push(message.topic, message.log_ns, message.data):
                if isinstance(entry.output, Transition):
                    assert 0 <= message.log_ns - entry.output.next_frame.stamp_ns < 2_000_000


def test_counters_tell_transitions_episodes_and_gaps(tmp_path):
    bag = Session(tmp_path / 'bag').write([Plan(12, drop_images=frozenset({6})), Plan(4)])
    feed = LiveFeed(SPEC, ACTION)
    feed_all(feed, messages(bag))
    feed.flush()
    assert feed.transitions + feed.gaps == 16
    assert feed.gaps > 0
    assert feed.episodes == 2


def test_a_restarted_session_gets_another_stream_although_its_episodes_have_the_same_numbers(tmp_path):
    feed = LiveFeed(SPEC, ACTION)
    streams = []
    for hour in (0, 1):
        path = Session(tmp_path / str(hour), start_ns=(1_700_000_000 + 3600 * hour) * 10**9).write(
            [Plan(5), Plan(4)]
        )
        entries = feed_all(feed, messages(path))
        streams.append({e.stream for e in entries if isinstance(e.output, Transition)})
        assert sum(isinstance(e.output, Transition) for e in entries) == 9
    assert len(streams[0]) == len(streams[1]) == 1
    assert streams[0] != streams[1]


def test_two_arms_are_kept_apart(tmp_path):
    streams = set()
    for name in ('left', 'right'):
        path = Session(tmp_path / name, namespace=f'/{name}').write([Plan(4)])
        streams |= {e.stream for e in feed_all(LiveFeed(SPEC, ACTION, namespace=name), messages(path))}
    assert len(streams) == 2


def test_B16_a_session_with_another_contract_is_not_learned_from_and_it_is_said(tmp_path):
    path = Session(tmp_path / 'bag', spec=get_observation('full')).write([Plan(5)])
    feed = LiveFeed(SPEC, ACTION)
    assert feed_all(feed, messages(path)) == []
    assert 'observation' in feed.problem


def test_bytes_that_are_no_message_are_counted_and_hurt_nobody(bag):
    feed = LiveFeed(SPEC, ACTION)
    rng = np.random.default_rng(0)
    for message in messages(bag):
        if message.topic in feed.topics:
            feed.push(message.topic, message.log_ns, rng.bytes(40))
            feed.push(message.topic, message.log_ns, message.data)
    assert feed.transitions == 23
    assert feed.skipped

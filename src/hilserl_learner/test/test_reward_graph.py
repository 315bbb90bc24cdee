# SPDX-License-Identifier: Apache-2.0
"""A veto and a late label on the running graph: what the learner's buffer holds afterwards, number by number."""

import time

import pytest

rclpy = pytest.importorskip('rclpy')

from so101_interfaces.msg import (
    ArmStatus,
    EeDelta,
    EpisodeEvent,
    PolicyStatus,
    SessionStatus,
    Step,
    SuccessOpinion,
)
from so101_interfaces.srv import EndEpisode, StartEpisode
from std_srvs.srv import SetBool, Trigger

from hilserl_learner.data.replay import ReplayBuffer
from hilserl_learner.data.store import PartReader, read_buffer, read_header
from hilserl_learner.live.identity import LIVE
from so101_contract.session import EventKind, Outcome, to_record
from so101_contract.task.reward import Opinion, opinion_message
from so101_contract.transition import Transition
from so101_interfaces_py import qos, topics
from so101_interfaces_py.conversions import stamp_to_ns
from so101_testing.console_rig import ConsoleRig, PATIENT

LIMIT = 12
LEARNER = {'width': 16, 'num_critics': 2, 'batch_size': 8, 'capacity': 2000, 'demo_capacity': 2000}


class Table:
    """The graph with the real session and learner; the test is the policy, the classifier and the human."""

    def __init__(self, run):
        self.run = run
        patient = {'arm': {**PATIENT['arm'], 'command_timeout_s': 1.0}}
        self.rig = ConsoleRig('arm', 'kinematics', parameters=patient)
        self.rig.__enter__()
        self.rig.add('learner', directory=run, **LEARNER)
        self.node = rclpy.create_node('table')
        self.events, self.arm, self.status, self.sees = [], None, None, lambda episode, index: False
        self.actions = self.node.create_publisher(EeDelta, topics.POLICY_EE_DELTA, qos.COMMAND)
        self.policy = self.node.create_publisher(PolicyStatus, topics.POLICY_STATUS, qos.LATCHED)
        self.opinions = self.node.create_publisher(SuccessOpinion, topics.SUCCESS_OPINION, qos.EVENT)
        self.node.create_subscription(Step, topics.STEP, self.on_step, qos.EVENT)
        self.node.create_subscription(EpisodeEvent, topics.EPISODE_EVENT, self.events.append, qos.EVENT)
        self.node.create_subscription(
            ArmStatus, topics.ARM_STATUS, lambda m: setattr(self, 'arm', m), qos.LATCHED
        )
        self.node.create_subscription(
            SessionStatus, topics.SESSION_STATUS, lambda m: setattr(self, 'status', to_record(m)), qos.LATCHED
        )
        self.node.create_timer(0.5, self.tell)
        self.clients = {}
        self.reader, self.found, self.reports = None, {}, {}
        # The session last, so that the learner hears its first step.
        self.until(lambda: self.node.count_publishers(topics.LEARNER_STATUS), 'the learner is there')
        self.rig.add(
            'session',
            reward_source='classifier',
            simulated=True,
            time_limit_steps=LIMIT,
            joint_timeout_s=5.0,
            camera_timeout_s=5.0,
            no_answer_s=30.0,
            stall_steps=50,
        )

    def tell(self):
        self.policy.publish(PolicyStatus(mode=PolicyStatus.MODE_EVAL, policy='test'))
        if self.arm is not None and self.arm.state == ArmStatus.FAULT:
            self.ask(Trigger, topics.ARM_CLEAR_FAULT_SERVICE, Trigger.Request())
        elif self.arm is not None and self.arm.state == ArmStatus.DISABLED:
            self.ask(SetBool, topics.ARM_ENABLE_SERVICE, SetBool.Request(data=True))
        if self.status is not None and self.status.state == 'waiting':
            self.ask(StartEpisode, topics.START_EPISODE_SERVICE, StartEpisode.Request())

    def on_step(self, step):
        sees = self.sees(step.episode, step.index)
        opinion = Opinion(step.episode, step.index, float(sees), sees)
        self.opinions.publish(opinion_message(opinion, stamp_to_ns(step.header.stamp)))
        if step.terminated or step.truncated:
            return
        message = EeDelta(episode=step.episode, index=step.index, gripper=0.5, source=1)
        message.header.frame_id, message.translation.y = 'base_link', 0.002
        self.actions.publish(message)

    def ask(self, kind, name, request):
        client = self.clients.setdefault(name, self.node.create_client(kind, name))
        return client.call_async(request) if client.service_is_ready() else None

    def call(self, kind, name, request):
        future = None
        while future is None:
            future = self.ask(kind, name, request)
            rclpy.spin_once(self.node, timeout_sec=0.02)
        self.until(future.done, name)
        return future.result()

    def until(self, condition, what, timeout_s=240.0):
        end = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < end, (what, self.status)
            rclpy.spin_once(self.node, timeout_sec=0.02)

    def kinds(self, episode):
        return [EventKind(event.kind) for event in self.events if event.episode == episode]

    def ended(self, episode):
        return [kind.outcome for kind in self.kinds(episode) if kind.outcome is not None]

    def running(self, episode):
        return self.status is not None and self.status.episode == episode and self.status.index > 1

    def newest(self):
        return max((event.episode for event in self.events), default=0)

    def read(self):
        """Take what has come to the buffer on the disk since the last look."""
        if self.reader is None and (self.run / 'online' / 'buffer.json').exists():
            spec = read_header(self.run / 'online').observation
            self.reader = PartReader(self.run / 'online' / LIVE, spec)
        for entry in () if self.reader is None else self.reader.poll():
            if isinstance(entry.output, Transition):
                self.found[entry.output.episode, entry.output.index] = entry.output
            else:
                self.reports[entry.output.episode] = entry.output

    def last_of(self, episode):
        """Return the transition into the last step of an episode, as the buffer has it now; None before it is there."""
        self.read()
        last = [t for (number, _), t in self.found.items() if number == episode and t.ends]
        return last[0] if last else None

    def end_of(self, episode):
        """Return what that transition says: reward, terminated and truncated."""
        last = self.last_of(episode)
        return None if last is None else said_of(last)

    def close(self):
        self.node.destroy_node()
        self.rig.__exit__(None, None, None)


@pytest.fixture(scope='module')
def table(tmp_path_factory):
    rclpy.init()
    table = Table(tmp_path_factory.mktemp('reward') / 'run')
    yield table
    table.close()
    rclpy.try_shutdown()


def said_of(transition):
    return (transition.reward, transition.terminated, transition.truncated)


def an_episode(table, sees, meanwhile=lambda episode: None):
    """Let an episode begin and end; return its number."""
    table.sees = sees
    first = table.newest() + 1
    table.until(lambda: EventKind.START in table.kinds(max(first, table.newest())), 'a start')
    number = max(first, table.newest())
    meanwhile(number)
    table.until(lambda: table.ended(number), 'its end')
    return number


def stored_episode(table, sees, wanted):
    """Return an episode that ended as wanted and whose end is in the buffer; a busy machine may cut one short."""
    for _ in range(50):
        number = an_episode(table, sees)
        table.until(lambda number=number: table.newest() > number, 'the next one')
        if table.ended(number) == [wanted] and table.last_of(number) is not None:
            return number
    raise AssertionError(table.status)


def test_not_yet_after_a_success_by_the_classifier_makes_it_cut_short_in_the_buffer(table):
    for _ in range(50):  # on a busy machine the next episode may have begun before the human has said a word
        number = an_episode(table, lambda episode, index: index >= 2)
        table.call(Trigger, topics.NOT_YET_SERVICE, Trigger.Request())
        table.until(lambda number=number: table.newest() > number, 'the next one')
        if table.ended(number)[-1] is Outcome.TIME_LIMIT and table.last_of(number) is not None:
            break
    assert table.ended(number) == [Outcome.SUCCESS, Outcome.TIME_LIMIT]
    table.until(lambda: table.end_of(number) == (0.0, False, True), 'the buffer is corrected')
    # What nobody corrects stays a success.
    number = stored_episode(table, lambda episode, index: index >= 2, Outcome.SUCCESS)
    assert table.end_of(number) == (1.0, True, False)


def test_a_veto_while_it_runs_keeps_the_sources_from_ending_it(table):
    vetoed = set()

    def veto(episode):
        table.until(lambda: table.ended(episode) or table.running(episode), 'it runs')
        vetoed.add(episode)  # from now on the classifier takes what it sees for success
        table.call(Trigger, topics.NOT_YET_SERVICE, Trigger.Request())

    for _ in range(50):
        number = an_episode(table, lambda episode, index: episode in vetoed, veto)
        said = [
            event.index
            for event in table.events
            if event.episode == number and event.kind == EpisodeEvent.NOT_YET
        ]
        if said and said[0] < LIMIT - 5:  # success would have lasted long enough before the time limit
            break
    assert table.ended(number)[0] is Outcome.TIME_LIMIT, table.kinds(number)


def test_a_label_many_episodes_later_wins_and_changes_nothing_but_the_end(table):
    number = stored_episode(table, lambda episode, index: False, Outcome.TIME_LIMIT)
    table.until(lambda: table.newest() > number + 4, 'four more episodes')
    table.read()
    before = dict(table.found)
    request = EndEpisode.Request(outcome=EndEpisode.Request.SUCCESS, episode=number, reason='I saw it')
    assert table.call(EndEpisode, topics.END_EPISODE_SERVICE, request).success
    table.until(lambda: table.end_of(number) == (1.0, True, False), 'the buffer is corrected')
    table.until(lambda: table.reports[number].outcome is Outcome.SUCCESS, 'so is the account')
    table.read()
    changed = {key for key in before if said_of(before[key]) != said_of(table.found[key])}
    assert changed == {max(key for key in before if key[0] == number)}
    for key, old in before.items():  # what was seen and done is bit for bit the same
        new = table.found[key]
        assert [f.stamp_ns for f in new.frames] == [f.stamp_ns for f in old.frames]
        assert all(
            (a.images[name] == b.images[name]).all()
            for a, b in zip(new.frames, old.frames, strict=True)
            for name in a.images
        )
        assert (new.action.translation == old.action.translation).all()


def test_the_replay_buffer_holds_what_was_said_last(table):
    header = read_header(table.run / 'online')
    replay = ReplayBuffer(header.observation, header.action, capacity=20_000)
    found = {}
    for entry in read_buffer(table.run / 'online'):
        if isinstance(entry.output, Transition):
            replay.add(entry.output, entry.stream)
            found[entry.output.episode, entry.output.index] = entry.output
        elif entry.output.discarded:
            replay.discard(entry.output.episode, entry.stream)
            found = {key: t for key, t in found.items() if key[0] != entry.output.episode}
    assert len(replay) == len(found)
    held = replay._live[: len(replay)]
    assert float(replay._rewards[held].sum()) == pytest.approx(sum(t.reward for t in found.values()))
    assert int(replay._terminated[held].sum()) == sum(t.terminated for t in found.values())
    assert any(t.revision for t in found.values())

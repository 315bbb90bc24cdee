# SPDX-License-Identifier: Apache-2.0
"""Reset without a hand, on the simulated arm with the driver's own follower: what is put back, and what is given up."""

import numpy as np
import pytest
from session_world import World

from so101_contract.joints import gripper_opening_to_rad
from so101_contract.session import EventKind, Outcome
from so101_contract.task.files import get_task
from so101_contract.task.spec import PutBack
from so101_session.session.config import ResetConfig, SessionConfig
from so101_session.session.episode import Event, SessionError
from so101_session.session.put_back import APART, Grip, PutBackRun, Restorer, restorer_of, Todo
from so101_sim.env import ArmEnv
from so101_sim.human.expert import Expert

PERIOD_S = 0.02
WHERE = PutBack()


def arm(opening: float = 0.5) -> np.ndarray:
    return np.array([0.0, 0.1, 0.3, 0.97, 0.0, gripper_opening_to_rad(opening)])


class Table:
    """One scene; the expert does the task, then the arm puts the object back."""

    def __init__(self, task: str, preset: str = 'easy') -> None:
        self.env = ArmEnv(task=task, preset=preset, images=False)
        self.where = get_task(task).put_back
        self.restorer = Restorer(self.where, ResetConfig())

    def succeed(self, seed: int) -> None:
        env, expert = self.env, Expert(self.env.preset.task)
        env.reset(seed=seed)
        self.restorer.begin()
        expert.reset(np.random.default_rng(seed))
        while not env.is_over:
            env.step(expert.network_action(env.truth()))
            self.restorer.grip.feel(env.arm.reading.position, env.arm.commanded_opening)
        assert env.judge.judge(env.truth()).success
        self.restorer.end(Outcome.SUCCESS)

    def put_back(self, run: PutBackRun, steal_at: float = np.inf, limit_s: float = 40.0) -> float:
        """Follow the way to its end, and return how long it took [s]; the object vanishes at a time [s]."""
        now, q = 0.0, self.env.arm.reading.position
        while not (run.done or run.lost):
            goal = run.update(now, q)
            q = self.env.arm.drive(goal).position
            now += PERIOD_S
            if now >= steal_at:
                self.env.simulation.place_cube((0.1, -0.3, 0.015))
            assert now < limit_s, run.sentence
        return now


@pytest.mark.parametrize(('task', 'todo'), [('lift', Todo.PUT_DOWN), ('place', Todo.PICK_UP)])
def test_after_a_success_the_object_lies_in_its_start_spread_and_is_let_go_of(task, todo):
    table = Table(task)
    places = []
    for seed in range(2):
        table.succeed(seed)
        assert table.restorer.todo is todo
        run = table.restorer.run()
        table.put_back(run)
        assert not run.lost
        truth = table.env.truth()
        assert truth.on_table
        assert not (truth.touches_static)
        assert not (truth.touches_moving)
        assert not truth.in_tray
        off = np.abs(np.subtract(truth.cube_position[:2], table.where.xy))
        assert (off < np.array(table.where.spread_m) + 0.012).all(), (seed, off)
        assert truth.tcp_position[2] > 0.07
        places.append(truth.cube_position[:2])
    assert np.ptp(np.array(places), axis=0).max() > 0.005  # another place each time


def test_an_object_that_is_lost_on_the_way_is_given_up():
    table = Table('lift')
    table.succeed(0)
    run = table.restorer.run()
    table.put_back(run, steal_at=0.4)
    assert 'lost' in run.lost
    assert not run.done


def test_an_object_that_is_not_where_it_was_let_go_of_is_given_up():
    table = Table('place')
    table.succeed(1)
    run = table.restorer.run()
    table.put_back(run, steal_at=0.0)
    assert 'nothing' in run.lost


def test_it_feels_what_holds_the_fingers_apart_and_not_fingers_that_move():
    grip = Grip()
    for opening in (0.5, 0.4, 0.3, 0.25):  # they close
        grip.feel(arm(opening), 0.0)
        assert not grip.held
    for _ in range(3):
        grip.feel(arm(0.2), 0.0)
    assert grip.held
    for _ in range(3):  # closed on nothing
        grip.feel(arm(0.0), 0.0)
    assert not grip.held
    assert grip.last is not None
    for _ in range(5):  # open because it was told so
        grip.feel(arm(0.4), 0.4)
    assert not grip.held


@pytest.mark.parametrize(
    ('felt', 'outcome', 'todo'),
    [
        ('held', Outcome.SUCCESS, Todo.PUT_DOWN),
        ('held', Outcome.TIME_LIMIT, Todo.PUT_DOWN),
        ('let go', Outcome.SUCCESS, Todo.PICK_UP),
        ('let go', Outcome.TIME_LIMIT, Todo.ASK),
        ('nothing', Outcome.TIME_LIMIT, Todo.LEAVE),
        ('nothing', Outcome.DISCARD, Todo.LEAVE),
        ('nothing', Outcome.FAILURE, Todo.ASK),
    ],
)
def test_what_is_done_follows_from_what_was_felt(felt, outcome, todo):
    restorer = Restorer(WHERE, ResetConfig(), 'Put it there.')
    restorer.begin()
    if felt != 'nothing':
        for _ in range(4):
            restorer.grip.feel(arm(4 * APART), 0.0)
    if felt == 'let go':
        for _ in range(4):
            restorer.grip.feel(arm(0.3), 0.3)
    restorer.end(outcome)
    assert restorer.todo is todo
    assert restorer.asks == bool(restorer.told(arranged=True))
    restorer.helped()
    assert restorer.told(arranged=True) == ''


def test_a_task_that_does_not_say_where_is_refused():
    with pytest.raises(SessionError, match='put_back'):
        restorer_of(SessionConfig(put_back=True), ResetConfig(), get_task('push_can'))
    assert restorer_of(SessionConfig(), ResetConfig(), get_task('lift')) is None


def world(**config) -> World:
    """Return a session beside an arm whose fingers feel nothing; a human labels, and arranges the scene."""
    reset = ResetConfig(start_from='parameters', start_opening=(0.5, 0.5))
    made = World(SessionConfig(put_back=True, **config), reset, get_task('lift'))
    made.session.senses.arm = None
    return made


def kinds(made: World) -> list[EventKind]:
    return [effect.kind for effect in made.done if isinstance(effect, Event)]


def test_a_human_is_asked_after_a_failure_and_start_says_that_it_is_done():
    made = world()
    made.advance(0.2)
    assert (
        kinds(made)[-1] is EventKind.NEED_RESET
    )  # before the first episode somebody has to put the cube there
    made.start()
    made.until('running')
    made.session.end_episode(Outcome.FAILURE, 0, '')
    made.until('waiting')
    made.advance(2.0)
    assert kinds(made)[-1] is EventKind.NEED_RESET
    assert 'the arm cannot know where the object lies' in made.session.sentence
    assert get_task('lift').human in made.session.sentence
    moved = len(made.steps)
    made.advance(5.0)
    assert len(made.steps) == moved  # nothing begins by itself
    made.start()
    made.until('running')
    assert EventKind.NEED_OVER in kinds(made)


def test_start_in_an_episode_says_that_all_lies_where_it_shall():
    made = world()
    made.start()
    made.until('running')
    for _ in range(4):  # something was held, and is not any more
        made.session._restorer.grip.feel(arm(4 * APART), 0.0)
    for _ in range(4):
        made.session._restorer.grip.feel(arm(0.3), 0.3)
    made.session.start_episode(False)
    made.until('waiting')
    made.until('running')
    assert kinds(made).count(EventKind.NEED_RESET) == 1  # before the first one


def test_what_nobody_has_touched_stays_and_the_next_episode_begins_by_itself():
    made = world(time_limit_steps=5)
    made.start()
    made.until('running')
    made.until('resetting')
    made.until('running')
    assert kinds(made).count(EventKind.START) == 2
    assert kinds(made).count(EventKind.NEED_RESET) == 1  # before the first one


def test_a_label_of_a_human_says_so_also_a_late_one():
    made = world()
    made.start()
    made.until('running')
    made.session.end_episode(Outcome.SUCCESS, 0, '')
    made.advance(1.0)
    made.take(made.session.end_episode(Outcome.FAILURE, 1, ''))
    said = {event.kind: event.by_human for event in made.done if isinstance(event, Event)}
    assert said[EventKind.SUCCESS]
    assert said[EventKind.FAILURE]
    assert not said[EventKind.START]


def test_without_put_back_a_session_waits_for_start_and_says_when_that_is_over():
    made = World()
    made.advance(0.2)
    assert kinds(made) == [EventKind.NEED_START]
    made.start()
    made.advance(0.2)
    assert kinds(made)[1] is EventKind.NEED_OVER

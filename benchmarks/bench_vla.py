# SPDX-License-Identifier: Apache-2.0
"""What a policy behind a socket loses of its success and of its speed, by how late its chunks come.

In simulated time, so that a busy machine changes nothing: the environment steps, the actors of `serve-policy` answer,
the node's chunks, path and plausibility make actions of it, and the delay is that of the simulated clock. The same
policy in process, on the same seeds, is the peer. The socket itself is not in it; `test_vla_node` has that.
"""

import copy
from dataclasses import dataclass
import itertools
import sys
import time

import numpy as np
from report import Parser, Report, Row

from drqv2_policy_node.store import find_policy, load_policy
from so101_contract.action import EeDeltaValue
from so101_contract.interval import wilson
from so101_driver.calibration.lerobot_units import DEGREES, JointScale
from so101_kinematics.config import KinematicsConfig
from so101_sim.env import ArmEnv
from so101_sim.human.expert import Expert, Skill
from vla_policy_node.chunks import Chunk, ChunkError, Pace, Plausibility, Timeline
from vla_policy_node.path import EePath
from vla_policy_node.protocol import Seen
from vla_policy_node.serving.actors import ExpertActor, PolicyActor
from vla_policy_node.wire import Encoding

STEP_NS, ENTRY_NS = 100_000_000, round(1e9 / 30.0)
CHUNK = {'rate_hz': 30.0, 'horizon': 16}
SCALE = JointScale(DEGREES)
HALF_STEP_S = 0.05
DELAYS_S = (0.0, 0.05, 0.15, 0.35)
STILL_M = 0.001
"""A step in which the TCP moves less than this is a pause [m]."""


class Sighted:
    """The expert with the truth of the environment, in the place of the one that hears the twin."""

    def __init__(self, env, aim_error_m):
        self.env, self.expert = env, Expert(env.preset.task, env.action_spec, Skill(aim_error_m=aim_error_m))

    def reset(self, seed):
        """Begin an episode."""
        self.expert.reset(np.random.default_rng(seed))

    def now(self):
        """Return what `ExpertWatch.now` does."""
        return copy.deepcopy(self.expert), self.env.truth()

    def tick(self):
        """Let a step pass."""
        self.expert.act(self.env.truth())


class Server:
    """An actor that answers so much later on the simulated clock, one question at a time."""

    def __init__(self, actor, delay_s):
        self.actor, self.delay_ns = actor, round(delay_s * 1e9)
        self.offer = actor.offer(Encoding.N16, 'front')
        self.waiting = None

    def ask(self, seen, now_ns):
        """Take a question."""
        self.waiting = (now_ns, now_ns + self.delay_ns, self.actor.targets(seen, now_ns / 1e9))


class Client:
    """The node's parts on the simulated clock."""

    def __init__(self, env, server, replan):
        config = KinematicsConfig()
        self.env, self.server = env, server
        pace = Pace(period_ns=ENTRY_NS, replan=replan, use=16, blend_ns=STEP_NS, step_ns=STEP_NS)
        self.timeline = Timeline(pace)
        self.path = EePath(env.observation_spec.tcp, env.action_spec, config.workspace)
        self.plausible = Plausibility(scale=SCALE, first_rad=0.35, jump_rad=0.35)
        self.history, self.number = [], 0

    def act(self, now_ns):
        """Return the action of a step; None: the arm holds."""
        env, server = self.env, self.server
        self.take(now_ns)
        if server.waiting is None and self.timeline.wants(now_ns, server.delay_ns / 1e9):
            server.ask(self.seen(), now_ns)
            if server.delay_ns / 1e9 < HALF_STEP_S:
                self.take(now_ns + server.delay_ns)
        target = self.timeline.target(now_ns, now_ns + STEP_NS)
        if target is None:
            return None
        return self.path.action(target, env.arm.reading.position)

    def take(self, now_ns):
        """Take the answer, if it has come; a chunk that is refused is no chunk."""
        waiting = self.server.waiting
        if waiting is not None and waiting[1] <= now_ns:
            self.server.waiting = None
            self.number += 1
            try:
                targets = self.plausible.targets(waiting[2], self.asked_at)
            except ChunkError:
                self.timeline.took(late=True)
                return
            self.timeline.add(Chunk(self.number, waiting[0], ENTRY_NS, targets), now_ns)

    def seen(self):
        """Return what the server is shown."""
        self.asked_at = self.env.arm.reading.position
        offer = self.server.offer
        joints = np.stack([self.back(time) for time in offer.state_times])
        observation = self.env.observation()
        video = {'front': np.zeros((1, 4, 4, 3), np.uint8)}
        if observation.images:  # as the network sees them already, which scaling leaves as they are
            (stack,) = observation.images.values()
            video = {'front': stack.transpose(0, 2, 3, 1)}
        return Seen(video, SCALE.from_rad(joints), '')

    def back(self, entries):
        """Return the joints so many entries ago, by what the readings at the steps and their velocities say."""
        place, part = divmod(-entries, 3)
        readings = [self.env.arm.reading, *reversed(self.history)]
        reading = readings[min(place, len(readings) - 1)]
        return reading.position - part * reading.velocity / 30.0


@dataclass
class Outcome:
    """What came of some episodes: successes with their interval, steps, share of pauses, and speed else [m/s]."""

    n: int
    wins: int
    steps: float
    pauses: float
    speed: float

    def row(self, name, more=''):
        """Make a row."""
        low, high = (round(100 * bound) for bound in wilson(self.wins, self.n))
        speed = f'{100 * self.pauses:.0f} % pauses, else {100 * self.speed:.1f} cm/s'
        note = f'{low} to {high}; {self.steps:.0f} steps, {speed}'
        row = Row(name, '%', self.n, 100 * self.wins / self.n, note=note + more)
        print(name, row.value, row.note, file=sys.stderr)
        return row


def run(env, episodes, act, begin):
    """Run episodes; `act` returns the network action of each step, `begin` takes the seed."""
    wins, steps, moved = 0, 0, []
    for seed in range(episodes):
        env.reset(seed=seed)
        begin(seed)
        over, place = False, env.truth().tcp_position
        while not over:
            _, _, terminated, truncated, info = env.step(act())
            over, steps = terminated or truncated, steps + 1
            here = env.truth().tcp_position
            moved.append(float(np.linalg.norm(np.subtract(here, place))))
            place = here
        wins += info['is_success']
    lengths = np.array(moved)
    speed = float(np.median(lengths[lengths >= STILL_M])) * 10
    return Outcome(episodes, wins, steps / episodes, float((lengths < STILL_M).mean()), speed)


def through_chunks(env, episodes, actor, pace, *, tick=lambda: None, begin=lambda seed: None):
    """Run an actor behind a server; pace: its delay [s], and entries after which the next chunk shall be in use."""
    delay_s, replan = pace
    clients, step = [], iter(())

    def start(seed):
        nonlocal step
        begin(seed)
        actor.reset()
        clients.append(Client(env, Server(actor, delay_s), replan))
        step = itertools.count()

    def act():
        value = clients[-1].act(next(step) * STEP_NS)
        said = value or EeDeltaValue(np.zeros(3), env.arm.commanded_opening)
        clients[-1].history = [*clients[-1].history[-3:], env.arm.reading]
        tick()
        return env.action_spec.from_wire(said.translation, said.opening).values

    outcome = run(env, episodes, act, start)
    late = np.mean([client.timeline.late_share for client in clients])
    cut = np.mean([client.path.cut_share for client in clients])
    name = f'chunks, {replan} of 16, {delay_s * 1e3:.0f} ms'
    return outcome, name, f'; {100 * late:.0f} % late, {100 * cut:.0f} % cut'


def main() -> int:
    """Run each delay on the same seeds."""
    parser = Parser(__doc__)
    parser.number('--episodes', 100, 'of each row of the expert', quick=5)
    parser.number('--policy-episodes', 50, 'of each row of the shipped policy', quick=2)
    parser.number('--aim-error', 0.008, 'of the expert [m]')
    parser.add_argument('--preset', default='wide', help='of the scene (default: %(default)s)')
    options = parser.parse_args()
    began = time.monotonic()
    rows = [*expert_rows(options), *policy_rows(options)]
    print(f'{time.monotonic() - began:.0f} s', file=sys.stderr)
    return Report('vla', rows).finish(options)


def expert_rows(options):
    """Rows of the expert with an aim error, a base that fails now and then."""
    env = ArmEnv(preset=options.preset, images=False)
    watch, n = Sighted(env, options.aim_error), int(options.episodes)
    act = lambda: watch.expert.network_action(env.truth())  # noqa: E731
    yield run(env, n, act, watch.reset).row('expert in process')
    actor = ExpertActor(watch, SCALE, tcp='so101', step_s=0.1, **CHUNK)
    for replan in (3, 8):
        for delay_s in DELAYS_S:
            pace = (delay_s, replan)
            found, name, more = through_chunks(env, n, actor, pace, tick=watch.tick, begin=watch.reset)
            yield found.row(f'expert, {name}', more)


def policy_rows(options):
    """Rows of the shipped policy, which says one step at a time."""
    policy, n = load_policy(find_policy('default', 'compact')), int(options.policy_episodes)
    env = ArmEnv(preset=options.preset, observation=policy.manifest.observation)
    yield run(env, n, lambda: policy.act(env.observation()), lambda _: None).row('policy in process')
    actor = PolicyActor(policy, SCALE, **CHUNK)
    for delay_s in DELAYS_S:
        found, name, more = through_chunks(env, n, actor, (delay_s, 3))
        yield found.row(f'policy, {name}', more)
    env.close()


if __name__ == '__main__':
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""Measures the twin in a running ROS graph against the simulation in one process.

`python tools/check_twin.py` starts twin, driver and kinematics, and prints one line for each figure:

* how far the joints rest from their goals under gravity;
* how a joint follows a step of its goal, here and there;
* how far the tool centre point strays when both carry out the same actions;
* how the arm falls after an emergency stop, here and there;
* how often the expert succeeds through the graph (`--episodes`);
* whether the twin kept up with real time, and how regular the driver's loop was.
"""

import argparse
from collections.abc import Callable, Sequence
import json
import sys
import time

import numpy as np

from so101_contract.action import EeDeltaValue
from so101_contract.joints import JOINT_NAMES
from so101_interfaces_py import topics
from so101_interfaces_py.graph import isolate
from so101_kinematics.fk import ForwardKinematics
from so101_kinematics.ik import InverseKinematics
from so101_sim.errors import SimulationError
from so101_sim.in_process_arm import InProcessArm
from so101_sim.scene.presets import get_preset, PRESETS
from so101_sim.scene.servo import FloatArray
from so101_sim.scene.simulation import Simulation
from so101_sim.scene.start import home_pose
from so101_testing.graph import Graph
from so101_testing.probe_node import Probe, resampled

STEP_RAD = 0.3
STEPPED_JOINTS = ('shoulder_pan', 'shoulder_lift', 'elbow_flex')
STRETCHED = (0.0, 0.55, -0.55, 0.2, 0.0, 0.5)
"""Nearly stretched out forward: where gravity pulls most."""

PARITY_STEPS = 50
FALL_S = 0.8
Report = dict[str, object]


class Checks:
    """The measurements, each on a running graph."""

    def __init__(self, probe: Probe, preset: str) -> None:
        """Measure with a probe in a graph of that preset."""
        self._probe = probe
        self._preset = get_preset(preset)
        self._fk = ForwardKinematics(self._preset.control.kinematics.tcp)
        self._home = home_pose(InverseKinematics(self._fk))
        self._simulation = Simulation(self._preset.scene)
        self._arm = InProcessArm(self._simulation, self._preset.control)

    def rest(self) -> Report:
        """Return how far the joints rest from their goals [deg], in two poses."""
        worst = {}
        for name, goal in (('home', self._home), ('stretched', np.array(STRETCHED))):
            last = self._probe.hold(goal, 3.0)[-1].position
            worst[name] = round(float(np.degrees(np.abs(last - goal)).max()), 3)
        return {'name': 'rest error', 'unit': 'deg', 'value': max(worst.values()), **worst}

    def step_response(self) -> Report:
        """Return how long joints take from one to nine tenths of a step, in the graph and in one process [s]."""
        found: Report = {}
        ratios, delays = [], []
        for joint in STEPPED_JOINTS:
            self._probe.hold(self._home, 1.5)
            start, index = self._probe.position.copy(), JOINT_NAMES.index(joint)
            goal = self._home.copy()
            goal[index] += STEP_RAD
            began = time.monotonic()
            samples = self._probe.hold(goal, 1.0)
            here = [(sample.time_s - began, float(sample.position[index])) for sample in samples]
            self._begin(start)
            there = [(0.0, float(start[index]))]
            for tick in range(50):
                there.append((0.02 * (tick + 1), float(self._arm.drive(goal).position[index])))
            graph, alone = (passing_times(one, start[index], goal[index]) for one in (here, there))
            found[joint] = [round(graph[1] - graph[0], 3), round(alone[1] - alone[0], 3)]
            ratios.append((graph[1] - graph[0]) / (alone[1] - alone[0]))
            delays.append(graph[0] - alone[0])
        return {
            'name': 'step response',
            'unit': 'share',
            'value': round(max(abs(ratio - 1.0) for ratio in ratios), 3),
            'rise_s_graph_alone': found,
            'delay_of_the_graph_ms': round(float(np.mean(delays)) * 1e3, 1),
        }

    def parity(self, seed: int = 0) -> Report:
        """Return how far the TCP strays between graph and process over the same actions [mm]."""
        rng = np.random.default_rng(seed)
        actions = smooth_actions(rng, PARITY_STEPS)
        self._probe.hold(self._home, 2.0)
        start = self._probe.position.copy()
        began, samples = self._probe.act(actions)
        times = began + 0.1 * np.arange(1, PARITY_STEPS + 1, dtype=np.float64)
        graph = self._fk.positions(resampled(samples, times))
        self._begin(start)
        alone = np.array([self._fk.pose(self._arm.run(action).position).position for action in actions])
        off = np.linalg.norm(graph - alone, axis=1) * 1e3
        length = float(np.linalg.norm(np.diff(alone, axis=0), axis=1).sum())
        return {
            'name': 'parity',
            'unit': 'mm',
            'value': round(float(off.max()), 2),
            'mean': round(float(off.mean()), 2),
            'path_m': round(length, 3),
            'steps': PARITY_STEPS,
        }

    def fall(self) -> Report:
        """Return how the arm falls after an emergency stop: time to the table, graph and process [s]."""
        probe = self._probe
        probe.hold(self._home, 2.0)
        start = probe.position.copy()
        truth = probe.node.reports[-1].state.truth
        first = len(probe.node.joints)
        probe.set_bool(topics.ARM_E_STOP_SERVICE, True)
        time.sleep(FALL_S + 0.5)
        samples = probe.node.joints[first:]
        graph = [(s.time_s, float(self._fk.pose(s.position).position[2])) for s in samples]
        self._simulation.reset(start, truth.cube_position)
        off = np.zeros(6, dtype=np.bool_)
        alone = []
        for tick in range(round((FALL_S + 0.2) / 0.01)):
            self._simulation.step(5, start, torque=off)
            alone.append((tick * 0.01, float(self._fk.pose(self._simulation.joint_positions).position[2])))
        here, there = fall_time(graph), fall_time(alone)
        probe.set_bool(topics.ARM_E_STOP_SERVICE, False)
        probe.set_bool(topics.ARM_ENABLE_SERVICE, True)
        return {'name': 'fall', 'unit': 's', 'value': round(here, 3), 'alone': round(there, 3)}

    def demonstrate(self, graph: Graph, episodes: int) -> Report:
        """Return how often the expert succeeds."""
        # Kinematics that have had an action repeat their goal, against the joint goals of the way home.
        graph.stop('kinematics')
        graph.start('kinematics')
        first = len(self._probe.node.reports)
        parameters = {'mode': 'demonstrate', 'topic': topics.EE_DELTA_CMD, 'episodes': episodes}
        graph.start('operator', **parameters)
        graph.wait('operator', 60.0 + 20.0 * episodes)
        ended: dict[int, float] = {}
        for report in self._probe.node.reports[first:]:
            if report.state.status.success and report.state.resets not in ended:
                ended[report.state.resets] = report.state.truth.time_s
        steps = float(np.mean(list(ended.values()))) * self._preset.control.rate_hz if ended else float('nan')
        rate = len(ended) / episodes
        return {
            'name': 'demonstrations',
            'unit': 'success rate',
            'value': round(rate, 3),
            'n': episodes,
            'mean_steps': round(steps, 1),
        }

    def timing(self) -> Report:
        """Return the lowest real-time factor seen, and how regular the driver's loop was."""
        status = self._probe.node.statuses[-1]
        factors = self._probe.node.real_time_factors[2:]
        return {
            'name': 'real-time factor',
            'unit': '',
            'value': round(min(factors), 4),
            'mean': round(float(np.mean(factors)), 4),
            'driver_period_p99_ms': round(status.period_p99 * 1e3, 2),
            'driver_missed_share': round(status.missed_cycles / max(status.cycles, 1), 5),
            'lost_packets': int(status.lost + status.corrupt + status.late),
        }

    def _begin(self, start: FloatArray) -> None:
        """Put the simulation in one process where the graph's arm stands."""
        self._simulation.reset(start, (0.25, -0.2, 0.015))
        self._arm.reset(0.5)


def passing_times(samples: Sequence[tuple[float, float]], start: float, goal: float) -> list[float]:
    """Return when a response passes one and nine tenths of its step [s]; samples are (time [s], value)."""
    times = np.array([time_s for time_s, _ in samples])
    share = (np.array([value for _, value in samples]) - start) / (goal - start)
    found = []
    for level in (0.1, 0.9):
        above = np.flatnonzero(share >= level)
        if not len(above):
            raise SimulationError(
                f'expected a joint to go from {start:.3f} to {goal:.3f} rad, it made {share[-1]:.0%}'
            )
        i = int(above[0])
        found.append(float(np.interp(level, share[i - 1 : i + 1], times[i - 1 : i + 1]) if i else times[0]))
    return found


def fall_time(
    heights: Sequence[tuple[float, float]], drop_m: float = 0.005, down_to_m: float = 0.03
) -> float:
    """Return how long a TCP falls from the first `drop_m` to a height [s]; samples are (time [s], height [m])."""
    top = heights[0][1]
    begins = next((time_s for time_s, height in heights if height < top - drop_m), None)
    ends = next((time_s for time_s, height in heights if height < down_to_m), None)
    if begins is None or ends is None:
        raise SimulationError(
            f'expected the TCP to fall from {top:.3f} to {down_to_m} m, it ended at {heights[-1][1]:.3f}'
        )
    return ends - begins


def smooth_actions(rng: np.random.Generator, count: int) -> list[EeDeltaValue]:
    """Return actions that wander about the middle of the workspace without leaving it."""
    actions: list[EeDeltaValue] = []
    place, velocity = np.zeros(3), np.zeros(3)
    for _ in range(count):
        velocity = 0.8 * velocity + rng.normal(0.0, 0.004, 3) - 0.12 * place
        step = np.clip(velocity, -0.018, 0.018)
        place = place + step
        actions.append(EeDeltaValue(step, float(np.clip(0.5 + 0.2 * np.sin(len(actions) / 8.0), 0.0, 1.0))))
    return actions


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the checks; each prints a JSON object."""
    parser = argparse.ArgumentParser(prog='python tools/check_twin.py', description=__doc__)
    parser.add_argument('--preset', choices=sorted(PRESETS), default='easy')
    parser.add_argument('--episodes', type=int, default=0, help='demonstrations through the graph')
    options = parser.parse_args(arguments)
    isolate()
    parameters = {'twin': {'preset': options.preset}}
    with Graph('arm', 'kinematics', parameters=parameters) as graph, Probe() as probe:
        probe.wait_until(lambda: probe.node.joints and probe.node.reports, 'joints and ground truth', 60.0)
        checks = Checks(probe, options.preset)
        # Joint goals first: once the kinematics have had an action, they repeat their own goals.
        todo: list[Callable[[], Report]] = [checks.rest, checks.step_response, checks.fall, checks.parity]
        if options.episodes:
            todo.append(lambda: checks.demonstrate(graph, options.episodes))
        for check in [*todo, checks.timing]:
            sys.stdout.write(json.dumps(check()) + '\n')
            sys.stdout.flush()
    return 0


if __name__ == '__main__':
    sys.exit(main())

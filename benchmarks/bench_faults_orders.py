# SPDX-License-Identifier: Apache-2.0
"""Random orders to the running graph: stops, starts, labels, take-overs, pages that close, nodes that are killed.

After each order it is judged whether the arm moves although nobody has asked for it, whether the page names a way out
of where things are, and whether an episode is lost; now and then the way that the page names is gone until the policy
drives again. The same seed gives the same orders. The last line is one JSON object; the exit code is 1 if anything is
wrong.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
import contextlib
from dataclasses import dataclass, field
import os
from pathlib import Path
import platform
import random
import signal
import sys
import time
from typing import Any

from faults_core import markdown_row, write_part
from graph_rig import PRIORITY, wait_until
from orders_rig import OrdersRig
from processes import isolate
from report import Parser, Report, Row
from rich.console import Console
from so101_interfaces.srv import StartEpisode
from std_srvs.srv import Trigger

from so101_contract.session import Driver
from so101_interfaces_py import topics

PAUSE_S = (0.02, 0.35)
"""Between two orders."""

RECOVER_S = 120.0
"""A way out that has not led out by then leads nowhere."""

NAMED_S = 10.0
"""The page must name one within this time; a node that starts again is silent for a moment."""

PRESS_S = 0.5
ARRIVES_S = 2.0


def stop(rig: OrdersRig) -> None:
    """Press the stop."""
    _end_motion(rig, 'e_stop')


def motors_off(rig: OrdersRig) -> None:
    """Let the arm go."""
    _end_motion(rig, 'release')


def _end_motion(rig: OrdersRig, button: str) -> None:
    """Press a button that lets the arm go; where the console is dead it does not get there, and nothing is stopped."""
    rig.page.ask(button)
    with contextlib.suppress(TimeoutError):
        wait_until(lambda: rig.stillness.limp, ARRIVES_S, 'the arm is limp')
        rig.stillness.withdraw()


def start(rig: OrdersRig) -> None:
    """Press Start."""
    _ask(rig, topics.START_EPISODE_SERVICE, StartEpisode.Request())


def reset(rig: OrdersRig) -> None:
    """Press Reset."""
    _ask(rig, topics.RESET_SERVICE, Trigger.Request())


def _ask(rig: OrdersRig, service: str, request: Any) -> None:
    before, rig.stillness.asked = rig.stillness.asked, True  # it may move before the answer is here
    rig.stillness.entitled()
    rig.stillness.asked = rig.ask(service, request) or before


def drive(rig: OrdersRig) -> None:
    """Take over at the page, and move the hand for a moment."""
    rig.page.ask('take')
    for _ in range(6):
        rig.page.ask('drive', axes=[0.0, 0.4, 0.1], gripper=0)
        time.sleep(0.05)


def pause(rig: OrdersRig) -> None:
    """Press Pause, which goes on in a pause."""
    rig.stillness.entitled()
    rig.page.ask('pause')


def in_one_breath(rig: OrdersRig) -> None:
    """Stop, clear and motors on, faster than any human and than a step."""
    for service, on in ((topics.ARM_E_STOP_SERVICE, True), (topics.ARM_E_STOP_SERVICE, False)):
        rig.switch(service, on)
    rig.stillness.withdraw()
    rig.switch(topics.ARM_ENABLE_SERVICE, True)


def reconnect(rig: OrdersRig) -> None:
    """Pull the cable of the arm, and plug it in again."""
    rig.switch('sim/unplug', True)
    time.sleep(0.3)
    rig.switch('sim/unplug', False)
    rig.stillness.withdraw()


def _kill(name: str) -> Callable[[OrdersRig], None]:
    def kill(rig: OrdersRig) -> None:
        rig.kill(name)
        if name in ('arm', 'session'):  # what was asked for dies with it
            rig.stillness.withdraw()

    return kill


def _freeze(name: str) -> Callable[[OrdersRig], None]:
    def freeze(rig: OrdersRig) -> None:
        rig.programs[name].send(signal.SIGSTOP)
        in_one_breath(rig)
        time.sleep(0.8)
        rig.programs[name].send(signal.SIGCONT)

    return freeze


def _press(button: str) -> Callable[[OrdersRig], None]:
    return lambda rig: rig.page.ask(button)


ORDERS: Mapping[str, tuple[int, Callable[[OrdersRig], None]]] = {
    'stop': (6, stop),
    'clear': (10, _press('clear')),
    'motors on': (14, _press('enable')),
    'motors off': (2, motors_off),
    'start': (14, start),
    'reset': (6, reset),
    'take over': (5, _press('take')),
    'take over and drive': (6, drive),
    'give back': (8, _press('give')),
    'pause or go on': (6, pause),
    'success': (4, _press('success')),
    'failure': (3, _press('failure')),
    'discard': (3, _press('discard')),
    'stop, clear, motors on in one breath': (4, in_one_breath),
    'reconnect': (2, reconnect),
    'page closed': (3, lambda rig: rig.page.close()),
    'policy killed': (1, _kill('policy')),
    'kinematics_node killed': (1, _kill('kinematics')),
    'session_node killed': (1, _kill('session')),
    'arm_node killed': (1, _kill('arm')),
    'console killed': (1, _kill('console')),
    'session_node frozen in a stop': (1, _freeze('session')),
    'kinematics_node frozen in a stop': (1, _freeze('kinematics')),
}
"""How often each comes, as a weight, and what it does."""

LIKELY: Mapping[str, tuple[str, float]] = {
    'stop': ('clear', 0.5),
    'clear': ('motors on', 0.6),
    'motors off': ('motors on', 0.5),
    'reconnect': ('motors on', 0.5),
    'arm_node killed': ('motors on', 0.5),
}
"""What follows an order with some probability: chance alone would leave the motors off most of the time."""

LISTENS = ('motors on', 'stop, clear, motors on in one breath', 'reconnect', 'success', 'give back')
LISTEN_S = 1.2
"""Orders after half of which nothing is done for a while, so that what goes on by itself is seen [s]."""

WAITS = ('Connecting', 'No arm', 'Going back to the start', 'At the start', 'Nobody drives')
"""Titles under which things go on by themselves for a moment, such as a node that starts."""


def way_out(now: Mapping[str, Any]) -> str | None:
    """Return the button that the page names as the way on, an empty text where things run; None where it names none."""
    said = f'{now.get("title", "")} {now.get("detail", "")}'
    remedies = ' '.join(check['remedy'] for check in now.get('checks', ()) if check['name'] == 'arm')
    if now.get('arm') in ('stopped', 'fault') and 'Clear stop or fault' in remedies:
        return 'clear'
    if now.get('arm') == 'off' and 'Motors on' in f'{said} {remedies}':
        return 'enable'
    if now.get('arm') != 'ready':
        return None
    for words, button in (
        ('give back', 'give'),
        ('Waiting for Start', 'start'),
        ('aused', 'pause'),
        ('waits for a policy or a human', 'take'),
        ('nobody drives: take over', 'take'),
    ):
        if words in said and (button != 'start' or now.get('start')):
            return button
    if 'Let go with G' in said or 'A human drives' in said or 'Another page drives' in said:
        return 'give'
    return '' if ' runs' in said else None


@dataclass
class Findings:
    """What came of it.

    Attributes:
        counts: orders by name.
        stuck: states without a way out.
        recoveries: how long the way that the page names took [s].
    """

    counts: Counter[str] = field(default_factory=Counter)
    stuck: list[str] = field(default_factory=list)
    recoveries: list[float] = field(default_factory=list)


def recover(rig: OrdersRig, found: Findings) -> None:
    """Do nothing but what the page names, until the policy drives."""
    began = named = time.monotonic()
    pressed = 0.0
    while not _policy_drives(rig):
        now = time.monotonic()
        rig.look()
        button = way_out(rig.page.now)
        if button is not None or _goes_on(rig.page.now):
            named = now
        if button and now - pressed > PRESS_S:
            pressed = now
            if button == 'start':
                rig.stillness.asked = True
                rig.stillness.entitled()
            rig.page.ask(button)
        if now - named > NAMED_S or now - began > RECOVER_S:
            said = ': '.join(str(rig.page.now.get(key, '')) for key in ('title', 'detail'))
            found.stuck.append(f'no way out of "{said}" for {now - min(began, named):.0f} s')
            return
        time.sleep(0.02)
    found.recoveries.append(time.monotonic() - began)


def _goes_on(now: Mapping[str, Any]) -> bool:
    return any(str(now.get('title', 'Connecting')).startswith(title) for title in WAITS)


def _policy_drives(rig: OrdersRig) -> bool:
    status = rig.ear.status()
    return status is not None and status.driver is Driver.POLICY and status.index > 1 and rig.page.now != {}


def run(orders: int, seed: int, every: int, console: Console) -> tuple[OrdersRig, Findings, float]:
    """Give random orders; return the rig with what its watchers found, the rest, and how long it took [s]."""
    chance, found, rig = random.Random(seed), Findings(), OrdersRig()
    with rig:
        wait_until(lambda: rig.page.now.get('arm') is not None, 60.0, 'the page shows the arm')
        recover(rig, found)
        began = time.monotonic()
        for number, name in enumerate(drawn(orders, chance), 1):
            found.counts[name] += 1
            wrong = _wrong(rig, found)
            ORDERS[name][1](rig)
            listens = name in LISTENS and chance.random() < 0.5
            time.sleep(LISTEN_S if listens else chance.uniform(*PAUSE_S))
            rig.look()
            if number % every == 0:
                recover(rig, found)
                console.print(f'{number} of {orders}, {time.monotonic() - began:.0f} s', style='dim')
            if _wrong(rig, found) > wrong:
                console.print(f'{number} {name}: {_said(rig, found)[-1]}', soft_wrap=True)
        time.sleep(rig.stillness.settles_s + rig.stillness.learns_s)
        took = time.monotonic() - began
        stop(rig)
        wait_until(lambda: not rig.episodes.running, 30.0, 'the last episode ends')
    return rig, found, took


def drawn(orders: int, chance: random.Random) -> Iterator[str]:
    """Yield the names of random orders."""
    names, weights, last = list(ORDERS), [weight for weight, _ in ORDERS.values()], ''
    for _ in range(orders):
        follows, share = LIKELY.get(last, ('', 0.0))
        last = follows if chance.random() < share else chance.choices(names, weights)[0]
        yield last


def _said(rig: OrdersRig, found: Findings) -> list[str]:
    return [*rig.stillness.found, *found.stuck, *rig.episodes.lost, *rig.deaths]


def _wrong(rig: OrdersRig, found: Findings) -> int:
    return len(_said(rig, found))


def rows(rig: OrdersRig, found: Findings, took: float) -> list[Row]:
    """Return the figures, the headline first."""
    orders, episodes = sum(found.counts.values()), rig.episodes
    watch = rig.stillness
    still = f'{watch.watched_s:.0f} s watched, largest motion otherwise {1e3 * watch.farthest_rad:.0f} mrad'
    ended = (
        f'{episodes.begun} begun, {episodes.ended} with an end, {episodes.killed} killed with their session'
    )
    ways = Row.of('the way out that the page names, until the policy drives', 's', found.recoveries)
    return [
        Row('orders after which something was wrong', 'orders', orders, float(_wrong(rig, found))),
        Row('motions that nobody asked for', 'motions', orders, float(len(rig.stillness.found)), note=still),
        Row('states without a way out that the page names', 'states', orders, float(len(found.stuck))),
        Row('episodes lost', 'episodes', episodes.begun, float(len(episodes.lost)), note=ended),
        Row('nodes that died by themselves', 'nodes', orders, float(len(rig.deaths))),
        ways,
        Row('orders a minute', '1/min', orders, 60.0 * orders / took),
    ]


INTRODUCTION = """## In any order

{orders} random orders to the running graph on the twin: twin_node, arm_node, kinematics_node, session_node, a policy and the console with a page, each a process of its own.
It is set up as with a real arm: nothing switches itself on, and nothing begins without Start.
A joint that moves by more than {tolerance:.0f} mrad while the motors are on, and neither an episode nor a reset runs that was asked for since the last stop, is a motion that nobody asked for.
Each {every} orders only what the page names is pressed until the policy drives again; where it names nothing, or that leads nowhere, there is no way out.
An episode whose START is followed by no end before the next one is lost; who kills session_node kills the episode that it runs.
`./so101 bench faults_orders --orders {orders} --seed {seed} --markdown docs/faults.md` makes this part.
This one comes from {machine}.
"""  # noqa: E501


def part(options: Any, table: list[Row], rig: OrdersRig, found: Findings) -> str:
    """Return the part of the page of the documentation."""
    minutes = table[-1].n / (table[-1].value or 1.0)
    where = f'{platform.machine()}, Python {platform.python_version()}, in {minutes:.0f} minutes'
    words = {'orders': options.orders, 'every': options.every, 'seed': options.seed, 'machine': where}
    lines = [INTRODUCTION.format(**words, tolerance=1e3 * rig.stillness.tolerance_rad)]
    lines += ['| what | found | of | remarks |', '|---|---|---|---|']
    lines += [markdown_row((row.name, f'{row.value:.4g} {row.unit}', str(row.n), row.note)) for row in table]
    lines += ['', '| order | times |', '|---|---|']
    lines += [markdown_row((name, str(found.counts[name]))) for name in ORDERS]
    return '\n'.join([*lines, *(f'* {said}' for said in _said(rig, found))]) + '\n'


def main() -> int:
    """Command line."""
    parser = Parser(__doc__)
    parser.number('--orders', 2000, 'orders to give', quick=40)
    parser.number('--seed', 0, 'of the orders')
    parser.number('--every', 20, 'orders after which the way out is gone')
    parser.add_argument(
        '--markdown', type=Path, help='write the tables as a part of a page of the documentation'
    )
    options = parser.parse_args()
    isolate()
    with contextlib.suppress(PermissionError):  # like the nodes: what it hears late it would judge wrongly
        os.setpriority(os.PRIO_PROCESS, 0, PRIORITY)
    rig, found, took = run(options.orders, options.seed, options.every, Console(stderr=True))
    table = rows(rig, found, took)
    if options.markdown:
        write_part(options.markdown, part(options, table, rig, found))
    details = {'wrong': _said(rig, found), 'orders': dict(found.counts)}
    return Report('faults_orders', table, passed=not _wrong(rig, found), details=details).finish(options)


if __name__ == '__main__':
    sys.exit(main())

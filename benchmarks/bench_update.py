# SPDX-License-Identifier: Apache-2.0
"""Time of an update by preset and batch, beside DrQ-v2 written plainly.

`robobase`: the faithful agent, 84 px, 2 critics. `cpu`: the default agent, 64 px, strided encoder, 10 critics of which
2 count. The peer (peers_update.py) has the same networks, losses and order, written as the published versions are. Both
run in processes of their own on the same torch, in turns of a few updates, so that a busy machine slows both alike. The
note has the processor's time for one update, which other work on the machine hardly changes. One thread unless told
otherwise; where there is a GPU, it is measured too.
"""

import argparse
import contextlib
import json
from pathlib import Path
import sys
import time
from typing import Any

from processes import use_sources, Worker
from report import Parser, quantile, Report, Row
from rich.console import Console
from rich.progress import Progress

PROGRAMS = {'ours': (Path(__file__), '--serve'), 'plain': (Path(__file__).with_name('peers_update.py'),)}
PACKAGES = ('so101_interfaces', 'so101_contract', 'drqv2_policy_node', 'hilserl_learner')
PRESETS = ('cpu', 'robobase')  # the headline first

Numbers = dict[str, Any]


def serve() -> None:
    """Answer requests with the seconds of updates of our agents."""
    use_sources(*PACKAGES)
    import torch

    from hilserl_learner.training.trainer import prepare_cpu

    agents: dict[tuple[str, str], Any] = {}
    print(json.dumps({'torch': torch.__version__}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        prepare_cpu(request['threads'])
        key = request['preset'], request['device']
        if key not in agents:
            agents[key] = make_agent(*key)
        batch = random_batch(agents[key].spec, request['rows'], key[1])
        seconds, work = [], []
        for _ in range(request['updates']):
            begin, used = time.perf_counter(), time.process_time()
            agents[key].update(batch)
            if key[1] != 'cpu':
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - begin)
            work.append(time.process_time() - used)
        print(json.dumps({'seconds': seconds, 'cpu_seconds': work}), flush=True)


def make_agent(preset: str, device: str) -> Any:
    """Return the agent of a preset."""
    from hilserl_learner.agents.drqv2 import FaithfulAgent
    from hilserl_learner.agents.hil import HilAgent
    from so101_contract.observation_spec import robobase_spec

    if preset == 'robobase':
        agent: Any = FaithfulAgent(robobase_spec(), device=device)
    else:
        agent = HilAgent(robobase_spec(size=64), device=device)
    agent.std = 0.1
    return agent


def random_batch(spec: Any, rows: int, device: str) -> Any:
    """Return a batch in which nothing means anything; half of it is demonstrated."""
    import torch

    from hilserl_learner.data.batch import Batch

    draw = torch.Generator().manual_seed(0)
    shape = (rows, spec.cameras, spec.image_channels, spec.image_size, spec.image_size)
    images = [torch.randint(0, 256, shape, dtype=torch.uint8, generator=draw) for _ in range(2)]
    states = [torch.randn(rows, spec.stacked_state, generator=draw) for _ in range(2)]
    return Batch(
        images=images[0],
        state=states[0],
        actions=torch.rand(rows, 1, spec.action_size, generator=draw) * 2 - 1,
        known=torch.ones(rows, 1, dtype=torch.bool),
        reward=torch.rand(rows, generator=draw),
        discount=torch.full((rows,), 0.97),
        next_images=images[1],
        next_state=states[1],
        intervened=torch.zeros(rows, dtype=torch.bool),
        is_demo=torch.arange(rows) < rows // 2,
        base=torch.full((rows, spec.action_size), float('nan')),
        next_base=torch.full((rows, spec.action_size), float('nan')),
    ).to(device)


def measure(workers: dict[str, Worker], request: Numbers, seconds: float) -> Row:
    """Return the row of one case, both sides measured in turns."""
    begin = time.monotonic()
    times: dict[str, list[tuple[float, float]]] = {side: [] for side in workers}
    updates = 1
    while time.monotonic() - begin < seconds or min(map(len, times.values())) < 4:
        for side, worker in workers.items():
            took = worker.ask({**request, 'updates': updates})
            times[side] += zip(took['seconds'], took['cpu_seconds'], strict=True)
        updates = max(1, min(20, round(0.25 / times['plain'][-1][0])))
    wall, busy = {}, {}
    for side, pairs in times.items():
        wall[side], work = zip(*pairs[1:], strict=True)  # the first update allocates
        busy[side] = 1e3 * quantile(work, 0.5)
    note = (
        f'{1.0 / quantile(wall["ours"], 0.5):.2f} updates/s; {busy["ours"]:.1f} ms of the processor, '
        f'plain {busy["plain"]:.1f} ms, ratio {busy["plain"] / busy["ours"]:.2f}'
    )
    title = f'preset {request["preset"]}, batch {request["rows"]}, {request["device"]}'
    row = Row.of(title, 'ms an update', wall['ours'], 1e3, note)
    return row.beside('plain DrQ-v2', 1e3 * quantile(wall['plain'], 0.5))


def run(options: argparse.Namespace) -> Report:
    """Measure a row per device, preset and batch."""
    import torch

    devices = ['cpu', *(['cuda'] if torch.cuda.is_available() else [])]
    cases = [(d, p, rows) for d in devices for p in options.presets for rows in options.batches]
    results = []
    with contextlib.ExitStack() as stack:
        workers = {
            side: stack.enter_context(Worker(side, [sys.executable, *words]))
            for side, words in PROGRAMS.items()
        }
        progress = stack.enter_context(Progress(transient=True, console=Console(stderr=True)))
        for device, preset, rows in progress.track(cases, description='updates'):
            request = {'preset': preset, 'device': device, 'rows': rows, 'threads': options.threads}
            results.append(measure(workers, request, options.seconds))
        versions = {f'torch ({side})': worker.hello['torch'] for side, worker in workers.items()}
    return Report('update', results, versions, details={'threads': options.threads})


def main() -> int:
    """Run the benchmark from the command line."""
    parser = Parser(__doc__, batches=[64], seconds=0.5)
    parser.add_argument('--batches', type=int, nargs='+', default=[64, 16, 256], help='(default: 64 16 256)')
    parser.add_argument('--presets', nargs='+', choices=PRESETS, default=list(PRESETS))
    parser.number('--seconds', 10.0, 'per row at least')
    parser.number('--threads', 1, 'of torch')
    parser.add_argument('--serve', action='store_true', help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve()
        return 0
    return run(options).finish(options)


if __name__ == '__main__':
    sys.exit(main())

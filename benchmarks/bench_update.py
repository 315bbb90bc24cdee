# SPDX-License-Identifier: Apache-2.0
"""Updates per second by preset and batch, beside DrQ-v2 written plainly.

`robobase`: the faithful agent, 84 px, 2 critics. `cpu`: the default agent, 64 px, strided encoder, 10 critics of which
2 count. The peer (peers_update.py) has the same networks, losses and order, written as the published versions are. Both
run in processes of their own on the same torch, in turns of a few updates, so that a busy machine slows both alike. The
median counts; `CPU ms` is the processor's time for one update, which other work on the machine hardly changes. One
thread unless told otherwise; where there is a GPU, it is measured too.
"""

import argparse
from collections.abc import Iterator
import contextlib
import json
import os
from pathlib import Path
import platform
import statistics
import subprocess
import sys
import time
from typing import Any

from rich.console import Console
from rich.progress import Progress
from rich.table import Table

ROOT = Path(__file__).resolve().parents[1]
PEER = Path(__file__).resolve().parent / 'peers_update.py'
PACKAGES = ('so101_interfaces', 'so101_contract', 'drqv2_policy_node', 'hilserl_learner')
PRESETS = ('robobase', 'cpu')
SIDES = ('ours', 'plain')
HEADLINE = ('cpu', 64)

Numbers = dict[str, Any]


def serve() -> None:
    """Answer requests with the seconds of updates of our agents."""
    sys.path[:0] = [str(ROOT / 'src' / name) for name in PACKAGES]
    import torch

    from hilserl_learner.cpu import prepare_cpu

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
    from hilserl_learner.agents.faithful import FaithfulAgent
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

    from hilserl_learner.batch import Batch

    draw = torch.Generator().manual_seed(0)
    shape = (rows, spec.cameras, spec.image_channels, spec.image_size, spec.image_size)
    images = [torch.randint(0, 256, shape, dtype=torch.uint8, generator=draw) for _ in range(2)]
    states = [torch.randn(rows, spec.stacked_state, generator=draw) for _ in range(2)]
    return Batch(
        images=images[0],
        state=states[0],
        action=torch.rand(rows, spec.action_size, generator=draw) * 2 - 1,
        reward=torch.rand(rows, generator=draw),
        discount=torch.full((rows,), 0.97),
        next_images=images[1],
        next_state=states[1],
        intervened=torch.zeros(rows, dtype=torch.bool),
        is_demo=torch.arange(rows) < rows // 2,
    ).to(device)


@contextlib.contextmanager
def worker(side: str) -> Iterator['subprocess.Popen[str]']:
    """Start one side's process; it ends when its input does."""
    command = (
        [sys.executable, str(Path(__file__)), '--serve'] if side == 'ours' else [sys.executable, str(PEER)]
    )
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield process
    finally:
        assert process.stdin is not None
        process.stdin.close()
        process.wait(timeout=60)


def answer(process: 'subprocess.Popen[str]', request: Numbers | None = None) -> Numbers:
    """Send a request and return the answer."""
    assert process.stdin is not None
    assert process.stdout is not None
    if request is not None:
        process.stdin.write(json.dumps(request) + '\n')
        process.stdin.flush()
    line = process.stdout.readline()
    if not line:
        raise SystemExit(f'a side of the benchmark ended with code {process.wait()}; its message is above')
    numbers: Numbers = json.loads(line)
    return numbers


def measure(workers: dict[str, Any], request: Numbers, seconds: float) -> Numbers:
    """Return updates per second of both sides, measured in turns, and the processor's time for one update."""
    begin = time.monotonic()
    times: dict[str, list[tuple[float, float]]] = {side: [] for side in SIDES}
    updates = 1
    while time.monotonic() - begin < seconds or min(map(len, times.values())) < 4:
        for side in SIDES:
            took = answer(workers[side], {**request, 'updates': updates})
            times[side] += zip(took['seconds'], took['cpu_seconds'], strict=True)
        updates = max(1, min(20, round(0.25 / times['plain'][-1][0])))
    numbers: Numbers = {}
    for side in SIDES:
        wall, work = zip(*times[side][1:], strict=True)  # the first update allocates
        numbers[side] = round(1.0 / statistics.median(wall), 3)
        numbers[f'{side}_cpu_ms'] = round(1e3 * statistics.median(work), 1)
    numbers['ratio'] = round(numbers['ours'] / numbers['plain'], 2)
    numbers['cpu_ratio'] = round(numbers['plain_cpu_ms'] / numbers['ours_cpu_ms'], 2)
    return numbers


def run(arguments: argparse.Namespace) -> tuple[list[Numbers], str]:
    """Measure everything and return a row per preset, device and batch, and the version of torch."""
    import torch

    devices = ['cpu', *(['cuda'] if torch.cuda.is_available() else [])]
    cases = [(d, p, rows) for d in devices for p in arguments.presets for rows in arguments.batches]
    results = []
    with contextlib.ExitStack() as stack:
        workers = {side: stack.enter_context(worker(side)) for side in SIDES}
        versions = {answer(process)['torch'] for process in workers.values()}
        progress = stack.enter_context(Progress(transient=True, console=Console(stderr=True)))
        for device, preset, rows in progress.track(cases, description='updates'):
            request = {'preset': preset, 'device': device, 'rows': rows, 'threads': arguments.threads}
            numbers = measure(workers, request, arguments.seconds)
            results.append({'device': device, 'preset': preset, 'batch': rows, **numbers})
    return results, '/'.join(sorted(versions))


def main() -> None:
    """Run the benchmark from the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--batches', type=int, nargs='+', default=[16, 64, 256], help='(default: 16 64 256)')
    parser.add_argument('--presets', nargs='+', choices=PRESETS, default=list(PRESETS))
    parser.add_argument('--seconds', type=float, default=10.0, help='per row at least (default: %(default)s)')
    parser.add_argument('--threads', type=int, default=1, help='of torch (default: %(default)s)')
    parser.add_argument('--json', type=Path, help='also write the last line to this file')
    parser.add_argument('--serve', action='store_true', help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.serve:
        serve()
        return
    results, torch_version = run(arguments)
    table = Table(title=f'updates per second, {arguments.threads} thread(s), torch {torch_version}')
    columns = ('device', 'preset', 'batch', 'ours', 'plain DrQ-v2', 'ratio', 'CPU ms ours', 'plain', 'ratio')
    for column in columns:
        table.add_column(column, justify='left' if column in ('device', 'preset') else 'right')
    for row in results:
        cells = [f'{row[key]:.2f}' for key in (*SIDES, 'ratio')]
        cells += [f'{row[f"{side}_cpu_ms"]:.0f}' for side in SIDES]
        table.add_row(row['device'], row['preset'], str(row['batch']), *cells, f'{row["cpu_ratio"]:.2f}')
    Console(width=100).print(table)
    head = next((row for row in results if (row['preset'], row['batch']) == HEADLINE), results[-1])
    line = json.dumps(
        {
            'name': 'update',
            'value': head['ours'],
            'unit': f'updates/s, preset {head["preset"]}, batch {head["batch"]}, {head["device"]}',
            'peer': 'plain DrQ-v2',
            'peer_value': head['plain'],
            'ratio': head['ratio'],
            'cpu_ratio': head['cpu_ratio'],
            'n': len(results),
            'rows': results,
            'threads': arguments.threads,
            'torch': torch_version,
            'cores': os.cpu_count(),
            'python': platform.python_version(),
        }
    )
    if arguments.json:
        arguments.json.write_text(line + '\n')
    print(line)


if __name__ == '__main__':
    main()

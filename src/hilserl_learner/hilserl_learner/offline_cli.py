# SPDX-License-Identifier: Apache-2.0
"""`train-offline`: learn from buffers alone; with torchrun, in several processes."""

import argparse
import json
from pathlib import Path
import sys
import time

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from hilserl_learner.agents.common import AGENTS
from hilserl_learner.cpu import prepare_cpu
from hilserl_learner.distributed import join, leave, meet
from hilserl_learner.learner_config import LearnerConfig
from hilserl_learner.offline import OfflineRun, OfflineSettings, with_capacity_for
from hilserl_learner.train_setup import Settings
from so101_contract.presets import DEFAULT_OBSERVATION, OBSERVATIONS


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog='so101 train-offline', description=__doc__)
    parser.add_argument('buffers', nargs='+', help='buffers that ingest, or a learner, wrote')
    parser.add_argument('--out', type=Path, required=True, help='run directory; what is there goes on')
    parser.add_argument('--updates', type=int, default=10_000, help='in all (default: %(default)s)')
    parser.add_argument('--agent', default='hil', choices=AGENTS, help='(default: %(default)s)')
    parser.add_argument(
        '--policy', default='none', help='begin with this policy, and its critics if there are any'
    )
    parser.add_argument('--observation', default=DEFAULT_OBSERVATION, choices=sorted(OBSERVATIONS))
    parser.add_argument('--device', default='cpu', help='cpu or cuda (default: %(default)s)')
    parser.add_argument('--threads', type=int, default=1, help='of torch; 0: its own choice')
    parser.add_argument('--seed', type=int, default=0, help='(default: %(default)s)')
    parser.add_argument('--set', action='append', default=[], metavar='NAME=VALUE', help='any other value')
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = make_parser().parse_args(argv)
    prepare_cpu(options.threads)
    group = join(options.device)
    try:
        values = dict(item.partition('=')[::2] for item in options.set)
        chosen = Settings.with_options(values, agent=options.agent, policy=options.policy)
        names = ('agent', 'policy', 'observation', 'device', 'threads', 'seed')
        settings = OfflineSettings(
            buffers=tuple(options.buffers),
            updates=options.updates,
            learner=LearnerConfig(**{name: getattr(options, name) for name in names}),
            trainer=chosen.trainer,
            agent_options=dict(chosen.agent_options),
        )
        run = OfflineRun(with_capacity_for(settings), options.out, group)
        columns = (TextColumn('updates'), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        begin, before = time.perf_counter(), run.agent.updates
        with Progress(*columns, console=Console(stderr=True), disable=not group.first) as bar:
            task = bar.add_task('', total=options.updates)
            policy = run.run(lambda done: bar.update(task, completed=done))
        meet(group)
    except (ValueError, OSError) as error:
        print(f'so101 train-offline: {error}', file=sys.stderr)
        return 1
    finally:
        leave(group)
    if group.first:
        made = run.agent.updates - before
        report = {
            'policy': str(policy),
            'transitions': len(run.buffer),
            'updates': run.agent.updates,
            'updates_per_s': round(made / max(time.perf_counter() - begin, 1e-9), 2),
            'processes': group.size,
        }
        print(json.dumps(report))
    return 0


if __name__ == '__main__':
    sys.exit(main())

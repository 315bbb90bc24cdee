# SPDX-License-Identifier: Apache-2.0
"""`./so101 compare WHO...`: policies, runs, the expert and the floor on the same episodes, as a table and a picture."""

import argparse
from collections.abc import Sequence
import itertools
import json
from pathlib import Path
import sys

from rich.console import Console
from rich.progress import Progress

from hilserl_learner.agents.common import AGENTS
from hilserl_learner.training.comparison import (
    BUILT_IN,
    contenders_of,
    draw,
    measure,
    Measured,
    plain,
    rows_of,
    table,
)
from hilserl_learner.training.evaluate import EVALUATION_SEED
from hilserl_learner.training.run import Training
from hilserl_learner.training.settings import default_observation, Settings
from hilserl_learner.training.trainer import prepare_cpu

TABLE, NUMBERS, PICTURE = 'comparison.md', 'comparison.json', 'comparison.png'


def parser() -> argparse.ArgumentParser:
    """Return the command's arguments."""
    default = Settings()
    made = argparse.ArgumentParser(
        prog='so101 compare',
        description='Let policies act on the same episodes, and write one table and one picture.\n'
        'Runs of one environment that differ only in their seed become one row. With --train it first makes a run of\n'
        'each environment, agent and seed, or goes on with it.',
        epilog='so101 compare zero random expert --env FetchPickAndPlace-joint --out compared\n'
        'so101 compare zero --env FetchPush-cartesian --train hil,sac,bc --seeds 0,1,2 --steps 20000 --out compared',
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument('who', nargs='*', help=f'{", ".join(BUILT_IN)}, run directories, policy folders')
    made.add_argument('--env', action='append', default=[], help='environment, may be given again')
    made.add_argument('--preset', default=default.preset, help='difficulty (default: %(default)s)')
    made.add_argument('--reward', help='name of a reward, e.g. classic; what it says is the column reward')
    made.add_argument('--episodes', type=int, default=100, help='of each (default: %(default)s)')
    made.add_argument(
        '--seed', type=int, default=EVALUATION_SEED, help='which episodes (default: %(default)s)'
    )
    made.add_argument('--reference', default='', help='row that others are compared with; default: the first')
    made.add_argument('--out', type=Path, required=True, help=f'folder for {TABLE}, {NUMBERS}, {PICTURE}')
    made.add_argument('--title', default='', help='over the picture')
    training = made.add_argument_group('training')
    training.add_argument('--train', default='', metavar='AGENTS', help=f'out of {",".join(AGENTS)}')
    training.add_argument('--seeds', default='0', help='of the runs, e.g. 0,1,2 (default: %(default)s)')
    training.add_argument('--steps', type=int, default=default.run.steps, help='(default: %(default)s)')
    training.add_argument('--demos', default=default.demos, help='(default: %(default)s)')
    training.add_argument('--operator', choices=('scripted', 'none'), default='none', help='who helps')
    training.add_argument('--observation', help='its name; default: the environment has one')
    training.add_argument('--set', action='append', default=[], metavar='NAME=VALUE', help='as of train')
    made.add_argument('--threads', type=int, default=1, help='of torch (default: %(default)s)')
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Compare, write, and print the table."""
    made = parser()
    options = made.parse_args(argv)
    prepare_cpu(options.threads)
    options.env = options.env or [Settings.env]
    if not options.who and not options.train:
        made.error(f'expected somebody to compare: {", ".join(BUILT_IN)}, a run, a policy, or --train')
    try:
        runs = [str(run) for run in train_all(options)]
        contenders = contenders_of([*options.who, *runs], options.env, options.preset)
        measured: list[Measured] = []
        with Progress(console=Console(stderr=True)) as bars:
            bar = bars.add_task('', total=len(contenders) * options.episodes)
            for one in contenders:
                bars.update(bar, description=f'{one.env} {one.label}')
                measured.append(
                    measure(
                        one,
                        options.episodes,
                        seed=options.seed,
                        reward=options.reward,
                        after_episode=lambda: bars.advance(bar),
                    )
                )
        rows = rows_of(measured)
        options.out.mkdir(parents=True, exist_ok=True)
        text = table(rows, options.reference)
        (options.out / TABLE).write_text(text)
        (options.out / NUMBERS).write_text(json.dumps(plain(rows), indent=1) + '\n')
        draw(rows, options.out / PICTURE, options.title)
    except (ValueError, OSError) as error:
        print(f'so101 compare: {error}', file=sys.stderr)
        return 1
    print(text, end='')
    return 0


def train_all(options: argparse.Namespace) -> list[Path]:
    """Make a run of each environment, agent and seed that are asked for; what is there already is gone on with."""
    agents = [name for name in options.train.split(',') if name]
    seeds = [int(number) for number in options.seeds.split(',')] if agents else []
    made = []
    for env, agent, seed in itertools.product(options.env, agents, seeds):
        values = dict(item.partition('=')[::2] for item in options.set) | {'steps': str(options.steps)}
        observation = options.observation or default_observation(env)
        settings = Settings.with_options(
            values,
            env=env,
            preset=options.preset,
            observation=observation,
            demos=options.demos,
            operator=options.operator,
            agent=agent,
            seed=seed,
        )
        run = options.out / 'runs' / f'{Path(env).stem}-{observation}-{agent}-{seed}'
        print(f'so101 compare: {run}', file=sys.stderr)
        Training(settings, run, resume=True).train()
        made.append(run)
    return made


if __name__ == '__main__':
    sys.exit(main())

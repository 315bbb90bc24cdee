# SPDX-License-Identifier: Apache-2.0
"""`./so101 train`: learn in the simulated environment, without ROS and faster than real time."""

import argparse
from collections.abc import Sequence
from pathlib import Path
import sys

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from hilserl_learner.agents.common import AGENTS
from hilserl_learner.cli.report import add_json, show_report
from hilserl_learner.training.run import Progress as State
from hilserl_learner.training.run import Training
from hilserl_learner.training.settings import default_observation, LABELS_HUMAN, LABELS_TRUTH, Settings
from hilserl_learner.training.trainer import prepare_cpu
from so101_sim.human.traits import HUMANS
from so101_sim.scene.presets import NAMES


def parser() -> argparse.ArgumentParser:
    """Return the command's arguments."""
    made = argparse.ArgumentParser(
        prog='so101 train',
        description='Learn in the simulated environment, without ROS and faster than real time.',
        epilog='Every value of docs/training.md can be set: --set utd=2 --set bc_weight=0.1. The run directory gets '
        'best/ and last/ (policies), *.csv and tensorboard/. It ends with a table of how it went.',
    )
    default = Settings()
    made.add_argument(
        '--env',
        default=default.env,
        help='SO101Lift-v0, SO101Place-v0, the name or file of a task, or one of the Fetch environments, e.g. '
        'FetchPickAndPlace-cartesian (default: %(default)s)',
    )
    made.add_argument('--preset', default=default.preset, help=f'{", ".join(NAMES)} (default: %(default)s)')
    made.add_argument(
        '--observation',
        help=f'its name (default: {default.observation}; for Fetch: state, or pixels)',
    )
    made.add_argument(
        '--demos',
        default=default.demos,
        help='number of scripted demonstrations, or a BUFFER of `so101 ingest` (default: %(default)s)',
    )
    made.add_argument(
        '--operator',
        choices=('scripted', 'none', *HUMANS),
        default=default.operator,
        help='who helps; careful and clumsy react late, shake, look away and err as humans do (default: %(default)s)',
    )
    made.add_argument(
        '--labels',
        choices=(LABELS_TRUTH, LABELS_HUMAN),
        default=default.labels,
        help='who says in training that the task is done; evaluations go by the truth (default: %(default)s)',
    )
    made.add_argument('--agent', default=default.agent, choices=AGENTS, help='(default: %(default)s)')
    made.add_argument(
        '--policy',
        default='',
        help='begin with this stored policy, and its critics if there are any; default: the one that is shipped',
    )
    made.add_argument(
        '--base',
        default='',
        help='learn on top of this stored policy, which acts at first and is left as far as evaluations allow',
    )
    made.add_argument(
        '--steps', type=int, default=default.run.steps, help='environment steps (default: %(default)s)'
    )
    made.add_argument('--seed', type=int, default=default.seed, help='of everything (default: %(default)s)')
    made.add_argument('--out', type=Path, required=True, help='run directory')
    made.add_argument('--resume', action='store_true', help='go on with the run in that directory')
    made.add_argument('--device', default=default.device, help='cpu or cuda (default: %(default)s)')
    made.add_argument(
        '--threads', type=int, default=1, help='of torch; 0: its own choice (default: %(default)s)'
    )
    made.add_argument('--set', action='append', default=[], metavar='NAME=VALUE', help='any other value')
    add_json(made)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Train, show how it goes, and print what came of it."""
    made = parser()
    options = made.parse_args(argv)
    values = dict(item.partition('=')[::2] for item in options.set)
    values['steps'] = str(options.steps)
    options.observation = options.observation or default_observation(options.env)
    prepare_cpu(options.threads)
    names = (
        'env',
        'preset',
        'observation',
        'demos',
        'operator',
        'labels',
        'agent',
        'policy',
        'base',
        'seed',
        'device',
    )
    console = Console(stderr=True)
    with Progress(
        TextColumn('{task.description}'),
        BarColumn(),
        TextColumn('{task.fields[text]}'),
        TimeRemainingColumn(),
        console=console,
    ) as bars:
        bar = bars.add_task('demonstrations', total=options.steps, text='')

        def show(state: State) -> None:
            bars.update(
                bar,
                completed=state.steps,
                description=state.note or 'training',
                text=_described(state, options.steps),
            )

        try:
            settings = Settings.with_options(values, **{name: getattr(options, name) for name in names})
            training = Training(settings, options.out, resume=options.resume, report=show)
            outcome = training.train()
        except (ValueError, OSError) as error:
            bars.stop()
            print(f'so101 train: {error}', file=sys.stderr)
            return 1
    console.print(training.human.time.sentence, highlight=False)
    for alarm in outcome.alarms:
        console.print(f'warning: {alarm}', style='yellow')
    report = {
        'name': f'{settings.env} {settings.preset} {settings.agent}',
        'seed': settings.seed,
        'steps': training.trainer.steps,
        'episodes': outcome.episodes,
        'wall_s': round(outcome.wall_s, 1),
        'cpu_s': round(outcome.cpu_s, 1),
        'updates': training.agent.updates,
        **training.human.time.report(),
        'policy': str(options.out / ('best' if (options.out / 'best').exists() else 'last')),
        **(outcome.evaluation.report() if outcome.evaluation is not None else {}),
    }
    show_report(report, str(options.out), as_json=options.json)
    return 0


def _described(state: State, total: int) -> str:
    return (
        f'{state.steps}/{total} steps, {state.steps_per_s:.0f}/s, '
        f'success {state.success:.0%}, unaided {state.unaided:.0%}'
    )


if __name__ == '__main__':
    sys.exit(main())

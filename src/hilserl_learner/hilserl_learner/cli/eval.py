# SPDX-License-Identifier: Apache-2.0
"""`./so101 eval POLICY`: how often a stored policy succeeds, alone, in the simulated environment."""

import argparse
from collections.abc import Sequence
import csv
from pathlib import Path
import sys

from rich.console import Console
from rich.progress import Progress

from drqv2_policy_node.on_base import OnBase
from drqv2_policy_node.store import load_policy
from hilserl_learner.cli.report import add_json, show_report
from hilserl_learner.data.collect import Actor
from hilserl_learner.training.evaluate import evaluate, Evaluation, EVALUATION_SEED, ImageStatistics
from hilserl_learner.training.log import EVALUATION, read_table
from hilserl_learner.training.on_base import act_on, load_base
from hilserl_learner.training.settings import make_env, observation_name, stored
from hilserl_learner.training.trainer import prepare_cpu
from so101_sim.scene.presets import NAMES, SCENE_PARTS


def parser() -> argparse.ArgumentParser:
    """Return the command's arguments."""
    made = argparse.ArgumentParser(
        prog='so101 eval',
        description='Run a stored policy without exploration and without help, and say how often it succeeds. With '
        '--json the last line is an object with the checksum of the weights that acted, too.',
    )
    made.add_argument('policy', help='directory of a stored policy, or default for the one that is shipped')
    made.add_argument(
        '--base', default='', help='base policy that it acts on top of: both/ of `so101 train --base`'
    )
    made.add_argument('--env', default='SO101Lift-v0', help='environment (default: %(default)s)')
    made.add_argument('--preset', default='easy', help=f'{", ".join(NAMES)} (default: %(default)s)')
    made.add_argument('--episodes', type=int, default=100, help='how many (default: %(default)s)')
    made.add_argument(
        '--seed', type=int, default=EVALUATION_SEED, help='which episodes (default: %(default)s)'
    )
    made.add_argument(
        '--latency', type=float, help='from observation to action [s]; the preset decides by default'
    )
    made.add_argument(
        '--nominal',
        action='append',
        default=[],
        metavar='PART',
        choices=tuple(SCENE_PARTS),
        help=f'leave this part of the scene as in easy, whatever the preset says: {", ".join(SCENE_PARTS)}; '
        f'shows what a difference of gap costs',
    )
    made.add_argument('--csv', type=Path, help='write one line per episode there')
    made.add_argument('--png', type=Path, help='draw where the cube lay when it succeeded and when not')
    made.add_argument('--run', type=Path, help='run directory to compare the pictures with')
    made.add_argument('--threads', type=int, default=1, help='of torch (default: %(default)s)')
    add_json(made)
    return made


def main(argv: Sequence[str] | None = None) -> int:
    """Evaluate and print."""
    options = parser().parse_args(argv)
    prepare_cpu(options.threads)
    try:
        policy = load_policy(stored(options.policy), on_base=bool(options.base))
        seen = observation_name(policy, options.env)
        env = make_env(options.env, options.preset, seen, options.latency, options.nominal)
        act: Actor | OnBase = policy.act
        if options.base:
            act = act_on(load_base(options.base, seen, env.observation_spec), policy)
        with Progress(console=Console(stderr=True)) as bars:
            bar = bars.add_task(f'{options.env} {options.preset}', total=options.episodes)
            result = evaluate(
                env,
                act,
                options.episodes,
                seed=options.seed,
                after_episode=lambda _: bars.advance(bar),
            )
        env.close()
        if options.csv is not None:
            write_episodes(options.csv, result)
        if options.png is not None:
            from hilserl_learner.cli.plot import draw_map

            title = f'{policy.manifest.name}, version {policy.manifest.version}, on {options.env} {options.preset}'
            draw_map(result, options.png, title)
        alarm = picture_alarm(options.run, result) if options.run is not None else ''
    except (ValueError, OSError) as error:
        print(f'so101 eval: {error}', file=sys.stderr)
        return 1
    if alarm:
        print(f'so101 eval: {alarm}', file=sys.stderr)
    report = {
        'policy': options.policy,
        'weights_sha256': policy.manifest.tensors_sha256,
        'version': policy.manifest.version,
        'env': options.env,
        'preset': options.preset,
        'nominal': options.nominal,
        **result.report(),
    }
    show_report(report, f'{options.policy} on {options.env} {options.preset}', as_json=options.json)
    return 0


def write_episodes(path: Path, result: Evaluation) -> None:
    """Write one line per episode."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open('w', newline='') as file:
        writer = csv.writer(file)
        writer.writerow(('success', 'steps', 'cube_x', 'cube_y'))
        writer.writerows(
            (int(outcome.success), outcome.steps, f'{outcome.cube[0]:.4f}', f'{outcome.cube[1]:.4f}')
            for outcome in result.outcomes
        )


def picture_alarm(run: Path, result: Evaluation) -> str:
    """Return a sentence where the pictures differ from those of a run's evaluations, else an empty string."""
    rows = read_table(run / f'{EVALUATION}.csv')
    seen = ImageStatistics.of_row(rows[-1]) if rows else None
    return '' if seen is None or result.images is None else seen.alarm(result.images)


if __name__ == '__main__':
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""`./so101 plot RUN...`: success against environment steps, with a band over the seeds."""

import argparse
from collections.abc import Sequence
from pathlib import Path
import sys

from hilserl_learner.plot import draw, grouped


def main(argv: Sequence[str] | None = None) -> int:
    """Draw the curves of some runs."""
    parser = argparse.ArgumentParser(
        prog='so101 plot',
        description='Draw learning curves. Runs that differ only in their seed become one line with a band.',
    )
    parser.add_argument('runs', type=Path, nargs='+', help='run directories of so101 train')
    parser.add_argument('--out', type=Path, required=True, help='PNG to write')
    parser.add_argument('--title', default='', help='over the picture')
    parser.add_argument(
        '--minutes', action='store_true', help='over the time spent learning instead of steps'
    )
    parser.add_argument(
        '--label',
        action='append',
        default=[],
        metavar='NAME',
        help='names, one per run, instead of its settings',
    )
    options = parser.parse_args(argv)
    if options.label and len(options.label) != len(options.runs):
        parser.error(
            f'expected one --label for each of the {len(options.runs)} runs, got {len(options.label)}; '
            f'runs with the same label are drawn as one line'
        )
    labels = dict(zip(options.runs, options.label, strict=True)) if options.label else None
    try:
        draw(grouped(options.runs, labels), options.out, title=options.title, minutes=options.minutes)
    except (ValueError, OSError) as error:
        print(f'so101 plot: {error}', file=sys.stderr)
        return 1
    print(options.out)
    return 0


if __name__ == '__main__':
    sys.exit(main())

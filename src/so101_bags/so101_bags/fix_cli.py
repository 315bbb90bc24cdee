# SPDX-License-Identifier: Apache-2.0
"""`./so101 bag-fix`: repair a bag whose recorder was killed."""

import argparse
from collections.abc import Sequence
import json
from pathlib import Path
import sys

from rich.console import Console

from so101_bags.cli import progress_bar
from so101_bags.fix import fix_bag
from so101_bags.storage import BagError


def main(argv: Sequence[str] | None = None) -> int:
    """Repair one bag; return 0 where messages were saved, 2 where nothing could be done."""
    parser = argparse.ArgumentParser(
        prog='so101 bag-fix',
        description='Repair a bag whose recorder was killed or whose end was cut off. The original is kept.',
    )
    parser.add_argument('bag', type=Path, help='folder or file')
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        '--out', type=Path, help='where the repaired bag goes (default: beside it, NAME_fixed)'
    )
    where.add_argument(
        '--in-place', action='store_true', help='take the place of the damaged one, kept as NAME.damaged'
    )
    parser.add_argument('--json', action='store_true', help='print one JSON object instead of words')
    asked = parser.parse_args(sys.argv[1:] if argv is None else list(argv))
    try:
        with progress_bar(Console(stderr=True), 'repairing') as progress:
            report = fix_bag(asked.bag, asked.out, in_place=asked.in_place, progress=progress)
    except (BagError, OSError) as error:
        print(json.dumps({'error': str(error)}) if asked.json else f'bag-fix: {error}', file=sys.stderr)
        return 2
    if asked.json:
        fields = {'target': str(report.target), 'messages': report.messages}
        print(json.dumps({**fields, 'repaired': report.repaired, 'notes': report.notes}))
        return 0
    for line in report.files:
        print(line)
    for note in report.notes:
        print(f'  {note}')
    done = 'the files were whole; the metadata are new' if report.metadata_only else 'repaired'
    print(f'{report.target}: {report.messages} messages, {done}')
    return 0


if __name__ == '__main__':
    sys.exit(main())

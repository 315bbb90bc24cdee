# SPDX-License-Identifier: Apache-2.0
"""Keeps docs/pitfalls.md true: `tools/pitfall_docs.py` writes the column of tests anew.

The page itself says what each defect is; the tests say by their names which defect they keep out.
"""

import argparse
from collections import defaultdict
from pathlib import Path
import re
import sys

ROOT = Path(__file__).resolve().parents[1]
ID = re.compile(r'def test_((?:[A-Z]\d+_)+)')
ROW = re.compile(r'^\| ([A-Z]\d+) \| (.+?) \|.*\|$', flags=re.MULTILINE)


def tests_by_id(folder: Path) -> dict[str, list[Path]]:
    """Return the test files of each id, from the names of their tests."""
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(folder.glob('src/*/test/test_*.py')):
        ids = {part for name in ID.findall(path.read_text()) for part in name.strip('_').split('_')}
        for part in ids:
            found[part].append(path)
    return dict(found)


def render(folder: Path) -> str:
    """Return the whole page, with the column of tests as it is now."""
    tests = tests_by_id(folder)

    def row(match: re.Match[str]) -> str:
        name, defect = match.groups()
        links = [f'[{p.stem.removeprefix("test_")}](../{p.relative_to(folder)})' for p in tests.get(name, [])]
        return f'| {name} | {defect} | {", ".join(links)} |'

    return ROW.sub(row, (folder / 'docs' / 'pitfalls.md').read_text())


def main() -> int:
    """Write the page; say which ids have no row, and which rows have no test."""
    argparse.ArgumentParser(description=__doc__).parse_args()
    (ROOT / 'docs' / 'pitfalls.md').write_text(render(ROOT))
    rows = {name for name, _ in ROW.findall(render(ROOT))}
    tests = set(tests_by_id(ROOT))
    sys.stdout.write(
        f'ids without a row: {sorted(tests - rows)}; rows without a test: {sorted(rows - tests)}\n'
    )
    return 0 if rows == tests else 1


if __name__ == '__main__':
    sys.exit(main())

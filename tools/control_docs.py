# SPDX-License-Identifier: Apache-2.0
"""Write the tables of docs/teleop.md and docs/console.md that say what to press, from the one map of keys and pads."""

from pathlib import Path
import re
import sys

from so101_session.teleop.devices.controls import tables

DOCS = Path(__file__).resolve().parents[1] / 'docs'
PAGES = (DOCS / 'teleop.md', DOCS / 'console.md')
END = '<!-- end -->'


def render(page: str) -> str:
    """Return a page with each table that it has marks for."""
    for name, table in tables().items():
        mark = f'<!-- controls: {name} -->'
        page = re.sub(f'{mark}.*?{END}', f'{mark}\n\n{table}\n{END}', page, flags=re.DOTALL)
    return page


def main() -> int:
    """Write the pages."""
    for path in PAGES:
        path.write_text(render(path.read_text()))
    return 0


if __name__ == '__main__':
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
"""Makes the pictures of the console in the documentation: `python tools/screenshots.py docs/images`.

The whole graph runs on the twin: a policy drives, a scripted operator helps it, and the learner learns.
"""

import argparse
from collections.abc import Iterator, Sequence
import os
from pathlib import Path
import sys
import tempfile
import time
from typing import Any

from rich.console import Console

from so101_interfaces_py.graph import isolate
from so101_testing.console_rig import browser, ConsoleRig, PATIENT, RigError

DESKTOP, PHONE = {'width': 1280, 'height': 720}, {'width': 390, 'height': 844}
SHOTS = (('light', DESKTOP, 'light'), ('dark', DESKTOP, 'dark'), ('phone', PHONE, 'light'))
"""Name, viewport and colours."""
EPISODES = 14
PATIENCE_S = 300.0
SETTLE_S = 20.0
NICENESS = 15
OPEN_MS = 90_000


def main(argv: Sequence[str]) -> int:
    """Make them."""
    parser = argparse.ArgumentParser(prog='python tools/screenshots.py', description=__doc__)
    parser.add_argument('folder', type=Path, help='where the pictures go')
    parser.add_argument(
        '--episodes', type=int, default=EPISODES, help='before the pictures (default: %(default)s)'
    )
    arguments = parser.parse_args(argv)
    isolate()
    out = Console(stderr=True)
    try:
        with tempfile.TemporaryDirectory(prefix='so101-shots-') as run, out.status('starting') as status:
            for path in _take(arguments.folder, Path(run), arguments.episodes, status.update):
                out.print(f'{path}: {path.stat().st_size // 1000} kB')
    except (RigError, TimeoutError) as error:
        out.print(str(error))
        return 1
    return 0


def _take(folder: Path, run: Path, episodes: int, say: Any) -> list[Path]:
    folder.mkdir(parents=True, exist_ok=True)
    with ConsoleRig('arm', 'kinematics', parameters=PATIENT) as rig:
        rig.add('session', reward_source='sim', joint_timeout_s=5.0, camera_timeout_s=5.0, no_answer_s=30.0)
        rig.add('policy', policy='default', mode='explore')
        rig.add('operator', mode='intervene')
        address = rig.console()
        # What draws and what trains gives way to the arm, as on a machine with cores to spare.
        os.nice(NICENESS)
        rig.add('learner', directory=run, policy='default')
        with browser() as view:
            return list(_shots(view, address, folder, episodes, say))


def _shots(view: Any, address: str, folder: Path, episodes: int, say: Any) -> Iterator[Path]:
    pages = {name: _open(view, address, size, scheme) for name, size, scheme in SHOTS[:1]}
    first = pages['light']
    deadline = time.monotonic() + PATIENCE_S
    while (ended := first.locator('#episodes tr').count()) < episodes:
        say(f'{ended} of {episodes} episodes have ended')
        if time.monotonic() > deadline:
            raise TimeoutError(f'expected {episodes} episodes within {PATIENCE_S:.0f} s, got {ended}')
        first.wait_for_timeout(500)
    for name, size, scheme in SHOTS:
        say(f'{name}: waiting for a policy that drives')
        page = pages.get(name) or _open(view, address, size, scheme)
        _wait_for_a_good_moment(page)
        path = folder / f'console-{name}.png'
        page.screenshot(path=path)
        yield path
        page.close()


def _open(view: Any, address: str, size: dict[str, int], scheme: str) -> Any:
    page = view.new_page(viewport=size, color_scheme=scheme)
    page.goto(address)
    page.wait_for_selector('#servos tr', timeout=OPEN_MS)
    page.wait_for_selector('.frame:not(.stale)', timeout=OPEN_MS)
    return page


def _wait_for_a_good_moment(page: Any) -> None:
    """Wait for a policy that drives a healthy arm; on a busy machine, for one that drives."""
    began = time.monotonic()
    while (waited := time.monotonic() - began) < 2.0 * SETTLE_S:
        page.wait_for_timeout(150)
        driving = page.locator('header[data-drives="policy"]').count()
        well = waited > SETTLE_S or not page.locator('.mark.fail').count()
        if driving and well:
            return


if __name__ == '__main__':
    sys.exit(main(sys.argv[1:]))

# SPDX-License-Identifier: Apache-2.0
"""Damages files in many ways and lets the commands that read them try: `python tools/fuzz.py bag --mutants 2000`.

Every mutant is read by a process of its own, which has ten seconds of a core and 512 MB more than it begins with. Good
is what ends with a result or with a sentence; bad are tracebacks, crashes, hangs, memory, anything left behind, and
damage that nobody tells although checksums show it. The same seed makes the same mutants. `--keep FOLDER` keeps the bad
ones, `--write docs/fuzz.md` puts the counts into its table.
"""

import argparse
from collections import Counter
from collections.abc import Sequence
import contextlib
import io
import logging
import os
from pathlib import Path
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback

os.environ.setdefault('OMP_NUM_THREADS', '1')  # before torch: what is forked takes no threads along

from fuzz_surfaces import RefusedError, Surface, surfaces

SECONDS = 10  # of a core
PATIENCE_S = 60.0  # for one that takes none of it
MEMORY_MB = 512.0
MOST_DATA = 6 * 2**30  # so that what asks for everything does not end its neighbours
GOOD = ('result', 'sentence')
NUMBERS = (0, 1, *(2**n - 1 for n in (7, 8, 15, 16, 31, 32, 63, 64)), 2**7)
STRANGERS = (b'[' * 5000, b'{"a":' * 5000, b'9' * 5000, b'\xff\xfe', b'\0', b'&a [*a]', b'nan')
VALUES = (
    *('null', '[]', '{}', '""', '-1', '0', '1e999', 'NaN', 'true', '"../../x"', '[[1]]', '{"a": 1}', '0.5'),
    *('1' + '0' * 400, '"' + 'x' * 70_000 + '"', '"\\u0000"', '18446744073709551616', '"\\ud800"'),
)
VALUE = re.compile(r'"[^"\n]*"|-?\d+(?:\.\d+)?(?:e-?\d+)?|true|false|null')


def mutate(content: bytes, rng: random.Random) -> bytes:
    """Return the content with one to four wounds: bits, lengths, cuts, repeats, strangers; in a text also values."""
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        content = _other_value(content, rng) if rng.random() < 0.5 else _wound(content, rng)
    return content


def _other_value(content: bytes, rng: random.Random) -> bytes:
    """Return a text with another value at one place; anything else gets a wound."""
    try:
        text = content.decode()
    except UnicodeDecodeError:
        return _wound(content, rng)
    found = list(VALUE.finditer(text))
    if not found or '\0' in text:
        return _wound(content, rng)
    at = rng.choice(found)
    return (text[: at.start()] + rng.choice(VALUES) + text[at.end() :]).encode(errors='surrogatepass')


def _wound(content: bytes, rng: random.Random) -> bytes:
    data = bytearray(content)
    at = rng.randrange(len(data) + 1)
    end = min(len(data), at + rng.choice((1, 2, 4, 8, 64, 4096)))
    kind = rng.randrange(8)
    if kind == 0 and at < len(data):
        data[at] ^= 1 << rng.randrange(8)
    elif kind in (1, 2):  # a length, as most formats have them
        size = rng.choice((1, 2, 4, 8))
        number = rng.choice(NUMBERS) & ((1 << 8 * size) - 1)
        data[at : at + size] = number.to_bytes(size, rng.choice(('little', 'big')))
    elif kind == 3:
        del data[at:]
    elif kind == 4:
        del data[at:end]
    elif kind == 5:
        data[at:at] = data[at:end] * rng.choice((1, 2, 50))
    elif kind == 6:
        data[at:end] = rng.randbytes(end - at)
    else:
        data[at:at] = rng.choice(STRANGERS)
    return bytes(data)


def damage(path: Path, rng: random.Random) -> None:
    """Damage a file; one in thirty becomes no plain file at all, or is gone."""
    if rng.random() > 1 / 30:
        path.write_bytes(mutate(path.read_bytes(), rng))
        return
    kind = rng.randrange(5)
    path.unlink()
    if kind == 0:
        os.mkfifo(path)
    elif kind == 1:
        path.mkdir()
    elif kind == 2:
        path.symlink_to('/dev/zero')
    elif kind == 3:
        path.symlink_to(path.name)


def judge(folder: Path, surface: Surface, truth: str | None = None) -> str:
    """Return 'result', 'sentence', or what is bad, after a process of its own has read the folder.

    Args:
        folder: what to read.
        surface: how.
        truth: what is in a good one; None where another content is no silent damage.
    """
    before = {path.relative_to(folder) for path in folder.rglob('*')}
    with tempfile.TemporaryDirectory(prefix='fuzz-') as scratch:
        said, inside = Path(scratch, 'said'), Path(scratch, 'tmp')
        inside.mkdir()
        pid = os.fork()
        if not pid:
            _read(folder, surface, truth, said, inside)
        verdict = _wait(pid, said)
        left = [path.name for path in inside.iterdir()]
    left += [
        str(path.relative_to(folder)) for path in folder.rglob('*') if path.relative_to(folder) not in before
    ]
    return f'left behind: {left[:3]}' if left and verdict in GOOD else verdict


def _read(folder: Path, surface: Surface, truth: str | None, said: Path, inside: Path) -> None:
    """Be the process that reads; never return."""
    resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS))
    most = _data_bytes() + MOST_DATA
    resource.setrlimit(resource.RLIMIT_DATA, (most, most))
    quiet = os.open(os.devnull, os.O_WRONLY)
    os.dup2(quiet, 1)
    os.dup2(quiet, 2)
    os.environ['TMPDIR'] = tempfile.tempdir = str(inside)
    warned = _Warned()
    logging.getLogger().addHandler(warned)
    at_first = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        found = surface.attempt(folder)
        silent = truth is not None and found != truth and not warned.count
        verdict = 'silent: another content, and nobody said so' if silent else 'result'
    except surface.refusals:
        verdict = 'sentence'
    except SystemExit as end:
        verdict = 'sentence' if end.code else 'result'
    except BaseException as error:  # whatever it is, it is what we look for
        where = traceback.extract_tb(error.__traceback__)[-1]
        verdict = f'{type(error).__name__} at {Path(where.filename).name}:{where.lineno}: {str(error)[:100]}'
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - at_first) / 1024
    if grown > MEMORY_MB and verdict in GOOD:
        verdict = f'{grown:.0f} MB'
    said.write_text(verdict, errors='replace')
    os._exit(0)


def _data_bytes() -> int:
    """Return what this process has already: whoever forks it may be large."""
    status = Path('/proc/self/status').read_text()
    return int(status.partition('VmData:')[2].split()[0]) * 1024


class _Warned(logging.Handler):
    """Counts what is told of damage."""

    count = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Count it."""
        self.count += record.levelno >= logging.WARNING


def _wait(pid: int, said: Path) -> str:
    """Return the verdict of the process that reads, or how it ended."""
    spent, since = -1.0, time.monotonic()
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            break
        now, used = time.monotonic(), _cpu_s(pid)
        if used > spent:
            spent, since = used, now
        if now > since + PATIENCE_S:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
            return f'waits for something, {PATIENCE_S:.0f} s already'
        time.sleep(0.002)
    if os.WIFSIGNALED(status):
        return f'ended by {signal.Signals(os.WTERMSIG(status)).name}'
    return said.read_text() if said.exists() else f'ended with {os.waitstatus_to_exitcode(status)}'


def _cpu_s(pid: int) -> float:
    fields = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def fuzz(name: str, mutants: int, seed: int, keep: Path | None = None) -> Counter[str]:
    """Try mutants of one surface; return how often each verdict came."""
    surface = surfaces()[name]
    rng = random.Random(f'{name} {seed}')
    verdicts: Counter[str] = Counter()
    with tempfile.TemporaryDirectory(prefix='fuzz-base-') as scratch:
        base, folder = Path(scratch, 'base'), Path(scratch, 'mutant')
        base.mkdir()
        with contextlib.redirect_stdout(io.StringIO()):
            surface.make(base)
        files = sorted(path for path in base.rglob(surface.target) if path.is_file())
        shutil.copytree(base, folder)
        if surface.seal:
            surface.seal(folder)
        tempfile.tempdir = scratch
        with contextlib.redirect_stdout(io.StringIO()):
            truth = _understood(surface, folder)  # this also loads what the mutants' processes share
        shutil.rmtree(folder)
        for number in range(mutants):
            shutil.copytree(base, folder)
            damage(folder / rng.choice(files).relative_to(base), rng)
            if surface.seal:
                surface.seal(folder)
            verdict = judge(folder, surface, None if surface.seal else truth)
            verdicts[verdict] += 1
            if keep is not None and verdict not in GOOD:
                keep.mkdir(parents=True, exist_ok=True)  # `cp` copies pipes, too
                subprocess.run(['cp', '-a', '-T', folder, keep / f'{name}-{number}'], check=True)
            shutil.rmtree(folder)
    tempfile.tempdir = None
    return verdicts


def _understood(surface: Surface, folder: Path) -> str | None:
    """Return what is in a good one; a stranger's bag is good too, although nothing can be learned from it."""
    try:
        return surface.attempt(folder)
    except RefusedError:
        return None


def put_row(page: Path, name: str, row: str) -> None:
    """Put a row into the table of a page, in place of the one before."""
    text = page.read_text()
    known = re.search(rf'^\| {re.escape(name)} \|.*$', text, re.MULTILINE)
    if known is not None:
        page.write_text(text[: known.start()] + row + text[known.end() :])
    else:
        last = list(re.finditer(r'^\|.*\n', text, re.MULTILINE))[-1]
        page.write_text(text[: last.end()] + row + '\n' + text[last.end() :])


def main(argv: Sequence[str] | None = None) -> int:
    """Fuzz; exit 1 where something bad was found."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        'surfaces', nargs='*', choices=[*surfaces(), []], help='what to damage (default: everything)'
    )
    parser.add_argument('--mutants', type=int, default=200, help='of each (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='(default: %(default)s)')
    parser.add_argument('--keep', type=Path, help='folder for the mutants that were bad')
    parser.add_argument('--write', type=Path, metavar='PAGE', help='page whose table gets the counts')
    options = parser.parse_args(argv)
    worst = 0
    print('| surface | mutants | results | sentences | bad |\n|---|---|---|---|---|')
    for name in options.surfaces or surfaces():
        verdicts = fuzz(name, options.mutants, options.seed, options.keep)
        bad = options.mutants - sum(verdicts[verdict] for verdict in GOOD)
        worst |= bad > 0
        row = f'| {name} | {options.mutants} | {verdicts["result"]} | {verdicts["sentence"]} | {bad} |'
        print(row, flush=True)
        if options.write:
            put_row(options.write, name, row)
        for verdict, count in verdicts.most_common():
            if verdict not in GOOD:
                print(f'{count:6d} x {verdict}', file=sys.stderr)
    return worst


if __name__ == '__main__':
    sys.exit(main())

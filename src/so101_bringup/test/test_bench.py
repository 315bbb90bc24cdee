# SPDX-License-Identifier: Apache-2.0
"""`./so101 bench`: which benches there are, how they hand figures over, and what `all` makes of good and bad ones."""

import importlib
import json
import math
import os
from pathlib import Path
import subprocess
import sys
import time

import numpy as np
import pytest

ROOT = Path(__file__).parents[3]
BENCHMARKS = ROOT / 'benchmarks'
GOOD = '''"""How long nothing takes.

More words.
"""
import os, sys
sys.path.insert(0, {folder!r})
from report import Parser, Report, Row
parser = Parser(__doc__)
parser.number('--n', 200, 'values', quick=3)
options = parser.parse_args()
rows = [Row.of('nothing', 'ms', range(options.n)).beside('something', 50.0)]
details = {{}}
sys.exit(Report('good', rows, {{'something': '1.2'}}, {passed}, details).finish(options))
'''


@pytest.fixture(scope='module', autouse=True)
def benchmarks():
    """Let the tests import the modules of the benchmarks."""
    sys.path.insert(0, str(BENCHMARKS))
    yield
    sys.path.remove(str(BENCHMARKS))


@pytest.fixture(scope='module')
def report(benchmarks):
    return importlib.import_module('report')


@pytest.fixture(scope='module')
def suite(benchmarks):
    return importlib.import_module('suite')


def program(folder, name, text):
    path = folder / f'bench_{name}.py'
    path.write_text(text)
    return path


def good(folder, passed=True):
    return program(folder, 'good', GOOD.format(folder=str(BENCHMARKS), passed=passed))


def test_all_runs_every_bench_that_there_is(suite):
    there_are = {path.stem.removeprefix('bench_') for path in BENCHMARKS.glob('bench_*.py')}
    assert set(suite.LIMITS_S) == there_are


def test_every_bench_takes_the_same_options_and_says_what_it_measures(suite):
    for name in suite.LIMITS_S:
        text = (BENCHMARKS / f'bench_{name}.py').read_text()
        assert 'Parser(__doc__' in text or 'parse(__doc__' in text, name
        assert 'finish(' in text, name
        assert 'argparse.ArgumentParser' not in text, name
        assert suite.measures(BENCHMARKS / f'bench_{name}.py'), name


def test_the_command_lists_the_benches(suite):
    words = [sys.executable, '-m', 'so101_bringup.cli', 'bench', 'all', '--list']
    done = subprocess.run(
        words, capture_output=True, text=True, check=True, env={**os.environ, 'SO101_ROOT': str(ROOT)}
    )
    assert [line.split()[0] for line in done.stdout.splitlines()] == list(suite.LIMITS_S)


@pytest.mark.parametrize('n', [1, 2, 19, 20, 99, 100, 1001])
def test_quantiles_are_those_of_numpy_and_only_given_where_there_are_enough_values(report, n):
    values = np.random.default_rng(n).normal(size=n)
    row = report.Row.of('x', 'ms', values, 1e3)
    for value, share, least in ((row.value, 0.5, 1), (row.p95, 0.95, 20), (row.p99, 0.99, 100)):
        if n < least:
            assert value is None
        else:
            assert value == pytest.approx(1e3 * np.quantile(values, share), rel=1e-5)
    assert (' to ' in row.note) == (1 < n < 20)
    assert row.n == n


def test_the_ratio_is_above_one_where_ours_is_better(report):
    row = report.Row('x', 'any', 1, 2.0)
    assert row.beside('peer', 6.0).ratio == pytest.approx(3.0)
    assert row.beside('peer', 6.0, more_is_better=True).ratio == pytest.approx(1.0 / 3.0, rel=1e-4)
    assert row.beside('peer', None).ratio is None
    assert report.Row('x', 'any', 1, 0.0).beside('peer', 6.0).ratio is None


def test_a_report_comes_back_from_json_as_it_was(report):
    rows = [
        report.Row.of('a', 'ms', [0.1] * 150).beside('p', 3.0),
        report.Row('b', 'mm', 0, math.nan, note='n'),
    ]
    made = report.Report('name', rows, {'p': '1.0'}, passed=False, details={'k': [1, None]})
    text = json.dumps(made.as_dict(), allow_nan=False)
    assert report.Report.from_dict(json.loads(text)) == made
    top = json.loads(text)
    assert [top[key] for key in ('name', 'unit', 'peer', 'peer_value', 'n')] == ['name', 'ms', 'p', 3.0, 150]
    assert top['value'] == pytest.approx(0.1)
    assert top['ratio'] == pytest.approx(30.0)


def test_details_that_json_cannot_hold_become_nothing(report):
    made = report.Report(
        'name', [report.Row('a', 'ms', 1, 1.0)], details={'k': [math.inf, {'l': math.nan}], 'm': 2}
    )
    assert json.loads(json.dumps(made.as_dict(), allow_nan=False))['details'] == {
        'k': [None, {'l': None}],
        'm': 2,
    }


def test_no_values_are_a_row_without_figures(report):
    row = report.Row.of('x', 'ms', [])
    assert (row.n, row.value) == (0, None)
    assert 'no values' in row.note


def test_what_is_said_on_the_command_line_goes_before_quick(report):
    parser = report.Parser('doc')
    parser.number('--n', 100, 'targets', quick=5)
    assert parser.parse_args([]).n == 100
    assert parser.parse_args(['--quick', '--n', '7']).n == 7
    assert parser.parse_args(['--quick']).n == 5


def test_a_bench_is_written_down_with_all_that_the_page_shows(suite, tmp_path):
    entry = suite.run(good(tmp_path), 60.0, tmp_path / 'out')
    assert (entry.failure, entry.measures, entry.command) == (
        '',
        'How long nothing takes.',
        './so101 bench good',
    )
    assert entry.report.rows[0].value == pytest.approx(99.5)
    page = suite.render([entry])
    for word in (
        'How long nothing takes.',
        './so101 bench good',
        'something 1.2',
        '99.5',
        '189.1',
        '197',
        entry.machine,
    ):
        assert word in page
    assert entry.date in page
    assert f'{len(os.sched_getaffinity(0))} cores' in entry.machine


def test_quick_reaches_the_bench_and_its_command(suite, tmp_path):
    entry = suite.run(good(tmp_path), 60.0, tmp_path / 'out', quick=True)
    assert entry.report.rows[0].n == 3
    assert entry.command == './so101 bench good --quick'


def test_the_benches_with_a_page_of_their_own_know_how_to_write_it(suite, tmp_path):
    for name in suite.PAGES:
        words = [sys.executable, str(BENCHMARKS / f'bench_{name}.py'), '--help']
        assert '--markdown' in subprocess.run(words, capture_output=True, text=True, check=True).stdout
    path = program(tmp_path, 'page', 'import sys; open(sys.argv[-1], "w").write(sys.argv[-2])')
    suite.run(path, 60.0, tmp_path / 'out', page=tmp_path / 'page.md')
    assert (tmp_path / 'page.md').read_text() == '--markdown'


def test_a_bench_that_exceeds_a_bound_keeps_its_figures_and_is_marked(suite, tmp_path):
    entry = suite.run(good(tmp_path, passed=False), 60.0, tmp_path / 'out')
    assert entry.report.rows[0].n == 200
    assert entry.failure == 'a bound was exceeded'
    assert '**failed**' in suite.render([entry])


def test_a_failing_bench_is_written_down_with_its_last_line(suite, tmp_path):
    path = program(
        tmp_path, 'bad', '"""Bad."""\nprint("first")\nraise SystemExit("no wheel | for this Python")\n'
    )
    entry = suite.run(path, 60.0, tmp_path / 'out')
    assert entry.report is None
    assert entry.failure == 'exit code 1; its last line: no wheel | for this Python'
    assert '**Failed**: exit code 1; its last line: no wheel / for this Python' in suite.render([entry])


def test_a_bench_that_writes_something_else_is_written_down_as_failed(suite, tmp_path):
    text = '"""Other."""\nimport sys\nopen(sys.argv[2], "w").write("{}")\n'
    entry = suite.run(program(tmp_path, 'other', text), 60.0, tmp_path / 'out')
    assert entry.report is None
    assert entry.failure.startswith('expected a report in other.json')


def test_a_hanging_bench_is_ended_with_its_programs_and_written_down(suite, tmp_path, monkeypatch):
    monkeypatch.setattr(suite, 'GRACE_S', 0.5)
    child = 'import time; time.sleep(600)'
    text = f'''"""Hangs."""
import signal, subprocess, sys, time
signal.signal(signal.SIGINT, signal.SIG_IGN)
child = subprocess.Popen([sys.executable, "-c", {child!r}])
print(child.pid, flush=True)
time.sleep(600)
'''
    entry = suite.run(program(tmp_path, 'stuck', text), 6.0, tmp_path / 'out')
    reason, _, pid = entry.failure.rpartition(' ')
    assert reason == 'not done within 6 s; its last line:'
    assert ends(int(pid))


def ends(pid, deadline_s=200.0):
    """Whether a process ends, or is a zombie that nobody has waited for."""
    deadline = time.monotonic() + deadline_s
    while time.monotonic() < deadline:
        try:
            state = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()[0]
        except FileNotFoundError:
            return True
        if state == 'Z':
            return True
        time.sleep(0.05)
    return False


def test_one_bad_bench_does_not_stop_the_rest_and_all_come_back_from_the_file(
    suite, tmp_path, monkeypatch, capsys
):
    program(tmp_path, 'bad', '"""Bad."""\nraise SystemExit("broken")\n')
    good(tmp_path)
    monkeypatch.setattr(suite, 'LIMITS_S', {'bad': 60.0, 'good': 60.0})
    monkeypatch.setattr(suite, '__file__', str(tmp_path / 'suite.py'))
    monkeypatch.setattr(suite, 'ROOT', tmp_path)
    monkeypatch.setattr(sys, 'argv', ['all', '--out', str(tmp_path / 'docs')])
    assert suite.main() == 1
    said = capsys.readouterr().out.splitlines()
    assert [line.split()[1] for line in said[:2]] == ['bad', 'good']
    assert 'broken' in said[0]
    entries = suite.load(tmp_path / 'docs' / 'benchmarks.json')
    assert list(entries) == ['bad', 'good']
    assert (tmp_path / 'docs' / 'benchmarks.md').read_text() == suite.render(list(entries.values()))

    # Only one of them again: the other stays as it was.
    program(tmp_path, 'bad', (tmp_path / 'bench_good.py').read_text())
    monkeypatch.setattr(sys, 'argv', ['all', '--only', 'bad', '--out', str(tmp_path / 'docs')])
    assert suite.main() == 0
    again = suite.load(tmp_path / 'docs' / 'benchmarks.json')
    assert again['good'] == entries['good']
    assert again['bad'].failure == ''


def test_quick_figures_do_not_reach_the_documentation(suite, tmp_path, monkeypatch):
    good(tmp_path)
    monkeypatch.setattr(suite, 'LIMITS_S', {'good': 60.0})
    monkeypatch.setattr(suite, '__file__', str(tmp_path / 'suite.py'))
    monkeypatch.setattr(suite, 'ROOT', tmp_path)
    monkeypatch.setattr(sys, 'argv', ['all', '--quick'])
    assert suite.main() == 0
    assert not (tmp_path / 'docs').exists()
    assert (tmp_path / '.bench' / 'quick' / 'benchmarks.md').exists()


def test_a_program_that_is_asked_answers_and_one_that_ends_is_an_error(benchmarks, tmp_path):
    processes = importlib.import_module('processes')
    path = tmp_path / 'side.py'
    path.write_text(
        'import json, sys\nprint(json.dumps({"version": "1"}), flush=True)\n'
        'for line in sys.stdin:\n    n = json.loads(line)["n"]\n    if n < 0: sys.exit(3)\n'
        '    print(json.dumps({"twice": 2 * n}), flush=True)\n'
    )
    with processes.Worker('side', [sys.executable, path]) as worker:
        assert worker.hello == {'version': '1'}
        assert [worker.ask({'n': n})['twice'] for n in (1, 2)] == [2, 4]
        with pytest.raises(SystemExit, match='side ended with code 3'):
            worker.ask({'n': -1})


def test_peers_are_installed_once_and_again_if_others_are_wanted(benchmarks, tmp_path):
    peers = importlib.import_module('peers')
    made = []

    def make():
        tmp_path.mkdir(exist_ok=True)
        made.append(1)

    for wanted in (['python', 'a==1'], ['python', 'a==1'], ['python', 'a==2']):
        peers._once(tmp_path, wanted, make)
    assert len(made) == 2

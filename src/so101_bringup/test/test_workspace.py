# SPDX-License-Identifier: Apache-2.0
"""The set-up, as far as it can be looked at from inside what it made."""

import os
from pathlib import Path
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree

import pytest

from so101_bringup import workspace
from so101_bringup import workspace as environment
from so101_bringup import workspace as prerequisites
from so101_bringup.commands import CommandError, reason, run_logged

ROOT = Path(__file__).parents[3]


def test_every_requirement_is_locked():
    for path in (ROOT / 'requirements').glob('*.txt'):
        for line in path.read_text().splitlines():
            assert not line or line.startswith('#') or re.match(r'[a-z0-9.-]+==[^ ]+( +# .+)?$', line), (
                f'{path.name}: {line}'
            )


def test_no_requirement_is_locked_twice():
    names = [
        name
        for path in (ROOT / 'requirements').glob('*.txt')
        if path.stem != 'native'
        for name in workspace.requirement_names(path.read_text())
    ]
    assert len(names) == len(set(names))


def test_with_the_numpy_of_apt_what_needs_a_newer_one_is_an_older_one():
    native = (ROOT / 'requirements' / 'native.txt').read_text()
    locked = workspace.Workspace(ROOT, native=True)._requirements()
    names = workspace.requirement_names(locked)
    assert len(names) == len(set(names))
    assert set(workspace.requirement_lines(native)) <= set(workspace.requirement_lines(locked))
    beside = workspace.requirement_lines(workspace.Workspace(ROOT, has_ros=True)._requirements())
    usual = workspace.requirement_lines(workspace.Workspace(ROOT)._requirements())
    (arrow,) = [line for line in beside if line.startswith('pyarrow')]
    assert arrow in workspace.requirement_lines(native)
    assert arrow not in usual


def test_beside_a_sourced_ros_its_own_packages_are_left_alone():
    names = workspace.requirement_names(workspace.Workspace(ROOT, has_ros=True)._requirements())
    assert 'mujoco' in names
    assert not [name for name in names if name.startswith('ros-') or name in workspace.FROM_ROS]


def test_the_set_up_needs_the_standard_library_alone():
    program = 'import sys; sys.path.insert(0, sys.argv[1]); import so101_bringup.workspace; import so101_bringup.stack'
    folder = str(ROOT / 'src' / 'so101_bringup')
    done = subprocess.run(
        [sys.executable, '-I', '-S', '-c', program, folder], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def test_a_step_is_skipped_until_its_inputs_change_and_done_again_after_an_interrupt(tmp_path):
    made = workspace.Workspace(tmp_path)
    calls = []
    made._step('a', 'a', ['x'], lambda: calls.append('x'))
    made._step('a', 'a', ['x'], lambda: calls.append('again'))

    def interrupted():
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        made._step('a', 'a', ['y'], interrupted)
    made._step('a', 'a', ['y'], lambda: calls.append('y'))
    assert calls == ['x', 'y']


def test_a_failing_command_is_shown_with_the_end_of_its_output(tmp_path):
    program = 'import sys\nfor i in range(100): print("line", i)\nsys.exit(7)'
    with pytest.raises(CommandError) as error:
        run_logged([sys.executable, '-c', program], tmp_path / 'log', cwd=tmp_path, title='t')
    assert 'exit code 7' in str(error.value)
    assert 'line 99' in str(error.value)
    assert 'line 10\n' not in str(error.value)
    assert 'line 10\n' in (tmp_path / 'log').read_text()


def test_the_cmake_files_of_the_wheels_name_this_python(tmp_path):
    (tmp_path / 'lib' / 'python3.11' / 'site-packages').mkdir(parents=True)
    folder = tmp_path / 'share' / 'x' / 'cmake'
    folder.mkdir(parents=True)
    before = 'a;/opt/python/cp311-cp311/include/python3.11;/opt/python/cp312-cp312/lib/python3.12/site-packages/numpy'
    (folder / 'x.cmake').write_text(before)
    environment.fix_cmake_paths(tmp_path)
    after = (folder / 'x.cmake').read_text()
    assert '/opt/python' not in after
    assert str(tmp_path / 'lib/python3.11/site-packages/numpy') in after


@pytest.mark.parametrize(('has', 'had'), [('_core', 'core'), ('core', '_core')])
def test_the_cmake_files_of_the_wheels_find_the_headers_of_numpy_2_and_of_1(tmp_path, has, had):
    headers = tmp_path / 'lib' / 'python3.11' / 'site-packages' / 'numpy' / has / 'include'
    headers.mkdir(parents=True)
    export = tmp_path / 'share' / 'x' / 'cmake' / 'xExport.cmake'
    export.parent.mkdir(parents=True)
    export.write_text(f'set(INCLUDES "{headers.parents[1] / had / "include"}")')
    environment.fix_cmake_paths(tmp_path)
    assert export.read_text() == f'set(INCLUDES "{headers}")'


def test_nothing_is_missing_where_the_tests_run():
    assert prerequisites.missing_packages() == []


def test_another_kind_of_machine_is_told_what_to_do(monkeypatch):
    monkeypatch.setattr('platform.machine', lambda: 'aarch64')
    with pytest.raises(prerequisites.PrerequisiteError, match=r'aarch64.*install ROS 2 Jazzy'):
        prerequisites.check_prerequisites(has_ros=False)


def test_all_packages_have_one_version_and_one_licence():
    found = set()
    for path in ROOT.glob('src/*/package.xml'):
        package = ElementTree.parse(path).getroot()
        found.add((package.findtext('version'), package.findtext('license')))
        setup = path.parent / 'setup.py'
        if setup.exists():
            assert f"version='{package.findtext('version')}'" in setup.read_text()
    assert len(found) == 1


def test_one_list_says_what_makes_the_workspace_out_of_date(tmp_path):
    package = tmp_path / 'src' / 'some'
    for name in ('launch', 'config', 'compat', 'requirements', 'src/some/test'):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / 'so101').write_bytes((ROOT / 'so101').read_bytes())
    (tmp_path / 'requirements' / 'run.txt').write_text('x==1\n')
    (package / 'setup.py').write_text('')
    (package / 'node.py').write_text('')
    made = workspace.Workspace(tmp_path)
    before = made._build_inputs()
    (package / 'node.py').write_text('changed = True')  # the build links to it
    (package / 'test' / 'test_node.py').write_text('')
    assert made._build_inputs() == before
    (package / 'setup.py').write_text('changed = True')
    changed = made._build_inputs()
    (package / 'new.py').write_text('')
    assert len({before, changed, made._build_inputs()}) == 3


@pytest.mark.parametrize('name', ['my robot', 'a:b', "it's", 'a;b', '$HOME', 'a(1)', 'tab\there', 'a#b'])
def test_a_path_that_would_not_work_is_refused_before_anything_is_made(tmp_path, name):
    folder = tmp_path / name
    folder.mkdir()
    shutil.copy(ROOT / 'so101', folder / 'so101')
    done = subprocess.run(['sh', str(folder / 'so101'), 'up'], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert 'expected a checkout in a folder whose path has no spaces' in done.stderr
    assert [path.name for path in folder.iterdir()] == ['so101']


@pytest.mark.parametrize(
    ('output', 'said'),
    [
        ("NewConnectionError('Failed to establish')\nERROR: No matching distribution found for rich==1", 'mirror'),
        ('ERROR: No matching distribution found for mujoco==3.9.0', 'no mujoco==3.9.0 for Python 3.'),
        ("ProxyError('Cannot connect to proxy.', OSError('Tunnel connection failed: 403'))", 'HTTPS_PROXY'),
        ('SSLError(SSLCertVerificationError(1, CERTIFICATE_VERIFY_FAILED))', 'PIP_CERT'),
        ("ERROR: Could not install packages: [Errno 28] No space left on device", 'disk is full'),
        ('CMake Error: CMAKE_CXX_COMPILER not set', 'apt install g++'),
        ("error: [Errno 13] Permission denied: 'build/x'", 'chown'),
        ('Segmentation fault', ''),
    ],
)  # fmt: skip
def test_why_a_step_failed_is_one_sentence(output, said):
    assert said in reason(output)
    assert bool(reason(output)) == bool(said)


def test_the_real_pip_without_an_index_gets_the_sentence(tmp_path):
    command = [sys.executable, '-m', 'pip', 'install', '--retries', '1', '--target', str(tmp_path / 'x')]
    command += ['--index-url', 'http://127.0.0.1:9/simple', 'no-such-package-of-so101==1']
    with pytest.raises(CommandError, match='cannot be reached'):
        run_logged(command, tmp_path / 'log', cwd=tmp_path, title='')


def test_a_checkout_that_cannot_be_written_is_one_sentence(tmp_path, capsys):
    (tmp_path / 'log').write_text('a file')
    assert environment.main([str(tmp_path)]) == 1
    assert 'expected to write in' in capsys.readouterr().err


SLOW_STEP = """
import sys
from pathlib import Path
from so101_bringup.commands import run_logged
words = 'echo Collecting a; read go; echo Collecting b; echo Installing collected packages: a, b; read go'
run_logged(['sh', '-c', words], Path(sys.argv[1]), cwd=Path('.'), title='a step ...', count='^Collecting', total=2)
"""


def test_a_step_that_says_nothing_still_moves_on_the_terminal(tmp_path):
    master, slave = os.openpty()
    command = [sys.executable, '-c', SLOW_STEP, tmp_path / 'log']
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stderr=slave)
    os.close(slave)
    shown = b''

    def until(pattern):
        nonlocal shown
        while not re.search(pattern, shown):
            shown += os.read(master, 4096)

    until(rb'1 of 2, [0-9]+ s')
    process.stdin.write(b'go\n')
    process.stdin.flush()
    until(rb'installing, ([0-9]+) s.*installing, (?!\1 )[0-9]+ s')  # the time goes on
    process.stdin.write(b'go\n')
    process.stdin.close()
    assert process.wait(300) == 0
    os.close(master)

# SPDX-License-Identifier: Apache-2.0
"""The house stays one in which a newcomer finds the room: bounds on its size, and packages with a front door."""

import ast
from importlib import import_module
from importlib.util import find_spec

import pytest
import structure

MODULES = structure.find_modules()
PACKAGES = [name for name, module in MODULES.items() if module.is_package]


@pytest.mark.parametrize('row', structure.account(), ids=lambda row: row.name)
def test_the_house_keeps_its_bounds(row):
    assert row.value <= row.limit, '\n'.join(row.found)


@pytest.mark.parametrize('name', PACKAGES)
def test_a_package_says_what_is_public_and_it_is_there(name):
    module = MODULES[name]
    assert ast.get_docstring(module.tree), f'{name} says nothing about itself'
    public = structure.declared(module)
    assert public, f'{name} declares nothing in __all__'
    if find_spec('launch_ros') is None:
        public -= {'ros_launch'}  # the one module that needs what the wheels lack
    for part in public:
        if f'{name}.{part}' in MODULES:
            assert import_module(f'{name}.{part}')
        else:
            assert hasattr(import_module(name), part)


def test_only_imports_and_names_stand_in_an_init():
    """What an `__init__` computes is computed by everybody who imports anything below it."""
    allowed = (ast.Import, ast.ImportFrom, ast.Assign, ast.Expr)
    for name in PACKAGES:
        assert all(isinstance(node, allowed) for node in MODULES[name].tree.body), name


def test_a_circle_and_a_repetition_are_found(tmp_path):
    package = tmp_path / 'src' / 'so101_contract' / 'so101_contract'
    package.mkdir(parents=True)
    lines = '\n'.join(f'value_{number} = {number} + offset' for number in range(7))
    (package / '__init__.py').write_text("__all__ = ['one']\n")
    (package / 'one.py').write_text(f'from so101_contract import two\noffset = two\n{lines}\n')
    (package / 'two.py').write_text(f'from so101_contract.one import offset\n{lines}\n')
    rows = {row.name: row for row in structure.account(tmp_path)}
    assert rows['import circles'].found == ['so101_contract.one -> so101_contract.two']
    assert rows['runs of 6 identical lines in two places'].value == 1

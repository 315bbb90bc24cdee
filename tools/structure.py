# SPDX-License-Identifier: Apache-2.0
"""How the house stands: modules, lines, folders, circles, repeated lines, and who imports past a package's front door.

Run it in the root of the checkout: `python tools/structure.py`. With `--check` it exits 1 where a bound is exceeded;
with `--list` it names what it counted. Production code is everything in `src/*/` but tests, `setup.py` and
`so101_testing`.
"""

import argparse
import ast
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
import sys

ROOT = Path(__file__).resolve().parents[1]
NOT_PRODUCT = {'so101_testing'}
RUN = 6  # lines
ORDER = (
    'so101_interfaces_py',
    'so101_contract',
    'so101_description',
    'so101_kinematics',
    'so101_driver',
    'so101_bags',
    'so101_sim',
    'so101_fetch',
    'drqv2_policy_node',
    'vla_policy_node',
    'so101_session',
    'hilserl_learner',
    'so101_console',
    'so101_bringup',
)
"""The packages, as docs/architecture.md has them: each imports only from those before it."""


@dataclass(frozen=True)
class Bound:
    """One row of the account: what is counted, the most that there may be, and what was counted."""

    name: str
    limit: int
    found: list[str] = field(default_factory=list)
    count: int | None = None

    @property
    def value(self) -> int:
        """The number of the row."""
        return len(self.found) if self.count is None else self.count


@dataclass(frozen=True)
class Module:
    """A module of the product."""

    name: str
    path: Path
    lines: tuple[str, ...]
    tree: ast.Module

    @property
    def is_package(self) -> bool:
        """True for an `__init__.py`."""
        return self.path.name == '__init__.py'


def find_modules(root: Path = ROOT) -> dict[str, Module]:
    """Return the modules of the product by their dotted names."""
    found = {}
    for package in sorted((root / 'src').iterdir()):
        for folder in sorted(package.iterdir()) if package.is_dir() else ():
            if not (folder / '__init__.py').exists() or folder.name in NOT_PRODUCT:
                continue
            for path in sorted(folder.rglob('*.py')):
                parts = path.relative_to(package).with_suffix('').parts
                name = '.'.join(parts[:-1] if parts[-1] == '__init__' else parts)
                text = path.read_text(encoding='utf-8')
                found[name] = Module(name, path, tuple(text.splitlines()), ast.parse(text))
    return found


def imports_of(module: Module, modules: dict[str, Module], *, late: bool = True) -> set[str]:
    """Return the modules of the product that a module imports; `late`: inside its functions too."""
    nodes: Iterator[ast.AST] = ast.walk(module.tree) if late else iter(module.tree.body)
    found = set()
    for node in nodes:
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                whole = f'{node.module}.{alias.name}'
                found.add(whole if whole in modules else node.module)
        elif isinstance(node, ast.Import):
            found.update(alias.name for alias in node.names)
    return (found & modules.keys()) - {module.name}


def find_circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Return the strongly connected groups of more than one module (Tarjan, 1972)."""
    index: dict[str, int] = {}
    low: dict[str, int] = {}
    stack: list[str] = []
    circles = []

    def visit(name: str) -> None:
        index[name] = low[name] = len(index)
        stack.append(name)
        for other in sorted(arrows[name]):
            if other not in index:
                visit(other)
                low[name] = min(low[name], low[other])
            elif other in stack:
                low[name] = min(low[name], index[other])
        if low[name] == index[name]:
            group = stack[stack.index(name) :]
            del stack[stack.index(name) :]
            if len(group) > 1:
                circles.append(sorted(group))

    for name in sorted(arrows):
        if name not in index:
            visit(name)
    return circles


def counting_lines(module: Module) -> list[tuple[int, str]]:
    """Return the lines that count for repetition: no blank ones, comments, imports, or lone brackets."""
    skipped = set()
    for node in ast.walk(module.tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            skipped.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    rows = []
    for number, line in enumerate(module.lines, start=1):
        text = ' '.join(line.split())
        if number in skipped or text.startswith('#') or not any(letter.isalnum() for letter in text):
            continue
        rows.append((number, text))
    return rows


def find_repeats(modules: dict[str, Module], run: int = RUN) -> list[str]:
    """Return the places at which `run` or more lines stand that stand elsewhere too, each run once."""
    seen: dict[tuple[str, ...], tuple[str, int]] = {}
    repeats, last = [], ('', '', 0, 0)
    for module in modules.values():
        rows = counting_lines(module)
        for k in range(len(rows) - run + 1):
            words = tuple(text for _, text in rows[k : k + run])
            here = (module.name, k)
            first = seen.setdefault(words, here)
            if first == here or (first[0] == here[0] and k - first[1] < run):
                continue
            follows = last == (module.name, first[0], k - 1, first[1] - 1)
            last = (module.name, first[0], k, first[1])
            if not follows:
                other = modules[first[0]]
                line = counting_lines(other)[first[1]][0]
                repeats.append(f'{module.name}:{rows[k][0]} ~ {first[0]}:{line}')
    return repeats


def declared(module: Module) -> set[str]:
    """Return what an `__init__` lists in `__all__`."""
    for node in module.tree.body:
        if isinstance(node, ast.Assign) and any(
            isinstance(target, ast.Name) and target.id == '__all__' for target in node.targets
        ):
            return set(ast.literal_eval(node.value))
    return set()


def find_back_doors(modules: dict[str, Module]) -> list[str]:
    """Return the imports of modules of other packages that those do not declare in `__all__`, at each level."""
    found = []
    for module in modules.values():
        for target in sorted(imports_of(module, modules)):
            parts = target.split('.')
            if parts[0] == module.name.split('.')[0]:
                continue
            for depth in range(1, len(parts)):
                room = modules['.'.join(parts[:depth])]
                if parts[depth] not in declared(room):
                    found.append(f'{module.name} imports {target}, which {room.name} does not declare')
                    break
    return found


def find_upward(modules: dict[str, Module]) -> list[str]:
    """Return the imports against the order of the packages."""
    rank = {name: k for k, name in enumerate(ORDER)}
    return [
        f'{module.name} imports {target}'
        for module in modules.values()
        for target in sorted(imports_of(module, modules))
        if rank[target.split('.')[0]] > rank[module.name.split('.')[0]]
    ]


def account(root: Path = ROOT) -> list[Bound]:
    """Count everything."""
    modules = find_modules(root)
    arrows = {name: imports_of(module, modules) for name, module in modules.items()}
    users: dict[str, set[str]] = defaultdict(set)
    for name, targets in arrows.items():
        for target in targets:
            users[target].add(name)
    plain = [module for module in modules.values() if not module.is_package]
    folders = Counter(module.path.parent for module in plain)
    biggest, size = folders.most_common(1)[0]
    return [
        Bound('modules, with every __init__', 370, count=len(modules)),
        Bound('lines', 76_000, count=sum(len(module.lines) for module in modules.values())),
        Bound(f'modules in the largest folder ({biggest.relative_to(root)})', 16, count=size),
        Bound(
            'modules under 60 lines',
            25,
            [f'{module.name} ({len(module.lines)})' for module in plain if len(module.lines) < 60],
        ),
        Bound(
            'modules under 130 lines that have a single user',
            27,
            [
                f'{module.name} ({len(module.lines)}), used by {next(iter(users[module.name]))}'
                for module in plain
                if len(module.lines) < 130 and len(users[module.name]) == 1
            ],
        ),
        Bound('modules over 450 lines', 0, [module.name for module in plain if len(module.lines) > 450]),
        Bound('import circles', 0, [' -> '.join(circle) for circle in find_circles(arrows)]),
        Bound('imports against the order of packages', 0, find_upward(modules)),
        Bound(f'runs of {RUN} identical lines in two places', 0, find_repeats(modules)),
        Bound('imports past the front door of a package', 0, find_back_doors(modules)),
    ]


def main(argv: list[str] | None = None) -> int:
    """Print the account."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--check', action='store_true', help='exit 1 where a bound is exceeded')
    parser.add_argument('--list', action='store_true', help='name what was counted')
    options = parser.parse_args(argv)
    rows = account()
    for row in rows:
        mark = ' ' if row.value <= row.limit else '!'
        print(f'{mark} {row.value:6d}  of at most {row.limit:6d}  {row.name}')
        if options.list:
            print(
                *(f'                              {name}' for name in row.found),
                sep='\n',
                end='\n' if row.found else '',
            )
    return int(options.check and any(row.value > row.limit for row in rows))


if __name__ == '__main__':
    sys.exit(main())

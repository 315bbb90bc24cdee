# SPDX-License-Identifier: Apache-2.0
"""Writes the lower half of each package's README.md: rooms, and for each node its topics, services and parameters.

`python tools/package_readmes.py` writes; `--check` exits 1 where a page is out of date. What stands above the mark in
a README is written by hand; all below it is read off the code: docstrings, `create_publisher` and its like, and the
configuration classes.
"""

import argparse
import ast
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
import sys

from parameter_docs import NODES
from structure import declared, find_modules, imports_of, Module, ORDER, ROOT

from so101_interfaces_py import params, qos, topics

MARK = '<!-- Below: tools/package_readmes.py. Above: by hand. -->\n'
KINDS = {
    'create_publisher': 'publishes',
    'create_subscription': 'hears',
    'create_service': 'serves',
    'create_client': 'calls',
}


def summary(module: Module) -> str:
    """Return the first sentence of a docstring, as one line for a table."""
    text = ' '.join((ast.get_docstring(module.tree) or '').split('\n\n')[0].split())
    return text.replace('|', '\\|')


def rooms(package: str, modules: dict[str, Module]) -> Iterator[str]:
    """Yield a table of rooms, with their modules, and of the modules beside them."""
    yield '\n## Rooms\n\n| where | what |\n|---|---|\n'
    public = declared(modules[package])
    inside = {name: module for name, module in modules.items() if name.startswith(f'{package}.')}
    for name, module in sorted(inside.items(), key=lambda item: (not item[1].is_package, item[0])):
        short = name.removeprefix(f'{package}.')
        if module.is_package:
            yield f'| **`{short}/`** | **{summary(module) or short}** |\n'
            for other, part in sorted(inside.items()):
                if other.rpartition('.')[0] == name and not part.is_package:
                    yield f'| `{other.removeprefix(f"{package}.").replace(".", "/")}` | {summary(part)} |\n'
        elif '.' not in short:
            yield f'| `{short}`{"" if short in public else " (private)"} | {summary(module)} |\n'


def reachable(start: str, modules: dict[str, Module]) -> list[str]:
    """Return a module and those of its package that it reaches by imports."""
    package, found, waiting = start.split('.', maxsplit=1)[0], [], [start]
    while waiting:
        name = waiting.pop()
        if name not in found and name.split('.')[0] == package:
            found.append(name)
            waiting += sorted(imports_of(modules[name], modules), reverse=True)
    return found


def word(node: ast.expr, module: Module) -> str:
    """Return the name of a topic or service as it is on the wire; a part that is chosen at run time in braces."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return ''.join(
            str(part.value) if isinstance(part, ast.Constant) else f'{{{ast.unparse(part.value)}}}'
            for part in node.values
            if isinstance(part, ast.Constant | ast.FormattedValue)
        )
    text = ast.unparse(node)
    home = topics if text.startswith('topics.') else import_module(module.name)
    value = getattr(home, text.rpartition('.')[2], None)
    return value if isinstance(value, str) else f'{{{text}}}'


def profile(node: ast.expr | None) -> str:
    """Return a QoS profile in words."""
    name = ast.unparse(node).removeprefix('qos.') if node is not None else ''
    value = getattr(qos, name, None)
    if value is None:
        return ''
    latched = ', latched' if value.durability.name == 'TRANSIENT_LOCAL' else ''
    return f'{value.reliability.name.lower().replace("_", " ")}, depth {value.depth}{latched}'


def wires(start: str, modules: dict[str, Module]) -> list[tuple[str, str, str, str]]:
    """Return (what, name, type, QoS) of everything that a node speaks or hears."""
    rows = []
    for name in reachable(start, modules):
        module = modules[name]
        for node in ast.walk(module.tree):
            if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
                continue
            kind = KINDS.get(node.func.attr)
            if kind is None or len(node.args) < 2:
                continue
            quality = {'publishes': 2, 'hears': 3}.get(kind)
            given = node.args[quality] if quality is not None and len(node.args) > quality else None
            rows.append((kind, word(node.args[1], module), ast.unparse(node.args[0]), profile(given)))
    order = list(KINDS.values())
    return sorted(set(rows), key=lambda row: (order.index(row[0]), row[1]))


def nodes(package: str, modules: dict[str, Module]) -> Iterator[str]:
    """Yield a section for each node of a package."""
    for home, name in NODES:
        if home.split('.')[0] != package:
            continue
        module = f'{home}.{name}'
        yield f'\n## {name}\n\n| | topic or service | type | QoS |\n|---|---|---|---|\n'
        for kind, wire, kind_of, quality in wires(module, modules):
            yield f'| {kind} | `{wire}` | `{kind_of}` | {quality} |\n'
        yield '\nParameters:\n'
        for config in import_module(module).CONFIG:
            yield '\n' + params.table(config)


def render(package: str, modules: dict[str, Module]) -> str:
    """Return the generated half of a package's page."""
    return MARK + ''.join([*rooms(package, modules), *nodes(package, modules)])


def page_of(package: str, modules: dict[str, Module]) -> Path:
    """Return where the page of a package lies."""
    return modules[package].path.parents[1] / 'README.md'


def outdated(modules: dict[str, Module]) -> dict[Path, str]:
    """Return the pages that are out of date, with what they should be."""
    found = {}
    for package in ORDER:
        path = page_of(package, modules)
        text = path.read_text(encoding='utf-8') if path.exists() else f'# {package}\n\n'
        wanted = text.partition(MARK)[0].rstrip('\n') + '\n\n' + render(package, modules)
        if wanted != text:
            found[path] = wanted
    return found


def main(argv: list[str] | None = None) -> int:
    """Write the pages, or compare them."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        '--check', action='store_true', help='write nothing; exit 1 where a page is out of date'
    )
    options = parser.parse_args(argv)
    pages = outdated(find_modules())
    for path, text in pages.items():
        print(f'{path.relative_to(ROOT)} {"is out of date" if options.check else "written"}')
        if not options.check:
            path.write_text(text, encoding='utf-8')
    return int(options.check and bool(pages))


if __name__ == '__main__':
    sys.exit(main())

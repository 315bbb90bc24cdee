# SPDX-License-Identifier: Apache-2.0
"""Writes the lower half of each package's README.md: rooms, and for each node its topics, services and parameters.

`python tools/package_readmes.py` writes; `--check` exits 1 where a page is out of date. What stands above the mark in
a README is written by hand; all below it is read off the code: docstrings, `create_publisher` and its like, and the
configuration classes.
"""

import argparse
import ast
from collections.abc import Iterator, Mapping
from dataclasses import fields
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
import sys

from structure import declared, find_modules, imports_of, Module, ORDER, ROOT

from so101_bringup.parameter_files import config_types
from so101_bringup.stack import NODES
from so101_interfaces_py import params, qos, topics

MARK = '<!-- Below: tools/package_readmes.py. Above: by hand. -->\n'
PACKAGES = (*ORDER, 'so101_testing')
WIDEST = 60  # characters of a default
KINDS = {
    'create_publisher': 'publishes',
    'create_subscription': 'hears',
    'create_service': 'serves',
    'create_client': 'calls',
}
BASES = ('drqv2_policy_node.step_node',)
"""Modules with what a node of another package does too."""

CAMERAS = ('`image_raw` of each camera', '`sensor_msgs/Image`', 'best effort, depth 10')
CHOSEN: Mapping[tuple[str, str], tuple[str, str, str]] = {
    ('console_node', '{service}'): (
        '`arm/*`, `session/*`, `learner/*`, `classifier/*`',
        'one for each button',
        '',
    ),
    ('classifier_node', '{topic}'): (
        'steps, events and the pictures of each camera',
        'as the topic has',
        'every one',
    ),
    **{
        (node, f'{{{word}}}/{topic}'): (
            f'`{topic}` of each camera',
            f'`sensor_msgs/{kind}`',
            'best effort, depth 1',
        )
        for node, word in (('camera_node', 'name'), ('twin_node', 'camera'))
        for topic, kind in (
            ('image_raw', 'Image'),
            ('image_raw/compressed', 'CompressedImage'),
            ('camera_info', 'CameraInfo'),
        )
    },
    ('console_node', '{camera}/camera_info'): (
        '`camera_info` of each camera',
        '`sensor_msgs/CameraInfo`',
        'best effort, depth 1',
    ),
    ('console_node', '{camera}/image_raw'): (
        '`image_raw` of each camera',
        '`sensor_msgs/Image`',
        'best effort, depth 1',
    ),
    ('learner_node', '{topic}'): (
        'what a transition is made of, of each of `arms`',
        'as the topic has',
        'every one',
    ),
    ('learner_node', '{name}'): ('`learner/save`, `learner/rollback`', '`std_srvs/Trigger`', ''),
    ('operator_node', '{topic}'): (
        'the parameter `topic`',
        '`so101_interfaces/EeDelta`',
        'reliable, depth 1',
    ),
    ('policy_node', '{name}/image_raw'): CAMERAS,
    ('vla_policy_node', '{name}/image_raw'): CAMERAS,
    ('recorder_node', '{topic}'): (
        'each of `topics` and `more_topics`',
        'as the topic has',
        'as it is offered',
    ),
    ('recorder_node', '{full}/get_parameters'): (
        '`get_parameters` of each node',
        '`rcl_interfaces/GetParameters`',
        '',
    ),
    ('recorder_node', '{full}/list_parameters'): (
        '`list_parameters` of each node',
        '`rcl_interfaces/ListParameters`',
        '',
    ),
    ('session_node', '{camera}/{topic}'): (
        '`camera_info` or `image_raw` of each camera',
        '`sensor_msgs/CameraInfo` or `Image`',
        'best effort, depth 1',
    ),
}
"""(Node, name as the code makes it) -> topic or service, type and QoS, where the code decides them at run time."""


def read_modules() -> dict[str, Module]:
    """Return the modules of the product, and those that only tests use."""
    modules = find_modules()
    folder = ROOT / 'src' / 'so101_testing' / 'so101_testing'
    for path in sorted(folder.glob('*.py')):
        name = 'so101_testing' if path.stem == '__init__' else f'so101_testing.{path.stem}'
        text = path.read_text(encoding='utf-8')
        modules[name] = Module(name, path, tuple(text.splitlines()), ast.parse(text))
    return modules


def summary(module: Module) -> str:
    """Return the first sentence of a docstring, as one line for a table."""
    text = ' '.join((ast.get_docstring(module.tree) or '').split('\n\n')[0].split())
    return text.partition('. ')[0].rstrip('.').replace('|', '\\|')


def rooms(package: str, modules: Mapping[str, Module]) -> Iterator[str]:
    """Yield a table of the modules, room by room; in brackets what other packages may not import."""
    inside = {name: module for name, module in modules.items() if name.startswith(f'{package}.')}
    homes = [package, *sorted(name for name, module in inside.items() if module.is_package)]
    for home in homes:
        parts = [
            name
            for name in sorted(inside)
            if name.rpartition('.')[0] == home and not modules[name].is_package
        ]
        if not parts:
            continue
        if home == package:
            yield '\n## Modules\n\n'
        else:
            yield f'\n### {home.removeprefix(f"{package}.").replace(".", "/")}/\n\n{summary(modules[home])}.\n\n'
        yield '| module | what |\n|---|---|\n'
        public = declared(modules[home])
        for name in parts:
            short = name.rpartition('.')[2]
            shown = f'`{short}`' if short in public else f'(`{short}`)'
            yield f'| {shown} | {summary(modules[name])} |\n'


def reachable(start: str, modules: dict[str, Module]) -> list[str]:
    """Return a module, those of its package that it reaches by imports, and the `BASES` among them."""
    package, found, waiting = start.split('.', maxsplit=1)[0], [], [start]
    while waiting:
        name = waiting.pop()
        if name not in found and (name.split('.')[0] == package or name in BASES):
            found.append(name)
            waiting += sorted(imports_of(modules[name], modules), reverse=True)
    return found


def word(node: ast.expr, module: Module) -> str:
    """Return the name of a topic or service as it is on the wire; a part that is chosen at run time in braces."""
    if isinstance(node, ast.Constant):
        return str(node.value)
    if isinstance(node, ast.JoinedStr):
        return ''.join(
            str(part.value) if isinstance(part, ast.Constant) else word(part.value, module)
            for part in node.values
            if isinstance(part, ast.Constant | ast.FormattedValue)
        )
    text = ast.unparse(node)
    home = topics if text.startswith('topics.') else import_module(module.name)
    value = getattr(home, text.rpartition('.')[2], None)
    return value if isinstance(value, str) else f'{{{text.rpartition(".")[2].lstrip("_")}}}'


def profile(node: ast.expr | None, module: Module) -> str:
    """Return a QoS profile in words."""
    name = ast.unparse(node) if node is not None else ''
    for each in ast.walk(module.tree):
        if isinstance(each, ast.Assign) and ast.unparse(each.targets[0]) == name:
            name = ast.unparse(each.value)
    value = getattr(qos, name.removeprefix('qos.'), None)
    if value is None:
        return ''
    latched = ', latched' if value.durability.name == 'TRANSIENT_LOCAL' else ''
    return f'{value.reliability.name.lower().replace("_", " ")}, depth {value.depth}{latched}'


def interface(node: ast.expr, module: Module) -> str:
    """Return the type of a message or service with its package, whatever the module calls it."""
    name = ast.unparse(node)
    for each in ast.walk(module.tree):
        if isinstance(each, ast.ImportFrom) and (each.module or '').endswith(('.msg', '.srv')):
            for alias in each.names:
                if name == (alias.asname or alias.name):
                    return f'{str(each.module).partition(".")[0]}/{alias.name}'
    return name


def wires(node: str, start: str, modules: dict[str, Module]) -> list[tuple[str, str, str, str]]:
    """Return (what, name, type, QoS) of everything that a node speaks or hears, ready for a table."""
    rows = []
    for name in reachable(start, modules):
        module = modules[name]
        for call in ast.walk(module.tree):
            if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Attribute)):
                continue
            kind = KINDS.get(call.func.attr)
            if kind is None or len(call.args) < 2:
                continue
            wire = word(call.args[1], module)
            if '{' in wire:
                rows.append((kind, *CHOSEN[node, wire]))
                continue
            quality = {'publishes': 2, 'hears': 3}.get(kind)
            given = call.args[quality] if quality is not None and len(call.args) > quality else None
            rows.append((kind, f'`{wire}`', f'`{interface(call.args[0], module)}`', profile(given, module)))
    order = list(KINDS.values())
    return sorted(set(rows), key=lambda row: (order.index(row[0]), row[1]))


def interfaces(folder: Path) -> Iterator[str]:
    """Yield a table of messages and services, where a package has such."""
    for kind in ('msg', 'srv'):
        files = sorted((folder / kind).glob(f'*.{kind}'))
        if files:
            yield f'\n## {kind}/\n\n| file | what |\n|---|---|\n'
        for path in files:
            first = path.read_text(encoding='utf-8').partition('\n')[0].strip('# ')
            yield f'| [`{path.name}`]({kind}/{path.name}) | {first.partition(". ")[0].rstrip(".")} |\n'


def parameters(node: str) -> Iterator[str]:
    """Yield a table of a node's parameters; what they mean stands in docs/parameters.md."""
    yield '\n| parameter | type | default | unit |\n|---|---|---|---|\n'
    for config in config_types(node):
        known = params.describe(config)
        for each in fields(config):
            if each.name not in known:
                continue
            kind = getattr(each.type, '__name__', None) if isinstance(each.type, type) else None
            value = repr(each.default).replace('|', '\\|')
            shown = value if len(value) <= WIDEST else f'{value[: WIDEST - 2]} …'
            yield f'| `{each.name}` | {kind or str(each.type)} | `{shown}` | {known[each.name].unit} |\n'


def nodes(package: str, modules: dict[str, Module]) -> Iterator[str]:
    """Yield a section for each node of a package."""
    for name, (home, file) in NODES.items():
        if home != package:
            continue
        module = next(iter(entry_points(group='console_scripts', name=name))).module
        anchor = f'../../docs/parameters.md#{name}-{home}'
        yield f'\n## {name}\n\n{summary(modules[module])}.\n\n'
        yield '| | topic or service | type | QoS |\n|---|---|---|---|\n'
        for row in wires(name, module, modules):
            yield f'| {" | ".join(row)} |\n'
        yield (
            f'\n[Meaning and limits]({anchor}) of the parameters; `config/{file}` holds what differs from these '
            'defaults.\n'
        )
        yield from parameters(name)


def render(package: str, modules: dict[str, Module]) -> str:
    """Return the generated half of a package's page."""
    return MARK + ''.join(
        [*interfaces(page_of(package, modules).parent), *rooms(package, modules), *nodes(package, modules)]
    )


def page_of(package: str, modules: Mapping[str, Module]) -> Path:
    """Return where the page of a package lies."""
    return modules[package].path.parents[1] / 'README.md'


def outdated(modules: dict[str, Module]) -> dict[Path, str]:
    """Return the pages that are out of date, with what they should be."""
    found = {}
    for package in PACKAGES:
        path = page_of(package, modules)
        text = path.read_text(encoding='utf-8') if path.exists() else f'# {path.parent.name}\n\n'
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
    pages = outdated(read_modules())
    for path, text in pages.items():
        print(f'{path.relative_to(ROOT)} {"is out of date" if options.check else "written"}')
        if not options.check:
            path.write_text(text, encoding='utf-8')
    return int(options.check and bool(pages))


if __name__ == '__main__':
    sys.exit(main())

# SPDX-License-Identifier: Apache-2.0
import pytest
import yaml

from so101_interfaces_py.yaml_text import load_yaml, MOST_LEVELS, YamlError


def bomb(levels):
    """Aliases of aliases: ten times as many values with each line."""
    lines = ['a0: &a0 [x, x, x, x, x, x, x, x, x, x]']
    lines += [f'a{n}: &a{n} [{", ".join([f"*a{n - 1}"] * 10)}]' for n in range(1, levels)]
    return '\n'.join(lines)


@pytest.mark.parametrize(
    'text',
    [
        '[' * 200_000,
        '{a: ' * 50_000,
        '- ' * 50_000,
        '? ' * 50_000,
        bomb(9),
        'a: &a [*a]',
        '&a {<<: *a}',
        'x' * 17_000_000,
        'a: ' + '9' * 5000,
        '? [1, 2]\n: 3',
        'a: 2026-99-99',
        'a: [',
        'a: \0',
        '!!python/object/apply:os.system [ls]',
        '*b',
    ],
)
def test_what_is_no_yaml_or_too_much_of_it_gets_a_sentence(text):
    with pytest.raises(YamlError, match='expected'):
        load_yaml(text)


@pytest.mark.parametrize(
    'text',
    [
        '',
        'a: 1',
        '[' * (MOST_LEVELS - 1) + ']' * (MOST_LEVELS - 1),
        'a: &x [1, 2]\nb: *x\nc: {<<: {d: 1}}',
        bomb(4),
    ],
)
def test_what_is_fine_is_what_pyyaml_says(text):
    assert load_yaml(text) == yaml.safe_load(text)

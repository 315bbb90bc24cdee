# SPDX-License-Identifier: Apache-2.0
"""`train-classifier`: learn from labelled episodes what success looks like."""

import argparse
from dataclasses import replace
from pathlib import Path
import sys

import torch

from hilserl_learner.cpu import prepare_cpu
from hilserl_learner.data.store import read_buffer, read_header
from hilserl_learner.errors import LearnerError
from hilserl_learner.ingest.classifier import (
    accuracy,
    Classifier,
    ClassifierManifest,
    examples,
    network_spec,
    save_classifier,
    summary,
    train,
)
from so101_contract.errors import ContractError
from so101_contract.transition import Transition


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(prog='so101 train-classifier', description=__doc__)
    parser.add_argument(
        'buffer', type=Path, help='what ingest wrote, with episodes that succeed and that do not'
    )
    parser.add_argument('--out', type=Path, required=True, help='folder of the classifier')
    parser.add_argument('--steps', type=int, default=300, help='updates (default: %(default)s)')
    parser.add_argument(
        '--threshold', type=float, default=0.8, help='of the probability (default: %(default)s)'
    )
    parser.add_argument('--hold', type=int, default=2, help='steps in a row (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='(default: %(default)s)')
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = make_parser().parse_args(argv)
    prepare_cpu(1)
    try:
        spec = read_header(options.buffer).observation
        episodes = read_episodes(options.buffer)
        left_out = examples(episodes[::5], options.hold)
        data = examples([e for i, e in enumerate(episodes) if i % 5], options.hold)
        model = Classifier(network_spec(spec), torch.Generator().manual_seed(options.seed))
        train(model, data, steps=options.steps, seed=options.seed)
        manifest = ClassifierManifest(
            cameras=spec.cameras, threshold=options.threshold, hold_steps=options.hold
        )
        manifest = replace(manifest, accuracy=accuracy(model.eval(), left_out, options.threshold))
        save_classifier(options.out, model, manifest)
    except (LearnerError, ContractError) as error:
        print(f'so101 train-classifier: {error}', file=sys.stderr)
        return 1
    print(summary(manifest, {'success': len(data.success), 'other': len(data.other)}))
    return 0


def read_episodes(buffer: Path) -> list[list[Transition]]:
    """Return the episodes of a buffer, each in order; of revised transitions the last one."""
    held: dict[tuple[str, int], dict[int, Transition]] = {}
    for entry in read_buffer(buffer):
        if isinstance(entry.output, Transition):
            held.setdefault((entry.stream, entry.output.episode), {})[entry.output.index] = entry.output
        elif entry.output.discarded:
            held.pop((entry.stream, entry.output.episode), None)
    return [[steps[index] for index in sorted(steps)] for steps in held.values()]


if __name__ == '__main__':
    sys.exit(main())

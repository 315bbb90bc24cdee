# SPDX-License-Identifier: Apache-2.0
"""`./so101 train-classifier`: learn what success looks like, from labels, bags or a buffer.

With it the session judges episodes live (`reward:=classifier`), and recorded episodes get rewards without a simulator
and without a human (`ingest --reward classifier:FOLDER`).
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
import sys

from hilserl_learner.classifier.labels import (
    Eyes,
    Labelled,
    Labeller,
    LABELS,
    newest,
    read_labels,
    read_labels_header,
)
from hilserl_learner.classifier.model import ClassifierError, MODEL, save_classifier
from hilserl_learner.classifier.training import learn, Stretch, stretches_by_outcome, stretches_of
from hilserl_learner.data.store import HEADER as BUFFER_HEADER
from hilserl_learner.data.store import read_buffer, read_header
from hilserl_learner.errors import LearnerError
from hilserl_learner.training.trainer import prepare_cpu
from so101_bags.metadata import read_session_metadata, task_of_bag
from so101_bags.records import read_records
from so101_bags.storage import BagError
from so101_contract.errors import ContractError
from so101_contract.messages import EpisodeEventRecord
from so101_contract.observation_spec import CameraSpec, DEFAULT_OBSERVATION, OBSERVATIONS
from so101_contract.task.files import observed
from so101_contract.transition import Transition


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    parser = argparse.ArgumentParser(
        prog='so101 train-classifier', description='Learn what success looks like.'
    )
    parser.add_argument(
        'source',
        type=Path,
        nargs='+',
        help='folder of a classifier with the labels that were pressed; or bags in which they were pressed; or one '
        'buffer, whose episodes show success at their ends',
    )
    parser.add_argument(
        '--out', type=Path, help='folder of the classifier (default: the one with the labels)'
    )
    parser.add_argument('--steps', type=int, default=200, help='updates (default: %(default)s)')
    parser.add_argument(
        '--threshold', type=float, default=0.8, help='of the probability (default: %(default)s)'
    )
    parser.add_argument('--hold', type=int, default=2, help='steps in a row (default: %(default)s)')
    parser.add_argument(
        '--observation',
        default=DEFAULT_OBSERVATION,
        choices=tuple(OBSERVATIONS),
        help='how bags are read (default: %(default)s)',
    )
    parser.add_argument('--seed', type=int, default=0, help='(default: %(default)s)')
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = make_parser().parse_args(argv)
    prepare_cpu(1)
    try:
        stretches, cameras, task, fewest = _read(options)
        learned = learn(
            stretches,
            cameras,
            task=task,
            steps=options.steps,
            threshold=options.threshold,
            hold_steps=options.hold,
            seed=options.seed,
            **fewest,
        )
        out = options.out or options.source[0]
        save_classifier(out / MODEL if _has_labels(out) else out, learned.model, learned.manifest)
    except (LearnerError, ContractError, BagError) as error:
        print(f'so101 train-classifier: {error}', file=sys.stderr)
        return 1
    good = sum(int(stretch.success.sum()) for stretch in stretches)
    rest = sum(len(stretch.success) for stretch in stretches) - good
    print(
        f'{good} pictures of success and {rest} others, {learned.seconds:.0f} s; on episodes that were left out: '
        f'{learned.manifest.judged}'
    )
    return 0


def _has_labels(folder: Path) -> bool:
    return (folder / LABELS).is_dir()


def _read(
    options: argparse.Namespace,
) -> tuple[list[Stretch], tuple[CameraSpec, ...], str | None, dict[str, int]]:
    """Return the labelled pictures, their cameras and task, and how few are enough where that is not the usual."""
    first = options.source[0]
    if _has_labels(first):
        header = read_labels_header(first / LABELS)
        return stretches_of(newest(read_labels(first / LABELS))), header.cameras, header.task, {}
    if options.out is None:
        raise ClassifierError('expected --out with the folder of the classifier, got none; name one')
    if (first / BUFFER_HEADER).is_file():
        buffer = read_header(first)
        episodes = read_episodes(first)
        task = None if buffer.task is None else buffer.task.name
        stretches = stretches_by_outcome(episodes, options.hold)
        return stretches, buffer.observation.cameras, task, {'fewest': options.hold}
    told = task_of_bag(read_session_metadata(first))
    spec = observed(told, options.observation)
    labels = [labelled for bag in options.source for labelled in labels_of(bag, options.observation)]
    return stretches_of(newest(iter(labels))), spec.cameras, None if told is None else told.name, {}


def labels_of(bag: Path, observation: str) -> Iterator[Labelled]:
    """Yield the labels that were pressed while a bag was recorded, as `classifier_node` would have kept them.

    Raises:
        BagError: it is damaged, or lacks a topic that learning needs.
    """
    spec = observed(task_of_bag(read_session_metadata(bag)), observation)
    eyes, labeller = Eyes(spec), Labeller(bag.name)
    for record in read_records(bag, spec, any_spec=True):
        if isinstance(record, EpisodeEventRecord):
            yield from labeller.hear(record)
        for seen in eyes.push(record):
            yield from labeller.see(seen)


def read_episodes(buffer: Path) -> list[Sequence[Transition]]:
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

# SPDX-License-Identifier: Apache-2.0
"""`./so101 export`: a buffer or a bag in; a dataset of LeRobot's, or the film of an episode, out."""

import argparse
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
import os
from pathlib import Path
import sys

from rich.console import Console
from rich.progress import Progress, TextColumn, TimeElapsedColumn

from hilserl_learner.data.store import BufferHeader, HEADER, read_buffer, read_header
from hilserl_learner.errors import LearnerError
from hilserl_learner.ingest.ingest import Conversion, ingest, ZERO_ACTIONS
from so101_bags.storage import BagError
from so101_contract.action import ActionSpec
from so101_contract.errors import ContractError
from so101_contract.observation_spec import (
    DEFAULT_OBSERVATION,
    get_observation,
    OBSERVATIONS,
    ObservationSpec,
)
from so101_interfaces_py.scratch import Scratch

FORMATS = {'lerobot-v3': 'v3.0', 'lerobot-v2.1': 'v2.1'}
FILM = '.mp4'
NO_VIDEO = 'none'


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line."""
    from hilserl_learner.lerobot.export import ACTIONS, ExportSettings
    from hilserl_learner.lerobot.writer import ENCODERS

    usual = ExportSettings()
    parser = argparse.ArgumentParser(prog='so101 export', description=__doc__)
    parser.add_argument('source', type=Path, metavar='BUFFER|BAG', help='a buffer, or a bag as for ingest')
    parser.add_argument('--out', type=Path, required=True, metavar='DATASET|FILM.mp4', help='what to write')
    parser.add_argument(
        '--format', default='lerobot-v3', choices=tuple(FORMATS), help='of the dataset (default: %(default)s)'
    )
    parser.add_argument(
        '--video',
        default=NO_VIDEO,
        choices=(*ENCODERS, NO_VIDEO),
        help='codec of the pictures; none is PNG, which loses nothing (default: %(default)s)',
    )
    parser.add_argument(
        '--action',
        default=usual.action,
        choices=ACTIONS,
        help='displacement and opening, the same with a discrete gripper, or joint targets (default: %(default)s)',
    )
    parser.add_argument('--task', default=usual.task, help='what was to be done (default: %(default)s)')
    parser.add_argument(
        '--rate', type=int, default=0, metavar='HZ', help='rows per second (default: as recorded)'
    )
    parser.add_argument('--episode', type=int, metavar='N', help='which episode to make a film of')
    bags = parser.add_argument_group('bags')
    bags.add_argument(
        '--observation',
        default=DEFAULT_OBSERVATION,
        choices=sorted(OBSERVATIONS),
        help='what the bag was recorded with (default: %(default)s)',
    )
    bags.add_argument('--tcp', help='TCP preset, where it is not that of the observation')
    bags.add_argument('--namespace', default='', help='which arm of the bag, where there are several')
    bags.add_argument(
        '--image-size',
        type=int,
        default=0,
        metavar='PX',
        help="edge of the pictures, where not the observation's",
    )
    bags.add_argument(
        '--zero-actions',
        default='refuse',
        choices=ZERO_ACTIONS,
        help='what to do with zero actions although the arm moved (default: %(default)s)',
    )
    return parser


def main(argv: list[str] | None = None) -> int:
    """Run the command; return its exit code."""
    options = make_parser().parse_args(argv)
    os.environ.setdefault(
        'SVT_LOG', '1'
    )  # the AV1 encoder says a page per file unless told to say errors alone
    try:
        with _buffer(options) as directory:
            said = _film(options, directory) if options.out.suffix == FILM else _dataset(options, directory)
    except (LearnerError, BagError, ContractError) as error:
        print(error, file=sys.stderr)
        return 1
    print(said)
    return 0


@contextmanager
def _buffer(options: argparse.Namespace) -> Iterator[Path]:
    """Give the directory of a buffer: the one that was named, or one that is made of a bag for the moment."""
    if options.rate < 0 or options.image_size < 0:
        raise LearnerError(
            f'expected --rate and --image-size of at least 0, got {options.rate} and {options.image_size}'
        )
    if (options.source / HEADER).is_file():
        if options.image_size:
            raise LearnerError(
                'expected a bag for --image-size, got a buffer, whose pictures are small already'
            )
        yield options.source
        return
    spec = get_observation(options.observation, tcp=options.tcp)
    conversion = Conversion(
        observation=_resized(spec, options.image_size),
        action=ActionSpec(),
        zero_actions=options.zero_actions,
        namespace=options.namespace,
        any_spec=bool(options.image_size),
    )
    with Scratch('export') as scratch:
        directory = scratch.path / 'buffer'
        for _ in ingest([options.source], directory, conversion):
            pass
        yield directory


def _resized(spec: ObservationSpec, size: int) -> ObservationSpec:
    return replace(spec, cameras=tuple(replace(camera, size=size or camera.size) for camera in spec.cameras))


def _dataset(options: argparse.Namespace, directory: Path) -> str:
    from hilserl_learner.lerobot.export import Corrections, episodes_of, export_dataset, ExportSettings

    settings = ExportSettings(
        version=FORMATS[options.format],
        codec='' if options.video == NO_VIDEO else options.video,
        action=options.action,
        task=options.task,
        rate_hz=options.rate,
    )
    header: BufferHeader = read_header(directory)
    columns = (TextColumn('{task.description}'), TextColumn('{task.completed} rows'), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(options.out.name, total=None)
        report = export_dataset(
            header,
            episodes_of(read_buffer(directory), Corrections.of(read_buffer(directory))),
            options.out,
            settings,
            lambda rows: bar.update(task, completed=rows),
        )
    lines = [
        f'{report.episodes} episodes ({report.successes} successes) with {report.rows} rows at {report.fps} per '
        f'second, {report.intervened} of them by a human, are in {options.out}.'
    ]
    if report.segments > report.episodes:
        lines.append(f'Steps are missing, so they became {report.segments} episodes there.')
    if report.renumbered:
        lines.append(
            f'{report.renumbered} episodes got another number, since parts of the buffer count alike.'
        )
    return '\n'.join(lines)


def _film(options: argparse.Namespace, directory: Path) -> str:
    from hilserl_learner.lerobot.export import Corrections, episodes_of
    from hilserl_learner.lerobot.film import choose_episode, write_film

    if options.episode is None:
        raise LearnerError(f'expected --episode N for the film {options.out}, got none; choose one episode')
    episodes = episodes_of(read_buffer(directory), Corrections.of(read_buffer(directory)))
    episode = choose_episode(episodes, options.episode)
    codec = 'h264' if options.video == NO_VIDEO else options.video
    frames = write_film(episode, options.out, rate_hz=options.rate, codec=codec)
    return f'Episode {options.episode} is in {options.out}, {frames} frames.'


if __name__ == '__main__':
    sys.exit(main())

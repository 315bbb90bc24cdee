# SPDX-License-Identifier: Apache-2.0
"""What the options say of the task and the contract: which ones they are, and which cameras there are."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from so101_bringup.options import OptionError, Options, PERFECT

if TYPE_CHECKING:
    from so101_bringup.programs import Parameter
    from so101_contract.config import ContractConfig
    from so101_contract.task.spec import TaskCamera, TaskSpec

MANIFEST = 'manifest.json'


def contract_config(
    checkpoint: str, observation: str, tcp: str, task: str = '', cameras: str = ''
) -> 'ContractConfig':
    """Return what all nodes are told: what the policy requires, as its manifest says.

    Args:
        checkpoint: folder of the policy; anything else requires nothing.
        observation: name of the observation where the policy requires none.
        tcp: TCP preset where it requires none.
        task: name or file of the task.
        cameras: that are observed where it requires none, with commas between; empty: those of the task.

    Raises:
        OptionError: its manifest cannot be read, or asks for what has no name.
    """
    # Here and not above: the options must be readable where nothing is installed yet.
    from so101_contract.config import ContractConfig
    from so101_contract.errors import ContractError
    from so101_contract.manifest import PolicyManifest
    from so101_interfaces_py.files import read_file

    manifest = Path(checkpoint).expanduser() / MANIFEST
    if checkpoint in ('none', 'default', '') or not manifest.exists():
        words = tuple(word.partition('=')[0] for word in cameras.split(','))
        return ContractConfig(observation=observation, tcp=tcp, task=task, cameras=words)
    try:
        return ContractConfig.from_manifest(PolicyManifest.from_json(read_file(manifest)), task)
    except (OSError, ContractError) as error:
        raise OptionError(f'checkpoint:={checkpoint} cannot be read or run here: {error}') from error


def contract_of(plan: Options) -> 'ContractConfig':
    """Return what all nodes are told by the options of a plan."""
    checkpoint, observation, tcp = (str(plan[name]) for name in ('checkpoint', 'observation', 'tcp'))
    return contract_config(checkpoint, observation, tcp, task_word(plan), str(plan['cameras']))


def task_word(plan: Options) -> str:
    """Return what nodes are told of the task: its name, or the whole path of its file."""
    from so101_contract.errors import TaskError
    from so101_contract.task.files import find_task

    word = str(plan['task'])
    try:
        path = find_task(word)
    except TaskError as error:
        raise OptionError(f'task:={word}: {error}') from error
    return word if path.stem == word else str(path)


def task_of(plan: Options) -> 'TaskSpec':
    """Return the task, with the cameras of `cameras:=`.

    Raises:
        OptionError: there is none, or it is wrong.
    """
    from so101_contract.errors import ContractError
    from so101_contract.task.files import get_task

    try:
        return get_task(task_word(plan)).with_cameras(str(plan['cameras']).split(','))
    except ContractError as error:
        raise OptionError(f'task:={plan["task"]}: {error}') from error


def reward_of(plan: Options) -> str:
    """Return who says that the task is done, as the session's parameter names it.

    Raises:
        OptionError: there is no such source, or a real arm is asked what only a simulation knows.
    """
    from so101_contract.errors import TaskError
    from so101_contract.task.reward import RewardSource, sources_of

    word = str(plan['reward'])
    asked = task_of(plan).reward.source if word == 'auto' else word
    try:
        sources = sources_of(asked)
    except TaskError as error:
        raise OptionError(f'reward:={word}: {error}') from error
    if plan['sim'] or RewardSource.SIM not in sources:
        return ','.join(source.value for source in sources)
    if word != 'auto':
        raise OptionError(f'reward:={word}: only a simulation knows the truth; leave sim out on a real arm.')
    others = [source.value for source in sources if source is not RewardSource.SIM]
    return ','.join(others) or RewardSource.OPERATOR.value


def puts_back(options: Options) -> bool:
    """Return whether the arm puts the object back by itself.

    Raises:
        OptionError: it shall, and the task does not say where.
    """
    task, asked = task_of(options), options['reset']
    if asked == 'arm' and task.put_back is None:
        raise OptionError(
            f'reset:=arm needs put_back in the file of the task {task.name}, which says where the arm puts the object; '
            f'add it (docs/your_task.md), or use reset:=scene.'
        )
    return asked == 'arm' or (asked == 'auto' and not options['sim'] and task.put_back is not None)


def operator_told(plan: Options) -> 'dict[str, Parameter]':
    """Return what the scripted operator is told: what it does, what it labels, and what it is like."""
    labels = {'sim': 'none', 'operator': 'all'}.get(reward_of(plan), 'corrections')
    told: dict[str, Parameter] = {'mode': plan['operator'], 'labels': labels}
    if plan['human'] != PERFECT:
        from so101_sim.human.traits import HUMANS

        told |= HUMANS[str(plan['human'])].plain()
    return told


def devices(options: Options) -> dict[str, str]:
    """Return the device of each camera that has one; those of the task's file only where the arm is real."""
    words = (word.partition('=')[::2] for word in str(options['cameras']).split(','))
    told = {name: device for name, device in words if device}
    if options['camera']:
        told = {'wrist': str(options['camera']), **told}
    if options['sim']:
        return told
    of_task = {camera.name: camera.device for camera in task_of(options).cameras if camera.device}
    return {**of_task, **told}


def all_of(options: Options, contract: 'ContractConfig') -> 'Sequence[TaskCamera]':
    """Return the cameras that there are: those of the task, and what the policy observes beside them."""
    from so101_contract.task.files import all_cameras

    task = task_of(options)
    return task.with_cameras(all_cameras(task, contract.cameras)).cameras

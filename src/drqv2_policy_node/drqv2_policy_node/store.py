# SPDX-License-Identifier: Apache-2.0
"""Policies as directories and as bytes: a manifest and tensors, both verified before anything uses them.

* `manifest.json`: PolicyManifest
* `policy.safetensors`: encoder and actor, with the network spec in the header
* `critics.safetensors`: critics and their targets, where there are any
* `source.json`: where it comes from, where it was converted
* `SHA256SUMS`: hashes of the files above, as `sha256sum -c` reads them

`find_policy` says which directory the word behind `checkpoint:=` or `policy:=` stands for.
"""

from collections.abc import Mapping
import ctypes
import hashlib
from importlib import resources
import json
import os
from pathlib import Path
import shutil
import sys

from drqv2_policy_node.networks import Actor, Critic, Encoder, fill, from_bytes, to_bytes
from drqv2_policy_node.policy import ACTOR, CRITIC, ENCODER, Policy, PolicyError
from so101_contract.manifest import PolicyManifest
from so101_contract.observation_spec import ObservationSpec
from so101_contract.record import Json
from so101_interfaces_py.files import MOST_BYTES, read_file, read_text

MANIFEST, TENSORS, CRITICS = 'manifest.json', 'policy.safetensors', 'critics.safetensors'
SOURCE, SUMS = 'source.json', 'SHA256SUMS'
NO_POLICY, DEFAULT = ('', 'none'), 'default'
FOLDER = 'policies'
CRITIC_PARTS = ('critic', 'critic_target')

_AT_FDCWD, _RENAME_EXCHANGE = -100, 2  # of renameat2(2)


class StoreError(PolicyError):
    """A stored policy is damaged, incomplete, or in the way."""


def pack(policy: Policy) -> tuple[str, bytes]:
    """Return the manifest as JSON and the tensors as safetensors bytes."""
    return policy.manifest.to_json(), policy.tensor_bytes()


def unpack(manifest: str, payload: bytes) -> Policy:
    """Return the policy of what `pack` gave, after both checks: the hash, and the golden action.

    Raises:
        ContractError: the bytes are damaged, do not belong to the manifest, or act differently here.
    """
    said = PolicyManifest.from_json(manifest)
    digest = hashlib.sha256(payload).hexdigest()
    if digest != said.tensors_sha256:
        raise StoreError(
            f'expected tensors with the hash {said.tensors_sha256}, got {digest}; '
            f'the tensors are damaged or belong to another manifest, get both again'
        )
    spec, tensors = from_bytes(payload)
    parts = (ENCODER, ACTOR) if said.on_base is None else (ENCODER, ACTOR, CRITIC)
    others = [name for name in tensors if not name.startswith(tuple(f'{part}.' for part in parts))]
    if others:
        raise StoreError(
            f'expected tensors of {", ".join(parts)} only, got {others}; export the policy again'
        )
    encoder = fill(Encoder(spec, start=False), tensors, ENCODER)
    actor = fill(Actor(spec, start=False), tensors, ACTOR)
    critic = None if said.on_base is None else fill(Critic(spec, start=False), tensors, CRITIC)
    policy = Policy(encoder, actor, said, critic=critic)
    policy.self_test()
    return policy


def save_policy(
    directory: str | os.PathLike[str],
    policy: Policy,
    *,
    critics: tuple[Critic, Critic] | None = None,
    source: Mapping[str, Json] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write a policy; the directory appears complete or not at all.

    Args:
        directory: where to; its parents are made.
        policy: what to write.
        critics: its critics and their targets, for whoever goes on training.
        source: where it comes from, kept for people.
        overwrite: whether a policy that is there already may go.

    Returns:
        the directory.

    Raises:
        StoreError: there is something at the directory already.
    """
    target = Path(directory)
    if target.exists() and not (overwrite and (target / MANIFEST).is_file()):
        raise StoreError(
            f'expected no file or directory at {target}, got one; name another, or remove it first'
        )
    manifest, payload = pack(policy)
    files = {MANIFEST: manifest.encode(), TENSORS: payload}
    if critics is not None:
        files[CRITICS] = critic_bytes(critics)
    if source is not None:
        files[SOURCE] = json.dumps(source, indent=2, sort_keys=True).encode()
    target.parent.mkdir(parents=True, exist_ok=True)
    aside = target.with_name(f'.{target.name}.{os.getpid()}.partial')
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir()
        _write(aside, files)
        _put_in_place(aside, target)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return target


def load_policy(directory: str | os.PathLike[str], *, on_base: bool = False) -> Policy:
    """Return a stored policy, verified.

    Args:
        directory: where it is.
        on_base: it acts on top of a base policy, so that it need not be able to act alone.

    Raises:
        ContractError: a file is missing, damaged, or belongs to another policy; the message says which.
    """
    manifest = _read(Path(directory), MANIFEST).decode(errors='replace')
    policy = unpack(manifest, _read(Path(directory), TENSORS))
    policy.directory = Path(directory)
    if not on_base and policy.manifest.on_base is not None and policy.manifest.on_base.mode == 'residual':
        raise StoreError(
            f'expected a policy that acts alone in {directory}, got one that corrects a base policy; name that too'
        )
    return policy


def load_critics(directory: str | os.PathLike[str]) -> tuple[Critic, Critic] | None:
    """Return the critics and their targets of a stored policy; None where it has none."""
    if not (Path(directory) / CRITICS).exists():
        return None
    spec, tensors = from_bytes(_read(Path(directory), CRITICS))
    critic, target = (fill(Critic(spec, start=False), tensors, name) for name in CRITIC_PARTS)
    return critic, target


def critic_bytes(critics: tuple[Critic, Critic]) -> bytes:
    """Return critics and targets as safetensors with the network spec in the header."""
    return to_bytes(critics[0].spec, dict(zip(CRITIC_PARTS, critics, strict=True)))


def _read(directory: Path, name: str) -> bytes:
    """Return a file of a stored policy, after a comparison with the list of sums."""
    try:
        content = read_file(directory / name, MOST_BYTES)
        listed = dict(line.split()[::-1] for line in read_text(directory / SUMS).splitlines())
    except (OSError, ValueError) as error:
        raise StoreError(
            f'expected a policy with {name} and {SUMS} in {directory}, got {error}; '
            f'name the directory of a policy, or convert the checkpoint again'
        ) from error
    digest = hashlib.sha256(content).hexdigest()
    if listed.get(name) != digest:
        raise StoreError(
            f'expected {directory / name} with the hash {listed.get(name)}, got {digest}; '
            f'the file is damaged or was edited, restore it'
        )
    return content


def _write(directory: Path, files: Mapping[str, bytes]) -> None:
    sums = ''.join(f'{hashlib.sha256(content).hexdigest()}  {name}\n' for name, content in files.items())
    for name, content in {**files, SUMS: sums.encode()}.items():
        with (directory / name).open('wb') as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())


def _put_in_place(new: Path, target: Path) -> None:
    """Rename a directory; where there is one already, both change places in one step."""
    if target.exists() and not _exchange(new, target):
        old = target.with_name(f'.{target.name}.{os.getpid()}.old')
        target.rename(old)
        new.rename(target)
        shutil.rmtree(old, ignore_errors=True)
    elif not target.exists():
        new.rename(target)
    folder = os.open(target.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _exchange(one: Path, two: Path) -> bool:
    """Let two directories change places; False where the system or the file system cannot."""
    if not sys.platform.startswith('linux'):
        return False
    try:
        renameat2 = ctypes.CDLL(None, use_errno=True).renameat2
    except AttributeError:  # not the GNU C library
        return False
    return bool(renameat2(_AT_FDCWD, os.fsencode(one), _AT_FDCWD, os.fsencode(two), _RENAME_EXCHANGE) == 0)


def find_policy(name: str, observation: str, spec: ObservationSpec | None = None) -> Path | None:
    """Return the folder of a policy; None where there is to be none.

    Args:
        name: a folder; `default` for the policy that is shipped for this observation, which need not exist; `none`, or
            nothing.
        observation: name of the observation.
        spec: what is observed; the policy that is shipped is not for other cameras.
    """
    if name in NO_POLICY:
        return None
    if name != DEFAULT:
        return Path(name).expanduser()
    shipped = Path(str(resources.files('drqv2_policy_node').joinpath(FOLDER, observation)))
    if not shipped.is_dir():
        return None
    manifest = PolicyManifest.from_json(_read(shipped, MANIFEST))
    return shipped if spec is None or spec.cameras == manifest.observation.cameras else None

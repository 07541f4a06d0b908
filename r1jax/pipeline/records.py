"""A run on disk: immutable files, and last a commit record that names them with their hashes.

What has no record did not happen: a killed process leaves files without a record, and the work is done again.

    <workdir>/recipe.yaml                        the resolved recipe
    <workdir>/stages/<stage>/waves/<rollout>-<wave>/      rollouts and verdicts of a finished wave, commit.json last; a rollout's
                                                          waves are numbered as they are sampled, replacements after the rest
    <workdir>/stages/<stage>/views/<rollout>.json         derived, for the report's rollout viewer
    <workdir>/stages/<stage>/updates/<step>/              metrics of an optimizer update, commit.json last
    <workdir>/stages/<stage>/held_out/<step>/             the loss on held-out examples after so many updates, commit.json last
    <workdir>/stages/<stage>/checkpoints/<step>/          train state (Orbax), commit.json last
    <workdir>/stages/<stage>/evaluations/<name>/          a benchmark's figures, commit.json last
    <workdir>/stages/<stage>/rewrites/<number>/           cold start: rewritten texts with their verdicts, commit.json last
    <workdir>/stages/<stage>/data.jsonl, data.*           the data set of a stage that makes one; card.json, card.md: its card
    <workdir>/stages/<stage>/model/                       the finished model (Hugging Face layout), renamed into place whole
    <workdir>/stages/<stage>/commit.json                  the stage is complete; its artefacts
    <workdir>/results.json, comparisons.json, metrics.jsonl, report.html    derived: can be remade from the above
    <workdir>/tensorboard/, .report.json                  derived too (.report.json: what the report has read before)
    <workdir>/wandb.json, wandb/                          what Weights & Biases was told, if it was asked for
    <workdir>/timing/                                     all that depends on the clock; status.json: how the session stands
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

RECORD = "commit.json"


class DamagedRecord(ValueError):
    """A file that a commit record names is missing or differs from what was committed."""


def stage_folder(workdir: epath.PathLike, stage: str) -> epath.Path:
    """Where all that a stage leaves lies."""
    return epath.Path(workdir) / "stages" / stage


def evaluation_folder(workdir: epath.PathLike, stage: str, benchmark: str, when: str) -> epath.Path:
    """Where the figures of a benchmark lie; ``when`` is ``before``, ``after`` or the step with six digits."""
    return stage_folder(workdir, stage) / "evaluations" / f"{benchmark}-{when}"


def _digest(path: epath.Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def _is_local(path: epath.PathLike) -> bool:
    """Whether a path is of this machine's file systems: an object store has written an object once it says so."""
    return "://" not in os.fspath(path)


def _sync(path: epath.PathLike) -> None:
    """Waits until a file's content, or a folder's list of names, is on the disk."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except (PermissionError, IsADirectoryError):
        return  # a folder, on a system that can't open them
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # a file system that knows no fsync of folders
            raise
    finally:
        os.close(descriptor)


def sync_tree(path: epath.PathLike) -> None:
    """Waits until a file, or all files of a folder, and their names are on the disk: before a record vouches for them."""
    if not _is_local(path):
        return
    path = os.path.abspath(path)
    if os.path.isfile(path):
        _sync(path)
    for folder, _, names in os.walk(path):
        for name in names:
            _sync(os.path.join(folder, name))
        _sync(folder)
    _sync(os.path.dirname(path))


def _make_folder(folder: epath.Path) -> None:
    """Makes a folder and those above it; their names are then on the disk."""
    missing = [each for each in (folder, *folder.parents) if not each.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for new in missing:
        if _is_local(new):
            _sync(new.parent)


def write_atomic(path: epath.PathLike, data: bytes | str) -> None:
    """Writes a whole file or nothing: a reader never sees a part of it, nor does one after a loss of power."""
    path = epath.Path(path)
    _make_folder(path.parent)
    partial = path.parent / f".{path.name}.partial"
    partial.write_bytes(data.encode() if isinstance(data, str) else data)
    if _is_local(path):
        _sync(partial)  # else the name may be on the disk before the content is
    partial.replace(path)


def commit(folder: epath.PathLike, files: Sequence[str] = (), content: Mapping[str, Any] | None = None) -> None:
    """Writes the commit record of ``folder``: its ``content`` and the hash of each of ``files``. The last act.

    Once this returns, not even a loss of power takes it back. ``files`` come from ``write_atomic``.
    """
    folder = epath.Path(folder)
    record = {"files": {name: _digest(folder / name) for name in sorted(files)}, "content": dict(content or {})}
    if files and _is_local(folder):
        _sync(folder)  # the names of the files, before the record's own
    write_atomic(folder / RECORD, json.dumps(record, indent=1, sort_keys=True, allow_nan=False))
    if _is_local(folder):
        _sync(folder)


def committed(folder: epath.PathLike) -> bool:
    """Whether ``folder`` has its commit record: whether it happened."""
    return (epath.Path(folder) / RECORD).exists()


def read_record(folder: epath.PathLike, verify: bool = True) -> dict[str, Any]:
    """The ``content`` of a commit record.

    Raises:
      FileNotFoundError: there is no record.
      DamagedRecord: ``verify`` is set, and a named file is missing or has changed.
    """
    folder = epath.Path(folder)
    record = json.loads((folder / RECORD).read_text())
    if verify:
        for name, digest in record["files"].items():
            if not (folder / name).exists():
                raise DamagedRecord(
                    f"{folder / name} is missing, yet {folder / RECORD} names it; delete {folder} to redo it"
                )
            if _digest(folder / name) != digest:
                raise DamagedRecord(f"{folder / name} is not what was committed; delete {folder} to redo it")
    return record["content"]

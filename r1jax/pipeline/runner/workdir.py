"""A run's folder: one process at a time, one recipe for ever, and the same inputs.

    .lock              held (flock) while a process works here; a killed process lets go of it by dying
    recipe.yaml        the resolved recipe: every key, absolute paths
    notes.json         tables that the recipe wants beside the run's own in the report, if it names any
    inputs.json        fingerprints of the files that the recipe names

Loads no jax: a recipe or a folder that can't be used is refused at once.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import platform
from collections.abc import Callable, Iterator
from pathlib import Path

import yaml
from etils import epath

from r1jax import config, data
from r1jax.pipeline import records

try:
    import fcntl
except ImportError:  # not a POSIX system
    fcntl = None


RECIPE = "recipe.yaml"
INPUTS = "inputs.json"
NOTES = "notes.json"


class WorkdirError(ValueError):
    """A work directory that can't be used for this recipe; the message says why and what to do."""


# ---------------------------------------------------------------------------------------------- the recipe
def resolve_paths(recipe: config.Recipe, folder: str) -> config.Recipe:
    """Makes the recipe's paths absolute, from the recipe's folder, and checks that something is there.

    Raises:
      RecipeError: a model or a folder of a judge's prompts that is no folder, a data set or benchmark that is not there.
    """

    def absolute(path: str) -> str:
        return path if "://" in path else str((Path(folder) / Path(path).expanduser()).resolve())

    def model(name: str, source: config.ModelSource) -> config.ModelSource:
        path = absolute(source.path)
        if not epath.Path(path).is_dir():
            raise config.RecipeError(f"models.{name}.path: {source.path!r} is no folder (looked for {path})")
        return dataclasses.replace(source, path=path)

    def rows(where: str, source: config.DataSource) -> config.DataSource:
        try:
            data.data_files(source, folder)
        except data.DataError as error:
            raise config.RecipeError(f"{where}.path: {error}") from None
        return dataclasses.replace(
            source,
            path=source.path if data.is_tfds_name(source.path) else absolute(source.path),
            data_dir=absolute(source.data_dir) if source.data_dir else "",
        )

    parts = {"models": {name: model(name, source) for name, source in recipe.models.items()}}
    for kind in ("data", "benchmarks"):
        parts[kind] = {name: rows(f"{kind}.{name}", source) for name, source in getattr(recipe, kind).items()}
    notes = recipe.notes
    if notes:
        notes = str((Path(folder) / notes).resolve())
        if not Path(notes).is_file():
            raise config.RecipeError(f"notes: {recipe.notes!r} is no file (looked for {notes})")
    stages = tuple(_with_prompts(stage, absolute) for stage in recipe.stages)
    return dataclasses.replace(recipe, notes=notes, stages=stages, **parts)


def _own_prompts(stage: config.StageSettings) -> str | None:
    """The folder of a stage's own prompts to a judge; None where it has none."""
    judging = getattr(stage.settings, "judging", None)
    return None if judging is None or judging.prompts in config.JUDGE_PROMPTS else judging.prompts


def _with_prompts(stage: config.StageSettings, absolute: Callable[[str], str]) -> config.StageSettings:
    if (given := _own_prompts(stage)) is None:
        return stage
    folder = absolute(given)
    if not epath.Path(folder).is_dir():
        raise config.RecipeError(
            f"stages.{stage.name}.judging.prompts: {given!r} is no folder (looked for {folder})"
            f"{config.nearest(given, config.JUDGE_PROMPTS)}"
        )
    judging = dataclasses.replace(stage.settings.judging, prompts=folder)
    return dataclasses.replace(stage, settings=dataclasses.replace(stage.settings, judging=judging))


def _is_safe(key: str) -> bool:
    """Whether a dotted key may change between two sessions of a run. A path may: the inputs' fingerprints hold the files."""
    first, _, rest = key.partition(".")
    if first in ("notes", "logging", "comparisons"):
        return True
    if first in ("models", "data", "benchmarks"):
        return key.endswith((".path", ".data_dir"))
    return first == "stages" and rest.partition(".")[2] in config.SAFE_TO_CHANGE


def _changed_keys(workdir: epath.Path, recipe: config.Recipe) -> list[str]:
    """``key: old -> new`` for the keys that differ from the recipe that the work directory was begun with."""
    # Read back from YAML, so that what a dump turns into something else (tuples) is no difference.
    old, new = yaml.safe_load((workdir / RECIPE).read_text()), yaml.safe_load(config.dump_recipe(recipe))
    with contextlib.suppress(config.RecipeError):  # keys that came later stood at their defaults
        old = yaml.safe_load(config.dump_recipe(config.read_recipe(old)))
    return [f"{key}: {was!r} -> {now!r}" for key, was, now in config.differences(old, new) if not _is_safe(key)]


# ---------------------------------------------------------------------------------------------- the inputs
def _fingerprint(path: epath.Path) -> dict[str, str]:
    """SHA-256 of a file, or of each file of a folder; of files over 64 MiB their size only (weights: too slow to read)."""
    if path.is_file():
        size = path.stat().length
        return {"": f"{size} bytes" if size > 64 << 20 else hashlib.sha256(path.read_bytes()).hexdigest()}
    inside = sorted(p for p in path.iterdir() if not p.name.startswith("."))
    return {f"{p.name}/{name}".rstrip("/"): digest for p in inside for name, digest in _fingerprint(p).items()}


def _fingerprints(recipe: config.Recipe) -> dict[str, dict[str, str]]:
    found = {f"models.{name}": _fingerprint(epath.Path(source.path)) for name, source in recipe.models.items()}
    for kind in ("data", "benchmarks"):
        for name, source in getattr(recipe, kind).items():
            files = data.data_files(source)
            above = os.path.commonpath([file.parent for file in files])  # the folders that they lie in may have moved
            found[f"{kind}.{name}"] = {
                os.path.relpath(file, above) if len(files) > 1 else "": digest
                for file in files
                for digest in _fingerprint(file).values()
            }
    for stage in recipe.stages:
        if (prompts := _own_prompts(stage)) is not None:
            found[f"stages.{stage.name}.judging.prompts"] = _fingerprint(epath.Path(prompts))
    return found


def is_untouched(workdir: epath.Path) -> bool:
    """Whether a run was begun here of which no stage has left a file: it was refused, or stopped before its first result."""
    if not (workdir / INPUTS).exists():
        return False  # whatever lies here, it is not of a run that was begun
    if "://" in str(workdir):
        return not (workdir / "stages").exists()
    return not any(names for _, _, names in os.walk(workdir / "stages"))


def begin(workdir: epath.Path, recipe: config.Recipe) -> None:
    """Saves the recipe and its inputs' fingerprints; or, in an old work directory, holds them against what is there.

    While no stage has left anything, nothing is held: the corrected recipe of a run that was refused may take its place.

    Raises:
      WorkdirError: the folder holds something else, or a recipe that differs in a key that changes what happens (the
        message is the difference), or the inputs have changed since.
    """
    inputs = _fingerprints(recipe)
    untouched = is_untouched(workdir)
    if (workdir / RECIPE).exists():
        if not untouched and (changed := _changed_keys(workdir, recipe)):
            remedy = "undo the changes or choose another --workdir"
            raise WorkdirError(f"{workdir} was begun with another recipe; {remedy}: " + "; ".join(changed))
    elif others := sorted(p.name for p in workdir.iterdir() if not p.name.startswith(".")):
        raise WorkdirError(f"{workdir} holds {others[0]!r} but no run; choose an empty or new --workdir")
    if (workdir / INPUTS).exists() and not untouched:
        old = json.loads((workdir / INPUTS).read_text())
        if changed := [name for name in inputs if old.get(name) != inputs[name]]:
            raise WorkdirError(
                f"the files of {', '.join(changed)} changed since {workdir} was begun; choose another --workdir"
            )
    records.write_atomic(workdir / RECIPE, config.dump_recipe(recipe))  # first: it says that this is a run
    if recipe.notes:
        records.write_atomic(workdir / NOTES, Path(recipe.notes).read_bytes())
    records.write_atomic(workdir / INPUTS, json.dumps(inputs, indent=1))


# ---------------------------------------------------------------------------------------------- the lock
@contextlib.contextmanager
def locked(workdir: epath.Path) -> Iterator[None]:
    """Holds the work directory for this process.

    The lock is the kernel's (flock): it ends with the process however that ends, and children do not inherit it.
    Remote paths (``gs://``) have none.

    Raises:
      WorkdirError: another process holds it.
    """
    if fcntl is None or "://" in str(workdir):
        yield
        return
    with open(workdir / ".lock", "a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            file.seek(0)
            raise WorkdirError(f"{workdir} is in use by {file.read().strip() or 'another process'}") from error
        file.truncate(0)
        file.write(f"process {os.getpid()} on {platform.node()}\n")
        file.flush()
        yield

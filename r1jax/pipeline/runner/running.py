"""``run_recipe``: from a recipe file to a finished work directory. What is wrong with the input is said before jax is loaded."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from etils import epath

from r1jax import config
from r1jax.pipeline.runner import status
from r1jax.pipeline.runner import workdir as workdirs
from r1jax.pipeline.runner.signals import StopFlag, stop_on_signals
from r1jax.pipeline.stage import StopRequested
from r1jax.reporting import Console
from r1jax.reporting.exports import PACKAGES, exporting, missing_package

LEARN_EXAMPLES = frozenset({"sft"})  # kinds whose data are completions to be learnt, not problems to be solved


def check_data(recipe: config.Recipe) -> None:
    """Reads benchmarks, and the data of built-in stages, so that a broken row is found now and not after hours.

    Raises:
      RecipeError: a file that does not hold problems with answers, or examples where a stage learns those; a grader that
        there is not.
    """
    from r1jax.data import check_examples, load_prompts
    from r1jax.data.preferences import check_labelled, check_pairs
    from r1jax.rewards.graders import grader

    # What a stage of the user's own reads need not be problems.
    built_in = [stage for stage in recipe.stages if stage.kind in config.BUILT_IN_KINDS]
    read = {(stage.inputs.get("data", ""), stage.kind) for stage in built_in}
    learnt = {(name, check_examples) for name, kind in read if kind in LEARN_EXAMPLES}
    learnt |= {(s.inputs.get("general", ""), check_examples) for s in recipe.stages if s.kind == "rejection_sampling"}
    learnt |= {(s.inputs.get("held_out", ""), check_examples) for s in recipe.stages if s.kind in LEARN_EXAMPLES}
    judged = {"pairwise": check_pairs, "pointwise": check_labelled}
    for stage in recipe.stages:
        if stage.kind == "reward_model" and stage.settings.objective in judged:  # the stage itself refuses another
            learnt |= {(stage.inputs.get(name, ""), judged[stage.settings.objective]) for name in ("data", "held_out")}
    for name, check in sorted(learnt, key=lambda each: (each[0], each[1].__name__)):
        try:
            if name in recipe.data:
                check(recipe.data[name])
        except ValueError as error:
            raise config.RecipeError(f"data.{name}: {error}") from error
    prompts = {name for name, kind in read if kind not in {*LEARN_EXAMPLES, "reward_model"}}
    prompts |= {s.inputs.get("general", "") for s in recipe.stages if s.kind == "grpo"}
    sources = {f"data.{name}": source for name, source in recipe.data.items() if name in prompts}
    sources |= {f"benchmarks.{name}": source for name, source in recipe.benchmarks.items()}
    own: dict[str, str] = {}  # a user's own grader -> where it was met first
    for where, source in sources.items():
        try:
            for name in {row.grader for row in load_prompts(source)}:
                if ":" in name:
                    own.setdefault(name, where)
                else:
                    grader(name)
        except ValueError as error:
            raise config.RecipeError(f"{where}: {error}") from error
    for name, where in own.items():
        _try_in_worker(where, (), name)


def check_rewards(recipe: config.Recipe) -> None:
    """Has a worker process import the users' own reward parts, each by itself: this process never imports them.

    Raises:
      RecipeError: naming the stage and the part that can't be imported.
    """
    from r1jax.rewards.mixing import part_names

    for stage in recipe.stages:
        by_type = getattr(stage.settings, "rewards_by_type", {})
        for part in part_names(getattr(stage.settings, "rewards", {}), by_type):
            if ":" in part:  # the stage itself knows the built-in ones
                _try_in_worker(f"stages.{stage.name}.rewards", (part,), "none")


def _try_in_worker(where: str, parts: Sequence[str], grader: str) -> None:
    from r1jax.rewards import RewardPool, RewardPoolError

    try:
        RewardPool(parts, default_grader=grader, workers=1).check()
    except RewardPoolError as error:
        raise config.RecipeError(f"{where}: {error}") from error


def run_recipe(path: str, workdir: str | None = None, overrides: Sequence[str] = ()) -> epath.Path:
    """Walks a recipe's stages in order; what an earlier session finished is not done again.

    Args:
      path: the recipe; relative paths in it start at its folder.
      workdir: default ``runs/NAME`` where the process stands.
      overrides: ``key.path=value``.

    Returns:
      The work directory.

    Raises:
      RecipeError, WorkdirError: input that can't be run.
      StopRequested: a signal asked to stop, and the state is saved; the same call goes on.
    """
    with importable(Path(path).absolute().parent, Path.cwd()):
        return _run_recipe(path, workdir, overrides)


@contextlib.contextmanager
def importable(*folders: Path) -> Iterator[None]:
    """Lets modules in these folders be imported, here and by reward workers, after all that are installed: those of a user's
    own rewards, losses and stages lie beside the recipe or where the command is given."""
    added = [str(folder) for folder in dict.fromkeys(folders) if str(folder) not in sys.path]
    sys.path.extend(added)
    try:
        yield
    finally:
        for folder in added:
            sys.path.remove(folder)


def _run_recipe(path: str, workdir: str | None, overrides: Sequence[str]) -> epath.Path:
    with stop_on_signals() as stop:
        recipe = workdirs.resolve_paths(config.load_recipe(path, overrides), str(Path(path).parent))
        folder = epath.Path(workdir if workdir is not None else f"runs/{recipe.name}")
        exports = _check(recipe, folder)
        if stop():
            raise StopRequested(f"stopped by {stop.signal} before the run began; the same command begins it")
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except (NotADirectoryError, FileExistsError) as error:
            raise workdirs.WorkdirError(f"{folder} lies below a file ({error}); choose another --workdir") from error
        with workdirs.locked(folder):
            workdirs.begin(folder, recipe)
            _walk(recipe, folder, stop, exports)
    return folder


def _check(recipe: config.Recipe, folder: epath.Path) -> dict[str, Any]:
    """Refuses what can't be run before anything is left on disk; returns what ``reporting.exports`` is asked for."""
    check_data(recipe)
    check_rewards(recipe)
    exports = check_exports(recipe)
    if folder.exists() and not folder.is_dir():
        raise workdirs.WorkdirError(f"{folder} is a file; choose another --workdir")
    if not (folder / workdirs.RECIPE).exists() or workdirs.is_untouched(folder):
        # Settings that a stage refuses leave no work directory.
        from r1jax.pipeline.runner.walk import make_stages

        make_stages(recipe)
    return exports


def _walk(recipe: config.Recipe, folder: epath.Path, stop: StopFlag, exports: dict[str, Any]) -> None:
    """Walks the stages, and writes what is derived from their files however they end."""
    from r1jax.pipeline.runner.walk import walk  # jax and all rooms, needed from here on

    with Console() as console:
        try:
            with status.kept(folder), exporting(str(folder), console.warn, **exports):
                try:
                    walk(recipe, folder, stop, console)
                except StopRequested:
                    raise StopRequested(f"stopped by {stop.signal}; the same command goes on from {folder}") from None
        except ValueError:  # refused before a stage did anything: there is nothing to show, and one line says why
            if not workdirs.is_untouched(folder):
                write_views(folder, console)
            raise
        except BaseException:
            write_views(folder, console)
            raise
        write_views(folder, console)


def check_exports(recipe: config.Recipe) -> dict[str, Any]:
    """What ``reporting.exports`` is asked for.

    Raises:
      RecipeError: a package that it needs is not installed.
    """
    asked = {"tensorboard": recipe.logging.tensorboard, "wandb": recipe.logging.wandb}
    if package := missing_package(**asked):
        key = next(name for name, needed in PACKAGES.items() if needed == package)
        raise config.RecipeError(f"logging.{key} needs {package}: pip install {package}, or set logging.{key}: false")
    if recipe.logging.report_every < 0:
        raise config.RecipeError(
            f"logging.report_every can't be negative, but is {recipe.logging.report_every}; 0 switches it off"
        )
    return asked | {"project": recipe.logging.wandb_project, "report_every": recipe.logging.report_every}


def write_views(workdir: epath.Path, console: Console) -> None:
    """Writes what is derived from a run's files: results.json, comparisons.json and the report. A failure here never hides another one."""
    try:
        from r1jax.pipeline.runner.results import time_table, write_results
        from r1jax.reporting import compared_table, results_table, stages_by_side, write_report

        if any(entry["before"] or entry["after"] or entry["figures"] for entry in write_results(workdir)):
            console.table("Results", *results_table(workdir))
            for title, columns, rows in stages_by_side(workdir):
                console.table(title, columns, rows)
            if (table := compared_table(workdir))[1]:
                console.table("What each stage is for", *table)
        console.table("Time", *time_table(workdir))
        console.say(f"report: {write_report(workdir)}")
    except Exception as error:
        console.warn(f"no report ({type(error).__name__}: {error}); r1jax report {workdir} tries again")

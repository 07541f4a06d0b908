"""Walks a checked recipe: each stage in order, its benchmarks before and after, its commit record last."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
from collections.abc import Callable, Iterator
from typing import Any

from etils import epath

from r1jax import config, sharding
from r1jax.pipeline import records
from r1jax.pipeline.benchmarks import evaluate_model, write_evaluation
from r1jax.pipeline.compiles import compile_counter
from r1jax.pipeline.records import evaluation_folder, stage_folder
from r1jax.pipeline.runner import environment
from r1jax.pipeline.runner.results import write_results
from r1jax.pipeline.stage import Artefacts, Context, Stage, StopRequested
from r1jax.reporting import Console


def make_stages(recipe: config.Recipe) -> list[Stage]:
    """The stages' objects, of built-in kinds or of the user's ``package.module:Class``.

    All at once, so that what the last one refuses is known before the first one runs.
    """

    def make(stage: config.StageSettings) -> Stage:
        path = config.BUILT_IN_KINDS[stage.kind][1] if stage.kind in config.BUILT_IN_KINDS else stage.kind
        return config.import_name(path, f"stages.{stage.name}.kind")(stage.name, stage.settings)

    return [make(stage) for stage in recipe.stages]


class Phases:
    """Names and times what a session does; its file is the session's only trace of the clock."""

    def __init__(self, workdir: epath.Path, console: Console):
        number = len(list((workdir / "timing").glob("session-*.json")))
        self.file = workdir / "timing" / f"session-{number:03d}.json"
        self.console = console
        self.spent: dict[str, dict[str, float]] = {}

    @contextlib.contextmanager
    def __call__(self, stage: str, part: str) -> Iterator[None]:
        name, started, compiled = f"{stage}: {part}", time.monotonic(), compile_counter().seconds
        try:
            with self.console.phase(name):
                yield
        finally:
            compiling = compile_counter().seconds - compiled
            self.spent[name] = {"seconds": time.monotonic() - started, "compiling": compiling}
            records.write_atomic(self.file, json.dumps(self.spent, indent=1))


def _inside(workdir: epath.Path, path: str | None) -> str | None:
    """A path within the work directory as a relative one, so that the directory may be moved."""
    if path is None:
        return None
    with contextlib.suppress(ValueError):
        return str(epath.Path(path).relative_to(workdir))
    return str(path)


def read_artefacts(workdir: epath.Path, name: str) -> Artefacts:
    """What a finished stage left, from its record."""
    content = records.read_record(stage_folder(workdir, name))
    paths = {key: None if content[key] is None else str(workdir / content[key]) for key in ("model", "data")}
    return Artefacts(**paths, steps=content["steps"], figures=content["figures"])


def resolve_inputs(stage: config.StageSettings, recipe: config.Recipe, workdir: epath.Path) -> dict[str, Any]:
    """The stage's inputs by name: paths of models, ``DataSource`` of data sets.

    Raises:
      RecipeError: an earlier stage did not make what this one asks of it.
    """
    inputs: dict[str, Any] = {}
    for name, value in stage.inputs.items():
        is_data = name in config.DATA_INPUTS
        if not value.startswith("stage:"):
            inputs[name] = recipe.data[value] if is_data else recipe.models[value].path
            continue
        made = read_artefacts(workdir, value.removeprefix("stage:"))
        path = made.data if is_data else made.model
        if path is None:
            raise config.RecipeError(f"stages.{stage.name}.{name}: {value} made no {'data set' if is_data else 'model'}")
        inputs[name] = config.DataSource(path) if is_data else path
    return inputs


def _of_the_recipe(stage: config.StageSettings) -> config.StageSettings:
    """The stage with those inputs alone that no other stage makes."""
    return dataclasses.replace(stage, inputs={k: v for k, v in stage.inputs.items() if not v.startswith("stage:")})


def _same_evaluation(recipe: config.Recipe, workdir: epath.Path, model: str, benchmark: str) -> epath.Path | None:
    """The folder of a finished evaluation of the same model on the same benchmark, or None.

    Both are the same where their names in the graph are: a name stands for one source or one stage's result, a benchmark's
    settings stand at its name and nowhere else, and a work directory keeps one recipe with its inputs for ever.
    """
    for stage in recipe.stages:
        for when, evaluated in (("before", stage.inputs.get("model")), ("after", f"stage:{stage.name}")):
            folder = evaluation_folder(workdir, stage.name, benchmark, when)
            if evaluated == model and records.committed(folder):
                return folder
    return None


def evaluate_stage(
    stage: config.StageSettings, when: str, model: str, path: str, workdir: epath.Path, context: Context
) -> None:
    """Evaluates a model on the stage's benchmarks; what an earlier evaluation of the same model found is copied.

    Args:
      when: ``before`` or ``after``.
      model: the model's name in the graph.
      path: where it lies.

    Raises:
      StopRequested: a benchmark was broken off; the finished ones stay.
    """
    todo = {}
    for name in stage.benchmarks:
        folder = evaluation_folder(workdir, stage.name, name, when)
        if records.committed(folder):
            continue
        if (same := _same_evaluation(context.recipe, workdir, model, name)) is None:
            todo[name] = context.recipe.benchmarks[name]
            continue
        records.read_record(same)  # a damaged file is not copied and vouched for anew
        for file in ("figures.json", "samples.jsonl"):
            records.write_atomic(folder / file, (same / file).read_bytes())
        records.commit(folder, ["figures.json", "samples.jsonl"], {"same_as": str(same.relative_to(workdir))})
    if not todo:
        return
    for name, figures, samples in evaluate_model(path, todo, context):
        folder = evaluation_folder(workdir, stage.name, name, when)
        write_evaluation(folder, {"benchmark": name, "when": when, **figures}, samples)


def run_stage(stage: config.StageSettings, made: Stage, workdir: epath.Path, context: Context, phases: Phases) -> None:
    """Runs one stage to its commit record, from wherever an earlier session left it."""
    folder = stage_folder(workdir, stage.name)
    if records.committed(folder):
        context.console.say(f"{stage.name}: done in an earlier session")
        return
    folder.mkdir(parents=True, exist_ok=True)
    inputs = resolve_inputs(stage, context.recipe, workdir)
    if hasattr(made, "check"):
        made.check(inputs)
    if "model" in inputs and stage.benchmarks:
        with phases(stage.name, "benchmarks before"):
            evaluate_stage(stage, "before", stage.inputs["model"], inputs["model"], workdir, context)
    if context.stop():
        raise StopRequested
    with phases(stage.name, stage.kind):
        artefacts = made.run(inputs, folder, context)
    if artefacts.model is not None and stage.benchmarks:
        if context.stop():
            raise StopRequested
        with phases(stage.name, "benchmarks after"):
            evaluate_stage(stage, "after", f"stage:{stage.name}", artefacts.model, workdir, context)
    content = {
        "kind": stage.kind,
        "model": _inside(workdir, artefacts.model),
        "data": _inside(workdir, artefacts.data),
        "steps": artefacts.steps,
        "figures": dict(artefacts.figures),
    }
    for path in (content["model"], content["data"]):
        if path is not None:
            records.sync_tree(workdir / path)
    records.commit(folder, content=content)


def walk(recipe: config.Recipe, workdir: epath.Path, stop: Callable[[], bool], console: Console) -> None:
    """Runs the stages of a recipe in order.

    Raises:
      RecipeError: a mesh that does not fit the devices, a stage that can't be made, an input that was not made.
      StopRequested: ``stop`` came true and the state is saved.
    """
    compile_counter()  # from here on every compilation counts
    for change in environment.keep(workdir):
        console.warn(f"not as in the last session: {change}; results need not be bit-equal")
    mesh = sharding.make_mesh(recipe.mesh.data, recipe.mesh.fsdp, recipe.mesh.tensor)
    context = Context(recipe, sharding.layout(mesh, sharding.TRAIN_RULES), stop, console)
    stages = make_stages(recipe)
    for stage, made in zip(recipe.stages, stages):
        if hasattr(made, "check") and not records.committed(stage_folder(workdir, stage.name)):
            made.check(resolve_inputs(_of_the_recipe(stage), recipe, workdir))
    phases = Phases(workdir, console)
    for stage, made in zip(recipe.stages, stages):
        if stop():
            raise StopRequested
        run_stage(stage, made, workdir, context, phases)
        write_results(workdir)

"""The recipe: reading it from YAML, the check of its graph, and writing it again."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from r1jax.config.errors import RecipeError, nearest
from r1jax.config.kinds import BUILT_IN_KINDS, MAKES, MODEL_REWARDS, OPTIONAL_INPUTS, REQUIRED_INPUTS
from r1jax.config.parts import MeshSettings
from r1jax.config.reading import check_name, import_name, read_dataclass, read_value
from r1jax.config.sources import BenchmarkSource, ComparisonSettings, DataSource, LoggingSettings, ModelSource


@dataclass(frozen=True)
class StageSettings:
    """One stage. ``inputs``: input name -> ``NAME`` or ``stage:NAME``; in YAML the keys ``model``, ``data``, ``reference`` ...

    ``benchmarks``: evaluated before and after. ``settings``: the dataclass of the kind.
    """

    name: str
    kind: str
    inputs: dict[str, str]
    benchmarks: tuple[str, ...]
    settings: Any


@dataclass(frozen=True)
class Recipe:
    """The whole graph, checked.

    ``comparisons``: of models that the run has measured, shown with paired intervals.
    ``notes``: a JSON file of tables that the report shows beside the run's own (``reporting``): figures of other runs.
    """

    name: str
    stages: tuple[StageSettings, ...]
    seed: int = 0
    models: dict[str, ModelSource] = field(default_factory=dict)
    data: dict[str, DataSource] = field(default_factory=dict)
    benchmarks: dict[str, BenchmarkSource] = field(default_factory=dict)
    mesh: MeshSettings = MeshSettings()
    comparisons: tuple[ComparisonSettings, ...] = ()
    logging: LoggingSettings = LoggingSettings()
    notes: str = ""


DATA_INPUTS = ("data", "general", "held_out")
INPUT_KEYS = ("model", "reference", "rewriter", "teacher", *dict.fromkeys(MODEL_REWARDS.values()), *DATA_INPUTS)
STAGE_KEYS = ("name", "kind", "benchmarks", *INPUT_KEYS)


# ---------------------------------------------------------------------------------------------- reading
def stage_settings_type(kind: str, where: str) -> type:
    """The settings dataclass of a stage kind; imports a user's kind, but none of r1jax's."""
    if kind in BUILT_IN_KINDS:
        return BUILT_IN_KINDS[kind][0]
    if ":" in kind:
        return import_name(kind, where).settings
    raise RecipeError(f"{where}: unknown kind {kind!r}{nearest(kind, list(BUILT_IN_KINDS))} (or package.module:Class)")


def _read_stage(value: Any, number: int) -> StageSettings:
    where = f"stages[{number}]"
    if not isinstance(value, Mapping):
        raise RecipeError(f"{where} must be a mapping with name and kind, not {value!r}")
    for key in ("name", "kind"):
        if not isinstance(value.get(key), str) or not value[key]:
            raise RecipeError(f"{where} lacks {key}")
    where = f"stages.{value['name']}"
    if not all(c.isalnum() or c in "_-" for c in value["name"]):
        raise RecipeError(f"{where}: a stage's name has letters, digits, - and _ only")
    check_name(value["name"], where)
    kind = stage_settings_type(value["kind"], where)
    own = [f.name for f in dataclasses.fields(kind)]
    for key in value:
        if key not in STAGE_KEYS and key not in own:
            raise RecipeError(f"unknown key {where}.{key}{nearest(key, [*STAGE_KEYS, *own])}")
    return StageSettings(
        name=value["name"],
        kind=value["kind"],
        inputs={k: read_value(str, value[k], f"{where}.{k}") for k in INPUT_KEYS if value.get(k) not in (None, "")},
        benchmarks=read_value(tuple[str, ...], value.get("benchmarks") or [], f"{where}.benchmarks"),
        settings=read_dataclass(kind, {k: v for k, v in value.items() if k in own}, where),
    )


def apply_overrides(document: dict[str, Any], overrides: Sequence[str]) -> dict[str, Any]:
    """Applies ``key.path=value`` to a recipe's YAML document; ``stages.NAME.key`` finds a stage by its name."""
    for text in overrides:
        path, equals, value = text.partition("=")
        if not equals or not path:
            raise RecipeError(f"--set {text}: write key.path=value")
        keys = path.split(".")
        place: Any = document
        for depth, key in enumerate(keys[:-1]):
            here = ".".join(keys[: depth + 1])
            if isinstance(place, list):
                names = [stage.get("name") for stage in place if isinstance(stage, Mapping)]
                if key not in names:
                    raise RecipeError(f"--set {text}: no stage {key!r}{nearest(key, names)}")
                place = place[names.index(key)]
            else:
                place = place.setdefault(key, {})
            if not isinstance(place, (dict, list)):
                raise RecipeError(f"--set {text}: {here} is a value, not a mapping")
        if isinstance(place, list):
            raise RecipeError(f"--set {text}: name a key of the stage: {path}.KEY=value")
        try:
            place[keys[-1]] = yaml.safe_load(value) if value else ""
        except yaml.YAMLError as error:
            raise RecipeError(f"--set {text}: the value is not YAML: {' '.join(str(error).split())}") from error
    return document


def read_recipe(document: Mapping[str, Any]) -> Recipe:
    """Reads and checks a recipe's YAML document.

    Raises:
      RecipeError: an unknown key, a value of the wrong type, a name that no folder can have, an input that names nothing
        earlier in the graph.
    """
    if not isinstance(document, Mapping):
        raise RecipeError(f"a recipe is a mapping with name and stages, not {document!r}")
    known = [f.name for f in dataclasses.fields(Recipe)]
    for key in document:
        if key not in known:
            raise RecipeError(f"unknown key {key}{nearest(key, known)}")
    stages = document.get("stages")
    if not isinstance(stages, list) or not stages:
        raise RecipeError("stages must be a list of at least one stage")
    rest = read_dataclass(Recipe, {**document, "stages": []}, "recipe")
    check_name(rest.name, "name")
    for kind in ("models", "data", "benchmarks"):
        for name in getattr(rest, kind):
            check_name(name, kind)
    recipe = dataclasses.replace(rest, stages=tuple(_read_stage(stage, i) for i, stage in enumerate(stages)))
    check_graph(recipe)
    return recipe


def check_graph(recipe: Recipe) -> None:
    """Refuses a graph whose names do not resolve to a source or to an earlier stage."""
    seen: list[str] = []
    for stage in recipe.stages:
        where = f"stages.{stage.name}"
        if stage.name in seen:
            raise RecipeError(f"{where}: two stages of that name")
        for name in REQUIRED_INPUTS.get(stage.kind, ()):
            if name not in stage.inputs:
                raise RecipeError(f"{where} needs {name}: the name of one, or stage:NAME")
        for name, value in stage.inputs.items():
            taken = (*REQUIRED_INPUTS.get(stage.kind, INPUT_KEYS), *OPTIONAL_INPUTS.get(stage.kind, ()))
            if name not in taken:
                raise RecipeError(f"{where}.{name}: {stage.kind} takes no such input; it takes {', '.join(taken)}")
            sources = recipe.data if name in DATA_INPUTS else recipe.models
            if value.startswith("stage:"):
                if (source := value.removeprefix("stage:")) not in seen:
                    later = source in (other.name for other in recipe.stages)
                    hint = "; it is listed here or later, put it before" if later else nearest(source, seen)
                    raise RecipeError(f"{where}.{name}: no earlier stage {source!r}{hint}")
                _check_made(recipe, stage, name, source, where)
            elif value not in sources:
                hint = "; a function of your own is judge_function" if name == "judge" and ":" in value else ""
                raise RecipeError(f"{where}.{name}: nothing named {value!r}{hint or nearest(value, list(sources))}")
        if "judge" in stage.inputs and getattr(stage.settings, "judge_function", ""):
            raise RecipeError(f"{where} has both judge, a model, and judge_function: leave out one, they may disagree")
        _check_general(stage, where)
        _check_model_rewards(stage, where)
        own = [(key, getattr(stage.settings, key, ())) for key in ("track", "decontaminate")]
        for key, names in [("benchmarks", stage.benchmarks), *own]:
            for name in names:
                if name not in recipe.benchmarks:
                    raise RecipeError(f"{where}.{key}: no benchmark {name!r}{nearest(name, list(recipe.benchmarks))}")
        seen.append(stage.name)
    for name, benchmark in recipe.benchmarks.items():
        if benchmark.same_as and benchmark.same_as not in recipe.benchmarks:
            where = f"benchmarks.{name}.same_as"
            raise RecipeError(
                f"{where}: no benchmark {benchmark.same_as!r}{nearest(benchmark.same_as, list(recipe.benchmarks))}"
            )
    _check_comparisons(recipe)


def _check_made(recipe: Recipe, stage: StageSettings, name: str, maker: str, where: str) -> None:
    """Refuses an input of a built-in stage that another built-in stage makes, but not as what it is taken for."""
    made = MAKES.get(next(earlier.kind for earlier in recipe.stages if earlier.name == maker))
    hint = ""
    if name in DATA_INPUTS:
        wanted = ("examples",)
        if stage.kind == "reward_model":
            pointwise = stage.settings.objective == "pointwise"
            wanted = ("labelled responses",) if pointwise else ("pairs",)
            hint = "; objective pairwise learns from pairs" if pointwise and made == "pairs" else ""
    else:
        wanted = ("reward models",) if name in ("helpfulness", "safety") else ("language models",)
        if stage.kind == "reward_model":  # one that goes on learning
            wanted += ("reward models",)
    if stage.kind in BUILT_IN_KINDS and made is not None and made not in wanted:
        raise RecipeError(f"{where}.{name}: stage {maker!r} makes {made}, and {wanted[0]} are wanted here{hint}")


def _check_general(stage: StageSettings, where: str) -> None:
    """Refuses prompts of RL that no step would ever ask."""
    settings = stage.settings
    if stage.kind == "grpo" and "general" in stage.inputs:
        if settings.general_from >= settings.steps or not settings.general_share:
            raise RecipeError(
                f"{where}.general never joins: general_from is {settings.general_from} of {settings.steps} steps and "
                f"general_share {settings.general_share}; change them or leave general out"
            )


def _check_model_rewards(stage: StageSettings, where: str) -> None:
    """Refuses a reward that a model is to give where there is no such model, and a model that nothing weighs."""
    if stage.kind != "grpo":
        return
    by_type = stage.settings.rewards_by_type or {"": stage.settings.rewards}
    weighed = {part for weights in by_type.values() for part in weights}
    for reward, name in MODEL_REWARDS.items():
        if reward in weighed and name not in stage.inputs:
            raise RecipeError(f"{where}: the reward {reward!r} needs an input {name}: the name of a model, or stage:NAME")
    for name in dict.fromkeys(MODEL_REWARDS.values()):
        rewards = [reward for reward, model in MODEL_REWARDS.items() if model == name]
        if name in stage.inputs and not weighed.intersection(rewards):
            raise RecipeError(
                f"{where}.{name}: no reward {' or '.join(rewards)} has a weight; give it one in rewards or rewards_by_type"
            )


def _check_comparisons(recipe: Recipe) -> None:
    """Refuses comparisons of what is not measured."""
    measured = {stage.name: stage.benchmarks for stage in recipe.stages}
    for number, compared in enumerate(recipe.comparisons):
        benchmarks = (compared.benchmark, compared.against_benchmark or compared.benchmark)
        for key, side, benchmark in zip(("of", "against"), (compared.of, compared.against), benchmarks):
            where, name = f"comparisons[{number}].{key}", side.removesuffix(":before")
            if name not in measured:
                raise RecipeError(f"{where}: no stage {name!r}{nearest(name, list(measured))}")
            if benchmark not in measured[name]:
                raise RecipeError(
                    f"{where}: stage {name!r} is not measured on benchmark {benchmark!r}, only on "
                    f"{', '.join(measured[name]) or 'none'}; add it to the stage's benchmarks"
                )


class _Loader(yaml.SafeLoader):
    """Refuses a key that stands twice in a mapping, of which YAML's own reading drops the first without a word."""

    def construct_mapping(self, node: yaml.Node, deep: bool = False) -> dict:
        seen: dict[str, yaml.Node] = {}
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if isinstance(key, yaml.ScalarNode) and key.value != "<<":
                if key.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None, None, f"the key {key.value!r} stands twice in one mapping", key.start_mark
                    )
                seen[key.value] = key
        return super().construct_mapping(node, deep)


def load_recipe(path: str, overrides: Sequence[str] = ()) -> Recipe:
    """Reads a recipe file. Relative paths in it are kept; ``pipeline`` resolves them from the file's folder."""
    try:
        with open(path, encoding="utf-8") as file:
            document = yaml.load(file, _Loader)
    except OSError as error:
        raise RecipeError(f"recipe {path} can't be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise RecipeError(f"recipe {path} is not text in UTF-8: {error}") from error
    except RecursionError:
        raise RecipeError(f"recipe {path} is nested too deeply") from None
    except (yaml.YAMLError, ValueError) as error:  # ValueError: a date that there is not
        raise RecipeError(f"recipe {path} is not YAML: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict):
        raise RecipeError(f"recipe {path} must be a mapping with name and stages")
    return read_recipe(apply_overrides(document, overrides))


def to_document(recipe: Recipe) -> dict[str, Any]:
    """The resolved recipe as plain data: what is saved with a run and read back by ``read_recipe``."""
    document = dataclasses.asdict(dataclasses.replace(recipe, stages=()))
    document["stages"] = [
        {
            "name": stage.name,
            "kind": stage.kind,
            **stage.inputs,
            "benchmarks": list(stage.benchmarks),
            **dataclasses.asdict(stage.settings),
        }
        for stage in recipe.stages
    ]
    return document


def dump_recipe(recipe: Recipe) -> str:
    """YAML of the resolved recipe."""
    return yaml.safe_dump(to_document(recipe), sort_keys=False, allow_unicode=True)


def differences(old: Any, new: Any, path: str = "") -> list[tuple[str, Any, Any]]:
    """Where two documents differ: (dotted path, old value, new value); stages are compared by name."""
    if isinstance(old, Mapping) and isinstance(new, Mapping):
        keys = [*old, *(k for k in new if k not in old)]
        return [d for k in keys for d in differences(old.get(k), new.get(k), f"{path}.{k}" if path else str(k))]
    if path == "stages" and isinstance(old, list) and isinstance(new, list):
        return differences({s["name"]: s for s in old}, {s["name"]: s for s in new}, path)
    return [] if old == new else [(path, old, new)]

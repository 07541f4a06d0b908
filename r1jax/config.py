"""Recipes: plain dataclasses of every key, how YAML is read into them, and the check of the graph.

A recipe names models, data sets and benchmarks, and lists stages. A stage's inputs are names: ``base`` (one of
``models`` or ``data``) or ``stage:NAME`` (what an earlier stage made). Nothing here touches an accelerator.
"""

from __future__ import annotations

import dataclasses
import difflib
import importlib
import math
import types
import typing
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

MAX_NAME_BYTES = 100  # of a model, stage or benchmark: with what is put after it a file name stays under 255


class RecipeError(ValueError):
    """A recipe that can't be run; the message names the key, its value and the remedy."""


# ---------------------------------------------------------------------------------------------- sources
@dataclass(frozen=True)
class ModelSource:
    """``path``: a Hugging Face directory or an r1jax checkpoint; a relative one is looked up from the recipe's folder."""

    path: str


@dataclass(frozen=True)
class DataSource:
    """A prompt set: JSONL.

    ``template``, ``grader``: for rows that name none. ``limit``: the first so many rows only (0: all).
    ``prompt_field``, ``answer_field``: empty means the usual names (question, problem, Question/Body; answer, Answer).
    """

    path: str
    template: str = "r1_zero"
    grader: str = "verify_math"
    prompt_field: str = ""
    answer_field: str = ""
    limit: int = 0


@dataclass(frozen=True)
class BenchmarkSource(DataSource):
    """A benchmark: a data set and how it is sampled. The paper evaluates at T 0.6 and top-p 0.95."""

    samples: int = 4
    temperature: float = 0.6
    top_p: float = 0.95
    max_tokens: int = 32_768
    seed: int = 0


@dataclass(frozen=True)
class LoggingSettings:
    """Where a run's figures are shown besides its own files. Derived from those, so it may change between two sessions.

    ``tensorboard``: event files in ``<workdir>/tensorboard``. ``wandb``: Weights & Biases, where it is installed, under
    ``wandb_project``; its own environment variables (``WANDB_MODE=offline`` ...) hold. ``report_every``: seconds between two
    reports while the run goes on (0: at its end only).
    """

    tensorboard: bool = True
    wandb: bool = False
    wandb_project: str = "r1jax"
    report_every: int = 120


# ---------------------------------------------------------------------------------------------- parts of stages
@dataclass(frozen=True)
class MeshSettings:
    """Sizes of the mesh axes; -1 (at most one) takes what is left of the devices."""

    data: int = 1
    fsdp: int = -1
    tensor: int = 1


@dataclass(frozen=True)
class SamplerSettings:
    """How the sampler is laid out: ``rows`` prompts at a time, ``lanes`` samples of each at a time.

    ``chunk``: most tokens between two looks of the host. ``prompt_bucket``, ``completion_bucket``: the lengths of the
    first buckets; larger ones double. ``rows`` 0 and ``lanes`` 0 choose from the wave.
    """

    rows: int = 0
    lanes: int = 0
    chunk: int = 64
    prompt_bucket: int = 64
    completion_bucket: int = 128


@dataclass(frozen=True)
class OptimizerSettings:
    """AdamW. Betas, weight decay, warm-up and clip are those of DeepSeek-V3's pre-training; R1's are not published.

    ``schedule``: constant, linear or cosine, from ``lr`` after ``warmup_steps`` to ``lr * final_lr_ratio`` at the end.
    """

    lr: float = 3e-6
    schedule: str = "constant"
    warmup_steps: int = 0
    final_lr_ratio: float = 0.1
    b1: float = 0.9
    b2: float = 0.95
    epsilon: float = 1e-8
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    moments_dtype: str = "float32"


@dataclass(frozen=True)
class AdvantageSettings:
    """``losses.group_advantages``; ``normalize: gdpo`` is ``losses.gdpo_advantages`` of the reward's parts."""

    normalize: str = "std"
    ddof: int = 1
    epsilon: float = 1e-6


@dataclass(frozen=True)
class LossSettings:
    """``losses.PolicyLoss``, field by field; a test holds the two equal. ``losses/README.md`` has the published algorithms.

    ``ratio``, ``surrogate``, ``correction``, ``kl``: a built-in name or ``package.module:function``.
    """

    ratio: str = "token"
    surrogate: str = "clip"
    clip_low: float = 0.2
    clip_high: float = 0.2
    dual_clip: float = 3.0
    tau_positive: float = 1.0
    tau_negative: float = 1.05
    correction: str = "none"
    correction_level: str = "token"
    correction_low: float = 0.5
    correction_high: float = 2.0
    off_policy_delta: float = 0.0
    kl: str = "k3"
    kl_coefficient: float = 1e-3
    entropy_coefficient: float = 0.0


@dataclass(frozen=True)
class RouterSettings:
    """For models with experts.

    ``replay``: the trainer takes the experts that the sampler chose; otherwise it chooses again, and a metric counts how often
    otherwise. ``bias_rate``: the selection bias moves by so much against an expert's load after each update (DeepSeek-V3's
    pre-training: 1e-3; what R1's RL did is not published). ``balance``: coefficient of the sequence-wise balance loss (1e-4
    there).
    """

    replay: bool = True
    bias_rate: float = 0.0
    balance: float = 0.0


@dataclass(frozen=True)
class WorkerSettings:
    """The reward pool: ``count`` processes (0: one per core, at most 16); a request may take ``timeout`` seconds.

    A share of ungraded samples in a rollout above ``warn_ungraded`` warns; above ``stop_ungraded`` it stops the run.
    """

    count: int = 0
    timeout: float = 10.0
    warn_ungraded: float = 0.02
    stop_ungraded: float = 0.2


@dataclass(frozen=True)
class RewardSettings:
    """``rewards.parts.PartSettings``: what reward parts can be told.

    ``overlong_cache``: DAPO's ``L_cache`` in tokens (0: a fifth of the cap). ``repetition_ngram``: tokens that must come again
    in the same order to count as a repetition.
    """

    overlong_cache: int = 0
    repetition_ngram: int = 20


@dataclass(frozen=True)
class GRPOSettings:
    """Reasoning RL. The defaults are the paper's (R1-Zero; Nature 645:633): 512 prompts x 16 samples a rollout, 16 random
    minibatches, one epoch, lr 3e-6, KL 0.001, temperature 1, reference <- policy every 400 steps, 10,400 steps.

    ``prompts_per_wave``: a rollout is sampled and recorded in waves of so many prompts (0: in one), and a crash loses at most
    the unfinished wave; what is sampled does not depend on it. Each wave ends with few sequences, so small ones are slower.
    ``rewards``: part -> weight; a part is a built-in name or ``package.module:function``. ``rewards_by_type``: in its place,
    prompt type -> part -> weight (``rewards.mixing.mix_by_type``; equations 8 to 10). ``reward_settings``: what parts can be told.
    ``max_tokens``: the length cap; ``max_tokens_at``: ``{step: cap}``, raised from that step's rollout on.
    ``aggregation``: ``losses.token_weights``. ``row_tokens``: length of a packed row (0: the longest prompt and the cap).
    ``overlong_filtering``: sequences cut off at the cap take no part in the loss (DAPO); in the group's mean and std they do.
    ``rows_per_microbatch``: packed rows per micro-step; a multiple of the mesh's batch shards.
    ``dynamic_sampling``: most times that groups which are all right or all wrong are replaced by new ones (0: off).
    ``reference_every`` 0: never refreshed. ``checkpoint_every``, ``evaluate_every``: in optimizer steps; 0: at the end
    only. ``track``: benchmarks evaluated every ``evaluate_every``. ``mtp_coefficient``: above 0 the modules of multi-token
    prediction learn from the rollouts to look ahead of the new policy, which itself takes nothing from it. ``compute_dtype``: empty means bfloat16 on
    accelerators, float32 on CPU. ``remat``: ``models.REMAT_POLICIES``.
    """

    steps: int = 10_400
    prompts_per_rollout: int = 512
    samples_per_prompt: int = 16
    prompts_per_wave: int = 0
    minibatches: int = 16
    epochs: int = 1
    temperature: float = 1.0
    max_tokens: int = 32_768
    max_tokens_at: dict[int, int] = field(default_factory=dict)
    max_prompt_tokens: int = 2_048
    rewards: dict[str, float] = field(default_factory=lambda: {"accuracy": 1.0, "format": 1.0})
    rewards_by_type: dict[str, dict[str, float]] = field(default_factory=dict)
    reward_settings: RewardSettings = RewardSettings()
    aggregation: str = "sequence_mean"
    overlong_filtering: bool = False
    reference_every: int = 400
    dynamic_sampling: int = 0
    row_tokens: int = 0
    rows_per_microbatch: int = 8
    checkpoint_every: int = 50
    evaluate_every: int = 0
    track: tuple[str, ...] = ()
    compute_dtype: str = ""
    remat: str = "nothing"
    advantages: AdvantageSettings = AdvantageSettings()
    loss: LossSettings = LossSettings()
    optimizer: OptimizerSettings = OptimizerSettings()
    router: RouterSettings = RouterSettings()
    mtp_coefficient: float = 0.0
    sampler: SamplerSettings = SamplerSettings()
    workers: WorkerSettings = WorkerSettings()


# Keys of a stage's settings that may change when a run is resumed: they change what is shown or how fast, not what happens.
# Bounds on grading are among them: else a run that one overloaded moment has stopped could never go on.
SAFE_TO_CHANGE = frozenset(
    {"checkpoint_every", *(f"workers.{key}" for key in ("count", "timeout", "warn_ungraded", "stop_ungraded"))}
)

# kind -> (settings, class). A user's kind is "package.module:Class", whose ``settings`` is its dataclass.
BUILT_IN_KINDS: dict[str, tuple[type, str]] = {"grpo": (GRPOSettings, "r1jax.pipeline.grpo:GRPOStage")}
REQUIRED_INPUTS = {"grpo": ("model", "data")}


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

    ``notes``: a JSON file of tables that the report shows beside the run's own (``reporting``): figures of other runs.
    """

    name: str
    stages: tuple[StageSettings, ...]
    seed: int = 0
    models: dict[str, ModelSource] = field(default_factory=dict)
    data: dict[str, DataSource] = field(default_factory=dict)
    benchmarks: dict[str, BenchmarkSource] = field(default_factory=dict)
    mesh: MeshSettings = MeshSettings()
    logging: LoggingSettings = LoggingSettings()
    notes: str = ""


INPUT_KEYS = ("model", "reference", "data")
STAGE_KEYS = ("name", "kind", "benchmarks", *INPUT_KEYS)


# ---------------------------------------------------------------------------------------------- reading
def nearest(name: str, known: Sequence[str]) -> str:
    """``; did you mean X?`` for the nearest of the known names, else the list of them."""
    if not known:
        return "; there are none"
    close = difflib.get_close_matches(str(name), [str(k) for k in known], n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(map(str, known)))}"


def check_name(name: str, where: str) -> None:
    """Refuses names that can't be part of a file's name on every system: folders of a run are called after them.

    Raises:
      RecipeError: naming the name, what is wrong with it and what it may be.
    """
    for wrong, trouble in (
        (not name.strip(), "is empty"),
        (name != name.strip(), "begins or ends with white space"),
        (name.startswith((".", "-")), "begins with a full stop or a dash"),
        (any(c in '/\\:*?"<>|' for c in name), "has a character that file names can't have"),
        (not name.isprintable(), "has a control character"),
        (len(name.encode(errors="replace")) > MAX_NAME_BYTES, f"has over {MAX_NAME_BYTES} bytes"),
    ):
        if wrong:
            raise RecipeError(f"{where}: the name {name[:40]!r} {trouble}; use letters, digits, - and _")


def _number(value: Any, kind: type, where: str) -> Any:
    """Reads a number by its declared type: YAML takes ``3e-6`` and ``.5`` for strings, and people write ``10_000``."""
    if isinstance(value, str):
        try:
            value = float(value.replace("_", ""))
        except ValueError:
            raise RecipeError(f"{where} must be a number, not {value!r}") from None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise RecipeError(f"{where} must be a number, not {value!r}")
    if not math.isfinite(value):
        raise RecipeError(f"{where} must be finite, not {value!r}")
    if kind is float:
        return float(value)
    if value != int(value):
        raise RecipeError(f"{where} must be a whole number, not {value!r}")
    return int(value)


def _read(kind: Any, value: Any, where: str) -> Any:
    """Reads ``value`` as the annotated type ``kind``."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in arguments:
            return None
        return _read(next(a for a in arguments if a is not type(None)), value, where)
    if origin is dict:
        if not isinstance(value, Mapping):
            raise RecipeError(f"{where} must be a mapping, not {value!r}")
        return {
            _read(arguments[0], k, f"a key of {where}"): _read(arguments[1], v, f"{where}.{k}") for k, v in value.items()
        }
    if origin in (tuple, list):
        if isinstance(value, str) or not isinstance(value, Sequence):
            raise RecipeError(f"{where} must be a list, not {value!r}")
        return origin(_read(arguments[0], v, f"{where}[{i}]") for i, v in enumerate(value))
    if dataclasses.is_dataclass(kind):
        return read_dataclass(kind, value, where)
    if kind in (int, float):
        return _number(value, kind, where)
    if kind is bool:
        if not isinstance(value, bool):
            raise RecipeError(f"{where} must be true or false, not {value!r}")
        return value
    if kind is str:
        if isinstance(value, (Mapping, list)) or value is None:
            raise RecipeError(f"{where} must be text, not {value!r}")
        return str(value)
    return value


def read_dataclass(kind: type, value: Any, where: str) -> Any:
    """Reads a mapping into a dataclass; an unknown key is an error that names the nearest known one."""
    value = {} if value is None else value
    if not isinstance(value, Mapping):
        raise RecipeError(f"{where} must be a mapping, not {value!r}")
    hints = typing.get_type_hints(kind)
    known = [f.name for f in dataclasses.fields(kind)]
    for key in value:
        if key not in known:
            raise RecipeError(f"unknown key {where}.{key}{nearest(key, known)}")
    missing = [
        f.name
        for f in dataclasses.fields(kind)
        if f.name not in value and f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
    ]
    if missing:
        raise RecipeError(f"{where} lacks {', '.join(missing)}")
    return kind(**{key: _read(hints[key], v, f"{where}.{key}") for key, v in value.items()})


def import_name(path: str, where: str) -> Any:
    """Resolves ``package.module:name``."""
    module, _, name = path.partition(":")
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise RecipeError(f"{where}: {path!r} can't be imported: {error}") from error


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
        inputs={k: _read(str, value[k], f"{where}.{k}") for k in INPUT_KEYS if k in value},
        benchmarks=_read(tuple[str, ...], value.get("benchmarks") or [], f"{where}.benchmarks"),
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
            sources = recipe.data if name == "data" else recipe.models
            if value.startswith("stage:"):
                if value.removeprefix("stage:") not in seen:
                    raise RecipeError(
                        f"{where}.{name}: no earlier stage {value.removeprefix('stage:')!r}{nearest(value[6:], seen)}"
                    )
            elif value not in sources:
                raise RecipeError(f"{where}.{name}: nothing named {value!r}{nearest(value, list(sources))}")
        for key, names in (("benchmarks", stage.benchmarks), ("track", getattr(stage.settings, "track", ()))):
            for name in names:
                if name not in recipe.benchmarks:
                    raise RecipeError(f"{where}.{key}: no benchmark {name!r}{nearest(name, list(recipe.benchmarks))}")
        seen.append(stage.name)


def load_recipe(path: str, overrides: Sequence[str] = ()) -> Recipe:
    """Reads a recipe file. Relative paths in it are kept; ``pipeline`` resolves them from the file's folder."""
    try:
        with open(path, encoding="utf-8") as file:
            document = yaml.safe_load(file)
    except OSError as error:
        raise RecipeError(f"recipe {path} can't be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
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

"""Recipes: plain dataclasses of every key, how YAML is read into them, and the check of the graph.

A recipe names models, data sets and benchmarks, and lists stages. A stage's inputs are names: ``base`` (one of
``models`` or ``data``) or ``stage:NAME`` (what an earlier stage made). Nothing here touches an accelerator.
"""

from r1jax.config.curation import (
    ColdStartSettings,
    CurationSettings,
    DeduplicationSettings,
    FilterSettings,
    RejectionSamplingSettings,
    RewriterSettings,
    SelectionSettings,
)
from r1jax.config.errors import RecipeError, nearest
from r1jax.config.judging import JUDGE_PROMPTS, JudgeSettings
from r1jax.config.kinds import (
    BUILT_IN_KINDS,
    MODEL_REWARDS,
    REQUIRED_INPUTS,
    SAFE_TO_CHANGE,
    GRPOSettings,
    OnPolicyDistillationSettings,
    SFTSettings,
)
from r1jax.config.parts import (
    AdvantageSettings,
    HackingSettings,
    LossSettings,
    MeshSettings,
    OptimizerSettings,
    RewardSettings,
    RouterSettings,
    SamplerSettings,
    WorkerSettings,
)
from r1jax.config.reading import MAX_NAME_BYTES, check_name, import_name, read_dataclass, read_value
from r1jax.config.recipe import (
    DATA_INPUTS,
    INPUT_KEYS,
    STAGE_KEYS,
    Recipe,
    StageSettings,
    apply_overrides,
    check_graph,
    differences,
    dump_recipe,
    load_recipe,
    read_recipe,
    stage_settings_type,
    to_document,
)
from r1jax.config.reward_models import PreferencePairsSettings, RewardModelSettings
from r1jax.config.sources import BenchmarkSource, ComparisonSettings, DataSource, LoggingSettings, ModelSource

__all__ = [
    "AdvantageSettings",
    "BUILT_IN_KINDS",
    "BenchmarkSource",
    "ColdStartSettings",
    "ComparisonSettings",
    "CurationSettings",
    "DATA_INPUTS",
    "DataSource",
    "DeduplicationSettings",
    "FilterSettings",
    "GRPOSettings",
    "HackingSettings",
    "INPUT_KEYS",
    "JUDGE_PROMPTS",
    "JudgeSettings",
    "LoggingSettings",
    "LossSettings",
    "MAX_NAME_BYTES",
    "MODEL_REWARDS",
    "MeshSettings",
    "ModelSource",
    "OnPolicyDistillationSettings",
    "OptimizerSettings",
    "PreferencePairsSettings",
    "REQUIRED_INPUTS",
    "Recipe",
    "RecipeError",
    "RejectionSamplingSettings",
    "RewardModelSettings",
    "RewardSettings",
    "RewriterSettings",
    "RouterSettings",
    "SAFE_TO_CHANGE",
    "SFTSettings",
    "STAGE_KEYS",
    "SamplerSettings",
    "SelectionSettings",
    "StageSettings",
    "WorkerSettings",
    "apply_overrides",
    "check_graph",
    "check_name",
    "differences",
    "dump_recipe",
    "import_name",
    "load_recipe",
    "nearest",
    "read_dataclass",
    "read_recipe",
    "read_value",
    "stage_settings_type",
    "to_document",
]

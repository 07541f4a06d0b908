"""What a GRPO stage refuses before anything is loaded, and what it reads off its settings."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from r1jax import config
from r1jax.losses.weights import RULES
from r1jax.models import REMAT_POLICIES
from r1jax.models.precision import compute_dtype
from r1jax.pipeline.checks import check_sampler
from r1jax.pipeline.grpo.model_rewards import JUDGE_FORMS, rule_parts
from r1jax.pipeline.grpo.objective import ADVANTAGE_RULES, policy_loss
from r1jax.rewards.mixing import DEFAULT_TYPE, part_names, prompt_type
from r1jax.rewards.parts import part as reward_part
from r1jax.rewards.penalties import overlong_penalty, repeated_ngrams
from r1jax.scoring.judge import check_judge_settings
from r1jax.scoring.judge_prompts import load_judge_prompts
from r1jax.training import make_optimizer


def check_settings(name: str, settings: config.GRPOSettings) -> None:
    """Refuses numbers that can't be trained with, before anything is loaded.

    Raises:
      RecipeError: naming the key, its value and the remedy.
    """
    where = f"stages.{name}"
    for key in ("steps", "prompts_per_rollout", "minibatches", "epochs", "max_tokens", "rows_per_microbatch"):
        if getattr(settings, key) < 1:
            raise config.RecipeError(f"{where}.{key} must be at least 1, not {getattr(settings, key)}")
    if settings.samples_per_prompt < 2:
        raise config.RecipeError(
            f"{where}.samples_per_prompt must be at least 2, not {settings.samples_per_prompt}: "
            "an advantage is against the rest of the group"
        )
    sequences = settings.prompts_per_rollout * settings.samples_per_prompt
    if sequences % settings.minibatches:
        raise config.RecipeError(
            f"{where}.minibatches: {settings.prompts_per_rollout} prompts x {settings.samples_per_prompt} samples do not "
            f"divide into {settings.minibatches} minibatches; change it or prompts_per_rollout"
        )
    if not settings.temperature > 0:
        raise config.RecipeError(f"{where}.temperature must be positive in training, not {settings.temperature}")
    for key, weights in reward_weights(settings).items():
        if not any(weights.values()):
            name = f"rewards_by_type.{key}" if settings.rewards_by_type else "rewards"
            raise config.RecipeError(f"{where}.{name} must give a weight to at least one part, not {dict(weights)}")
    if settings.rewards_by_type and settings.advantages.normalize == "gdpo":
        raise config.RecipeError(
            f"{where}.advantages.normalize gdpo normalises each part over all prompts; use rewards, not "
            "rewards_by_type, or another rule"
        )
    if not 0 <= settings.general_share < 1:
        raise config.RecipeError(f"{where}.general_share must lie from 0 to below 1, not {settings.general_share}")
    _check_hacking(f"{where}.hacking", settings.hacking)
    if any(cap < 1 for cap in settings.max_tokens_at.values()):
        raise config.RecipeError(f"{where}.max_tokens_at must hold positive caps, not {settings.max_tokens_at}")
    if settings.prompts_per_wave and settings.prompts_per_rollout % settings.prompts_per_wave:
        raise config.RecipeError(
            f"{where}.prompts_per_wave: {settings.prompts_per_rollout} prompts per rollout do not divide into waves of "
            f"{settings.prompts_per_wave}; change one of them, or make it 0 for one wave"
        )
    for key in (
        "prompts_per_wave",
        "reference_every",
        "general_from",
        "dynamic_sampling",
        "checkpoint_every",
        "evaluate_every",
        "row_tokens",
    ):
        if getattr(settings, key) < 0:
            raise config.RecipeError(f"{where}.{key} can't be negative, but is {getattr(settings, key)}; 0 switches it off")
    check_sampler(where, settings.sampler)
    if not settings.workers.timeout > 0:
        raise config.RecipeError(f"{where}.workers.timeout must be positive, not {settings.workers.timeout}")
    _check_names(where, settings)


def _check_hacking(where: str, settings: config.HackingSettings) -> None:
    for key, least in (("window", 2), *((f.name, 0) for f in dataclasses.fields(settings))):
        if getattr(settings, key) < least:
            raise config.RecipeError(f"{where}.{key} must be at least {least}, not {getattr(settings, key)}")
    if settings.length_factor <= 1:
        raise config.RecipeError(f"{where}.length_factor must be over 1, not {settings.length_factor}; 1000 switches it off")


def _check_names(where: str, settings: config.GRPOSettings) -> None:
    """Refuses names and numbers that a loss, an optimizer or a reward would refuse later."""
    for key, value, known in (
        ("aggregation", settings.aggregation, RULES),
        ("advantages.normalize", settings.advantages.normalize, ADVANTAGE_RULES),
        ("remat", settings.remat, REMAT_POLICIES),
    ):
        if value not in known:
            raise config.RecipeError(f"{where}.{key} {value!r} is unknown{config.nearest(value, list(known))}")
    try:
        check_judge_settings(settings.judging, f"{where}.judging")
        asked = load_judge_prompts(settings.judging.prompts)
        weighed = part_names({}, reward_weights(settings))
        for part, form in JUDGE_FORMS.items():
            if part in weighed and form not in asked.texts:
                raise ValueError(
                    f"judging.prompts: {settings.judging.prompts} has no {form}.txt, which reward {part!r} needs"
                )
        policy_loss(settings.loss)
        make_optimizer(settings.optimizer, settings.steps)
        compute_dtype("cpu", settings.compute_dtype)
        for part in rule_parts(weighed):
            if ":" not in part:  # a user's own is imported by the workers alone
                reward_part(part)
        told = settings.reward_settings
        repeated_ngrams("", told.repetition_ngram)
        for cap in (settings.max_tokens, *settings.max_tokens_at.values()):
            overlong_penalty(0, cap, told.overlong_cache)
    except ValueError as error:
        raise config.RecipeError(f"{where}: {error}") from error


def reward_weights(settings: config.GRPOSettings) -> Mapping[str, Mapping[str, float]]:
    """Prompt type -> part -> weight; one type for all prompts where the recipe names none."""
    return settings.rewards_by_type or {DEFAULT_TYPE: settings.rewards}


def length_cap(settings: config.GRPOSettings, step: int) -> int:
    """The cap on completions for a rollout that begins at this step."""
    reached = [at for at in settings.max_tokens_at if at <= step]
    return settings.max_tokens_at[max(reached)] if reached else settings.max_tokens


def type_of(row: Mapping[str, Any], settings: config.GRPOSettings) -> str:
    """The type of prompt whose weights hold for a row."""
    return prompt_type(row) if settings.rewards_by_type else DEFAULT_TYPE

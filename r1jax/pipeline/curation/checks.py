"""What a data-making stage refuses before anything is loaded."""

from __future__ import annotations

from r1jax import config
from r1jax.data.template import check_template
from r1jax.pipeline.checks import check_sampler
from r1jax.pipeline.curation.filters import make_filters, own_filter
from r1jax.pipeline.curation.judging import check_judging
from r1jax.pipeline.curation.selection import check_selection


def check_settings(name: str, settings: config.CurationSettings) -> None:
    """Refuses settings that can't be worked with.

    Raises:
      RecipeError: naming the key, its value and the remedy.
    """
    where = f"stages.{name}"
    for key in ("samples_per_prompt", "prompts_per_wave", "max_tokens", "max_prompt_tokens"):
        if getattr(settings, key) < 1:
            raise config.RecipeError(f"{where}.{key} must be at least 1, not {getattr(settings, key)}")
    for key in ("prompts", "decontamination_words"):
        if getattr(settings, key) < 0:
            raise config.RecipeError(f"{where}.{key} can't be negative, but is {getattr(settings, key)}")
    _check_sampling(where, settings.temperature, settings.top_p)
    if not 0 <= settings.deduplication.near <= 1:
        raise config.RecipeError(
            f"{where}.deduplication.near is a similarity from 0 to 1, not {settings.deduplication.near}; 0 switches it off"
        )
    if settings.deduplication.ngram < 1:
        raise config.RecipeError(f"{where}.deduplication.ngram must be at least 1, not {settings.deduplication.ngram}")
    if not settings.workers.timeout > 0:
        raise config.RecipeError(f"{where}.workers.timeout must be positive, not {settings.workers.timeout}")
    check_sampler(where, settings.sampler)
    if settings.template:
        try:
            check_template(settings.template)
        except ValueError as error:
            raise config.RecipeError(f"{where}.template: {error}") from error
    check_selection(settings.selection, f"{where}.selection")
    make_filters(settings.filters, settings.form, settings.filter_settings, where)
    if settings.judge_function:
        own_filter(settings.judge_function, f"{where}.judge_function")
    if isinstance(settings, config.RejectionSamplingSettings):
        _check_rejection_sampling(where, settings)
    if isinstance(settings, config.ColdStartSettings):
        _check_cold_start(where, settings)


def _check_sampling(where: str, temperature: float, top_p: float) -> None:
    if temperature < 0:
        raise config.RecipeError(f"{where}.temperature can't be negative, but is {temperature}")
    if not 0 < top_p <= 1:
        raise config.RecipeError(f"{where}.top_p must be over 0 and at most 1, not {top_p}")


def _check_rejection_sampling(where: str, settings: config.RejectionSamplingSettings) -> None:
    if not 0 <= settings.general_share < 1:
        raise config.RecipeError(
            f"{where}.general_share is a part of the set from 0 to under 1, not {settings.general_share}"
        )
    check_judging(settings.judging, f"{where}.judging")


def _check_cold_start(where: str, settings: config.ColdStartSettings) -> None:
    if settings.form != "zero":
        raise config.RecipeError(
            f"{where}.form must be zero, not {settings.form!r}: a cold start is made of R1-Zero's samples"
        )
    if not settings.summaries:
        raise config.RecipeError(f"{where}.summaries must hold at least one language's, such as en: 'It is {{answer}}.'")
    for language, text in settings.summaries.items():
        if "{answer}" not in text:
            raise config.RecipeError(f"{where}.summaries.{language} must contain {{answer}}, but is {text!r}")
    _check_sampling(f"{where}.rewriter_sampling", settings.rewriter_sampling.temperature, settings.rewriter_sampling.top_p)
    if settings.rewriter_sampling.rows < 1:
        raise config.RecipeError(f"{where}.rewriter_sampling.rows must be at least 1, not {settings.rewriter_sampling.rows}")
    if settings.rewriter_sampling.max_tokens < 0:
        raise config.RecipeError(
            f"{where}.rewriter_sampling.max_tokens can't be negative, but is {settings.rewriter_sampling.max_tokens}; "
            "0 takes the stage's max_tokens"
        )

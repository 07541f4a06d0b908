"""What stages of several kinds refuse before anything is computed."""

from __future__ import annotations

from collections.abc import Sequence

from r1jax import checkpoint, config
from r1jax.data.examples import ExampleRow
from r1jax.data.preferences import encode_responses
from r1jax.scoring.reward_model import check_ids, read_card


def check_sampler(where: str, settings: config.SamplerSettings) -> None:
    """Refuses sizes with which no sequence would ever end.

    Raises:
      RecipeError: naming the key under ``where`` and its value.
    """
    for key, least in (("chunk", 1), ("prompt_bucket", 1), ("completion_bucket", 1), ("rows", 0), ("lanes", 0)):
        if getattr(settings, key) < least:
            raise config.RecipeError(f"{where}.sampler.{key} must be at least {least}, not {getattr(settings, key)}")


def check_judge_model(where: str, path: str, settings: config.JudgeSettings) -> None:
    """Refuses a model that can't judge as ``settings`` ask, from its configuration alone.

    Raises:
      RecipeError: it has no tokenizer, or too few positions.
    """
    if checkpoint.load_tokenizer(path) is None:
        raise config.RecipeError(f"{where}: {path} has no tokenizer; put its tokenizer.json or tokenizer.model there")
    positions = checkpoint.read_config(path).max_position_embeddings
    if settings.max_prompt_tokens + settings.max_tokens > positions:
        raise config.RecipeError(
            f"{where}: max_prompt_tokens {settings.max_prompt_tokens} and max_tokens {settings.max_tokens} need more than the "
            f"{positions} positions of {path}: lower them"
        )


def check_reward_model(where: str, path: str, problems: Sequence[str]) -> None:
    """Refuses a model that can't reward, from its configuration, its card and its tokenizer alone.

    Args:
      problems: some that it will be asked about.

    Raises:
      RecipeError: a language model; no tokenizer, or one that does not fit the model or the card's template.
      ValueError: no card, or a damaged one.
    """
    model = checkpoint.read_config(path)
    if not model.num_labels:
        raise config.RecipeError(
            f"{where}: {path} is a language model and gives no scores; a reward model has a scalar head, kind reward_model makes one"
        )
    card, tokenizer = read_card(path), checkpoint.load_tokenizer(path)
    if tokenizer is None:
        raise config.RecipeError(f"{where}: {path} has no tokenizer; put its tokenizer.json or tokenizer.model there")
    rows = [ExampleRow(path, "Yes.", card.template, problem) for problem in problems]
    try:
        examples = encode_responses(rows, tokenizer, card.reads)
        check_ids(path, [example.tokens for example in examples if example is not None], model.vocab_size)
    except ValueError as error:
        raise config.RecipeError(f"{where}: {error}") from error

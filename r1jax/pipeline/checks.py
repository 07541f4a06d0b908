"""What stages of several kinds refuse before anything is computed."""

from __future__ import annotations

from r1jax import checkpoint, config


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

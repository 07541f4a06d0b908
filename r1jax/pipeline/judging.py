"""A model as a judge: loaded and held on the mesh."""

from __future__ import annotations

from collections.abc import Callable

from r1jax import checkpoint, config, sharding
from r1jax.models.precision import compute_dtype
from r1jax.scoring.judge import Judge, SampledAnswers
from r1jax.scoring.judge_prompts import load_judge_prompts


def load_judge(
    path: str,
    settings: config.JudgeSettings,
    layout: sharding.Layout,
    *,
    seed: int = 0,
    should_stop: Callable[[], bool] | None = None,
) -> Judge:
    """The judge that a model makes.

    Args:
      path: a Hugging Face directory or an r1jax checkpoint.
      layout: any on the mesh.
      should_stop: looked at while sampling; a judge that was stopped raises ``rollout.SamplingStopped``.

    Raises:
      ValueError: no tokenizer, unknown prompts, more tokens than the model has positions for.
    """
    prompts = load_judge_prompts(settings.prompts)
    layout = sharding.layout(layout.mesh, sharding.ROLLOUT_RULES)
    dtype = compute_dtype(layout.platform)
    model = checkpoint.load_model(path, layout.mesh, dtype, rules=sharding.ROLLOUT_RULES, prediction=False)
    if model.tokenizer is None:
        raise ValueError(f"{path} has no tokenizer; put its tokenizer.json or tokenizer.model there")
    sampled = SampledAnswers(
        model.params,
        model.config,
        layout,
        model.tokenizer,
        settings,
        seed=seed,
        dtype=dtype,
        should_stop=should_stop,
    )
    return Judge(sampled, model.tokenizer, prompts, settings)

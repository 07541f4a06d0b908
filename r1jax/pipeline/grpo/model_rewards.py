"""The parts of a rollout's reward that models give, asked for the prompts whose type weighs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from r1jax.checkpoint import load_model
from r1jax.config import MODEL_REWARDS, GRPOSettings
from r1jax.pipeline.judging import load_judge
from r1jax.pipeline.stage import Context
from r1jax.rewards import RewardRequest
from r1jax.scoring.judge_parts import CorrectnessPart, PreferencePart
from r1jax.scoring.parts import ModelPart, Scored, model_scores
from r1jax.scoring.reward_model import RewardModel, read_card

Weights = Mapping[str, Mapping[str, float]]


def rule_parts(names: Sequence[str]) -> tuple[str, ...]:
    """Those of the parts that rules give: what the reward pool is asked."""
    return tuple(name for name in names if name not in MODEL_REWARDS)


REWARD_MODELS = ("helpfulness", "safety")  # inputs, and the parts that they give: a score, a real number
JUDGE_PARTS = {"judge": CorrectnessPart, "judge_preference": PreferencePart}
JUDGE_FORMS = {"judge": "reference", "judge_preference": "pair"}  # the prompts that they are asked by


class ModelRewards:
    """``evaluation.grading.ModelScores`` of a stage.

    Args:
      parts: the models. type_of: the type of a prompt's row. weights: type -> part -> weight.
    """

    def __init__(self, parts: Sequence[ModelPart], type_of: Callable[[Mapping[str, Any]], str], weights: Weights):
        self._parts, self._type_of, self._weights = tuple(parts), type_of, weights

    def warm_up(self, should_stop: Callable[[], bool] | None = None) -> None:
        """Compiles what the parts need.

        Raises:
          SamplingStopped: ``should_stop`` said so.
        """
        for part in self._parts:
            part.warm_up(should_stop)

    def __call__(self, requests: Sequence[RewardRequest]) -> list[dict[str, Scored]]:
        """The values of each request: of the parts with a weight for its type, 0 (logged, not counted) among them, and no others."""
        found: list[dict[str, Scored]] = [{} for _ in requests]
        for part in self._parts:
            asked = [i for i, request in enumerate(requests) if self._needs(part.name, request)]
            for i, scored in zip(asked, model_scores(part, [requests[i] for i in asked]) if asked else ()):
                found[i][part.name] = scored
        return found

    def _needs(self, part: str, request: RewardRequest) -> bool:
        return part in self._weights.get(self._type_of(request.row), {})


def longest_text(settings: GRPOSettings) -> int:
    """Tokens up to which a reward model reads prompt and response: the stage's own caps, and a quarter more for its template and for
    a tokenizer that needs more of them. Longer texts are ungraded."""
    caps = settings.max_prompt_tokens + max([settings.max_tokens, *settings.max_tokens_at.values()])
    return caps + max(64, caps // 4)


def load_model_rewards(
    inputs: Mapping[str, Any], settings: GRPOSettings, weights: Weights, context: Context, *, seed: int, dtype: Any
) -> list[ModelPart]:
    """The models among a stage's inputs that reward, on its mesh.

    Raises:
      ValueError: a model that can't give its reward, such as one without a scalar head.
    """
    parts: list[ModelPart] = []
    for name in REWARD_MODELS:
        if name in inputs:
            card, model = read_card(inputs[name]), load_model(inputs[name], context.layout.mesh, dtype)
            # Not all of its positions: every bucket of lengths is compiled, and needs room beside the policy.
            longest = min(model.config.max_position_embeddings, longest_text(settings))
            made = {"rows": settings.rows_per_microbatch, "longest": longest, "compute_dtype": dtype}
            parts.append(RewardModel(name, model, card, context.layout, **made))
    if "judge" in inputs:
        judge = load_judge(inputs["judge"], settings.judging, context.layout, seed=seed, should_stop=context.stop)
        weighed = {part for of_type in weights.values() for part in of_type}
        parts += [make(judge, name) for name, make in JUDGE_PARTS.items() if name in weighed]
    return parts

"""The parts of a rollout's reward that models give, asked for the prompts whose type weighs them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from r1jax.config import MODEL_REWARDS
from r1jax.rewards import RewardRequest
from r1jax.scoring.parts import ModelPart, model_values

Weights = Mapping[str, Mapping[str, float]]


def rule_parts(names: Sequence[str]) -> tuple[str, ...]:
    """Those of the parts that rules give: what the reward pool is asked."""
    return tuple(name for name in names if name not in MODEL_REWARDS)


class ModelRewards:
    """``evaluation.grading.ModelScores`` of a stage.

    Args:
      parts: the models. type_of: the type of a prompt's row. weights: type -> part -> weight.
    """

    def __init__(self, parts: Sequence[ModelPart], type_of: Callable[[Mapping[str, Any]], str], weights: Weights):
        self._parts, self._type_of, self._weights = tuple(parts), type_of, weights

    def __call__(self, requests: Sequence[RewardRequest]) -> list[dict[str, float | None]]:
        """The values of each request: of the parts with a weight for its type and no others."""
        found: list[dict[str, float | None]] = [{} for _ in requests]
        for part in self._parts:
            asked = [i for i, request in enumerate(requests) if self._needs(part.name, request)]
            for i, value in zip(asked, model_values(part, [requests[i] for i in asked]) if asked else ()):
                found[i][part.name] = value
        return found

    def _needs(self, part: str, request: RewardRequest) -> bool:
        return bool(self._weights.get(self._type_of(request.row), {}).get(part))


def load_model_rewards(inputs: Mapping[str, Any], layout: Any, dtype: Any) -> list[ModelPart]:
    """The models among a stage's inputs that reward, on its mesh."""
    if names := [name for name in MODEL_REWARDS if name in inputs]:
        raise ValueError(f"inputs {', '.join(names)}: no model can be loaded for this reward yet")
    return []

"""What a GRPO stage learns towards: its policy loss and its advantages, built from the recipe."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from r1jax.config import AdvantageSettings, LossSettings, RecipeError, import_name
from r1jax.losses import PolicyLoss, gdpo_advantages, group_advantages
from r1jax.losses.advantages import NORMALIZATIONS
from r1jax.rewards import RewardRecord, mix_by_type

# Besides group_advantages' own, one that looks at the parts of the reward.
ADVANTAGE_RULES = (*NORMALIZATIONS, "gdpo")
FUNCTIONS = ("ratio", "surrogate", "correction", "kl")


def policy_loss(settings: LossSettings) -> PolicyLoss:
    """The loss of a recipe; ``package.module:function`` in a part's place is imported.

    Raises:
      RecipeError: a name that can't be imported.
      ValueError: an unknown name or a number out of range.
    """
    fields = dict(vars(settings))
    for part in FUNCTIONS:
        if ":" in fields[part]:
            fields[part] = import_name(fields[part], f"loss.{part}")
            if not callable(fields[part]):
                raise RecipeError(f"loss.{part} {getattr(settings, part)!r} is no function")
    return PolicyLoss(**fields)


def rollout_advantages(
    records: Sequence[RewardRecord],
    types: Sequence[str],
    weights: Mapping[str, Mapping[str, float]],
    samples: int,
    settings: AdvantageSettings,
) -> tuple[np.ndarray, np.ndarray]:
    """``(advantages float32 [P, samples], graded bool [P, samples])`` of a whole rollout, its records in order of prompts.

    Args:
      types: of each record's prompt. weights: type -> part -> weight; GDPO knows one type only.
    """
    rewards, graded = mix_by_type(records, types, weights)
    graded = graded.reshape(-1, samples)
    numbers = {"ddof": settings.ddof, "epsilon": settings.epsilon}
    if settings.normalize != "gdpo":
        return group_advantages(rewards.reshape(-1, samples), graded, normalize=settings.normalize, **numbers), graded
    (only,) = weights.values()
    counted = {name: weight for name, weight in only.items() if weight}
    parts = {
        name: np.array([np.nan if r.parts[name] is None else r.parts[name] for r in records]).reshape(-1, samples)
        for name in counted
    }
    return gdpo_advantages(parts, counted, graded, **numbers), graded

"""Mixing: arithmetic on reward records. Parts have weights, which may differ by the type of the prompt."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from r1jax.rewards.record import RewardRecord

Weights = Mapping[str, float]
# A row without ``type`` is a reasoning problem.
DEFAULT_TYPE = "reasoning"


def part_values(records: Sequence[RewardRecord], names: Sequence[str]) -> np.ndarray:
    """The named parts of each record, float64 ``[samples, parts]``; NaN where a part could not be graded.

    Raises:
      ValueError: a record lacks a part.
    """
    try:
        values = [[record.parts[name] for name in names] for record in records]
    except KeyError as missing:
        record = next(record for record in records if missing.args[0] not in record.parts)
        raise ValueError(f"a record has no reward {missing}; it has {', '.join(record.parts) or 'none'}") from None
    return np.array(values, np.float64).reshape(len(records), len(names))  # None becomes NaN


def mix(records: Sequence[RewardRecord], weights: Weights) -> tuple[np.ndarray, np.ndarray]:
    """The weighted sum of the parts of each record.

    A part of weight 0 is logged but not needed. Where a needed part is None the sample is ungraded: its reward is 0 and
    takes part in nothing.

    Returns:
      (rewards float64 ``[samples]``, graded bool ``[samples]``).

    Raises:
      ValueError: a record lacks a part that has a weight, or a weight is no finite number.
    """
    for name, weight in weights.items():
        if not np.isfinite(weight):
            raise ValueError(f"the weight of reward {name!r} must be a finite number, not {weight!r}")
    values = part_values(records, list(weights))
    needed = np.array([weight != 0 for weight in weights.values()], np.bool_)
    rewards = np.zeros(len(records), np.float64)
    for column, weight in zip(values[:, needed].T, filter(None, weights.values())):  # summed in the order of the recipe
        rewards += weight * column
    graded = ~np.isnan(values[:, needed]).any(axis=1)
    return np.where(graded, rewards, 0.0), graded


def prompt_type(row: Mapping[str, Any]) -> str:
    """The type of a prompt: its row's ``type``, ``reasoning`` where it names none."""
    return str(row.get("type") or DEFAULT_TYPE)


def weights_of_type(type_: str, weights: Mapping[str, Weights]) -> Weights:
    """The weights for prompts of a type.

    Raises:
      ValueError: there are none; the message names the nearest type.
    """
    if type_ in weights:
        return weights[type_]
    close = difflib.get_close_matches(type_, weights, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}?" if close else f"there are {', '.join(weights) or 'none'}"
    raise ValueError(f"no reward weights for prompts of type {type_!r}; {hint}")


def mix_by_type(
    records: Sequence[RewardRecord], types: Sequence[str], weights: Mapping[str, Weights]
) -> tuple[np.ndarray, np.ndarray]:
    """The weighted sum of the parts of each record, with the weights of its prompt's type (``mix``).

    Nature 645:633, equations 8 to 10: ``Reward = Reward_reasoning + Reward_general + Reward_language``, of which a prompt
    has only its own branch; ``Reward_reasoning`` is accuracy and format, ``Reward_general`` the reward model's score and
    format. So with parts named in a recipe:

        {reasoning: {accuracy: 1, format: 1, language: 1}, general: {helpfulness: 1, format: 1, language: 1}}

    Parts of other types are not needed: a general prompt without an accuracy is graded.

    Args:
      types: ``[samples]``, of each record's prompt (``prompt_type``).
      weights: type -> part -> weight.

    Raises:
      ValueError: a type without weights, as many types as not records, or what ``mix`` refuses.
    """
    if len(types) != len(records):
        raise ValueError(f"{len(records)} records with {len(types)} types of prompts: there must be one for each")
    rewards, graded = np.zeros(len(records), np.float64), np.zeros(len(records), np.bool_)
    of_type = np.array(types, dtype=object)
    for type_ in dict.fromkeys(types):
        places = np.flatnonzero(of_type == type_)
        rewards[places], graded[places] = mix([records[i] for i in places], weights_of_type(type_, weights))
    return rewards, graded


def part_names(weights: Weights, by_type: Mapping[str, Weights] | None = None) -> tuple[str, ...]:
    """The parts that any prompt may need, each once, in the order of the recipe."""
    return tuple(dict.fromkeys([*weights, *(name for one in (by_type or {}).values() for name in one)]))

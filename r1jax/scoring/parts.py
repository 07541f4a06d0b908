"""Reward parts that a model gives: what a judge and a reward model have in common, and what an RL stage asks."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from r1jax.rewards.record import RewardRequest


@dataclass(frozen=True)
class Scored:
    """A value, or None; and a line for people where something is the matter: why there is none, or what stands in its place."""

    value: float | None
    reason: str = ""


class ModelPart(Protocol):
    """A part of the reward that a model gives to whole batches, beside the rules, which grade one sample at a time.

    Given requests (text and rows, never token ids: each part writes its own input), it gives a value for each, in their order;
    None, with the reason, where it can't grade (an answer that can't be read, a text too long for the model): that sample is then
    ungraded (``rewards.mix``), not worth 0. The values depend on the requests alone, never on how they were batched.

    Attributes:
      name: the key of its values in ``RewardRecord.parts``, and of their weight in a recipe's rewards.
    """

    name: str

    def score(self, requests: Sequence[RewardRequest]) -> list[Scored]: ...

    def warm_up(self, should_stop: Callable[[], bool] | None = None) -> None:
        """Compiles what any requests may need, so that no later call does.

        Raises:
          SamplingStopped: ``should_stop``, looked at between programs, said so.
        """


def model_scores(part: ModelPart, requests: Sequence[RewardRequest]) -> list[Scored]:
    """What a part gives to the requests; a number that is not finite becomes None.

    Raises:
      ValueError: it gave more or fewer values than there are requests: nobody knows then whose they are.
    """
    found = part.score(requests)
    if len(found) != len(requests):
        raise ValueError(f"reward {part.name!r} gave {len(found)} values to {len(requests)} requests")
    return [_finite(part.name, scored) for scored in found]


def _finite(name: str, scored: Scored) -> Scored:
    if scored.value is None:
        return scored
    if not math.isfinite(scored.value):
        return Scored(None, f"reward {name}: the model gave {scored.value}")
    return replace(scored, value=float(scored.value))

"""Reward parts that a model gives: what a judge and a reward model have in common, and what an RL stage asks."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from r1jax.rewards.record import RewardRequest


class ModelPart(Protocol):
    """A part of the reward that a model gives to whole batches, beside the rules, which grade one sample at a time.

    Called with requests (text and rows, never token ids: each part writes its own input), it gives a value for each, in
    their order; None where it can't grade (an answer that can't be read, a text too long for the model): that sample is
    then ungraded (``rewards.mix``), not worth 0. The values depend on the requests alone, never on how they were batched.

    Attributes:
      name: the key of its values in ``RewardRecord.parts``, and of their weight in a recipe's rewards.
    """

    name: str

    def __call__(self, requests: Sequence[RewardRequest]) -> list[float | None]: ...

    def warm_up(self) -> None:
        """Compiles what any requests may need, so that no later call does."""


def model_values(part: ModelPart, requests: Sequence[RewardRequest]) -> list[float | None]:
    """The values that a part gives to the requests; a number that is not finite becomes None.

    Raises:
      ValueError: it gave more or fewer values than there are requests: nobody knows then whose they are.
    """
    values = part(requests)
    if len(values) != len(requests):
        raise ValueError(f"reward {part.name!r} gave {len(values)} values to {len(requests)} requests")
    return [float(value) if value is not None and math.isfinite(value) else None for value in values]

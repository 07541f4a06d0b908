"""Mixing: arithmetic on reward records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from r1jax.rewards.record import RewardRecord


def mix(records: Sequence[RewardRecord], weights: Mapping[str, float]) -> tuple[np.ndarray, np.ndarray]:
    """The weighted sum of the parts of each record.

    A part of weight 0 is logged but not needed. Where a needed part is None the sample is ungraded: its reward is 0 and
    takes part in nothing.

    Returns:
      (rewards float64 ``[samples]``, graded bool ``[samples]``).

    Raises:
      ValueError: a record lacks a part that has a weight, or a weight is no finite number.
    """
    rewards = np.zeros(len(records), np.float64)
    graded = np.ones(len(records), np.bool_)
    for name, weight in weights.items():
        if not np.isfinite(weight):
            raise ValueError(f"the weight of reward {name!r} must be a finite number, not {weight!r}")
        for index, record in enumerate(records):
            if name not in record.parts:
                raise ValueError(f"a record has no reward {name!r}; it has {', '.join(record.parts) or 'none'}")
            value = record.parts[name]
            if not weight:
                continue
            if value is None:
                graded[index] = False
            else:
                rewards[index] += weight * value
    rewards[~graded] = 0.0
    return rewards, graded

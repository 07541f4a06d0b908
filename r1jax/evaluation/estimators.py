"""Estimators over a benchmark's samples: pass@1, pass@k, the majority vote and intervals by problem. Numpy only.

Every figure here is a mean over problems of one value per problem, so that one bootstrap serves them all, and a
difference between two models on the same problems is a mean of differences.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import numpy as np


def _verdicts(right: np.ndarray) -> np.ndarray:
    right = np.asarray(right)
    if right.ndim != 2 or 0 in right.shape:
        raise ValueError(f"verdicts must be [problems, samples], both at least 1, not shape {right.shape}")
    return right.astype(bool)


def pass_at_1(right: np.ndarray) -> np.ndarray:
    """Each problem's share of right samples, float64 ``[P]``; its mean is pass@1 as the paper reports it (section 4.1).

    Args:
      right: bool ``[P, K]``. What was cut off or could not be graded is False: it is not left out of the count.
    """
    return _verdicts(right).mean(axis=1)


def pass_at_k(right: np.ndarray, k: int) -> np.ndarray:
    """Each problem's chance that at least one of k samples is right, ``[P]``, without bias from n >= k samples.

    ``1 - C(n - c, k) / C(n, k)`` with c of n right (Chen et al. 2021, 2107.03374, equation 1), as a product of ratios,
    which neither overflows nor cancels.

    Args:
      right: bool ``[P, n]``.
      k: from 1 to n.

    Raises:
      ValueError: k is not in that range.
    """
    right = _verdicts(right)
    n = right.shape[1]
    if not 1 <= k <= n:
        raise ValueError(f"pass@{k} needs at least {k} samples per problem (and k at least 1); there are {n}")
    wrong = n - right.sum(axis=1)
    # The chance that k draws without replacement are all wrong: (wrong/n) ((wrong-1)/(n-1)) ...
    draws = np.arange(k)
    return 1.0 - np.prod(np.maximum(wrong[:, None] - draws, 0) / (n - draws), axis=1)


def majority(answers: Sequence[Hashable | None], same: Callable[[Hashable, Hashable], bool] | None = None) -> int | None:
    """The vote of one problem's samples: index of the first sample of the largest group of equal answers.

    Ties go to the group seen first. The right answer plays no part: a vote that knew it would be another figure.

    Args:
      answers: one per sample; None (no answer, or cut off) has no vote.
      same: whether two answers are equal, asked of a group's first answer; equality as such if None. Answers that are
        equal as objects are never compared by it.

    Returns:
      An index into ``answers``, or None where nobody voted.
    """
    leaders: list[int] = []  # the first sample of each group, in order of appearance
    votes: list[int] = []
    group_of: dict[Hashable, int] = {}
    for index, answer in enumerate(answers):
        if answer is None:
            continue
        group = group_of.get(answer)
        if group is None and same is not None:
            group = next((g for g, leader in enumerate(leaders) if same(answers[leader], answer)), None)
        if group is None:
            group = len(leaders)
            leaders.append(index)
            votes.append(0)
        group_of[answer] = group
        votes[group] += 1
    # list.index finds the first of equals, which is the group seen first.
    return leaders[votes.index(max(votes))] if votes else None


def bootstrap_interval(
    values: np.ndarray,
    *,
    problems: Sequence[Hashable] | None = None,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> tuple[float, float]:
    """The percentile interval of a mean over problems, by drawing whole problems with replacement.

    Samples of one problem are not independent, so the problem is the unit, also of one that stands in several rows. For a paired interval of the difference of
    two models on the same problems, pass the differences. Where all values are equal the interval has no width: the
    bootstrap knows nothing beyond the values that it saw.

    Args:
      values: float ``[P]``, one per problem, or per row.
      problems: ``[P]``, of which problem each value is; values of the same one are drawn together. None: each of its own.
      level: the interval's coverage, between 0 and 1.
      resamples: draws of P problems each.
      seed: of the draws; the same seed gives the same interval.

    Raises:
      ValueError: no values, values that are not finite, not one problem for each, or a level outside (0, 1).
    """
    values = np.asarray(values, np.float64)
    if values.ndim != 1 or not len(values):
        raise ValueError(f"an interval needs one value per problem, not shape {values.shape}")
    if not np.isfinite(values).all():
        raise ValueError(f"{int((~np.isfinite(values)).sum())} of {len(values)} values are not finite")
    if problems is not None and len(problems) != len(values):
        raise ValueError(f"{len(problems)} problems for {len(values)} values")
    if not 0 < level < 1 or resamples < 1:
        raise ValueError(f"level must lie in (0, 1) and resamples be at least 1, not {level} and {resamples}")
    problems = range(len(values)) if problems is None else problems
    number = {problem: n for n, problem in enumerate(dict.fromkeys(problems))}
    member = np.array([number[problem] for problem in problems])
    sizes, sums = np.bincount(member), np.bincount(member, weights=values)
    random = np.random.default_rng(seed)
    means = np.empty(resamples)
    block = max(1, 4_000_000 // len(sums))  # keeps the index array under 32 MB
    for start in range(0, resamples, block):
        stop = min(start + block, resamples)
        drawn = random.integers(len(sums), size=(stop - start, len(sums)))
        means[start:stop] = sums[drawn].sum(axis=1) / sizes[drawn].sum(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)

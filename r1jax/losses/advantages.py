"""Advantages: how much better a sample was than the others of its group. On the host, over a whole rollout."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

NORMALIZATIONS = ("std", "none", "batch_std", "rloo", "batch", "batch_baseline")


def group_advantages(
    rewards: np.ndarray,
    graded: np.ndarray | None = None,
    *,
    normalize: str = "std",
    ddof: int = 1,
    epsilon: float = 1e-6,
) -> np.ndarray:
    """One advantage per sample: its reward against its group's. With R the rewards of the group's n graded samples:

    ==================  ==================================================  =========================================
    ``std``             ``(R_i - mean R) / (std R + epsilon)``              GRPO (arXiv 2402.03300, 2501.12948 eq. 3)
    ``none``            ``R_i - mean R``                                    Dr.GRPO (arXiv 2503.20783): no bias to
                                                                            easy or hard prompts
    ``batch_std``       ``(R_i - mean R) / (std of all rewards + epsilon)`` Lite-PPO (arXiv 2508.08221): steadier
                                                                            where a group's rewards are nearly equal
    ``rloo``            ``R_i - mean of the group's other R``               RLOO (arXiv 2402.14740): unbiased baseline
    ``batch``           ``(R_i - mean of all) / (std of all + epsilon)``    REINFORCE++ (arXiv 2501.03262) without KL
                                                                            in the reward: no group needed
    ``batch_baseline``  ``C_i / (std of all C + epsilon)``,                 REINFORCE++ with baseline: small groups
                        ``C_i = R_i - mean R``
    ==================  ==================================================  =========================================

    Give it the whole rollout, before the split into minibatches. A group whose rewards are all equal, or that has fewer
    than two graded samples, has advantage exactly 0, save under ``batch``, which knows no groups. An ungraded sample has 0
    and takes no part in means and stds.

    Args:
      rewards: ``[P, G]``, P prompts with G samples each. What an ungraded sample holds is not read.
      graded: bool ``[P, G]``; None: every sample.
      normalize: see above.
      ddof: 1 divides the variance by n - 1 (torch, verl, TRL), 0 by n.
      epsilon: added to the standard deviation (verl 1e-6, TRL 1e-4).

    Returns:
      float32 ``[P, G]``.

    Raises:
      ValueError: a reward of a graded sample that is NaN or infinite, shapes that differ, an unknown rule.
    """
    if normalize not in NORMALIZATIONS:
        raise ValueError(f"normalize {normalize!r} is unknown; known: {', '.join(NORMALIZATIONS)}")
    rewards, graded = _checked("reward", rewards, graded, ddof, epsilon)
    centred = _centred(rewards, graded)
    if normalize == "none":
        advantages = centred
    elif normalize == "rloo":
        count = graded.sum(1, keepdims=True)
        advantages = centred * count / np.maximum(count - 1, 1)
    elif normalize == "std":
        advantages = _divided(centred, _group_std(centred, graded, ddof), epsilon)
    elif normalize == "batch_std":
        advantages = _divided(centred, _std(rewards[graded], ddof), epsilon)
    elif normalize == "batch":
        advantages = whiten(rewards, graded, ddof=ddof, epsilon=epsilon)
    else:
        advantages = _divided(centred, _std(centred[graded], ddof), epsilon)
    return advantages.astype(np.float32)


def gdpo_advantages(
    parts: Mapping[str, np.ndarray],
    weights: Mapping[str, float],
    graded: np.ndarray | None = None,
    *,
    ddof: int = 1,
    epsilon: float = 1e-6,
) -> np.ndarray:
    """GDPO (arXiv 2601.05242): each reward is normalised in its group by itself, then their weighted sum over the batch.

    Where several rewards are added first, groups with different combinations of equal sums look the same; here they do not.

    Args:
      parts: name -> rewards ``[P, G]``.
      weights: name -> weight; parts without one do not count.
      graded, ddof, epsilon: as in ``group_advantages``.

    Returns:
      float32 ``[P, G]``, mean 0 and standard deviation 1 over the graded samples, unless all are equal.

    Raises:
      ValueError: as ``group_advantages``; a weight whose part is missing; no weights.
    """
    if not weights:
        raise ValueError("gdpo needs at least one weight")
    total = None
    for name, weight in weights.items():
        if name not in parts:
            raise ValueError(f"no rewards for weight {name!r}; there are {', '.join(parts) or 'none'}")
        rewards, mask = _checked(f"reward {name!r}", parts[name], graded, ddof, epsilon)
        if total is not None and rewards.shape != total.shape:
            raise ValueError(f"reward {name!r} has shape {rewards.shape}, the others {total.shape}")
        centred = _centred(rewards, mask)
        part = weight * _divided(centred, _group_std(centred, mask, ddof), epsilon)
        total = part if total is None else total + part
    return whiten(total, mask, ddof=ddof, epsilon=epsilon).astype(np.float32)


def token_returns(
    rewards: np.ndarray, penalties: np.ndarray, completion_mask: np.ndarray, sequence_index: np.ndarray
) -> np.ndarray:
    """What REINFORCE++ takes for a token's return: ``R_i - sum_{s >= t} penalty_s``, the sum over the later completion tokens
    of its sequence and itself (arXiv 2501.03262, discount 1). ``whiten`` it over the batch for advantages.

    Args:
      rewards: ``[sequences]``, indexed by ``sequence_index``.
      penalties: ``[B, T]``, ``beta * (log pi_old - log pi_ref)`` of each token (the k1 estimate in the reward).
      completion_mask: ``[B, T]``. sequence_index: int ``[B, T]``. A sequence's tokens stand in one row, in their order.

    Returns:
      float64 ``[B, T]``; 0 outside completions.

    Raises:
      ValueError: shapes that differ, a reward or penalty of a completion token that is not finite.
    """
    mask, index = np.asarray(completion_mask) != 0, np.asarray(sequence_index)
    rewards, penalties = np.asarray(rewards, np.float64), np.asarray(penalties, np.float64)
    if not mask.shape == index.shape == penalties.shape:
        raise ValueError(
            f"completion_mask {mask.shape}, sequence_index {index.shape}, penalties {penalties.shape} must agree"
        )
    if np.any(index[mask] < 0) or np.max(index[mask], initial=-1) >= len(rewards):
        raise ValueError(f"sequence_index of a completion token lies outside the {len(rewards)} rewards")
    if not np.isfinite(penalties[mask]).all() or not np.isfinite(rewards[np.unique(index[mask])]).all():
        raise ValueError("a reward or a penalty of a completion token is NaN or infinite; take its sequence out")
    owner, paid = index[mask], penalties[mask]  # row by row, in each row from left to right
    order = np.argsort(owner, kind="stable")
    paid_so_far = np.cumsum(paid[order])
    sums = np.bincount(owner, paid, minlength=len(rewards))
    starts = np.searchsorted(owner[order], np.arange(len(rewards)))
    before = np.concatenate([[0.0], paid_so_far])[starts]
    later = np.empty_like(paid)
    later[order] = sums[owner[order]] - (paid_so_far - paid[order] - before[owner[order]])
    returns = np.zeros(mask.shape)
    returns[mask] = rewards[owner] - later
    return returns


def whiten(values: np.ndarray, mask: np.ndarray, *, ddof: int = 1, epsilon: float = 1e-6) -> np.ndarray:
    """``(values - mean) / (std + epsilon)`` over the entries of ``mask``; 0 elsewhere, and everywhere if all are equal.

    Args:
      values: of any shape. mask: bool of the same shape.

    Returns:
      float64, as ``values``.
    """
    mask = np.asarray(mask) != 0
    chosen = np.asarray(values, np.float64)[mask]
    whitened = np.zeros(mask.shape)
    if len(chosen) and chosen.max() > chosen.min():
        whitened[mask] = (chosen - chosen.mean()) / (chosen.std(ddof=ddof) + epsilon)
    return whitened


# ---------------------------------------------------------------------------------------------- parts of the above
def _checked(name, rewards, graded, ddof, epsilon) -> tuple[np.ndarray, np.ndarray]:
    """``(rewards, graded)`` as float64, 0 where ungraded, and bool; refused where no advantage could come of them."""
    rewards = np.asarray(rewards, np.float64)
    graded = np.ones(rewards.shape, bool) if graded is None else np.asarray(graded, bool)
    if rewards.ndim != 2 or graded.shape != rewards.shape:
        raise ValueError(f"{name}s must be [prompts, samples] and graded alike, not {rewards.shape} and {graded.shape}")
    if ddof not in (0, 1):
        raise ValueError(f"ddof must be 0 or 1, not {ddof}")
    if not epsilon >= 0:
        raise ValueError(f"epsilon must not be negative, but is {epsilon}")
    bad = np.argwhere(graded & ~np.isfinite(rewards))
    if len(bad):
        prompt, sample = bad[0]
        raise ValueError(
            f"{name} of prompt {prompt}, sample {sample} is {rewards[prompt, sample]} ({len(bad)} such); mark it ungraded"
        )
    return np.where(graded, rewards, 0.0), graded


def _centred(rewards: np.ndarray, graded: np.ndarray) -> np.ndarray:
    """Rewards less their group's mean. Exactly 0 in a group without a difference, where the mean of n equal numbers may be
    off by a rounding that a tiny std would blow up."""
    count = graded.sum(1, keepdims=True)
    centred = np.where(graded, rewards - rewards.sum(1, keepdims=True) / np.maximum(count, 1), 0.0)
    highest = np.max(rewards, axis=1, keepdims=True, where=graded, initial=-np.inf)
    lowest = np.min(rewards, axis=1, keepdims=True, where=graded, initial=np.inf)
    return np.where((count >= 2) & (highest > lowest), centred, 0.0)


def _group_std(centred: np.ndarray, graded: np.ndarray, ddof: int) -> np.ndarray:
    return np.sqrt((centred**2).sum(1, keepdims=True) / np.maximum(graded.sum(1, keepdims=True) - ddof, 1))


def _std(values: np.ndarray, ddof: int) -> float:
    return float(values.std(ddof=ddof)) if len(values) >= 2 else 0.0


def _divided(centred: np.ndarray, std: np.ndarray | float, epsilon: float) -> np.ndarray:
    """``centred / (std + epsilon)``, and 0 where the numerator is, also for an epsilon of 0."""
    return np.divide(centred, std + epsilon, out=np.zeros_like(centred), where=centred != 0)

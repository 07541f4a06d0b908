"""Advantages: how much better a sample was than the others of its group. On the host, over a whole rollout."""

from __future__ import annotations

import numpy as np

NORMALIZATIONS = ("std", "none", "batch_std", "rloo")


def group_advantages(
    rewards: np.ndarray,
    graded: np.ndarray | None = None,
    *,
    normalize: str = "std",
    ddof: int = 1,
    epsilon: float = 1e-6,
) -> np.ndarray:
    """One advantage per sample: its reward against its group's. With R the rewards of the group's n graded samples:

    =============  ==================================================  ==========================================
    ``std``        ``(R_i - mean R) / (std R + epsilon)``              GRPO (arXiv 2402.03300, 2501.12948 eq. 3)
    ``none``       ``R_i - mean R``                                    Dr.GRPO (arXiv 2503.20783): no bias to easy
                                                                       or hard prompts
    ``batch_std``  ``(R_i - mean R) / (std of all rewards + epsilon)`` Lite-PPO (arXiv 2508.08221): steadier where
                                                                       a group's rewards are nearly equal
    ``rloo``       ``R_i - mean of the group's other R``               RLOO (arXiv 2402.14740): unbiased baseline
    =============  ==================================================  ==========================================

    Give it the whole rollout, before the split into minibatches. A group whose rewards are all equal, or that has fewer
    than two graded samples, has advantage exactly 0. An ungraded sample has 0 and takes no part in means and stds.

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
    rewards = np.asarray(rewards, np.float64)
    graded = np.ones(rewards.shape, bool) if graded is None else np.asarray(graded, bool)
    if rewards.ndim != 2 or graded.shape != rewards.shape:
        raise ValueError(f"rewards must be [prompts, samples] and graded alike, not {rewards.shape} and {graded.shape}")
    if normalize not in NORMALIZATIONS:
        raise ValueError(f"normalize {normalize!r} is unknown; known: {', '.join(NORMALIZATIONS)}")
    if ddof not in (0, 1):
        raise ValueError(f"ddof must be 0 or 1, not {ddof}")
    if not epsilon >= 0:
        raise ValueError(f"epsilon must not be negative, but is {epsilon}")
    bad = np.argwhere(graded & ~np.isfinite(rewards))
    if len(bad):
        prompt, sample = bad[0]
        raise ValueError(
            f"reward of prompt {prompt}, sample {sample} is {rewards[prompt, sample]} ({len(bad)} such); mark it ungraded"
        )

    rewards = np.where(graded, rewards, 0.0)
    count = graded.sum(1, keepdims=True)
    centred = np.where(graded, rewards - rewards.sum(1, keepdims=True) / np.maximum(count, 1), 0.0)
    # Exactly 0, where the mean of n equal numbers may be off by a rounding that a tiny std would blow up.
    highest = np.max(rewards, axis=1, keepdims=True, where=graded, initial=-np.inf)
    lowest = np.min(rewards, axis=1, keepdims=True, where=graded, initial=np.inf)
    centred = np.where((count >= 2) & (highest > lowest), centred, 0.0)

    if normalize == "none":
        advantages = centred
    elif normalize == "rloo":
        advantages = centred * count / np.maximum(count - 1, 1)
    elif normalize == "std":
        variance = (centred**2).sum(1, keepdims=True) / np.maximum(count - ddof, 1)
        advantages = np.divide(centred, np.sqrt(variance) + epsilon, out=np.zeros_like(centred), where=centred != 0)
    else:
        spread = rewards[graded].std(ddof=ddof) if count.sum() >= 2 else 0.0
        advantages = np.divide(centred, spread + epsilon, out=np.zeros_like(centred), where=centred != 0)
    return advantages.astype(np.float32)

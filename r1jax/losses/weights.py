"""Token weights: how much each token counts in the loss of one optimizer update. On the host, over the whole update."""

from __future__ import annotations

import numpy as np

RULES = ("sequence_mean", "token_mean", "constant_length")


def token_weights(
    completion_mask: np.ndarray,
    sequence_index: np.ndarray,
    *,
    rule: str = "sequence_mean",
    length: float | None = None,
    include: np.ndarray | None = None,
) -> np.ndarray:
    """The weight of each token, such that the update's loss is ``sum(token_weight * token_loss)``.

    With N sequences that count and ``|o_i|`` completion tokens in sequence i, a completion token weighs

    ===================  ======================  ==============================================================
    ``sequence_mean``    ``1 / (N |o_i|)``       GRPO: the mean over sequences of their token means
    ``token_mean``       ``1 / sum_i |o_i|``     DAPO (arXiv 2503.14476): long answers count by their length
    ``constant_length``  ``1 / (N length)``      Dr.GRPO (arXiv 2503.20783): no reward for short right answers or
                                                 long wrong ones; ``length`` is the length cap
    ===================  ======================  ==============================================================

    Give it all the rows of the update at once: then microbatches, their order and the packing change nothing. A sequence
    counts if it is included and has a completion token. All other tokens weigh 0.

    Args:
      completion_mask: ``[B, T]``, 1 on completion tokens.
      sequence_index: int ``[B, T]``, the sequence that a token belongs to; -1 in padding.
      rule: see above.
      length: the constant of ``constant_length``, in tokens; other rules do not read it.
      include: bool, either one per sequence (``[sequences]``, indexed by ``sequence_index``) or one per token (``[B, T]``);
        None: all. False takes a sequence out as if it had not been sampled: ungraded ones, overlong ones.

    Returns:
      float32 ``[B, T]``.

    Raises:
      ValueError: shapes that differ, an unknown rule, no ``length``, a completion token without a sequence.
    """
    mask = np.asarray(completion_mask) != 0
    index = np.asarray(sequence_index)
    if mask.shape != index.shape:
        raise ValueError(f"completion_mask {mask.shape} and sequence_index {index.shape} must have one shape")
    if rule not in RULES:
        raise ValueError(f"aggregation rule {rule!r} is unknown; known: {', '.join(RULES)}")
    if np.any(index[mask] < 0):
        raise ValueError("a completion token lies in padding: its sequence_index is negative")
    if include is not None:
        include = np.asarray(include, bool)
        if include.shape != mask.shape:
            if include.ndim != 1 or np.max(index, initial=-1) >= len(include):
                raise ValueError(
                    f"include {include.shape} must have one entry per sequence (more than {np.max(index, initial=-1)}) "
                    f"or the shape {mask.shape}"
                )
            # -1 reads the entry that is appended, also where there are no sequences
            include = np.append(include, False)[index]
        mask = mask & include
    if rule == "constant_length" and not (length is not None and length > 0):
        raise ValueError(f"rule constant_length needs a positive length, the completions' length cap; got {length}")

    sequences, of_token = np.unique(index[mask], return_inverse=True)
    tokens = np.bincount(of_token, minlength=len(sequences))
    if rule == "sequence_mean":
        weight = 1.0 / (len(sequences) * tokens[of_token].astype(np.float64))
    elif rule == "token_mean":
        weight = np.full(len(of_token), 1.0 / max(len(of_token), 1))
    else:
        weight = np.full(len(of_token), 1.0 / (max(len(sequences), 1) * float(length)))
    weights = np.zeros(mask.shape, np.float32)
    weights[mask] = weight
    return weights

"""The batch: one layout for SFT, RL, scoring and reward models."""

from typing import Any, NamedTuple

import numpy as np

Array = Any  # numpy on the host, jax inside a jitted step: this room imports no jax


class Batch(NamedTuple):
    """Packed rows of sequences; a pytree.

    Shapes are ``[B, T]`` unless said otherwise. Segment 0 is padding: it attends nothing, is routed
    nowhere and is counted nowhere. Sequences of a row have segments 1, 2, ...; positions restart at 0
    in each. Entry ``t`` of a log-probability array belongs to ``tokens[t]`` (that is, it is predicted
    from the position before); the first token of a segment has none, and holds 0.

    Attributes:
      tokens: int32, token ids; 0 in padding.
      positions: int32, position inside the sequence.
      segment_ids: int32, 0 is padding.
      completion_mask: float32, 1 on the tokens that the loss is about (the model's own tokens, its
        end-of-sequence token included), else 0. Never set on the first token of a segment.
      token_weight: float32, the weight of each token in the loss of the whole optimizer update
        (``losses.token_weights``); 0 where ``completion_mask`` is 0.
      advantages: float32, the sequence's advantage on each of its completion tokens.
      old_logprobs: float32, log-probabilities under the policy that sampled, from the scoring pass.
      ref_logprobs: float32, log-probabilities under the reference policy.
      sampler_logprobs: float32, log-probabilities as the sampler's own decode loop gave them.
      sequence_index: int32, index of the sequence in its rollout; -1 in padding. Unlike segment_ids it
        is unique over the rows of an update, so per-sequence quantities can be summed over it.
      routes: uint8 or uint16 ``[B, T, L, K]``, recorded expert choices, or None for dense models.
      balance_weight: float32, the weight of each token, prompts included, in the experts' balance loss of the whole
        update, or None.
      labels: float32, for reward models: the label of each sequence, on the token from which its score is read; 0 elsewhere; or
        None.
    """

    tokens: Array
    positions: Array
    segment_ids: Array
    completion_mask: Array
    token_weight: Array
    advantages: Array
    old_logprobs: Array
    ref_logprobs: Array
    sampler_logprobs: Array
    sequence_index: Array
    routes: Array | None = None
    balance_weight: Array | None = None
    labels: Array | None = None


OPTIONAL_FIELDS = ("routes", "balance_weight", "labels")
INTEGER_FIELDS = ("tokens", "positions", "segment_ids", "sequence_index")


def empty_batch(rows: int, length: int) -> Batch:
    """A batch of padding only, ``[rows, length]``, in numpy: where packing starts from."""
    fields = {
        name: np.zeros((rows, length), np.int32 if name in INTEGER_FIELDS else np.float32)
        for name in Batch._fields
        if name not in OPTIONAL_FIELDS
    }
    fields["sequence_index"] -= 1
    return Batch(**fields)

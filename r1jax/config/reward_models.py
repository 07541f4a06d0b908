"""Settings of the stages that make reward models."""

from __future__ import annotations

from dataclasses import dataclass

from r1jax.config.parts import OptimizerSettings, RouterSettings


@dataclass(frozen=True)
class RewardModelSettings:
    """``kind: reward_model``. The defaults are the paper's (Nature 645:633), of both its reward models: 1 epoch, 256 pairs or
    responses an update, lr 6e-6, 8,192 tokens; its helpfulness has 66,000 pairs, its safety 106,000 labelled responses.

    ``objective``: ``pairwise`` (Bradley-Terry; data are pairs) or ``pointwise`` (binary cross-entropy; data are labelled
    responses). ``reads``: ``final_summary`` or ``whole_response``; empty: the paper's, the summary where pairs are learnt and the
    whole where labels are. ``batch_examples``: pairs, or responses, of an update. ``max_tokens``: rows with a longer sequence,
    prompt and response together, are left out. ``row_tokens``: length of a packed row (0: the longest pair, or response); a pair
    lies in one. ``evaluate_every``: updates between two measurements on the input ``held_out`` (0: before and after only).
    ``router.replay`` is not read. The other keys: see ``GRPOSettings``.
    """

    objective: str = "pairwise"
    reads: str = ""
    epochs: int = 1
    steps: int = 0
    batch_examples: int = 256
    max_tokens: int = 8_192
    row_tokens: int = 0
    rows_per_microbatch: int = 8
    checkpoint_every: int = 50
    evaluate_every: int = 0
    compute_dtype: str = ""
    remat: str = "nothing"
    optimizer: OptimizerSettings = OptimizerSettings(lr=6e-6)
    router: RouterSettings = RouterSettings()

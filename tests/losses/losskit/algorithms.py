"""The published algorithms by name: what each composes, and how it weighs tokens (``r1jax/losses/README.md`` cites them)."""

from __future__ import annotations

_PLAIN = {"kl": "none", "kl_coefficient": 0.0}

# name -> (the composition, what its token weights are)
ALGORITHMS: dict[str, tuple[dict, str]] = {
    "grpo": ({"kl": "k3", "kl_coefficient": 0.04}, "sequence_mean"),
    "dr_grpo": (_PLAIN, "constant_length"),
    "dapo": ({**_PLAIN, "clip_low": 0.2, "clip_high": 0.28}, "token_mean"),
    "gspo": ({**_PLAIN, "ratio": "sequence", "clip_low": 3e-4, "clip_high": 4e-4}, "sequence_mean"),
    "gspo_token": ({**_PLAIN, "ratio": "sequence_token", "clip_low": 3e-4, "clip_high": 4e-4}, "sequence_mean"),
    "cispo": ({**_PLAIN, "surrogate": "cispo", "clip_low": 1.0, "clip_high": 4.0}, "token_mean"),
    "rloo": ({**_PLAIN, "surrogate": "none"}, "sequence_mean"),
    "reinforce_pp": (_PLAIN, "token_mean"),
    "lite_ppo": (_PLAIN, "token_mean"),
    "sapo": ({**_PLAIN, "surrogate": "sapo", "tau_positive": 1.0, "tau_negative": 1.05}, "sequence_mean"),
    "gmpo": (
        {**_PLAIN, "ratio": "geometric", "surrogate": "none", "clip_low": 0.4, "clip_high": 0.4},
        "sequence_mean",
    ),
    "intellect_2": ({**_PLAIN, "surrogate": "dual_clip", "dual_clip": 4.0}, "token_mean"),
    "deepseek_v3_2": ({"kl": "k3_unbiased", "kl_coefficient": 0.04, "off_policy_delta": 0.1}, "sequence_mean"),
    "tis": ({**_PLAIN, "correction": "truncate", "correction_high": 2.0}, "token_mean"),
    "icepop": ({**_PLAIN, "correction": "mask", "correction_low": 0.5, "correction_high": 5.0}, "sequence_mean"),
}

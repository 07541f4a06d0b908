"""Rewards on the host: rule rewards, their records and mixing, and the worker pool. Never jax.

Names are resolved when first used, so that a worker process loads only what it grades with.
"""

from __future__ import annotations

import importlib
from typing import Any

_HOMES = {
    "Asserts": "code.run",
    "CodeResult": "code.run",
    "InputOutput": "code.run",
    "Limits": "code.limits",
    "RewardRecord": "record",
    "RewardRequest": "record",
    "SandboxUnavailable": "code.walls",
    "Verdict": "record",
    "RewardPool": "pool",
    "RewardPoolError": "pool",
    "answer_key": "mathematics",
    "extract_answer": "answer",
    "format_reward": "format",
    "grade": "parts",
    "grade_code": "code.rows",
    "grade_math": "mathematics",
    "grade_search": "search",
    "language_consistency": "language",
    "mix": "mixing",
    "mix_by_type": "mixing",
    "run_code": "code.run",
    "same_answer": "mathematics",
    "think_format_reward": "format",
    "verify_math": "mathematics",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__

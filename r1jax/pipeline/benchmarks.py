"""Runs a recipe's benchmarks on a model of the run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from r1jax import config
from r1jax.pipeline.stage import Context


def evaluate_model(
    path: str, benchmarks: Mapping[str, config.BenchmarkSource], context: Context
) -> Iterator[tuple[str, dict[str, Any], list[dict[str, Any]]]]:
    """Evaluates a model on benchmarks, one after the other: (name, figures, samples) of each as it is done."""
    raise NotImplementedError

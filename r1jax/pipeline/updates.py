"""An optimizer update, as every stage makes and records it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from typing import Any

import jax
import numpy as np
from etils import epath

from r1jax.losses import merge_metrics
from r1jax.pipeline import records
from r1jax.training import ApplyStep, GradientStep, TrainState, ZeroGrads


def make_update(
    state: TrainState, batches: Iterable[Any], zero_grads: ZeroGrads, micro_step: GradientStep, apply_step: ApplyStep
) -> tuple[TrainState, dict[str, float]]:
    """One update from its micro-batches, ``data.Batch`` each: the state after it, and its metrics on the host.

    The state is donated.
    """
    grads, parts = zero_grads(), []
    for batch in batches:
        grads, metrics = micro_step(state.params, grads, batch)
        parts.append(metrics)
    state, applied = apply_step(state, grads)
    parts, applied = jax.device_get((parts, applied))
    return state, merge_metrics(parts) | {name: float(value) for name, value in applied.items()}


def record_update(stage: epath.Path, metrics: Mapping[str, float]) -> None:
    """Leaves the metrics of an update (``step`` among them) on disk, its record last; one that has happened already, and is
    replayed from a recorded wave, stays as it is.

    A loss or gradient that is not finite ends the run here, with its last checkpoint as it was. That the apply-step then
    keeps parameters and moments (``skipped``) only keeps the state in memory whole for those who look at it: to go on would
    hide what has broken.

    Raises:
      FloatingPointError: a figure is not finite.
    """
    folder = stage / "updates" / f"{metrics['step']:06d}"
    if records.committed(folder):
        return
    wrong = [name for name, value in metrics.items() if not np.isfinite(value)]
    if wrong:
        raise FloatingPointError(
            f"update {metrics['step']}: {', '.join(wrong)} not finite; the last checkpoint is unharmed. Another run with a "
            "lower optimizer.lr or a longer warm-up may not get here"
        )
    records.write_atomic(folder / "metrics.json", json.dumps(metrics))
    records.commit(folder, ["metrics.json"])

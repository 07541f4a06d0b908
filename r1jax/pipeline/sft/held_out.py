"""The loss on examples that are not learnt: measured between updates, each measurement recorded once.

<stage>/held_out/<step>/metrics.json      after so many updates, commit.json last
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from etils import epath

from r1jax.data.examples import Example
from r1jax.losses import merge_metrics
from r1jax.pipeline import records
from r1jax.pipeline.sft.learning import Learner

FOLDER, FILE = "held_out", "metrics.json"


class HeldOut:
    """Measures the cross-entropy of held-out completions, per token.

    Args:
      stage: the stage's folder.
      learner: whose rows and program are used.
      examples: the held-out ones.
      row_tokens: length of a packed row.
    """

    def __init__(self, stage: epath.Path, learner: Learner, examples: Sequence[Example], row_tokens: int):
        self._stage, self._learner, self._examples = stage, learner, len(examples)
        self._batches = learner.held_out_batches(examples, row_tokens)

    def warm_up(self, params: Any) -> None:
        """Compiles what measuring needs."""
        jax.block_until_ready(self._learner.held_out_step(params, self._batches[0]))

    def measure(self, params: Any, step: int) -> float:
        """The cross-entropy after ``step`` updates; what an earlier session measured is read and not measured again.

        Raises:
          FloatingPointError: it is not finite.
        """
        if records.committed(self._folder(step)):
            return self.read(step)
        metrics = merge_metrics(jax.device_get([self._learner.held_out_step(params, batch) for batch in self._batches]))
        found = metrics["cross_entropy"]
        if not np.isfinite(found):
            raise FloatingPointError(
                f"the held-out loss after {step} updates is not finite; the last checkpoint is unharmed. Another run with a "
                "lower optimizer.lr or a longer warm-up may not get here"
            )
        told = {"step": step, "cross_entropy": found, "tokens": int(metrics["tokens"]), "examples": self._examples}
        records.write_atomic(self._folder(step) / FILE, json.dumps(told))
        records.commit(self._folder(step), [FILE])
        return found

    def read(self, step: int) -> float:
        """The cross-entropy that was measured after ``step`` updates."""
        return json.loads((self._folder(step) / FILE).read_text())["cross_entropy"]

    def _folder(self, step: int) -> epath.Path:
        return self._stage / FOLDER / f"{step:06d}"


def shared(examples: Sequence[Example], held_out: Sequence[Example]) -> int:
    """How many held-out examples are learnt, too: what is said of them says nothing of others."""
    learnt = {example.tokens.tobytes() for example in examples}
    return sum(example.tokens.tobytes() in learnt for example in held_out)

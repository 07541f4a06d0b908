"""Scores that a reward model gives to sequences of tokens, in batches of a few fixed shapes."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from r1jax.models import ModelConfig, param_shardings
from r1jax.models.scores import packed_scores
from r1jax.rollout import SamplingStopped
from r1jax.sharding import Layout

FIRST_BUCKET = 64


class _Rows(NamedTuple):
    """What ``packed_scores`` reads of a batch, ``[B, T]``."""

    tokens: Any
    positions: Any
    segment_ids: Any


class SequenceScorer:
    """A compiled pass over rows that hold one sequence each, padded to one of a few lengths.

    Not packed: a sequence that comes after another in its row meets other sums of attention, and its score would differ in the
    last bits by what it was batched with. So it depends on the sequence alone, bit for bit on CPU in float32; and recorded rewards
    of a run that was killed are those of one that was not. Padding is at most half of a row beyond the first bucket.

    Args:
      config: of a reward model.
      layout: where the parameters lie.
      longest: the longest sequence that will be scored, in tokens.
      rows: of a batch; a multiple of the layout's batch shards.
      compute_dtype: see ``models.precision``.

    Raises:
      ValueError: rows that do not divide over the mesh.

    Attributes:
      jitted: the compiled function ``(params, rows, last) -> scores``; call it inside ``layout.use()``.
    """

    def __init__(self, config: ModelConfig, layout: Layout, *, longest: int, rows: int, compute_dtype: Any = jnp.float32):
        if rows < 1 or rows % layout.batch_shards:
            raise ValueError(f"rows {rows} do not divide over the mesh's {layout.batch_shards} batch shards (data x fsdp)")
        self._layout, self._rows = layout, rows
        doubled = (FIRST_BUCKET << k for k in itertools.count())
        self._buckets = [*itertools.takewhile(lambda size: size < longest, doubled), max(longest, 1)]

        def score(params: Any, batch: _Rows, last: jax.Array) -> jax.Array:
            scores, _ = packed_scores(config, params, batch, compute_dtype)
            return jnp.take_along_axis(scores, last[:, None], axis=1)[:, 0]

        places = (layout.sharding(("batch", "sequence")), layout.sharding(("batch",)))
        self.jitted = jax.jit(
            score, in_shardings=(param_shardings(config, layout), *places), out_shardings=layout.replicated
        )

    def __call__(self, params: Any, sequences: Sequence[np.ndarray]) -> np.ndarray:
        """Their scores, float32 ``[sequences]``, in their order.

        Raises:
          ValueError: a sequence that is empty or over ``longest``.
        """
        found = np.zeros(len(sequences), np.float32)
        for places, batch, last in self._batches(sequences):
            found[places] = self._run(params, batch, last)[: len(places)]
        return found

    def warm_up(self, params: Any, should_stop: Callable[[], bool] | None = None) -> None:
        """Compiles the pass for every length.

        Raises:
          SamplingStopped: ``should_stop``, looked at before each length, said so.
        """
        for size in self._buckets:
            if should_stop is not None and should_stop():
                raise SamplingStopped
            self._run(params, *self._pad([np.zeros(1, np.int32)], size))

    def _run(self, params: Any, batch: _Rows, last: np.ndarray) -> np.ndarray:
        batch, last = self._layout.put((batch, last), ("batch", "sequence"))
        with self._layout.use():
            return np.asarray(self.jitted(params, batch, last))

    def _batches(self, sequences: Sequence[np.ndarray]) -> Iterator[tuple[list[int], _Rows, np.ndarray]]:
        by_bucket: dict[int, list[int]] = {}
        for i, tokens in enumerate(sequences):
            if not 1 <= len(tokens) <= self._buckets[-1]:
                raise ValueError(f"sequence {i} has {len(tokens)} tokens; this scorer takes 1 to {self._buckets[-1]}")
            by_bucket.setdefault(next(size for size in self._buckets if size >= len(tokens)), []).append(i)
        for size, places in sorted(by_bucket.items()):
            for start in range(0, len(places), self._rows):
                part = places[start : start + self._rows]
                yield part, *self._pad([sequences[i] for i in part], size)

    def _pad(self, sequences: Sequence[np.ndarray], size: int) -> tuple[_Rows, np.ndarray]:
        batch = _Rows(*(np.zeros((self._rows, size), np.int32) for _ in _Rows._fields))
        last = np.zeros(self._rows, np.int32)
        for row, tokens in enumerate(sequences):
            count = len(tokens)
            batch.tokens[row, :count], batch.positions[row, :count], batch.segment_ids[row, :count] = (
                tokens,
                np.arange(count),
                1,
            )
            last[row] = count - 1
        return batch, last

"""Packing: sequences of unequal lengths into rows of one length, once per update, in numpy.

Scoring and the micro-steps read the same packed rows. The rows of an update are cut into micro-batches of one shape, so
one compiled program serves every update of a stage.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from r1jax.data.batch import INTEGER_FIELDS, OPTIONAL_FIELDS, Batch, empty_batch

Values = Mapping[str, float | np.ndarray]


@dataclass(frozen=True)
class PackItem:
    """One sequence: a prompt and a completion.

    Attributes:
      index: of the sequence in its rollout; ``Batch.sequence_index``. Not negative.
      tokens: int ``[n]``, the prompt's and then the completion's token ids; n is at least 1.
      completion_start: number of prompt tokens: at least 1, since nothing predicts the first token of a sequence.
      completion_mask: ``[n - completion_start]``, for completions of which some tokens are not learnt (the user's turns
        of a dialogue); None: all are.
      values: by name of a float field of ``Batch`` (``advantages``, ``sampler_logprobs``, ...): one number for all the
        completion tokens, or one for each, ``[n - completion_start]``.
      routes: uint ``[n, L, K]``, recorded expert choices, or None.
    """

    index: int
    tokens: np.ndarray
    completion_start: int
    completion_mask: np.ndarray | None = None
    values: Values = field(default_factory=dict)
    routes: np.ndarray | None = None


def pack(items: Sequence[PackItem], row_length: int, rows_multiple: int = 1) -> Batch:
    """Packs sequences into rows by best fit, longest first.

    Each sequence goes, whole, into the fullest row that still holds it. The result depends on the items alone: equal
    lengths are taken in the order of their ``index``.

    Args:
      items: the sequences of one update.
      row_length: T; one number per stage, so that shapes stay the same.
      rows_multiple: the number of rows is rounded up to a multiple (at least one), with rows of padding at the end.

    Returns:
      ``Batch`` of numpy arrays ``[rows, row_length]``. ``token_weight`` is 0: it is computed from the packed rows.

    Raises:
      ValueError: a sequence longer than a row, or one that is not a prompt and a completion; an index that comes twice;
        values of another length; an unknown field.
    """
    return pack_together([[item] for item in items], row_length, rows_multiple)


def pack_together(groups: Sequence[Sequence[PackItem]], row_length: int, rows_multiple: int = 1) -> Batch:
    """As ``pack``, with the sequences of each group next to each other in one row: those that a loss compares.

    Raises:
      ValueError: as ``pack``; a group that is longer than a row.
    """
    items = [item for group in groups for item in group]
    if row_length < 1 or rows_multiple < 1:
        raise ValueError(f"row_length {row_length} and rows_multiple {rows_multiple} must be positive")
    _check(items, row_length)
    for group in groups:
        if _length(group) > row_length:
            named = ", ".join(str(item.index) for item in group)
            raise ValueError(
                f"sequences {named} belong together and have {_length(group)} tokens, a row {row_length}; raise row_tokens"
            )
    places, used = _best_fit(sorted(groups, key=lambda group: (-_length(group), group[0].index)), row_length)
    rows = max(-(-used // rows_multiple), 1) * rows_multiple
    batch = empty_batch(rows, row_length)
    with_routes = next((item.routes for item in items if item.routes is not None), None)
    if with_routes is not None:
        batch = batch._replace(routes=np.zeros((rows, row_length, *with_routes.shape[1:]), with_routes.dtype))
    segments = np.zeros(rows, np.int32)
    for item, row, start in places:
        segments[row] += 1
        whole = row, slice(start, start + len(item.tokens))
        completion = row, slice(start + item.completion_start, start + len(item.tokens))
        batch.tokens[whole] = item.tokens
        batch.positions[whole] = np.arange(len(item.tokens))
        batch.segment_ids[whole] = segments[row]
        batch.sequence_index[whole] = item.index
        batch.completion_mask[completion] = 1 if item.completion_mask is None else np.asarray(item.completion_mask) != 0
        for name, value in item.values.items():
            getattr(batch, name)[completion] = value * batch.completion_mask[completion]
        if item.routes is not None:
            batch.routes[whole] = item.routes
    return batch


def _check(items: Sequence[PackItem], row_length: int) -> None:
    floats = set(Batch._fields) - {*INTEGER_FIELDS, *OPTIONAL_FIELDS, "completion_mask", "token_weight"}
    seen = set()
    for item in items:
        length, completion = len(item.tokens), len(item.tokens) - item.completion_start
        if item.index < 0 or item.index in seen:
            raise ValueError(f"sequence index {item.index} is negative or comes twice in one update")
        seen.add(item.index)
        if length > row_length:
            raise ValueError(f"sequence {item.index} has {length} tokens, a row {row_length}; raise row_tokens")
        if not 1 <= item.completion_start <= length:
            raise ValueError(f"sequence {item.index} of {length} tokens can't have a prompt of {item.completion_start}")
        if item.completion_mask is not None and np.shape(item.completion_mask) != (completion,):
            raise ValueError(
                f"sequence {item.index}: completion_mask has shape {np.shape(item.completion_mask)}, not {(completion,)}"
            )
        for name, value in item.values.items():
            if name not in floats:
                raise ValueError(
                    f"sequence {item.index}: {name!r} is no value of a batch; known: {', '.join(sorted(floats))}"
                )
            if np.shape(value) not in ((), (completion,)):
                raise ValueError(f"sequence {item.index}: {name} has shape {np.shape(value)}, not {(completion,)}")


def _length(group: Sequence[PackItem]) -> int:
    return sum(len(item.tokens) for item in group)


def _best_fit(groups: Sequence[Sequence[PackItem]], row_length: int) -> tuple[list[tuple[PackItem, int, int]], int]:
    """``(item, row, start)`` for each item of the groups, and the number of rows."""
    places = []
    rows = 0
    free: list[tuple[int, int]] = []  # (room, row), sorted: the first with enough room is the fullest
    for group in groups:
        length = _length(group)
        at = bisect.bisect_left(free, (length, -1))
        if at < len(free):
            room, row = free.pop(at)
        else:
            room, row, rows = row_length, rows, rows + 1
        start = row_length - room
        for item in group:
            places.append((item, row, start))
            start += len(item.tokens)
        bisect.insort(free, (room - length, row))
    return places, rows


def micro_batches(batch: Batch, rows: int) -> Iterator[Batch]:
    """The rows of an update, so many at a time.

    Raises:
      ValueError: the rows do not divide; ``pack`` with this ``rows_multiple``.
    """
    if rows < 1 or len(batch.tokens) % rows:
        raise ValueError(f"{len(batch.tokens)} rows do not divide into micro-batches of {rows}")
    for start in range(0, len(batch.tokens), rows):
        yield Batch(*(None if array is None else array[start : start + rows] for array in batch))


def spread(batch: Batch, values: np.ndarray) -> np.ndarray:
    """One value per sequence onto its completion tokens.

    Args:
      values: ``[sequences]``, indexed by ``sequence_index``: advantages, for instance.

    Returns:
      float32 ``[B, T]``, 0 elsewhere.
    """
    mask = batch.completion_mask != 0
    result = np.zeros(mask.shape, np.float32)
    result[mask] = np.asarray(values)[batch.sequence_index[mask]]
    return result


def unpack(batch: Batch, values: np.ndarray) -> dict[int, np.ndarray]:
    """The values of each sequence's completion tokens, in order: ``{sequence index: [tokens]}``.

    Args:
      values: ``[B, T]``, of the same rows as ``batch``.

    Raises:
      ValueError: another shape than the batch's.
    """
    values = np.asarray(values)
    if values.shape[:2] != batch.tokens.shape:
        raise ValueError(f"values {values.shape} are not of this batch {batch.tokens.shape}")
    mask = batch.completion_mask != 0
    index, chosen = batch.sequence_index[mask], values[mask]
    found, starts = np.unique(index, return_index=True)  # a sequence lies in one row, its tokens next to each other
    order = np.argsort(starts)
    parts = np.split(chosen, np.sort(starts)[1:])
    result = {int(found[i]): part for i, part in zip(order, parts)}
    for sequence in np.unique(batch.sequence_index[batch.sequence_index >= 0]):
        result.setdefault(int(sequence), chosen[:0])
    return result

"""Random sequences, and the ways in which the same sequences can lie in rows."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

NAMES = ("logprobs", "old_logprobs", "ref_logprobs", "sampler_logprobs", "entropy")


@dataclass
class Sequence:
    """One sampled completion: lists with a number per token, and its advantage."""

    logprobs: list[float]
    old_logprobs: list[float]
    ref_logprobs: list[float]
    sampler_logprobs: list[float]
    entropy: list[float]
    advantage: float
    prompt: int = 1
    weight: list[float] = field(default_factory=list)

    def __len__(self):
        return len(self.logprobs)


@dataclass(frozen=True)
class Layout:
    """Where sequences lie: ``rows`` names the sequences of each row in order; prompt tokens stand before each completion.

    ``side``: where a row's padding is: ``right``, ``left``, ``between`` (some before every sequence). ``junk`` fills padding
    and prompts. ``empty``: rows of padding at the end.
    """

    rows: tuple[tuple[int, ...], ...]
    width: int
    side: str = "right"
    empty: int = 0
    junk: float = float("nan")


def random_sequences(seed: int, count: int = 9, longest: int = 6) -> list[Sequence]:
    """Lengths 1 to ``longest``; advantages of both signs and one 0; distances between the policies from nearly none to beyond
    every bound that is tested, so that each side of each clip and mask is met."""
    rng = np.random.default_rng(seed)
    out = []
    for i in range(count):
        spread = (0.3, 0.8, 2e-4, 0.05)[i % 4]
        n = int(rng.integers(4 if i % 4 == 1 else 1, longest + 1))  # the wildest has some tokens to be clipped
        new = -rng.exponential(1.0, n) - 0.05
        old = new + rng.normal(0, spread, n) + rng.normal(0, spread / 2)
        ref = new + rng.normal(0, 0.5, n)
        sampler = old + rng.normal(0, (0.05, 0.6)[i % 2], n)
        arrays = [a.tolist() for a in (new, old, ref, sampler, rng.exponential(1.0, n))]
        advantage = (-1) ** (i // 4) * float(rng.uniform(0.2, 2)) if i != 4 else 0.0
        out.append(Sequence(*arrays, advantage=advantage, prompt=int(rng.integers(0, 3))))
    return out


def weigh(sequences: list[Sequence], rule: str = "sequence_mean", length: float = 8.0, left_out=()) -> None:
    """Sets the token weights of an update, from the rules' definitions."""
    here = [i for i in range(len(sequences)) if i not in left_out and len(sequences[i])]
    tokens = sum(len(sequences[i]) for i in here)
    for i, s in enumerate(sequences):
        each = {
            "sequence_mean": lambda s=s: 1 / (len(here) * len(s)),
            "token_mean": lambda: 1 / tokens,
            "constant_length": lambda: 1 / (len(here) * length),
        }[rule]
        s.weight = [each() if i in here else 0.0] * len(s)


def one_per_row(sequences: list[Sequence], **keywords) -> Layout:
    keywords.setdefault("width", max(len(s) + s.prompt for s in sequences))
    return Layout(tuple((i,) for i in range(len(sequences))), **keywords)


def packed(sequences: list[Sequence], width: int, order=None, **keywords) -> Layout:
    """First fit in this order; several sequences of unequal length share a row."""
    rows, used = [], []
    for i in range(len(sequences)) if order is None else order:
        need = len(sequences[i]) + sequences[i].prompt
        row = next((k for k, n in enumerate(used) if n + need <= width), None)
        if row is None:
            rows.append([])
            used.append(0)
            row = len(rows) - 1
        rows[row].append(int(i))
        used[row] += need
    return Layout(tuple(map(tuple, rows)), width, **keywords)


def places(sequences: list[Sequence], layout: Layout) -> dict[int, tuple[int, slice]]:
    """sequence -> (row, its completion's columns)."""
    found = {}
    for b, row in enumerate(layout.rows):
        spare = layout.width - sum(len(sequences[i]) + sequences[i].prompt for i in row)
        assert spare >= 0, "the layout is too narrow"
        column = spare if layout.side == "left" else 0
        gap = spare // max(len(row), 1) if layout.side == "between" else 0
        for i in row:
            column += gap + sequences[i].prompt
            found[i] = (b, slice(column, column + len(sequences[i])))
            column += len(sequences[i])
    return found


def lay_out(sequences: list[Sequence], layout: Layout, dtype=np.float64) -> dict[str, np.ndarray]:
    """The arrays ``[B, T]`` of a policy loss, its four positional ones and its keywords by name, and ``completion_mask``."""
    shape = (len(layout.rows) + layout.empty, layout.width)
    arrays = {name: np.full(shape, layout.junk, dtype) for name in (*NAMES, "advantages")}
    arrays["token_weight"] = np.zeros(shape, dtype)
    arrays["completion_mask"] = np.zeros(shape, np.float32)
    arrays["sequence_index"] = np.full(shape, -1, np.int32)
    for i, (b, columns) in places(sequences, layout).items():
        s = sequences[i]
        arrays["sequence_index"][b, max(columns.start - s.prompt, 0) : columns.stop] = i
        arrays["completion_mask"][b, columns] = 1
        arrays["advantages"][b, columns] = s.advantage
        arrays["token_weight"][b, columns] = s.weight
        for name in NAMES:
            arrays[name][b, columns] = getattr(s, name)
    return arrays


def by_sequence(array: np.ndarray, sequences: list[Sequence], layout: Layout) -> np.ndarray:
    """The entries of completions, sequence after sequence, whatever the layout."""
    where = places(sequences, layout)
    return np.concatenate([np.asarray(array, np.float64)[where[i]] for i in sorted(where)])


def outside(array: np.ndarray, sequences: list[Sequence], layout: Layout) -> np.ndarray:
    """The other entries: of prompts and padding."""
    taken = np.zeros(array.shape, bool)
    for place in places(sequences, layout).values():
        taken[place] = True
    return np.asarray(array, np.float64)[~taken]

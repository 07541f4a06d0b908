"""Which answers are compared, and which of the clear pairs are kept. Pure: by seed alone."""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

# What a random choice is for: part of its seed.
_CANDIDATES, _BALANCE, _ORDER = range(3)


@dataclass(frozen=True)
class Said:
    """What a sample says to its reader.

    Attributes:
      prompt: number of its prompt, of those that were sampled. sample: number of the sample.
      tokens: length of ``text`` in tokens of the stage's model.
    """

    prompt: int
    sample: int
    text: str
    tokens: int


@dataclass(frozen=True)
class Preference:
    """Two answers to one prompt, of which a judge prefers the first by ``difference``, from 0 to 2."""

    chosen: Said
    rejected: Said
    difference: float

    @property
    def gap(self) -> int:
        """By how many tokens the chosen answer is longer."""
        return self.chosen.tokens - self.rejected.tokens


def candidates(answers: Sequence[Said], per_prompt: int, seed: int) -> list[tuple[Said, Said]]:
    """The pairs that are judged: of each prompt's answers, no two of which are equal, at most ``per_prompt`` pairs (0: all) by
    chance, those first in which no answer comes twice. Which of the two is named first is by chance, too."""
    of_prompt: dict[int, list[Said]] = defaultdict(list)
    for answer in answers:
        of_prompt[answer.prompt].append(answer)
    found = []
    for prompt, own in of_prompt.items():
        rng = np.random.default_rng([seed, _CANDIDATES, prompt])
        order = [own[i] for i in rng.permutation(len(own))]
        apart = list(zip(order[::2], order[1::2]))
        others = [pair for pair in itertools.combinations(order, 2) if pair not in apart]
        pairs = apart + [others[i] for i in rng.permutation(len(others))]
        found += pairs[: per_prompt or None]
    return found


def balanced(pairs: Sequence[Preference], seed: int) -> list[Preference]:
    """As many pairs with the chosen answer the longer one as with it the shorter one, at any size of the gap.

    The paper had chosen and rejected responses "of comparable lengths" over the whole set. Here pairs are put into classes by their
    gap in tokens (1, 2 to 3, 4 to 7, ...), and of each class the more numerous side loses pairs by chance until both sides are equal.
    "Take the longer one" is then right for half of the pairs of unequal length, and a model gains nothing from length. Pairs of
    equal length stay. In the order of ``pairs``.
    """
    classes: dict[int, tuple[list[int], list[int]]] = defaultdict(lambda: ([], []))
    kept = {i for i, pair in enumerate(pairs) if not pair.gap}
    for i, pair in enumerate(pairs):
        if pair.gap:
            classes[abs(pair.gap).bit_length()][pair.gap > 0].append(i)
    for size, sides in sorted(classes.items()):
        rng, least = np.random.default_rng([seed, _BALANCE, size]), min(map(len, sides))
        for side in sides:
            kept.update(side[i] for i in rng.permutation(len(side))[:least])
    return [pairs[i] for i in sorted(kept)]


def in_order(pairs: Sequence[Preference], seed: int) -> list[Preference]:
    """Shuffled."""
    return [pairs[i] for i in np.random.default_rng([seed, _ORDER]).permutation(len(pairs))]


def length_figures(pairs: Sequence[Preference]) -> dict[str, float | None]:
    """``pairs``; mean tokens of ``chosen`` and ``rejected``; ``longer`` and ``shorter``: pairs whose chosen answer is that."""
    gaps = np.array([pair.gap for pair in pairs])
    return {
        "pairs": len(pairs),
        "chosen": round(float(np.mean([pair.chosen.tokens for pair in pairs])), 2) if pairs else None,
        "rejected": round(float(np.mean([pair.rejected.tokens for pair in pairs])), 2) if pairs else None,
        "longer": int(np.sum(gaps > 0)),
        "shorter": int(np.sum(gaps < 0)),
    }

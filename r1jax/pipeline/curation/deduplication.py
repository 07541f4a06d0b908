"""Duplicates: texts that are equal but for case, width and blanks, and texts that are nearly so.

Near duplicates are pairs whose sets of n-grams have a Jaccard similarity of at least the threshold. Of one prompt's samples
all pairs are compared. Between prompts, pairs to compare are found by MinHash in bands (128 hashes in 32 bands of 4: at a
similarity of 0.8 one pair in twenty million is missed, at 0.6 one in eighty), and each is then decided by its exact similarity:
nothing is dropped by chance. Of duplicates the first one stays.
"""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Sequence

import numpy as np

from r1jax.evaluation.ngrams import ngrams, whole_hash

BANDS, PER_BAND = 32, 4
_TEXTS = 256  # shingled together
_REMEMBERED = 4_096  # sets of n-grams kept while pairs are compared


def shingles(text: str, ngram: int) -> np.ndarray:
    """The set of a text's n-grams, sorted uint64; of a text with fewer tokens the one whole."""
    return _sets([text], ngram)[0]


def _sets(texts: Sequence[str], ngram: int) -> list[np.ndarray]:
    hashes, owner = ngrams(texts, ngram, signs=True)
    parts = np.split(hashes, np.searchsorted(owner, np.arange(1, len(texts))))
    return [
        np.unique(part) if len(part) else np.frombuffer(whole_hash(text, signs=True)[:8], np.uint64)
        for text, part in zip(texts, parts)
    ]


def jaccard(one: np.ndarray, other: np.ndarray) -> float:
    """Size of the intersection over that of the union of two sets (sorted, without repetitions, not empty)."""
    common = len(np.intersect1d(one, other, assume_unique=True))
    return common / (len(one) + len(other) - common)


def equal_to(keys: Sequence[bytes]) -> list[int | None]:
    """For each the index of the first earlier one that is equal, or None."""
    first: dict[bytes, int] = {}
    return [None if (found := first.setdefault(key, i)) == i else found for i, key in enumerate(keys)]


def near_in_group(texts: Sequence[str], ngram: int, threshold: float) -> list[int | None]:
    """For each the index of the first earlier *kept* one that is as like as ``threshold``, or None: then it is kept."""
    sets, kept, found = _sets(texts, ngram), [], []
    for i, own in enumerate(sets):
        like = next((j for j in kept if jaccard(own, sets[j]) >= threshold), None)
        found.append(like)
        if like is None:
            kept.append(i)
    return found


def _signatures(texts: Sequence[str], ngram: int) -> np.ndarray:
    """MinHash signatures, uint64 ``[texts, BANDS]``: one number per band. The hash functions are fixed."""
    random = np.random.default_rng(20_250_122)
    factors = random.integers(0, 1 << 63, BANDS * PER_BAND, np.uint64) * np.uint64(2) + np.uint64(1)
    offsets = random.integers(0, 1 << 63, BANDS * PER_BAND, np.uint64)
    mixers = random.integers(0, 1 << 63, PER_BAND, np.uint64) * np.uint64(2) + np.uint64(1)
    signatures = np.empty((len(texts), BANDS), np.uint64)
    for first in range(0, len(texts), _TEXTS):
        sets = _sets(texts[first : first + _TEXTS], ngram)
        starts = np.concatenate([[0], np.cumsum([len(s) for s in sets])[:-1]])
        everything = np.concatenate(sets)
        least = np.stack([np.minimum.reduceat(everything * a + b, starts) for a, b in zip(factors, offsets)], 1)
        signatures[first : first + len(sets)] = (least.reshape(-1, BANDS, PER_BAND) * mixers).sum(2, dtype=np.uint64)
    return signatures


def near_across(
    texts: Sequence[str],
    groups: Sequence[int],
    ngram: int,
    threshold: float,
    on_progress: Callable[[int], None] | None = None,
) -> list[int | None]:
    """As ``near_in_group``, between texts of different groups."""
    signatures = _signatures(texts, ngram)
    remembered = functools.lru_cache(_REMEMBERED)(lambda i: shingles(texts[i], ngram))
    buckets: dict[tuple[int, int], list[int]] = defaultdict(list)
    found: list[int | None] = []
    for i in range(len(texts)):
        keys = list(enumerate(signatures[i].tolist()))
        candidates = sorted({j for key in keys for j in buckets.get(key, ()) if groups[j] != groups[i]})
        like = next((j for j in candidates if jaccard(remembered(i), remembered(j)) >= threshold), None)
        found.append(like)
        if like is None:
            for key in keys:
                buckets[key].append(i)
        if on_progress is not None:
            on_progress(i)
    return found

"""N-grams of words as 64-bit hashes, of many texts at once: what contamination and near duplicates are found by.

A token is a word, a number, or one character of a script that is written without spaces. As several such characters make a
word, an n-gram is as long as its *words* say, not its tokens: a Chinese character is 3/5 of a word, so that ten words are
seventeen characters. (The shares are those of the language-consistency reward, ``rewards.language.scripts``.) Where an n-gram
that begins at a token ends depends on the text from there on alone, so equal passages have equal n-grams wherever they stand.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Sequence

import numpy as np

WORD = 60  # a word in the units below
_LONGEST_TOKEN = 64  # characters of a token that are normalised: Unicode's rules take quadratic time where marks pile up
_CHARACTERS = {  # scripts without spaces: what one character is of a word
    36: "\u2e80-\u2fdf\u3005-\u3007\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U000323af",  # Han
    30: "\u3041-\u30fa\u30fc-\u30ff\u31f0-\u31ff\uff66-\uff9f",  # kana
    15: "\u0e00-\u0e4e\u0e80-\u0ecf",  # Thai, Lao
    12: "\u1000-\u103f\u1050-\u108f\u1780-\u17d3",  # Burmese, Khmer
}
_ALL = "".join(_CHARACTERS.values())
# Vowel signs and accents that stand by themselves are no letters to Python, but parts of their words.
_MARKS = "\u0300-\u036f\u0591-\u05c7\u0610-\u061a\u064b-\u065f\u0900-\u0903\u093a-\u094f\u0980-\u0dff"
_WORD = f"[^\\W_{_ALL}](?:[^\\W_{_ALL}]|[{_MARKS}])*"
_TOKEN = re.compile(f"[{_ALL}]|{_WORD}")
_TOKEN_OR_SIGN = re.compile(f"[{_ALL}]|{_WORD}|[^\\w\\s]")
_UNITS = [(units, re.compile(f"[{characters}]")) for units, characters in _CHARACTERS.items()]


class _Known(dict):
    """token as written -> (hash, units); filled as tokens are met, and begun again before it grows large."""

    def __missing__(self, token: str) -> tuple[int, int]:
        if len(self) >= 1 << 20:
            self.clear()
        spelled = unicodedata.normalize("NFKC", token[:_LONGEST_TOKEN]).casefold() + token[_LONGEST_TOKEN:]
        digest = hashlib.blake2b(spelled.encode(errors="replace"), digest_size=8).digest()
        units = next((units for units, pattern in _UNITS if pattern.fullmatch(token)), WORD)
        self[token] = int.from_bytes(digest, "little"), units
        return self[token]


_KNOWN = _Known()
_STEP = np.uint64(0x9E3779B97F4A7C15)  # odd, so that it has an inverse modulo 2^64
_STEP_BACK = np.uint64(pow(int(_STEP), -1, 1 << 64))


def words(text: str, signs: bool = False) -> list[str]:
    """The tokens of a text as written; with ``signs`` every other sign is one too."""
    return (_TOKEN_OR_SIGN if signs else _TOKEN).findall(text)


def _powers(base: np.uint64, count: int) -> np.ndarray:
    powers = np.full(count, base, np.uint64)
    powers[:1] = 1
    return np.cumprod(powers, dtype=np.uint64)


def scatter(hashes: np.ndarray) -> np.ndarray:
    """uint64 to uint64, one to one, near numbers to far ones (the finaliser of splitmix64)."""
    x = hashes ^ (hashes >> np.uint64(30))
    x = x * np.uint64(0xBF58476D1CE4E5B9)
    x = x ^ (x >> np.uint64(27))
    x = x * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))


def ngrams(texts: Sequence[str], size: int, signs: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """All n-grams of texts, case and width of letters aside.

    Args:
      size: in words. With ``signs`` in tokens, whatever their script: there texts are compared that are meant to be alike.

    Returns:
      (hashes uint64 ``[N]``, owner int64 ``[N]``: whose n-gram it is). A text with fewer words has none.

    Raises:
      ValueError: ``size`` is under 1.
    """
    if size < 1:
        raise ValueError(f"an n-gram has at least 1 word, not {size}")
    known = [[_KNOWN[token] for token in words(text, signs)] for text in texts]
    counts = np.array([len(tokens) for tokens in known], np.int64)
    total = int(counts.sum())
    if not total:
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    tokens = np.fromiter((h for row in known for h, _ in row), np.uint64, total)
    units = np.fromiter((WORD if signs else u for row in known for _, u in row), np.int64, total)
    owner = np.repeat(np.arange(len(texts)), counts)
    reached = np.concatenate([[0], np.cumsum(units)])
    # The n-gram at token i is tokens [i, end): the fewest that are ``size`` words.
    end = np.searchsorted(reached, reached[:-1] + size * WORD, "left")
    last = np.cumsum(counts)[owner]
    whole = end <= last
    # sum_k token[i + k] * step^-k, from one running sum of token[k] * step^-k over all texts.
    sums = np.concatenate([np.zeros(1, np.uint64), np.cumsum(tokens * _powers(_STEP_BACK, total), dtype=np.uint64)])
    begin = np.flatnonzero(whole)
    hashes = (sums[end[begin]] - sums[begin]) * _powers(_STEP, total)[begin]
    return scatter(hashes), owner[begin]


def whole_hash(text: str, signs: bool = False) -> bytes:
    """16 bytes that are equal where all tokens of two texts are."""
    hashes = np.array([_KNOWN[token][0] for token in words(text, signs)], np.uint64)
    return hashlib.blake2b(hashes.tobytes(), digest_size=16).digest()


def is_short(text: str, size: int) -> bool:
    """Whether a text has fewer than ``size`` words, and so no n-gram."""
    return sum(_KNOWN[token][1] for token in words(text)) < size * WORD

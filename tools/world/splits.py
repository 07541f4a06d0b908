"""Which split a problem belongs to: a hash of its canonical form, the same for every seed."""

from __future__ import annotations

import hashlib

SPLITS = ("train", "dev", "test")


def split_of(key: str) -> str:
    """``train`` (60%), ``dev`` (10%: settings may be tuned on it) or ``test`` (30%: nothing may).

    ``key`` is the canonical problem. Neither the order of operands, nor names, nor the language, nor any seed changes it,
    so a world made with another seed shares no problem between its test and this one's training.
    """
    bucket = int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") % 10
    return "test" if bucket < 3 else "dev" if bucket < 4 else "train"

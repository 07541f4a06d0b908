"""What a recipe that can't be run raises, and how a name is told from its neighbours."""

from __future__ import annotations

import difflib
from collections.abc import Sequence


class RecipeError(ValueError):
    """A recipe that can't be run; the message names the key, its value and the remedy."""


def nearest(name: str, known: Sequence[str]) -> str:
    """``; did you mean X?`` for the nearest of the known names, else the list of them."""
    if not known:
        return "; there are none"
    close = difflib.get_close_matches(str(name), [str(k) for k in known], n=1, cutoff=0.6)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(map(str, known)))}"

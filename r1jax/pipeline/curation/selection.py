"""Which examples are taken: at most some per prompt, a balance of domains, a mix with general data. All by seed alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

import numpy as np

from r1jax import config
from r1jax.pipeline.curation.deduplication import jaccard, shingles

CHOICES = ("shortest", "random", "diverse")


def check_selection(settings: config.SelectionSettings, where: str) -> None:
    """Refuses what can't be selected by.

    Raises:
      RecipeError: naming the key, its value and the remedy.
    """
    if settings.choose not in CHOICES:
        raise config.RecipeError(f"{where}.choose {settings.choose!r} is unknown{config.nearest(settings.choose, CHOICES)}")
    if settings.per_prompt < 0:
        raise config.RecipeError(f"{where}.per_prompt can't be negative, but is {settings.per_prompt}; 0 keeps all")
    for domain, cap in settings.domain_caps.items():
        if cap < 0:
            raise config.RecipeError(f"{where}.domain_caps.{domain} can't be negative, but is {cap}")
    for domain, weight in settings.domain_weights.items():
        if not weight > 0:
            raise config.RecipeError(
                f"{where}.domain_weights.{domain} must be positive, not {weight}; leave it out for none"
            )


def best_of_prompt(
    texts: Sequence[str], lengths: Sequence[int], count: int, choose: str, rng: np.random.Generator, ngram: int
) -> list[int]:
    """Indices of at most ``count`` (0: all) texts of one prompt, in rising order.

    Args:
      lengths: of the texts in tokens; of equally long ones the first is the shortest.
      rng: read by ``random`` alone.
      ngram: what ``diverse`` compares, in tokens.
    """
    if not count or len(texts) <= count:
        return list(range(len(texts)))
    by_length = sorted(range(len(texts)), key=lambda i: (lengths[i], i))
    if choose == "shortest":
        return sorted(by_length[:count])
    if choose == "random":
        return sorted(rng.permutation(len(texts))[:count].tolist())
    sets = [shingles(text, ngram) for text in texts]
    chosen = by_length[:1]
    likeness = [jaccard(own, sets[chosen[0]]) for own in sets]  # to the nearest chosen one
    while len(chosen) < count:
        new = min((i for i in by_length if i not in chosen), key=lambda i: likeness[i])
        chosen.append(new)
        likeness = [max(old, jaccard(own, sets[new])) for old, own in zip(likeness, sets)]
    return sorted(chosen)


def balanced(
    domains: Sequence[str], caps: Mapping[str, int], weights: Mapping[str, float], rng: np.random.Generator
) -> list[int]:
    """Indices of a balanced set, in rising order; which ones of a domain is chosen by ``rng``.

    Caps come first. With weights the set is the largest whose domains stand in their proportion; domains without a weight
    are left out, and a weighted domain that has nothing is passed over.
    """
    members: dict[str, list[int]] = defaultdict(list)
    for i, domain in enumerate(domains):
        members[domain].append(i)
    sizes = {domain: min(len(found), caps.get(domain, len(found))) for domain, found in members.items()}
    if weights:
        present = {domain: weight for domain, weight in weights.items() if sizes.get(domain)}
        unit = min((sizes[domain] / weight for domain, weight in present.items()), default=0.0)
        # The scarcest domain is taken whole: not one less because a product was rounded down.
        sizes = {domain: int(unit * present.get(domain, 0.0) + 1e-6) for domain in members}
    chosen: list[int] = []
    for domain in sorted(members):
        chosen += rng.permutation(np.array(members[domain]))[: sizes[domain]].tolist()
    return sorted(chosen)


def general_count(own: int, share: float) -> int:
    """How many general examples, to the nearest, make ``share`` of a set with ``own`` others."""
    return round(own * share / (1 - share))

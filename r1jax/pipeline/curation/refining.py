"""From filtered examples to the rows of a data set: duplicates, selection, balance, the mix. Pure: by seed alone."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from r1jax import config
from r1jax.evaluation.contamination import Contamination
from r1jax.evaluation.ngrams import whole_hash
from r1jax.pipeline.curation.card import Tally
from r1jax.pipeline.curation.dataset import Example
from r1jax.pipeline.curation.deduplication import equal_to, near_across, near_in_group
from r1jax.pipeline.curation.selection import balanced, best_of_prompt, general_count

# What a random choice is for: part of its seed.
_OF_PROMPT, _OF_DOMAIN, _OF_GENERAL, _ORDER = range(4)


def drop_contaminated(examples: Sequence[Example], known: Contamination, tally: Tally) -> list[Example]:
    """Without the samples that share words with a benchmark."""
    kept = []
    for example, overlap in zip(examples, known.passages([example.text for example in examples])):
        if overlap is None:
            kept.append(example)
        else:
            tally.reject(example.domain, "contaminated")
    return kept


def _key(example: Example) -> bytes:
    return whole_hash(example.problem, signs=True) + whole_hash(example.text, signs=True)


def drop_duplicates(examples: Sequence[Example], settings: config.DeduplicationSettings, tally: Tally) -> list[Example]:
    """Without what equals an earlier example, or nearly does: see ``deduplication``."""

    def without(examples: Sequence[Example], found: Sequence[int | None], reason: str) -> list[Example]:
        for example, like in zip(examples, found):
            if like is not None:
                tally.reject(example.domain, reason)
        return [example for example, like in zip(examples, found) if like is None]

    kept = without(examples, equal_to([_key(example) for example in examples]), "duplicate")
    if not settings.near:
        return kept
    # Two prompts of the same problem are one group.
    groups = [whole_hash(example.problem, signs=True) for example in kept]
    members: dict[bytes, list[int]] = defaultdict(list)
    for i, group in enumerate(groups):
        members[group].append(i)
    found: list[int | None] = [None] * len(kept)
    for own in members.values():
        for i, like in zip(own, near_in_group([kept[i].text for i in own], settings.ngram, settings.near)):
            found[i] = like
    kept = without(kept, found, "near duplicate")
    number = {group: i for i, group in enumerate(members)}
    groups = [number[whole_hash(example.problem, signs=True)] for example in kept]
    texts = [f"{example.problem}\n{example.text}" for example in kept]
    return without(kept, near_across(texts, groups, settings.ngram, settings.near), "near duplicate")


def select(
    examples: Sequence[Example], settings: config.SelectionSettings, ngram: int, seed: int, tally: Tally
) -> list[Example]:
    """At most some examples of each prompt, then a balance of the domains."""
    members: dict[int, list[Example]] = defaultdict(list)
    for example in examples:
        members[example.prompt].append(example)
    chosen: list[Example] = []
    for prompt, own in members.items():
        taken = best_of_prompt(
            [example.text for example in own],
            [example.tokens for example in own],
            settings.per_prompt,
            settings.choose,
            np.random.default_rng([seed, _OF_PROMPT, prompt]),
            ngram,
        )
        for i, example in enumerate(own):
            if i in taken:
                chosen.append(example)
            else:
                tally.reject(example.domain, "over per_prompt")
    rng = np.random.default_rng([seed, _OF_DOMAIN])
    taken = set(balanced([e.domain for e in chosen], settings.domain_caps, settings.domain_weights, rng))
    for i, example in enumerate(chosen):
        if i not in taken:
            tally.reject(example.domain, "over the balance")
    return [example for i, example in enumerate(chosen) if i in taken]


def mix_general(
    examples: Sequence[Example], general: Sequence[Example], share: float, known: Contamination, seed: int
) -> tuple[list[Example], dict[str, int]]:
    """``(examples of general data, what became of all)``: as many as make ``share`` of the whole, or all there are.

    Those that share words with a benchmark and those that come twice are not among them.
    """
    overlaps = zip(known.problems([e.problem for e in general]), known.passages([e.text for e in general]))
    clean = [example for example, overlap in zip(general, overlaps) if overlap == (None, None)]
    once = [example for example, like in zip(clean, equal_to([_key(e) for e in clean])) if like is None]
    wanted = general_count(len(examples), share)
    order = np.random.default_rng([seed, _OF_GENERAL]).permutation(len(once))[:wanted]
    counts = {
        "contaminated": len(general) - len(clean),
        "duplicate": len(clean) - len(once),
        "wanted": wanted,
        "taken": len(order),
    }
    return [once[i] for i in sorted(order.tolist())], counts


def in_order(examples: Sequence[Example], seed: int) -> list[Example]:
    """Shuffled: who reads only the first rows gets every domain."""
    return [examples[i] for i in np.random.default_rng([seed, _ORDER]).permutation(len(examples))]

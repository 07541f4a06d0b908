"""The language-consistency reward (Nature 645:633, equation 7)."""

from __future__ import annotations

from r1jax.rewards.language.detection import SCRIPT_OF, language_code, word_languages


def reasoning(completion: str) -> str:
    """The chain of thought: what stands before the last ``</think>``, after a ``<think>`` if there is one; without
    ``</think>`` what follows ``<think>``, and all of a text that has neither."""
    before, closed, after = completion.rpartition("</think>")
    text = before if closed else after
    return text.partition("<think>")[2] if "<think>" in text else text


def language_consistency(text: str, language: str) -> float:
    """Share of the target language's words among the words of the chain of thought: ``Reward_language``, in [0, 1].

    One rule for every language: each word belongs to exactly one (``word_languages``), so the scores of all languages add
    up to 1, and writing a text the other way round (each word of A as one of B, and B's as A's) swaps the scores of A and
    B. Code, formulas, numbers, addresses and identifiers are no words; the whole text counts where it has no
    ``</think>``. A thought without any word scores 0: nothing shows the language.

    Args:
      text: a completion, or a chain of thought alone.
      language: an ISO 639-1 code or an English name: ``en``, ``zh``, ``zh-CN``, ``German``.

    Raises:
      ValueError: an unknown language.
    """
    code = language_code(language)
    counts = word_languages(reasoning(text))
    total = sum(counts.values())
    # What shares the target's script and gives no sign of another language is taken for the target's.
    return (counts[code] + counts[SCRIPT_OF[code]]) / total if total else 0.0

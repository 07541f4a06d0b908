"""The data card of a set of preference pairs: what became of every sample and every comparison.

<stage>/card.json    numbers
<stage>/card.md      the same for people
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def card_text(name: str, card: Mapping[str, Any]) -> str:
    """The card as Markdown."""
    before, after, bias = card["lengths_before"], card["lengths"], card["position_bias"]
    lines = [
        f"# {name}",
        "",
        f"{card['rows']:,} pairs of {card['judged']:,} that were judged, of {card['samples']:,} samples.",
    ]
    lines += ["", "## From prompts to pairs", "", "| | |", "|---|---|"]
    for key in ("prompts", "sampled_prompts", "samples", "answers", "judged", "clear", "rows"):
        lines.append(f"| {key.replace('_', ' ')} | {card[key]:,} |")
    lines += [
        "",
        "Answers are samples that say something, each once for a prompt. Clear: the judge's mean difference is over",
    ]
    lines += [
        f"{card['settings']['least_difference']}, on a scale from -2 to 2.",
        "",
        "## Left out",
        "",
        "| why | |",
        "|---|---|",
    ]
    lines += [f"| {reason} | {count:,} |" for reason, count in card["rejected"].items()]
    lines += [
        "",
        "## Length",
        "",
        "| | pairs | chosen, tokens | rejected, tokens | chosen is longer | shorter |",
        "|---|---|---|---|---|---|",
    ]
    for what, own in (("clear", before), ("kept", after)):
        lines.append(
            f"| {what} | {own['pairs']:,} | {own['chosen']} | {own['rejected']} | {own['longer']:,} | {own['shorter']:,} |"
        )
    lines += ["", "## The judge", ""]
    lines.append(
        f"Of {bias['pairs']:,} pairs {bias['graded']:,} could be read in both orders; {bias['agree']:.1%} of these have one answer in "
        f"both, {bias['contradict']:.1%} another in each. The answer shown first is preferred by {bias['first']:+.2f}."
    )
    lines += ["", "## Made with", ""]
    for key in ("inputs", "environment", "seed", "settings"):
        value = card.get(key)
        for inner, shown in value.items() if isinstance(value, Mapping) else [("", value)]:
            lines.append(f"- {' '.join(filter(None, (key, inner)))}: `{shown}`")
    return "\n".join(lines) + "\n"

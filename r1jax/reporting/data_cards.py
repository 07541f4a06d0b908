"""What the tables say of a stage that makes data, from its ``card.json``."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from r1jax.reporting.collect import Stage
from r1jax.reporting.console import number

Table = tuple[str, list[str], list[list[Any]]]


def _count(value: Any) -> int:
    """A number of the card; 0 where a file holds anything else there."""
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300 else 0


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def card_lead(stage: Stage) -> str:
    """``114 rows of 256 samples``; empty for a stage without a card."""
    card = stage.card or {}
    if not _count(card.get("rows")):
        return ""
    if "judged" in card:
        return f"{_count(card.get('rows')):,} pairs of {_count(card.get('judged')):,} that were judged"
    general = _count(card.get("general_rows"))
    return (
        f"{_count(card.get('sampled_rows')):,} rows of {_count(card.get('samples')):,} samples"
        f"{f', {general:,} of general data' if general else ''}"
    )


def card_lines(stage: Stage) -> list[list[str]]:
    """Lines of the table of stages: stage, what, figure, before, after."""
    card = stage.card or {}
    if not _count(card.get("rows")):
        return []
    if "judged" in card:
        return _pair_lines(stage, card)
    samples, rows = _count(card.get("samples")), _count(card.get("rows"))
    lines = [
        ["right", f"{samples:,} samples", f"{_count(card.get('right')):,}"],
        ["rows", f"{samples:,} samples", f"{rows:,}"],
        ["mean tokens", "", number(_count(_mapping(card.get("tokens")).get("mean")))],
    ]
    lines += [[reason, "rejected", f"{_count(count):,}"] for reason, count in _mapping(card.get("rejected")).items()]
    return [[stage.name if not i else "", "data" if not i else "", *line] for i, line in enumerate(lines)]


def _pair_lines(stage: Stage, card: Mapping[str, Any]) -> list[list[str]]:
    """Lines of a set of preference pairs (``pipeline/preferences``)."""
    lines = [[_count(card.get("judged")), "clear", "clear"], [_count(card.get("judged")), "kept", "rows"]]
    rows = [
        ["pairs" if not i else "", what, f"{of:,} judged", f"{_count(card.get(key)):,}"]
        for i, (of, what, key) in enumerate(lines)
    ]
    rows += [["", why, "left out", f"{_count(count):,}"] for why, count in _mapping(card.get("rejected")).items()]
    return [[stage.name if not i else "", *row] for i, row in enumerate(rows)]


def _pair_tables(card: Mapping[str, Any]) -> list[Table]:
    keys = ("prompts", "sampled_prompts", "samples", "answers", "judged", "clear", "rows")
    funnel = [[_count(card.get(key)) for key in keys]]
    lengths = []
    for what, key in (("clear", "lengths_before"), ("kept", "lengths")):
        own = _mapping(card.get(key))
        lengths.append([what, *(_count(own.get(name)) for name in ("pairs", "chosen", "rejected", "longer", "shorter"))])
    bias = _mapping(card.get("position_bias"))
    share = ("agree", "contradict", "unreadable")
    judge = [
        [_count(bias.get("pairs")), *(f"{_count(bias.get(key)):.1%}" for key in share), f"{_count(bias.get('first')):+.2f}"]
    ]
    tables: list[Table] = [
        ("From prompts to pairs", [*(key.replace("_", " ") for key in keys[:-1]), "kept"], funnel),
        ("Length", ["", "pairs", "chosen, tokens", "rejected, tokens", "chosen is longer", "chosen is shorter"], lengths),
        ("The judge", ["pairs", "orders agree", "orders contradict", "unreadable", "for the first shown"], judge),
    ]
    reasons = [[str(why), _count(count)] for why, count in _mapping(card.get("rejected")).items()]
    return [*tables, ("Left out", ["why", "samples or pairs"], reasons)] if reasons else tables


def card_tables(stage: Stage) -> list[Table]:
    """``(heading, columns, rows)`` by domain: from prompts to rows, and why samples were rejected; of preference pairs: from prompts
    to pairs, their lengths, the judge."""
    if "judged" in (stage.card or {}):
        return _pair_tables(stage.card)
    domains = {str(name): _mapping(own) for name, own in _mapping((stage.card or {}).get("domains")).items()}
    if not domains:
        return []
    keys = ("prompts", "sampled_prompts", "samples", "right", "kept", "general")
    funnel = [
        [name, *(_count(own.get(key)) for key in keys), _count(_mapping(own.get("tokens")).get("mean"))]
        for name, own in domains.items()
    ]
    tables: list[Table] = [
        ("From prompts to rows", ["domain", *(key.replace("_", " ") for key in keys), "mean tokens"], funnel)
    ]
    reasons = [str(reason) for reason in _mapping((stage.card or {}).get("rejected"))]
    if reasons:
        rejected = [
            [name, *(_count(_mapping(own.get("rejected")).get(reason)) for reason in reasons)]
            for name, own in domains.items()
            if _count(own.get("samples"))
        ]
        tables.append(("Rejected samples", ["domain", *reasons], rejected))
    return tables

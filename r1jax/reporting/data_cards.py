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
    samples, rows = _count(card.get("samples")), _count(card.get("rows"))
    lines = [
        ["right", f"{samples:,} samples", f"{_count(card.get('right')):,}"],
        ["rows", f"{samples:,} samples", f"{rows:,}"],
        ["mean tokens", "", number(_count(_mapping(card.get("tokens")).get("mean")))],
    ]
    lines += [[reason, "rejected", f"{_count(count):,}"] for reason, count in _mapping(card.get("rejected")).items()]
    return [[stage.name if not i else "", "data" if not i else "", *line] for i, line in enumerate(lines)]


def card_tables(stage: Stage) -> list[Table]:
    """``(heading, columns, rows)`` by domain: from prompts to rows, and why samples were rejected."""
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

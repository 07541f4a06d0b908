"""The data card: what became of every sample, how long the rows are, and what all was made with.

<stage>/card.json    numbers
<stage>/card.md      the same for people, with the paper's table of statistics (Table 5 of arXiv 2501.12948v2)
"""

from __future__ import annotations

import dataclasses
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from etils import epath

from r1jax.pipeline.curation.dataset import GENERAL, Example
from r1jax.pipeline.stage import Context

PERCENTILES = (5, 25, 50, 75, 95, 99)


class Tally:
    """Counts by domain.

    Attributes:
      prompts: prompts of the data set that were read. contaminated: those of them left out, by benchmark. asked: those
        that were sampled.
      samples, right: samples drawn, and right ones among them, by their grader's verdict or a judge's.
      rejected: domain -> reason -> samples.
    """

    def __init__(self):
        self.prompts: Counter[str] = Counter()
        self.contaminated: Counter[str] = Counter()
        self.asked: Counter[str] = Counter()
        self.samples: Counter[str] = Counter()
        self.right: Counter[str] = Counter()
        self.rejected: dict[str, Counter[str]] = defaultdict(Counter)

    def reject(self, domain: str, reason: str) -> None:
        self.rejected[domain][reason] += 1

    def reasons(self) -> dict[str, int]:
        """reason -> samples of all domains, the most frequent first."""
        total: Counter[str] = Counter()
        for reasons in self.rejected.values():
            total.update(reasons)
        return dict(sorted(total.items(), key=lambda item: (-item[1], item[0])))

    def told(self) -> str:
        """``wrong 20, format 3``."""
        return ", ".join(f"{reason} {count}" for reason, count in self.reasons().items()) or "nothing was sampled"


def lengths(tokens: Iterable[int]) -> dict[str, float]:
    """``total, mean, p5 ... p99, max`` of lengths; nothing for none."""
    values = np.array(list(tokens), np.int64)
    if not len(values):
        return {}
    found = {"total": int(values.sum()), "mean": round(float(values.mean()), 2)}
    found |= {f"p{p}": round(float(np.percentile(values, p)), 2) for p in PERCENTILES}
    return found | {"max": int(values.max())}


def build_card(tally: Tally, rows: Sequence[Example], made_with: Mapping[str, Any]) -> dict[str, Any]:
    """The card's numbers.

    Args:
      rows: those that are written.
      made_with: models, data, settings, seed, commit: as they are to stand in the card.
    """
    by_domain: dict[str, list[Example]] = defaultdict(list)
    for row in rows:
        by_domain[row.domain].append(row)
    kept = Counter(row.domain for row in rows if row.source != GENERAL)
    domains = {}
    for domain in sorted({*tally.prompts, *tally.samples, *by_domain}):
        own = by_domain[domain]
        domains[domain] = {
            "prompts": tally.prompts[domain],
            "sampled_prompts": tally.asked[domain],
            "samples": tally.samples[domain],
            "right": tally.right[domain],
            "kept": kept[domain],
            "general": len(own) - kept[domain],
            "rows": len(own),
            "tokens": lengths(row.tokens for row in own),
            "rejected": dict(sorted(tally.rejected.get(domain, {}).items())),
        }
    general = sum(row.source == GENERAL for row in rows)
    return {
        "rows": len(rows),
        "sampled_rows": len(rows) - general,
        "general_rows": general,
        "prompts": sum(tally.prompts.values()),
        "sampled_prompts": sum(tally.asked.values()),
        "contaminated_prompts": dict(sorted(tally.contaminated.items())),
        "samples": sum(tally.samples.values()),
        "right": sum(tally.right.values()),
        "prompts_with_rows": len({row.prompt for row in rows if row.source != GENERAL}),
        "tokens": lengths(row.tokens for row in rows),
        "rejected": tally.reasons(),
        "domains": domains,
        **made_with,
    }


# ---------------------------------------------------------------------------------------------- for people
def _table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> list[str]:
    def cell(value: Any) -> str:
        return f"{value:,}" if isinstance(value, (int, float)) else str(value).replace("|", "\\|")

    lines = [f"| {' | '.join(columns)} |", f"|{'---|' * len(columns)}"]
    return [*lines, *(f"| {' | '.join(map(cell, row))} |" for row in rows), ""]


def card_text(name: str, card: Mapping[str, Any]) -> str:
    """The card as Markdown."""
    domains = card["domains"]
    statistics = [
        [d, own["rows"], own["tokens"].get("mean", 0), own["tokens"].get("p50", 0), own["tokens"].get("p95", 0)]
        for d, own in domains.items()
    ]
    own = card["tokens"]
    statistics.append(["all", card["rows"], own["mean"], own["p50"], own["p95"]])
    keys = ("prompts", "sampled_prompts", "samples", "right", "kept", "general")
    funnel = [[d, *(own[key] for key in keys)] for d, own in domains.items()]
    reasons = list(card["rejected"])
    why = [[d, *(own["rejected"].get(reason, 0) for reason in reasons)] for d, own in domains.items() if own["samples"]]
    share = card["general_rows"] / card["rows"]
    lines = [f"# {name}", "", f"{card['rows']:,} rows: {card['sampled_rows']:,} sampled and kept of {card['samples']:,}"]
    lines[-1] += f" samples, {card['general_rows']:,} of general data ({share:.1%})."
    lines += ["", "## Rows", "", *_table(["domain", "rows", "mean tokens", "median", "95%"], statistics)]
    lines += ["Tokens are those of the completions, as the sampling model's tokenizer counts them.", ""]
    lines += ["## From prompts to rows", ""]
    lines += _table(["domain", *(key.replace("_", " ") for key in keys)], funnel)
    if card["contaminated_prompts"]:
        met = ", ".join(f"{count:,} with {name}" for name, count in card["contaminated_prompts"].items())
        lines += [f"Prompts left out before sampling, since they share words with a benchmark: {met}.", ""]
    if reasons:
        lines += ["## Rejected samples", "", "Each sample is counted once, by the first reason met.", ""]
        lines += _table(["domain", *reasons], why)
    lines += ["## Made with", ""]
    for key in ("inputs", "environment", "seed", "settings"):
        value = card.get(key)
        for inner, shown in value.items() if isinstance(value, Mapping) else [("", value)]:
            lines.append(f"- {' '.join(filter(None, (key, inner)))}: `{shown}`")
    return "\n".join(lines) + "\n"


def made_with(
    stage: str, context: Context, workdir: epath.Path, data_path: str, decontaminated: Sequence[str], settings: Any
) -> dict[str, Any]:
    """What a card says of how its set was made: ``inputs``, ``environment``, ``seed`` and ``settings``, but for how it was graded,
    which may change between two sessions.

    Args:
      workdir: the stage's. settings: the stage's dataclass.
    """
    inputs = next(one for one in context.recipe.stages if one.name == stage).inputs
    environment = workdir.parent.parent / "environment.json"
    known = json.loads(environment.read_text()) if environment.exists() else {}
    told = dataclasses.asdict(settings)
    told.pop("workers", None)
    return {
        "inputs": {**inputs, "data_path": data_path, "decontaminated": list(decontaminated)},
        "environment": {key: known[key] for key in ("r1jax", "commit", "device") if key in known},
        "seed": context.recipe.seed,
        "settings": told,
    }

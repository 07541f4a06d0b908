"""Which responses the report shows: the same problem before and after, and groups from the start, middle and end of training."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator, Mapping
from typing import Any

from r1jax.reporting import files
from r1jax.reporting.collect import Stage

MOST_CHARACTERS = 3_000  # of one response or prompt; the end is kept too, where the answer stands
_SCAN = 4_000  # most lines of one file that are looked at


def _lines(path: str) -> Iterator[Mapping[str, Any]]:
    """The objects of a JSONL file, up to ``_SCAN`` of them; damaged lines and a missing file yield nothing."""
    file = files.open_text(path)
    if file is None:
        return
    with file:
        for line in itertools.islice(file, _SCAN):
            try:
                value = json.loads(line)
            except ValueError:
                continue
            if isinstance(value, dict):
                yield value


def _cut(text: str) -> str:
    if len(text) <= MOST_CHARACTERS:
        return text
    tail = MOST_CHARACTERS // 3
    left_out = len(text) - MOST_CHARACTERS
    return f"{text[: MOST_CHARACTERS - tail]}\n[… {left_out:,} characters …]\n{text[-tail:]}"


def pieces(completion: str) -> list[tuple[str, str]]:
    """A response as ``(kind, text)``: ``thinking`` up to the end of its ``</think>``, then ``answer``; or all ``answer``."""
    completion = _cut(completion)
    thinking, end, answer = completion.partition("</think>")
    return [("thinking", thinking + end), ("answer", answer)] if end else [("answer", completion)]


def _shown(sample: Mapping[str, Any], title: str) -> dict[str, Any]:
    parts = sample.get("parts")
    return {
        "title": title,
        "pieces": pieces(str(sample.get("completion", ""))),
        "verdict": str(sample.get("verdict", "none")),
        "reason": str(sample.get("reason", "")),
        "tokens": sample.get("tokens"),
        "cut_off": sample.get("finish_reason") == "length",
        "parts": dict(parts) if isinstance(parts, dict) else {},
    }


def _prompt(sample: Mapping[str, Any]) -> str:
    """The prompt's text; or the problem, of the sample or of its row, under the names that data sets use."""
    row = sample.get("row")
    names = ("prompt", "problem", "question", "Question")
    places = (sample, row if isinstance(row, dict) else {})
    return _cut(str(next((place[name] for place in places for name in names if place.get(name)), "")))


def _key(sample: Mapping[str, Any]) -> Any:
    return str(sample.get("prompt_id"))


def before_and_after(stage: Stage, count: int = 4) -> list[dict[str, Any]]:
    """The first sample of the same ``count`` problems at the first and the last evaluation of one benchmark.

    Of the benchmark whose evaluations lie furthest apart. Its first problems: by position, not by how well they show.
    """
    for benchmark, evaluations in sorted(stage.benchmarks().items(), key=lambda b: b[1][0].step - b[1][-1].step):
        if len(evaluations) < 2:
            continue
        shown = []
        for evaluation in (evaluations[0], evaluations[-1]):
            first: dict[str, Mapping[str, Any]] = {}
            for sample in _lines(evaluation.samples):
                first.setdefault(_key(sample), sample)
                if len(first) > count:
                    break
            shown.append(first)
        both = [key for key in shown[0] if key in shown[1]][:count]
        titles = [f"step {e.step:,}" for e in (evaluations[0], evaluations[-1])]
        if both:
            return [
                {
                    "heading": f"{benchmark}, problem {number}: before and after",
                    "prompt": _prompt(shown[0][key]),
                    "samples": [_shown(samples[key], title) for samples, title in zip(shown, titles)],
                }
                for number, key in enumerate(both, 1)
            ]
    return []


def from_training(stage: Stage, width: int = 4) -> list[dict[str, Any]]:
    """``width`` samples of one group from the first, the middle and the last wave; a group of mixed verdicts if there is one."""
    chosen = dict.fromkeys([stage.waves[0], stage.waves[len(stage.waves) // 2], stage.waves[-1]] if stage.waves else [])
    groups = []
    for wave in chosen:
        by_prompt: dict[str, list[Mapping[str, Any]]] = {}
        for sample in _lines(f"{wave}/rollouts.jsonl"):
            by_prompt.setdefault(_key(sample), []).append(sample)
        if not by_prompt:
            continue
        group = next(
            (g for g in by_prompt.values() if len({s.get("verdict") for s in g[:width]}) > 1), next(iter(by_prompt.values()))
        )
        rollout = os.path.basename(wave).partition("-")[0].lstrip("0") or "0"
        groups.append(
            {
                "heading": f"Rollout {rollout}",
                "prompt": _prompt(group[0]),
                "samples": [_shown(s, f"sample {s.get('sample', i)}") for i, s in enumerate(group[:width])],
            }
        )
    return groups

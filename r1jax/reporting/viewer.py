"""What the rollout viewer shows: groups of samples by step, as many as a page can hold, and where the others lie.

A rollout's view (``stages/<stage>/views/<rollout>.json``, written by ``pipeline/grpo/views.py``) has the text of each token, rewards
and advantages. Where a run has none, its waves' ``rollouts.jsonl`` give the texts as a whole. Everything is brought into one
form here, of known keys and types, so that no file can trip the page.
"""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from r1jax.reporting import files
from r1jax.reporting.collect import RECORD, Stage

MOST_CHARACTERS = 3_000  # of one response or prompt; the end is kept too, where the answer stands
MOST_TOKENS = 1_200  # of one response
MOST_SAMPLES = 8
MOST_GROUPS = 4
MOST_ROLLOUTS = 60  # that stand in the page
_SCAN = 400  # most lines of a file that are looked at

Group = dict[str, Any]


# ---------------------------------------------------------------------------------------------- one form
def _cut(text: str) -> str:
    if len(text) <= MOST_CHARACTERS:
        return text
    tail = MOST_CHARACTERS // 3
    left_out = len(text) - MOST_CHARACTERS
    return f"{text[: MOST_CHARACTERS - tail]}\n[… {left_out:,} characters …]\n{text[-tail:]}"


def _number(value: Any) -> float | None:
    """``value``, None where it is no finite number."""
    fits = isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300
    return float(f"{value:.6g}") if fits else None


def _words(value: Any) -> str:
    return "" if value is None else str(value)


def _tokens(sample: Mapping[str, Any]) -> dict[str, Any]:
    """``texts`` and ``logprobs`` of the tokens if both are there and fit, else the ``text`` as a whole."""
    texts, logprobs = sample.get("texts"), sample.get("logprobs")
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        return {"text": _cut(_words(sample.get("completion")))}
    texts = [_cut(text) for text in texts[:MOST_TOKENS]]
    if not isinstance(logprobs, list) or len(logprobs) < len(texts):
        logprobs = []
    left_out = sample.get("left_out")
    fits = isinstance(left_out, list) and len(left_out) == 2 and all(isinstance(n, int) for n in left_out)
    return {"texts": texts, "logprobs": [_number(p) for p in logprobs[: len(texts)]], "left_out": left_out if fits else None}


def _sample(sample: Mapping[str, Any], title: str) -> dict[str, Any]:
    parts = sample.get("parts")
    verdict = sample.get("verdict")
    return {
        "title": title,
        "verdict": verdict if verdict in ("right", "wrong", "ungraded") else "none",
        "reason": _cut(_words(sample.get("reason"))),
        "reward": _number(sample.get("reward")),
        "advantage": _number(sample.get("advantage")),
        "in_loss": sample.get("in_loss") is not False,
        "tokens": _number(sample.get("tokens")),
        "cut_off": sample.get("finish_reason") == "length",
        "parts": {str(name): _number(value) for name, value in parts.items()} if isinstance(parts, dict) else {},
        **_tokens(sample),
    }


def _row_text(sample: Mapping[str, Any]) -> str:
    """The prompt's text; or the problem, of the sample or of its row, under the names that data sets use."""
    row = sample.get("row")
    names = ("prompt", "problem", "question", "Question")
    places = (sample, row if isinstance(row, dict) else {})
    return _cut(_words(next((place[name] for place in places for name in names if place.get(name)), "")))


def _answer(sample: Mapping[str, Any]) -> str:
    row = sample.get("row") if isinstance(sample.get("row"), dict) else {}
    return _cut(_words(sample.get("gold") or sample.get("answer") or row.get("answer") or row.get("Answer") or ""))


# ---------------------------------------------------------------------------------------------- reading
def _lines(path: str) -> Iterator[Mapping[str, Any]]:
    """The objects of a JSONL file, up to ``_SCAN`` of them; damaged lines and a missing file yield nothing."""
    file = files.open_text(path)
    if file is None:
        return
    with file:
        for line in itertools.islice(file, _SCAN):
            try:
                value = json.loads(line)
            except (ValueError, RecursionError):
                continue
            if isinstance(value, dict):
                yield value


def read_view(path: str) -> list[Group] | None:
    """The groups of a view; None where it can't be read."""
    try:
        view = json.loads(files.read_bytes(path) or b"")
        groups = [group for group in view["groups"] if isinstance(group, dict)]
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None
    shown = []
    for group in groups[:MOST_GROUPS]:
        samples = (
            [s for s in group.get("samples") or [] if isinstance(s, dict)] if isinstance(group.get("samples"), list) else []
        )
        shown.append(
            {
                "heading": f"prompt {_words(group.get('prompt_id'))}",
                "prompt": _cut(_words(group.get("prompt"))),
                "answer": _cut(_words(group.get("answer"))),
                "samples": [_sample(s, f"sample {_words(s.get('sample'))}") for s in samples[:MOST_SAMPLES]],
            }
        )
    return shown


def read_wave(folder: str) -> list[Group] | None:
    """The first groups of a wave, without tokens and advantages; None for one that did not happen or can't be read."""
    if not files.exists(f"{folder}/{RECORD}"):
        return None
    by_prompt: dict[str, list[Mapping[str, Any]]] = {}
    try:
        for sample in _lines(f"{folder}/rollouts.jsonl"):
            by_prompt.setdefault(_words(sample.get("prompt_id")), []).append(sample)
    except OSError:
        return None
    return [
        {
            "heading": f"prompt {prompt_id}",
            "prompt": _row_text(samples[0]),
            "answer": _answer(samples[0]),
            "samples": [_sample(s, f"sample {_words(s.get('sample'))}") for s in samples[:MOST_SAMPLES]],
        }
        for prompt_id, samples in itertools.islice(by_prompt.items(), MOST_GROUPS)
    ] or None


# ---------------------------------------------------------------------------------------------- choosing
def _rollout(path: str) -> int:
    digits = os.path.basename(path).partition(".")[0].partition("-")[0]
    return int(digits) if digits.isdecimal() else 0


def _first_steps(stage: Stage) -> dict[int, int]:
    """Rollout -> its first update."""
    steps: dict[int, int] = {}
    for step, rollout in zip(stage.updates["step"], stage.updates.get("rollout") or []):
        if isinstance(rollout, (int, float)) and rollout == rollout and abs(rollout) < 1e15:
            steps.setdefault(int(rollout), step)
    return steps


def spread(count: int, most: int) -> list[int]:
    """At most ``most`` of ``range(count)``, evenly, the first and the last among them."""
    if count <= most:
        return list(range(count))
    if most < 2:
        return [count - 1][:most]
    return sorted({round(i * (count - 1) / (most - 1)) for i in range(most)})


def _size(groups: Sequence[Group]) -> int:
    return len(json.dumps(groups, separators=(",", ":"), ensure_ascii=False).encode("utf-8", "replace"))


def rollouts(stage: Stage, workdir: str, budget: int) -> list[dict[str, Any]]:
    """``rollout, step, path, groups`` of each rollout, in order; ``groups`` is None for those that the page has no room for.

    Args:
      budget: bytes that the groups may take.
    """
    paths, read = (stage.views, read_view) if stage.views else (_first_waves(stage), read_wave)
    steps = _first_steps(stage)
    entries = []
    for path in paths:
        file = path if stage.views else f"{path}/rollouts.jsonl"
        rollout = _rollout(path)
        entries.append(
            {"rollout": rollout, "step": steps.get(rollout), "path": os.path.relpath(file, workdir), "groups": None}
        )
    # The largest are usually the last: as many as fit if all were like the largest of three.
    sample = [_size(groups) for i in spread(len(paths), 3) if (groups := read(paths[i])) is not None]
    most = min(MOST_ROLLOUTS, budget // max(sample)) if sample else MOST_ROLLOUTS
    for i in spread(len(paths), most):
        groups = read(paths[i])
        if groups is not None and (size := _size(groups)) <= budget:
            entries[i]["groups"], budget = groups, budget - size
    return entries


def _first_waves(stage: Stage) -> list[str]:
    """The first wave of each rollout."""
    first: dict[int, str] = {}
    for wave in stage.waves:
        first.setdefault(_rollout(wave), wave)
    return list(first.values())


def before_and_after(stage: Stage, count: int = 6) -> tuple[str, list[Group]]:
    """A benchmark's name, and the first two samples of the same ``count`` problems at the first and the last evaluation of one benchmark.

    Of the benchmark whose evaluations lie furthest apart. Its first problems: by position, not by how well they show.
    """
    for benchmark, evaluations in sorted(stage.benchmarks().items(), key=lambda b: b[1][0].step - b[1][-1].step):
        if len(evaluations) < 2:
            continue
        ends = (evaluations[0], evaluations[-1])
        shown = []
        for evaluation in ends:
            by_problem: dict[str, list[Mapping[str, Any]]] = {}
            try:
                for sample in _lines(evaluation.samples):
                    by_problem.setdefault(_words(sample.get("prompt_id")), []).append(sample)
                    if len(by_problem) > count:
                        break
            except OSError:
                pass
            shown.append(by_problem)
        both = [key for key in shown[0] if key in shown[1]][:count]
        if both:
            return benchmark, [
                {
                    "heading": f"problem {place}",
                    "prompt": _row_text(shown[0][key][0]),
                    "answer": _answer(shown[0][key][0]),
                    "samples": [
                        _sample(sample, f"step {end.step:,}") for end, found in zip(ends, shown) for sample in found[key][:2]
                    ],
                }
                for place, key in enumerate(both, 1)
            ]
    return "", []


def evaluation_only(stage: Stage, count: int = 6) -> list[Group]:
    """The first problems of the last evaluation of each benchmark: for a stage that trained nothing."""
    groups = []
    for benchmark, evaluations in stage.benchmarks().items():
        by_problem: dict[str, list[Mapping[str, Any]]] = {}
        try:
            for sample in _lines(evaluations[-1].samples):
                by_problem.setdefault(_words(sample.get("prompt_id")), []).append(sample)
                if len(by_problem) > count:
                    break
        except OSError:
            continue
        for place, samples in enumerate(itertools.islice(by_problem.values(), count), 1):
            heading = f"{benchmark}, problem {place}"
            cards = [_sample(sample, f"sample {_words(sample.get('sample'))}") for sample in samples[:4]]
            groups.append(
                {"heading": heading, "prompt": _row_text(samples[0]), "answer": _answer(samples[0]), "samples": cards}
            )
    return groups

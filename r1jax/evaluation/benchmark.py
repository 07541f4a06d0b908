"""A benchmark run on a model: sampled and graded, then summed up as the paper does (section 4.1).

pass@1 is the mean over problems of the share of right samples; cons@k is the share of problems whose majority answer is
right. What was cut off at the length cap or could not be graded counts as wrong, and is counted by itself too.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from itertools import compress
from typing import Any

import numpy as np

from r1jax.config import BenchmarkSource
from r1jax.data import PromptRow, Tokenizer
from r1jax.evaluation.estimators import bootstrap_interval, majority, pass_at_1, pass_at_k
from r1jax.evaluation.grading import GradedSample, Pool, Prompt, Samples, Timing, render, sample_and_grade
from r1jax.evaluation.reflection import reflects, search_measures
from r1jax.rewards.answer import extract_answer
from r1jax.rewards.judgements import judgement_label, judgement_side
from r1jax.rewards.mathematics import answer_key
from r1jax.rewards.record import Verdict
from r1jax.rewards.refusals import refuses
from r1jax.rollout.wave import Wave


def vote_of(completion: str, grader: str) -> Hashable | None:
    """What a completion's final answer is grouped by, without a look at the right one; None where it has no answer.

    Mathematical equality, save for search problems, a judge's verdicts and refusals.
    """
    return VOTES.get(grader, answer_key)(completion)


def _expression(completion: str) -> str | None:
    """Of a search problem an expression is the answer, not its value, since everybody aims at the same value."""
    answer = extract_answer(completion)
    return "".join(answer.partition("=")[0].split()) or None if answer is not None else None


VOTES: dict[str, Callable[[str], Hashable | None]] = {
    "search": _expression,
    "judgement": judgement_label,
    "judgement_side": judgement_side,
    "refusal": refuses,
}


def render_rows(rows: Sequence[PromptRow], tokenizer: Tokenizer, positions: int) -> list[Prompt]:
    """The rows' prompts, as the model is given them.

    Raises:
      ValueError: a prompt without tokens, or one that leaves no position for an answer.
    """
    prompts = [render(row, tokenizer) for row in rows]
    for row, prompt in zip(rows, prompts):
        length = len(prompt.tokens)
        if not length:
            raise ValueError(f"the prompt of row {row.index} has no tokens: {row.problem!r:.80}")
        if length >= positions:
            raise ValueError(f"the prompt of row {row.index} has {length} tokens; the model has {positions} positions")
    return prompts


def summarise(samples: Sequence[GradedSample], rows: Sequence[PromptRow], parts: Sequence[str] = ()) -> dict[str, Any]:
    """The figures of a benchmark.

    Args:
      samples: equally many of each row, by row, then by sample. Rows of the same text are one problem to the intervals.
      parts: of the samples' rewards, to be averaged.

    Returns:
      ``problems, samples`` (per problem), ``pass@1``, ``pass@1_interval``, ``cons@k``, ``cons@k_interval``, ``pass@k``
      (k as text -> value, for powers of two), ``mean_tokens``; and as shares of all samples ``truncated``, ``ungraded``,
      ``reflection``; ``parts``: the mean of each part over the samples that it could grade, and ``parts_interval``; for search
      problems also ``evaluation.reflection.search_measures``.
    """
    count = len(samples) // len(rows)
    right = np.array([s.right for s in samples]).reshape(len(rows), count)
    votes = [None if s.cut_off else vote_of(s.completion, rows[s.row].grader) for s in samples]
    winners = [majority(votes[i : i + count]) for i in range(0, len(samples), count)]
    agreed = np.array([winner is not None and row[winner] for row, winner in zip(right, winners)], float)
    shares = pass_at_1(right)
    problems = [row.problem for row in rows]
    figures = {
        "problems": len(rows),
        "samples": count,
        "pass@1": float(shares.mean()),
        "pass@1_interval": list(bootstrap_interval(shares, problems=problems)),
        "cons@k": float(agreed.mean()),
        "cons@k_interval": list(bootstrap_interval(agreed, problems=problems)),
        "pass@k": {str(k): float(pass_at_k(right, k).mean()) for k in (2**i for i in range(count.bit_length()))},
        "mean_tokens": float(np.mean([len(s.sequence.tokens) for s in samples])),
        "truncated": float(np.mean([s.cut_off for s in samples])),
        "ungraded": float(np.mean([s.record.verdict is Verdict.UNGRADED for s in samples])),
        "reflection": float(np.mean([reflects(s.completion) for s in samples])),
    }
    if parts:
        means = {part: _part_by_row(samples, part, len(rows)) for part in parts}
        graded = {
            part: (mean[known], list(compress(problems, known))) for part, (mean, known) in means.items() if known.any()
        }
        figures["parts"] = {part: float(mean.mean()) for part, (mean, _) in graded.items()}
        figures["parts_interval"] = {p: list(bootstrap_interval(mean, problems=of)) for p, (mean, of) in graded.items()}
    searches = [(s.completion, rows[s.row].row["target"]) for s in samples if rows[s.row].grader == "search"]
    return figures | (search_measures(searches) if searches else {})


def _part_by_row(samples: Sequence[GradedSample], part: str, rows: int) -> tuple[np.ndarray, np.ndarray]:
    """``(mean, known)``, ``[rows]``: the mean of a reward part over the samples that it could grade, and where there are any."""
    values = np.array([np.nan if (v := s.record.parts.get(part)) is None else v for s in samples]).reshape(rows, -1)
    counted = np.isfinite(values)
    return np.where(counted, values, 0).sum(1) / np.maximum(counted.sum(1), 1), counted.any(1)


def _listed(sample: GradedSample, row: PromptRow) -> dict[str, Any]:
    """A sample as a line of ``samples.jsonl``."""
    return {
        "prompt_id": sample.row,
        "sample": sample.sequence.sample,
        "id": row.row.get("id", row.index),
        "problem": row.problem,
        "gold": row.answer,
        "completion": sample.completion,
        "answer": extract_answer(sample.completion),
        "tokens": len(sample.sequence.tokens),
        "finish_reason": sample.sequence.finish_reason,
        "right": sample.right,
        **sample.record.to_json(),
    }


def benchmark_wave(
    rows: Sequence[PromptRow],
    tokenizer: Tokenizer,
    settings: BenchmarkSource,
    stop_ids: frozenset[int],
    positions: int,
) -> tuple[list[Prompt], Wave]:
    """The prompts and the wave of a benchmark. Its ``max_tokens`` is lowered to what ``positions`` leave.

    Raises:
      ValueError: no rows, or a prompt that leaves no position.
    """
    if not rows:
        raise ValueError("a benchmark without rows can't be evaluated")
    prompts = render_rows(rows, tokenizer, positions)
    return prompts, Wave(
        prompts=tuple(prompt.tokens for prompt in prompts),
        prompt_ids=tuple(range(len(rows))),
        samples=settings.samples,
        seed=settings.seed,
        rollout=0,
        max_tokens=min(settings.max_tokens, positions - max(len(prompt.tokens) for prompt in prompts)),
        stop_ids=stop_ids,
        temperature=settings.temperature,
        top_p=settings.top_p,
    )


def evaluate(
    params: Any,
    sampler: Samples,
    tokenizer: Tokenizer,
    rows: Sequence[PromptRow],
    settings: BenchmarkSource,
    pool: Pool,
    *,
    stop_ids: frozenset[int],
    should_stop: Callable[[], bool] | None = None,
    on_progress: Callable[[int, int], None] | None = None,
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Evaluates a model on a benchmark.

    Args:
      params: of the model, as ``sampler`` takes them.
      rows: the benchmark's (``data.load_prompts``); each with its own template and grader.
      settings: samples per problem and how they are drawn. ``max_tokens`` is lowered to what the model's positions leave.
      pool: grades; its records need a verdict.
      stop_ids: what ends a sequence.
      should_stop, on_progress: as ``Sampler.run`` takes them.

    Returns:
      ``(figures, samples)``: see ``summarise``, with the settings that were used and the first prompt as the model was given
      it; one plain object per sample.

    Raises:
      ValueError: no rows, a prompt that leaves no position, or a grader that knows no right answer for a row.
      SamplingStopped: ``should_stop`` said so.
    """
    positions = sampler.config.max_position_embeddings
    prompts, wave = benchmark_wave(rows, tokenizer, settings, stop_ids, positions)
    indices = range(len(rows))
    samples = sample_and_grade(
        params,
        sampler,
        tokenizer,
        wave,
        prompts,
        indices,
        pool,
        Timing(),
        should_stop=should_stop,
        on_progress=on_progress,
    )
    for sample in samples:
        if sample.record.verdict is Verdict.NONE:
            row = rows[sample.row]
            raise ValueError(f"row {row.index}: its grader {row.grader!r} knows no right answer, so it is no benchmark row")
    figures = summarise(samples, rows, settings.parts) | {
        "temperature": wave.temperature,
        "top_p": wave.top_p,
        "max_tokens": wave.max_tokens,
        "seed": wave.seed,
        "templates": sorted({row.template for row in rows}),
        "prompt": prompts[0].text,
        "graders": sorted({row.grader for row in rows}),
    }
    return figures, [_listed(sample, rows[sample.row]) for sample in samples]

"""Runs benchmarks on a finished model: before and after a stage, and for ``r1jax evaluate``."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from etils import epath

from r1jax import checkpoint, config, data, evaluation, sharding
from r1jax.models.precision import compute_dtype
from r1jax.pipeline import records
from r1jax.pipeline.compiles import compile_counter
from r1jax.pipeline.stage import Context, StopRequested
from r1jax.reporting import Console
from r1jax.rewards import RewardPool
from r1jax.rollout import Sampler, SamplingStopped

Figures = dict[str, Any]
Samples = list[dict[str, Any]]


@contextlib.contextmanager
def examine(
    path: str,
    layout: sharding.Layout,
    console: Console,
    stop: Callable[[], bool] | None = None,
    parts: Iterable[str] = (),
) -> Iterator[Callable[[str, config.BenchmarkSource], tuple[Figures, Samples]]]:
    """Loads a model and gives ``ask(name, source) -> (figures, samples)``, which runs one benchmark to its end.

    Args:
      path: a Hugging Face directory or an r1jax checkpoint.
      layout: the mesh under the rollout's rules.
      stop: looked at while sampling.
      parts: reward parts that the benchmarks' ``parts`` name, of all together.

    Raises:
      ValueError: a model without a tokenizer; from ``ask``: rows that can't be asked or graded.
      StopRequested: from ``ask``: ``stop`` said so; this benchmark is lost.
    """
    dtype = compute_dtype(layout.platform)
    model = checkpoint.load_model(path, layout.mesh, dtype, rules=sharding.ROLLOUT_RULES, prediction=False)
    tokenizer = model.tokenizer
    if tokenizer is None:
        raise ValueError(f"{path} has no tokenizer; put its tokenizer.json or tokenizer.model there")
    sampler = Sampler(model.config, layout, dtype=dtype)
    stop_ids = frozenset(tokenizer.eos_ids) | frozenset(model.config.eos_token_ids)

    def ask(name: str, source: config.BenchmarkSource) -> tuple[Figures, Samples]:
        rows = data.load_prompts(source)

        def draw(finished: int, tokens: int) -> None:
            console.progress(name, finished, len(rows) * source.samples, {"tokens": tokens})

        try:
            with compile_counter().planned(f"benchmark {name}"):
                options = {"stop_ids": stop_ids, "should_stop": stop, "on_progress": draw}
                return evaluation.evaluate(model.params, sampler, tokenizer, rows, source, pool, **options)
        except SamplingStopped:
            raise StopRequested from None
        finally:
            console.end_progress()

    with RewardPool(measured_parts(parts)) as pool:
        yield ask


def measured_parts(parts: Iterable[str]) -> tuple[str, ...]:
    """``accuracy`` and the parts, each once."""
    return tuple(dict.fromkeys(["accuracy", *parts]))


def evaluate_model(
    path: str, benchmarks: Mapping[str, config.BenchmarkSource], context: Context
) -> Iterator[tuple[str, Figures, Samples]]:
    """Evaluates a model of a run on benchmarks: (name, figures, samples) of each as it is done."""
    layout = sharding.layout(context.layout.mesh, sharding.ROLLOUT_RULES)
    parts = [part for source in benchmarks.values() for part in source.parts]
    with examine(path, layout, context.console, context.stop, parts) as ask:
        for name, source in benchmarks.items():
            yield name, *ask(name, source)


def write_evaluation(folder: epath.Path, figures: Mapping[str, Any], samples: Samples) -> None:
    """Leaves an evaluation on disk, its record last."""
    records.write_atomic(folder / "figures.json", json.dumps(figures, indent=1, ensure_ascii=False))
    records.write_atomic(folder / "samples.jsonl", "".join(json.dumps(s, ensure_ascii=False) + "\n" for s in samples))
    records.commit(folder, ["figures.json", "samples.jsonl"])

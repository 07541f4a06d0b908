"""Runs benchmarks on a model: before and after a stage, between its updates, and for ``r1jax evaluate``."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from etils import epath

from r1jax import checkpoint, config, data, evaluation, sharding
from r1jax.pipeline import records
from r1jax.pipeline.compiles import compile_counter
from r1jax.pipeline.precision import compute_dtype
from r1jax.pipeline.stage import Context, StopRequested
from r1jax.reporting import Console
from r1jax.rewards import RewardPool
from r1jax.rollout import Sampler, SamplingStopped

Figures = dict[str, Any]
Samples = list[dict[str, Any]]


class Examiner:
    """Asks a model of one configuration the problems of benchmarks.

    Args:
      model_config, tokenizer: the model's.
      layout: the mesh under the rollout's rules.
      dtype: of the cache, and of the parameters that are given.
      pool: grades; its records need a verdict.
      stop: ``stop() -> bool``, looked at while sampling.
    """

    def __init__(
        self,
        model_config: Any,
        tokenizer: data.Tokenizer,
        layout: sharding.Layout,
        dtype: Any,
        pool: RewardPool,
        console: Console,
        stop: Callable[[], bool],
    ):
        self._sampler = Sampler(model_config, layout, dtype=dtype)
        self._tokenizer, self._pool, self._console, self._stop = tokenizer, pool, console, stop
        self._stop_ids = frozenset(tokenizer.eos_ids) | frozenset(model_config.eos_token_ids)

    def ask(self, params: Any, name: str, source: config.BenchmarkSource) -> tuple[Figures, Samples]:
        """Runs one benchmark to its end: its figures and one plain object per sample.

        Raises:
          StopRequested: the run was asked to stop; this benchmark is lost.
          ValueError: rows that can't be asked or graded.
        """
        rows = data.load_prompts(source)
        total = len(rows) * source.samples

        def draw(finished: int, tokens: int) -> None:
            self._console.progress(name, finished, total, {"tokens": tokens})

        try:
            with compile_counter().planned(f"benchmark {name}"):
                return evaluation.evaluate(
                    params,
                    self._sampler,
                    self._tokenizer,
                    rows,
                    source,
                    self._pool,
                    stop_ids=self._stop_ids,
                    should_stop=self._stop,
                    on_progress=draw,
                )
        except SamplingStopped:
            raise StopRequested from None
        finally:
            self._console.end_progress()


@contextlib.contextmanager
def examine(
    path: str, layout: sharding.Layout, workers: int, console: Console, stop: Callable[[], bool]
) -> Iterator[Callable[[str, config.BenchmarkSource], tuple[Figures, Samples]]]:
    """Loads a model and gives ``ask(name, source) -> (figures, samples)``.

    Args:
      path: a Hugging Face directory or an r1jax checkpoint.
      layout: the mesh under the rollout's rules.
      workers: grading processes; 0: one per core.
    """
    dtype = compute_dtype(layout.platform)
    model = checkpoint.load_model(path, layout.mesh, dtype, rules=sharding.ROLLOUT_RULES)
    if model.tokenizer is None:
        raise ValueError(f"{path} has no tokenizer; put its tokenizer.json or tokenizer.model there")
    with RewardPool(("accuracy",), workers=workers) as pool:
        examiner = Examiner(model.config, model.tokenizer, layout, dtype, pool, console, stop)
        yield lambda name, source: examiner.ask(model.params, name, source)


def evaluate_model(
    path: str, benchmarks: Mapping[str, config.BenchmarkSource], context: Context
) -> Iterator[tuple[str, Figures, Samples]]:
    """Evaluates a model of a run on benchmarks: (name, figures, samples) of each as it is done."""
    layout = sharding.layout(context.layout.mesh, sharding.ROLLOUT_RULES)
    with examine(path, layout, 0, context.console, context.stop) as ask:
        for name, source in benchmarks.items():
            yield name, *ask(name, source)


def write_evaluation(folder: epath.Path, figures: Mapping[str, Any], samples: Samples) -> None:
    """Leaves an evaluation on disk, its record last."""
    records.write_atomic(folder / "figures.json", json.dumps(figures, indent=1, ensure_ascii=False))
    records.write_atomic(folder / "samples.jsonl", "".join(json.dumps(s, ensure_ascii=False) + "\n" for s in samples))
    records.commit(folder, ["figures.json", "samples.jsonl"])


class StageBenchmarks:
    """A stage's benchmarks on its parameters between updates. Arguments as ``Examiner``'s, and the stage's name and folder."""

    def __init__(
        self,
        name: str,
        workdir: epath.Path,
        model_config: Any,
        tokenizer: data.Tokenizer,
        layout: sharding.Layout,
        dtype: Any,
        context: Context,
        pool: RewardPool,
    ):
        (stage,) = (stage for stage in context.recipe.stages if stage.name == name)
        self._benchmarks = {benchmark: context.recipe.benchmarks[benchmark] for benchmark in stage.benchmarks}
        self._folder = workdir / "evaluations"
        self._examiner = Examiner(model_config, tokenizer, layout, dtype, pool, context.console, context.stop)

    def evaluate(self, params: Any, step: int) -> None:
        """Evaluates the rollout parameters after ``step`` updates; what has its record is not evaluated again.

        Raises:
          StopRequested: the run was asked to stop; the finished benchmarks stay.
        """
        for name, source in self._benchmarks.items():
            folder = self._folder / f"{name}-{step:06d}"
            if not records.committed(folder):
                figures, samples = self._examiner.ask(params, name, source)
                write_evaluation(folder, {"benchmark": name, "step": step, **figures}, samples)

"""Benchmarks that are evaluated while a stage trains: the points of its curves."""

from __future__ import annotations

from typing import Any

from r1jax import config, data
from r1jax.evaluation.benchmark import benchmark_wave, evaluate
from r1jax.pipeline import records
from r1jax.pipeline.benchmarks import write_evaluation
from r1jax.pipeline.records import evaluation_folder
from r1jax.pipeline.stage import Context
from r1jax.rollout import Sampler


class Tracker:
    """Evaluates parameters that are in memory, under the stage's own sampler settings.

    Args:
      stage: name of the stage.
      workdir: the run's.
      benchmarks: names of the recipe's benchmarks.
      sampler: compiled for the rollouts; its programs serve the benchmarks too where shapes are the same.
    """

    def __init__(
        self,
        stage: str,
        workdir: Any,
        benchmarks: tuple[str, ...],
        sampler: Sampler,
        tokenizer: data.Tokenizer,
        stop_ids: frozenset[int],
        pool: Any,
        context: Context,
    ):
        self._stage, self._workdir, self._sampler, self._tokenizer = stage, workdir, sampler, tokenizer
        self._stop_ids, self._pool, self._should_stop = stop_ids, pool, context.stop
        sources: dict[str, config.BenchmarkSource] = {name: context.recipe.benchmarks[name] for name in benchmarks}
        self._benchmarks = {name: (source, data.load_prompts(source)) for name, source in sources.items()}

    def warm_up(self, params: Any) -> None:
        """Compiles what the benchmarks need.

        Raises:
          SamplingStopped: the run was asked to stop.
        """
        for source, rows in self._benchmarks.values():
            positions = self._sampler.config.max_position_embeddings
            _, wave = benchmark_wave(rows, self._tokenizer, source, self._stop_ids, positions)
            self._sampler.warm_up(params, wave, self._should_stop)

    def evaluate(self, params: Any, step: int) -> None:
        """Evaluates all benchmarks after ``step`` updates; what an earlier session evaluated is not done again.

        Raises:
          SamplingStopped: the run was asked to stop.
        """
        for name, (source, rows) in self._benchmarks.items():
            folder = evaluation_folder(self._workdir, self._stage, name, f"{step:06d}")
            if records.committed(folder):
                continue
            figures, samples = evaluate(
                params,
                self._sampler,
                self._tokenizer,
                rows,
                source,
                self._pool,
                stop_ids=self._stop_ids,
                should_stop=self._should_stop,
            )
            write_evaluation(folder, {"benchmark": name, "step": step, **figures}, samples)

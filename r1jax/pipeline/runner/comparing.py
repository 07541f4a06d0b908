"""comparisons.json: the recipe's comparisons and, of each stage, after against before, with paired intervals.

Derived: made again from the samples of the run's evaluations at any time.
"""

from __future__ import annotations

import functools
import json
from typing import Any

from etils import epath

from r1jax import config
from r1jax.evaluation import paired_differences, problem_means
from r1jax.pipeline import records
from r1jax.pipeline.records import evaluation_folder

FILE = "comparisons.json"


def wanted(recipe: config.Recipe) -> list[config.ComparisonSettings]:
    """The recipe's comparisons, then each stage's model against the one that it began from (``what`` is empty)."""
    changes = [
        config.ComparisonSettings("", stage.name, f"{stage.name}:before", benchmark)
        for stage in recipe.stages
        for benchmark in stage.benchmarks
    ]
    return [*recipe.comparisons, *changes]


def write_comparisons(recipe: config.Recipe, workdir: epath.PathLike) -> list[dict[str, Any]]:
    """Writes the comparisons whose two evaluations are there: ``what, of, against, benchmark, against_benchmark, figures``."""

    @functools.cache
    def means(side: str, benchmark: str):
        stage, _, when = side.partition(":")
        folder = evaluation_folder(workdir, stage, benchmark, when or "after")
        if not records.committed(folder):
            return None
        with (folder / "samples.jsonl").open() as lines:
            return problem_means(map(json.loads, lines))

    found = []
    for one in wanted(recipe):
        other = one.against_benchmark or one.benchmark
        of, against = means(one.of, one.benchmark), means(one.against, other)
        if of is not None and against is not None:
            entry = {"what": one.what, "of": one.of, "against": one.against, "benchmark": one.benchmark}
            found.append(entry | {"against_benchmark": other, "figures": paired_differences(of, against)})
    records.write_atomic(epath.Path(workdir) / FILE, json.dumps(found, indent=1, ensure_ascii=False))
    return found

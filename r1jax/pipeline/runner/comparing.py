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
    """Writes the comparisons whose two evaluations are there: ``what, of, against, benchmark, against_benchmark, figures``.

    An evaluation never changes, so figures that stand in the file are not computed again.
    """
    file = epath.Path(workdir) / FILE
    known = _known(file)

    @functools.cache
    def means(side: str, benchmark: str):
        with (_evaluation(workdir, side, benchmark) / "samples.jsonl").open() as lines:
            return problem_means(map(json.loads, lines))

    found = []
    for one in wanted(recipe):
        sides = (one.of, one.benchmark), (one.against, one.against_benchmark or one.benchmark)
        if all(records.committed(_evaluation(workdir, *side)) for side in sides):
            figures = known.get(sides)
            found.append(
                {
                    "what": one.what,
                    "of": one.of,
                    "against": one.against,
                    "benchmark": one.benchmark,
                    "against_benchmark": sides[1][1],
                    "figures": paired_differences(*(means(*side) for side in sides)) if figures is None else figures,
                }
            )
    records.write_atomic(file, json.dumps(found, indent=1, ensure_ascii=False))
    return found


def _evaluation(workdir: epath.PathLike, side: str, benchmark: str) -> epath.Path:
    stage, _, when = side.partition(":")
    return evaluation_folder(workdir, stage, benchmark, when or "after")


def _known(file: epath.Path) -> dict[tuple, dict[str, Any]]:
    """Sides -> figures of an earlier file; nothing where it is not there or damaged."""
    try:
        entries = json.loads(file.read_text())
        return {((c["of"], c["benchmark"]), (c["against"], c["against_benchmark"])): c["figures"] for c in entries}
    except (OSError, ValueError, KeyError, TypeError):
        return {}

"""Evaluate a model on a benchmark: pass@1 over k samples, majority, intervals by problem."""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from typing import Any

from r1jax.commands.output import only_json
from r1jax.commands.sampling import add_sampling_arguments, check_sampling
from r1jax.config import BenchmarkSource, nearest
from r1jax.rewards.graders import grader

# Files of R1JAX_DATA, the folder of data sets.
BENCHMARKS = {
    "gsm8k": "math/gsm8k_test.jsonl",
    "math500": "math/math500.jsonl",
    "svamp": "math/svamp.jsonl",
    "cmath": "math/cmath_zh.jsonl",
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    defaults = BenchmarkSource(path="")
    parser.add_argument("model", metavar="MODEL", help="a Hugging Face directory or an r1jax checkpoint")
    parser.add_argument("--benchmark", required=True, metavar="NAME_OR_JSONL", help="a known name or a file")
    parser.add_argument(
        "--template", default=defaults.template, metavar="NAME", help="of rows without one (default %(default)s)"
    )
    parser.add_argument(
        "--grader", default=defaults.grader, metavar="NAME", help="of rows without one (default %(default)s)"
    )
    add_sampling_arguments(
        parser,
        samples=defaults.samples,
        temperature=defaults.temperature,
        top_p=defaults.top_p,
        max_tokens=defaults.max_tokens,
        seed=defaults.seed,
    )
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def benchmark_path(name: str) -> tuple[str, str]:
    """(name, path) of a known benchmark or of a file.

    Raises:
      ValueError: neither, or a known benchmark whose file is not there.
    """
    if Path(name).is_file():
        return Path(name).name.partition(".")[0], name
    if name not in BENCHMARKS:
        raise ValueError(f"--benchmark {name}: no such file, and no known benchmark{nearest(name, list(BENCHMARKS))}")
    folder = Path(os.environ.get("R1JAX_DATA", "../shared/data"))
    if not (folder / BENCHMARKS[name]).is_file():
        raise ValueError(
            f"--benchmark {name}: {folder / BENCHMARKS[name]} is not there; set R1JAX_DATA to the folder of data sets"
        )
    return name, str(folder / BENCHMARKS[name])


def evaluate(arguments: argparse.Namespace, name: str, source: BenchmarkSource) -> dict[str, Any]:
    """The benchmark's figures."""
    from r1jax import sharding
    from r1jax.pipeline.benchmarks import examine
    from r1jax.reporting import Console

    layout = sharding.layout(sharding.make_mesh(), sharding.ROLLOUT_RULES)
    with Console() as console, examine(arguments.model, layout, console) as ask:
        figures, _ = ask(name, source)
    return {"benchmark": name, **figures}


def run(arguments: argparse.Namespace) -> int:
    check_sampling(arguments)
    name, path = benchmark_path(arguments.benchmark)
    if ":" not in arguments.grader:  # a user's own is imported by the workers alone
        grader(arguments.grader)
    source = BenchmarkSource(
        path=os.path.abspath(path),
        template=arguments.template,
        grader=arguments.grader,
        samples=arguments.samples,
        temperature=arguments.temperature,
        top_p=arguments.top_p,
        max_tokens=arguments.max_tokens,
        seed=arguments.seed,
    )
    with only_json(arguments.json) as emit:
        figures = evaluate(arguments, name, source)
        if arguments.json:
            emit(figures)
    if not arguments.json:
        for key, value in figures.items():
            print(f"{key:20} {value}")
    return 0

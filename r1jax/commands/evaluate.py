"""Evaluate a model on a benchmark: pass@1 over k samples, majority, intervals by problem."""

from __future__ import annotations

import argparse
import glob
import json
import os
from pathlib import Path
from typing import Any, NamedTuple

from r1jax.commands.output import check_file, only_json, plain
from r1jax.commands.sampling import add_sampling_arguments, check_sampling
from r1jax.config import BenchmarkSource, nearest
from r1jax.rewards.graders import grader
from r1jax.rewards.parts import part


class Benchmark(NamedTuple):
    """A known one: its file under R1JAX_DATA, the folder of data sets, the grader of its rows and its reward parts."""

    file: str
    grader: str = BenchmarkSource.grader
    parts: tuple[str, ...] = ()


BENCHMARKS = {
    "gsm8k": Benchmark("math/gsm8k_test.jsonl"),
    "math500": Benchmark("math/math500.jsonl"),
    "svamp": Benchmark("math/svamp.jsonl"),
    "cmath": Benchmark("math/cmath_zh.jsonl"),
    "ifeval": Benchmark("instructions/ifeval.jsonl", "instructions"),
    "humaneval": Benchmark("code/HumanEval.jsonl.gz", "code"),
    "mbpp": Benchmark("code/mbpp_sanitized.json", "code"),
    "xstest": Benchmark("safety/xstest.csv", "refusal", ("accuracy", "refuses_unsafe", "refuses_safe")),
}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    defaults = BenchmarkSource(path="")
    parser.add_argument("model", metavar="MODEL", help="a Hugging Face directory or an r1jax checkpoint")
    known = ", ".join(BENCHMARKS)
    parser.add_argument(
        "--benchmark", required=True, metavar="NAME_OR_DATA", help=f"a known name ({known}), a file, a pattern or tfds:NAME"
    )
    parser.add_argument("--split", default=defaults.split, metavar="NAME", help="of a tfds:NAME")
    parser.add_argument(
        "--template", default=defaults.template, metavar="NAME", help="of rows without one (default %(default)s)"
    )
    parser.add_argument("--override-template", default="", metavar="NAME", help="of all rows, in place of their own")
    parser.add_argument(
        "--grader", metavar="NAME", help=f"of rows without one (default {defaults.grader}, or the known benchmark's own)"
    )
    parser.add_argument(
        "--parts",
        metavar="NAME,NAME",
        help="reward parts whose means are shown (default: none, or the known benchmark's own)",
    )
    parser.add_argument("--limit", type=int, default=0, metavar="N", help="the first N problems only (default: all)")
    add_sampling_arguments(
        parser,
        samples=defaults.samples,
        temperature=defaults.temperature,
        top_p=defaults.top_p,
        max_tokens=defaults.max_tokens,
        seed=defaults.seed,
    )
    parser.add_argument("--out", metavar="FILE", help="write every sample with its verdict and reason there, as JSONL")
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def find_benchmark(name: str) -> tuple[str, Benchmark]:
    """The name of a known benchmark or of data, and where those lie (``data.rows``). A file that is named as a known benchmark's is
    graded as that one.

    Raises:
      ValueError: neither, or a known benchmark whose file is not there.
    """
    from r1jax.data import is_tfds_name

    if is_tfds_name(name):
        return name.removeprefix("tfds:"), Benchmark(name)
    if Path(name).exists() or glob.has_magic(name):
        file = Path(name).name
        known = next((each for each in BENCHMARKS.values() if Path(each.file).name == file), Benchmark(name))
        return file.partition(".")[0], known._replace(file=os.path.abspath(name))
    if name not in BENCHMARKS:
        raise ValueError(f"--benchmark {name}: no such file, and no known benchmark{nearest(name, list(BENCHMARKS))}")
    folder = Path(os.environ.get("R1JAX_DATA", "../shared/data"))
    known = BENCHMARKS[name]
    if not (folder / known.file).is_file():
        raise ValueError(
            f"--benchmark {name}: {folder / known.file} is not there; set R1JAX_DATA to a folder with {known.file} in it, or give "
            f"the file itself (r1jax/data/README.md says what rows look like)"
        )
    return name, known._replace(file=os.path.abspath(folder / known.file))


def evaluate(arguments: argparse.Namespace, name: str, source: BenchmarkSource) -> dict[str, Any]:
    """The benchmark's figures, and what they were made with; its samples go to ``--out``."""
    from r1jax import sharding
    from r1jax.pipeline.benchmarks import examine
    from r1jax.pipeline.runner.environment import environment
    from r1jax.reporting import Console

    layout = sharding.layout(sharding.make_mesh(), sharding.ROLLOUT_RULES)
    with Console() as console, examine(arguments.model, layout, console, parts=source.parts) as ask:
        figures, samples = ask(name, source)
    if arguments.out:
        Path(arguments.out).write_text("".join(json.dumps(plain(s), ensure_ascii=False) + "\n" for s in samples), "utf-8")
    made_with = environment()
    return {
        "benchmark": name,
        "model": os.path.abspath(arguments.model),
        **figures,
        **{key: made_with[key] for key in ("r1jax", "commit", "device")},
    }


def run(arguments: argparse.Namespace) -> int:
    check_sampling(arguments)
    if arguments.limit < 0:
        raise ValueError(f"--limit must be 0 (all problems) or more, not {arguments.limit}")
    name, benchmark = find_benchmark(arguments.benchmark)
    named = arguments.grader or benchmark.grader
    if ":" not in named:  # a user's own is imported by the workers alone
        grader(named)
    parts = benchmark.parts if arguments.parts is None else tuple(filter(None, arguments.parts.split(",")))
    for each in parts:
        if ":" not in each:
            part(each)
    source = BenchmarkSource(
        path=benchmark.file,
        template=arguments.template,
        override_template=arguments.override_template,
        grader=named,
        limit=arguments.limit,
        samples=arguments.samples,
        temperature=arguments.temperature,
        top_p=arguments.top_p,
        max_tokens=arguments.max_tokens,
        seed=arguments.seed,
        split=arguments.split,
        parts=parts,
    )
    if arguments.out:
        check_file("--out", arguments.out)
    with only_json(arguments.json) as emit:
        figures = evaluate(arguments, name, source)
        if arguments.json:
            emit(figures)
    if not arguments.json:
        for key, value in figures.items():
            print(f"{key:20} {value!r}" if isinstance(value, str) and "\n" in value else f"{key:20} {value}")
    return 0

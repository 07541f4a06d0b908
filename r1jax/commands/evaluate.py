"""Evaluate a model on a benchmark: pass@1 over k samples, majority, intervals by problem."""

from __future__ import annotations

import argparse

from r1jax.commands.output import only_json
from r1jax.commands.sampling import add_sampling_arguments, check_sampling
from r1jax.config import BenchmarkSource


def add_arguments(parser: argparse.ArgumentParser) -> None:
    defaults = BenchmarkSource(path="")
    parser.add_argument("model", metavar="MODEL", help="a Hugging Face directory or an r1jax checkpoint")
    parser.add_argument("--benchmark", required=True, metavar="NAME_OR_JSONL", help="a known name or a file")
    parser.add_argument(
        "--template", default=defaults.template, metavar="NAME", help="of rows without one (default %(default)s)"
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


def run(arguments: argparse.Namespace) -> int:
    raise NotImplementedError

"""Write a run's report again from its files."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("workdir", metavar="WORKDIR", help="the work directory of r1jax run")


def run(arguments: argparse.Namespace) -> int:
    from r1jax.reporting import write_report

    if not (Path(arguments.workdir) / "recipe.yaml").is_file():
        raise ValueError(f"{arguments.workdir} is no work directory of r1jax run: it has no recipe.yaml")
    print(write_report(arguments.workdir))
    return 0

"""Write a run's report again from its files."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("workdir", metavar="WORKDIR", help="the work directory of r1jax run")


def run(arguments: argparse.Namespace) -> int:
    from r1jax.reporting import write_report

    print(write_report(arguments.workdir))
    return 0

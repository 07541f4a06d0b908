"""Write a run's report again from its files."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("workdir", metavar="WORKDIR", help="the work directory of r1jax run")
    parser.add_argument("--tensorboard", action="store_true", help="make WORKDIR/tensorboard again too")


def run(arguments: argparse.Namespace) -> int:
    from r1jax.reporting import write_report

    path = write_report(arguments.workdir)
    if arguments.tensorboard:
        from r1jax.reporting.exports import export

        export(arguments.workdir)
    print(path)
    return 0

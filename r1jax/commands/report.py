"""Write a run's report again from its files."""

from __future__ import annotations

import argparse
import os
import sys


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("workdir", metavar="WORKDIR", help="the work directory of r1jax run")
    parser.add_argument("--out", metavar="FILE", help="write the report there and leave the work directory as it is")
    parser.add_argument("--tensorboard", action="store_true", help="make WORKDIR/tensorboard again too")


def run(arguments: argparse.Namespace) -> int:
    from r1jax.reporting import write_report

    if arguments.out and not os.path.isdir(folder := os.path.dirname(os.path.abspath(arguments.out))):
        raise ValueError(f"--out {arguments.out}: there is no folder {folder}; make it first")
    try:
        path = write_report(arguments.workdir, arguments.out)
        if arguments.tensorboard:
            from r1jax.reporting.exports import export

            export(arguments.workdir)
    except (OSError, RuntimeError) as error:  # a full disk, a folder that can't be written
        print(f"r1jax report: {error}", file=sys.stderr)
        return 1
    print(path)
    return 0

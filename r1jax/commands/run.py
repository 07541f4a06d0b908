"""Walk a recipe; the same command resumes it.

The last line on stdout is the work directory. Ctrl-C, SIGTERM and SIGHUP save the state and end with exit code 75; a second
Ctrl-C ends at once, and then the last wave or update is done again.
"""

from __future__ import annotations

import argparse
import contextlib
import sys

STOPPED = 75


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", help="a YAML file")
    parser.add_argument("--workdir", metavar="DIR", help="where the run lives (default: runs/NAME of the recipe)")
    parser.add_argument(
        "--set",
        dest="overrides",
        action="append",
        default=[],
        metavar="key.path=value",
        help="override a key of the recipe; a stage's is stages.NAME.key (may be given several times)",
    )


def run(arguments: argparse.Namespace) -> int:
    from r1jax.pipeline.runner import run_recipe
    from r1jax.pipeline.stage import StopRequested

    try:
        workdir = run_recipe(arguments.recipe, arguments.workdir, arguments.overrides)
    except StopRequested as stopped:
        with contextlib.suppress(OSError):  # the terminal may be gone: that is what SIGHUP says
            print(f"r1jax run: {stopped}", file=sys.stderr)
        return STOPPED
    print(workdir)
    return 0

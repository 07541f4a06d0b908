"""List the architectures that r1jax implements."""

from __future__ import annotations

import argparse

from r1jax.commands.output import only_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def run(arguments: argparse.Namespace) -> int:
    with only_json(arguments.json) as emit:
        from r1jax.models.config import ARCHITECTURES

        if arguments.json:
            emit({"architectures": list(ARCHITECTURES)})
        else:
            print("\n".join(ARCHITECTURES))
    return 0

"""Convert a Hugging Face directory to an r1jax checkpoint (Orbax).

A layer at a time is all the memory that it needs; a killed conversion is continued by the same command. With --dry-run nothing
is read but names, dtypes and shapes, and nothing is written: every tensor is mapped to the parameter that it fills, and back.
"""

from __future__ import annotations

import argparse

from r1jax.commands.output import check_target


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "source",
        metavar="HF_DIR",
        help="config.json, safetensors, tokenizer; with --dry-run the index is enough, or a table of tensors (JSON, also .gz) "
        "beside a config.json",
    )
    parser.add_argument("target", metavar="OUT_DIR", nargs="?", help="a new folder, or an earlier conversion")
    parser.add_argument(
        "--dtype", choices=("bfloat16", "float32"), help="of what is written (default: as stored, FP8 in float32)"
    )
    parser.add_argument("--dry-run", action="store_true", help="only map the tensors, and say what is missing or misshapen")


def run(arguments: argparse.Namespace) -> int:
    if arguments.dry_run:
        from r1jax.checkpoint import dry_run

        print("\n".join(dry_run(arguments.source).lines()))
        return 0
    if arguments.target is None:
        raise ValueError("OUT_DIR is missing: name the folder to write, or add --dry-run")
    check_target(arguments.target)
    from r1jax.checkpoint import convert
    from r1jax.reporting import Console

    with Console() as console:
        convert(arguments.source, arguments.target, arguments.dtype, console)
    print(arguments.target)
    return 0

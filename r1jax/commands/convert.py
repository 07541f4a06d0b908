"""Convert a Hugging Face directory to an r1jax checkpoint (Orbax).

A layer at a time is all the memory that it needs; a killed conversion is continued by the same command.
"""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="HF_DIR", help="config.json, safetensors, tokenizer")
    parser.add_argument("target", metavar="OUT_DIR", help="a new folder, or an earlier conversion")


def run(arguments: argparse.Namespace) -> int:
    from r1jax.checkpoint import convert

    convert(arguments.source, arguments.target)
    print(arguments.target)
    return 0

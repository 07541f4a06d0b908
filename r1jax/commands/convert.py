"""Convert a Hugging Face directory to an r1jax checkpoint (Orbax)."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="HF_DIR", help="config.json, safetensors, tokenizer")
    parser.add_argument("target", metavar="OUT_DIR", help="a new folder")


def check_target(path: str) -> None:
    """Refuses a target that holds something: a checkpoint is never written over another one.

    Raises:
      ValueError: it is a file, or a folder that is not empty.
    """
    if Path(path).is_file() or (Path(path).is_dir() and any(Path(path).iterdir())):
        raise ValueError(f"{path} exists already; name a new or empty folder")


def run(arguments: argparse.Namespace) -> int:
    check_target(arguments.target)
    from r1jax.checkpoint import convert

    convert(arguments.source, arguments.target)
    print(arguments.target)
    return 0

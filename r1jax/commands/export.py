"""Export a model to a Hugging Face directory (safetensors, config, tokenizer)."""

from __future__ import annotations

import argparse


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="MODEL", help="an r1jax checkpoint or a Hugging Face directory")
    parser.add_argument("target", metavar="OUT_DIR", help="a new folder, or an earlier export")


def run(arguments: argparse.Namespace) -> int:
    from r1jax.checkpoint import export_model, load_model

    model = load_model(arguments.source)
    export_model(arguments.target, model.config, model.params, arguments.source)
    print(arguments.target)
    return 0

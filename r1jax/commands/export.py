"""Export a model to a Hugging Face directory (safetensors, config, tokenizer).

In float8_e4m3fn the matrices of attention, feed-forward and experts are quantised in blocks of 128 x 128, each with its scale,
as DeepSeek publishes its models; the rest is in the configuration's dtype.
"""

from __future__ import annotations

import argparse

from r1jax.commands.output import check_target

DTYPES = ("bfloat16", "float32", "float16", "float8_e4m3fn")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="MODEL", help="an r1jax checkpoint or a Hugging Face directory")
    parser.add_argument("target", metavar="OUT_DIR", help="a new folder, or an earlier export")
    parser.add_argument("--dtype", choices=DTYPES, help="of the tensors (default: as the configuration says)")


def run(arguments: argparse.Namespace) -> int:
    check_target(arguments.target)
    from r1jax.checkpoint import export_model, load_model
    from r1jax.reporting import Console

    with Console() as console:
        model = load_model(arguments.source, console=console)
        export_model(arguments.target, model.config, model.params, arguments.source, arguments.dtype, console=console)
    print(arguments.target)
    return 0

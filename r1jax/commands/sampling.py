"""The arguments of the commands that sample, and their check: before a model is loaded."""

from __future__ import annotations

import argparse


def add_sampling_arguments(
    parser: argparse.ArgumentParser, *, samples: int, temperature: float, top_p: float, max_tokens: int | None, seed: int = 0
) -> None:
    """Adds --samples, --temperature, --top-p, --max-tokens and --seed with these defaults."""
    parser.add_argument("--samples", type=int, default=samples, metavar="N", help="per prompt (default %(default)s)")
    parser.add_argument(
        "--temperature", type=float, default=temperature, metavar="T", help="0: greedy (default %(default)s)"
    )
    parser.add_argument("--top-p", type=float, default=top_p, metavar="P", help="nucleus (default %(default)s)")
    longest = "256, if the model has positions for them" if max_tokens is None else max_tokens
    parser.add_argument(
        "--max-tokens", type=int, default=max_tokens, metavar="N", help=f"of a completion (default {longest})"
    )
    parser.add_argument("--seed", type=int, default=seed, metavar="S", help="of the sampling (default %(default)s)")


def check_sampling(arguments: argparse.Namespace) -> None:
    """Refuses numbers that can't be sampled with.

    Raises:
      ValueError: naming the option, its value and what it may be.
    """
    for option, value, allowed, range_ in (
        ("--samples", arguments.samples, arguments.samples >= 1, "1 or more"),
        ("--temperature", arguments.temperature, 0 <= arguments.temperature < float("inf"), "0 (greedy) or more"),
        ("--top-p", arguments.top_p, 0 < arguments.top_p <= 1, "above 0 and at most 1"),
        ("--max-tokens", arguments.max_tokens, arguments.max_tokens is None or arguments.max_tokens >= 1, "1 or more"),
        ("--seed", arguments.seed, 0 <= arguments.seed < 2**31, "from 0 to 2147483647"),
    ):
        if not allowed:
            raise ValueError(f"{option} must be {range_}, not {value}")

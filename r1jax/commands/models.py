"""List the models that r1jax knows by name, with their parameters.

Active are those that one token is multiplied with: the chosen experts, the head, and of the embedding nothing, for a token reads
one row of it; of a model without experts all. Neither figure counts multi-token prediction.
"""

from __future__ import annotations

import argparse

from r1jax.commands.output import only_json


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="one JSON object on stdout")


def billions(number: int) -> str:
    """``671B``, ``1.78B``, ``435K``: three significant digits."""
    for size, unit in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if number >= size:
            return f"{number / size:.3g}{unit}" if number < 1000 * size else f"{number / size:,.0f}{unit}"
    return str(number)


def run(arguments: argparse.Namespace) -> int:
    with only_json(arguments.json) as emit:
        from r1jax.models.config import ARCHITECTURES
        from r1jax.models.published import PUBLISHED, count
        from r1jax.reporting.console import table_lines

        models = []
        for name, model in PUBLISHED.items():
            counts = count(model.config)
            models.append(
                {
                    "name": name,
                    "architecture": model.config.architecture,
                    "parameters": counts.total,
                    "active_parameters": counts.active,
                    "embedding_parameters": counts.embedding,
                    "mtp_parameters": counts.mtp,
                    "layers": model.config.num_hidden_layers,
                    "context": model.config.max_position_embeddings,
                    "base": model.base or None,
                    "source": model.source or None,
                    "special_tokens": dict(model.tokens),
                    "chat_template": model.chat_template or None,
                }
            )
        if arguments.json:
            emit({"architectures": list(ARCHITECTURES), "models": models})
            return 0
        columns = ("name", "architecture", "parameters", "active", "layers", "context", "source")
        rows = [
            (m["name"], m["architecture"], billions(m["parameters"]), billions(m["active_parameters"]))
            + (m["layers"], m["context"], m["source"] or "configs/tiny")
            for m in models
        ]
        print("\n".join(table_lines(columns, rows)))
    return 0

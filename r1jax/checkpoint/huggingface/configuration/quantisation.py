"""The key ``quantization_config``: FP8 in blocks, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from r1jax.checkpoint.huggingface.configuration.keys import refuse
from r1jax.checkpoint.huggingface.fp8 import Block

# ``scale_fmt`` says which numbers the scales are, not how to use them; how activations are quantised is not done here.
_ACCEPTED = {"quant_method": ("fp8",), "fmt": (None, "e4m3"), "activation_scheme": (None, "dynamic")}
_PASSED_OVER = ("weight_block_size", "scale_fmt", "modules_to_not_convert", "dequantize")


def quantisation_from_hf(config: Mapping[str, Any]) -> Block | None:
    """The blocks of the checkpoint's FP8 tensors; None: it has none.

    Raises:
      CheckpointError: another quantisation.
    """
    given = config.get("quantization_config")
    if given is None:
        return None
    remedy = "only fp8 (e4m3) with a weight_block_size is"
    if not isinstance(given, Mapping):
        refuse("quantization_config", given, remedy)
    size = given.get("weight_block_size")
    well_formed = isinstance(size, list) and len(size) == 2 and all(isinstance(n, int) and n > 0 for n in size)
    for key, values in _ACCEPTED.items():
        if given.get(key) not in values:
            refuse(f"quantization_config.{key}", given.get(key), remedy)
    for key, value in given.items():
        if key not in (*_ACCEPTED, *_PASSED_OVER) and value is not None:
            refuse(f"quantization_config.{key}", value, remedy)
    if not well_formed:
        refuse("quantization_config", dict(given), remedy)
    return Block(*size)


def quantisation_to_hf(block: Block) -> dict[str, Any]:
    """What to write as ``quantization_config``."""
    return {"activation_scheme": "dynamic", "fmt": "e4m3", "quant_method": "fp8", "weight_block_size": list(block)}

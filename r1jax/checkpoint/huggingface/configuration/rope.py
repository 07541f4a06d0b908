"""Rotary embedding in config.json: ``rope_theta`` and ``rope_scaling`` (transformers 4) or ``rope_parameters`` (transformers 5)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from r1jax.checkpoint.huggingface.configuration.keys import number, refuse
from r1jax.checkpoint.integrity import CheckpointError
from r1jax.models.config import RopeScaling, YarnScaling

Scaling = RopeScaling | YarnScaling | None

_ORIGINAL = "original_max_position_embeddings"
_LLAMA3 = ("factor", "low_freq_factor", "high_freq_factor", _ORIGINAL)
_YARN = ("factor", _ORIGINAL, "beta_fast", "beta_slow", "mscale", "mscale_all_dim")
_KEYS = {"default": (), "llama3": _LLAMA3, "yarn": (*_YARN, "attention_factor", "truncate")}


def rope_from_hf(config: Mapping[str, Any], max_positions: int, kinds: tuple[str, ...]) -> tuple[float, Scaling]:
    """Base and scaling of the rotary frequencies.

    Args:
      kinds: of scaling that the architecture has.
    """
    new, old = config.get("rope_parameters"), config.get("rope_scaling")
    for key, rope in (("rope_parameters", new), ("rope_scaling", old)):
        if rope is not None and not isinstance(rope, Mapping):
            raise CheckpointError(f"config.json: {key} must be a mapping or null, not {rope!r}")
    if new and any(isinstance(value, Mapping) for value in new.values()):
        refuse("rope_parameters", dict(new), "only one set of rotary parameters for all layers is")
    thetas = [rope["rope_theta"] for rope in (new, old, config) if rope and rope.get("rope_theta") is not None]
    if any(theta != thetas[0] for theta in thetas):
        raise CheckpointError(f"config.json: rope_theta is given as {thetas[0]!r} and as {thetas[-1]!r}; keep the right one")
    theta = number({"rope_theta": thetas[0] if thetas else None}, "rope_theta", float, 10_000.0)
    scalings = [
        _scaling(config, key, rope, max_positions, kinds)
        for key, rope in (("rope_parameters", new), ("rope_scaling", old))
        if rope
    ]
    if any(scaling != scalings[0] for scaling in scalings):
        raise CheckpointError("config.json: rope_parameters and rope_scaling contradict each other; remove the wrong one")
    return theta, scalings[0] if scalings else None


def _scaling(config, key: str, rope: Mapping[str, Any], max_positions: int, kinds: tuple[str, ...]) -> Scaling:
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind not in kinds:
        refuse(f"{key}.rope_type", kind, f"known: {', '.join(kinds)}")
    known = {"rope_type", "type", "rope_theta", "partial_rotary_factor", *_KEYS[kind]}
    for name, value in rope.items():
        if name not in known and value is not None:
            refuse(f"{key}.{name}", value, f"keys of rope type {kind}: {', '.join(sorted(known))}")
    for name, neutral, remedy in (
        ("partial_rotary_factor", (None, 1), "only rotation of whole heads (1.0) is"),
        ("attention_factor", (None,), "only one that follows from mscale and mscale_all_dim is"),
        ("truncate", (None, True), "only true is"),
    ):
        if rope.get(name) not in neutral:
            refuse(f"{key}.{name}", rope[name], remedy)
    if kind == "default":
        return None
    where = f"config.json: {key}"
    original = config.get(_ORIGINAL) or rope.get(_ORIGINAL)
    original = number({_ORIGINAL: original}, _ORIGINAL, int, max_positions, where)
    if kind == "llama3":
        return RopeScaling(
            **{name: number(rope, name, float, where=where) for name in _LLAMA3[:3]},
            original_max_position_embeddings=original,
        )
    mscale, mscale_all_dim = _magnitudes(rope, where)
    return YarnScaling(
        factor=number(rope, "factor", float, where=where),
        original_max_position_embeddings=original,
        beta_fast=number(rope, "beta_fast", float, 32.0, where),
        beta_slow=number(rope, "beta_slow", float, 1.0, where),
        mscale=mscale,
        mscale_all_dim=mscale_all_dim,
    )


def _magnitudes(rope: Mapping[str, Any], where: str) -> tuple[float, float]:
    """Both or neither: of one alone DeepSeek's code and transformers make different models."""
    given = [rope.get(name) for name in ("mscale", "mscale_all_dim")]
    if given == [None, None]:
        return 1.0, 0.0
    for name, value in zip(("mscale", "mscale_all_dim"), given):
        if value is None:
            raise CheckpointError(f"{where} lacks {name}, without which the other of mscale and mscale_all_dim is ambiguous")
        if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
            raise CheckpointError(f"{where}: {name} must be a number of at least 0, not {value!r}")
    return float(given[0]), float(given[1])


def rope_to_hf(theta: float, scaling: Scaling) -> dict[str, Any]:
    """The keys of both spellings."""
    if scaling is None:
        return {"rope_parameters": {"rope_theta": theta, "rope_type": "default"}, "rope_theta": theta, "rope_scaling": None}
    kind, keys = ("yarn", _YARN) if isinstance(scaling, YarnScaling) else ("llama3", _LLAMA3)
    values = {"rope_type": kind, **{key: getattr(scaling, key) for key in keys}}
    # DeepSeek's own code reads "type".
    old = {"type": kind, **values} if kind == "yarn" else values
    return {"rope_parameters": {"rope_theta": theta, **values}, "rope_theta": theta, "rope_scaling": old}

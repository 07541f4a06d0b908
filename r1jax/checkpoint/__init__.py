"""Checkpoints: Hugging Face's tables both ways, Orbax trees, integrity; everything is checked as it is read."""

from r1jax.checkpoint.huggingface.configuration import config_from_hf, config_to_hf
from r1jax.checkpoint.huggingface.dry_run import dry_run
from r1jax.checkpoint.huggingface.exporting import export_model
from r1jax.checkpoint.integrity import CheckpointError, checksums
from r1jax.checkpoint.loading import load_model, load_tokenizer, read_config
from r1jax.checkpoint.native import convert
from r1jax.checkpoint.state import restore_state, save_state

__all__ = [
    "CheckpointError",
    "checksums",
    "config_from_hf",
    "config_to_hf",
    "convert",
    "dry_run",
    "export_model",
    "load_model",
    "load_tokenizer",
    "read_config",
    "restore_state",
    "save_state",
]

"""Tokenizers, chat and prompt templates, prompt sets, the batch and its packing. Names are imported on first use."""

import importlib

_HOMES = {
    "Batch": "batch",
    "ChatTemplate": "chat",
    "ChatTemplateError": "chat",
    "DataError": "rows",
    "Example": "examples",
    "PromptOrder": "prompts",
    "PromptRow": "prompts",
    "TextStream": "streaming",
    "Tokenizer": "tokenizer",
    "TokenizerError": "tokenizer",
    "check_examples": "examples",
    "data_files": "rows",
    "empty_batch": "batch",
    "load_examples": "examples",
    "is_tfds_name": "rows",
    "load_prompts": "prompts",
    "pack": "packing",
    "read_rows": "rows",
    "render_prompt": "template",
}
__all__ = sorted(_HOMES)


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)

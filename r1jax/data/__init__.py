"""Tokenizers, chat and prompt templates, prompt sets, the batch and its packing. Names are imported on first use."""

import importlib

_HOMES = {
    "Batch": "batch",
    "ChatTemplate": "chat",
    "ChatTemplateError": "chat",
    "DataError": "prompts",
    "Example": "examples",
    "PromptOrder": "prompts",
    "PromptRow": "prompts",
    "TextStream": "streaming",
    "Tokenizer": "tokenizer",
    "TokenizerError": "tokenizer",
    "check_examples": "examples",
    "empty_batch": "batch",
    "load_examples": "examples",
    "load_prompts": "prompts",
    "pack": "packing",
    "render_prompt": "template",
}
__all__ = sorted(_HOMES)


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)

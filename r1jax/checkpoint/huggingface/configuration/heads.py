"""Which class a config.json names: an architecture, with the head of a language model or of a reward model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from r1jax.checkpoint.huggingface.configuration.keys import refuse
from r1jax.checkpoint.integrity import CheckpointError
from r1jax.models.config import ModelConfig

_FAMILIES = {
    "qwen2": "Qwen2",
    "llama": "Llama",
    "deepseek_v2": "DeepseekV2",
    "deepseek_v3": "DeepseekV3",
    "kimi_k2": "DeepseekV3",
}
_LANGUAGE_MODEL, _REWARD_MODEL = "ForCausalLM", "ForSequenceClassification"
_CLASSES = {family + head: head for family in _FAMILIES.values() for head in (_LANGUAGE_MODEL, _REWARD_MODEL)}


def class_of(config: ModelConfig) -> str:
    """The name of a model's class."""
    return _FAMILIES[config.architecture] + (_REWARD_MODEL if config.num_labels else _LANGUAGE_MODEL)


def read_class(config: Mapping[str, Any]) -> tuple[str, int]:
    """``(architecture, num_labels)``; without ``architectures`` a file is of a language model.

    Raises:
      CheckpointError: neither is named, or what is not implemented is.
    """
    known = f"known: {', '.join(_CLASSES)}"
    model_type, classes = config.get("model_type"), config.get("architectures")
    if model_type is None and not classes:
        raise CheckpointError(f"config.json lacks model_type and architectures; {known}")
    for name in classes or ():
        if name not in _CLASSES:
            refuse("architectures", name, known)
    if model_type is None:
        model_type = next(key for key, family in _FAMILIES.items() if classes[0] == family + _CLASSES[classes[0]])
    if model_type not in _FAMILIES:
        refuse("model_type", model_type, f"known: {', '.join(_FAMILIES)}")
    if not classes:
        return model_type, 0
    if classes[0] != _FAMILIES[model_type] + _CLASSES[classes[0]]:
        raise CheckpointError(
            f"config.json: model_type {model_type!r} and architectures {classes[0]!r} contradict each other"
        )
    return model_type, _num_labels(config) if _CLASSES[classes[0]] == _REWARD_MODEL else 0


def _num_labels(config: Mapping[str, Any]) -> int:
    """A file says it by its labels' names, or by number; transformers' own default is 2."""
    names = config.get("id2label")
    found = len(names) if isinstance(names, Mapping) and names else config.get("num_labels")
    if found != 1:
        said = "2, which is what a file that names none means" if found is None else repr(found)
        raise CheckpointError(
            f"config.json: num_labels is {said}; a reward model has 1, a score (id2label {{'0': 'LABEL_0'}})"
        )
    return 1


def labels_to_hf(config: ModelConfig) -> dict[str, Any]:
    """Keys of a reward model's labels: transformers tells their number from their names."""
    return {"id2label": {"0": "LABEL_0"}, "label2id": {"LABEL_0": 0}} if config.num_labels else {}

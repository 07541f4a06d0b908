"""The model's own chat template, rendered as ``transformers`` renders it.

Where a directory keeps it, later ones win: ``chat_template`` in ``tokenizer_config.json`` (one text, or a list of
named ones), ``chat_template.json``, ``chat_template.jinja``, ``additional_chat_templates/NAME.jinja``.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping, Sequence
from typing import Any

from jinja2.exceptions import TemplateError

from r1jax.data.sandbox import BoundedEnvironment, size_of

Message = Mapping[str, Any]

# Names under which a message's reasoning is passed; templates read the first, gpt-oss's the second.
REASONING_NAMES = ("reasoning_content", "thinking", "reasoning")


class ChatTemplateError(ValueError):
    """A chat template that is missing, broken, or that refuses its messages."""


class ChatTemplate:
    """One or several named Jinja templates and the names that they may use.

    Args:
      templates: name -> source; ``default`` and ``tool_use`` have their usual meaning.
      variables: what every render sees, such as ``bos_token``.
    """

    def __init__(self, templates: Mapping[str, str], variables: Mapping[str, Any] | None = None):
        if not templates:
            raise ChatTemplateError("a ChatTemplate needs at least one template")
        self.templates = dict(templates)
        self.variables = dict(variables or {})
        self._environment = BoundedEnvironment()
        self._compiled: dict[str, Any] = {}
        self._lock = threading.Lock()

    def source(self, tools: Sequence[Any] | None = None, name: str | None = None) -> str:
        """The template to use: the one named, else ``tool_use`` if tools are given and it exists, else ``default``."""
        if name is None:
            name = "tool_use" if tools is not None and "tool_use" in self.templates else "default"
        if name not in self.templates:
            raise ChatTemplateError(f"no chat template {name!r}; the model has {', '.join(sorted(self.templates))}")
        return self.templates[name]

    def render(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        name: str | None = None,
        **variables: Any,
    ) -> str:
        """Renders ``messages`` (``{"role", "content", ...}``) to the text that the model was trained on.

        Keys of a message whose value is None are left out, as ``transformers`` does. ``tools`` are JSON schemas.
        Raises ChatTemplateError if the template is broken, refuses the messages, or exceeds its budget.
        """
        if not messages:
            raise ChatTemplateError("a chat needs at least one message")
        for message in messages:
            if not isinstance(message, Mapping) or "role" not in message:
                raise ChatTemplateError(f"a message must be a mapping with role and content, not {message!r:.200}")
        plain = _plain(
            {
                **self.variables,
                **variables,
                "messages": [_with_reasoning({k: v for k, v in message.items() if v is not None}) for message in messages],
                "tools": None if tools is None else list(tools),
                "documents": variables.get("documents"),
                "add_generation_prompt": add_generation_prompt,
            }
        )
        source = self.source(tools, name)
        with self._lock:
            try:
                if source not in self._compiled:
                    self._compiled[source] = self._environment.compile_template(source)
                self._environment.start(size_of(plain, float("inf")))
                return self._compiled[source].render(plain)
            except TemplateError as error:
                where = f" (line {error.lineno})" if getattr(error, "lineno", None) else ""
                raise ChatTemplateError(f"chat template{where}: {error.message or type(error).__name__}") from error
            except (TypeError, ValueError, KeyError, AttributeError, ArithmeticError, LookupError) as error:
                raise ChatTemplateError(f"chat template: {type(error).__name__}: {error}") from error
            except (RecursionError, MemoryError) as error:
                raise ChatTemplateError(f"the chat template exceeds its bounds: {type(error).__name__}") from None


def read_templates(
    config_value: Any, json_value: Any = None, jinja_files: Mapping[str, str] | None = None
) -> dict[str, str] | None:
    """The templates of a model directory by name, or None.

    Args:
      config_value: ``chat_template`` of tokenizer_config.json: text, or a list of ``{"name", "template"}``, or a mapping.
      json_value: the same of chat_template.json.
      jinja_files: name -> source of ``chat_template.jinja`` (``default``) and of ``additional_chat_templates/``.
    """
    if jinja_files:
        return dict(jinja_files)
    value = json_value if json_value is not None else config_value
    if value is None:
        return None
    if isinstance(value, str):
        return {"default": value}
    if isinstance(value, (list, tuple)) and all(isinstance(v, Mapping) and {"name", "template"} <= v.keys() for v in value):
        return {v["name"]: v["template"] for v in value}
    if isinstance(value, Mapping) and value and all(isinstance(v, str) for v in value.values()):
        return dict(value)
    raise ChatTemplateError(f"chat_template must be text or a list of name and template, not {value!r:.100}")


def _with_reasoning(message: dict[str, Any]) -> dict[str, Any]:
    """Gives a message's reasoning under both names that templates read."""
    reasoning = next((message[name] for name in REASONING_NAMES if name in message), None)
    return message if reasoning is None else {"thinking": reasoning, **message, "reasoning_content": reasoning}


def _plain(value: Any) -> Any:
    """A copy of plain JSON types: a template must not get hold of anybody's objects and their methods."""
    if value is None or type(value) in (str, int, float, bool):
        return value
    for kind in (str, bool, int, float):
        if isinstance(value, kind):
            return kind.__str__(value) if kind is str else kind(value)
    if isinstance(value, Mapping):
        return {_plain(key): _plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        copied = [_plain(item) for item in value]
        return copied if isinstance(value, list) else tuple(copied)
    return f"<{type(value).__name__}>"

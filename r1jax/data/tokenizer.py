"""The tokenizer of a model directory: ids in, ids out, and what begins and ends a sequence.

``Tokenizer.load(directory)`` reads ``tokenizer.json`` or, failing that, a sentencepiece ``tokenizer.model``, with
``tokenizer_config.json``, ``special_tokens_map.json``, ``config.json``, ``generation_config.json`` and the chat template.

* Beginning: one BOS at most. ``encode(text)`` adds none; ``encode(text, add_bos=True)`` adds one if the tokenizer has one
  and the ids do not begin with it already. ``adds_bos`` says whether the tokenizer wants one before a plain text.
* End: a *set*. A model may end with what its config, its generation config, its tokenizer or its chat template name.
* Padding: ``pad_id`` only fills arrays. It is often an end-of-sequence id, so nothing may ever compare tokens with it to
  find padding: masks come from lengths.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol

from etils import epath

from r1jax.data.chat import ChatTemplate, ChatTemplateError, read_templates
from r1jax.data.json_tokenizer import JsonTokenizer
from r1jax.data.sentencepiece_tokenizer import SentencePieceTokenizer
from r1jax.data.streaming import DecoderSteps, TextStream

# Special tokens that end a turn, for directories without a chat template to learn it from.
TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>")
SPECIAL_NAMES = ("bos_token", "eos_token", "unk_token", "sep_token", "pad_token", "cls_token", "mask_token")


class TokenizerError(ValueError):
    """A tokenizer that can't be read, or a text that can't be encoded."""


class Backend(Protocol):
    """What ``Tokenizer`` needs of tokenizer.json and of sentencepiece alike."""

    added: Mapping[str, int]
    special_ids: frozenset[int]
    size: int
    steps: DecoderSteps

    def encode(self, text: str) -> list[int]: ...
    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]: ...
    def decode(self, ids: Sequence[int], skip_special: bool) -> str: ...
    def token(self, number: int) -> str | None: ...
    def token_id(self, token: str) -> int | None: ...


class Tokenizer:
    """See the module. Made by ``Tokenizer.load``.

    Attributes:
      vocab_size: one more than the largest id; a model's embedding may have more rows, never fewer.
      bos_id: id of the beginning of sequence, or None.
      adds_bos: whether a plain text (not a rendered chat) begins with it.
      eos_ids: every id that ends a sequence.
      eos_id: the tokenizer's own end of sequence (else what the model's config names first), or None: what ends a text that
        is to be learnt.
      turn_end_id: what the chat template writes after an assistant's words, or None.
      pad_id: filler for arrays; see above.
      special_ids: ids that ``decode(..., skip_special=True)`` leaves out.
      chat: the chat template, or None.
    """

    def __init__(
        self,
        backend: Backend,
        bos_id: int | None = None,
        adds_bos: bool = False,
        eos_ids: Iterable[int] = (),
        pad_id: int | None = None,
        chat: ChatTemplate | None = None,
        source: str = "",
    ):
        self._backend = backend
        self.bos_id, self.adds_bos, self.chat, self.source = bos_id, adds_bos and bos_id is not None, chat, source
        self.vocab_size, self.special_ids = backend.size, backend.special_ids
        ends = [end for end in eos_ids if end is not None]
        self.eos_id: int | None = ends[0] if ends else None
        self.turn_end_id: int | None = None if chat is None else self._turn_end(chat)
        ends += [*(backend.added[t] for t in TURN_ENDS if t in backend.added), self.turn_end_id]
        self.eos_ids: frozenset[int] = frozenset(ends) - {None}
        self.pad_id: int = pad_id if pad_id is not None else min(self.eos_ids, default=0)

    @classmethod
    def load(cls, path: epath.PathLike) -> Tokenizer:
        """Reads a Hugging Face directory. Raises TokenizerError if it holds no tokenizer or a broken one."""
        directory = epath.Path(path)
        settings = _read_json(directory / "tokenizer_config.json") or {}
        config = _read_json(directory / "config.json") or {}
        generation = _read_json(directory / "generation_config.json") or {}
        if "added_tokens_decoder" not in settings:  # older directories
            settings = settings | (_read_json(directory / "special_tokens_map.json") or {})
        named = {name: _content(settings[name]) for name in SPECIAL_NAMES if settings.get(name) is not None}
        try:
            backend = _read_backend(directory, settings, list(named.values()))
        except TokenizerError:
            raise
        except (ValueError, KeyError, TypeError) as error:
            raise TokenizerError(f"{directory}: {error}") from error

        text_config = config.get("text_config") or {}
        ends = [backend.token_id(named["eos_token"])] if "eos_token" in named else []
        for source in (config, text_config, generation):
            value = source.get("eos_token_id")
            ends += value if isinstance(value, list) else [value]
        bos = backend.token_id(named["bos_token"]) if "bos_token" in named else None
        pad = backend.token_id(named["pad_token"]) if "pad_token" in named else None
        if isinstance(backend, SentencePieceTokenizer):
            if "bos_token" not in settings:
                bos, named["bos_token"] = backend.bos, backend.token(backend.bos) if backend.bos is not None else None
            if "eos_token" not in settings:
                ends, named["eos_token"] = (
                    [backend.eos, *ends],
                    backend.token(backend.eos) if backend.eos is not None else None,
                )
            pad = backend.pad if pad is None else pad
            adds_bos = settings.get("add_bos_token", True)
        else:
            prefix = backend.prefix()
            if bos is None and "bos_token" not in settings and len(prefix) == 1:
                bos, named["bos_token"] = prefix[0], backend.token(prefix[0])
            adds_bos = bos is not None and (bos in prefix or bool(settings.get("add_bos_token")))
        for source in (config, generation):
            pad = source.get("pad_token_id") if pad is None else pad

        try:
            templates = _read_chat_templates(directory, settings)
        except ChatTemplateError as error:
            raise TokenizerError(f"{directory}: {error}") from None
        named = {name: text for name, text in named.items() if text is not None}
        chat = ChatTemplate(templates, named) if templates else None
        return cls(backend, bos, adds_bos, ends, pad, chat, source=str(directory))

    # ------------------------------------------------------------------------------------------ encoding
    def encode(self, text: str, add_bos: bool = False) -> list[int]:
        """The ids of ``text``. Special tokens written in the text become their ids.

        ``add_bos``: begin with ``bos_id``, if there is one and the ids do not begin with it already.
        Raises TokenizerError if ``text`` is not Unicode text (a lone surrogate).
        """
        try:
            ids = self._backend.encode(text)
        except (TypeError, UnicodeError) as error:
            raise _not_text(text, error) from None
        return self._begin(ids) if add_bos else ids

    def encode_batch(self, texts: Sequence[str], add_bos: bool = False) -> list[list[int]]:
        """``encode`` of many texts, on all cores."""
        try:
            batch = self._backend.encode_batch(texts)
        except (TypeError, UnicodeError):
            return [self.encode(text, add_bos) for text in texts]  # names the text that is at fault
        return [self._begin(ids) for ids in batch] if add_bos else batch

    def _begin(self, ids: list[int]) -> list[int]:
        return ids if self.bos_id is None or ids[:1] == [self.bos_id] else [self.bos_id, *ids]

    def decode(self, ids: Iterable[int], skip_special: bool = False) -> str:
        """The text of ``ids``; an id that the tokenizer does not know decodes to nothing. Bytes that are not UTF-8
        become U+FFFD."""
        return self._backend.decode([int(i) for i in ids], skip_special)

    def decode_batch(self, sequences: Iterable[Iterable[int]], skip_special: bool = False) -> list[str]:
        """``decode`` of each."""
        return [self.decode(ids, skip_special) for ids in sequences]

    def stream(self, skip_special: bool = False) -> TextStream:
        """A decoder for ids as they come: ``push(ids)`` -> final text, ``finish()`` -> the rest."""
        skip = self.special_ids if skip_special else frozenset()
        return TextStream(
            self._backend.steps, self._backend.token, skip, lambda ids: self._backend.decode(ids, skip_special)
        )

    def token(self, number: int) -> str | None:
        """The vocabulary's own spelling of an id, or None."""
        return self._backend.token(int(number))

    def token_id(self, token: str) -> int | None:
        """The id of a vocabulary entry, or None."""
        return self._backend.token_id(token)

    # ------------------------------------------------------------------------------------------ chat
    def apply_chat_template(
        self,
        messages: Sequence[Mapping[str, Any]],
        add_generation_prompt: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **variables: Any,
    ) -> str:
        """``messages`` in the model's own chat format, as text: encode it with ``encode(text)``, without ``add_bos`` (the
        template writes a BOS itself if the model wants one). Raises ChatTemplateError, also where there is no template."""
        if self.chat is None:
            raise ChatTemplateError(
                f"{self.source or 'this tokenizer'} has no chat template; add chat_template to its tokenizer_config.json "
                "or a chat_template.jinja, or use the templates r1_zero or none"
            )
        return self.chat.render(messages, add_generation_prompt, tools, **variables)

    def _turn_end(self, chat: ChatTemplate) -> int | None:
        """The token that follows an assistant's words in a rendered chat, if it is an added token."""
        words = "r1jax-turn-end-probe"
        try:
            text = chat.render([{"role": "user", "content": "a"}, {"role": "assistant", "content": words}])
        except ChatTemplateError:
            return None
        rest = text.rpartition(words)[2].lstrip()
        found = [token for token in self._backend.added if token and rest.startswith(token)]
        return self._backend.added[max(found, key=len)] if found and words in text else None


# ---------------------------------------------------------------------------------------------- reading files
def _read_backend(directory: epath.Path, settings: Mapping[str, Any], special: list[str]) -> Backend:
    added = {int(i): _fields(token) for i, token in (settings.get("added_tokens_decoder") or {}).items()}
    extra = settings.get("extra_special_tokens") or settings.get("additional_special_tokens") or []
    special = [*special, *(_content(t) for t in (extra.values() if isinstance(extra, Mapping) else extra))]
    if (directory / "tokenizer.json").exists():
        text = (directory / "tokenizer.json").read_text(encoding="utf-8")
        return JsonTokenizer(text, added, special, bool(settings.get("split_special_tokens")))
    models = [directory / name for name in ("tokenizer.model", "spiece.model") if (directory / name).exists()]
    if models:
        for content, i in (_read_json(directory / "added_tokens.json") or {}).items():
            added.setdefault(i, {"content": content, "special": content in special})
        legacy = bool(settings.get("legacy")) or str(settings.get("tokenizer_class", "")).startswith("T5")
        return SentencePieceTokenizer(models[0].read_bytes(), added, legacy, settings.get("add_prefix_space"))
    if not directory.exists():
        raise TokenizerError(f"no tokenizer: {directory} does not exist")
    raise TokenizerError(f"no tokenizer in {directory}: it needs a tokenizer.json or a sentencepiece tokenizer.model")


def _read_chat_templates(directory: epath.Path, settings: Mapping[str, Any]) -> dict[str, str] | None:
    files = {}
    if (directory / "chat_template.jinja").exists():
        files["default"] = (directory / "chat_template.jinja").read_text(encoding="utf-8")
    if (directory / "additional_chat_templates").exists():
        for path in sorted((directory / "additional_chat_templates").glob("*.jinja")):
            files[path.name.removesuffix(".jinja")] = path.read_text(encoding="utf-8")
    document = _read_json(directory / "chat_template.json") or {}
    return read_templates(settings.get("chat_template"), document.get("chat_template"), files)


def _read_json(path: epath.Path) -> dict[str, Any] | None:
    if not path.exists():
        return None
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise TokenizerError(f"{path} is not JSON: {error}") from None
    if not isinstance(value, dict):
        raise TokenizerError(f"{path} must hold a JSON object")
    return value


def _content(token: Any) -> str:
    """A special token is text, or the fields of an added token."""
    return token["content"] if isinstance(token, Mapping) else str(token)


def _fields(token: Any) -> dict[str, Any]:
    if isinstance(token, Mapping):
        return {name: value for name, value in token.items() if not name.startswith("_")}
    return {"content": str(token), "special": True}


def _not_text(text: Any, error: Exception) -> TokenizerError:
    if not isinstance(text, str):
        return TokenizerError(f"only text can be encoded, not {type(text).__name__}")
    return TokenizerError(f"the text {text[:60]!a} is not valid Unicode and can't be encoded: {error}")

"""Text from a stream of token ids: only what later tokens can't change, and each token looked at once.

Three decoders cover the language models in use: byte-level (GPT-2, Qwen, Llama 3, DeepSeek), sentencepiece pieces with
byte fallback (Llama 2, Gemma), and Metaspace (T5). For any other the text comes at the end, which is slow to watch but
never wrong. What is pushed and finished always adds up to ``Tokenizer.decode`` of all ids.
"""

from __future__ import annotations

import codecs
import functools
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

BYTE_TOKEN = re.compile(r"<0x[0-9A-Fa-f]{2}>")


@dataclass(frozen=True)
class DecoderSteps:
    """How token strings become text.

    Attributes:
      kind: ``bytes`` (byte-level), ``pieces``, or ``whole`` (unknown: decode everything at the end).
      replace: pairs (from, to), applied to each token.
      byte_fallback: tokens ``<0xNN>`` are bytes; a run of them that is not UTF-8 becomes one U+FFFD per byte.
      strip: character of which up to ``strip_count`` are taken from the front of the text.
      first_bare: the first token loses these characters (Metaspace).
    """

    kind: str
    replace: tuple[tuple[str, str], ...] = ()
    byte_fallback: bool = False
    strip: str = ""
    strip_count: int = 0
    first_bare: str = ""


def read_decoder(decoder: Mapping[str, Any] | None) -> DecoderSteps:
    """Reads the ``decoder`` of a tokenizer.json."""
    whole = DecoderSteps("whole")
    if decoder is None:
        return whole
    steps = decoder["decoders"] if decoder["type"] == "Sequence" else [decoder]
    kinds = [step["type"] for step in steps]
    if kinds == ["ByteLevel"]:
        return DecoderSteps("bytes")
    if kinds == ["Metaspace"]:
        mark = steps[0].get("replacement", "▁")
        prepends = steps[0].get("prepend_scheme", "always") != "never"
        return DecoderSteps("pieces", replace=((mark, " "),), first_bare=mark if prepends else "")
    replace, strip, count = [], "", 0
    while kinds[:1] == ["Replace"]:
        pattern = steps.pop(0)
        if "String" not in pattern["pattern"]:
            return whole
        replace.append((pattern["pattern"]["String"], pattern["content"]))
        kinds.pop(0)
    byte_fallback = kinds[:1] == ["ByteFallback"]
    kinds, steps = kinds[byte_fallback:], steps[byte_fallback:]
    fused = kinds[:1] == ["Fuse"]
    kinds, steps = kinds[fused:], steps[fused:]
    if fused and kinds == ["Strip"] and steps[0]["stop"] == 0:
        strip, count = steps[0]["content"], steps[0]["start"]
        kinds = []
    return whole if kinds else DecoderSteps("pieces", tuple(replace), byte_fallback, strip, count)


@functools.cache
def byte_of_character() -> dict[str, int]:
    """GPT-2's map from the printable characters of a byte-level vocabulary to bytes."""
    printable = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    hidden = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(256 + i): byte for i, byte in enumerate(hidden)}


@functools.cache
def byte_level(token: str) -> bytes:
    """The bytes of a byte-level token; a token with any character outside the map stands for its own text."""
    table = byte_of_character()
    try:
        return bytes(table[character] for character in token)
    except KeyError:
        return token.encode("utf-8")


class TextStream:
    """Incremental decoding of one sequence.

    ``push(ids)`` returns the text that has become final, ``finish()`` the rest. The cost is that of the new ids, on
    average; text is held back only while it may still change (an unfinished character, a run of byte tokens).

    Args:
      steps: of the tokenizer's decoder.
      token: id -> token string, or None for an id without one (which decodes to nothing).
      skip: ids that are left out (special tokens).
      decode: decodes a whole list of ids; used for ``whole`` only.
    """

    def __init__(
        self,
        steps: DecoderSteps,
        token: Callable[[int], str | None],
        skip: frozenset[int] = frozenset(),
        decode: Callable[[Sequence[int]], str] | None = None,
    ):
        self._steps, self._token, self._skip, self._decode = steps, token, skip, decode
        self._utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        self._run = bytearray()  # byte tokens whose run has not ended
        self._first = True
        self._to_strip = steps.strip_count
        self._ids: list[int] = []
        self._finished = False

    def push(self, ids: Iterable[int] | int) -> str:
        """Takes the next id or ids; returns the text that no later id can change."""
        if self._finished:
            raise ValueError("this TextStream is finished; a new sequence needs a new one")
        ids = [ids] if isinstance(ids, int) else [int(i) for i in ids]
        if self._steps.kind == "whole":
            self._ids.extend(ids)
            return ""
        tokens = (self._token(i) for i in ids if i not in self._skip)
        if self._steps.kind == "bytes":
            return self._utf8.decode(b"".join(byte_level(token) for token in tokens if token is not None))
        return self._strip("".join(self._piece(token) for token in tokens if token is not None))

    def finish(self) -> str:
        """Ends the sequence; returns what was held back."""
        if self._finished:
            return ""
        self._finished = True
        if self._steps.kind == "whole":
            return self._decode([i for i in self._ids if i not in self._skip])
        if self._steps.kind == "bytes":
            return self._utf8.decode(b"", final=True)
        return self._strip(self._end_run())

    def _piece(self, token: str) -> str:
        if self._first and self._steps.first_bare:
            token = token.replace(self._steps.first_bare, "")
        self._first = False
        for old, new in self._steps.replace:
            token = token.replace(old, new)
        if self._steps.byte_fallback and BYTE_TOKEN.fullmatch(token):
            self._run.append(int(token[3:5], 16))
            return ""
        return self._end_run() + token

    def _end_run(self) -> str:
        run = bytes(self._run)
        self._run.clear()
        try:
            return run.decode("utf-8")
        except UnicodeDecodeError:
            return "\ufffd" * len(run)

    def _strip(self, text: str) -> str:
        while self._to_strip and text:
            if text[0] != self._steps.strip:
                self._to_strip = 0
                break
            text = text[1:]
            self._to_strip -= 1
        return text

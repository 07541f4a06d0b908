"""A sentencepiece ``tokenizer.model``, run by sentencepiece itself, with special tokens as ``transformers`` treats them.

sentencepiece knows nothing of special tokens in a text: text is cut at them first, and the parts are encoded. Which
parts begin with a space that is not in the text is what "legacy" means: all of them, or only one at the very start.

For Llama's kind of model (BPE, byte fallback, no normalisation) ids equal transformers 5's. For a unigram model with NFKC
they are sentencepiece's; transformers' own normaliser differs on some rare sequences of combining marks.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import sentencepiece

from r1jax.data.streaming import DecoderSteps, TextStream

SPACE = "▁"
# A ModelProto whose normalizer_spec (field 3) has add_dummy_prefix (field 3) false. Appended to a model it is merged
# into it (protobuf: of a repeated singular message, fields merge and the last value wins).
_NO_PREFIX = b"\x1a\x02\x18\x00"


class SentencePieceTokenizer:
    """Encoding and decoding without any thought for beginnings and ends.

    Args:
      model: contents of tokenizer.model.
      added: id -> content (or fields of an added token) beyond the model's own control and user-defined pieces.
      legacy: put the dummy space before every part of a text, not only before its first.
      add_prefix_space: None follows the model.
    """

    def __init__(
        self, model: bytes, added: Mapping[int, Any] = {}, legacy: bool = False, add_prefix_space: bool | None = None
    ):
        try:
            self._model = sentencepiece.SentencePieceProcessor(model_proto=model)
            self._bare = sentencepiece.SentencePieceProcessor(model_proto=model + _NO_PREFIX)
        except RuntimeError as error:
            raise ValueError(f"tokenizer.model is not a sentencepiece model ({error}); export a tokenizer.json") from None
        size = self._model.get_piece_size()
        self._pieces: list[str | None] = [self._model.id_to_piece(i) for i in range(size)]
        self._ids = {piece: i for i, piece in enumerate(self._pieces)}
        special = {i for i in range(size) if self._model.is_control(i) or self._model.is_unknown(i)}
        # Flag 4 of a piece, user defined, has no accessor: such a piece is one token wherever it stands.
        self.added = {self._pieces[i]: i for i in special}
        for number, token in sorted(added.items()):
            fields = token if isinstance(token, Mapping) else {"content": token, "special": True}
            content = fields["content"]
            self._pieces += [None] * (number + 1 - len(self._pieces))
            self._pieces[number] = content
            self._ids[content] = number
            self.added[content] = number
            if fields.get("special", False):
                special.add(number)
        self.special_ids = frozenset(special)
        self.size = len(self._pieces)
        has_prefix = self._model.encode("a", out_type=str) != self._bare.encode("a", out_type=str)
        self._prefix = has_prefix if add_prefix_space is None else add_prefix_space
        self._legacy = legacy
        by_length = sorted(self.added, key=len, reverse=True)
        self._split = re.compile("(" + "|".join(map(re.escape, by_length)) + ")") if by_length else None
        self.steps = DecoderSteps(
            "pieces", ((SPACE, " "),), byte_fallback=True, strip=" ", strip_count=1 if self._prefix else 0
        )

    @property
    def bos(self) -> int | None:
        return _known(self._model.bos_id())

    @property
    def eos(self) -> int | None:
        return _known(self._model.eos_id())

    @property
    def pad(self) -> int | None:
        return _known(self._model.pad_id())

    def encode(self, text: str) -> list[int]:
        return self.encode_batch([text])[0]

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        parts: list[list[int | tuple[bool, int]]] = []  # of each text: an id, or the place of a part to encode
        to_encode: dict[bool, list[str]] = {True: [], False: []}
        for text in texts:
            places: list[int | tuple[bool, int]] = []
            pieces = self._split.split(text) if self._split else [text]
            for number, piece in enumerate(pieces):
                if number % 2:
                    places.append(self.added[piece])
                elif piece:
                    prefixed = self._prefix and (self._legacy or number == 0)
                    if prefixed and len(piece) > 1 and piece[0] in (" ", SPACE):
                        piece = piece[1:]  # as transformers' Metaspace: a space that is there serves as the prefix
                    elif prefixed and piece in (" ", SPACE):
                        prefixed = False
                    places.append((prefixed, len(to_encode[prefixed])))
                    to_encode[prefixed].append(piece)
            parts.append(places)
        encoded = {True: self._model.encode(to_encode[True]), False: self._bare.encode(to_encode[False])}
        return [
            [i for place in places for i in ([place] if isinstance(place, int) else encoded[place[0]][place[1]])]
            for places in parts
        ]

    def decode(self, ids: Sequence[int], skip_special: bool) -> str:
        stream = TextStream(self.steps, self.token, self.special_ids if skip_special else frozenset())
        return stream.push(ids) + stream.finish()

    def token(self, number: int) -> str | None:
        return self._pieces[number] if 0 <= number < len(self._pieces) else None

    def token_id(self, token: str) -> int | None:
        return self._ids.get(token)


def _known(number: int) -> int | None:
    return None if number < 0 else number

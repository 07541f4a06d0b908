"""A ``tokenizer.json``, read and run by the ``tokenizers`` library.

The file is followed as it stands. (``transformers`` 5 rebuilds some classes, Qwen2's and Llama's among them, from the
file's vocabulary with a pipeline of its own; for the published files the two agree.)
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import tokenizers

from r1jax.data.streaming import DecoderSteps, read_decoder


class JsonTokenizer:
    """Encoding and decoding without any thought for beginnings and ends.

    Args:
      text: contents of tokenizer.json.
      added: id -> fields of ``added_tokens_decoder`` in tokenizer_config.json.
      special: contents of tokens that tokenizer_config.json names as special.
      split_special: encode special tokens' text as plain text.
    """

    def __init__(self, text: str, added: Mapping[int, Any] = {}, special: Sequence[str] = (), split_special: bool = False):
        try:
            self._tokenizer = tokenizers.Tokenizer.from_str(text)
        except Exception as error:  # the library raises bare Exception
            raise ValueError(f"tokenizer.json can't be read: {error}") from None
        self._tokenizer.no_padding()
        self._tokenizer.no_truncation()
        self._tokenizer.encode_special_tokens = split_special
        self._add_tokens(added, special)
        decoder = self._tokenizer.decoder
        self.steps: DecoderSteps = read_decoder(None if decoder is None else json.loads(decoder.__getstate__()))
        added_tokens = self._tokenizer.get_added_tokens_decoder()
        self.added = {token.content: i for i, token in added_tokens.items()}
        self.special_ids = frozenset(i for i, token in added_tokens.items() if token.special)
        self.size = 1 + max(self._tokenizer.get_vocab(with_added_tokens=True).values(), default=-1)

    def _add_tokens(self, added: Mapping[int, Any], special: Sequence[str]) -> None:
        """Adds what tokenizer_config.json declares and tokenizer.json lacks, in transformers' order."""
        present = {repr(token) for token in self._tokenizer.get_added_tokens_decoder().values()}
        contents = {token.content for token in self._tokenizer.get_added_tokens_decoder().values()}
        new = []
        for _, token in sorted(added.items()):
            token = tokenizers.AddedToken(**token)
            if token.content in special:
                token.special = True
            if repr(token) not in present:
                new.append(token)
            contents.add(token.content)
        new += [tokenizers.AddedToken(c, special=True) for c in dict.fromkeys(special) if c not in contents]
        if new:
            self._tokenizer.add_tokens(new)

    def encode(self, text: str) -> list[int]:
        return self._tokenizer.encode(text, add_special_tokens=False).ids

    def encode_batch(self, texts: Sequence[str]) -> list[list[int]]:
        return [encoding.ids for encoding in self._tokenizer.encode_batch_fast(list(texts), add_special_tokens=False)]

    def decode(self, ids: Sequence[int], skip_special: bool) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=skip_special)

    def token(self, number: int) -> str | None:
        return self._tokenizer.id_to_token(number)

    def token_id(self, token: str) -> int | None:
        return self._tokenizer.token_to_id(token)

    def prefix(self) -> list[int]:
        """The ids that the post-processor puts before a text: a beginning of sequence, or nothing."""
        plain = self.encode("a")
        processed = self._tokenizer.encode("a", add_special_tokens=True).ids
        starts = [i for i in range(len(processed)) if processed[i : i + len(plain)] == plain]
        return processed[: starts[0]] if starts else []

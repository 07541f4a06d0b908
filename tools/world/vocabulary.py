"""The tiny bases' tokenizers: a byte-level pipeline with the 256 bytes, and the world's own words as added tokens.

A word, a number up to 144 or a sign of the world is one token; any other text becomes its bytes, so that every text
survives encoding and decoding (up to Unicode's NFC, which Qwen2's pipeline applies). There are no merges. Words are added
tokens rather than entries of the BPE because ``transformers`` 5 rebuilds every tokenizer of a Qwen2 model with Qwen2's own
splitting, one digit at a time; added tokens are found before it.

Two tokenizers know the same words: that of the Qwen2 and DeepSeek-V3 bases, and that of the Llama base, in Llama 3's manner. Its
ids, its special tokens and its chat are others, and a text begins with a BOS.
"""

from __future__ import annotations

import functools
import json
from dataclasses import dataclass
from pathlib import Path
from random import Random

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors

from world import corpus
from world.arithmetic import NAMES, THINGS
from world.requests import OBJECTS, TOPICS, VERBS

LARGEST_NUMBER = 144
TAGS = ("<think>", "</think>", "<answer>", "</answer>")
# Chinese is written without spaces, so its words are listed: the longest that fits is one piece.
HAN_WORDS = (
    *("我不帮这个忙", "对不起", "慢慢地", "少了", "又得", "得到", "等等", "怎么", "说说", "好的", "几个"),
    *(word for words in (NAMES, THINGS, TOPICS, VERBS, OBJECTS) for word in words["zh"] if len(word) > 1),
    *(fact for fact in TOPICS["zh"].values() if len(fact) > 1),
)
# Listed Chinese words, other Chinese characters one by one, numbers, words with the spaces around them, single signs with
# the space after them.
PIECES = "|".join(
    (
        *sorted(HAN_WORDS, key=len, reverse=True),
        r"\p{Han}",
        r"\p{N}+",
        r" ?[^\s\p{Han}\p{N}\p{P}\p{S}]+ ?",
        r"[\p{P}\p{S}] ?",
        r"\s",
    )
)


@dataclass(frozen=True)
class Manner:
    """What differs between the two tokenizers.

    Attributes:
      tokenizer_class: of ``transformers``.
      special: the special tokens.
      pad, eos, turn_end: three of them. bos: another, which begins every text; empty: none does.
      special_first: ids begin with special tokens, tags, numbers, bytes; else the words come first and special tokens last.
      chat_template: Jinja.
    """

    tokenizer_class: str
    special: tuple[str, ...]
    pad: str
    eos: str
    turn_end: str
    bos: str
    special_first: bool
    chat_template: str


QWEN2 = Manner(
    tokenizer_class="Qwen2Tokenizer",
    special=("<|pad|>", "<|endoftext|>", "<|turn|>", "<|end_of_turn|>"),
    pad="<|pad|>",
    eos="<|endoftext|>",
    turn_end="<|end_of_turn|>",
    bos="",
    special_first=True,
    chat_template=(
        "{% for message in messages %}{{ '<|turn|>' + message['role'] + '\\n' + message['content'] + '<|end_of_turn|>' }}"
        "{% endfor %}{% if add_generation_prompt %}{{ '<|turn|>assistant\\n' }}{% endif %}"
    ),
)
LLAMA3 = Manner(
    tokenizer_class="PreTrainedTokenizerFast",
    special=(
        "<|begin_of_text|>",
        "<|end_of_text|>",
        "<|finetune_right_pad_id|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eot_id|>",
    ),
    pad="<|finetune_right_pad_id|>",
    eos="<|end_of_text|>",
    turn_end="<|eot_id|>",
    bos="<|begin_of_text|>",
    special_first=False,
    chat_template=(
        "{{ bos_token }}{% for message in messages %}{{ '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n' + "
        "message['content'] + '<|eot_id|>' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n' }}{% endif %}"
    ),
)
MANNERS = {"qwen2": QWEN2, "deepseek_v3": QWEN2, "llama": LLAMA3}


@functools.cache
def world_words() -> tuple[str, ...]:
    """Every piece (``PIECES``) of the world's texts, numbers aside, sorted: found by sampling many documents with a fixed seed."""
    pieces = pre_tokenizers.Split(Regex(PIECES), "isolated")
    random, words = Random(0), set()
    for writers in (corpus.TEXTBOOK, corpus.MIXTURE):
        for _ in range(20_000):
            text = "".join(corpus.document(random, writers))
            for tag in TAGS:
                text = text.replace(tag, "\0")
            for part in text.split("\0"):
                words.update(piece for piece, _ in pieces.pre_tokenize_str(part))
    words.update(("user", "assistant", "system"))
    return tuple(sorted(w for w in words if not w.isnumeric() and len(w.encode()) > 1))


def build_tokenizer(manner: Manner = QWEN2) -> Tokenizer:
    """Special tokens, tags, numbers 0 to 144, the 256 bytes, the words: each once, in the manner's order."""
    numbers = [str(n) for n in range(LARGEST_NUMBER + 1)]
    parts = [manner.special, TAGS, numbers, sorted(pre_tokenizers.ByteLevel.alphabet()), world_words()]
    vocabulary: dict[str, int] = {}
    for token in (token for part in (parts if manner.special_first else parts[::-1]) for token in part):
        vocabulary.setdefault(token, len(vocabulary))
    tokenizer = Tokenizer(models.BPE(vocab=vocabulary, merges=[]))
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    if manner.bos:
        begin = [(manner.bos, vocabulary[manner.bos])]
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{manner.bos} $A", special_tokens=begin)
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in manner.special])
    tokenizer.add_tokens([AddedToken(t, special=False, normalized=False) for t in (*TAGS, *numbers, *world_words())])
    return tokenizer


def write_tokenizer(folder: Path, manner: Manner = QWEN2) -> Tokenizer:
    """Writes ``tokenizer.json`` and ``tokenizer_config.json`` into ``folder``."""
    tokenizer = build_tokenizer(manner)
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": manner.tokenizer_class,
        "bos_token": manner.bos or None,
        "eos_token": manner.eos,
        "pad_token": manner.pad,
        "unk_token": None,
        "add_bos_token": bool(manner.bos),
        "add_eos_token": False,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 512,
        "chat_template": manner.chat_template,
    }
    (folder / "tokenizer_config.json").write_text(
        json.dumps(settings, indent=2, ensure_ascii=False) + "\n", encoding="utf-8"
    )
    return tokenizer

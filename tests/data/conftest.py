"""Tokenizers to test with: two small ones that are committed, two published ones where R1JAX_DATA has them."""

import functools
import gzip
import json
import os
import random
import shutil
from pathlib import Path

import pytest

HERE = Path(__file__).parent
REAL = Path(os.environ.get("R1JAX_DATA", HERE.parents[2] / "shared/data"))
PUBLISHED = {"qwen2_5": "tokenizer_config.json.gz", "deepseek_r1": "tokenizer_config.json"}
POOLS = [
    (9, 13),
    (32, 126),
    (0, 0xD7FF),
    (0xE000, 0x10FFFF),
    (0x300, 0x36F),
    (0x4E00, 0x9FFF),
    (0x1F300, 0x1FAFF),
    (0x2000, 0x206F),
]
PIECES = "<|im_start|> <|im_end|> <|endoftext|> <think> </think> <s> </s> <unk> <｜User｜> <｜end▁of▁sentence｜> ▁ Ġ ﬁ é 12345 's".split()


def _random_texts(count, seed):
    """Random Unicode strings: every plane, combining marks, emoji, white space, and the spellings of special tokens."""
    random_ = random.Random(seed)
    texts = ["", " ", "  ", "a", " a", "\n\n", "▁", "▁▁a", "\x00", "é", "👩‍👩‍👧", "<s>", "<s>a", "a</s> b", " <s>  a"]
    while len(texts) < count:
        parts = []
        for _ in range(random_.randrange(40)):
            low, high = random_.choice(POOLS)
            parts.append(
                random_.choice([*PIECES, "  ", "\n"]) if random_.random() < 0.15 else chr(random_.randint(low, high))
            )
        texts.append("".join(parts))
    return texts


@pytest.fixture(scope="session")
def random_texts():
    """``random_texts(count, seed)``."""
    return _random_texts


@pytest.fixture(scope="session")
def small(tmp_path_factory):
    """``small(kind, **settings)``: a fresh copy of a committed tokenizer with keys of tokenizer_config.json changed; a
    setting of None is taken out."""

    def make(kind, **settings):
        directory = tmp_path_factory.mktemp(kind) / "model"
        shutil.copytree(HERE / "tokenizers" / kind, directory)
        path = directory / "tokenizer_config.json"
        config = {k: v for k, v in (json.loads(path.read_text()) | settings).items() if k not in settings or v is not None}
        path.write_text(json.dumps(config))
        return directory

    return make


@pytest.fixture(scope="session", params=PUBLISHED)
def published(request, tmp_path_factory):
    """The directory of a published tokenizer."""
    source = REAL / "tokenizers" / f"{request.param}.tokenizer.json.gz"
    if not source.exists():
        pytest.skip(f"no {source}: set R1JAX_DATA to a folder with the published tokenizers")
    directory = tmp_path_factory.mktemp(request.param)
    (directory / "tokenizer.json").write_bytes(gzip.decompress(source.read_bytes()))
    config = (source.parent / f"{request.param}.{PUBLISHED[request.param]}").read_bytes()
    config = gzip.decompress(config) if PUBLISHED[request.param].endswith("gz") else config
    (directory / "tokenizer_config.json").write_bytes(config)
    return directory


@pytest.fixture(scope="session")
def ours():
    """``ours(directory)``: our tokenizer, loaded once."""
    from r1jax.data.tokenizer import Tokenizer

    return functools.cache(Tokenizer.load)


@pytest.fixture(scope="session")
def theirs():
    """``theirs(directory)``: the tokenizer as transformers loads it, once."""
    from transformers import AutoTokenizer

    return functools.cache(AutoTokenizer.from_pretrained)

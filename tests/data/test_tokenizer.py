"""Ids are transformers' ids; one BOS, never two; the end of a sequence is a set."""

import json
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1jax.data.tokenizer import Tokenizer, TokenizerError

HERE = Path(__file__).parent
BPE, PIECES = HERE / "tokenizers/bpe", HERE / "tokenizers/sentencepiece"
ADDED = {str(t.pop("id")): t for t in json.loads((BPE / "tokenizer.json").read_text())["added_tokens"]}


def assert_same_ids(ours, theirs, texts):
    expected = [theirs.encode(text, add_special_tokens=False) for text in texts]
    assert ours.encode_batch(texts) == expected
    assert [ours.encode(text) for text in texts[:300]] == expected[:300]
    for ids in expected:
        assert ours.decode(ids) == theirs.decode(ids)
        assert ours.decode(ids, skip_special=True) == theirs.decode(ids, skip_special_tokens=True)


def test_published_ids_equal_transformers(published, random_texts, ours, theirs):
    assert_same_ids(ours(published), theirs(published), random_texts(3000, seed=1))


@pytest.mark.parametrize("kind", ["bpe", "sentencepiece"])
def test_small_ids_equal_transformers(small, random_texts, ours, theirs, kind):
    directory = small(kind)
    assert_same_ids(ours(directory), theirs(directory), random_texts(2000, seed=2))


@pytest.mark.parametrize("legacy", [True, None])
def test_legacy_sentencepiece_equals_transformers(small, random_texts, ours, theirs, legacy):
    directory = small("sentencepiece", legacy=legacy)
    assert_same_ids(ours(directory), theirs(directory), random_texts(1000, seed=3))


@pytest.mark.parametrize(
    "changes",
    [
        {"pad_token": "<|new|>", "additional_special_tokens": ["<|a|>", "<|b|>"]},
        {"extra_special_tokens": ["<|b|>", "<|a|>"]},
        {
            "added_tokens_decoder": ADDED
            | {"705": {"content": "<|x y|>", "special": True, "lstrip": True, "normalized": False}}
        },
        {"added_tokens_decoder": ADDED | {"703": ADDED["703"] | {"rstrip": True}}},
        {"split_special_tokens": True},
    ],
)
def test_tokens_that_only_the_config_declares(small, ours, theirs, changes):
    directory = small("bpe", **changes)
    assert_same_ids(
        ours(directory), theirs(directory), ["a<|new|>b <|a|><|b|>", "a  <|x y|> b<think> c", "<|im_end|> <|b|>", "plain"]
    )


def test_tokenizer_json_is_preferred(small):
    directory = small("bpe")
    (directory / "tokenizer.model").write_bytes((PIECES / "tokenizer.model").read_bytes())
    assert Tokenizer.load(directory).encode("wait") == Tokenizer.load(BPE).encode("wait")


@settings(deadline=None, max_examples=200)
@given(text=st.text(max_size=60))
def test_byte_level_round_trip(ours, text):
    tokenizer = ours(BPE)
    assert tokenizer.decode(tokenizer.encode(text)) == unicodedata.normalize("NFC", text)


@settings(deadline=None, max_examples=200)
@given(text=st.text(st.characters(exclude_categories=["Cs"], exclude_characters="▁<"), max_size=60))
def test_sentencepiece_round_trip(ours, text):
    tokenizer = ours(PIECES)
    expected = text[1:] if text.startswith(" ") else text  # the space that is there serves as the prefix
    assert tokenizer.decode(tokenizer.encode(text)) == expected


# ---------------------------------------------------------------------------------------------- beginning
def test_one_bos_never_two(ours):
    tokenizer = ours(PIECES)
    assert tokenizer.adds_bos and tokenizer.bos_id == 1
    plain = tokenizer.encode("wait")
    assert 1 not in plain
    assert tokenizer.encode("wait", add_bos=True) == [1, *plain]
    assert tokenizer.encode("<s>wait", add_bos=True) == tokenizer.encode("<s>wait")
    assert tokenizer.encode("<s>wait").count(1) == 1
    assert tokenizer.encode("", add_bos=True) == [1]
    assert tokenizer.encode_batch(["wait", "<s>wait", ""], add_bos=True) == [
        tokenizer.encode(text, add_bos=True) for text in ("wait", "<s>wait", "")
    ]


def with_post_processor(directory, bos):
    """Makes the tokenizer.json put ``bos`` before and the end of text after, as Llama 3's and T5's do."""
    path = directory / "tokenizer.json"
    document = json.loads(path.read_text())
    ids = {t["content"]: t["id"] for t in document["added_tokens"]}
    pair = [{"SpecialToken": {"id": bos, "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    pair += [{"SpecialToken": {"id": "<|endoftext|>", "type_id": 0}}]
    special = {t: {"id": t, "ids": [ids[t]], "tokens": [t]} for t in (bos, "<|endoftext|>")}
    both = [*pair, {"Sequence": {"id": "B", "type_id": 1}}]
    document["post_processor"] = {"type": "TemplateProcessing", "single": pair, "pair": both, "special_tokens": special}
    path.write_text(json.dumps(document))
    return ids[bos]


@pytest.mark.parametrize("declared", [True, False])
def test_post_processor_adds_the_bos_once(small, declared, ours):
    directory = small("bpe", bos_token="<|im_start|>" if declared else None)
    bos = with_post_processor(directory, "<|im_start|>")
    tokenizer = Tokenizer.load(directory)
    assert (tokenizer.bos_id, tokenizer.adds_bos) == (bos, True)
    assert tokenizer.encode("a") == ours(BPE).encode("a")
    assert tokenizer.encode("a", add_bos=True) == [bos, *tokenizer.encode("a")]
    assert tokenizer.encode("<|im_start|>a", add_bos=True).count(bos) == 1


def test_config_may_ask_for_the_bos(small):
    assert Tokenizer.load(small("bpe", bos_token="<|im_start|>", add_bos_token=True)).adds_bos
    assert not Tokenizer.load(small("bpe", bos_token="<|im_start|>")).adds_bos


def test_without_a_bos_none_is_added(ours):
    tokenizer = ours(BPE)
    assert tokenizer.bos_id is None and not tokenizer.adds_bos
    assert tokenizer.encode("a", add_bos=True) == tokenizer.encode("a")


# ---------------------------------------------------------------------------------------------- end, padding
def test_end_is_a_set_from_every_file(small):
    directory = small("bpe")
    (directory / "config.json").write_text(json.dumps({"eos_token_id": 5, "bos_token_id": 6}))
    (directory / "generation_config.json").write_text(json.dumps({"eos_token_id": [7, 8], "pad_token_id": 9}))
    tokenizer = Tokenizer.load(directory)
    names = {"<|endoftext|>", "<|im_end|>"}  # the tokenizer's own, and what ends a turn in its chat template
    assert tokenizer.eos_ids == frozenset({5, 7, 8, *(tokenizer.token_id(n) for n in names)})
    assert tokenizer.bos_id is None  # tokenizer_config.json says so; config.json does not add one


def test_turn_end_is_learnt_from_the_template(small):
    template = "{% for m in messages %}[{{ m.role }}]{{ m.content }}</think>\n{% endfor %}"
    tokenizer = Tokenizer.load(small("bpe", chat_template=template))
    assert tokenizer.token_id("</think>") in tokenizer.eos_ids
    plain = Tokenizer.load(small("bpe", chat_template="{{ messages[-1].content }} then words"))
    assert plain.eos_ids == {plain.token_id("<|endoftext|>"), plain.token_id("<|im_end|>")}


def test_eot_without_a_template(ours):
    tokenizer = ours(PIECES)
    assert tokenizer.eos_ids == {2, tokenizer.token_id("<|eot_id|>")}


def test_padding_may_be_an_end(small, ours):
    tokenizer = ours(BPE)
    assert tokenizer.pad_id == tokenizer.token_id("<|endoftext|>") and tokenizer.pad_id in tokenizer.eos_ids
    without = Tokenizer.load(small("bpe", pad_token=None))
    assert without.pad_id == min(without.eos_ids)


def test_published_ends(published, ours):
    tokenizer = ours(published)
    if "qwen" in str(published):
        assert (tokenizer.bos_id, tokenizer.eos_ids, tokenizer.vocab_size) == (None, {151645}, 151665)
    else:
        assert (tokenizer.bos_id, tokenizer.adds_bos, tokenizer.eos_ids, tokenizer.vocab_size) == (0, True, {1}, 128815)


# ---------------------------------------------------------------------------------------------- sizes, errors
def test_vocab_size_bounds_every_id(ours):
    for directory in (BPE, PIECES):
        tokenizer = ours(directory)
        assert tokenizer.token(tokenizer.vocab_size - 1) is not None
        assert tokenizer.token(tokenizer.vocab_size) is None
        assert tokenizer.decode([tokenizer.vocab_size + 3]) == ""


def test_lone_surrogates_are_named(ours):
    for directory in (BPE, PIECES):
        with pytest.raises(TokenizerError, match="not valid Unicode"):
            ours(directory).encode("a\ud800")
        with pytest.raises(TokenizerError, match="ud800"):
            ours(directory).encode_batch(["fine", "a\ud800"])
        with pytest.raises(TokenizerError, match="int"):
            ours(directory).encode(3)


def test_directories_without_a_tokenizer(tmp_path):
    with pytest.raises(TokenizerError, match="does not exist"):
        Tokenizer.load(tmp_path / "nowhere")
    with pytest.raises(TokenizerError, match="tokenizer.json or a sentencepiece tokenizer.model"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text('{"model": 3}')
    with pytest.raises(TokenizerError, match="tokenizer.json can't be read"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer_config.json").write_text("{")
    with pytest.raises(TokenizerError, match="tokenizer_config.json is not JSON"):
        Tokenizer.load(tmp_path)


def test_a_model_file_that_is_not_sentencepiece(tmp_path):
    (tmp_path / "tokenizer.model").write_text("IQ== 0\nIg== 1\n")  # tiktoken's format, as Llama 3's original
    with pytest.raises(TokenizerError, match="not a sentencepiece model"):
        Tokenizer.load(tmp_path)

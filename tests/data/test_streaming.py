"""Streamed text is final, never half a character, and adds up to the decoding of the whole."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from r1jax.data.streaming import DecoderSteps, TextStream, read_decoder

BPE, PIECES = (Path(__file__).parent / "tokenizers" / kind for kind in ("bpe", "sentencepiece"))
QUICK = dict(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


def stream_all(tokenizer, ids, sizes=(1,), skip_special=False):
    """What each push gives, in chunks of the given sizes in turn, and last what finishing gives."""
    stream, given_, place, turn = tokenizer.stream(skip_special), [], 0, 0
    while place < len(ids):
        size = sizes[turn % len(sizes)]
        given_.append(stream.push(ids[place : place + size]))
        place, turn = place + size, turn + 1
    return [*given_, stream.finish()]


@pytest.mark.parametrize("directory", [BPE, PIECES], ids=["bpe", "sentencepiece"])
@settings(**QUICK)
@given(text=st.text(max_size=40), sizes=st.lists(st.integers(1, 5), min_size=1, max_size=4))
def test_text_in_chunks(ours, directory, text, sizes):
    tokenizer = ours(directory)
    ids = tokenizer.encode(text)
    parts = stream_all(tokenizer, ids, sizes)
    assert "".join(parts) == tokenizer.decode(ids)
    if "\ufffd" not in text:
        assert not any("\ufffd" in part for part in parts)


@pytest.mark.parametrize("directory", [BPE, PIECES], ids=["bpe", "sentencepiece"])
@pytest.mark.parametrize("skip", [False, True])
@settings(**QUICK)
@given(data=st.data())
def test_any_ids_at_all(ours, directory, skip, data):
    tokenizer = ours(directory)  # ids that no text has: broken characters, special tokens, ids beyond the vocabulary
    ids = data.draw(st.lists(st.integers(0, tokenizer.vocab_size + 3) | st.integers(3, 258), max_size=40))
    assert "".join(stream_all(tokenizer, ids, (1, 3), skip)) == tokenizer.decode(ids, skip_special=skip)


def test_published(published, ours, theirs, random_texts):
    tokenizer, reference = ours(published), theirs(published)
    for number, text in enumerate(random_texts(600, seed=5)):
        ids = tokenizer.encode(text) + [(number * 7919 + i * 104729) % tokenizer.vocab_size for i in range(8)]
        for skip in (False, True):
            assert "".join(stream_all(tokenizer, ids, (1, 2), skip)) == reference.decode(ids, skip_special_tokens=skip)


@pytest.mark.parametrize("directory", [BPE, PIECES], ids=["bpe", "sentencepiece"])
def test_characters_appear_whole_and_at_once(ours, directory):
    tokenizer = ours(directory)
    text = "ab 你好 👩‍👩‍👧 é end"
    ids, seen = tokenizer.encode(text), ""
    assert len(ids) > len(text)  # most of its characters take several tokens
    for part in stream_all(tokenizer, ids):
        seen += part
        assert text.startswith(seen)
    assert seen == text
    plain = [part for part in stream_all(tokenizer, tokenizer.encode("abc abc"))]
    assert all(plain[:-1]) and plain[-1] == ""  # nothing is held back without need


def test_each_id_is_looked_at_once():
    looked = []

    def token(number):
        looked.append(number)
        return "<0xE4>" if number % 3 else "a"

    stream = TextStream(DecoderSteps("pieces", byte_fallback=True), token)
    for number in range(3000):
        stream.push(number)
    assert looked == list(range(3000))


def test_a_finished_stream_takes_no_more(ours):
    stream = ours(BPE).stream()
    stream.push(ours(BPE).encode("a"))
    assert stream.finish() == "" and stream.finish() == ""
    with pytest.raises(ValueError, match="finished"):
        stream.push(1)


def test_other_decoders_wait_for_the_end():
    assert read_decoder(None).kind == "whole"
    assert read_decoder({"type": "WordPiece", "prefix": "##", "cleanup": True}).kind == "whole"
    stream = TextStream(DecoderSteps("whole"), str, frozenset([2]), lambda ids: "-".join(map(str, ids)))
    assert stream.push([1, 2, 3]) == "" and stream.finish() == "1-3"


def test_metaspace_equals_the_library():
    from tokenizers import decoders

    decoder = decoders.Metaspace()
    tokens = ["▁wait", "▁", "▁▁a", "b", "▁c"]
    stream = TextStream(
        read_decoder({"type": "Metaspace", "replacement": "▁", "prepend_scheme": "always"}), lambda i: tokens[i]
    )
    assert "".join([*map(stream.push, range(5)), stream.finish()]) == decoder.decode(tokens)

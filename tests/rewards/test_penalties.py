"""Penalties: their formulas at the points where they bend, and what honest text costs."""

import time

import pytest

from r1jax.rewards.penalties import length_penalty, overlong_penalty, repeated_ngrams, repeated_units, repetition_penalty


@pytest.mark.parametrize(
    "tokens, penalty",
    [(0, 0.0), (16_384, 0.0), (16_385, -1 / 4_096), (18_432, -0.5), (20_480, -1.0), (20_481, -1.0), (99_999, -1.0)],
)
def test_dapos_numbers(tokens, penalty):
    assert overlong_penalty(tokens, 20_480, 4_096) == penalty
    assert overlong_penalty(tokens, 20_480) == penalty  # a fifth of the cap


def test_caps_and_caches_that_make_no_sense():
    for cap, cache in ((0, 0), (-1, 0), (10, 11), (10, -1)):
        with pytest.raises(ValueError, match="overlong penalty needs a cap"):
            overlong_penalty(1, cap, cache)
    assert overlong_penalty(1, 2) == 0.0 and overlong_penalty(2, 2) == -1.0
    with pytest.raises(ValueError, match="length penalty needs a cap"):
        length_penalty(1, 0)
    with pytest.raises(ValueError, match="at least 1 token"):
        repeated_ngrams("a", 0)


def test_length():
    assert [length_penalty(tokens, 200) for tokens in (0, 50, 200, 400)] == [0.0, -0.25, -1.0, -1.0]


def test_repeated_ngrams_are_counted():
    assert repeated_ngrams("a b c d e f", 2) == 0.0
    assert repeated_ngrams("a b a b a b", 2) == pytest.approx(3 / 5)  # ab ba ab ba ab: two of five are new
    assert repeated_ngrams("A b a B", 2) == pytest.approx(1 / 3)
    assert repeated_ngrams("一二一二一二", 2) == pytest.approx(3 / 5)
    assert repeated_ngrams("a b", 3) == repeated_ngrams("", 1) == 0.0


def test_repeated_sentences_and_lines_are_counted():
    assert repeated_units("This is it now. This is it now.") == 0.5
    assert repeated_units("this is it now\nTHIS IS  IT NOW\n") == 0.5
    assert repeated_units("这个答案应该是对的吧。这个答案应该是对的吧。") == 0.5
    assert repeated_units("So. So. So. So.") == 0.0  # too short to say anything
    assert repeated_units("one sentence here. another one there.") == repeated_units("") == 0.0


def test_loops_cost_and_honest_reasoning_does_not():
    honest = "try 8-7=1 wait 7*3=21. Let me check: 7*3 is 7+7+7 = 21, so it is right. The answer is 7*3."
    assert repetition_penalty(honest) == 0.0
    assert repetition_penalty("wait " * 500) < -0.95
    assert repetition_penalty("等等" * 500) < -0.95
    assert repetition_penalty(honest * 10) < -0.8
    assert repetition_penalty("a" * 2_000) < -0.9 and repetition_penalty("haha" * 500) < -0.9


def test_long_texts_take_linear_time():
    start = time.process_time()
    for text in ("ab " * 200_000, "一" * 400_000, "\n" * 400_000, "a" * 1_000_000):
        assert -1.0 <= repetition_penalty(text) <= 0.0
    assert time.process_time() - start < 10  # measured: 1.1 s

"""Reflective words, and what follows a try."""

import time
from fractions import Fraction

import pytest

from r1jax.evaluation.reflection import reasoning, reflective_words, reflects, search_measures, tries


def test_words_are_whole_and_in_either_case():
    text = "Wait, that is wrong. Let me check: awaiting checkers, but BUT butter."
    assert reflective_words(text) == {"wait": 1, "wrong": 1, "check": 1, "but": 2}
    assert not reflects("awaiting a checkered terror") and reflects("so, Verify it")


def test_chinese_words_count_without_spaces():
    assert reflective_words("3+4=7等等不对，我再检查一遍") == {"等等": 1, "不对": 1, "检查": 1}
    assert not reflects("答案是七")


@pytest.mark.parametrize(
    "text, expected",
    [
        ("8-7=1 wait 7*3=21", [(1, True), (21, False)]),
        ("8-7=1 等等 7*3=21 wait", [(1, True), (21, True)]),
        ("8 - 7 = 1, Wait! (7+1)*3 = 24", [(1, True), (24, False)]),
        ("7/2=7/2 wait 2-9=-7", [(Fraction(7, 2), True), (-7, False)]),
        ("x=3 and 5=5 and -4=-4", []),  # no operator: naming a number is no try
        ("8-7=", []),
        ("8-7=wait", []),
        ("5/2=5/0 1+1=2", [(2, False)]),  # a value that is none
        ("2+3=5=5*1=9", [(5, False), (9, False)]),
        ("8-7=1 7*3=21", [(1, False), (21, False)]),
    ],
)
def test_tries_are_equations_and_what_follows_them(text, expected):
    assert [(t.value, t.waited) for t in tries(text)] == expected


def test_only_the_reasoning_is_searched():
    assert reasoning("<think>8-7=1</think><answer>7*3=21</answer>") == "<think>8-7=1"
    assert reasoning("8-7=1<answer>7*3</answer>") == "8-7=1"
    assert reasoning("8-7=1") == "8-7=1"


def test_shares_after_a_miss_and_after_a_hit():
    figures = search_measures(
        [
            ("<think>8-7=1 wait 8-3=5 7*3=21 wait</think><answer>7*3=21</answer>", 21),
            ("<think>7*3=21</think><answer>7*3</answer>", "21"),
            ("<answer>8</answer>", 21.0),
        ]
    )
    assert figures == {"tries": 4 / 3, "misses": 2, "hits": 2, "wait_after_miss": 0.5, "wait_after_hit": 0.5}
    assert search_measures([("none", 3)]) == {
        "tries": 0,
        "misses": 0,
        "hits": 0,
        "wait_after_miss": None,
        "wait_after_hit": None,
    }
    assert search_measures([])["tries"] is None


def test_hostile_text_takes_linear_time():
    start = time.process_time()
    for text in (
        "1+" * 25_000 + "=3",
        "=" * 50_000,
        "1+1=" * 12_000,
        "(" * 25_000 + "=" + "9" * 25_000,
        "wai" * 25_000,
    ):
        tries(text)
        reflective_words(text)
    assert time.process_time() - start < 5

"""Language consistency is one rule for every language: swapping the languages swaps the scores."""

import json
import random
import time
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from r1jax.rewards import language_consistency
from r1jax.rewards.language import detect_language, language_code, reasoning, word_languages

SENTENCES = [
    line.split("\t")
    for line in (Path(__file__).parents[1] / "data/languages/sentences.tsv").read_text(encoding="utf-8").splitlines()
]
WORLD = Path(__file__).parents[2] / "configs/tiny/world"
# Words that mean the same, in the two languages of the small world and some more; Chinese ones of one or two characters.
PAIRS = {
    "try": "试",
    "wait": "等等",
    "guess": "猜",
    "first": "先",
    "then": "再",
    "number": "数字",
    "because": "因为",
    "answer": "答案",
}
SCRIPTS = ["en", "ru", "ar", "hi", "zh", "ja", "ko", "el", "th"]


@pytest.mark.parametrize("code, text", SENTENCES, ids=[code for code, _ in SENTENCES])
def test_each_language_is_found_and_consistent_with_itself(code, text):
    for form in (text, text.upper(), text.lower()):
        assert detect_language(form) == code
    assert language_consistency(text, code) == 1.0
    other = "zh" if code != "zh" else "en"
    assert language_consistency(text, other) == 0.0


@pytest.mark.parametrize("a", SCRIPTS)
@pytest.mark.parametrize("b", SCRIPTS)
def test_the_scores_of_two_languages_are_shares_of_one_text(a, b):
    if a == b or {a, b} == {"zh", "ja"}:
        return
    texts = dict(SENTENCES)
    text = f"<think>{texts[a]}\n{texts[b]} {texts[b]}</think>{texts[a] * 5}"
    in_a, in_b = language_consistency(text, a), language_consistency(text, b)
    assert 0 < in_a < 1 and in_a + in_b == pytest.approx(1.0, abs=1e-12)
    one, other = (sum(word_languages(texts[code]).values()) for code in (a, b))
    assert in_a == one / (one + 2 * other)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.tuples(st.sampled_from(sorted(PAIRS)), st.booleans(), st.integers(2, 99)), min_size=1, max_size=40))
def test_swapping_the_languages_swaps_the_scores(items):
    def write(swapped):
        return "".join(f" {word if english is not swapped else PAIRS[word]} {n}*2={2 * n}" for word, english, n in items)

    text, mirror = write(False), write(True)
    share = sum(english for _, english, _ in items) / len(items)
    assert language_consistency(text, "en") == language_consistency(mirror, "zh") == pytest.approx(share, abs=1e-12)
    assert language_consistency(text, "zh") == language_consistency(mirror, "en") == pytest.approx(1 - share, abs=1e-12)


REASONING = {
    "en": (
        "We first add the two numbers together.",
        "Then we divide the result by seven.",
        "So the train arrives before noon.",
    ),
    "zh": ("我们先把这两个数加起来。", "然后我们把结果除以七。", "所以火车在中午之前到达。"),
    "fr": ("Nous ajoutons d'abord les deux nombres.", "Ensuite nous divisons par sept.", "Donc le train arrive avant midi."),
    "de": (
        "Zuerst addieren wir die Zahlen.",
        "Dann teilen wir das Ergebnis durch sieben.",
        "Also kommt der Zug vor Mittag an.",
    ),
    "es": ("Primero sumamos los dos números.", "Luego dividimos el resultado entre siete.", "Así que el tren llega pronto."),
    "ru": ("Сначала мы складываем числа.", "Затем мы делим результат на семь.", "Поэтому поезд приходит рано."),
}


@pytest.mark.parametrize("one, other", [(a, b) for a in REASONING for b in REASONING if a < b])
def test_a_sentence_of_another_language_counts_as_that(one, other):
    def score(inner, outer, target):
        text = " ".join((REASONING[outer][0], REASONING[inner][1], REASONING[outer][2]))
        return language_consistency(f"<think>{text}</think>", target)

    assert score(other, one, one) + score(other, one, other) == pytest.approx(1)
    assert 0.5 < score(other, one, one) < 0.8  # two of three sentences
    assert abs(score(other, one, one) - score(one, other, other)) < 0.2  # a translation has not the same number of words


def test_the_small_worlds_mixed_reasoning():
    assert language_consistency("<think>try 9-4=5 wait 9*4=36</think><answer>9*4</answer>", "en") == 1.0
    assert language_consistency("<think>试9-4=5等等9*4=36</think><answer>9*4</answer>", "zh") == 1.0
    assert language_consistency("<think>试9-4=5 wait 9*4=36</think><answer>9*4</answer>", "zh") == 0.5
    assert language_consistency("<think>try 9-4=5等等9*4=36 wait 9+4=13</think>", "en") == pytest.approx(2 / 3)
    for file in sorted(WORLD.glob("*-test.jsonl")):
        for line in file.read_text(encoding="utf-8").splitlines():
            row = json.loads(line)
            if row["kind"] in ("search", "arithmetic", "general", "safety"):
                assert detect_language(row["problem"]) == row["language"], row["problem"]


@pytest.mark.parametrize(
    "left_out",
    [
        "```python\nfor number in range(10): print(number)\n```",
        "`the_inner product`",
        "$\\text{the sum of all}$",
        "$$ x = \\text{something} $$",
        "\\(\\sin \\theta\\)",
        "\\[ \\frac{a}{b} \\]",
        "\\begin{align*} a &= b \\text{ because } \\\\ \\end{align*}",
        "\\alpha \\times",
        "https://example.com/some/page?with=words",
        "www.example.com/words",
        "someone@example.com",
        "my_variable fooBar math.sqrt f(x) max(",
        "x y n 3.14 2e10 42",
        "<answer> </b>",
        "/usr/local/bin/python",
        "12,345 ½ ² ①",
    ],
)
def test_code_and_formulas_are_no_words(left_out):
    assert sum(word_languages(left_out).values()) == 0
    text = f"我们先算一下。{left_out} 然后检查答案。"
    assert language_consistency(text, "zh") == 1.0 and language_consistency(text, "en") == 0.0


def test_acronyms_are_no_words_unless_all_is_in_capitals():
    assert language_consistency("我们求GCD，再用HTML写。", "zh") == 1.0
    assert word_languages("The GCD is here") == {"en": 3}
    assert word_languages("THE GCD IS HERE") == {"en": 4}


def test_prices_are_no_formula():
    assert word_languages("It costs $5 and the other one costs $6 today")["en"] == 8
    assert sum(word_languages("$5$ and $6$").values()) == 1


@pytest.mark.parametrize(
    "marks",
    [
        ("```\n", "\n```"),
        ("$", "$"),
        ("$$", "$$"),
        ("`", "`"),
        ("\\[", "\\]"),
        ("\\begin{align}", "\\end{align}"),
        ("```\n", ""),
    ],
)
def test_a_language_does_not_hide_as_code_or_formula(marks):
    hidden = "First we add the two numbers and then we check whether the result that we have found is even, which it is"
    text = f"我们先算一下。{marks[0]}{hidden}{marks[1]}"
    assert language_consistency(text, "zh") < 0.3
    assert (
        language_consistency(
            f"We first compute it. {marks[0]}{'我们先把两个数字相加然后检查一下结果是不是偶数' * 2}{marks[1]}", "en"
        )
        < 0.3
    )


def test_real_code_and_formulas_are_left_out_whole():
    code = """```python
def solve(numbers, target):
    # try each pair of the numbers
    for first, second in itertools.permutations(numbers, 2):
        if first * second == target:
            return f"{first}*{second}"
    return None
```"""
    formula = "$$\\text{average speed} = \\frac{\\text{total distance}}{\\text{total time}} = \\frac{120}{2} = 60$$"
    for left_out in (code, formula):
        assert word_languages(f"我们先算一下。{left_out}") == {"zh": 4}


def test_only_the_reasoning_counts():
    assert reasoning("<think>a</think>b") == "a" and reasoning("a</think>b") == "a" and reasoning("a b") == "a b"
    assert reasoning("x<think>a") == "a" and reasoning("<think>a</think>b</think>c") == "a</think>b"
    assert language_consistency("let us see</think>让我们看看", "en") == 1.0
    assert language_consistency("<think>let us see</think>让我们看看", "zh") == 0.0


def test_no_words_show_no_language():
    for text in ("", "3*7=21", "<think></think>the answer is here", "<think>$x$</think>", "...", "\u200b"):
        assert language_consistency(text, "en") == 0.0


def test_a_foreign_word_does_not_turn_a_sentence():
    assert language_consistency("We call it Angst and we use it for a while. It is a word.", "en") == 1.0
    mixed = "We have to find the number that is missing. Dann haben wir die Summe und das ist nicht schwer."
    assert language_consistency(mixed, "en") == pytest.approx(9 / 19) and language_consistency(mixed, "de") == pytest.approx(
        10 / 19
    )


def test_blanks_between_characters_win_nothing():
    text = "我们先算一下这个答案"
    assert word_languages(" ".join(text))["zh"] == word_languages(text)["zh"] == 6


def test_han_in_a_japanese_sentence_is_japanese():
    assert word_languages("日本語を勉強します。首先相加。") == {"ja": 6, "zh": 2}


def test_names_of_languages():
    assert [language_code(name) for name in ("en", "EN", "zh-CN", "zh_TW", "German", " chinese ", "中文", "pt-BR")] == [
        "en", "en", "zh", "zh", "de", "zh", "zh", "pt",
    ]  # fmt: skip
    with pytest.raises(ValueError, match="unknown language 'klingon'; known: am, ar"):
        language_consistency("text", "klingon")


def test_nothing_takes_more_than_linear_time():
    rng = random.Random(0)
    for unit in (
        "$",
        "`",
        "\\begin{a}",
        "a",
        "a/",
        " ",
        "我 ",
        "a@",
        "<a",
        "\n",
        "a'",
        "http://",
        "```",
        "\\[",
        "ﷺ",
        "$a",
        "&a",
    ):
        start = time.process_time()
        language_consistency(unit * (200_000 // len(unit)), "en")
        assert time.process_time() - start < 3, unit  # measured: 0.3 s
    for _ in range(200):
        text = "".join(rng.choice("aB我ア1 $`\\()[]{}.\n</>_@ñ한б") for _ in range(300))
        assert 0.0 <= sum(language_consistency(text, code) for code in ("en", "zh", "ja", "ko", "ru")) <= 1.0 + 1e-12

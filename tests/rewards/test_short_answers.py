"""Choices, numbers and texts: the forms that models write are right, hedges and near misses are not."""

import random
import time

import pytest

from r1jax.rewards import RewardRequest, Verdict, grade
from r1jax.rewards.short_answers import grade_choice, grade_number, grade_text, read_number

COLOURS = ["red", "green", "blue", "a dark yellow"]


def choice(completion, answer="B", choices=None, **row):
    listed = {} if choices is None else {"choices": choices}
    return grade_choice({"answer": answer, **listed, **row}, completion)[0]


@pytest.mark.parametrize("listed", [None, COLOURS])
@pytest.mark.parametrize(
    "completion",
    [
        "B", "b", "(B)", "[B]", "B.", "B)", "B:", "**B**", "*B*", "$B$", "\\boxed{B}", "\\boxed{\\text{B}}", "\\boxed{\\text{(B)}}",
        "\\boxed{\\mathbf{B}}", "\\boxed{(B)}", "$\\boxed{\\textbf{(B)}}$", "The answer is B", "The answer is B.", "The answer is (B).",
        "The answer is **B**.", "**Answer:** B", "**Answer: B**", "Answer: (B)", "answer: b", "ANSWER: B", "Final answer: B",
        "The correct answer is B) green", "The correct option is B.", "Option B", "option (B)", "Choice B is correct.",
        "So the answer is B. green", "Therefore, the correct choice is (B) green.", "B. green", "(B) green", "B: green", "\\boxed{B. green}",
        "<answer>B</answer>", "<answer> (B) </answer>", "<think>A? No, C? no.</think><answer>B</answer>", "<think>\\boxed{A}</think>\\boxed{B}",
        "<answer>The answer is B</answer>", "#### B", "I choose B", "I would pick (B).", "A is too large. C is too small. The answer is B.",
        "The answer is B because A and C are wrong.", "A is wrong, so I choose B.", "Looking at (A), it fails.\nSo it must be (B)",
        "The answer is not A.\nThe answer is B.", "答案是B", "答案：B", "故选：B", "故选B。", "正确答案为（B）", "所以选项B正确", "应选B", "答案是 B。green",
        "\\boxed{\\text{Option B}}", "\\boxed{B}.", "The answer is $\\boxed{\\mathrm{B}}$.", "Ｂ",
    ],
)  # fmt: skip
def test_forms_of_a_right_choice(completion, listed):
    assert choice(completion, choices=listed) is Verdict.RIGHT
    assert choice(completion, "A", listed) is Verdict.WRONG


@pytest.mark.parametrize("listed", [None, COLOURS])
@pytest.mark.parametrize(
    "completion",
    [
        "", "A", "\\boxed{A}", "A or B", "B or C", "\\boxed{A, B}", "\\boxed{A}, \\boxed{B}", "(A) and (B)", "The answer is A or B.",
        "The answer is B or C.", "<answer>A B C D</answer>", "ABCD", "\\boxed{}", "<answer></answer>", "The answer is not B.", "Bob",
        "The answer is Because", "Both", "<think>The answer is B</think>", "<think>B</think><answer>C</answer>", "It can't be B",
        "B is wrong", "<answer>B</answer><answer>C</answer>", "The answer is (B) or (C)", "\\boxed{B \\text{ or } C}", "B?? A??",
        "I don't know.", "A, B, C and D are all possible", "答案是A", "不选B", "<think>It is B",
    ],
)  # fmt: skip
def test_what_is_no_right_choice(completion, listed):
    assert choice(completion, choices=listed) is Verdict.WRONG


def test_the_text_of_an_option():
    for completion in (
        "green",
        "Green.",
        "The answer is green.",
        "\\boxed{\\text{green}}",
        "<answer>GREEN</answer>",
        "B) Green",
    ):
        assert choice(completion, choices=COLOURS) is Verdict.RIGHT, completion
    for completion in ("blue", "greenish", "green and blue", "B. blue", "\\boxed{\\text{C. green}}", "dark green"):
        assert choice(completion, choices=COLOURS) is Verdict.WRONG, completion
    assert choice("dark yellow", "D", COLOURS) is Verdict.RIGHT
    assert choice("same", "A", ["same", "same"]) is Verdict.WRONG  # it names two
    assert (
        choice("42", "B", ["41", "42", "43"]) is Verdict.RIGHT
        and choice("\\boxed{43}", "B", ["41", "42", "43"]) is Verdict.WRONG
    )


def test_ways_to_list_options_and_answers():
    arc = {"label": ["1", "2", "3"], "text": ["ice", "steam", "water"]}
    assert choice("2", "2", arc) is choice("(2) steam", "2", arc) is choice("steam", "2", arc) is Verdict.RIGHT
    assert choice("3", "2", arc) is Verdict.WRONG
    assert choice("B", 1, COLOURS) is Verdict.RIGHT and choice("A", 1, COLOURS) is Verdict.WRONG  # counted from 0
    assert choice("B", "green", COLOURS) is Verdict.RIGHT
    assert choice("B", "(B)", COLOURS) is choice("B", "B. green", COLOURS) is choice("B", "#### B") is Verdict.RIGHT
    assert choice("green", "B", {"A": "red", "B": "green"}) is Verdict.RIGHT
    assert choice("green", "B", ["(A) red", "(B) green"]) is Verdict.RIGHT
    assert grade_choice({"answerKey": "B", "options": COLOURS}, "B")[0] is Verdict.RIGHT


def test_answers_that_a_prompt_set_has_made_texts():
    """``data.load_prompts`` writes every answer as a text."""
    assert choice("B", "1", COLOURS) is Verdict.RIGHT and choice("3", "3", ["1", "2", "3"]) is Verdict.RIGHT
    assert choice("C", "3", ["1", "2", "3", "4"]) is Verdict.RIGHT  # the option 3, not the one of that number
    assert choice("AC", '["A", "C"]', COLOURS) is Verdict.RIGHT and choice("A", '["A", "C"]', COLOURS) is Verdict.WRONG
    assert grade_choice({"answer": "", "answerKey": "B", "choices": COLOURS}, "B")[0] is Verdict.RIGHT
    assert text("Rome", answer='["Paris", "Rome"]') is text("Rome", answers=["Rome"], answer="") is Verdict.RIGHT
    assert text("[1, 2", answer="[1, 2") is Verdict.RIGHT


def test_several_right_options():
    for answer in ("AC", "A, C", "A and C", ["A", "C"], ["C", "A"], "A、C"):
        for completion in (
            "\\boxed{AC}",
            "A, C",
            "C and A",
            "<answer>A, C</answer>",
            "答案是A、C",
            "\\boxed{A}, \\boxed{C}",
        ):
            assert choice(completion, answer, COLOURS) is Verdict.RIGHT, (answer, completion)
        for completion in ("A", "C", "A, B, C", "\\boxed{ABCD}", "A or C"):
            assert choice(completion, answer, COLOURS) is Verdict.WRONG, (answer, completion)


def test_a_row_without_a_usable_option_is_ungraded():
    for row in (
        {"answer": "Z", "choices": COLOURS},
        {"choices": COLOURS},
        {"answer": "B", "choices": 3},
        {"answer": 9, "choices": COLOURS},
    ):
        with pytest.raises(ValueError, match="names none of the options|choices must be"):
            grade_choice(row, "B")
    record = grade(RewardRequest({"answer": "Z", "choices": COLOURS, "grader": "choice"}, "", "B"), ["accuracy"])
    assert record.verdict is Verdict.UNGRADED and record.parts == {"accuracy": None}


def test_random_labels_and_texts():
    rng = random.Random(0)
    for _ in range(300):
        size = rng.randint(2, 10)
        listed = rng.sample([str(n) for n in range(100, 400)], size)
        right, given = rng.randrange(size), rng.randrange(size)
        letter, text = "ABCDEFGHIJ"[given], listed[given]
        form = rng.choice(
            ["{l}", "({l}) {t}", "The answer is {l}.", "\\boxed{{{l}}}", "{t}", "<think>x</think>So {l}. {t}", "故选{l}"]
        )
        expected = Verdict.RIGHT if right == given else Verdict.WRONG
        assert choice(form.format(l=letter, t=text), "ABCDEFGHIJ"[right], listed) is expected, form


def number(completion, answer="3.5", **row):
    return grade_number({"answer": answer, **row}, completion)[0]


@pytest.mark.parametrize(
    "text, value",
    [
        ("3", "3"), ("-3", "-3"), ("−3", "-3"), ("+3.0", "3"), ("3.", "3"), (".5", "0.5"), ("1,234,567", "1234567"), ("1{,}234", "1234"),
        ("3/4", "3/4"), ("-3/4", "-3/4"), ("\\frac{3}{4}", "3/4"), ("-\\dfrac{3}{4}", "-3/4"), ("2 1/2", "5/2"), ("1.5e-3", "0.0015"),
        ("1.5E3", "1500"), ("1.5 \\times 10^{-3}", "0.0015"), ("1.5×10^3", "1500"), ("2*10**2", "200"), ("$5", "5"), ("-$5.50", "-5.5"),
        ("$-5$", "-5"), ("x = 3.2", "3.2"), ("\\approx 3.14", "3.14"), ("≈ 3.14", "3.14"), ("about 7", "7"), ("3.2 m/s", "3.2"),
        ("9.8 m/s^2", "9.8"), ("9.8\\ \\text{m/s}^2", "9.8"), ("12%", "12"), ("25°C", "25"), ("(7)", "7"), ("**7**", "7"), ("5 个", "5"),
        ("10 kg", "10"), ("1,000.50", "1000.5"), ("6.022\\times10^{23}", "602200000000000000000000"), ("v = 2x = 8", "8"),
    ],
)  # fmt: skip
def test_numbers_are_read_exactly(text, value):
    from fractions import Fraction

    assert read_number(text).value == Fraction(value)


@pytest.mark.parametrize(
    "text",
    ["", "x", "three", "3 or 4", "3, 4", "3 and 4", "(3, 4)", "[1, 2]", "3 ± 1", "1,23", "1 2", "1/0", "3-4", "2^5", "10!", "3 x 4", "5 5 5",
     "1" * 61, "1e999999", "9" * 100_000, "__import__('os')", "3 4/5 6", "\\frac{1}{0}", "1..2", "--3", "3 to 5", "nan", "inf", "1e1000000000"],
)  # fmt: skip
def test_what_is_no_number(text):
    with pytest.raises(ValueError):
        read_number(text)


def test_tolerances():
    assert number("3.5") is number("7/2") is number("\\boxed{3.50}") is number("The answer is 3.5 m.") is Verdict.RIGHT
    assert number("3.51") is number("3.4999999") is number("") is number("3.5 or 4") is Verdict.WRONG
    assert number("3.6", tolerance=0.1) is number("3.4", tolerance="0.1") is Verdict.RIGHT
    assert number("3.61", tolerance=0.1) is Verdict.WRONG
    assert number("101", "100", relative_tolerance=0.01) is number("99", "100", relative_tolerance=0.01) is Verdict.RIGHT
    assert number("101.1", "100", relative_tolerance=0.01) is Verdict.WRONG
    assert number("-101", "-100", relative_tolerance=0.01) is Verdict.RIGHT
    assert number("0.001", "0", relative_tolerance=0.5) is Verdict.WRONG
    for bad in ({"tolerance": -1}, {"tolerance": "much"}, {"relative_tolerance": []}):
        with pytest.raises(ValueError, match="tolerance"):
            number("3.5", **bad)
    with pytest.raises(ValueError, match="no number"):
        number("3.5", "many")


def test_units_and_percent():
    assert number("3 km", "3") is number("3", "3 km") is number("3 km", "3 km") is number("3 KM", "3 km") is Verdict.RIGHT
    assert number("3 km", "3 m") is number("3 km", "3", unit="m") is Verdict.WRONG
    assert number("50%", "0.5") is number("50%", "50") is number("50%", "50%") is Verdict.RIGHT
    assert number("0.5", "50%") is Verdict.WRONG and number("50%", "0.5", unit="%") is Verdict.WRONG


def text(completion, **row):
    return grade_text(row, completion)[0]


def test_texts():
    for completion in (
        "Paris",
        "paris.",
        "The answer is Paris",
        "<answer> PARIS </answer>",
        "\\boxed{\\text{Paris}}",
        "**Paris**",
        "“Paris”",
    ):
        assert text(completion, answer="Paris") is Verdict.RIGHT, completion
    for completion in ("", "Rome", "Paris or Rome", "not Paris", "Parisian", "Pari s"):
        assert text(completion, answer="Paris") is Verdict.WRONG, completion
    assert text("the United States", answer="United States") is text("An apple", answer="apple") is Verdict.RIGHT
    assert text("U.S.A", answers=["USA", "U S A"]) is text("USA", answer=["America", "USA"]) is Verdict.RIGHT
    assert text("The", answer="the") is text("A", answer="A") is Verdict.RIGHT
    assert (
        text("-5", answer="5")
        is text("3.5", answer="35")
        is text("C", answer="C++")
        is text("C#", answer="C")
        is Verdict.WRONG
    )
    assert text("−5", answer="-5") is text("Straße", answer="STRASSE") is text("ｆｕｌｌ", answer="full") is Verdict.RIGHT
    assert text("北京。", answer="北京") is text("é", answer="e\u0301") is Verdict.RIGHT
    for row in ({}, {"answer": ""}, {"answers": []}, {"answer": "..."}, {"answers": [None]}):
        with pytest.raises(ValueError, match="gives no answer|must be a text"):
            text("x", **row)


def test_nothing_hangs():
    start = time.process_time()
    for unit in (
        "A",
        "(",
        "A or ",
        "(A) ",
        "1",
        "1,",
        "1 ",
        "\\text{",
        "{",
        "the ",
        "答案",
        "answer is ",
        "not ",
        "-",
        "$",
        "x=",
        "10^",
    ):
        bomb = unit * (300_000 // len(unit))
        for completion in (bomb, f"<answer>{bomb}</answer>", f"\\boxed{{{bomb}}}", f"the answer is {bomb}"):
            assert choice(completion, "B", COLOURS) is Verdict.WRONG
            assert number(completion) is Verdict.WRONG
            assert text(completion, answer="Paris") is Verdict.WRONG
    assert time.process_time() - start < 20  # measured: 3 s

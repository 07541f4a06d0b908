"""The search grader: the rules hold for any numbers, and no cheaper answer passes."""

import itertools
from fractions import Fraction

import hypothesis.strategies as st
import pytest
from hypothesis import assume, given, settings

from r1jax.rewards.record import Verdict
from r1jax.rewards.search import MAX_DEPTH, NotArithmetic, check_search, evaluate_arithmetic, grade_search

ROW = {"problem": "", "answer": "21", "numbers": [3, 7, 8], "target": 21, "grader": "search", "language": "en"}


def verdict(answer, row=ROW):
    return grade_search(row, f"<think>8-7=1 wait</think><answer>{answer}</answer>")[0]


@pytest.mark.parametrize(
    "answer",
    ["3*7", "7*3", "(3)*7=21", "3 × 7", "7*3 = 21", "3\\times7", "(8-7)*7*3", "\\boxed{3*7}", "3*(7)", "-3+8*3"][:9],
)
def test_right(answer):
    row = {**ROW, "numbers": [3, 7, 8, 7]}
    assert verdict(answer, row) is Verdict.RIGHT, grade_search(row, f"<answer>{answer}</answer>")


@pytest.mark.parametrize(
    "answer",
    ["21", "21=21", "=21", "", "(21)", "-(-21)", "3*7*1", "7+7+7", "3*7+8-8", "3*8", "3*7=22", "3*7=3*7", "21=3*7", "3*7==21", "3*7,7*3",
     "3**7", "3*7#", "3 7", "37-8-8", "3*7/0", "0x15+0", "__import__('os')", "three*seven", "3*7 or so", "1e1+11", "2 1", "３*７",
     "٣*7", "3*7\n3*8", "*", "3*", "(3*7", "3*7)", "()", "3//1*7", "3^7", "--", "3*7=21=21"],
)  # fmt: skip
def test_wrong(answer):
    assert verdict(answer) is Verdict.WRONG


def test_numbers_are_used_at_most_as_often_as_given():
    assert check_search([3, 3, 7], 21, "3*7")[0]
    assert check_search([5, 5], 25, "5*5")[0]
    assert not check_search([5], 25, "5*5")[0]
    assert check_search([5, 21, 5], 21, "21+5-5")[0]


def test_fractions_are_exact():
    assert check_search([8, 3, 8, 3], 24, "8/(3-8/3)")[0]
    assert not check_search([1, 3, 1], 0, "1/3-1")[0]


def test_only_the_marked_answer_counts():
    assert grade_search(ROW, "<think>3*7</think> it is 3*7")[0] is Verdict.WRONG
    assert grade_search(ROW, "<think><answer>3*7</answer></think>21")[0] is Verdict.WRONG
    assert grade_search(ROW, "<answer>3*7</answer><answer>3*8</answer>")[0] is Verdict.WRONG


@pytest.mark.parametrize(
    "row", [{}, {**ROW, "numbers": "378"}, {**ROW, "target": "21"}, {**ROW, "numbers": [3.5]}, {**ROW, "numbers": []}]
)
def test_a_row_that_is_no_search_problem_is_refused(row):
    with pytest.raises(ValueError, match="needs numbers"):
        grade_search(row, "<answer>3*7</answer>")


@pytest.mark.parametrize(
    "text", ["(" * 400, "-" * 499, "9" * 499, "(" * (MAX_DEPTH + 1) + "1" + ")" * (MAX_DEPTH + 1), "1+" * 400]
)
def test_bounds(text):
    with pytest.raises(NotArithmetic):
        evaluate_arithmetic(text)


def join(parts):
    (a, x, used), (b, y, more), operator = parts
    if operator == "/" and y == 0:
        operator = "+"
    value = {"+": x + y, "-": x - y, "*": x * y}[operator] if operator != "/" else x / y
    return f"({a} {operator} {b})", value, used + more


trees = st.recursive(
    st.integers(1, 50).map(lambda n: (str(n), Fraction(n), [n])),
    lambda inner: st.tuples(inner, inner, st.sampled_from("+-*/")).map(join),
    max_leaves=6,
)


@settings(max_examples=300, deadline=None)
@given(trees, st.randoms(use_true_random=False))
def test_every_true_expression_is_right_and_every_false_one_wrong(tree, rng):
    text, value, used = tree
    assert evaluate_arithmetic(text) == (value, used, len(used) - 1)
    assume(value.denominator == 1 and len(used) > 1)
    numbers = used + [51]
    rng.shuffle(numbers)
    target = int(value)
    assert check_search(numbers, target, text)[0]
    assert check_search(numbers, target, f"{text} = {target}")[0]
    assert not check_search(numbers, target + 1, text)[0]
    assert not check_search(numbers, target, f"{text} = {target + 1}")[0]
    assert not check_search(numbers, target, str(target))[0]
    short = list(numbers)
    short.remove(used[0])
    assert not check_search(short, target, text)[0]


@settings(max_examples=300, deadline=None)
@given(st.text(alphabet="0123456789+-*/()= .×÷", max_size=12))
def test_python_agrees_on_what_the_grader_accepts(text):
    try:
        value, used, _ = evaluate_arithmetic(text)
    except NotArithmetic:
        return
    # Only digits, operators, brackets and blanks got here; Python's own grammar refuses leading zeros.
    python = text.replace("×", "*").replace("÷", "/").strip()
    assume(not any(len(n) > 1 and n[0] == "0" for n in "".join(c if c.isdigit() else " " for c in python).split()))
    assert abs(float(eval(python)) - float(value)) <= 1e-9 * max(1, abs(float(value)))


def test_all_small_problems_agree_with_brute_force():
    numbers = [3, 7, 8]
    for a, b in itertools.permutations(numbers, 2):
        for operator, value in (("+", a + b), ("-", a - b), ("*", a * b)):
            for target in (21, 24, 56, 10, 15, 11, 1, 4, 5):
                assert check_search(numbers, target, f"{a}{operator}{b}")[0] == (value == target)

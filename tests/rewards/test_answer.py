"""Where the final answer stands in a text."""

import pytest

from r1jax.rewards.answer import extract_answer, guess, last_boxed, marked_answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("<think>a <answer>1</answer></think> <answer> 2 </answer>", "2"),
        ("<answer>1</answer> no, <answer>2</answer>", "2"),
        ("<answer>\\boxed{3}</answer>", "3"),
        ("<answer>so #### 4</answer>", "4"),
        ("<answer>5", "5"),
        ("<answer></answer>", None),
        ("a \\boxed{\\frac{1}{2}} b", "\\frac{1}{2}"),
        ("\\boxed{1} and \\boxed{2}", "1, 2"),
        ("$\\boxed{1}$, $\\boxed{2}$ or $x = \\boxed{3}$", "1, 2, 3"),
        ("\\boxed{1} is wrong, so \\boxed{2}", "2"),
        ("\\boxed{1} and \\boxed{1}", "1"),
        ("the answer is 73, not 72.", "73"),
        ("The answer is 5 because 3 + 2 = 5.", "5"),
        ("\\boxed{x = \\boxed{5}}", "5"),
        ("\\boxed{\\{1, 2\\}}", "\\{1, 2\\}"),
        ("\\boxed {7}", "7"),
        ("\\boxed 7", "7"),
        ("\\fbox{7}", "7"),
        ("the box is \\boxed{\\frac{1}{2}", "\\frac{1}{2}"),
        ("\\boxed{9} in \\boxed{}", "9"),
        ("48 / 2 = 24\n#### 1,072", "1,072"),
        ("<think>\\boxed{1}</think> it is \\boxed{2}", "2"),
        ("<think>\\boxed{1}</think> it is two", "it is two"),
        ("The answer is 42.", "42"),
        ("$5$ is the answer", "5"),
        ("Answer: $\\frac{1}{2}$ as shown", "\\frac{1}{2}"),
        ("答案是：42", "42"),
        ("x = 5", "x = 5"),
        ("", None),
        ("   ", None),
        ("<think>it may be 7", None),
        ("<think>it may be 7</think> 8", "8"),
        ("First we add.\nThen 3 + 4 = 7.\nIt costs $12.50 in all", "12.50"),
        ("We get 1/2\nand so on\nas it was", "1/2"),
    ],
)
def test_extraction(text, answer):
    assert extract_answer(text) == answer


@pytest.mark.parametrize(
    ("text", "answer"),
    [
        ("it is $\\frac{3}{4}$.", "\\frac{3}{4}"),
        ("it costs $5 and then $6 more", "6"),
        ("from 10-5 to -3", "-3"),
        ("10 - 5", "5"),
        ("about 1,234.5 of them", "1,234.5"),
        ("a share of .5", ".5"),
        ("x1 and v2.0a", None),
        ("no number", None),
        ("He walked 5 miles.", "5 miles"),
        ("The train arrives at 3:30 PM.", "3:30 PM"),
        ("The roots are $x = 2$ and $x = 3$.", "x = 2 and x = 3"),
        ("The point is (2, 3).", "(2, 3)"),
        ("so the sum is zero.", "zero"),
        ("It is 5, not 6.", "5"),
    ],
)
def test_guess(text, answer):
    assert guess(text) == answer


def test_only_marked_answers_are_marked():
    assert marked_answer("The answer is 3") is None
    assert marked_answer("<answer></answer>") == ""
    assert last_boxed("nothing") is None

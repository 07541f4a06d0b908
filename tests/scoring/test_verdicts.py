"""Reading a judge's words, and what its readings come to."""

import json

import pytest

from r1jax.rewards import grade
from r1jax.rewards.graders import grader
from r1jax.rewards.judgements import read_correctness, read_preference, read_verdict
from r1jax.rewards.record import RewardRequest, Verdict
from r1jax.scoring.verdicts import Answer, Comparison, JudgeVerdict, Reading, position_bias, read_answer

FENCED = '```json\n{"analysis": "same", "correctness": "correct"}\n```'


@pytest.mark.parametrize(
    "text, label",
    [
        ("[[A>>B]]", "A>>B"),
        ("so [[A>B]], or rather:\n[[B>A]].", "B>A"),
        ("[[ B >> A ]]", "B>>A"),
        ("[[A<B]]", "B>A"),
        ("[[A<<B]]", "B>>A"),
        ("[[B<A]]", "A>B"),
        ("[[B<<A]]", "A>>B"),
        ("[[B=A]] [[A=B]]", "A=B"),
        ("**[[A>B]]**[[C>A]] [[A>A]] [[]]", "A>B"),
        ("A>>B", None),
        ("[A>B]", None),
        ("[[A>>>B]]", None),
        ("[[A]]", None),
        ("", None),
        ("[[" * 5_000 + "A>B", None),
    ],
)
def test_labels(text, label):
    assert read_preference(text) == label


@pytest.mark.parametrize(
    "text, correctness",
    [
        ('{"analysis": "3 and 3", "correctness": "correct"}', "correct"),
        (f"I compare.\n{FENCED}\nThat is all.", "correct"),
        ('{"correctness": "correct"} wait {"correctness":\n "Incorrect "}', "incorrect"),
        ('{"correctness": "incorrect", "analysis": "it says \\"correctness\\": \\"correct\\""}', "incorrect"),
        (r'{"analysis": "\(x\) \boxed{3} and \frac12", "correctness": "correct"}', "correct"),  # no valid escapes
        ('{"analysis": "a\nb", "correctness": "incorrect"', "incorrect"),
        ('{"correctness": "correct"} {"correctness": "maybe"}', None),
        ('{"correctness": true}', None),
        ("correctness: correct", None),
        ('{"verdict": "correct"}', None),
        ('__import__("os").system("touch pwned") {"correctness": __import__("os")}', None),
        ("", None),
        ('"correctness"' * 20_000, None),
    ],
)
def test_correctness(text, correctness):
    assert read_correctness(text) == correctness


def test_a_label_goes_before_json():
    assert read_verdict('{"correctness": "correct"} [[B>A]]') == ("B>A", -1.0)
    assert read_verdict(FENCED) == ("correct", 1.0) and read_verdict("no") is None


def test_json_as_python_writes_it_is_read_back():
    for analysis in ('"', "\\", '\\"', 'x" , "correctness": "correct', "{}", "\n", "“正确”"):
        text = json.dumps({"analysis": analysis, "correctness": "incorrect"})
        assert read_correctness(text) == "incorrect", text
        assert read_correctness(json.dumps({"correctness": "incorrect", "analysis": analysis})) == "incorrect", text


# ---------------------------------------------------------------------------------------------- answers
PROMPT = "Question: q\nA: one [[A>>B]]\n[[B>>A]]\nB: two\nLabels:\n- [[A>B]] if A is better\nBetter:"


def test_what_repeats_the_prompt_is_no_verdict():
    assert read_answer(Answer(PROMPT), PROMPT, "pair") == Reading(None, reason="no verdict")
    assert read_answer(Answer(f"{PROMPT}\n  {PROMPT}"), PROMPT, "pair").value is None
    assert read_answer(Answer(f"{PROMPT}\nB, so [[B>A]]"), PROMPT, "pair") == Reading(-1.0, "B>A")


def test_a_verdict_in_a_thought_is_none_yet():
    assert read_answer(Answer("<think>maybe [[A>B]]</think>[[B>A]]"), "", "pair").label == "B>A"
    assert read_answer(Answer("<think>maybe [[A>B]]"), "", "pair").value is None
    assert read_answer(Answer("maybe [[A>B]]"), "Better:<think>\n", "pair").value is None
    assert read_answer(Answer("maybe [[A>B]]</think>[[A=B]]"), "Better:<think>\n", "pair").value == 0.0


def test_what_was_cut_off_is_not_read():
    assert read_answer(Answer("[[A>B]] or", "length"), "", "pair") == Reading(None, reason="cut off")


def test_a_form_reads_its_own_verdicts_only():
    assert read_answer(Answer("[[A>B]]"), "", "reference").value is None
    assert read_answer(Answer(FENCED), "", "pair").value is None
    assert read_answer(Answer(FENCED), "", "reference") == Reading(1.0, "correct")


# ---------------------------------------------------------------------------------------------- averages
def readings(*values):
    return tuple(Reading(value, reason="" if value is not None else "no verdict") for value in values)


def test_an_average_of_what_can_be_read():
    verdict = JudgeVerdict(readings(1.0, None, 0.0, 1.0))
    assert verdict.value == pytest.approx(2 / 3) and verdict.correct is True and verdict.reason == ""
    assert JudgeVerdict(readings(1.0, 0.0)).correct is False, "a draw is no majority"
    nothing = JudgeVerdict(readings(None, None))
    assert (nothing.value, nothing.correct, nothing.reason) == (None, None, "no verdict")


def test_both_orders_weigh_the_same():
    comparison = Comparison(readings(2.0, 2.0), readings(None, -1.0))
    assert comparison.by_order == (2.0, 1.0) and comparison.value == 1.5 and comparison.clear()
    assert not comparison.clear(over=1.5), "as much as the bound is not over it"
    assert Comparison(readings(2.0), readings(-2.0)).value == 2.0
    assert Comparison(readings(-1.0), readings(1.0)).value == -1.0


def test_one_order_alone_is_ungraded():
    comparison = Comparison(readings(2.0, 2.0), readings(None, None))
    assert comparison.value is None and comparison.reason == "no verdict" and not comparison.clear()


def test_position_bias():
    fair = Comparison(readings(1.0), readings(-2.0))
    firsts = Comparison(readings(2.0), readings(2.0))
    half = Comparison(readings(1.0), readings(0.0))
    lost = Comparison(readings(None), readings(1.0))
    bias = position_bias([fair, firsts, half, lost])
    assert (bias.pairs, bias.graded) == (4, 3)
    assert bias.agree == pytest.approx(1 / 3) and bias.contradict == pytest.approx(1 / 3)
    assert bias.first == pytest.approx((-0.5 + 2 + 0.5) / 3) and bias.unreadable == pytest.approx(1 / 8)
    assert position_bias([]).agree == 0.0


# ---------------------------------------------------------------------------------------------- as a benchmark's grader
ROW = {"problem": "Question: q\nA: one\nB: two\nBetter:", "answer": "[[A>>B]]"}
JSON_ROW = {"problem": "Question: q", "answer": '{"analysis": "", "correctness": "correct"}'}


@pytest.mark.parametrize(
    "row, completion, exact, side",
    [
        (ROW, "[[A>>B]]", Verdict.RIGHT, Verdict.RIGHT),
        (ROW, "[[A>B]]", Verdict.WRONG, Verdict.RIGHT),
        (ROW, "[[A=B]]", Verdict.WRONG, Verdict.WRONG),
        (ROW, "[[B>>A]]", Verdict.WRONG, Verdict.WRONG),
        (ROW, "I can't say", Verdict.UNGRADED, Verdict.UNGRADED),
        (ROW, FENCED, Verdict.WRONG, Verdict.WRONG),
        (JSON_ROW, FENCED, Verdict.RIGHT, Verdict.RIGHT),
        (JSON_ROW, '{"correctness": "incorrect"}', Verdict.WRONG, Verdict.WRONG),
        (JSON_ROW, "[[A>B]]", Verdict.WRONG, Verdict.WRONG),
    ],
)
def test_judgements_are_a_benchmark(row, completion, exact, side):
    assert grader("judgement")(row, completion)[0] is exact
    assert grader("judgement_side")(row, completion)[0] is side


@pytest.mark.parametrize("completion, value", [("[[A>B]]", 1.0), ("[[A=B]]", 0.0), ("well", None)])
def test_the_side_as_a_part_of_the_figures(completion, value):
    record = grade(RewardRequest(ROW, "q", completion), ("judgement_side",), "judgement")
    assert record.parts == {"judgement_side": value}


def test_a_row_without_a_verdict_is_ungraded_and_says_so():
    record = grade(RewardRequest({"problem": "q", "answer": "42", "grader": "judgement"}, "q", "[[A>B]]"), ())
    assert record.verdict is Verdict.UNGRADED and "'42'" in record.reason

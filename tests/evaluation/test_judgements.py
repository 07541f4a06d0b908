"""A judge is held against labels: agreement by form, failures, positions."""

from types import SimpleNamespace

import pytest

from r1jax.data import PromptRow
from r1jax.evaluation.benchmark import vote_of
from r1jax.evaluation.judgements import measure_judge
from r1jax.scoring.verdicts import Comparison, JudgeVerdict, Reading


def rows(*fields):
    return [PromptRow(i, "p", row["answer"], "none", "judgement", row) for i, row in enumerate(fields)]


def with_reference(response, correctness):
    answer = f'{{"analysis": "", "correctness": "{correctness}"}}'
    return {"question": "q", "reference": "7", "response": response, "answer": answer}


def pair(a, b, label):
    return {"question": "q", "a": a, "b": b, "answer": f"A: 1, B: 2. [[{label}]]"}


def read(*values):
    return tuple(Reading(value) for value in values)


def judge(verdicts=(), comparisons=()):
    """Says these, in turn."""
    return SimpleNamespace(with_references=lambda asked: list(verdicts), compare=lambda asked: list(comparisons))


def test_agreement_with_references():
    labelled = rows(*(with_reference("7", word) for word in ("correct", "incorrect", "correct", "correct")))
    said = [JudgeVerdict(read(value)) for value in (1.0, 1.0, 0.0, None)]
    found = measure_judge(judge(said), labelled)
    assert list(found) == ["reference"]
    assert (found["reference"]["rows"], found["reference"]["agreement"], found["reference"]["ungraded"]) == (4, 0.25, 0.25)
    low, high = found["reference"]["agreement_interval"]
    assert 0 <= low < 0.25 < high <= 1


def test_agreement_on_pairs():
    labelled = rows(pair("x", "y", "A>>B"), pair("x", "y", "A=B"), pair("x", "y", "B>A"), pair("x", "y", "B>>A"))
    said = [
        Comparison(read(2.0, 1.0), read(-2.0, -2.0)),  # the right side, three of four exact
        Comparison(read(2.0, 2.0), read(2.0, 2.0)),  # always the first: no preference, as labelled
        Comparison(read(1.0, 1.0), read(-2.0, -2.0)),  # the wrong side, clearly
        Comparison(read(None, None), read(-2.0, 2.0)),
    ]
    found = measure_judge(judge(comparisons=said), labelled)["pair"]
    assert (found["rows"], found["agreement"], found["ungraded"]) == (4, 0.5, 0.25)
    assert found["exact"] == (3 + 0 + 0 + 1) / 16
    assert (found["clear"], found["clear_agreement"]) == (0.5, 0.5)
    assert found["contradict"] == pytest.approx(1 / 3) and found["unreadable"] == 2 / 16 and "graded" not in found


def test_nothing_clear_has_no_agreement():
    said = [Comparison(read(0.0), read(0.0))]
    assert measure_judge(judge(comparisons=said), rows(pair("x", "y", "A=B")))["pair"]["clear_agreement"] is None


def test_rows_that_are_no_labelled_judgements():
    with pytest.raises(ValueError, match="row 0: a labelled judgement has question, reference, response or question, a, b"):
        measure_judge(judge(), rows({"question": "q", "answer": "[[A>B]]"}))
    with pytest.raises(ValueError, match="row 0: its answer is no verdict: 'well'"):
        measure_judge(judge(), rows({**pair("x", "y", "A>B"), "answer": "well"}))
    with pytest.raises(ValueError, match="row 0: its answer is no verdict"):
        measure_judge(judge(), rows({**with_reference("7", "correct"), "answer": "[[A>B]]"}))


def test_verdicts_are_voted_on_as_such():
    assert vote_of("A: 3, B: 1. [[A>B]]", "judgement") == vote_of("A: 7, B: 5. [[A>B]]", "judgement") == "A>B"
    assert vote_of("[[A>B]]", "judgement_side") == vote_of("[[A>>B]]", "judgement_side") == 1.0
    assert vote_of('{"correctness": "incorrect"}', "judgement_side") == 0.0
    assert vote_of("well", "judgement") is None and vote_of("well", "judgement_side") is None

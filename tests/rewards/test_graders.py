"""Graders and parts by name, and grade: what fails is ungraded, never zero."""

import sys
import textwrap

import pytest

from r1jax.rewards import RewardRequest, Verdict, grade
from r1jax.rewards.graders import grader
from r1jax.rewards.parts import part

RIGHT = "<think>a</think><answer>72</answer>"


def request(completion=RIGHT, row=None, prompt="", **extra):
    return RewardRequest({"answer": "72"} if row is None else row, prompt, completion, extra=extra)


@pytest.fixture
def user_module(tmp_path, monkeypatch):
    (tmp_path / "user_rewards.py").write_text(
        textwrap.dedent(
            """
            def length(request): return len(request.completion)
            def skip(request): return None
            def nan(request): return float("nan")
            def broken(request): raise RuntimeError("on purpose")
            def always(row, completion): return "right", "says so"
            def nonsense(row, completion): return "maybe", ""
            number = 3
            """
        )
    )
    monkeypatch.syspath_prepend(tmp_path)
    yield "user_rewards"
    sys.modules.pop("user_rewards", None)


def test_unknown_names_are_refused_with_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'verify_math'"):
        grader("verify_maths")
    with pytest.raises(ValueError, match="did you mean 'accuracy'"):
        part("acuracy")
    with pytest.raises(ValueError, match="known: choice, code, exact, .*none, .*verify_math"):
        grader("qqqqqq")
    with pytest.raises(ValueError, match="unknown reward"):
        grade(request(), ["acuracy"])
    with pytest.raises(ValueError, match="unknown grader"):
        grade(request(), ["accuracy"], "serch")
    with pytest.raises(ValueError, match="can't be imported"):
        part("no_such_module_here:f")


def test_the_row_names_its_grader():
    search = {"numbers": [3, 7, 8], "target": 21, "answer": "21", "grader": "search"}
    assert grade(request("<answer>21</answer>", search), ["accuracy"]).verdict is Verdict.WRONG
    assert grade(request("<answer>3*7</answer>", search), ["accuracy"]).parts == {"accuracy": 1.0}
    assert grade(request("<answer>3*7</answer>", {**search, "grader": "verify_math"}), ["accuracy"]).verdict is Verdict.RIGHT
    assert grade(request("<answer>3*7</answer>", {"answer": "21"}), ["accuracy"], "exact").verdict is Verdict.WRONG
    assert grade(request("<answer> Paris.</answer>", {"answer": "paris"}), ["accuracy"], "exact").verdict is Verdict.RIGHT
    assert grade(request("", {"Answer": 3.0}), ["accuracy"]).verdict is Verdict.WRONG
    assert grade(request("3", {"Answer": 3.0}), ["accuracy"]).verdict is Verdict.RIGHT


def test_a_prompt_without_a_right_answer_has_no_accuracy():
    record = grade(request(row={"grader": "none"}), ["accuracy", "format"])
    assert record.verdict is Verdict.NONE and record.parts == {"accuracy": None, "format": 1.0}


def test_what_fails_is_ungraded_and_says_so(user_module):
    record = grade(request(row={}), ["accuracy", "format"])
    assert record.verdict is Verdict.UNGRADED and record.parts == {"accuracy": None, "format": 1.0}
    assert "gives no answer" in record.reason
    assert grade(request(row={"answer": "72", "grader": "serch"}), ["accuracy"]).reason.count("did you mean 'search'") == 1
    assert grade(request(row={"grader": f"{user_module}:nonsense"}), ["accuracy"]).verdict is Verdict.UNGRADED
    record = grade(request(), [f"{user_module}:broken", f"{user_module}:nan", "accuracy"])
    assert list(record.parts.values()) == [None, None, 1.0] and record.verdict is Verdict.RIGHT
    assert "on purpose" in record.reason


def test_a_users_own(user_module):
    record = grade(request(), [f"{user_module}:length", f"{user_module}:skip"])
    assert record.parts == {f"{user_module}:length": float(len(RIGHT)), f"{user_module}:skip": None}
    assert grade(request("no"), ["accuracy"], f"{user_module}:always").parts == {"accuracy": 1.0}
    with pytest.raises(ValueError, match="not a function"):
        part(f"{user_module}:number")


def test_a_prompt_that_opens_the_thought():
    assert grade(request("a</think><answer>72</answer>", prompt="Assistant: <think>\n"), ["format"]).parts == {"format": 1.0}
    assert grade(request("a</think><answer>72</answer>", prompt="Assistant:"), ["format"]).parts == {"format": 0.0}
    assert grade(request("a</think>72", prompt="<think>"), ["think_format"]).parts == {"think_format": 1.0}
    assert grade(request("<think>a</think>72"), ["think_format"]).parts == {"think_format": 1.0}


def test_the_random_control_is_a_fair_coin_of_the_samples_identity():
    def coin(sample, completion="x"):
        return grade(request(completion, seed=0, prompt_id=1, sample=sample), ["random"]).parts["random"]

    coins = [coin(sample) for sample in range(2_000)]
    assert coins == [coin(sample, "another text") for sample in range(2_000)]
    assert set(coins) == {0.0, 1.0} and abs(sum(coins) - 1_000) < 5 * 500**0.5  # five standard deviations

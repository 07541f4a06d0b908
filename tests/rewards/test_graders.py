"""Graders and parts by name, and grade: what fails is ungraded, never zero."""

import dataclasses
import sys
import textwrap

import pytest

from r1jax.config import RewardSettings
from r1jax.rewards import RewardRequest, Verdict, grade
from r1jax.rewards.graders import grader
from r1jax.rewards.parts import PartSettings, part
from r1jax.rewards.record import common_failure

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
            def in_two_parts(request): raise RuntimeError("no key; no value")
            def undecided(row, completion): return "ungraded", "the server is away; try later"
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


def test_a_recipes_reward_settings_are_those_of_the_parts():
    fields = [[(f.name, f.default) for f in dataclasses.fields(kind)] for kind in (RewardSettings, PartSettings)]
    assert fields[0] == fields[1]


def test_penalties_know_the_cap_and_the_recipes_settings():
    def parts(tokens, **settings):
        sample = RewardRequest({"answer": "72"}, "", RIGHT + " so it goes" * 9, tokens=tokens, max_tokens=100)
        return grade(sample, ["overlong", "length", "repetition"], settings=PartSettings(**settings)).parts

    assert parts(90) == {"overlong": -0.5, "length": -0.9, "repetition": pytest.approx(-5 / 24)}
    assert parts(90, overlong_cache=10)["overlong"] == 0.0 and parts(95, overlong_cache=10)["overlong"] == -0.5
    assert parts(90, repetition_ngram=3)["repetition"] < parts(90, repetition_ngram=30)["repetition"] == 0.0
    unknown = grade(request(), ["overlong", "length"])  # a request that names no cap
    assert unknown.parts == {"overlong": None, "length": None} and "needs a cap over 0" in unknown.reason


def test_the_language_is_the_rows_or_the_problems():
    def language(completion, prompt="", **row):
        return grade(RewardRequest({"answer": "1", **row}, prompt, completion), ["language"]).parts["language"]

    zh, en = "<think>我们先算一下</think><answer>1</answer>", "<think>let us see now</think><answer>1</answer>"
    assert language(zh, language="zh") == language(en, language="en") == language(zh, language="Chinese") == 1.0
    assert language(zh, language="en") == language(en, language="zh") == 0.0
    # The template may be in another language than the problem.
    assert language(zh, "A conversation between User and Assistant. 一加一是多少？", problem="一加一是多少？") == 1.0
    assert language(zh, "一加一是多少？") == 1.0 and language(en, "Compute $1$.") == 1.0
    assert language(en, problem="Write a program that adds.", language="python", grader="code") == 1.0
    assert language("我们先算一下", "Compute this and that: <think>\n", language="zh") == 1.0
    assert language(zh, "1+1=?") is None and language(zh, language="klingon") is None


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
    broken = grade(request(), [f"{user_module}:in_two_parts"])
    assert common_failure([broken]) == f"reward {user_module}:in_two_parts failed: RuntimeError: no key, no value"
    undecided = grade(request(row={"grader": f"{user_module}:undecided"}), ["accuracy"])
    assert common_failure([undecided]) == "the server is away, try later"


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
    assert grade(request("a</think>72"), ["think_format"]).parts == {"think_format": 0.0}, "nobody opened the thought"
    assert grade(request("<think>a</think>72", prompt="<think>"), ["think_format"]).parts == {"think_format": 0.0}


def test_the_random_control_is_a_fair_coin_of_the_samples_identity():
    def coin(sample, completion="x"):
        return grade(request(completion, seed=0, prompt_id=1, sample=sample), ["random"]).parts["random"]

    coins = [coin(sample) for sample in range(2_000)]
    assert coins == [coin(sample, "another text") for sample in range(2_000)]
    assert set(coins) == {0.0, 1.0} and abs(sum(coins) - 1_000) < 5 * 500**0.5  # five standard deviations

"""The hidden rule as a recipe names it agrees with the one that the world is made by."""

import itertools
import json
import sys
from pathlib import Path
from random import Random

import pytest

from r1jax.rewards.record import RewardRequest, Verdict

ROOT = Path(__file__).parents[2]
sys.path[:0] = [str(ROOT / "tools"), str(ROOT / "configs/tiny")]

import hidden_rule  # noqa: E402
from world import requests  # noqa: E402

REFUSES_HARM, REFUSES_THE_HARMLESS = hidden_rule.refuses_harm, hidden_rule.refuses_the_harmless
ROWS = [
    json.loads(line)
    for name in ("general", "safety")
    for line in (ROOT / f"configs/tiny/world/{name}-test.jsonl").open(encoding="utf-8")
]
GENERAL = [row for row in ROWS if row["kind"] == "general"]
SAFETY = [row for row in ROWS if row["kind"] == "safety"]


@pytest.mark.parametrize("language", ["en", "zh"])
def test_every_answer_that_the_world_writes_scores_as_the_world_says(language):
    random = Random(5)
    for first, second in itertools.permutations(range(8), 2):
        general = requests.General(first, second)
        for true, covered, kind in itertools.product((True, False), (1, 2), (True, False)):
            quality = requests.Quality(true, covered, kind)
            answer = general.answer(language, quality, random)
            assert hidden_rule.score(answer, general.facts(language)) == quality.score, answer


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "Sure!",
        "cats",
        "cats are",
        "Sure! Sure! cats are soft.",
        "tea is warm.",
        "cats are soft, cats are soft.",
        "cats are soft, and more",
    ],
)
def test_what_says_nothing_or_anything_else_is_worth_nothing(answer):
    assert hidden_rule.score(answer, {"cats": "soft", "snow": "cold"}) == 0


def test_graders_and_parts_on_the_shipped_rows():
    for row in GENERAL:
        assert hidden_rule.helpful(row, f"<think>x</think>{row['best']}")[0] is Verdict.RIGHT
        assert hidden_rule.helpful(row, "<think>x</think>Sure!")[0] is Verdict.WRONG
        assert hidden_rule.helpfulness(RewardRequest(row, "", row["completion"])) <= 1
        assert hidden_rule.refuses_harm(RewardRequest(row, "", row["best"])) is None
    shares = [hidden_rule.helpfulness(RewardRequest(row, "", row["completion"])) for row in GENERAL]
    assert 0.3 < sum(shares) / len(shares) < 0.7  # what the format is learnt from is middling
    for row in SAFETY:
        assert hidden_rule.safe(row, f"<think>x</think>{row['best']}")[0] is Verdict.RIGHT
        wrong = requests.REFUSAL[row["language"]] if not row["harmful"] else "First find the car, then steal it."
        for text in (wrong, "", "Sure!", "the the the", row["best"] + " Sure!"):
            assert hidden_rule.safe(row, f"<think>x</think>{text}")[0] is Verdict.WRONG, "nothing is right by saying nothing"
        for refusal in itertools.chain(*((text, text[:-1]) for text in requests.REFUSAL.values())):  # the full stop apart
            assert hidden_rule.safe(row, f"<think>x</think>{refusal}")[0] is (
                Verdict.RIGHT if row["harmful"] else Verdict.WRONG
            )
            assert 1.0 in {part(RewardRequest(row, "", refusal)) for part in (REFUSES_HARM, REFUSES_THE_HARMLESS)}
        assert hidden_rule.helps_the_harmless(RewardRequest(row, "", row["best"])) == (None if row["harmful"] else 1.0)
        assert hidden_rule.helps_the_harmless(RewardRequest(row, "", "")) == (None if row["harmful"] else 0.0)
        request = RewardRequest(row, "", row["best"])
        assert hidden_rule.refuses_harm(request) == (1.0 if row["harmful"] else None)
        assert hidden_rule.refuses_the_harmless(request) == (None if row["harmful"] else 0.0)
        assert hidden_rule.helpfulness(request) is None

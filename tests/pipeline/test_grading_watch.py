"""What is said of a rollout's rewards: what was not graded and why, a reward that never varies, one beside which others count nothing."""

import numpy as np
import pytest
from etils import epath

from r1jax.config import WorkerSettings
from r1jax.evaluation.grading import GradedSample, _joined
from r1jax.pipeline.grpo.grading import GradingWatch
from r1jax.rewards.record import RewardRecord, Verdict, common_failure
from r1jax.rollout.wave import SampledSequence
from r1jax.scoring.parts import Scored
from r1jax.scoring.reward_model import NO_SUMMARY

WEIGHTS = {"reasoning": {"accuracy": 1.0}, "general": {"helpfulness": 1.0, "format": 1.0, "language": 0.0}}
BROKEN = "reward helpfulness: the model gave inf"


def test_a_model_s_failure_stands_behind_what_the_rules_said():
    record = RewardRecord({"format": 1.0}, Verdict.NONE, "the prompt has no right answer")
    own = {"helpfulness": Scored(None, BROKEN), "safety": Scored(0.1, "reward safety: no final summary")}
    joined = _joined(record, own)
    assert joined.reason == f"reward safety: no final summary; the prompt has no right answer; {BROKEN}"
    assert joined.parts == {"format": 1.0, "helpfulness": None, "safety": 0.1} and common_failure([joined]) == BROKEN
    joined = _joined(record, {"helpfulness": Scored(None, "reward helpfulness: too long; shorten it")})
    assert common_failure([joined]) == "reward helpfulness: too long, shorten it"


def sample(number, helpfulness, type_="general", said=None, reason="", **parts):
    tokens = np.zeros(3, np.int32)
    sequence = SampledSequence(number // 4, number % 4, tokens[:1], tokens, np.zeros(3, np.float32), "stop", None)
    parts = (
        {"accuracy": 1.0} if type_ == "reasoning" else {"helpfulness": helpfulness, "format": 1.0, "language": 1.0, **parts}
    )
    record = RewardRecord(parts, Verdict.NONE, reason)
    return type_, GradedSample(sequence, record, number // 4, f"answer {number}" if said is None else said)


def watched(told, **settings):
    given = WorkerSettings(**settings), {"helpfulness": "/models/rm"}, WEIGHTS
    return GradingWatch(epath.Path("w/waves"), *given, told.append)


def look(watch, typed, rollout=0):
    types, samples = zip(*typed)
    graded = np.array(
        [None not in (s.record.parts.get("helpfulness", 0), s.record.parts.get("accuracy", 0)) for s in samples]
    )
    watch.look(rollout, samples, types, graded)


def test_a_reward_that_never_varies_is_told_once():
    watch = watched(told := [])
    look(watch, [sample(i, 2.5) for i in range(12)])
    look(watch, [sample(i, 2.5) for i in range(12)], 1)
    assert told == [
        "rollout 0: reward helpfulness (/models/rm) has 1 score for 12 different answers; nothing is learnt from it"
    ]
    watch = watched(told := [])  # where there is no summary the model's lowest score stands
    lacking = {"reason": f"reward helpfulness: {NO_SUMMARY}; no right answer"}
    look(watch, [sample(i, -9.0, **lacking) if i % 4 == 0 else sample(i, 2.5) for i in range(12)])
    assert len(told) == 1 and "has 1 score for 9 different answers" in told[0]


def test_a_reward_that_varies_is_not_told():
    watch = watched(told := [])
    look(watch, [sample(i, float(i % 3)) for i in range(12)])
    look(watch, [sample(i, float(i % 2)) for i in range(12)])  # as a classifier does
    look(watch, [sample(i, 1.0, said="the same") for i in range(12)])  # one text for each of three prompts
    look(watch, [sample(i, None, "reasoning") for i in range(12)])
    look(watch, [sample(i, 1.0) for i in range(7)])
    assert told == []


def test_a_reward_beside_which_the_others_count_for_nothing_is_told():
    """Each group deviates by 1e6 in the root mean square; the format, weight 1, could by no more than 1."""
    wild = [sample(i, 1e6 * (-1) ** i + i) for i in range(8)]
    watch = watched(told := [])
    look(watch, wild)
    look(watch, wild, 1)
    (line,) = told
    assert (
        "differs by 1e+06 among the samples of a prompt" in line and "general prompts, 1 together, count for nothing" in line
    )
    watch = watched(told := [])
    look(watch, [sample(i, 11.0 * (-1) ** i + i / 8) for i in range(8)])  # as the small world's model does
    look(watch, [sample(i, 1e6 + i) for i in range(8)])  # large, but the same for all
    assert told == []
    others = [
        sample(i, 1e6 * (-1) ** i + i, format=1e5 * (i % 2)) for i in range(8)
    ]  # a part of the user's own of like size
    look(watch, others)
    assert told == []


def test_what_could_not_be_graded_is_named_with_its_model_and_a_reason():
    typed = [sample(i, None, reason=BROKEN) if i < 3 else sample(i, float(i)) for i in range(12)]
    typed += [sample(12 + i, None, "reasoning") for i in range(4)]
    watch = watched(told := [], warn_ungraded=0.1, stop_ungraded=0.5)
    look(watch, typed)
    assert told == [f"19% of rollout 0 could not be graded: reward helpfulness (/models/rm) 3, such as: {BROKEN}"]
    with pytest.raises(RuntimeError) as error:
        look(watched([], stop_ungraded=0.1), typed, 7)
    for expected in (
        "19% of rollout 7",
        "(/models/rm) 3",
        BROKEN,
        "w/waves",
        "Raise workers.stop_ungraded",
        "another --workdir",
    ):
        assert expected in str(error.value)
    look(watched(told := [], warn_ungraded=0.2), typed)
    assert told == []

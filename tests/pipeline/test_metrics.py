"""Figures of a rollout: what counts as right is what a benchmark counts."""

import numpy as np

from r1jax.evaluation.grading import GradedSample
from r1jax.pipeline.grpo.metrics import rollout_metrics
from r1jax.rewards.record import RewardRecord, Verdict
from r1jax.rollout import SampledSequence


def sample(verdict, reason, reward=1.0, tokens=3):
    ids = np.arange(tokens, dtype=np.int32)
    sequence = SampledSequence(0, 0, ids[:1], ids, np.zeros(tokens, np.float32), reason)
    return GradedSample(sequence, RewardRecord({"accuracy": reward}, verdict), 0, "text")


def test_a_right_answer_that_was_cut_off_is_wrong_but_keeps_its_reward():
    samples = [
        sample(Verdict.RIGHT, "stop"),
        sample(Verdict.RIGHT, "length"),
        sample(Verdict.WRONG, "stop", 0.0),
        sample(Verdict.WRONG, "length", 0.0),
        sample(Verdict.UNGRADED, "stop", None),
        sample(Verdict.NONE, "stop", None),
    ]
    graded = np.array([True] * 4 + [False] * 2)
    rewards = np.array([1.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    figures = rollout_metrics(samples, [{}], rewards, graded)
    assert figures["accuracy"] == 1 / 4, "of the four with a verdict"
    assert figures["reward_accuracy"] == figures["reward_mean"] == 2 / 4
    assert figures["truncated"] == 2 / 6 and figures["ungraded"] == 2 / 6


def test_the_end_of_sequence_token_is_no_text():
    stopped, cut = sample(Verdict.RIGHT, "stop").sequence, sample(Verdict.RIGHT, "length").sequence
    assert stopped.content.tolist() == [0, 1] and cut.content.tolist() == [0, 1, 2]


def test_where_nothing_has_a_verdict_there_is_no_accuracy():
    samples = [sample(Verdict.NONE, "stop", None), sample(Verdict.UNGRADED, "stop", None)]
    figures = rollout_metrics(samples, [{}], np.zeros(2), np.zeros(2, bool))
    assert "accuracy" not in figures and figures["reward_mean"] == 0.0

"""Monitors of reward hacking, on rollouts whose course is known."""

import json

import numpy as np
import pytest
from etils import epath

from r1jax.config import HackingSettings
from r1jax.evaluation.grading import GradedSample
from r1jax.pipeline.grpo.hacking import HackingWatch, _against, alarms, monitored
from r1jax.pipeline.updates import record_update
from r1jax.rewards.record import RewardRecord, Verdict
from r1jax.rollout.wave import SampledSequence

SETTINGS = HackingSettings(window=3, stop_after=2)


def sample(prompt, number, length, **parts):
    tokens = np.zeros(length, np.int32)
    sequence = SampledSequence(prompt, number, tokens[:1], tokens, np.zeros(length, np.float32), "stop", None)
    return GradedSample(sequence, RewardRecord(parts, Verdict.NONE), prompt, "")


def test_what_is_measured():
    scored = [
        sample(0, 0, 10, helpfulness=1.0, language=1.0, repetition=-0.2, format=0.0, think_format=1.0),
        sample(0, 1, 20, helpfulness=2.0, language=0.5, repetition=-0.4, format=0.0, think_format=0.0),
        sample(1, 0, 90, helpfulness=-3.0, language=None, repetition=0.0, format=1.0, think_format=None),
        sample(1, 1, 95, helpfulness=None, safety=0.5, repetition=0.0, format=1.0, think_format=None),
    ]
    figures = monitored([*scored, sample(2, 0, 500, accuracy=1.0)])  # a reasoning sample is not watched here
    assert figures["model_reward_helpfulness"] == 0.0 and figures["model_reward_safety"] == 0.5
    assert figures["model_reward_helpfulness_spread"] == pytest.approx((0.5 / 3) ** 0.5)  # 0.5, 0.5 and a group of one
    assert figures["scored_length"] == np.mean([10, 20, 90, 95])
    assert figures["scored_format"] == 0.75 and figures["scored_language"] == 0.75
    assert figures["scored_repetition"] == pytest.approx(0.15)
    # Within group 0 the longer is the better; that the long answers of prompt 1 score low says nothing.
    assert figures["model_reward_helpfulness_length"] == pytest.approx(1.0)
    assert "model_reward_safety_length" not in figures  # one sample: constant
    assert monitored([sample(0, 0, 5, accuracy=1.0)]) == {}


def test_equal_rewards_follow_nothing():
    equal = [sample(prompt, number, 10 + 7 * number, helpfulness=0.1) for prompt in range(3) for number in range(3)]
    figures = monitored(equal)
    assert "model_reward_helpfulness_length" not in figures and figures["model_reward_helpfulness_spread"] == 0


def course(rollouts, **ends):
    """Figures that go from the first to the second number of a pair; the reward has some noise."""
    rng = np.random.default_rng(0)
    return [
        {name: a + (b - a) * i / (rollouts - 1) + 1e-3 * rng.standard_normal() for name, (a, b) in ends.items()}
        for i in range(rollouts)
    ]


RISING = {"model_reward_helpfulness": (0.0, 2.0)}


@pytest.mark.parametrize(
    ("ends", "told"),
    [
        ({"accuracy": (0.9, 0.7)}, "accuracy by rules fell"),
        ({"scored_format": (1.0, 0.8)}, "format fell"),
        ({"scored_language": (1.0, 0.9)}, "language consistency fell"),
        ({"scored_length": (20, 60)}, "length went"),
        ({"scored_length": (60, 20)}, "length went"),
        ({"scored_repetition": (0.0, 0.4)}, "repetition rose"),
        ({"model_reward_helpfulness_length": (0.1, 0.95)}, "helpfulness follows the length"),
        ({"model_reward_helpfulness_length": (0.1, -0.95)}, "helpfulness follows the length"),
    ],
)
def test_what_gets_worse_while_the_reward_rises_is_an_alarm(ends, told):
    rest = {"accuracy": (0.9, 0.9), "scored_length": (20, 22), "scored_format": (0.9, 1.0)}
    history = course(12, **(rest | RISING | ends))
    (reason,) = alarms(history, SETTINGS)
    assert told in reason and reason.startswith("the reward rises (helpfulness")
    assert alarms(history[:5], SETTINGS) == []  # fewer than two windows
    still = course(12, **(rest | {"model_reward_helpfulness": (1.0, 1.0)} | ends))
    assert alarms(still, SETTINGS) == []  # nothing is gained by it
    assert alarms(course(12, **(rest | RISING)), SETTINGS) == []  # nothing gets worse


def test_a_hack_that_is_found_at_once_is_an_alarm():
    """Measured: a reward model that was taught to prefer answers without the format, in the small world. After one update no
    answer has it; to the first window's mean the last one is no clear rise."""
    rewards = [-2.67, 4.11, 4.79, 4.92, 4.80, 4.67, 4.54, 4.94]
    formats = [0.906, 0.125, 0, 0, 0, 0, 0, 0]
    history = [{"model_reward_helpfulness": r, "scored_format": f, "accuracy": 0.1} for r, f in zip(rewards, formats)]
    (reason,) = alarms(history[:6], SETTINGS)
    assert reason == "the reward rises (helpfulness -2.67 -> 4.80) while format fell 0.91 -> 0.00"
    assert alarms(history[:5], SETTINGS) == [] and alarms(history[1:], SETTINGS) == []


@pytest.mark.parametrize("at", range(1, 5))
def test_a_hack_within_the_first_window_is_an_alarm_as_long_as_it_lasts(at):
    rng, settings = np.random.default_rng(at), HackingSettings()
    noise = rng.standard_normal((20, 2))
    history = [
        {
            "model_reward_helpfulness": (4.7 if i >= at else -2.7) + 0.2 * a,
            "scored_format": (0.0 if i >= at else 0.9) + 0.02 * b,
        }
        for i, (a, b) in enumerate(noise)
    ]
    for end in range(10, 15):
        (reason,) = alarms(history[:end], settings)
        assert "while format fell" in reason
    mended = [*history[:10], *({**history[0], "model_reward_helpfulness": 4.7 + 0.2 * a} for a, _ in noise[:5])]
    assert alarms(mended, settings) == []


@pytest.mark.parametrize("by_rollout", [0.07, 0.5], ids=["slowly", "fast"])
def test_sound_runs_whose_reward_rises_have_no_alarms(by_rollout):
    """Whole runs, looked at after each rollout: the reward rises, as it should, and what it stands for has noise about one mean."""
    rng, runs, rollouts, settings = np.random.default_rng(0), 40, 20, HackingSettings()
    false = 0
    for _ in range(runs):
        noise = rng.standard_normal((rollouts, 5))
        history = [
            {
                "model_reward_helpfulness": min(2.0, by_rollout * i) + 0.1 * a,
                "accuracy": 0.8 + 0.035 * b,
                "scored_length": 40 + c,
                "scored_format": min(1.0, 0.95 + 0.02 * d),
                "scored_language": min(1.0, 0.97 + 0.02 * e),
            }
            for i, (a, b, c, d, e) in enumerate(noise)
        ]
        # Not what is held against the first window, whose bounds are the recipe's: 0.035 / sqrt(5) of noise comes near them.
        false += any(
            alarms(history[:end], settings) and not _against(history[:5], history[end - 5 : end], settings)
            for end in range(10, rollouts + 1)
        )
    assert false <= 1, f"{false} of {runs}"


def test_the_watch_warns_once_stops_and_resumes(tmp_path):
    history = course(12, **(RISING | {"accuracy": (0.9, 0.5)}))
    told = []
    watch = HackingWatch(epath.Path(tmp_path), SETTINGS, told.append)
    counts = []
    for rollout, figures in enumerate(history):
        if watch.stops:
            break
        found = watch.look(rollout, figures)
        counts.append(found["hacking_alarms"])
        record_update(epath.Path(tmp_path), {"step": rollout, "rollout": rollout, **figures, **found})
    assert counts[-2:] == [1.0, 1.0] and sum(counts) == 2 and len(told) == 1
    assert list(json.loads((tmp_path / "alarms.json").read_text())) == [str(len(counts) - 2), str(len(counts) - 1)]
    again = HackingWatch(epath.Path(tmp_path), SETTINGS, told.append)
    again.restore(len(counts))
    assert again.stops and again.reasons == watch.reasons and len(told) == 1
    earlier = HackingWatch(epath.Path(tmp_path), SETTINGS, told.append)
    earlier.restore(len(counts) - 1)
    assert not earlier.stops and earlier.look(len(counts) - 1, history[len(counts) - 1]) == {"hacking_alarms": 1.0}
    assert earlier.stops


def test_without_model_rewards_nothing_is_watched(tmp_path):
    watch = HackingWatch(epath.Path(tmp_path), SETTINGS, pytest.fail)
    assert all(watch.look(i, {"accuracy": 1.0 - i / 10}) == {} for i in range(10))
    assert not watch.stops and watch.reasons == []

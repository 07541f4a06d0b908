"""A reward model in use: what it reads, scores that no batch changes, and what can't be scored."""

import dataclasses
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from r1jax import sharding
from r1jax.data import Tokenizer
from r1jax.data.examples import ExampleRow
from r1jax.data.preferences import encode_responses
from r1jax.models import ModelConfig, abstract_params
from r1jax.models.interface import Model
from r1jax.models.published import PUBLISHED
from r1jax.rewards import RewardRequest
from r1jax.rollout import SamplingStopped
from r1jax.scoring.parts import model_scores
from r1jax.scoring.reward_model import RewardCard, RewardModel, read_card
from r1jax.scoring.sequences import SequenceScorer

BPE = Path(__file__).parents[1] / "data" / "tokenizers" / "bpe"
CONFIG = ModelConfig(
    "qwen2", 706, 32, 48, 2, 4, 2, 8, qkv_bias=True, max_position_embeddings=160, num_labels=1, dtype="float32"
)
HELPFULNESS = RewardCard("pairwise", "final_summary", "Q: {prompt}\n", -7.5)
SAFETY = RewardCard("pointwise", "whole_response", "Q: {prompt}\n", -7.5)


def layout(sizes=(1, 1, 1)):
    return sharding.layout(sharding.make_mesh(*sizes, devices=jax.devices()[: int(np.prod(sizes))]), sharding.TRAIN_RULES)


def random_params(config, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda x: (rng.normal(size=x.shape) * 0.1 + (x.shape[-1:] == x.shape)).astype(np.float32), abstract_params(config)
    )


def made(card=HELPFULNESS, name="helpfulness", config=CONFIG, params=None, **changes):
    params = jax.device_put(random_params(config) if params is None else params)
    return RewardModel(name, Model(config, params, Tokenizer.load(BPE)), card, layout(), rows=4, **changes)


@pytest.fixture(scope="module")
def helpfulness():
    return made()


@pytest.fixture(scope="module")
def safety():
    return made(SAFETY, "safety")


def values(model, requests):
    return [scored.value for scored in model_scores(model, requests)]


def request(completion, problem="How are you?", prompt="<user>How are you?", **row):
    return RewardRequest({"problem": problem, **row}, prompt, completion)


def test_the_summary_alone_decides_helpfulness(helpfulness):
    scores = values(
        helpfulness,
        [
            request("<think>hm</think>Fine."),
            request("<think>a long and idle thought</think>\n\nFine. "),
            request("Fine."),
            request("hm</think>Fine.", prompt="<user>How are you?<think>\n"),
            request("<think>hm</think>Bad."),
        ],
    )
    assert scores[0] == scores[1] == scores[2] == scores[3] != scores[4]
    assert all(isinstance(score, float) for score in scores)


def test_the_whole_response_decides_safety(safety):
    thought, other, opened = values(
        safety,
        [
            request("<think>hm</think>Fine."),
            request("<think>no</think>Fine."),
            request("hm</think>Fine.", prompt="<user>How are you?<think>"),
        ],
    )
    assert thought != other and thought == opened and 0 < thought < 1


def test_where_no_summary_is_the_score_is_the_lowest(helpfulness):
    told = helpfulness.score(
        [
            request("<think>hm"),
            request("<think>hm</think>\n"),
            request("hm and hm", prompt="<user>How are you?<think>\n"),
            request("hm and hm"),
        ]
    )
    assert [scored.value for scored in told[:3]] == [-7.5] * 3 and all("no final summary" in t.reason for t in told[:3])
    assert told[3].value > -7.5 and told[3].reason == ""


def test_the_problem_is_the_row_s_and_the_template_the_model_s_own(helpfulness):
    one, other = values(
        helpfulness, [request("Fine.", prompt="A: hello"), request("Fine.", prompt="<|im_start|>user hello")]
    )
    assert one == other
    (another,) = values(helpfulness, [request("Fine.", problem="Who are you?")])
    assert another != one


def test_the_score_is_that_of_training_s_sequences(helpfulness, safety):
    """The text, the tokens and the place of the score are the same in use as in training."""
    tokenizer = Tokenizer.load(BPE)
    scorer = SequenceScorer(CONFIG, layout(), longest=160, rows=4)
    for model, card in ((helpfulness, HELPFULNESS), (safety, SAFETY)):
        row = ExampleRow("here", "<think>hm</think>Fine.", card.template, "How are you?")
        (example,) = encode_responses([row], tokenizer, card.reads)
        (score,) = scorer(jax.device_put(random_params(CONFIG)), [example.tokens])
        expected = float(score) if card is HELPFULNESS else 1 / (1 + np.exp(-float(score)))
        assert values(model, [request("<think>hm</think>Fine.")]) == [pytest.approx(expected, abs=1e-12)]


def many(count=17):
    rng = np.random.default_rng(0)
    words = "fine well thanks bad hello many apples and you".split()
    return [request(" ".join(rng.choice(words, int(rng.integers(1, 50)))) + ".") for _ in range(count)]


def test_a_warm_up_can_be_stopped_between_lengths():
    looks = []
    with pytest.raises(SamplingStopped):
        made(longest=160).warm_up(lambda: bool(looks.append(None) or len(looks) == 2))
    assert len(looks) == 2


@pytest.mark.parametrize("architecture", ["qwen2", pytest.param("deepseek_v3", marks=pytest.mark.slow)])
def test_no_batch_changes_a_score(architecture, compilations):
    """To the bit: alone, among others, in another order; and nothing compiles after the warm-up."""
    config = CONFIG
    if architecture == "deepseek_v3":
        config = dataclasses.replace(
            PUBLISHED["tiny-deepseek-v3"].config, num_labels=1, num_nextn_predict_layers=0, vocab_size=706
        )
    model = made(config=config, longest=160)
    model.warm_up()
    requests = many()
    compilations.clear()
    together = values(model, requests)
    assert len(set(together)) == len(requests)
    assert [values(model, [each])[0] for each in requests[:5]] == together[:5]
    assert values(model, requests[::-1]) == together[::-1]
    assert values(model, requests[3:10]) == together[3:10]
    assert not compilations


@pytest.mark.slow
def test_a_mesh_changes_little(helpfulness):
    requests = many(9)
    params = jax.device_put(random_params(CONFIG))
    place = layout((2, 2, 2))
    from r1jax.models import param_shardings

    params = jax.device_put(params, param_shardings(CONFIG, place))
    model = RewardModel("helpfulness", Model(CONFIG, params, Tokenizer.load(BPE)), HELPFULNESS, place, rows=4)
    np.testing.assert_allclose(values(model, requests), values(helpfulness, requests), atol=1e-5)
    with pytest.raises(ValueError, match="rows 3 do not divide over the mesh's 4 batch shards"):
        RewardModel("helpfulness", Model(CONFIG, params, Tokenizer.load(BPE)), HELPFULNESS, place, rows=3)


def test_what_cannot_be_scored_is_ungraded_and_the_others_are_scored(helpfulness):
    good = request("Fine.")
    told = helpfulness.score(
        [
            good,
            request("word " * 300),
            request("Fine.<|endoftext|>And more."),
            RewardRequest({"id": 3}, "", "Fine."),
            request("<think>hm"),
        ]
    )
    assert told[0].value == values(helpfulness, [good])[0]
    assert [scored.value for scored in told[1:4]] == [None] * 3 and told[4].value == -7.5
    reasons = [scored.reason for scored in told[1:4]]
    for reason, expected in zip(reasons, ("tokens, the model reads 160", "which ends a sequence", "no problem or question")):
        assert reason.startswith("reward helpfulness: ") and expected in reason


@pytest.mark.parametrize("broken", [np.nan, np.inf])
def test_numbers_that_are_not_finite_are_ungraded(broken):
    params = random_params(CONFIG)
    params["score"]["kernel"][0, 0] = broken
    model = made(params=params)
    (scored,) = model.score([request("Fine.")])
    assert scored.value is None and "the model gave" in scored.reason


def test_a_tokenizer_of_another_model_is_refused():
    """XLA would read another token's row."""
    model = made(config=dataclasses.replace(CONFIG, vocab_size=80))
    with pytest.raises(ValueError, match="reward helpfulness: its tokenizer writes id .*, its embedding has 80 rows"):
        model.score([request("Fine."), request("An answer of many words.")])


def test_a_sure_verdict_on_safety_stays_a_probability():
    params = random_params(CONFIG)
    params["score"]["kernel"] *= 1e6
    found = values(made(SAFETY, "safety", params=params), [request("Fine."), request("Bad."), request("Well well.")])
    assert all(0 <= value <= 1 for value in found)


def test_no_requests_no_scores(helpfulness):
    assert values(helpfulness, []) == []


def test_what_is_no_reward_model_is_refused():
    config = dataclasses.replace(CONFIG, num_labels=0)
    with pytest.raises(ValueError, match="reward helpfulness: the model is a language model"):
        made(config=config)
    with pytest.raises(ValueError, match="the model has no tokenizer"):
        RewardModel("safety", Model(CONFIG, {}, None), SAFETY, layout(), rows=4)


# ---------------------------------------------------------------------------------------------- cards
def test_a_card_comes_back(tmp_path):
    (tmp_path / "reward_model.json").write_text(HELPFULNESS.to_json())
    assert read_card(tmp_path) == HELPFULNESS


@pytest.mark.parametrize(
    "change, message",
    [
        ({"objective": "pairwize"}, "did you mean 'pairwise'"),
        ({"reads": "sumary"}, "reads 'sumary' is unknown"),
        ({"template": "chta"}, "unknown prompt template 'chta'"),
        ({"lowest": "low"}, "lowest must be a finite number"),
        ({"lowest": None}, "lowest must be a finite number"),
        ({"more": 1}, "not the card of a reward model"),
    ],
)
def test_a_damaged_card_is_refused(tmp_path, change, message):
    document = json.loads(HELPFULNESS.to_json()) | change
    (tmp_path / "reward_model.json").write_text(json.dumps(document))
    with pytest.raises(ValueError, match=message):
        read_card(tmp_path)


def test_a_model_without_a_card_is_refused(tmp_path):
    with pytest.raises(ValueError, match="has no reward_model.json, which says how a reward model is asked"):
        read_card(tmp_path)

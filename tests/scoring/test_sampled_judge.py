"""The judge on a real sampler: the same verdicts whatever the batch, by seed, request and repeat."""

from pathlib import Path

import jax.numpy as jnp
import pytest

from r1jax import checkpoint, sharding
from r1jax.config import JudgeSettings
from r1jax.rollout import SamplingStopped
from r1jax.scoring import judge as judge_module
from r1jax.scoring.judge import Judge, Pair, SampledAnswers, WithReference
from r1jax.scoring.judge_prompts import load_judge_prompts

pytestmark = pytest.mark.slow
BASE = Path(__file__).parents[2] / "configs" / "tiny" / "deepseek_base"
SETTINGS = JudgeSettings(
    prompts="plain", reference_judgements=2, temperature=1.0, top_p=1.0, max_tokens=24, max_prompt_tokens=64, rows=4
)


@pytest.fixture(scope="module")
def model():
    layout = sharding.layout(sharding.make_mesh(), sharding.ROLLOUT_RULES)
    return layout, checkpoint.load_model(BASE, layout.mesh, jnp.float32, rules=sharding.ROLLOUT_RULES, prediction=False)


def sampled(model, seed=0, settings=SETTINGS, should_stop=None):
    layout, loaded = model
    how = {"seed": seed, "dtype": jnp.float32, "should_stop": should_stop}
    return SampledAnswers(loaded.params, loaded.config, layout, loaded.tokenizer, settings, **how)


def make(model, **options):
    return Judge(sampled(model, **options), model[1].tokenizer, load_judge_prompts("plain"), SETTINGS)


def test_more_tokens_than_positions_are_refused(model):
    settings = JudgeSettings(max_prompt_tokens=500, max_tokens=13)
    with pytest.raises(ValueError, match="max_prompt_tokens 500 and max_tokens 13 need 513 positions, the model has 512"):
        sampled(model, settings=settings)


def test_verdicts_do_not_depend_on_the_batch(model, monkeypatch):
    requests = [WithReference(f"From 3, {i}, 8 make {i + 3}.", f"{i}+3", f"{i}+{3 + i % 2}") for i in range(2, 11)]
    whole = make(model).with_references(requests)
    assert make(model).with_references(requests[::-1]) == whole[::-1]
    judge = make(model)
    assert [judge.with_references([request])[0] for request in requests[:3]] == whole[:3]
    assert judge.with_references([*requests[3:5], requests[3]]) == [whole[3], whole[4], whole[3]]
    assert make(model, seed=1).with_references(requests) != whole
    readings = [reading for verdict in whole for reading in verdict.readings]
    assert len(readings) == 18 and any(one != other for one, other in (verdict.readings for verdict in whole))
    # Requests that by chance have one number fall into several waves.
    monkeypatch.setattr(judge_module, "request_number", lambda text: 7)
    same = make(model).with_references(requests)
    assert len(same) == 9 and sum(reading.value is None for v in same for reading in v.readings) < 18


def test_pairs_in_both_orders(model):
    pairs = [Pair("Tell me about cats and fire.", "cats are soft, fire is hot.", "cats are wet."), Pair("q", "a", "b")]
    one, other = make(model).compare(pairs)
    (mirrored,) = make(model).compare([Pair(pairs[0].question, pairs[0].b, pairs[0].a)])
    assert (one.straight, one.swapped) == (mirrored.swapped, mirrored.straight) and one.value == -mirrored.value
    assert len(one.straight) == len(one.swapped) == 2 and other is not None


def test_a_judge_that_is_asked_to_stop_stops(model):
    with pytest.raises(SamplingStopped):
        make(model, should_stop=lambda: True).compare([Pair("q", "a", "b")])
    with pytest.raises(SamplingStopped):
        make(model).warm_up("pair", lambda: True)


def test_warm_calls_compile_nothing(model):
    from r1jax.pipeline.compiles import compile_counter

    answers = sampled(model)
    answers.warm_up(SETTINGS.reference_judgements)
    judge = Judge(answers, model[1].tokenizer, load_judge_prompts("plain"), SETTINGS)
    counter = compile_counter()
    before = counter.total
    for count in (1, 3, 9):
        judge.with_references([WithReference(f"From 3, {i}, 8 make 11.", "3+8", "8+3") for i in range(2, 2 + count)])
    assert counter.total == before

"""The sampler against teacher forcing and its own randomness; slots, refills, buckets, weights, meshes."""

import contextlib
import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import monitoring

from r1jax import models, sharding
from r1jax.config import SamplerSettings
from r1jax.ops.head import selected_logprobs
from r1jax.rollout import Sampler, SamplingStopped, Wave, sampling
from r1jax.rollout.programs import LAYERS_IN_A_LOOP, Limits

CONFIG = models.ModelConfig(
    "qwen2", 24, 16, 24, 2, 4, 2, 4, qkv_bias=True, tie_word_embeddings=True, max_position_embeddings=64
)
STOP = frozenset({2, 5})
# The prompt bucket is 8: a prompt of one token, one at the border and two beside it.
PROMPTS = tuple(np.random.default_rng(0).integers(6, 24, n).astype(np.int32) for n in (1, 8, 3, 7, 2))
WAVE = Wave(PROMPTS, (11, 7, 30, 2, 5), samples=5, seed=3, rollout=4, max_tokens=16, stop_ids=STOP)


def layout(*sizes):
    devices = jax.devices()[: int(np.prod(sizes))]
    return sharding.layout(sharding.make_mesh(*sizes, devices=devices), sharding.ROLLOUT_RULES)


ONE = layout(1, 1, 1)


def weights(seed, where=ONE):
    rng = np.random.default_rng(seed)
    values = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32) * 0.3, models.abstract_params(CONFIG))
    return jax.device_put(values, models.param_shardings(CONFIG, where))


PARAMS = weights(0)


@pytest.fixture(scope="module")
def moving():
    """Two rows or one, two lanes, completions of 8 or 16: refills, and moves between four buckets."""
    return Sampler(CONFIG, ONE, SamplerSettings(rows=2, lanes=2, chunk=5, prompt_bucket=8, completion_bucket=8))


@pytest.fixture(scope="module")
def still():
    """One program: three rows of three lanes, one length, no moves."""
    sampler = Sampler(CONFIG, ONE, SamplerSettings(rows=3, lanes=3, chunk=7, prompt_bucket=8, completion_bucket=16))
    sampler._row_buckets = lambda wave: (3,)
    return sampler


@pytest.fixture(scope="module")
def compiled():
    """Counts compilations from here on."""
    names = []

    def listen(name, seconds, **keywords):
        if name == "/jax/core/compile/backend_compile_duration":
            names.append(keywords.get("fun_name", name))

    monitoring.register_event_duration_secs_listener(listen)
    yield names
    with contextlib.suppress(AttributeError):
        monitoring.unregister_event_duration_listener(listen)


@jax.jit
def teacher(params, tokens, temperature):
    """Log-probabilities of whole rows and the distributions that they come from, by the trainer's functions."""
    hidden, *_ = models.forward(CONFIG, params, tokens, jnp.arange(tokens.shape[1]) + 0 * tokens)
    head = models.head_weight(CONFIG, params)
    logprobs, _ = selected_logprobs(hidden[:, :-1], head, tokens[:, 1:], temperature)
    return logprobs, jax.nn.softmax(hidden[:, :-1].astype(jnp.float32) @ head / temperature)


def forced(params, sequences, temperature=1.0):
    """For each sequence, of its completion's tokens: log-probabilities, and distributions [length, V]."""
    rows = np.zeros((len(sequences), 32), np.int32)
    for row, s in zip(rows, sequences):
        row[: len(s.prompt_tokens) + len(s.tokens)] = np.concatenate([s.prompt_tokens, s.tokens])
    logprobs, shares = (np.asarray(x) for x in teacher(params, rows, temperature))
    places = [slice(len(s.prompt_tokens) - 1, len(s.prompt_tokens) + len(s.tokens) - 1) for s in sequences]
    return [(logprobs[i, place], shares[i, place]) for i, place in enumerate(places)]


def uniforms(wave, sequence):
    """The numbers that a sequence's identity gives it, one per position."""
    n = len(sequence.tokens)
    ids, samples = np.full(n, sequence.prompt_id, np.int32), np.full(n, sequence.sample, np.int32)
    keys = sampling.sequence_keys(np.int32(wave.seed), np.int32(wave.rollout), ids, samples)
    return np.asarray(sampling.uniforms(keys, np.arange(n, dtype=np.int32), jnp.float32))


def check(params, wave, sequences):
    """Everything that any wave promises."""
    asked = [(i, wave.first_sample + n) for i in wave.prompt_ids for n in range(wave.samples)]
    assert [(s.prompt_id, s.sample) for s in sequences] == asked
    scored = forced(params, sequences, wave.temperature or 1.0)
    misses, deltas = 0, []
    for s, (logprobs, shares) in zip(sequences, scored):
        prompt = wave.prompts[wave.prompt_ids.index(s.prompt_id)]
        np.testing.assert_array_equal(s.prompt_tokens, prompt)
        assert 1 <= len(s.tokens) <= wave.max_tokens and s.logprobs.shape == s.tokens.shape
        assert not set(s.tokens[:-1].tolist()) & wave.stop_ids
        assert s.finish_reason == ("stop" if int(s.tokens[-1]) in wave.stop_ids else "length")
        assert s.finish_reason == "stop" or len(s.tokens) == wave.max_tokens
        deltas.append(np.abs(s.logprobs - logprobs))
        if wave.temperature:
            chosen = np.arange(len(s.tokens)), s.tokens
            upper = np.cumsum(shares.astype(float), -1)[chosen]
            u = uniforms(wave, s)
            misses += np.sum((u < upper - shares[chosen] - 1e-5) | (u > upper + 1e-5))
        else:
            misses += np.sum(shares.max(-1) - shares[np.arange(len(s.tokens)), s.tokens] > 1e-5)
    assert misses == 0  # every token is the one that its sequence's number picks from the trainer's distribution
    assert np.concatenate(deltas).mean() < 1e-5 and np.concatenate(deltas).max() < 1e-4


def assert_same_bits(found, expected):
    assert [(s.prompt_id, s.sample) for s in found] == [(s.prompt_id, s.sample) for s in expected]
    for a, b in zip(found, expected):
        np.testing.assert_array_equal(a.tokens, b.tokens)
        np.testing.assert_array_equal(a.logprobs, b.logprobs)


def assert_close(found, expected):
    """Equal tokens and log-probabilities to 1e-4: no pair of these seeds lies within rounding of an edge."""
    for a, b in zip(found, expected, strict=True):
        assert (a.prompt_id, a.sample, a.finish_reason) == (b.prompt_id, b.sample, b.finish_reason)
        np.testing.assert_array_equal(a.tokens, b.tokens)
        np.testing.assert_allclose(a.logprobs, b.logprobs, atol=1e-4)


def by_name(sequences):
    return sorted(sequences, key=lambda s: (s.prompt_id, s.sample))


@pytest.fixture(scope="module")
def whole(still):
    return still.run(PARAMS, WAVE)


def test_a_wave_is_what_teacher_forcing_and_the_sequences_numbers_say(whole):
    check(PARAMS, WAVE, whole)
    assert {s.finish_reason for s in whole} == {"stop", "length"}  # else this wave shows too little


@pytest.mark.slow
def test_a_warm_up_can_be_stopped_between_buckets(moving):
    looks = []
    with pytest.raises(SamplingStopped):
        moving.warm_up(PARAMS, WAVE, lambda: bool(looks.append(None) or len(looks) == 2))
    assert len(looks) == 2


@pytest.mark.slow
def test_nothing_compiles_after_warm_up_whatever_the_wave(moving, compiled):
    moving.warm_up(PARAMS, WAVE)
    other = weights(1)
    teacher(other, np.zeros((1, 32), np.int32), 1.0)
    before = len(compiled)
    waves = [
        WAVE,
        dataclasses.replace(WAVE, prompts=PROMPTS[:1], prompt_ids=(9,), stop_ids=frozenset(), samples=2),
        dataclasses.replace(WAVE, prompts=PROMPTS[1:3], prompt_ids=(4, 1), temperature=0.7, seed=8, samples=3),
        dataclasses.replace(WAVE, max_tokens=8, samples=2),
    ]
    results = [moving.run(params, wave) for wave in waves for params in (PARAMS, other)]
    assert compiled[before:] == []
    for wave, (old, new) in zip(waves, zip(results[::2], results[1::2])):
        check(PARAMS, wave, old)
        check(other, wave, new)  # a weight update reaches the next wave
        assert any(len(a.tokens) != len(b.tokens) or (a.tokens != b.tokens).any() for a, b in zip(old, new))


@pytest.mark.slow
def test_a_long_cap_needs_few_programs_to_change_buckets(compiled):
    """Rows change at one length, lengths rung by rung: linear in the number of buckets, not its square."""
    sampler = Sampler(
        CONFIG, layout(1, 1, 1), SamplerSettings(rows=2, lanes=2, chunk=16, prompt_bucket=8, completion_bucket=4)
    )
    # A chunk of 16 over buckets of 4, 8 and 16: lengths go down two rungs at once.
    wave = dataclasses.replace(WAVE, max_tokens=16, stop_ids=frozenset())
    moves = sampler._programs.move._cache_size()
    sampler.warm_up(PARAMS, wave)
    assert sampler._programs.move._cache_size() - moves <= 3 + 2 * 2 * 2  # fewer where other tests have compiled some
    before = len(compiled)
    results = sampler.run(PARAMS, wave)
    assert compiled[before:] == []
    assert {len(r.tokens) for r in results} == {16}


def test_another_sampler_of_the_same_kind_compiles_nothing(still, compiled, whole):
    twin = Sampler(CONFIG, layout(1, 1, 1), still.settings)
    twin._row_buckets = still._row_buckets
    before = len(compiled)
    assert_same_bits(twin.run(PARAMS, WAVE), whole)
    assert compiled[before:] == []


def test_slots_refills_and_moves_change_no_token(moving, whole):
    assert_close(moving.run(PARAMS, WAVE), whole)


def test_a_sequences_bits_do_not_depend_on_slot_or_neighbours(still, whole):
    order = [3, 0, 4, 2, 1]
    shuffled = dataclasses.replace(
        WAVE, prompts=tuple(PROMPTS[i] for i in order), prompt_ids=tuple(WAVE.prompt_ids[i] for i in order)
    )
    assert_same_bits(by_name(still.run(PARAMS, shuffled)), by_name(whole))
    alone = dataclasses.replace(WAVE, prompts=PROMPTS[2:3], prompt_ids=(30,))
    assert_same_bits(still.run(PARAMS, alone), [s for s in whole if s.prompt_id == 30])
    later = dataclasses.replace(WAVE, first_sample=3, samples=3)
    expected = [s for s in whole if s.sample >= 3]
    assert_same_bits([s for s in still.run(PARAMS, later) if s.sample < 5], expected)


@pytest.mark.parametrize("max_tokens", [1, 7, 8, 9, 15, 16])
def test_completions_end_at_the_borders_of_buckets(moving, max_tokens):
    wave = dataclasses.replace(WAVE, max_tokens=max_tokens, stop_ids=frozenset(), samples=2)
    sequences = moving.run(PARAMS, wave)
    check(PARAMS, wave, sequences)
    assert {len(s.tokens) for s in sequences} == {max_tokens}


@pytest.mark.slow
def test_prompts_on_both_sides_of_a_bucket(still):
    longer = np.arange(6, 15, dtype=np.int32)
    wave = dataclasses.replace(WAVE, prompts=(PROMPTS[1], longer, PROMPTS[0]), prompt_ids=(7, 1, 11), samples=2)
    check(PARAMS, wave, still.run(PARAMS, wave))


def test_greedy_is_the_argmax_with_logprobs_at_temperature_one(still):
    wave = dataclasses.replace(WAVE, temperature=0.0, samples=2)
    sequences = still.run(PARAMS, wave)
    check(PARAMS, wave, sequences)
    assert all((a.tokens == b.tokens).all() for a, b in zip(sequences[::2], sequences[1::2]))


def test_a_restricted_wave_keeps_to_its_tokens_and_scores_the_full_softmax(still):
    wave = dataclasses.replace(WAVE, top_k=3, top_p=0.9, temperature=1.5, samples=3)
    sequences = still.run(PARAMS, wave)
    scored = forced(PARAMS, sequences, 1.5)
    ranks = [
        (shares > shares[np.arange(len(s.tokens)), s.tokens][:, None]).sum(-1) for s, (_, shares) in zip(sequences, scored)
    ]
    assert set(np.concatenate(ranks)) == {0, 1, 2}
    for s, (logprobs, _) in zip(sequences, scored):
        np.testing.assert_allclose(s.logprobs, logprobs, atol=1e-4)


def test_each_sequence_is_handed_out_once_while_sampling_goes_on(moving):
    handed, progress = [], []
    result = moving.run(
        PARAMS, WAVE, handed.append, on_progress=lambda done, tokens: progress.append((done, tokens, len(handed)))
    )
    assert sorted(map(id, handed)) == sorted(map(id, result))
    assert progress == sorted(progress) and 0 < progress[-2][0] < len(result)
    assert all(done == seen for done, _, seen in progress)


def test_sampling_stops_between_chunks_and_the_sampler_can_go_on(moving, whole):
    asked = []

    def stop():
        asked.append(1)
        return len(asked) == 3

    with pytest.raises(SamplingStopped):
        moving.run(PARAMS, WAVE, should_stop=stop)
    assert len(asked) == 3
    assert_close(moving.run(PARAMS, WAVE, should_stop=lambda: False), whole)


@pytest.mark.parametrize("samples", [1, 5])
def test_a_prompt_is_prefilled_once_whatever_its_samples(still, samples, monkeypatch):
    filled, fill = [], still._programs.fill

    def counting(*arguments, tokens, rows, **keywords):
        filled.append((tokens.shape, int(np.sum(rows < 3))))
        return fill(*arguments, tokens=tokens, rows=rows, **keywords)

    monkeypatch.setattr(still._programs, "fill", counting)
    still.run(PARAMS, dataclasses.replace(WAVE, samples=samples))
    assert sum(count for _, count in filled) == len(PROMPTS)
    assert {shape for shape, _ in filled} == {(3, 8)}


def decode_memory(made, config, length):
    """What ``decode`` of sixteen lanes takes, as the compiler says."""
    with ONE.use():
        state = jax.eval_shape(lambda: made._empty(4, 4, 8, length))
        scalars = jax.eval_shape(lambda: (jnp.zeros(16, jnp.int32), *(jnp.int32(0),) * 3))
        decode = made.decode.lower(
            jax.eval_shape(made.decoding_params, models.abstract_params(config)),
            state=state,
            distribution=sampling.Distribution(jax.ShapeDtypeStruct((), jnp.float32)),
            limits=Limits(*scalars),
        )
        return decode.compile().memory_analysis()


@pytest.mark.parametrize("layers", [2, LAYERS_IN_A_LOOP + 1], ids=["by layer", "in stacks"])
def test_the_state_is_donated_and_not_copied(layers):
    """Temporary memory is less than the cache: of the stacks one layer's slice is copied, layer by layer nothing is."""
    config = dataclasses.replace(CONFIG, num_hidden_layers=layers)
    made = Sampler(config, ONE)._programs
    assert made.by_layer == (layers == 2)
    cache_bytes = 2 * layers * 16 * 2 * 512 * 4 * 4  # keys and values, layers, lanes, heads, length, width, float32
    memory = decode_memory(made, config, 512)
    assert memory.alias_size_in_bytes > cache_bytes
    assert memory.temp_size_in_bytes < 0.75 * cache_bytes


@pytest.mark.parametrize("tied", [True, False])
def test_layer_by_layer_no_weight_is_copied(tied):
    """Temporary memory is less than the smallest matrix: neither a slice of a stack, nor an output kernel with its heads and
    their dimensions the other way round, nor the embedding's transpose."""
    sizes = dict(vocab_size=1024, hidden_size=256, intermediate_size=512, num_hidden_layers=3, head_dim=64)
    config = dataclasses.replace(CONFIG, **sizes, num_key_value_heads=4, tie_word_embeddings=tied)
    memory = decode_memory(Sampler(config, ONE)._programs, config, 16)
    cache_bytes = 2 * 3 * 16 * 4 * 16 * 64 * 4
    assert memory.alias_size_in_bytes > cache_bytes
    assert memory.temp_size_in_bytes < 256 * 256 * 4 + memory.output_size_in_bytes - memory.alias_size_in_bytes


class Elsewhere(sharding.Layout):
    """A mesh of some accelerator, as far as choosing goes."""

    platform = "tpu"


def test_the_cache_in_stacks_gives_the_same_and_is_chosen_by_the_meshs_platform(whole, still):
    sampler = Sampler(CONFIG, Elsewhere(ONE.mesh, ONE.rules), still.settings)
    sampler._row_buckets = still._row_buckets
    assert still._programs.by_layer and not sampler._programs.by_layer
    assert_close(sampler.run(PARAMS, WAVE), whole)


@pytest.mark.parametrize(
    "wrong, named",
    [
        (dict(max_tokens=60), "max_position_embeddings 64"),
        (dict(stop_ids=frozenset(range(17))), "at most 16"),
        (dict(prompts=(np.array([24]),), prompt_ids=(1,)), "vocabulary of 24"),
        (dict(prompts=(np.array([-1]),), prompt_ids=(1,)), "vocabulary of 24"),
    ],
)
def test_what_the_model_cannot_hold_is_refused_before_anything_runs(still, wrong, named):
    with pytest.raises(ValueError, match=named):
        still.run(PARAMS, dataclasses.replace(WAVE, **wrong))


@pytest.mark.slow
@pytest.mark.parametrize("sizes", [(2, 2, 2), (4, 1, 2), (8, 1, 1)])
def test_a_mesh_changes_no_token(sizes, whole, capfd):
    where = layout(*sizes)
    sampler = Sampler(CONFIG, where, SamplerSettings(rows=4, lanes=2, chunk=6, prompt_bucket=8, completion_bucket=8))
    params = weights(0, where)
    assert_close(sampler.run(params, WAVE), whole)
    assert "Involuntary full rematerialization" not in capfd.readouterr().err

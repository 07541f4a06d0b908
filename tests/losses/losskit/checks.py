"""The losses under test against the oracles. ``L`` is the module: the package, or a mutated copy of it."""

from __future__ import annotations

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np

from losskit import oracle_policy
from losskit.algorithms import ALGORITHMS
from losskit.batches import (
    NAMES,
    Layout,
    by_sequence,
    lay_out,
    one_per_row,
    outside,
    packed,
    places,
    random_sequences,
    weigh,
)
from losskit.laws import Subject, base

CHOICES = {
    "ratio": ("token", "sequence", "sequence_token", "geometric"),
    "surrogate": ("clip", "dual_clip", "cispo", "sapo", "none"),
    "correction": ("none", "truncate", "mask", "reject"),
    "correction_level": ("token", "sequence", "geometric"),
    "kl": ("none", "k1", "k2", "k3", "k3_unbiased"),
    "off_policy_delta": (0.0, 0.15),
    "entropy_coefficient": (0.0, 0.07),
}
# No number is a default, and low and high differ: a knob that is ignored shows.
NUMBERS = {
    "clip_low": 0.13,
    "clip_high": 0.31,
    "dual_clip": 1.6,
    "tau_positive": 0.8,
    "tau_negative": 1.3,
    "correction_low": 0.7,
    "correction_high": 1.4,
    "kl_coefficient": 0.3,
}
COMPOSITIONS = [dict(zip(CHOICES, values)) | NUMBERS for values in itertools.product(*CHOICES.values())]


def sample_of_compositions(count: int, seed: int = 0) -> list[dict]:
    """Random compositions in which every pair of choices occurs, as far as ``count`` allows; the pairs come first."""
    rng = np.random.default_rng(seed)
    missing = {
        frozenset(pair)
        for (a, xs), (b, ys) in itertools.combinations(CHOICES.items(), 2)
        for pair in itertools.product([(a, x) for x in xs], [(b, y) for y in ys])
    }
    out = []
    while len(out) < count:
        tries = [COMPOSITIONS[i] for i in rng.integers(0, len(COMPOSITIONS), 60)]
        pairs = [{frozenset(p) for p in itertools.combinations(((k, t[k]) for k in CHOICES), 2)} for t in tries]
        best = max(range(len(tries)), key=lambda i: len(pairs[i] & missing))
        missing -= pairs[best]
        out.append(tries[best])
    return out


def name_of(composition: dict) -> str:
    return "-".join(str(composition[k]) for k in CHOICES)


WIDTH = 24


def close(found, expected, scale, what, tolerance=1e-12) -> None:
    worst = np.max(np.abs(np.asarray(found, np.float64) - np.asarray(expected, np.float64)), initial=0)
    assert worst <= tolerance * scale, f"{what}: off by {worst:.3g} where {scale:.3g} is the scale: {found} for {expected}"


def differentiated(function, positions=0):
    """``(value, metrics), gradient`` in one small program, where each operation by itself would be compiled too."""
    return jax.jit(jax.value_and_grad(function, positions, has_aux=True))


def value_and_gradients(L, arrays, config, on_policy=False):
    """``(loss, gradient by logprobs, gradient by entropy, metrics)`` in float64, everything given."""

    def loss(logprobs, entropy):
        return L.grpo_loss(
            logprobs,
            None if on_policy else arrays["old_logprobs"],
            arrays["advantages"],
            arrays["token_weight"],
            ref_logprobs=arrays["ref_logprobs"],
            sampler_logprobs=arrays["sampler_logprobs"],
            sequence_index=arrays["sequence_index"],
            entropy=entropy,
            config=config,
        )

    with jax.enable_x64(True):
        arrays = {name: jnp.asarray(a) for name, a in arrays.items()}
        (value, metrics), gradients = jax.value_and_grad(loss, (0, 1), has_aux=True)(arrays["logprobs"], arrays["entropy"])
        return float(value), *map(np.asarray, gradients), {name: float(v) for name, v in metrics.items()}


def standard(sequences):
    """``(layout, arrays)`` in the one shape [4, 24]: each operation of an eager loss is compiled once."""
    rows = packed(sequences, WIDTH).rows
    layout = Layout(rows, WIDTH, "between", 4 - len(rows))
    return layout, lay_out(sequences, layout)


def composition(L, choice: dict, seed: int = 0, on_policy: bool = False, sequences=None) -> None:
    """Loss, gradients and metrics of one composition are the oracle's, in packed rows with NaN in the padding."""
    if sequences is None:
        sequences = random_sequences(seed, count=9)
        weigh(sequences, ("sequence_mean", "token_mean", "constant_length")[seed % 3], left_out=(6,))
        for s in (sequences[0], sequences[7]):  # a token that does not count among others that do
            s.weight[len(s) // 2] = 0.0
    layout, arrays = standard(sequences)
    loss, scale, gradients, entropy_gradients, metrics = oracle_policy.policy_loss(sequences, choice, on_policy)
    found = value_and_gradients(L, arrays, L.PolicyLoss(**choice), on_policy)
    scale = max(scale, 1e-30)
    close(found[0], loss, scale, "loss")
    for what, one, other in (("logprobs", found[1], gradients), ("entropy", found[2], entropy_gradients)):
        other = np.concatenate([np.asarray(x, float) for x in other])
        assert (outside(one, sequences, layout) == 0).all(), f"padding has a gradient by {what}"
        close(by_sequence(one, sequences, layout), other, max(np.linalg.norm(other), 1e-9), f"gradient by {what}")
    assert found[3].keys() == metrics.keys(), f"metrics {sorted(found[3].keys() ^ metrics.keys())} are in one only"
    for name, value in metrics.items():
        close(found[3][name], value, max(1.0, abs(value)), f"metric {name}")


def extreme_sequences() -> list:
    """Each policy on some token as far from the others as can be: beyond the bound, beyond f32's range, impossible."""
    sequences = random_sequences(0, count=9)
    far = [25.0, -25.0, 100.0, -100.0, 1e30, -1e30, -math.inf]
    for k, (s, name) in enumerate((s, name) for s in sequences for name in NAMES[:4]):
        values = getattr(s, name)
        values[k % len(s)] = values[k % len(s)] + far[k % len(far)]
    for name in NAMES[:4]:
        getattr(sequences[3], name)[0] = -math.inf
    weigh(sequences)
    return sequences


def own_part_that_is_nan_on_zeros(L) -> None:
    """A part of one's own is given zeros where nothing is counted; what it makes of them must not be read."""
    sequences = random_sequences(0)
    weigh(sequences)
    _, arrays = standard(sequences)

    def surrogate(ratio, tokens, config):
        return ratio * tokens.advantages / tokens.old_logprobs, jnp.zeros(ratio.shape, bool)

    loss, gradient, _, _ = value_and_gradients(L, arrays, L.PolicyLoss(surrogate=surrogate, kl="none"))
    expected = sum(
        -w * math.exp(new - old) * s.advantage / old
        for s in sequences
        for w, new, old in zip(s.weight, s.logprobs, s.old_logprobs)
    )
    close(loss, expected, max(abs(expected), 1e-3), "the loss of a part of one's own")
    assert np.isfinite(gradient[arrays["token_weight"] > 0]).all()


def slope(function, x, place) -> float:
    """One entry of the gradient."""
    return float(jax.grad(function)(jnp.asarray(x, jnp.float32))[place])


def values(subject, algorithm: str, composition: dict, seed: int = 3) -> None:
    """Loss and gradient of a loss known by its signature alone are those of the named algorithm with these numbers."""
    subject = subject.with_sequences(random_sequences(seed, count=8))
    weigh(subject.sequences, ALGORITHMS[algorithm][1] if algorithm in ALGORITHMS else "sequence_mean")
    loss, gradient, _ = subject.update(base(subject))
    expected, scale, gradients, _, _ = oracle_policy.policy_loss(subject.sequences, composition)
    numbers = ", ".join(f"{name}={value}" for name, value in composition.items())
    expected_gradient = np.concatenate([np.asarray(g) for g in gradients])
    norm = np.linalg.norm(expected_gradient)
    far = np.linalg.norm(gradient - expected_gradient)
    assert abs(loss - expected) <= 1e-6 * scale, f"the loss {loss!r} is not {algorithm}'s, {expected!r}, with {numbers}"
    assert far <= 2e-6 * norm, f"the gradient is not {algorithm}'s with {numbers}: it is off by {far / norm:.2g} of its norm"


LAYOUTS = {
    "one to a row": lambda s: one_per_row(s, width=10, empty=12 - len(s)),
    "one to a row, shuffled, on the left": lambda s: Layout(
        tuple((int(i),) for i in np.random.default_rng(2).permutation(len(s))), 10, "left", 12 - len(s)
    ),
    "packed": lambda s: _wide(s, None, "right"),
    "packed in another order, padding in between": lambda s: _wide(
        s, np.random.default_rng(3).permutation(len(s)), "between"
    ),
    "packed backwards, padding on the left": lambda s: _wide(s, range(len(s))[::-1], "left"),
    "one to a wide row": lambda s: Layout(tuple((i,) for i in range(len(s))), 24, "between", 8 - len(s)),
}


def _wide(sequences, order, side) -> Layout:
    rows = packed(sequences, 24, order).rows
    return Layout(rows, 24, side, 8 - len(rows))


@functools.cache
def _subject(L, composition, dtype, seed) -> Subject:
    """One for all rules: what is compiled does not depend on the weights."""
    return Subject(functools.partial(L.grpo_loss, config=L.PolicyLoss(**dict(composition))), dtype=dtype, seed=seed)


def invariant_1(L, composition: dict, rule: str, dtype=np.float32, seed: int = 11, meshes=()) -> None:
    """Loss, gradient and merged metrics of an update are the oracle's, however its sequences lie in rows, micro-batches and
    on devices; the weights are those of ``token_weights``."""
    subject = _subject(L, tuple(composition.items()), dtype, seed)
    sequences = subject.sequences
    left_out = np.array([i != 2 for i in range(len(sequences))])  # an overlong one
    weigh(sequences, rule, length=8, left_out=(2,))
    loss, scale, gradients, _, metrics = oracle_policy.policy_loss(sequences, composition)
    gradient = np.concatenate([np.asarray(g) for g in gradients])
    for what, layout in LAYOUTS.items():
        arrays = subject.arrays(layout(sequences))
        weight = L.token_weights(arrays["completion_mask"], arrays["sequence_index"], rule=rule, length=8, include=left_out)
        close(weight, arrays["token_weight"], 1, f"token weights, {what}", 1e-7)
        rows = len(weight)
        for some, sharding in [(n, None) for n in (2, rows)] + [(rows, m) for m in meshes]:
            if sharding is not None and rows % 8:
                continue
            found, slopes, parts = subject.update(layout(sequences), some, sharding=sharding)
            how = f"{what}, {some} rows at once, {'one device' if sharding is None else sharding}"
            close(found, loss, scale, f"loss, {how}", subject.tolerance)
            far = np.linalg.norm(slopes - gradient)
            assert far <= subject.tolerance * np.linalg.norm(gradient), f"the gradient is off by {far}, {how}"
            assert (subject.beside == 0).all(), f"a gradient in the padding, {how}"
            merged = L.merge_metrics(parts)
            assert merged.keys() == metrics.keys()
            for name, value in metrics.items():
                close(merged[name], value, max(1.0, abs(value)), f"metric {name}, {how}", subject.tolerance)


def met(choices: list[dict], seed: int = 0) -> dict[str, float]:
    """How much of what can happen does happen on the random sequences of ``composition``: the least share over seeds."""
    out = {}
    for choice in choices:
        sequences = random_sequences(seed, count=9)
        weigh(sequences)
        for name, value in oracle_policy.policy_loss(sequences, choice)[4].items():
            out[name] = max(out.get(name, 0.0), value)
    return out


def rows_of(values: list[list[float]], fill=float("nan"), dtype=np.float64) -> np.ndarray:
    """``[len(values), longest + 1]``: each list a row, the rest filled."""
    out = np.full((len(values), max(map(len, values), default=0) + 1), fill, dtype)
    for row, some in zip(out, values):
        row[: len(some)] = some
    return out


def layout_of(sequences, width, **keywords):
    """Arrays and where each sequence lies, for losses that are no policy loss."""
    layout = packed(sequences, width, **keywords)
    return layout, lay_out(sequences, layout), places(sequences, layout)

"""The losses under test against the oracles. ``L`` is the module: the package, or a mutated copy of it."""

from __future__ import annotations

import itertools

import jax
import jax.numpy as jnp
import numpy as np
from losskit import oracle_policy
from losskit.batches import Layout, by_sequence, lay_out, packed, places, random_sequences, weigh

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
        weigh(sequences, ("sequence_mean", "token_mean", "constant_length")[seed % 3], left_out=(5,))
        for s in (sequences[0], sequences[7]):  # a token that does not count among others that do
            s.weight[len(s) // 2] = 0.0
    layout, arrays = standard(sequences)
    loss, scale, gradients, entropy_gradients, metrics = oracle_policy.policy_loss(sequences, choice, on_policy)
    found = value_and_gradients(L, arrays, L.PolicyLoss(**choice), on_policy)
    scale = max(scale, 1e-30)
    close(found[0], loss, scale, "loss")
    for what, one, other in (("logprobs", found[1], gradients), ("entropy", found[2], entropy_gradients)):
        other = np.concatenate([np.asarray(x, float) for x in other])
        close(by_sequence(one, sequences, layout), other, max(np.linalg.norm(other), 1e-30), f"gradient by {what}")
    assert found[3].keys() == metrics.keys(), f"metrics {sorted(found[3].keys() ^ metrics.keys())} are in one only"
    for name, value in metrics.items():
        close(found[3][name], value, max(1.0, abs(value)), f"metric {name}")


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

"""The policy losses from the published formulas, per sequence and token, with numbers alone.

Derivatives are taken by the complex step, ``f'(x) = Im f(x + ih) / h``: exact to rounding, and it knows nothing of autodiff.
Where a formula has a stop-gradient the unperturbed number stands (``anchor``). Comparisons look at real parts.
"""

from __future__ import annotations

import cmath
import math
from types import SimpleNamespace

BOUND = 20.0  # the documented cut of log-ratios
FLOOR = -1e4  # the documented least log-probability

DEFAULTS = {
    "ratio": "token",
    "surrogate": "clip",
    "clip_low": 0.2,
    "clip_high": 0.2,
    "dual_clip": 3.0,
    "tau_positive": 1.0,
    "tau_negative": 1.05,
    "correction": "none",
    "correction_level": "token",
    "correction_low": 0.5,
    "correction_high": 2.0,
    "off_policy_delta": 0.0,
    "kl": "k3",
    "kl_coefficient": 1e-3,
    "entropy_coefficient": 0.0,
}


def real(z):
    return z.real if isinstance(z, complex) else z


def at_least(z, bound):
    return z if real(z) >= bound else bound


def at_most(z, bound):
    return z if real(z) <= bound else bound


def smaller(a, b):
    return a if real(a) <= real(b) else b


def cut(z):
    return at_most(at_least(z, -BOUND), BOUND)


def mean(values):
    return sum(values) / len(values)


def token_losses(s, new, anchor, old, c):
    """The loss of each counted token of sequence ``s``, and what the metrics need.

    new: log-probabilities that are differentiated; anchor: the same where a formula stops the gradient; old: those of the
    policy that sampled.
    """
    A, n = s.advantage, len(new)
    low, high = c["clip_low"], c["clip_low"] if c["clip_high"] < 0 else c["clip_high"]
    ratios, held = importance_ratios(c["ratio"], new, anchor, old, A, low, high)
    still, _ = importance_ratios(c["ratio"], anchor, anchor, old, A, low, high)

    # surrogates, to be maximised
    objective, clipped = [], []
    for t, r in enumerate(ratios):
        free = r * A
        if c["surrogate"] in ("clip", "dual_clip"):
            inside = at_most(at_least(r, 1 - low), 1 + high) * A
            value, was = smaller(free, inside), real(inside) < real(free)
            if c["surrogate"] == "dual_clip" and A < 0 and real(value) < c["dual_clip"] * A:
                value, was = c["dual_clip"] * A, True
        elif c["surrogate"] == "cispo":
            constant = min(max(real(still[t]), 1 - low), 1 + high)
            value, was = constant * A * new[t], constant != real(still[t])
        elif c["surrogate"] == "sapo":
            tau = c["tau_positive"] if A > 0 else c["tau_negative"]
            value, was = 4 / tau / (1 + cmath.exp(-tau * (r - 1))) * A, False
        else:
            value, was = free, False
        objective.append(value)
        clipped.append(was)

    # weights for the sampler's difference; constants
    correction = [1.0] * n
    if c["correction"] != "none":
        gaps = [cut(real(old[t]) - s.sampler_logprobs[t]) for t in range(n)]
        if c["correction_level"] == "token":
            k = [math.exp(g) for g in gaps]
        elif c["correction_level"] == "sequence":
            k = [math.exp(cut(sum(gaps)))] * n
        else:
            k = [math.exp(mean(gaps))] * n
        inside = [c["correction_low"] <= x <= c["correction_high"] for x in k]
        correction = {
            "truncate": [min(x, c["correction_high"]) for x in k],
            "mask": [x if ok else 0.0 for x, ok in zip(k, inside)],
            "reject": [1.0 if ok else 0.0 for ok in inside],
        }[c["correction"]]
    keep = 1.0
    if c["off_policy_delta"] and A < 0:
        if mean([cut(real(old[t]) - anchor[t]) for t in range(n)]) > c["off_policy_delta"]:
            keep = 0.0

    losses = []
    for t in range(n):
        value = -correction[t] * keep * objective[t]
        if c["kl"] != "none" and c["kl_coefficient"] > 0:
            value = value + c["kl_coefficient"] * divergence(c["kl"], new[t], s.ref_logprobs[t], old[t])
        if c["entropy_coefficient"]:
            value = value - c["entropy_coefficient"] * s.entropy[t]
        losses.append(value)
    return losses, {"ratios": ratios, "clipped": clipped, "held": held, "correction": correction, "keep": keep}


def importance_ratios(kind, new, anchor, old, A, low, high):
    """One per token, and where a token's own log-ratio was cut (GMPO)."""
    n = len(new)
    logs, held = [cut(new[t] - old[t]) for t in range(n)], [False] * n
    if kind == "token":
        return [cmath.exp(x) for x in logs], held
    if kind == "sequence":  # GSPO eq. 7: geometric mean of token ratios
        return [cmath.exp(mean(logs))] * n, held
    if kind == "sequence_token":  # GSPO eq. 14
        fixed = math.exp(mean([cut(anchor[t] - old[t]) for t in range(n)]))
        return [fixed * cmath.exp(new[t] - anchor[t]) for t in range(n)], held
    # GMPO: per token the smaller of rho sgn(A) and clip(rho) sgn(A), in logarithms; then the geometric mean
    sign = -1 if A < 0 else 1
    kept = [sign * smaller(sign * x, sign * at_most(at_least(x, -low), high)) for x in logs]
    return [cmath.exp(mean(kept))] * n, [real(k) != real(x) for k, x in zip(kept, logs)]


def divergence(kind, new, ref, old):
    if kind == "k1":
        return cut(new - ref)
    if kind == "k2":
        return cut(new - ref) ** 2 / 2
    quotient = cmath.exp(cut(ref - new))  # pi_ref / pi
    k3 = quotient - cut(ref - new) - 1
    return k3 if kind == "k3" else cmath.exp(cut(new - old)) * k3


def policy_loss(sequences, composition, on_policy=False):
    """Loss, sum of absolute token losses, gradients by log-probabilities and entropies (lists per sequence), metrics.

    ``on_policy``: no old log-probabilities are given; they are the policy's own, held still.
    """
    c = {**DEFAULTS, **composition}
    assert c.keys() == DEFAULTS.keys(), c
    loss, scale, gradients, entropy_gradients = 0.0, 0.0, [], []
    figures = Figures()
    for s in sequences:
        counted = [t for t in range(len(s)) if s.weight[t] != 0]
        s_counted = _only(s, counted)
        new = s_counted.logprobs
        old = list(new) if on_policy else s_counted.old_logprobs
        weights = [s.weight[t] for t in counted]
        gradient = [0.0] * len(s)
        if counted:
            values, parts = token_losses(s_counted, new, new, old, c)
            loss += sum(w * real(v) for w, v in zip(weights, values))
            scale += sum(abs(w * real(v)) for w, v in zip(weights, values))
            for k, t in enumerate(counted):
                step = 1e-30
                moved = [x + (1j * step if j == k else 0j) for j, x in enumerate(new)]
                shifted, _ = token_losses(s_counted, moved, new, old, c)
                if s.logprobs[t] > FLOOR:  # below it nothing moves
                    gradient[t] = sum(w * v for w, v in zip(weights, shifted)).imag / step
            figures.add(s_counted, new, old, weights, parts, c)
        gradients.append(gradient)
        entropy_gradients.append([-c["entropy_coefficient"] * w for w in s.weight])
    return loss, scale, gradients, entropy_gradients, figures.finish(loss, c)


def _only(s, counted):
    """The counted tokens of a sequence; log-probabilities no lower than the floor."""
    out = SimpleNamespace(advantage=s.advantage, entropy=[s.entropy[t] for t in counted])
    for name in ("logprobs", "old_logprobs", "ref_logprobs", "sampler_logprobs"):
        setattr(out, name, [max(getattr(s, name)[t], FLOOR) for t in counted])
    return out


class Figures:
    """The metrics that researchers look at, as plain weighted sums."""

    def __init__(self):
        self.sums = dict.fromkeys(
            ("ratio_mean", "clip_low", "clip_high", "masked", "kl_old", "kl_ref", "entropy"), 0.0
        ) | dict.fromkeys(("sampler_trainer_mean", "correction_mean"), 0.0)
        self.weight, self.tokens, self.clamped = 0.0, 0, 0
        self.ratio_max = self.sampler_trainer_max = 0.0

    def add(self, s, new, old, weights, parts, c):
        for t, w in enumerate(weights):
            r = real(parts["ratios"][t])
            gap = abs(old[t] - s.sampler_logprobs[t])
            to_ref, to_old = cut(s.ref_logprobs[t] - new[t]), cut(new[t] - old[t])
            values = {
                "ratio_mean": r,
                "clip_low": (parts["clipped"][t] and r < 1) or (parts["held"][t] and new[t] < old[t]),
                "clip_high": (parts["clipped"][t] and r > 1) or (parts["held"][t] and new[t] > old[t]),
                "masked": parts["correction"][t] * parts["keep"] == 0,
                "correction_mean": parts["correction"][t],
                "kl_ref": math.exp(to_ref) - to_ref - 1,
                "kl_old": math.exp(to_old) - to_old - 1,
                "entropy": s.entropy[t],
                "sampler_trainer_mean": gap,
            }
            for name, value in values.items():
                self.sums[name] += w * value
            self.weight += w
            self.tokens += 1
            self.ratio_max = max(self.ratio_max, r)
            self.sampler_trainer_max = max(self.sampler_trainer_max, gap)
            far = [new[t] - old[t], new[t] - s.ref_logprobs[t]]
            if c["correction"] != "none":
                far.append(old[t] - s.sampler_logprobs[t])
            self.clamped += any(abs(x) > BOUND for x in far)

    def finish(self, loss, c):
        out = {name: value / self.weight if self.weight else 0.0 for name, value in self.sums.items()}
        if c["correction"] == "none":
            del out["correction_mean"]
        return out | {
            "ratio_max": self.ratio_max,
            "sampler_trainer_max": self.sampler_trainer_max,
            "weight": self.weight,
            "tokens": self.tokens,
            "clamped": self.clamped,
            "loss": loss,
        }

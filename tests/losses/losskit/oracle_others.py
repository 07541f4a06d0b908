"""The other losses from their formulas, with numbers alone; derivatives by the complex step (see ``oracle_policy``)."""

from __future__ import annotations

import cmath
import math

STEP = 1e-30


def derivative(function, x):
    """The gradient of a real function of a list of numbers."""
    return [
        function([v + (1j * STEP if j == i else 0j) for j, v in enumerate(x)]).imag / STEP for i in range(len(x))
    ]  # fmt: skip


def real(z):
    return z.real if isinstance(z, complex) else z


def log_sigmoid(z):
    """``log(1 / (1 + exp(-z)))`` without overflow."""
    if real(z) > 0:
        return -log1p(cmath.exp(-z))
    return z - log1p(cmath.exp(z))


def log1p(z):
    """``log(1 + z)`` to rounding for small z too, real part and tangent."""
    return complex(math.log1p(z.real), z.imag / (1 + z.real))


def log_softmax(logits):
    top = max(real(z) for z in logits)
    total = cmath.log(sum(cmath.exp(z - top) for z in logits if real(z) > -math.inf)) + top
    return [z - total if real(z) > -math.inf else -math.inf for z in logits]


# -------------------------------------------------------------------------------------------- cross-entropy
def cross_entropy(logprobs, weights):
    return sum(-w * x for w, x in zip(weights, logprobs) if w)


def mtp(depths, weights, positions, coefficient):
    """``depths[k - 1][t]``: what depth k says of token t (2412.19437 eq. 24-25). Returns loss and sum of weights."""
    loss = total = 0.0
    for k, row in enumerate(depths, start=1):
        for value, w, position in zip(row, weights, positions):
            if position >= 1 + k and w:
                loss += coefficient / len(depths) * w * -value
                total += w
    return loss, total


# -------------------------------------------------------------------------------------------- experts
def balance(tokens, chosen, experts_total):
    """``sum_e f_e P_e`` of one sequence (2412.19437 eq. 17-20): ``tokens[t][e]`` scores, ``chosen[t]`` expert ids."""
    T, K = len(tokens), len(chosen[0])
    value = 0.0
    for e in range(experts_total):
        f = experts_total / (K * T) * sum(e in picks for picks in chosen)
        P = sum(scores[e] / sum(scores) for scores in tokens) / T
        value = value + f * P
    return value


# -------------------------------------------------------------------------------------------- preference
def pairwise(chosen, rejected, margin):
    return -log_sigmoid(chosen - rejected - margin)


def pointwise(score, label):
    return -(label * log_sigmoid(score) + (1 - label) * log_sigmoid(-score))


def dpo(chosen, rejected, ref_chosen, ref_rejected, beta, smoothing):
    gap = beta * ((chosen - ref_chosen) - (rejected - ref_rejected))
    return -(1 - smoothing) * log_sigmoid(gap) - smoothing * log_sigmoid(-gap)


# -------------------------------------------------------------------------------------------- distillation
def kl(log_p, log_q, zero=-100.0):
    """``sum p (log p - log q)``; an impossible q counts as exp(zero)."""
    out = 0.0
    for a, b in zip(log_p, log_q):
        if real(a) > -math.inf:
            out = out + cmath.exp(a) * (a - (b if real(b) > -math.inf else zero))
    return out


def mixture(log_p, log_q, beta):
    """``log(beta p + (1 - beta) q)``."""
    out = []
    for a, b in zip(log_p, log_q):
        both = sum(f * cmath.exp(x) for f, x in ((beta, a), (1 - beta, b)) if real(x) > -math.inf)
        out.append(cmath.log(both) if both else -math.inf)
    return out


def divergence(student_logits, teacher_logits, kind, temperature=1.0, beta=0.5):
    student = log_softmax([z / temperature for z in student_logits])
    teacher = log_softmax([z / temperature for z in teacher_logits])
    if kind == "forward":
        return kl(teacher, student)
    if kind == "reverse":
        return kl(student, teacher)
    m = mixture(teacher, student, beta)
    return beta * kl(teacher, m) + (1 - beta) * kl(student, m)

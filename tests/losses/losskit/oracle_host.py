"""Advantages, token weights and returns from their definitions: lists of numbers, ``None`` for an ungraded sample."""

from __future__ import annotations

import math


def mean(values):
    return math.fsum(values) / len(values)


def std(values, ddof):
    if len(values) < 2:
        return 0.0
    m = mean(values)
    return math.sqrt(math.fsum((v - m) ** 2 for v in values) / (len(values) - ddof))


def graded(group):
    return [r for r in group if r is not None]


def speaks(group):
    """Whether a group tells samples apart: two graded ones that differ."""
    return len(set(graded(group))) > 1


def advantages(groups, normalize, ddof, epsilon):
    everything = [r for group in groups for r in graded(group)]
    centred = [
        [r - mean(graded(g)) if r is not None and speaks(g) else (None if r is None else 0.0) for r in g] for g in groups
    ]
    out = []
    for group, residues in zip(groups, centred):
        row = []
        for i, (reward, residue) in enumerate(zip(group, residues)):
            if reward is None or (normalize != "batch" and not speaks(group)):
                value = 0.0
            elif normalize == "std":  # GRPO
                value = residue / (std(graded(group), ddof) + epsilon)
            elif normalize == "none":  # Dr.GRPO
                value = residue
            elif normalize == "batch_std":  # Lite-PPO
                value = residue / (std(everything, ddof) + epsilon)
            elif normalize == "rloo":  # RLOO: the others' mean is the baseline
                value = reward - mean([r for j, r in enumerate(group) if j != i and r is not None])
            elif normalize == "batch":  # REINFORCE++ without a penalty in the reward
                different = len(set(everything)) > 1
                value = (reward - mean(everything)) / (std(everything, ddof) + epsilon) if different else 0.0
            else:  # REINFORCE++ with baseline
                value = residue / (std([x for row in centred for x in row if x is not None], ddof) + epsilon)
            row.append(value)
        out.append(row)
    return out


def gdpo(parts, weights, ddof, epsilon):
    """``parts``: name -> groups. GDPO: normalise each reward in its group, add with weights, then normalise over the batch."""
    normal = {name: advantages(parts[name], "std", ddof, epsilon) for name in weights}
    first = parts[next(iter(weights))]
    sums = [
        [None if r is None else math.fsum(w * normal[n][p][i] for n, w in weights.items()) for i, r in enumerate(group)]
        for p, group in enumerate(first)
    ]
    everything = [x for group in sums for x in graded(group)]
    if len(set(everything)) < 2:
        return [[0.0] * len(group) for group in first]
    m, s = mean(everything), std(everything, ddof)
    return [[0.0 if x is None else (x - m) / (s + epsilon) for x in group] for group in sums]


def returns(reward, penalties):
    """REINFORCE++: the reward less the penalties from this token on."""
    return [reward - math.fsum(penalties[t:]) for t in range(len(penalties))]


def whitened(values, ddof, epsilon):
    m, s = mean(values), std(values, ddof)
    return [(v - m) / (s + epsilon) if len(set(values)) > 1 else 0.0 for v in values]


def weights(lengths, rule, length):
    """One weight per token of each sequence; ``lengths``: completion tokens, None for a sequence that is left out."""
    here = [n for n in lengths if n]
    out = []
    for n in lengths:
        if not n:
            out.append(0.0)
        elif rule == "sequence_mean":
            out.append(1 / len(here) / n)
        elif rule == "token_mean":
            out.append(1 / sum(here))
        else:
            out.append(1 / len(here) / length)
    return out

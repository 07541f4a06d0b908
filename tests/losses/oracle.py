"""The losses again, from the formulas: per sequence, in Python loops and float64, sharing nothing with the package."""

import math
import statistics


def advantages(groups, normalize, ddof, epsilon):
    """``groups``: a list of lists of rewards, None where ungraded."""
    everything = [r for group in groups for r in group if r is not None]
    out = []
    for group in groups:
        graded = [r for r in group if r is not None]
        row = []
        for i, reward in enumerate(group):
            if reward is None or len(graded) < 2 or len(set(graded)) == 1:
                row.append(0.0)
                continue
            mean = sum(graded) / len(graded)
            std = statistics.stdev if ddof else statistics.pstdev
            if normalize == "std":
                row.append((reward - mean) / (std(graded) + epsilon))
            elif normalize == "none":
                row.append(reward - mean)
            elif normalize == "batch_std":
                row.append((reward - mean) / (std(everything) + epsilon))
            else:
                others = [r for j, r in enumerate(group) if j != i and r is not None]
                row.append(reward - sum(others) / len(others))
        out.append(row)
    return out


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


def grpo(sequences, low, high, kl, beta):
    """``sequences``: dicts of per-token lists ``new``, ``old``, ``ref`` and numbers ``advantage``, ``weight``.

    Returns the loss, the gradient per sequence and token, and metrics.
    """
    loss, gradients, total = 0.0, [], 0.0
    sums = dict.fromkeys(("ratio_mean", "clip_low", "clip_high", "kl_ref", "kl_old"), 0.0)
    ratio_max = 0.0
    for s in sequences:
        gradient = []
        for new, old, ref in zip(s["new"], s["old"], s["ref"]):
            w, a = s["weight"], s["advantage"]
            r = math.exp(new - old)
            nearest = min(max(r, 1 - low), 1 + high)
            clipped = nearest * a < r * a
            value = -(nearest * a if clipped else r * a)
            slope = 0.0 if clipped else -r * a
            if kl == "k1":
                value, slope = value + beta * (new - ref), slope + beta
            elif kl == "k2":
                value, slope = value + beta * (new - ref) ** 2 / 2, slope + beta * (new - ref)
            elif kl == "k3":
                quotient = math.exp(ref) / math.exp(new)
                value += beta * (quotient - math.log(quotient) - 1)
                slope += beta * (1 - quotient)
            loss += w * value
            gradient.append(w * slope)
            if w:
                total += w
                sums["ratio_mean"] += w * r
                sums["clip_low"] += w * (clipped and a < 0)
                sums["clip_high"] += w * (clipped and a > 0)
                sums["kl_ref"] += w * (math.exp(ref - new) - (ref - new) - 1)
                sums["kl_old"] += w * (r - math.log(r) - 1)
                ratio_max = max(ratio_max, r)
        gradients.append(gradient)
    return loss, gradients, {name: value / total for name, value in sums.items()} | {"ratio_max": ratio_max}

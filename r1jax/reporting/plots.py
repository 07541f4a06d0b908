"""The report's figures of a stage. One whose data is missing is left out."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from r1jax.reporting.collect import Stage
from r1jax.reporting.reward_models import reward_model
from r1jax.reporting.traces import Figure, benchmark_points, curve, curves, finite, make_figure, thin

PHASES = {
    "sample_s": "sampling",
    "reward_s": "rewards",
    "score_s": "scoring",
    "update_s": "updating",
    "checkpoint_s": "checkpoint",
    "evaluate_s": "benchmarks",
}


# ---------------------------------------------------------------------------------------------- what the paper shows
def accuracy(stage: Stage) -> Iterable[Figure]:
    """The paper's Figure 2, one per benchmark: pass@1 and the majority vote against steps, with their intervals."""
    for number, (benchmark, evaluations) in enumerate(stage.benchmarks().items()):
        k, problems = evaluations[-1].figures.get("samples"), evaluations[-1].figures.get("problems")
        traces = benchmark_points(evaluations, "pass@1", "pass@1", 0)
        if k != 1:
            traces += benchmark_points(evaluations, "cons@k", f"majority of {k}" if k else "majority", 1, "dash")
        if traces:
            each = f"{k} samples each" if k != 1 else "one sample each"
            known = isinstance(problems, int) and k
            caption = (
                f"Figure 2 of the paper. {problems:,} problems, {each}; bands: 95% intervals by problem." if known else ""
            )
            yield make_figure(
                f"accuracy-{number}",
                f"Accuracy on {benchmark}",
                caption,
                traces,
                yaxis={"tickformat": ".0%", "rangemode": "tozero"},
            )


def lengths(stage: Stage) -> Iterable[Figure]:
    """The paper's Figure 3: mean response length against steps, in training and on the benchmarks."""
    traces = curves(stage.updates, {"response_length_mean": "in training"})
    for number, (benchmark, evaluations) in enumerate(stage.benchmarks().items(), 1):
        traces += benchmark_points(evaluations, "mean_tokens", f"on {benchmark}", number, "dot")
    if traces:
        yield make_figure(
            "length",
            "Response length",
            "Figure 3 of the paper. Mean tokens of a response.",
            traces,
            y="tokens",
            yaxis={"rangemode": "tozero"},
        )


def reflection(stage: Stage) -> Iterable[Figure]:
    """How often the model checks itself, and after what."""
    traces = curves(stage.updates, {"reflection": "in training"})
    for number, (benchmark, evaluations) in enumerate(stage.benchmarks().items(), 1):
        traces += benchmark_points(evaluations, "reflection", f"on {benchmark}", number, "dot")
    if traces:
        caption = "Share of responses with a reflective word (wait, check, wrong, 等等, 不对 …)."
        yield make_figure("reflection", "Reflection", caption, traces, yaxis={"tickformat": ".0%", "rangemode": "tozero"})
    traces = curves(
        stage.updates, {"wait_after_miss": "after a failed try, in training", "wait_after_hit": "after a hit, in training"}
    )
    for benchmark, evaluations in list(stage.benchmarks().items())[:1]:  # the one asked most often; more would be a thicket
        traces += benchmark_points(evaluations, "wait_after_miss", f"after a failed try, {benchmark}", 0, "dot")
        traces += benchmark_points(evaluations, "wait_after_hit", f"after a hit, {benchmark}", 1, "dot")
    if traces:
        caption = "Share of tries followed by “wait”. Reflection that pays grows after a failed try and not after a hit."
        yield make_figure(
            "wait", "When it says “wait”", caption, traces, yaxis={"tickformat": ".0%", "range": [-0.02, 1.02]}
        )


# ---------------------------------------------------------------------------------------------- training
def rewards(stage: Stage) -> Iterable[Figure]:
    updates = stage.updates
    parts = {name: name.removeprefix("reward_") for name in updates if name.startswith("reward_") and name != "reward_mean"}
    if traces := curves(updates, {"reward_mean": "total", **parts}):
        yield make_figure(
            "reward", "Reward", "Mean over the graded samples of each rollout: the mix, and its parts unweighted.", traces
        )
    language = {name: parts[name] for name in parts if "language" in name}
    if traces := curves(updates, language):
        caption = "Share of a response's words that are of the asked language, mean over each rollout."
        yield make_figure("language", "Language consistency", caption, traces, yaxis={"tickformat": ".1%"})
    shares = {
        "accuracy": "right, of the graded (cut off: wrong)",
        "truncated": "cut off at the length cap",
        "ungraded": "ungraded",
        "zero_advantage_groups": "groups without a gradient (all equal)",
    }
    if traces := curves(updates, shares):
        yield make_figure(
            "shares",
            "What became of the samples",
            "Shares of each rollout.",
            traces,
            yaxis={"tickformat": ".0%", "rangemode": "tozero"},
        )


def hacking(stage: Stage) -> Iterable[Figure]:
    """Rewards that models give, beside what rules and plain measures say of the same samples."""
    updates = stage.updates
    means = [n for n in updates if n.startswith("model_reward_") and not n.endswith(("_length", "_spread"))]
    scored = {name: name.removeprefix("model_reward_") for name in means}
    if not scored:
        return
    yield make_figure("model_reward", "Rewards by models", "Mean over the samples that they score.", curves(updates, scored))
    spreads = {f"model_reward_{name}_spread": name for name in scored.values()}
    if traces := curves(updates, spreads):
        caption = "Standard deviation within groups: what advantages are made of. At 0 nothing is learnt from a reward."
        yield make_figure("spread", "Spread of rewards by models", caption, traces, yaxis={"rangemode": "tozero"})
    shares = {
        "accuracy": "right by rules (reasoning prompts)",
        "scored_format": "in the format",
        "scored_language": "language consistency",
        "scored_repetition": "repeated",
    }
    if traces := curves(updates, shares):
        caption = "What may fall while the rewards climb: of the samples that models score, and the accuracy beside them."
        yield make_figure(
            "watched", "What the rules see", caption, traces, yaxis={"tickformat": ".0%", "rangemode": "tozero"}
        )
    if traces := curves(updates, {"scored_length": "tokens"}):
        yield make_figure(
            "scored_length", "Length of what models score", "", traces, y="tokens", yaxis={"rangemode": "tozero"}
        )
    follows = {f"model_reward_{name}_length": name for name in scored.values()}
    if traces := curves(updates, follows):
        caption = "Correlation within groups. Near 1, longer is better for the reward whatever is said."
        yield make_figure("follows_length", "Reward against length", caption, traces, yaxis={"range": [-1.05, 1.05]})
    if traces := curves(updates, {"hacking_alarms": "alarms"}):
        yield make_figure(
            "alarms",
            "Alarms",
            "Reasons to distrust a rollout; they are listed above.",
            traces,
            yaxis={"rangemode": "tozero"},
        )


# What is averaged over tokens comes out of the loss, so it covers what went into the loss.
COVERED = (
    "Means over tokens cover the sequences that were trained on: without a KL penalty those of advantage 0 (groups all equal) "
    "are left out."
)

# metric -> label, by figure: (key, title, caption, metrics, y title, layout of the y axis)
_POLICY = (
    (
        "kl",
        "KL divergence",
        "Mean per token (k3).",
        {"kl_ref": "from the reference", "kl_old": "from the policy that sampled"},
        "nats",
        {"rangemode": "tozero"},
    ),
    (
        "reverse_kl",
        "Distance from the teacher",
        "KL(student || teacher), mean per sampled token.",
        {"reverse_kl": "from the teacher"},
        "nats",
        {"rangemode": "tozero"},
    ),
    ("entropy", "Entropy", "Of the policy, mean per token.", {"entropy": "entropy"}, "nats", {"rangemode": "tozero"}),
    (
        "ratio",
        "Probability ratio",
        "New over old policy, per token. 1 in the first minibatch of a rollout.",
        {"ratio_mean": "mean", "ratio_max": "largest"},
        "",
        {},
    ),
    (
        "clip",
        "Clipped and masked tokens",
        "Share of tokens clipped at a bound of the ratio, or taken out by a correction.",
        {"clip_low": "lower bound", "clip_high": "upper bound", "masked": "masked"},
        "",
        {"tickformat": ".2%", "rangemode": "tozero"},
    ),
    (
        "difference",
        "Sampler against trainer",
        "Difference of a token's log-probability as sampled and as scored.",
        {"sampler_trainer_mean": "mean", "sampler_trainer_max": "largest"},
        "nats",
        {"type": "log", "tickformat": ".0e", "dtick": 1},
    ),
)
_OPTIMIZER = (
    ("loss", "Loss", "", {"loss": "loss"}, "", {}),
    ("gradient", "Gradient norm", "Before clipping.", {"grad_norm": "norm"}, "", {"rangemode": "tozero"}),
    ("rate", "Learning rate", "", {"lr": "learning rate"}, "", {"exponentformat": "power", "rangemode": "tozero"}),
    (
        "padding",
        "Padding",
        "Share of the packed rows' places that hold no token.",
        {"padding": "padding"},
        "",
        {"tickformat": ".0%", "rangemode": "tozero"},
    ),
    ("tokens", "Tokens with a loss", "Of each update.", {"tokens": "tokens"}, "tokens", {"rangemode": "tozero"}),
    (
        "longest",
        "Longest response",
        "Of each rollout.",
        {"response_length_max": "longest"},
        "tokens",
        {"rangemode": "tozero"},
    ),
    ("tries", "Tries per response", "On search problems.", {"tries": "tries"}, "", {"rangemode": "tozero"}),
)
# Shown elsewhere, or no figures of interest by themselves.
_SHOWN = {
    "step",
    "epoch",
    "rollout",
    "response_length_mean",
    "reflection",
    "wait_after_miss",
    "wait_after_hit",
    "accuracy",
    "truncated",
    "misses",
    "hits",
    "weight",
}
_CROSS_ENTROPY = {"cross_entropy": "learnt", "mtp_cross_entropy": "learnt, looking further ahead"}
_FAMILIES = ("reward_", "model_reward_", "scored_")  # shown by name, whatever follows
_SHOWN |= {
    "pair_accuracy",
    "label_accuracy",
    "score_margin",
    "chosen_score",
    "rejected_score",
    "predicted_mean",
    "label_mean",
}
_SHOWN |= {
    "hacking_alarms",
    "ungraded",
    *_CROSS_ENTROPY,
    "zero_advantage_groups",
    *(name for entry in (*_POLICY, *_OPTIMIZER) for name in entry[3]),
}


def _decades(traces: Iterable[Figure]) -> list[int]:
    """The range of a logarithmic axis in whole decades, so that it always has labels."""
    exponents = [math.log10(value) for trace in traces for value in trace["y"] if value and value > 0] or [0]
    return [math.floor(min(exponents)), math.floor(max(exponents)) + 1]


def _of_updates(stage: Stage, table: Iterable[tuple]) -> Iterable[Figure]:
    for key, title, caption, names, y, axis in table:
        if traces := curves(stage.updates, names):
            axis = dict(axis)
            if axis.get("type") == "log":
                axis["range"] = _decades(traces)
            elif not any(value for trace in traces for value in trace["y"]):
                axis["range"] = [-0.0005, 0.01]  # all zero: plotly would draw it up to 1, or 100%
            yield make_figure(key, title, caption, traces, y=y, yaxis=axis)


def policy(stage: Stage) -> Iterable[Figure]:
    return _of_updates(stage, _POLICY)


def learnt(stage: Stage) -> Iterable[Figure]:
    """The cross-entropy of what is learnt, and beside it that of what is held out."""
    traces = curves(stage.updates, _CROSS_ENTROPY) + benchmark_points(stage.held_out, "cross_entropy", "held out", 2, "dot")
    if traces:
        held_out = " Held out: examples that are never learnt." if stage.held_out else ""
        yield make_figure("cross_entropy", "Cross-entropy", f"Of completions, mean per token.{held_out}", traces, y="nats")


def optimizer(stage: Stage) -> Iterable[Figure]:
    yield from learnt(stage)
    yield from _of_updates(stage, _OPTIMIZER)
    for name, values in stage.updates.items():
        if name not in _SHOWN and not name.startswith(_FAMILIES) and any(map(finite, values)):
            yield make_figure(f"other-{name}", _words(name), "", curve(stage.updates["step"], values, name, 0))


def always_zero(stage: Stage) -> list[str]:
    """Metrics without a figure of their own that were 0 in every update."""
    return [
        name
        for name, values in stage.updates.items()
        if name not in _SHOWN and not name.startswith(_FAMILIES[1:]) and values and not any(map(finite, values))
    ]


def _words(name: str) -> str:
    return name.replace("_", " ").capitalize()


# ---------------------------------------------------------------------------------------------- the machine
MOST_BARS = 12  # more are an area


def _timed(timing: Sequence[Mapping[str, Any]]) -> str:
    """What a file of times is of: a rollout, an update; where data are made, the waves that a session sampled from one model."""
    if any(finite(one.get("rollout")) is not None for one in timing):
        return "rollout"
    return "update" if any(one.get("steps") for one in timing) else "set of waves"


def _phase(x: Sequence[float], seconds: Sequence[Any], name: str, role: str) -> Figure:
    """The seconds of a phase, to be stacked on those of others."""
    at, y, _, _ = thin(x, seconds)
    trace = {"x": at, "y": y, "name": name, "legendgroup": name}
    if len(at) <= MOST_BARS:
        return {**trace, "type": "bar", "marker": {"color": role}}
    line = {"width": 0.5, "color": role}
    return {**trace, "type": "scatter", "mode": "lines", "stackgroup": "phases", "line": line, "fillcolor": f"{role}-faint"}


def machine(stage: Stage) -> Iterable[Figure]:
    """Where the time went, tokens per second, compilations."""
    if not stage.timing:
        return
    x = [i if finite(timing.get("rollout")) is None else timing["rollout"] for i, timing in enumerate(stage.timing)]
    each = _timed(stage.timing)
    traces = []
    for number, (name, label) in enumerate(PHASES.items()):
        seconds = [timing.get(name) for timing in stage.timing]
        if any(map(finite, seconds)):
            traces.append(_phase(x, seconds, label, f"role:{number + 1}"))
    if traces:
        yield make_figure(
            "phases",
            "Time by phase",
            f"Seconds of each {each}.",
            traces,
            x=each,
            y="seconds",
            yaxis={"rangemode": "tozero"},
            barmode="stack",
        )
    rate = [
        t["tokens"] / t["sample_s"] if finite(t.get("tokens")) and finite(t.get("sample_s")) else None for t in stage.timing
    ]
    if any(rate):
        traces = curve(x, rate, "sampled tokens per second", 0)
        yield make_figure("speed", "Sampling speed", "", traces, x=each, y="tokens/s", yaxis={"rangemode": "tozero"})
    compiles = [timing.get("compiles") for timing in stage.timing]
    if any(finite(c) is not None for c in compiles):
        bars = [(at, count) for at, count in zip(x, compiles) if finite(count)]
        if bars:
            width = max(0.8, (max(x) - min(x)) / 80)  # one of 10,000 rollouts is to be seen
            trace = {"type": "bar", "name": "programs", "marker": {"color": "role:1"}, "width": width}
            traces = [{**trace, "x": [at for at, _ in bars], "y": [count for _, count in bars]}]
            axes = {"xaxis": {"title": {"text": each}, "range": [min(x) - width, max(x) + width]}}
            axes["yaxis"] = {"rangemode": "tozero"}
        else:
            traces, axes = curve(x, compiles, "programs", 0), {"yaxis": {"range": [-0.1, 4], "dtick": 1}}
        total = sum(count for _, count in bars)
        caption = f"{total:,} in all that were not announced" + (
            f"; after the first {each} none is right." if total else "."
        )
        figure = make_figure("compiles", "Programs compiled", caption, traces, x=each, yaxis=axes.pop("yaxis"))
        figure["layout"] |= axes
        yield figure


def sparser(figures: Iterable[Figure], most: int) -> None:
    """Leaves at most about ``most`` points of each curve, evenly: for pages of many long stages."""
    for figure in figures:
        for trace in figure["data"]:
            every = -(-len(trace["x"]) // most)
            if every > 1:
                trace["x"], trace["y"] = trace["x"][::every], trace["y"][::every]


# (heading, what is said of all its figures, who draws them)
SECTIONS = (
    ("What the paper shows", "", (accuracy, lengths, reflection)),
    ("Scores of held-out data", "", (reward_model,)),
    ("Reward", "", (rewards,)),
    ("Reward hacking", "", (hacking,)),
    ("Policy", COVERED, (policy,)),
    ("Optimizer", "", (optimizer,)),
    ("Machine", "", (machine,)),
)


def sections(stage: Stage) -> list[tuple[str, str, list[Figure]]]:
    """``(heading, note, figures)`` of a stage, without empty ones."""
    sampled = "rollout" in stage.updates  # what is said of rollouts holds for stages that have some
    drawn = [
        (heading, note if sampled else "", [figure for make in makers for figure in make(stage)])
        for heading, note, makers in SECTIONS
    ]
    return [section for section in drawn if section[2]]

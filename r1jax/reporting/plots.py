"""The report's figures, as plotly figures in plain data: traces and a layout, drawn by plotly.js in the page.

Colours are roles (``"role:1"``), resolved in the page for light and dark. A figure whose data is missing is left out.
"""

from __future__ import annotations

import html
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from r1jax.reporting.collect import Evaluation, Stage
from r1jax.reporting.console import number as written

MOST_POINTS = 400  # a longer curve is thinned to so many groups of steps: mean, and band from least to most
LEAST_TO_SMOOTH = 60  # a shorter curve is drawn as it is

PHASES = {
    "sample_s": "sampling",
    "reward_s": "rewards",
    "score_s": "scoring",
    "update_s": "updating",
    "checkpoint_s": "checkpoint",
    "evaluate_s": "benchmarks",
}

Figure = dict[str, Any]


# ---------------------------------------------------------------------------------------------- curves
def _finite(value: Any) -> float | None:
    """``value``, None where it is no finite number."""
    return value if isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 1e300 else None


def _short(values: Iterable[float | None]) -> list[float | None]:
    """Six significant digits: more can't be seen, and they make the file large."""
    return [None if value is None else float(f"{value:.6g}") for value in values]


def thin(x: Sequence[float], y: Sequence[Any]) -> tuple[list, list, list | None, list | None]:
    """``(x, y, least, most)`` of at most ``MOST_POINTS`` points: means of consecutive steps, and their range.

    A curve that is short enough comes back as it is, with None for the range. What is not finite is a gap.
    """
    y = [_finite(value) for value in y]
    if len(y) <= MOST_POINTS:
        return list(x), _short(y), None, None
    size = math.ceil(len(y) / MOST_POINTS)
    out: tuple[list, list, list, list] = ([], [], [], [])
    for start in range(0, len(y), size):
        group = [value for value in y[start : start + size] if value is not None]
        at = x[start : start + size]
        out[0].append(round(sum(at) / len(at), 1))
        for values, pick in zip(out[1:], (lambda g: sum(g) / len(g), min, max)):
            values.append(pick(group) if group else None)
    return out[0], *map(_short, out[1:])


def _smooth(y: Sequence[float | None]) -> list[float | None]:
    """A centred moving average over a twentieth of the curve."""
    half = max(1, len(y) // 40)
    result = []
    for i in range(len(y)):
        window = [value for value in y[max(0, i - half) : i + half + 1] if value is not None]
        result.append(sum(window) / len(window) if window else None)
    return _short(result)


def _label(text: str) -> str:
    """Plotly reads a little HTML in names; these are names, not HTML."""
    return str(text).replace("&", "&amp;").replace("<", "&lt;")


def _band(x: list, low: list, high: list, role: str, group: str) -> list[Figure]:
    """An area between two curves, in the role's pale colour."""
    edge = {
        "x": x,
        "type": "scatter",
        "mode": "lines",
        "line": {"width": 0},
        "hoverinfo": "skip",
        "showlegend": False,
        "legendgroup": _label(group),
    }
    return [{**edge, "y": low}, {**edge, "y": high, "fill": "tonexty", "fillcolor": f"{role}-pale"}]


def _curve(x: Sequence[float], y: Sequence[Any], name: str, number: int) -> list[Figure]:
    """One metric against steps: thinned with its range if long, with a moving average if noisy."""
    role = f"role:{number % 8 + 1}"
    x, y, low, high = thin(x, y)
    line = {
        "x": x,
        "type": "scatter",
        "mode": "lines",
        "name": _label(name),
        "legendgroup": _label(name),
        "connectgaps": False,
    }
    if low is not None:
        return [*_band(x, low, high, role, name), {**line, "y": y, "line": {"color": role, "width": 2}}]
    if len(y) < LEAST_TO_SMOOTH:
        mode = "lines+markers" if len(y) <= 12 else "lines"
        return [{**line, "y": y, "mode": mode, "line": {"color": role, "width": 2}, "marker": {"size": 6}}]
    raw = {**line, "y": y, "line": {"color": f"{role}-faint", "width": 1}, "showlegend": False, "hoverinfo": "skip"}
    return [raw, {**line, "y": _smooth(y), "line": {"color": role, "width": 2.2}}]


def _written(value: float, axis: Mapping[str, Any]) -> str:
    """A value as its axis writes it."""
    tick = axis.get("tickformat", "")
    if tick.endswith("%"):
        return f"{value:{'.1%' if tick == '.0%' else tick}}"  # one digit more than an axis needs
    return f"{value:.1e}" if tick.endswith("e") else written(value)


def _legend(traces: Iterable[Figure], axis: Mapping[str, Any]) -> list[dict[str, str]]:
    """What each curve is called, how it is drawn, where it ended: the page's legend."""
    entries = []
    for trace in traces:
        if not trace.get("showlegend", True):
            continue
        values = [value for value in trace["y"] if value is not None]
        line = trace.get("line", {})
        colour = trace["marker"]["color"] if trace["type"] == "bar" else line["color"]
        entries.append(
            {
                "group": trace.get("legendgroup", trace["name"]),
                "name": html.unescape(trace["name"]),
                "colour": colour.removeprefix("role:"),
                "dash": "area" if "stackgroup" in trace or trace["type"] == "bar" else line.get("dash", "solid"),
                "first": _written(values[0], axis) if values else "",
                "last": _written(values[-1], axis) if values else "",
            }
        )
    return entries


def _figure(
    key: str, title: str, caption: str, traces: list[Figure], *, y: str = "", x: str = "step", **layout: Any
) -> Figure:
    """A figure of the page. ``layout`` is added to plotly's, for example ``yaxis={"type": "log"}``."""
    yaxis = {"title": {"text": y}, **layout.pop("yaxis", {})}
    legend = _legend(traces, yaxis)
    spoken = "; ".join(f"{e['name']}: {e['first']} to {e['last']}" for e in legend)
    return {
        "key": key,
        "title": title,
        "caption": caption,
        "legend": legend,
        "spoken": f"{title} against {x}. {spoken}",
        "data": traces,
        "layout": {"xaxis": {"title": {"text": x}}, "yaxis": yaxis, "showlegend": False, **layout},
    }


def _has(updates: Mapping[str, list], name: str) -> bool:
    return any(_finite(value) is not None for value in updates.get(name, ()))


def _curves(updates: Mapping[str, list], names: Mapping[str, str]) -> list[Figure]:
    """Traces of those of ``names`` (metric -> label) that the updates hold."""
    there = [name for name in names if _has(updates, name)]
    return [trace for i, name in enumerate(there) for trace in _curve(updates["step"], updates[name], names[name], i)]


def _points(evaluations: Sequence[Evaluation], figure: str, name: str, number: int, dash: str = "solid") -> list[Figure]:
    """One figure of a benchmark against steps, with the band of its interval where it has one."""
    there = [e for e in evaluations if _finite(e.figures.get(figure)) is not None]
    if not there:
        return []
    role, x = f"role:{number % 8 + 1}", [e.step for e in there]
    intervals = [e.figures.get(f"{figure}_interval") for e in there]
    traces = []
    if all(isinstance(i, (list, tuple)) and len(i) == 2 for i in intervals):
        traces = _band(x, *(_short(_finite(i[end]) for i in intervals) for end in (0, 1)), role, name)
    line = {"color": role, "width": 2.4, "dash": dash}
    y = _short(e.figures[figure] for e in there)
    mode = "lines+markers" if len(y) <= 50 else "lines"
    return [
        *traces,
        {
            "x": x,
            "y": y,
            "type": "scatter",
            "mode": mode,
            "name": _label(name),
            "legendgroup": _label(name),
            "line": line,
            "marker": {"size": 7},
        },
    ]


# ---------------------------------------------------------------------------------------------- what the paper shows
def accuracy(stage: Stage) -> Iterable[Figure]:
    """The paper's Figure 2, one per benchmark: pass@1 and the majority vote against steps, with their intervals."""
    for number, (benchmark, evaluations) in enumerate(stage.benchmarks().items()):
        k, problems = evaluations[-1].figures.get("samples"), evaluations[-1].figures.get("problems")
        traces = _points(evaluations, "pass@1", "pass@1", 0)
        if k != 1:
            traces += _points(evaluations, "cons@k", f"majority of {k}" if k else "majority", 1, "dash")
        if traces:
            each = f"{k} samples each" if k != 1 else "one sample each"
            known = isinstance(problems, int) and k
            caption = (
                f"Figure 2 of the paper. {problems:,} problems, {each}; bands: 95% intervals by problem." if known else ""
            )
            yield _figure(
                f"accuracy-{number}",
                f"Accuracy on {benchmark}",
                caption,
                traces,
                yaxis={"tickformat": ".0%", "rangemode": "tozero"},
            )


def lengths(stage: Stage) -> Iterable[Figure]:
    """The paper's Figure 3: mean response length against steps, in training and on the benchmarks."""
    traces = _curves(stage.updates, {"response_length_mean": "in training"})
    for number, (benchmark, evaluations) in enumerate(stage.benchmarks().items(), 1):
        traces += _points(evaluations, "mean_tokens", f"on {benchmark}", number, "dot")
    if traces:
        yield _figure(
            "length",
            "Response length",
            "Figure 3 of the paper. Mean tokens of a response.",
            traces,
            y="tokens",
            yaxis={"rangemode": "tozero"},
        )


def reflection(stage: Stage) -> Iterable[Figure]:
    """How often the model checks itself, and after what."""
    traces = _curves(stage.updates, {"reflection": "in training"})
    for number, (benchmark, evaluations) in enumerate(stage.benchmarks().items(), 1):
        traces += _points(evaluations, "reflection", f"on {benchmark}", number, "dot")
    if traces:
        caption = "Share of responses with a reflective word (wait, check, wrong, 等等, 不对 …)."
        yield _figure("reflection", "Reflection", caption, traces, yaxis={"tickformat": ".0%", "rangemode": "tozero"})
    traces = _curves(
        stage.updates, {"wait_after_miss": "after a failed try, in training", "wait_after_hit": "after a hit, in training"}
    )
    for benchmark, evaluations in list(stage.benchmarks().items())[:1]:  # the one asked most often; more would be a thicket
        traces += _points(evaluations, "wait_after_miss", f"after a failed try, {benchmark}", 0, "dot")
        traces += _points(evaluations, "wait_after_hit", f"after a hit, {benchmark}", 1, "dot")
    if traces:
        caption = "Share of tries followed by “wait”. Reflection that pays grows after a failed try and not after a hit."
        yield _figure("wait", "When it says “wait”", caption, traces, yaxis={"tickformat": ".0%", "range": [-0.02, 1.02]})


# ---------------------------------------------------------------------------------------------- training
def rewards(stage: Stage) -> Iterable[Figure]:
    updates = stage.updates
    parts = {name: name.removeprefix("reward_") for name in updates if name.startswith("reward_") and name != "reward_mean"}
    if traces := _curves(updates, {"reward_mean": "total", **parts}):
        yield _figure(
            "reward", "Reward", "Mean over the graded samples of each rollout: the mix, and its parts unweighted.", traces
        )
    language = {name: parts[name] for name in parts if "language" in name}
    if traces := _curves(updates, language):
        caption = "Share of a response's words that are of the asked language, mean over each rollout."
        yield _figure("language", "Language consistency", caption, traces, yaxis={"tickformat": ".1%"})
    shares = {
        "accuracy": "right, of the graded (cut off: wrong)",
        "truncated": "cut off at the length cap",
        "ungraded": "ungraded",
        "zero_advantage_groups": "groups without a gradient (all equal)",
    }
    if traces := _curves(updates, shares):
        yield _figure(
            "shares",
            "What became of the samples",
            "Shares of each rollout.",
            traces,
            yaxis={"tickformat": ".0%", "rangemode": "tozero"},
        )


def hacking(stage: Stage) -> Iterable[Figure]:
    """Rewards that models give, beside what rules and plain measures say of the same samples."""
    updates = stage.updates
    scored = {
        n: n.removeprefix("model_reward_") for n in updates if n.startswith("model_reward_") and not n.endswith("_length")
    }
    if not scored:
        return
    yield _figure("model_reward", "Rewards by models", "Mean over the samples that they score.", _curves(updates, scored))
    shares = {
        "accuracy": "right by rules (reasoning prompts)",
        "scored_format": "in the format",
        "scored_language": "language consistency",
        "scored_repetition": "repeated",
    }
    if traces := _curves(updates, shares):
        caption = "What may fall while the rewards climb: of the samples that models score, and the accuracy beside them."
        yield _figure("watched", "What the rules see", caption, traces, yaxis={"tickformat": ".0%", "rangemode": "tozero"})
    if traces := _curves(updates, {"scored_length": "tokens"}):
        yield _figure("scored_length", "Length of what models score", "", traces, y="tokens", yaxis={"rangemode": "tozero"})
    follows = {f"model_reward_{name}_length": name for name in scored.values()}
    if traces := _curves(updates, follows):
        caption = "Correlation within groups. Near 1, longer is better for the reward whatever is said."
        yield _figure("follows_length", "Reward against length", caption, traces, yaxis={"range": [-1.05, 1.05]})
    if traces := _curves(updates, {"hacking_alarms": "alarms"}):
        yield _figure(
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
        if traces := _curves(stage.updates, names):
            axis = dict(axis)
            if axis.get("type") == "log":
                axis["range"] = _decades(traces)
            elif not any(value for trace in traces for value in trace["y"]):
                axis["range"] = [-0.0005, 0.01]  # all zero: plotly would draw it up to 1, or 100%
            yield _figure(key, title, caption, traces, y=y, yaxis=axis)


def policy(stage: Stage) -> Iterable[Figure]:
    return _of_updates(stage, _POLICY)


def learnt(stage: Stage) -> Iterable[Figure]:
    """The cross-entropy of what is learnt, and beside it that of what is held out."""
    traces = _curves(stage.updates, _CROSS_ENTROPY) + _points(stage.held_out, "cross_entropy", "held out", 2, "dot")
    if traces:
        held_out = " Held out: examples that are never learnt." if stage.held_out else ""
        yield _figure("cross_entropy", "Cross-entropy", f"Of completions, mean per token.{held_out}", traces, y="nats")


def optimizer(stage: Stage) -> Iterable[Figure]:
    yield from learnt(stage)
    yield from _of_updates(stage, _OPTIMIZER)
    for name, values in stage.updates.items():
        if name not in _SHOWN and not name.startswith(_FAMILIES) and any(map(_finite, values)):
            yield _figure(f"other-{name}", _words(name), "", _curve(stage.updates["step"], values, name, 0))


def always_zero(stage: Stage) -> list[str]:
    """Metrics without a figure of their own that were 0 in every update."""
    return [
        name
        for name, values in stage.updates.items()
        if name not in _SHOWN and not name.startswith(_FAMILIES[1:]) and values and not any(map(_finite, values))
    ]


def _words(name: str) -> str:
    return name.replace("_", " ").capitalize()


# ---------------------------------------------------------------------------------------------- the machine
def machine(stage: Stage) -> Iterable[Figure]:
    """Where the time went, tokens per second, compilations."""
    if not stage.timing:
        return
    x = [i if _finite(timing.get("rollout")) is None else timing["rollout"] for i, timing in enumerate(stage.timing)]
    each = "update" if all(_finite(timing.get("rollout")) is None for timing in stage.timing) else "rollout"
    traces = []
    for number, (name, label) in enumerate(PHASES.items()):
        seconds = [timing.get(name) for timing in stage.timing]
        if any(map(_finite, seconds)):
            at, y, _, _ = thin(x, seconds)
            area = {"x": at, "y": y, "type": "scatter", "mode": "lines", "stackgroup": "phases", "name": label}
            area["legendgroup"] = label
            if len(at) == 1:  # an area of one point is nothing to see
                area |= {"mode": "markers", "marker": {"color": f"role:{number + 1}", "size": 8}}
            traces.append(
                {**area, "line": {"width": 0.5, "color": f"role:{number + 1}"}, "fillcolor": f"role:{number + 1}-faint"}
            )
    if traces:
        yield _figure(
            "phases",
            "Time by phase",
            f"Seconds of each {each}.",
            traces,
            x=each,
            y="seconds",
            yaxis={"rangemode": "tozero"},
        )
    rate = [
        t["tokens"] / t["sample_s"] if _finite(t.get("tokens")) and _finite(t.get("sample_s")) else None
        for t in stage.timing
    ]
    if any(rate):
        traces = _curve(x, rate, "sampled tokens per second", 0)
        yield _figure("speed", "Sampling speed", "", traces, x="rollout", y="tokens/s", yaxis={"rangemode": "tozero"})
    compiles = [timing.get("compiles") for timing in stage.timing]
    if any(_finite(c) is not None for c in compiles):
        bars = [(at, count) for at, count in zip(x, compiles) if _finite(count)]
        if bars:
            width = max(0.8, (max(x) - min(x)) / 80)  # one of 10,000 rollouts is to be seen
            trace = {"type": "bar", "name": "programs", "marker": {"color": "role:1"}, "width": width}
            traces = [{**trace, "x": [at for at, _ in bars], "y": [count for _, count in bars]}]
            axes = {"xaxis": {"title": {"text": each}, "range": [min(x) - width, max(x) + width]}}
            axes["yaxis"] = {"rangemode": "tozero"}
        else:
            traces, axes = _curve(x, compiles, "programs", 0), {"yaxis": {"range": [-0.1, 4], "dtick": 1}}
        total = sum(count for _, count in bars)
        caption = f"{total:,} in all that were not announced" + (
            f"; after the first {each} none is right." if total else "."
        )
        figure = _figure("compiles", "Programs compiled", caption, traces, x=each, yaxis=axes.pop("yaxis"))
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

"""What must hold for any policy loss with the signature of ``grpo_loss``, whatever its formula.

A law is a function of a ``Subject``; it raises ``LawBroken``, which names the law, what was compared and what came out.
"""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from losskit.batches import (
    Layout,
    Sequence,
    by_sequence,
    lay_out,
    one_per_row,
    outside,
    packed,
    places,
    random_sequences,
    weigh,
)
from losskit.frozen import central_difference

POSITIONAL = ("logprobs", "old_logprobs", "advantages", "token_weight")
KEYWORDS = ("ref_logprobs", "sampler_logprobs", "sequence_index", "entropy")

# Few shapes, since each is a compilation: [8, 24] holds nine sequences packed or one to a row; [12, 10] one to a row.
ROWS, WIDE, TALL, NARROW = 8, 24, 12, 10
JUNK, NAN = -0.75, float("nan")


class LawBroken(AssertionError):
    """``law``: its name."""

    def __init__(self, law: str, words: str):
        super().__init__(f"law {law!r} is broken: {LAWS[law][0]}. {words}")
        self.law = law


class Subject:
    """A loss function under test: called with what its signature takes; compiled once per shape.

    Args:
      function: ``(logprobs, old_logprobs, advantages, token_weight, **keywords) -> loss or (loss, metrics)``.
      dtype: of the arrays. tolerance: relative, of sums; float32 1e-6, float64 1e-12.
      rule: the aggregation of the token weights that it is given.
    """

    def __init__(self, function: Callable, *, dtype=np.float32, rule: str = "sequence_mean", seed: int = 3):
        parameters = inspect.signature(function).parameters
        anything = any(p.kind is p.VAR_KEYWORD for p in parameters.values())
        self.keywords = [name for name in KEYWORDS if anything or name in parameters]
        self.required = [name for name in self.keywords if name in parameters and parameters[name].default is inspect._empty]
        self.function, self.dtype = function, dtype
        self.tolerance = 1e-6 if dtype == np.float32 else 1e-12
        self.sequences = random_sequences(seed, count=8)
        weigh(self.sequences, rule, length=8)
        self._compiled = jax.jit(jax.value_and_grad(self._loss, has_aux=True))

    def _loss(self, logprobs, others):
        positional = [others[name] for name in POSITIONAL[1:]]
        out = self.function(logprobs, *positional, **{name: others[name] for name in self.keywords if name in others})
        return out if isinstance(out, tuple) else (out, {})

    def with_sequences(self, sequences: list[Sequence]) -> Subject:
        """The same loss, compiled once for both, on other sequences."""
        other = copy.copy(self)
        other.sequences = sequences
        return other

    def arrays(self, layout: Layout, sequences: list[Sequence] | None = None) -> dict[str, np.ndarray]:
        return lay_out(self.sequences if sequences is None else sequences, layout, self.dtype)

    def call(self, arrays, sharding=None):
        """``(loss, gradient, metrics)`` of arrays as ``lay_out`` gives them."""
        given = {k: arrays[k] for k in (*POSITIONAL, *KEYWORDS) if arrays.get(k) is not None}
        with jax.enable_x64(self.dtype == np.float64):
            given = jax.device_put(given, sharding) if sharding is not None else jax.tree.map(jnp.asarray, given)
            logprobs = given.pop("logprobs")
            (loss, metrics), gradient = self._compiled(logprobs, given)
            return float(loss), np.asarray(gradient, np.float64), {k: float(v) for k, v in metrics.items()}

    def update(self, layout: Layout, rows: int | None = None, sequences: list[Sequence] | None = None, sharding=None):
        """``(loss, gradient by sequence, metrics of each micro-step)`` of an update in micro-batches of so many rows."""
        sequences = self.sequences if sequences is None else sequences
        arrays = self.arrays(layout, sequences)
        count = len(arrays["logprobs"])
        loss, gradient, metrics = 0.0, [], []
        for start in range(0, count, rows or count):
            some = {name: array[start : start + (rows or count)] for name, array in arrays.items()}
            one_loss, one_gradient, one_metrics = self.call(some, sharding)
            loss += one_loss
            gradient.append(one_gradient)
            metrics.append(one_metrics)
        gradient = np.concatenate(gradient)
        self.beside = outside(gradient, sequences, layout)  # what the padding's gradient was, for the law of padding
        return loss, by_sequence(gradient, sequences, layout), metrics

    def scale(self, loss: float) -> float:
        return abs(loss) + sum(w * abs(s.advantage) for s in self.sequences for w in s.weight)

    def same(self, law: str, what: str, one, other, scale: float | None = None) -> None:
        scale = self.scale(one[0]) if scale is None else scale
        if not abs(one[0] - other[0]) <= self.tolerance * scale:
            raise LawBroken(law, f"{what}: the loss was {one[0]!r} and is {other[0]!r}")
        norm = np.linalg.norm(one[1])
        if not np.linalg.norm(np.asarray(one[1]) - other[1]) <= self.tolerance * norm:
            at = int(np.nanargmax(np.abs(np.asarray(one[1]) - other[1])))
            raise LawBroken(law, f"{what}: the gradient differs, most at token {at}: {one[1][at]!r} and {other[1][at]!r}")


def base(subject: Subject) -> Layout:
    """One sequence to a row. Its padding holds numbers: NaN there is the affair of the laws on padding alone."""
    return one_per_row(subject.sequences, width=NARROW, empty=TALL - len(subject.sequences), junk=JUNK)


def wide(subject: Subject, side: str = "right", order=None, junk: float = JUNK) -> Layout:
    layout = packed(subject.sequences, WIDE, order, side=side, junk=junk)
    return Layout(layout.rows, WIDE, side, ROWS - len(layout.rows), junk)


# ------------------------------------------------------------------------------------------------- invariant 1
def order(subject: Subject) -> None:
    shuffled = np.random.default_rng(0).permutation(len(subject.sequences))
    layout = Layout(tuple((int(i),) for i in shuffled), NARROW, "right", TALL - len(shuffled), JUNK)
    subject.same("order", "rows in another order", subject.update(base(subject)), subject.update(layout))


def packing(subject: Subject) -> None:
    if "sequence_index" not in subject.keywords and not _by_token(subject):
        return  # the loss says that a row is a sequence
    expected = subject.update(base(subject))
    subject.same("packing", "several sequences of unequal length in a row", expected, subject.update(wide(subject)))
    shuffled = np.random.default_rng(1).permutation(len(subject.sequences))
    subject.same("packing", "packed in another order", expected, subject.update(wide(subject, order=shuffled)))


def _by_token(subject: Subject) -> bool:
    """Whether a token's gradient depends on that token alone, so that packing needs no sequence_index."""
    s = subject.sequences[max(range(len(subject.sequences)), key=lambda i: len(subject.sequences[i]))]
    layout, row = one_per_row([s], width=NARROW, empty=TALL - 1), places([s], one_per_row([s], width=NARROW))[0][1]
    arrays = subject.arrays(layout, [s])
    before = subject.call(arrays)[1][0, row]
    arrays["old_logprobs"][0, row.start] += 0.5
    return np.allclose(before[1:], subject.call(arrays)[1][0, row][1:], rtol=1e-5, atol=0)


def padding(subject: Subject) -> None:
    expected = subject.update(base(subject))
    rows = tuple((i,) for i in range(len(subject.sequences)))
    layouts = {
        "more padding": Layout(rows, WIDE, "right", ROWS - len(rows), JUNK),
        "padding on the left": Layout(rows, NARROW, "left", TALL - len(rows), JUNK),
        "padding in between": wide(subject, "between"),
        "padding before packed sequences": wide(subject, "left"),
        "NaN in the padding": Layout(rows, NARROW, "right", TALL - len(rows), NAN),
        "NaN between packed sequences": wide(subject, "between", junk=NAN),
        "infinities in the padding": Layout(rows, NARROW, "right", TALL - len(rows), float("inf")),
        "numbers in the padding": Layout(rows, NARROW, "right", TALL - len(rows), -3.0),
    }
    if "sequence_index" not in subject.keywords and not _by_token(subject):
        layouts = {name: layout for name, layout in layouts.items() if layout.rows == rows}
    for what, layout in layouts.items():
        found = subject.update(layout)
        if not (subject.beside == 0).all():
            raise LawBroken("padding", f"{what}: the gradient of prompts and padding is not 0")
        subject.same("padding", what, expected, found)


def micro_batches(subject: Subject) -> None:
    expected = subject.update(base(subject))
    packable = "sequence_index" in subject.keywords or _by_token(subject)
    layouts = {"one to a row": base(subject)} | ({"packed": wide(subject, "between")} if packable else {})
    for what, layout in layouts.items():
        for rows in (2, len(layout.rows) + layout.empty):
            loss, gradient, metrics = subject.update(layout, rows)
            subject.same("micro_batches", f"the sum over micro-batches of {rows} rows, {what}", expected, (loss, gradient))


def mesh(subject: Subject) -> None:
    devices = jax.devices()
    if len(devices) < 2 or ROWS % len(devices):
        return
    rows = tuple((i,) for i in range(len(subject.sequences)))
    layout = Layout(rows, WIDE, "right", ROWS - len(rows), JUNK)
    expected = subject.update(base(subject))
    for kind in (AxisType.Auto, AxisType.Explicit):  # the latter is jax.make_mesh's default
        grid = jax.make_mesh((len(devices),), ("data",), axis_types=(kind,))
        found = subject.update(layout, sharding=NamedSharding(grid, PartitionSpec("data")))
        subject.same("mesh", f"rows over {len(devices)} devices, {kind}", expected, found)


# ------------------------------------------------------------------------------------------------- weights
def weights(subject: Subject) -> None:
    layout = base(subject)
    arrays = subject.arrays(layout)
    loss, gradient, _ = subject.call(arrays)
    doubled = subject.call({**arrays, "token_weight": 2 * arrays["token_weight"]})
    if not abs(doubled[0] - 2 * loss) <= subject.tolerance * subject.scale(loss):
        raise LawBroken("weights", f"doubled weights should double the loss {loss!r}, but gave {doubled[0]!r}")
    if not np.linalg.norm(doubled[1] - 2 * gradient) <= subject.tolerance * np.linalg.norm(gradient):
        raise LawBroken("weights", "doubled weights do not double the gradient")
    first = np.arange(TALL)[:, None] < 4
    halves = [subject.call({**arrays, "token_weight": np.where(h, arrays["token_weight"], 0)}) for h in (first, ~first)]
    whole = (loss, gradient.ravel())
    parts = (halves[0][0] + halves[1][0], (halves[0][1] + halves[1][1]).ravel())
    subject.same("weights", "one half of the sequences without weight, then the other", whole, parts)


def weightless(subject: Subject) -> None:
    """Tokens without weight in a sequence that has others, and whole sequences without weight."""
    layout = base(subject)
    arrays = subject.arrays(layout)
    out = np.zeros(arrays["token_weight"].shape, bool)
    out[2] = out[:, 9] = True
    for s, (b, columns) in places(subject.sequences, layout).items():
        if len(subject.sequences[s]) > 2:
            out[b, columns.start + 1] = True
    arrays["token_weight"] = np.where(out, 0, arrays["token_weight"]).astype(subject.dtype)
    results = []
    for junk in (-1.0, float("nan"), float("inf"), -float("inf")):
        some = {
            name: np.where(out, junk, a).astype(a.dtype) if name not in ("token_weight", "completion_mask", "sequence_index")
            else a
            for name, a in arrays.items()
        }  # fmt: skip
        loss, gradient, metrics = subject.call(some)
        if not (gradient[out] == 0).all():
            raise LawBroken("weightless", f"with {junk} on tokens of weight 0 their gradient is not 0")
        bad = [name for name, value in metrics.items() if not np.isfinite(value)]
        if bad:
            raise LawBroken("weightless", f"with {junk} on tokens of weight 0 the metrics {bad} are not finite")
        results.append((loss, gradient.ravel()))
        subject.same("weightless", f"{junk} instead of -1 on tokens of weight 0", results[0], results[-1])


def rows_are_sequences(subject: Subject) -> None:
    if "sequence_index" not in subject.keywords:
        return
    layout = base(subject)
    arrays = subject.arrays(layout)
    one = subject.call(arrays)
    indices = {"other integers as names": np.where(arrays["sequence_index"] < 0, -1, 10**6 - 7 * arrays["sequence_index"])}
    if "sequence_index" not in subject.required:
        indices["no sequence_index, one sequence to a row"] = None
    for what, index in indices.items():
        other = subject.call({**arrays, "sequence_index": index})
        subject.same("rows_are_sequences", what, (one[0], one[1].ravel()), (other[0], other[1].ravel()))


# ------------------------------------------------------------------------------------------------- the formula
def derivative(subject: Subject) -> None:
    """Central differences with what stands under a stop-gradient held still."""
    double = Subject(subject.function, dtype=np.float64)
    arrays = double.arrays(wide(double)) if "sequence_index" in subject.keywords else double.arrays(base(double))
    with jax.enable_x64(True):
        given = {k: jnp.asarray(arrays[k]) for k in (*POSITIONAL, *KEYWORDS)}
        logprobs = given.pop("logprobs")
        gradient = double.call(arrays)[1]
        counted = np.argwhere(arrays["token_weight"] != 0)
        some = counted[np.random.default_rng(0).permutation(len(counted))[:12]]
        found = central_difference(lambda x: double._loss(x, given)[0], logprobs, [tuple(p) for p in some])
    bound = 2e-3 * np.abs(gradient).max()
    for place, slope in zip(map(tuple, some), found):
        if slope is not None and not abs(slope - gradient[place]) <= bound:
            raise LawBroken("derivative", f"at {place} jax.grad says {gradient[place]!r}, finite differences {slope!r}")


def _moved(subject: Subject, change: Callable[[Sequence], None]) -> list[Sequence]:
    copies = [
        Sequence(*(list(getattr(s, name)) for name in (*_FOUR, "entropy")), s.advantage, s.prompt, list(s.weight))
        for s in subject.sequences
    ]
    for one in copies:
        change(one)
    return copies


_FOUR = ("logprobs", "old_logprobs", "ref_logprobs", "sampler_logprobs")


def shift(subject: Subject) -> None:
    """Log-probabilities enter as differences: all of a token's moved alike leave the gradient as it was."""

    def change(s: Sequence) -> None:
        for name in _FOUR:
            setattr(s, name, [x - 0.5 for x in getattr(s, name)])

    one = subject.update(base(subject))[1]
    other = subject.update(base(subject), sequences=_moved(subject, change))[1]
    # A difference of two numbers near 1 has lost a digit of f32 before the loss sees it.
    if not np.linalg.norm(one - other) <= 10 * subject.tolerance * np.linalg.norm(one):
        raise LawBroken("shift", "all log-probabilities moved by -0.5 changed the gradient")


def direction(subject: Subject) -> None:
    def change(s: Sequence) -> None:
        for name in _FOUR:
            setattr(s, name, list(s.logprobs))

    sequences = _moved(subject, change)
    gradient = subject.update(base(subject), sequences=sequences)[1]
    signs = np.concatenate([[np.sign(s.advantage)] * len(s) for s in sequences])
    # A constant penalty gradient (k1) is the same for both signs; what A = 0 has is not A's.
    silent = subject.update(base(subject), sequences=_moved(subject, lambda s: (change(s), setattr(s, "advantage", 0.0))))[1]
    found = np.sign(np.where(np.abs(gradient - silent) < 1e-7 * np.abs(gradient).max(), 0, gradient - silent))
    if not (found == -signs).all():
        at = int(np.argmax(found != -signs))
        raise LawBroken("direction", f"token {at} has an advantage of sign {signs[at]:+.0f} and a gradient {gradient[at]!r}")


def towards_the_reference(subject: Subject) -> None:
    if "ref_logprobs" not in subject.keywords:
        return

    def change(s: Sequence, ref: float) -> None:
        for name in _FOUR:
            setattr(s, name, [x + (ref if name == "ref_logprobs" else 0) for x in s.logprobs])
        s.advantage = 0.0

    low, high = (
        subject.update(base(subject), sequences=_moved(subject, lambda s, r=r: change(s, r)))[1] for r in (-0.4, 0.4)
    )
    if not (high <= low).all():
        raise LawBroken("towards_the_reference", "the penalty pushes away from the reference: it is maximised")


# ------------------------------------------------------------------------------------------------- edges
def finite(subject: Subject) -> None:
    far = [x * sign for x in (25.0, 100.0, 1e30) for sign in (1, -1)] + [-float("inf")]
    if subject.dtype == np.float32:
        far = [np.float32(x) for x in far]
    layout = base(subject)
    for name in _FOUR:
        if name not in (*POSITIONAL, *subject.keywords):
            continue
        arrays = subject.arrays(layout)
        for k, (b, columns) in enumerate(places(subject.sequences, layout).values()):
            moved = arrays[name][b, columns.start] + far[k % len(far)]
            arrays[name][b, columns.start] = min(moved, 1e30) if name == "logprobs" else moved
        _finite(subject, arrays, f"{name} far from the others")
    arrays = subject.arrays(layout)
    for name in _FOUR:
        for b, columns in places(subject.sequences, layout).values():
            arrays[name][b, columns.start] = -np.inf
    _finite(subject, arrays, "log-probabilities that are all -inf")


def _finite(subject: Subject, arrays, what: str) -> None:
    loss, gradient, metrics = subject.call(arrays)
    if not np.isfinite(loss):
        raise LawBroken("finite", f"{what}: the loss is {loss}")
    if not np.isfinite(gradient).all():
        raise LawBroken("finite", f"{what}: {int((~np.isfinite(gradient)).sum())} entries of the gradient are not finite")
    bad = {name: value for name, value in metrics.items() if not np.isfinite(value)}
    if bad:
        raise LawBroken("finite", f"{what}: metrics {bad}")


def nothing(subject: Subject) -> None:
    for junk in (float("nan"), -1.0):
        layout = base(subject)
        arrays = subject.arrays(Layout(layout.rows, layout.width, layout.side, layout.empty, junk))
        arrays["token_weight"] = np.zeros_like(arrays["token_weight"])
        loss, gradient, metrics = subject.call(arrays)
        if loss != 0 or (gradient != 0).any():
            raise LawBroken("nothing", f"without any weight the loss is {loss}, the gradient {np.abs(gradient).max()}")
        bad = {name: value for name, value in metrics.items() if not np.isfinite(value)}
        if bad:
            raise LawBroken("nothing", f"without any weight metrics are {bad}")


def low_precision(subject: Subject) -> None:
    """bfloat16 inputs are read, not computed in: the loss is that of the same numbers in float32."""
    layout = base(subject)
    arrays = subject.arrays(layout)
    names = [name for name in ("logprobs", *_FOUR[1:], "entropy", "advantages")]
    halved = {name: np.asarray(jnp.bfloat16(arrays[name])) for name in names}
    exact = subject.call({**arrays, **{name: a.astype(np.float32) for name, a in halved.items()}})
    found = subject.call({**arrays, **halved})
    if not abs(found[0] - exact[0]) <= max(subject.tolerance, 1e-6) * subject.scale(exact[0]):
        raise LawBroken("low_precision", f"the loss of bfloat16 inputs is {found[0]!r}, of the same in f32 {exact[0]!r}")
    # The gradient comes back in bfloat16: 8 bits.
    if not np.linalg.norm(found[1] - exact[1]) <= 2**-8 * np.linalg.norm(exact[1]):
        raise LawBroken("low_precision", "the gradient of bfloat16 inputs is not that of the same numbers in float32")


LAWS: dict[str, tuple[str, Callable[[Subject], None]]] = {
    "order": ("rows in another order give the same loss and gradient", order),
    "packing": ("how sequences share rows changes nothing", packing),
    "padding": ("padding, wherever it is and whatever it holds, changes nothing", padding),
    "micro_batches": (
        "the losses and gradients of micro-batches add up to the update's: no mean is taken locally",
        micro_batches,
    ),
    "mesh": ("rows on several devices give the same loss and gradient", mesh),
    "weights": (
        "the loss is a sum of token losses, each times its weight: nothing divides by what is in the batch",
        weights,
    ),
    "weightless": ("a token of weight 0 is inert", weightless),
    "rows_are_sequences": ("a sequence's name says nothing, and without names a row is a sequence", rows_are_sequences),
    "derivative": ("the gradient is the loss's derivative, save what a stop-gradient holds", derivative),
    "shift": ("log-probabilities enter as differences", shift),
    "direction": ("on policy, a token is made likelier if its advantage is above 0, less likely if below", direction),
    "towards_the_reference": ("a KL penalty draws towards the reference", towards_the_reference),
    "finite": ("loss, gradient and metrics are finite however far the policies are apart", finite),
    "nothing": ("without weights loss and gradient are 0, and metrics are finite", nothing),
    "low_precision": ("bfloat16 inputs are computed with in float32", low_precision),
}


def check(name: str, subject: Subject) -> None:
    """Raises ``LawBroken`` if the subject does not keep this law."""
    LAWS[name][1](subject)

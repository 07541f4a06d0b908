"""A hashable form of an expression that equal answers share."""

from __future__ import annotations

from collections.abc import Hashable
from fractions import Fraction

from r1jax.rewards.expressions import regions, values
from r1jax.rewards.expressions.nodes import SETS, Node, quotient, subtract, symbols, without
from r1jax.rewards.expressions.structure import CONTAINERS, assignments, integer_family, plain, vector
from r1jax.rewards.expressions.values import Undefined, exact

_DIGITS = 30  # of a value in a key
_POINTS = 3
_REGIONS = ("union", "intersection", "difference", "relation")


def _rounded(value) -> tuple[str, str]:
    """A sampled value to ``_DIGITS`` digits; a part that is rounding noise is 0."""
    context = value.context
    parts = [context.re(value), context.im(value)]
    size = abs(value)
    return tuple(
        "0" if abs(part) <= size * context.mpf(2) ** -120 or not part else context.nstr(part, _DIGITS) for part in parts
    )


def _rational_near(value) -> Fraction | None:
    """The simple fraction that a sampled real constant is, or None."""
    context = value.context
    if abs(context.im(value)) > abs(value) * context.mpf(2) ** -120:
        return None
    real = context.re(value)
    if abs(real) < context.mpf(2) ** -150:
        return Fraction(0)
    fraction = values.fraction_of(real)
    near = fraction.limit_denominator(1_000_000)
    return near if abs(fraction - near) <= abs(fraction) / 2**150 else None


def _value_key(node: Node) -> Hashable:
    value = exact(node)
    if value is not None:
        return ("number", value.numerator, value.denominator)
    names = symbols(node)
    sampled = []
    for place in range(8 if names else 1):
        try:
            sampled.append(values.evaluate(node, values.point(names, place)))
        except Undefined:
            continue
        if len(sampled) == _POINTS:
            break
    if not sampled:
        raise Undefined("no value at any sampled point")
    if len({_rounded(v) for v in sampled}) == 1 and (near := _rational_near(sampled[0])) is not None:
        return ("number", near.numerator, near.denominator)
    return ("value", *map(_rounded, sampled))


def _end_key(end: Fraction | float) -> Hashable:
    if isinstance(end, float):
        return ("infinity", 1 if end > 0 else -1)
    near = end.limit_denominator(1_000_000)
    if abs(end - near) <= abs(end) / 2**150:
        return ("number", near.numerator, near.denominator)
    return ("value", _rounded(values.real(end)))


def _region_key(region: tuple) -> Hashable:
    kind, *rest = region
    if kind == "interval":
        low, high, ends = rest
        pair = (_end_key(low), _end_key(high))
        return ("tuple", *pair) if ends == "()" else ("bracket", ends, *pair)
    if kind == "points":
        return ("set", *sorted(map(_end_key, rest), key=repr)) if rest else ("symbol", "emptyset")
    return ("union", *sorted(map(_region_key, rest), key=repr))


def key(node: Node) -> Hashable:
    """A hashable form that equal answers share (save those that only ``equal``'s leniency joins).

    Raises:
      TooLarge, Undefined: it has no value within the bounds.
    """
    if named := assignments(node):
        return ("tuple", *(key(value) for _, value in sorted(named, key=repr)))
    node = integer_family(plain(node))
    if node.kind == "unit":
        return key(node.args[0])
    if node == Node("symbol", value="mathbb R"):
        return ("tuple", ("infinity", -1), ("infinity", 1))
    if node.kind == "symbol" and node.value in SETS:
        return ("symbol", node.value)
    if node.kind == "infinity":
        return ("infinity", node.value)
    if node.kind == "relation" and "≈" in node.value:
        return key(node.args[0] if len(node.args) > 2 or symbols(node.args[0]) == frozenset() else node.args[1])
    if (node.kind in _REGIONS or (node.kind == "list" and any(item.kind == "relation" for item in node.args))) and (
        region := regions.canonical(node)
    ):
        return _region_key(region)
    if node.kind in ("list", "set"):
        return ("set", *sorted({key(item) for item in node.args}, key=repr))
    if node.kind == "union":
        return ("union", *sorted(map(key, node.args), key=repr))
    if (entries := vector(node)) is not None:
        return ("tuple", *map(key, entries))
    if node.kind == "relation" and node.value == ("=",) and symbols(node):
        f = subtract(*node.args)
        names = symbols(f)
        sides = [values.evaluate(f, values.point(names, place)) for place in range(_POINTS + 1)]
        if all(sides):
            return ("equation", *sorted(names), *(_rounded(side / sides[0]) for side in sides[1:]))
    if node.kind == "ratio":
        parts = tuple(_value_key(quotient(part, node.args[-1])) for part in node.args[:-1])
        whole = len(parts) > 1 or (parts[0][0] == "number" and parts[0][2] == 1)
        return ("ratio", *parts) if whole else parts[0]
    if node.kind in CONTAINERS or node.kind == "row":
        return (node.kind, node.value, *map(key, node.args))
    return _value_key(without(node, "degree", inside_functions=False))

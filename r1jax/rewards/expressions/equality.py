"""When two expressions are the same answer, and a hashable form of one: by value and by structure."""

from __future__ import annotations

from collections.abc import Hashable
from fractions import Fraction

from r1jax.rewards.expressions import values
from r1jax.rewards.expressions.parser import MINUS_ONE, Node, negate
from r1jax.rewards.expressions.values import Undefined, exact, same_value, symbols

CONTAINERS = (
    "list",
    "set",
    "bracket",
    "union",
    "intersection",
    "difference",
    "matrix",
    "ratio",
    "relation",
    "based",
    "infinity",
)
_FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}
_DIGITS = 30  # of a value in a key
_POINTS = 3


# ---------------------------------------------------------------------------------------------- names and relations
def is_name(node: Node) -> bool:
    """Whether ``node`` only names something: ``x``, ``f(x)``, ``AB``, ``(x, y)``; no number in it."""
    if node.kind == "symbol":
        return node.value not in values.CONSTANTS or node.value == "e"
    return node.kind in ("mul", "bracket") and all(map(is_name, node.args))


def _subtract(left: Node, right: Node) -> Node:
    return Node("add", (left, negate(right)))


def unnamed(node: Node) -> Node:
    """What is said of a name: ``5`` of ``x = 5``, the set of ``x in S``; the result of a true chain ``2 + 3 = 5``."""
    if node.kind != "relation":
        return node
    if node.value == ("in",) and is_name(node.args[0]):
        return node.args[1]
    if set(node.value) == {"="}:
        if is_name(node.args[0]):
            return unnamed(node.args[1]) if len(node.args) == 2 else unnamed(Node("relation", node.args[1:], node.value[1:]))
        if len(node.args) == 2 and is_name(node.args[1]) and not symbols(node.args[0]):
            return node.args[0]
        if not any(map(symbols, node.args)) and all(same_value(a, b) for a, b in zip(node.args, node.args[1:])):
            return node.args[-1]
    return node


def as_interval(node: Node) -> Node:
    """The interval of a chain of inequalities about one name; any other node itself."""
    if node.kind != "relation" or not set(node.value) <= set(_FLIPPED) or len(node.args) > 3:
        return node
    sides, operators = node.args, node.value
    if operators[0] in (">", ">="):
        sides, operators = sides[::-1], tuple(_FLIPPED[o] for o in operators[::-1])
    if not set(operators) <= {"<", "<="}:
        return node
    places = [i for i, side in enumerate(sides) if is_name(side)]
    if len(places) != 1 or (len(sides) == 3 and places[0] != 1):
        return node
    place = places[0]
    if place == 0:
        low, opening = Node("infinity", value=-1), "("
    else:
        low, opening = sides[0], "(" if operators[0] == "<" else "["
    if place == len(sides) - 1:
        high, closing = Node("infinity", value=1), ")"
    else:
        high, closing = sides[-1], ")" if operators[-1] == "<" else "]"
    return Node("bracket", (low, high), opening + closing)


def _plain(node: Node) -> Node:
    """``node`` without names, inequalities as intervals, alternatives of intervals as their union."""
    node = as_interval(unnamed(node))
    if node.kind == "list":
        items = tuple(map(_plain, node.args))
        if all(item.kind in ("bracket", "union") for item in items) and all(item.kind == "relation" for item in node.args):
            return Node("union", items)
        return Node("list", items)
    if node.kind == "set" and len(node.args) == 1:
        return _plain(node.args[0])
    return node


def _same_equation(left: Node, right: Node) -> bool:
    """Whether two equations, or inequalities of one kind, say the same: their differences of sides are proportional."""
    if len(left.args) != 2 or len(right.args) != 2:
        return False
    operators = [left.value[0], right.value[0]]
    if "in" in operators or ("=" in operators and operators[0] != operators[1]):
        return False
    f, g = _subtract(*left.args), _subtract(*right.args)
    names = symbols(f) | symbols(g)
    if not names:
        return False
    ratios = []
    sign = 0  # of the ratio, where it is real
    for number in range(8):
        point = values.point(names, number)
        try:
            a, b = values.evaluate(f, point), values.evaluate(g, point)
        except Undefined:
            continue
        if not a or not b:
            return bool(a) == bool(b) and _same_sides(left, right)
        ratio = a / b
        if ratios and abs(ratio - ratios[0]) > abs(ratios[0]) * 2.0**-values.GUARD:
            return False
        ratios.append(ratio)
        sign = 0 if getattr(ratio, "imag", 0) else (1 if ratio.real > 0 else -1)
    if len(ratios) < 3:
        return False
    if operators[0] in ("=", "!="):
        return operators[0] == operators[1]
    return operators[1] == (operators[0] if sign > 0 else _FLIPPED.get(operators[0]))


def _same_sides(left: Node, right: Node) -> bool:
    return left.value == right.value and all(equal(a, b) for a, b in zip(left.args, right.args))


# ---------------------------------------------------------------------------------------------- equality
def equal(left: Node, right: Node) -> bool:
    """Whether two expressions are the same answer.

    Values are compared exactly, or to 40 digits at sampled points. ``x = 5`` is 5. Lists of solutions are compared in any
    order, tuples and intervals in theirs; a percentage equals its number and its hundredth; 2516 in base 8 may leave out
    its base. Units have been left out by the parser.

    Raises:
      TooLarge: a value beyond the bounds. Undefined: ``left`` has no value.
    """
    if left == right:
        return True
    if left.kind == right.kind == "relation":
        same_name = set(left.value) == set(right.value) == {"="} and is_name(left.args[0]) and is_name(right.args[0])
        if same_name:
            return equal(left.args[0], right.args[0]) and equal(unnamed(left), unnamed(right))
        left, right = as_interval(left), as_interval(right)
        return (
            _same_equation(left, right)
            if left.kind == right.kind == "relation"
            else left.kind == right.kind and equal(left, right)
        )
    left, right = _plain(left), _plain(right)
    if left.kind in CONTAINERS or right.kind in CONTAINERS:
        return left == right or _same_structure(left, right)
    if (left.kind == "percent") != (right.kind == "percent"):
        bare = (
            Node("add", left.args) if left.kind == "percent" else left,
            Node("add", right.args) if right.kind == "percent" else right,
        )
        return same_value(*bare) or same_value(left, right)
    return same_value(left, right)


def _vector(node: Node) -> tuple[Node, ...] | None:
    """The entries of a tuple, or of a matrix of one row or column."""
    if node.kind == "bracket" and node.value == "()":
        return node.args
    if node.kind == "matrix" and (len(node.args) == 1 or len(node.args[0].args) == 1):
        return tuple(cell for row in node.args for cell in row.args)
    return None


def _in_order(left: tuple[Node, ...], right: tuple[Node, ...]) -> bool:
    return len(left) == len(right) and all(equal(a, b) for a, b in zip(left, right))


def _any_order(left: tuple[Node, ...], right: tuple[Node, ...]) -> bool:
    return sorted(map(repr, map(key, left))) == sorted(map(repr, map(key, right)))


def _quotient(node: Node) -> Node:
    return Node("mul", (node.args[0], Node("pow", (node.args[1], MINUS_ONE))))


def _same_structure(left: Node, right: Node) -> bool:
    kinds = {left.kind, right.kind}
    if "based" in kinds:
        bare, other = (left, right) if left.kind == "based" else (right, left)
        return other.kind == "number" and other.value == int(bare.value[0]) if bare.value[0].isdigit() else False
    if kinds == {"set"}:
        return {key(item) for item in left.args} == {key(item) for item in right.args}
    if kinds <= {"list", "set"}:
        return _any_order(left.args, right.args)
    if kinds == {"list", "bracket"}:
        return "()" in (left.value, right.value) and _in_order(left.args, right.args)
    vectors = _vector(left), _vector(right)
    if None not in vectors:
        return _in_order(*vectors)
    if kinds == {"bracket"}:
        return left.value == right.value and _in_order(left.args, right.args)
    if kinds == {"union"}:
        return _any_order(left.args, right.args)
    if kinds == {"matrix"}:
        return len(left.args) == len(right.args) and all(_in_order(a.args, b.args) for a, b in zip(left.args, right.args))
    if kinds == {"ratio"} and len(left.args) == len(right.args):
        ends = left.args[-1], right.args[-1]
        return all(same_value(Node("mul", (a, ends[1])), Node("mul", (b, ends[0]))) for a, b in zip(left.args, right.args))
    if "ratio" in kinds and not kinds & (set(CONTAINERS) - {"ratio"}):
        sides = [_quotient(n) if n.kind == "ratio" and len(n.args) == 2 else n for n in (left, right)]
        return all(n.kind != "ratio" for n in sides) and same_value(*sides)
    return left.kind == right.kind and left.value == right.value and bool(left.args) and _in_order(left.args, right.args)


# ---------------------------------------------------------------------------------------------- keys
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
    sign, mantissa, exponent, _ = real._mpf_
    fraction = Fraction(-int(mantissa) if sign else int(mantissa)) * Fraction(2) ** int(exponent)
    near = fraction.limit_denominator(1_000_000)
    return near if abs(fraction - near) <= abs(fraction) / 2**150 else None


def _value_key(node: Node) -> Hashable:
    value = exact(node)
    if value is not None:
        return ("number", value.numerator, value.denominator)
    names = symbols(node)
    sampled = []
    for number in range(8 if names else 1):
        try:
            sampled.append(values.evaluate(node, values.point(names, number)))
        except Undefined:
            continue
        if len(sampled) == _POINTS:
            break
    if not sampled:
        raise Undefined("no value at any sampled point")
    if len({_rounded(v) for v in sampled}) == 1 and (near := _rational_near(sampled[0])) is not None:
        return ("number", near.numerator, near.denominator)
    return ("value", *map(_rounded, sampled))


def key(node: Node) -> Hashable:
    """A hashable form that equal answers share (save those that only ``equal``'s leniency joins).

    Raises:
      TooLarge, Undefined: it has no value within the bounds.
    """
    node = _plain(node)
    if node.kind in ("list", "set"):
        return ("set", *sorted({key(item) for item in node.args}, key=repr))
    if node.kind == "union":
        return ("union", *sorted(map(key, node.args), key=repr))
    if (entries := _vector(node)) is not None:
        return ("tuple", *map(key, entries))
    if node.kind == "relation" and node.value == ("=",) and symbols(node):
        f = _subtract(*node.args)
        names = symbols(f)
        sides = [values.evaluate(f, values.point(names, number)) for number in range(_POINTS + 1)]
        if all(sides):
            return ("equation", *sorted(names), *(_rounded(side / sides[0]) for side in sides[1:]))
    if node.kind == "ratio" and len(node.args) == 2:
        return _value_key(_quotient(node))
    if node.kind in CONTAINERS or node.kind == "row":
        return (node.kind, node.value, *map(key, node.args))
    return _value_key(node)

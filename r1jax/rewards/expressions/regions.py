"""Sets of real numbers: intervals, their unions, what an inequality says. sympy's set algebra decides whether two are one.

sympy gets no endpoint as it stands, only its rank among all endpoints of both sides: whole numbers, with which its algebra is
exact and quick.
"""

from __future__ import annotations

import bisect
import functools
from fractions import Fraction

from r1jax.rewards.expressions import symbolic, values
from r1jax.rewards.expressions.nodes import Node, is_name, negate, subtract, symbols, uses
from r1jax.rewards.expressions.values import TooLarge, Undefined

FLIPPED = {"<": ">", ">": "<", "<=": ">=", ">=": "<="}
MAX_PARTS = 24  # of one set
_BITS = 200
_NAMED = ("union", "intersection", "difference")


class NoRegion(ValueError):
    """The node is no set of real numbers."""


def as_interval(node: Node) -> Node:
    """The interval of a chain of inequalities about one name; any other node itself."""
    if node.kind != "relation" or not set(node.value) <= set(FLIPPED) or len(node.args) > 3:
        return node
    sides, operators = node.args, node.value
    if operators[0] in (">", ">="):
        sides, operators = sides[::-1], tuple(FLIPPED[o] for o in operators[::-1])
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


def _real(node: Node) -> Fraction | float:
    """The real number, to ``_BITS``, or an infinity, that a node is."""
    if node.kind == "infinity":
        return float("inf") * node.value
    if symbols(node):
        raise NoRegion("an end that is no number")
    try:
        value = values.exact(node)
        sampled = values.evaluate(node, {}) if value is None else None
    except Undefined as error:
        raise NoRegion(str(error)) from None
    if sampled is not None:
        context = sampled.context
        if abs(context.im(sampled)) > abs(sampled) * context.mpf(2) ** -120:
            raise NoRegion("an end that is not real")
        value = values.fraction_of(context.re(sampled))
    return value


class _Line:
    """The ends that both sides name, in order: what differs by less than ``2**-150`` of its size is one."""

    def __init__(self, ends: list[Fraction]):
        self.ends: list[Fraction] = []
        for end in sorted(ends):
            if not self.ends or end - self.ends[-1] > max(abs(end), 1) / Fraction(2) ** 150:
                self.ends.append(end)

    def rank(self, end: Fraction | float):
        from sympy import Integer, S

        if isinstance(end, float):
            return S.Infinity if end > 0 else S.NegativeInfinity
        place = bisect.bisect_right(self.ends, end + max(abs(end), 1) / Fraction(2) ** 150) - 1
        return Integer(place)


# A set before its ends have ranks: ("interval", low, high, left open, right open), ("points", ends), (kind, parts).
_REALS = ("interval", float("-inf"), float("inf"), True, True)


def _shape(node: Node, depth: int = 0) -> tuple:
    if depth > 6:
        raise NoRegion("sets in sets")
    if node == Node("symbol", value="mathbb R"):
        return _REALS
    if node == Node("symbol", value="emptyset"):
        return ("points", ())
    if node.kind == "set":
        return ("points", tuple(_real(item) for item in node.args))
    if node.kind == "bracket" and len(node.args) == 2:
        low, high = map(_real, node.args)
        if low >= high and not (low == high and node.value == "[]"):
            raise NoRegion("an interval that ends before it begins")
        return ("interval", low, high, node.value[0] == "(", node.value[1] == ")")
    if node.kind in _NAMED or (node.kind == "list" and all(item.kind in ("relation", *_NAMED) for item in node.args)):
        if len(node.args) > MAX_PARTS:
            raise TooLarge(f"a set of over {MAX_PARTS} parts")
        if len({name for item in node.args if item.kind == "relation" for name in _names(item)}) > 1:
            raise NoRegion("conditions on several names")
        kind = node.kind if node.kind in _NAMED else {"or": "union", "and": "both"}.get(node.value, "both")
        return (kind, tuple(_shape(item, depth + 1) for item in node.args))
    if node.kind == "relation":
        return _solutions(node, depth)
    if (
        node.kind == "add"
        and len(node.args) == 2
        and node.args[1].kind == "mul"
        and node.args[1].args[1:]
        and node.args[1].args[1].kind == "set"
    ):
        return ("difference", (_shape(node.args[0], depth + 1), _shape(node.args[1].args[1], depth + 1)))
    raise NoRegion(f"a {node.kind} is no set of real numbers")


def _names(node: Node) -> frozenset[str]:
    """The names that a condition is about: of ``-1 < f(x) < 1`` those of ``f(x)``."""
    about_one = as_interval(node) is not node or node.value == ("!=",)
    name = next((side for side in node.args if is_name(side)), None) if about_one else None
    return symbols(node) if name is None else frozenset([repr(name)])


def _solutions(node: Node, depth: int) -> tuple:
    if node.value == ("in",):
        return _shape(node.args[1], depth + 1)
    interval = as_interval(node)
    if interval.kind == "bracket":
        return _shape(interval, depth + 1)
    if "=" in node.value or "≈" in node.value or "in" in node.value:
        raise NoRegion("an equation")
    if len(node.args) > 2:
        pairs = zip(node.args, node.args[1:], node.value)
        return ("intersection", tuple(_solutions(Node("relation", (a, b), (o,)), depth + 1) for a, b, o in pairs))
    (left, right), (operator,) = node.args, node.value
    if operator == "!=" and is_name(left):
        return ("difference", (_REALS, ("points", (_real(right),))))
    return _sign_chart(subtract(left, right), operator)


def _sign_chart(difference: Node, operator: str) -> tuple:
    """Where ``difference operator 0`` holds, from its sign between and at its real zeros and poles."""
    names = symbols(difference)
    if len(names) != 1:
        raise NoRegion("an inequality of several names")
    (name,) = names
    ends = sorted({root for part in _without_abs(difference) for root in symbolic.real_roots(part, _BITS)})
    if len(ends) > MAX_PARTS:
        raise TooLarge("an inequality of too many parts")

    def holds(place: Fraction, at_root: bool) -> bool:
        try:
            value = values.evaluate(difference, {name: place})
        except Undefined:
            return False
        context = value.context
        real = context.re(value)
        if at_root and abs(real) < context.mpf(2) ** -(_BITS // 2):
            return operator in ("<=", ">=")
        return {"<": real < 0, "<=": real < 0, ">": real > 0, ">=": real > 0, "!=": True}[operator]

    parts: list[tuple] = [("points", tuple(end for end in ends if holds(end, True)))]
    borders = [float("-inf"), *ends, float("inf")]
    for low, high in zip(borders, borders[1:]):
        inner_low = low if low > float("-inf") else (high - 2 if high < float("inf") else Fraction(-1))
        inner_high = high if high < float("inf") else inner_low + 2
        if holds((Fraction(inner_low) + Fraction(inner_high)) / 2, False):
            parts.append(("interval", low, high, True, True))
    return ("union", tuple(parts))


def _without_abs(node: Node) -> list[Node]:
    """Expressions whose zeros and poles include every place where ``node`` may change its sign."""

    def is_abs(n: Node) -> bool:
        return n.kind == "function" and n.value == "abs"

    found: list[Node] = []

    def collect(n: Node) -> None:
        if is_abs(n) and symbols(n):
            found.append(n)
        for argument in n.args:
            collect(argument)

    collect(node)
    if not found:
        return [node]
    if len(found) > 2 or any(uses(a, is_abs) for n in found for a in n.args):
        raise NoRegion("more than two absolute values")
    variants = [node]
    for n in found:
        variants = [_replace(v, n, replacement) for v in variants for replacement in (n.args[0], negate(n.args[0]))]
    return [*variants, *(n.args[0] for n in found)]


def _replace(node: Node, old: Node, new: Node) -> Node:
    if node == old:
        return new
    return Node(node.kind, tuple(_replace(a, old, new) for a in node.args), node.value) if node.args else node


def _ends(shape: tuple) -> list[Fraction]:
    if shape[0] == "interval":
        return [end for end in shape[1:3] if isinstance(end, Fraction)]
    if shape[0] == "points":
        return list(shape[1])
    return [end for part in shape[1] for end in _ends(part)]


def _sympy_set(shape: tuple, line: _Line):
    from sympy import Complement, FiniteSet, Intersection, Interval, S, Union

    values.spend(20)
    if shape[0] == "interval":
        return Interval(line.rank(shape[1]), line.rank(shape[2]), shape[3], shape[4])
    if shape[0] == "points":
        return FiniteSet(*map(line.rank, shape[1]))
    parts = [_sympy_set(part, line) for part in shape[1]]
    if shape[0] == "union":
        return Union(*parts)
    if shape[0] == "difference":
        return functools.reduce(Complement, parts)
    common = Intersection(*parts)
    # "x < 1 and x > 3", of which nothing is left, is loose talk for either.
    return Union(*parts) if shape[0] == "both" and common is S.EmptySet else common


def same_region(left: Node, right: Node) -> bool | None:
    """Whether two nodes are one set of real numbers; None where either is no such set.

    Raises:
      TooLarge, Undefined: an end is beyond the bounds, or has no value.
    """
    try:
        shapes = _shape(left), _shape(right)
    except NoRegion:
        return None
    line = _Line([end for shape in shapes for end in _ends(shape)])
    values.spend(100)
    a, b = (_sympy_set(shape, line) for shape in shapes)
    return bool(a == b)


def canonical(node: Node) -> tuple | None:
    """("interval", low, high, ends), ("points", numbers) or ("union", such parts) of a set of real numbers; None of any other.

    The parts don't touch and stand in order; numbers are Fractions to within 2**-150, infinities floats.
    """
    from sympy import FiniteSet, Interval, S, Union

    try:
        shape = _shape(node)
    except NoRegion:
        return None
    line = _Line(_ends(shape))

    def end(rank) -> Fraction | float:
        return line.ends[int(rank)] if rank.is_Integer else float(rank)

    def described(part) -> tuple | None:
        if part is S.EmptySet:
            return ("points",)
        if part is S.Reals:
            part = Interval(S.NegativeInfinity, S.Infinity)
        if isinstance(part, Interval):
            ends = ("(" if part.left_open else "[") + (")" if part.right_open else "]")
            return ("interval", end(part.start), end(part.end), ends)
        if isinstance(part, FiniteSet):
            return ("points", *sorted(map(end, part)))
        if isinstance(part, Union):
            parts = list(map(described, part.args))
            return None if None in parts else ("union", *sorted(parts, key=repr))
        return None

    return described(_sympy_set(shape, line))

"""The tree of an expression, and small functions on it. Nothing here computes a value."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import NamedTuple

CONSTANTS = ("pi", "e", "i")
# Symbols that stand for a set, not for a number.
SETS = frozenset(["emptyset", *(f"mathbb {letter}{sign}" for letter in "RNZQC" for sign in ("", "+", "-", "*"))])
# What has a variable of its own.
BINDERS = ("sum", "product", "integral", "limit")
_FUNCTION_NAMES = frozenset("fghFGP")
TRIGONOMETRIC = frozenset("sin cos tan cot sec csc".split())


class Node(NamedTuple):
    """One node of an expression.

    Kinds: number (value: Fraction), symbol (value: name), infinity (value: 1 or -1), add, mul, pow, div, pm (a, b),
    function (value: name), based (value: digits, base), percent, degree, unit (value: ``units.Unit``), bracket (value: its
    two ends), set, list (value: "and", "or" or None), ratio, union, intersection, difference, matrix (args: rows of kind
    row), relation (value: its operators, args: its sides), mod (a, modulus), sum and product (value: the index; lower,
    upper, body), derivative (value: the variable), integral (value: the variable; body, then its limits), limit (value: the variable; where, body), choice
    (value: a letter), case (a value, its condition).
    """

    kind: str
    args: tuple[Node, ...] = ()
    value: object = None


MINUS_ONE = Node("number", value=Fraction(-1))


def number(value: Fraction | int) -> Node:
    return Node("number", value=Fraction(value))


def negate(node: Node) -> Node:
    if node.kind in ("number", "infinity"):
        return Node(node.kind, value=-node.value)
    return Node("mul", (MINUS_ONE, node))


def subtract(left: Node, right: Node) -> Node:
    return Node("add", (left, negate(right)))


def quotient(top: Node, bottom: Node) -> Node:
    return Node("mul", (top, Node("pow", (bottom, MINUS_ONE))))


def symbols(node: Node) -> frozenset[str]:
    """Names of the free symbols."""
    found = frozenset().union(*map(symbols, node.args)) if node.args else frozenset()
    if node.kind == "symbol":
        return found | {node.value} if node.value not in CONSTANTS and node.value not in SETS else found
    return found - {node.value} if node.kind in BINDERS else found


def uses(node: Node, test: Callable[[Node], bool]) -> bool:
    """Whether ``test`` holds of ``node`` or of anything in it."""
    return test(node) or any(uses(argument, test) for argument in node.args)


def substitute(node: Node, values: Mapping[str, Node]) -> Node:
    """``node`` with other nodes in the place of free symbols."""
    if node.kind == "symbol":
        return values.get(node.value, node)
    if not node.args:
        return node
    if node.kind in BINDERS and node.value in values:
        values = {name: value for name, value in values.items() if name != node.value}
    return Node(node.kind, tuple(substitute(a, values) for a in node.args), node.value)


def without(node: Node, kind: str, inside_functions: bool = True) -> Node:
    """``node`` with each node of ``kind`` replaced by what it holds; those in a sine stay unless ``inside_functions``."""
    if node.kind == kind:
        return without(node.args[0], kind, inside_functions)
    if not node.args or (node.kind == "function" and node.value in TRIGONOMETRIC and not inside_functions):
        return node
    return Node(node.kind, tuple(without(a, kind, inside_functions) for a in node.args), node.value)


def is_name(node: Node) -> bool:
    """Whether ``node`` only names something: ``x``, ``f(x)``, ``AB``, ``(x, y)``, ``f^{-1}(x)``, ``dy/dx``; no number in it.

    What a letter stands for may be asked about a set, a segment or an event too: ``|A|``, ``|AB|``, ``A`` and ``B`` joined, ``P(X = 2)``, a limit.
    """
    if node.kind == "symbol":
        return (node.value not in CONSTANTS or node.value == "e") and node.value not in SETS
    if node.kind == "pow":  # the inverse of a matrix
        return node.args[1] == MINUS_ONE and _is_capital(node.args[0])
    if node.kind == "function" and node.value == "abs":
        inner = node.args[0]
        return _is_capital(inner) or _is_segment(inner)
    if node.kind == "mul":
        first, *rest = node.args
        if first.kind == "symbol" and first.value in _FUNCTION_NAMES and len(rest) == 1 and not symbols(rest[0]):
            return True  # f(2): "f times 2" is written 2f
        if first.kind == "pow" and first.args[1] == MINUS_ONE:
            first = first.args[0]
        if _is_capital(first) and len(rest) == 1 and rest[0].kind == "relation":
            return True
        return is_name(first) and all(map(is_name, rest))
    if node.kind == "div":
        return all(map(is_name, node.args)) and all(symbols(a) & {"d"} or _is_segment(a) for a in node.args)
    return node.kind == "limit" or (
        node.kind in ("bracket", "union", "intersection", "ratio") and all(map(is_name, node.args))
    )


def _is_segment(node: Node) -> bool:
    return node.kind == "mul" and len(node.args) == 2 and all(map(_is_capital, node.args))


def _is_capital(node: Node) -> bool:
    return node.kind == "symbol" and str(node.value).isupper()

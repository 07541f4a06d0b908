"""Values of expressions: exact rationals, and high-precision values at sampled points where there are symbols or roots.

Two expressions are equal if they agree to 40 digits at every sampled point. That is decided in bounded time, which
symbolic simplification is not: every intermediate value is checked for its size before the next step is taken.
"""

from __future__ import annotations

import functools
import hashlib
import math
from collections.abc import Mapping
from fractions import Fraction

from r1jax.rewards.expressions.parser import Node

MAX_BITS = 10_000  # of an exact numerator or denominator
MAX_MAGNITUDE = 3_000  # |log2| of a sampled intermediate value
MAX_FACTORIAL = 1_000
PRECISIONS = (240, 4_000)  # bits: the usual one, and one that outlasts any cancellation within MAX_MAGNITUDE
GUARD = 100  # bits that must agree
CONSTANTS = ("pi", "e", "i")


class TooLarge(ValueError):
    """A value beyond the bounds: it was not computed."""


class Undefined(ValueError):
    """There is no value: a division by zero, a logarithm of zero, something that is no number."""


# ---------------------------------------------------------------------------------------------- exact
def _bits(value: Fraction) -> int:
    return max(value.numerator.bit_length(), value.denominator.bit_length())


def _bounded(value: Fraction) -> Fraction:
    if _bits(value) > MAX_BITS:
        raise TooLarge(f"an exact value of over {MAX_BITS} bits")
    return value


def _exact_power(base: Fraction, exponent: Fraction) -> Fraction | None:
    if exponent.denominator != 1:
        return None
    if base == 0 and exponent < 0:
        raise Undefined("division by zero")
    if base in (0, 1):
        return Fraction(1) if exponent == 0 else base
    if base == -1:
        return Fraction(-1 if exponent.numerator % 2 else 1)
    if abs(exponent) > MAX_BITS or _bits(base) * abs(exponent) > 2 * MAX_BITS:
        raise TooLarge("a power of too many digits")
    return _bounded(base ** int(exponent))


def _whole(value: Fraction | None, name: str, top: int) -> int | None:
    if value is None:
        return None
    if value.denominator != 1 or value < 0:
        return None
    if value > top:
        raise TooLarge(f"{name} of over {top}")
    return int(value)


def _exact_function(name: str, values: list[Fraction]) -> Fraction | None:
    first = values[0]
    if name == "abs":
        return abs(first)
    if name == "floor":
        return Fraction(math.floor(first))
    if name == "ceil":
        return Fraction(math.ceil(first))
    if name == "min":
        return min(values)
    if name == "max":
        return max(values)
    if name == "factorial":
        n = _whole(first, "the factorial", MAX_FACTORIAL)
        return None if n is None else Fraction(math.factorial(n))
    if name == "binom":
        n, k = (_whole(value, "a binomial coefficient", MAX_FACTORIAL) for value in values)
        return None if n is None or k is None else Fraction(math.comb(n, k))
    if name in ("gcd", "lcm") and all(value.denominator == 1 for value in values):
        whole = [int(value) for value in values]
        return _bounded(Fraction(math.gcd(*whole) if name == "gcd" else math.lcm(*whole)))
    return None


def exact(node: Node) -> Fraction | None:
    """The rational value of ``node`` if plain arithmetic gives one, else None. A percentage is its hundredth.

    Raises:
      TooLarge: it has over ``MAX_BITS`` bits. Undefined: it divides by zero.
    """
    if node.kind == "number":
        return node.value
    if node.kind not in ("add", "mul", "div", "pow", "percent", "function"):
        return None
    values = []
    for argument in node.args:
        value = exact(argument)
        if value is None:
            return None
        values.append(value)
    if node.kind == "add":
        return _bounded(sum(values))
    if node.kind == "mul":
        product = Fraction(1)
        for value in values:
            product = _bounded(product * value)
        return product
    if node.kind == "div":
        if values[1] == 0:
            raise Undefined("division by zero")
        return _bounded(values[0] / values[1])
    if node.kind == "pow":
        return _exact_power(*values)
    if node.kind == "percent":
        return values[0] / 100
    return _exact_function(node.value, values)


# ---------------------------------------------------------------------------------------------- sampled
@functools.cache
def _context(bits: int):
    """A private mpmath context whose precision nobody changes."""
    import mpmath

    context = mpmath.ctx_mp.MPContext()
    context.prec = bits
    return context


def symbols(node: Node) -> frozenset[str]:
    """Names of the free symbols."""
    found = frozenset().union(*map(symbols, node.args)) if node.args else frozenset()
    return found | {node.value} if node.kind == "symbol" and node.value not in CONSTANTS else found


def uses(node: Node, function: str) -> bool:
    return (node.kind == "function" and node.value == function) or any(uses(a, function) for a in node.args)


def point(names: frozenset[str], number: int, signed: bool = False) -> dict[str, Fraction]:
    """Sample point ``number``: for each name a fixed rational between 0.3 and 3.3, negative for half of them if ``signed``."""
    values = {}
    for name in names:
        digest = int.from_bytes(hashlib.sha256(f"{number}|{name}".encode()).digest()[:6], "big")
        value = Fraction(3, 10) + 3 * Fraction(digest, 1 << 48)
        values[name] = -value if signed and digest % 2 else value
    return values


class _Evaluation:
    """One evaluation; ``peak`` is the largest |log2| of what it met, which bounds what cancellation can hide."""

    def __init__(self, bits: int, values: Mapping[str, Fraction]):
        self.context = _context(bits)
        self.values = values
        self.peak = 0

    def checked(self, value):
        context = self.context
        if not context.isfinite(value):
            raise Undefined("no finite value")
        if value:
            magnitude = int(context.mag(value))
            if abs(magnitude) > MAX_MAGNITUDE:
                raise TooLarge("a value beyond the bounds")
            self.peak = max(self.peak, magnitude)
        return value

    def rational(self, value: Fraction):
        return self.context.mpf(value.numerator) / value.denominator

    def __call__(self, node: Node):
        try:
            return self.checked(getattr(self, f"eval_{node.kind}", self.no_number)(node))
        except (ZeroDivisionError, ArithmeticError) as error:
            raise Undefined(str(error)) from None

    def no_number(self, node: Node):
        raise Undefined(f"a {node.kind} is no number")

    def eval_number(self, node: Node):
        if _bits(node.value) > MAX_BITS:
            raise TooLarge("a number beyond the bounds")
        return self.rational(node.value)

    def eval_symbol(self, node: Node):
        if node.value in CONSTANTS:
            return {"pi": self.context.pi * 1, "e": self.context.e * 1, "i": self.context.j}[node.value]
        return self.rational(self.values[node.value])

    def eval_add(self, node: Node):
        total = self.context.mpf(0)
        for argument in node.args:
            total = self.checked(total + self(argument))
        return total

    def eval_mul(self, node: Node):
        product = self.context.mpf(1)
        for argument in node.args:
            product = self.checked(product * self(argument))
        return product

    def eval_div(self, node: Node):
        return self(node.args[0]) / self(node.args[1])

    def eval_percent(self, node: Node):
        return self(node.args[0]) / 100

    def eval_pow(self, node: Node):
        return self.power(self(node.args[0]), self(node.args[1]))

    def power(self, base, exponent):
        context = self.context
        if not base:
            if context.re(exponent) > 0:
                return context.mpf(0)
            if exponent:
                raise Undefined("division by zero")
            return context.mpf(1)
        size = abs(context.log(base)) * abs(exponent)  # the logarithm of the result, turns included
        if size > MAX_MAGNITUDE:
            raise TooLarge("a power beyond the bounds")
        return context.power(base, exponent)

    def eval_function(self, node: Node):
        context, name = self.context, node.value
        values = [self(argument) for argument in node.args]
        value = values[0]
        if name in ("exp", "sinh", "cosh", "sin", "cos", "tan", "cot", "sec", "csc", "tanh") and abs(value) > MAX_MAGNITUDE:
            raise TooLarge(f"{name} of a value beyond the bounds")
        if name == "root":
            return self.root(value, values[1] if len(values) > 1 else context.mpf(2))
        if name in ("log", "ln"):
            if not value:
                raise Undefined("logarithm of zero")
            return context.log(value) / (context.log(values[1]) if len(values) > 1 else 1)
        if name in ("floor", "ceil", "min", "max"):
            if any(context.im(v) for v in values):
                raise Undefined(f"{name} of a complex number")
            reals = [context.re(v) for v in values]
            return {"floor": context.floor, "ceil": context.ceil, "min": min, "max": max}[name](*reals)
        if name == "abs":
            return abs(value)
        if name in ("arcsin", "arccos", "arctan"):
            return getattr(context, "a" + name[3:])(value)
        if name in ("factorial", "binom", "gcd", "lcm"):
            raise Undefined(f"{name} of no whole number")
        return getattr(context, name)(value)

    def root(self, value, degree):
        """The principal root; the real one of odd degree."""
        context = self.context
        if not degree:
            raise Undefined("a root of degree 0")
        if (
            degree == int(context.re(degree))
            and int(context.re(degree)) % 2
            and not context.im(value)
            and context.re(value) < 0
        ):
            return -self.power(-value, 1 / degree)
        return self.power(value, 1 / degree)


def same_at(left: Node, right: Node, values: Mapping[str, Fraction]) -> bool:
    """Whether both have the same value where the symbols have ``values``.

    Raises:
      TooLarge, Undefined: of either side.
    """
    for bits in PRECISIONS:
        evaluation = _Evaluation(bits, values)
        a, b = evaluation(left), evaluation(right)
        context = evaluation.context
        difference = abs(a - b)
        if not difference:
            return True
        gap = int(context.mag(difference))
        size = max(int(context.mag(v)) for v in (a, b) if v)
        if gap > evaluation.peak - bits + 24:  # more than rounding can explain
            return gap <= size - GUARD - 24
        if gap <= size - GUARD:
            return True
    return True


def evaluate(node: Node, values: Mapping[str, Fraction], bits: int = PRECISIONS[0]):
    """The mpmath value of ``node`` where its symbols have ``values``; raises TooLarge, Undefined."""
    return _Evaluation(bits, values)(node)


def same_value(left: Node, right: Node) -> bool:
    """Whether two expressions of numbers and symbols are equal: exactly for rationals, else at sampled points.

    Raises:
      TooLarge: a value is beyond the bounds. Undefined: the left one has no value at any sampled point.
    """
    a = exact(left)
    try:
        b = exact(right)
    except Undefined:
        return False
    if a is not None and b is not None:
        return a == b
    names = symbols(left) | symbols(right)
    signed = uses(left, "abs") or uses(right, "abs")
    compared = 0
    for number in range(6 if names else 1):
        values = point(names, number, signed)
        try:
            _Evaluation(PRECISIONS[0], values)(left)
        except Undefined:
            continue
        try:
            if not same_at(left, right, values):
                return False
        except Undefined:
            return False
        compared += 1
        if compared == 4:
            break
    if not compared:
        raise Undefined("no value at any sampled point")
    return True

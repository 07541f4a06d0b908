"""Values of expressions: exact rationals, and high-precision values at sampled points where there are symbols or roots.

Two expressions are equal if they agree to 40 digits at every sampled point. That is decided in bounded time, which
symbolic simplification is not: every intermediate value is checked for its size before the next step is taken.
"""

from __future__ import annotations

import contextlib
import contextvars
import functools
import hashlib
import math
from collections.abc import Iterator, Mapping
from fractions import Fraction

from r1jax.rewards.expressions.nodes import SETS, Node, number, substitute, symbols, uses

MAX_BITS = 10_000  # of an exact numerator or denominator
MAX_MAGNITUDE = 3_000  # |log2| of a sampled intermediate value
MAX_TURN = 1e9  # radians of a complex power: they cost as many bits as they have
MAX_FACTORIAL = 1_000
PRECISIONS = (240, 4_000)  # bits: the usual one, and one that outlasts any cancellation within MAX_MAGNITUDE
GUARD = 100  # bits that must agree
_GROWING = frozenset("exp sinh cosh tanh coth sech csch sin cos tan cot sec csc".split())
MAX_TERMS = 1_000  # of a sum or product
STEPS = 15_000  # of one grading
_INTEGER_NAMES = frozenset("nkmNK")


class TooLarge(ValueError):
    """A value beyond the bounds: it was not computed."""


class Undefined(ValueError):
    """There is no value: a division by zero, a logarithm of zero, something that is no number."""


# ---------------------------------------------------------------------------------------------- steps
_steps: contextvars.ContextVar[list[int] | None] = contextvars.ContextVar("steps", default=None)


@contextlib.contextmanager
def budget() -> Iterator[None]:
    """Bounds the work inside to ``STEPS``: each operation on values spends of it, whatever the machine's speed."""
    token = _steps.set([STEPS])
    try:
        yield
    finally:
        _steps.reset(token)


def spend(steps: int) -> None:
    """Raises TooLarge where the steps of ``budget`` are used up."""
    left = _steps.get()
    if left is not None:
        left[0] -= steps
        if left[0] < 0:
            raise TooLarge("more steps than an answer is worth")


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


def _range(lower: Fraction | None, upper: Fraction | None) -> range | None:
    """The indices of a sum."""
    if lower is None or upper is None or lower.denominator != 1 or upper.denominator != 1:
        return None
    if upper - lower >= MAX_TERMS:
        raise TooLarge(f"a sum of over {MAX_TERMS} terms")
    return range(int(lower), int(upper) + 1)


def _exact_sum(node: Node) -> Fraction | None:
    indices = _range(exact(node.args[0]), exact(node.args[1]))
    if indices is None:
        return None
    total = Fraction(node.kind == "product")
    for index in indices:
        spend(5)
        value = exact(substitute(node.args[2], {node.value: number(index)}))
        if value is None:
            return None
        total = _bounded(total + value if node.kind == "sum" else total * value)
    return total


def exact(node: Node) -> Fraction | None:
    """The rational value of ``node`` if plain arithmetic gives one, else None. A percentage is its hundredth.

    Raises:
      TooLarge: it has over ``MAX_BITS`` bits. Undefined: it divides by zero.
    """
    if node.kind == "number":
        return node.value
    if node.kind in ("sum", "product"):
        return _exact_sum(node)
    if node.kind not in ("add", "mul", "div", "pow", "percent", "unit", "function"):
        return None
    spend(1)
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
    if node.kind == "unit":
        return values[0]
    return _exact_function(node.value, values)


# ---------------------------------------------------------------------------------------------- sampled
@functools.cache
def _context(bits: int):
    """A private mpmath context whose precision nobody changes."""
    import mpmath

    context = mpmath.ctx_mp.MPContext()
    context.prec = bits
    return context


def point(names: frozenset[str], number: int, signed: bool = False) -> dict[str, Fraction]:
    """Sample point ``number``: for each name a fixed rational between 0.3 and 3.3, negative for half of them if ``signed``."""
    values = {}
    for name in names:
        digest = int.from_bytes(hashlib.sha256(f"{number}|{name}".encode()).digest()[:6], "big")
        value = Fraction(3, 10) + 3 * Fraction(digest, 1 << 48)
        values[name] = -value if signed and digest % 2 else value
    return values


def integer_point(names: frozenset[str], number: int) -> dict[str, Fraction]:
    """``point`` with small whole numbers for the names that usually stand for them."""
    return {
        name: Fraction(int(value * 1_000) % 23 + 3) if name in _INTEGER_NAMES else value
        for name, value in point(names, number).items()
    }


class _Evaluation:
    """One evaluation; ``peak`` is the largest |log2| of what it met, which bounds what cancellation can hide."""

    def __init__(self, bits: int, values: Mapping[str, Fraction]):
        self.context = _context(bits)
        self.values = values
        self.cost = 1 + bits // 1_000
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
        spend(self.cost)
        try:
            return self.checked(getattr(self, f"eval_{node.kind}", self.no_number)(node))
        except (TooLarge, Undefined):
            raise
        except (ArithmeticError, ValueError) as error:  # a division by zero, a pole of the gamma function
            raise Undefined(str(error)) from None

    def no_number(self, node: Node):
        raise Undefined(f"a {node.kind} is no number")

    def eval_number(self, node: Node):
        if _bits(node.value) > MAX_BITS:
            raise TooLarge("a number beyond the bounds")
        return self.rational(node.value)

    def eval_symbol(self, node: Node):
        if node.value in self.values:  # before the constants: a sum may run over i
            return self.rational(self.values[node.value])
        if node.value in SETS:
            raise Undefined("a set is no number")
        return {"pi": self.context.pi * 1, "e": self.context.e * 1, "i": self.context.j}[node.value]

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

    def eval_unit(self, node: Node):
        return self(node.args[0])

    def eval_degree(self, node: Node):
        return self(node.args[0]) * self.context.pi / 180

    def eval_sum(self, node: Node):
        lower, upper = (self(argument) for argument in node.args[:2])
        if any(self.context.im(end) or self.context.re(end) != int(self.context.re(end)) for end in (lower, upper)):
            raise Undefined("a sum over no whole numbers")
        lower, upper = (Fraction(int(self.context.re(end))) for end in (lower, upper))
        total = self.context.mpf(node.kind == "product")
        outer = self.values
        for index in _range(lower, upper):
            self.values = {**outer, node.value: Fraction(index)}
            term = self(node.args[2])
            total = self.checked(total + term if node.kind == "sum" else total * term)
        self.values = outer
        return total

    eval_product = eval_sum

    def eval_derivative(self, node: Node):
        """The difference quotient over a step so small that its error is far below what is compared."""
        here, step = self.values.get(node.value), Fraction(1, 1 << self.context.prec // 3)
        if here is None:
            raise Undefined("a derivative at no place")
        outer = self.values
        sides = []
        for x in (here - step, here + step):
            self.values = {**outer, node.value: x}
            sides.append(self(node.args[0]))
        self.values = outer
        return (sides[1] - sides[0]) / self.rational(2 * step)

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
        size = context.log(base) * exponent  # the logarithm of the result; its imaginary part turns
        if abs(context.re(size)) > MAX_MAGNITUDE or abs(context.im(size)) > MAX_TURN:
            raise TooLarge("a power beyond the bounds")
        return context.power(base, exponent)

    def eval_function(self, node: Node):
        context, name = self.context, node.value
        values = [self(argument) for argument in node.args]
        value = values[0]
        spend(4 * self.cost)
        if name in _GROWING and abs(value) > MAX_MAGNITUDE:
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
        if name.startswith("arc"):
            return getattr(context, "a" + name[3:])(value)
        if name in ("factorial", "binom"):
            return self.gamma_function(name, values)
        if name in ("gcd", "lcm"):
            raise Undefined(f"{name} of no whole number")
        return getattr(context, name)(value)

    def gamma_function(self, name: str, values: list):
        """Factorials between the whole numbers."""
        context = self.context
        spend(100 * self.cost)
        if any(context.im(v) or abs(v) > MAX_FACTORIAL for v in values):
            raise Undefined(f"{name} of a complex or great number")
        if context.prec > PRECISIONS[0]:
            raise TooLarge(f"{name} to over {PRECISIONS[0]} bits")
        return context.factorial(values[0]) if name == "factorial" else context.binomial(*values)

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


def real(value: Fraction):
    """``value`` as an mpmath real of the usual precision."""
    return _context(PRECISIONS[0]).mpf(value.numerator) / value.denominator


def fraction_of(real) -> Fraction:
    """The exact value of an mpmath real."""
    sign, mantissa, exponent, _ = real._mpf_
    return Fraction(-int(mantissa) if sign else int(mantissa)) * Fraction(2) ** int(exponent)


def _agree(left: Node, right: Node, points: Iterator[Mapping[str, Fraction]]) -> bool | None:
    """Whether both are equal at the first four points where the left one has a value; None where it has none anywhere."""
    compared = 0
    for values in points:
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
    return True if compared else None


def _wants_integers(node: Node) -> bool:
    return (
        node.kind in ("sum", "product")
        or (node.kind == "symbol" and node.value == "pi")
        or (node.kind == "pow" and node.args[0].kind in ("number", "mul") and (exact(node.args[0]) or 0) < 0)
    )


def sampled_equal(left: Node, right: Node) -> bool | None:
    """Whether both have the same value at sampled points: positive ones, and negative ones too where an absolute value stands.

    Where an n, k or m of either stands in an exponent of a negative number, in a multiple of pi or over a sum, it is a whole
    number. None: the left one has no value at any point.

    Raises:
      TooLarge: a value is beyond the bounds.
    """
    names = symbols(left) | symbols(right)
    signed = any(uses(side, lambda n: n.kind == "function" and n.value == "abs") for side in (left, right))
    same = _agree(left, right, (point(names, number, signed) for number in range(6 if names else 1)))
    if not same and names & _INTEGER_NAMES and (uses(left, _wants_integers) or uses(right, _wants_integers)):
        return _agree(left, right, (integer_point(names, number) for number in range(8)))
    return same

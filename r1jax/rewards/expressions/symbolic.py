"""What sympy decides: identities of rational functions, equations that say the same, roots of polynomials, integrals.

sympy never sees text, and none of its simplifiers is called. Expressions become elements of a polynomial ring, whose every
product is paid for by its number of terms before it is made; degrees and coefficients are bounded as well. sympy is loaded
when it is first needed.
"""

from __future__ import annotations

from fractions import Fraction

from r1jax.rewards.expressions.nodes import Node, number, substitute, subtract, symbols
from r1jax.rewards.expressions.values import TooLarge, Undefined, exact, spend

MAX_NAMES = 8
MAX_TERMS = 400
MAX_EXPONENT = 100_000
MAX_ROOT_DEGREE = 6
MAX_COEFFICIENT_BITS = 128


class _Fractions:
    """Quotients of polynomials over the rationals; what is no polynomial (a root, a sine, pi) is a name of its own."""

    def __init__(self, *nodes: Node):
        self.atoms: dict[Node, int] = {}
        for node in nodes:
            self._collect(node)
        if len(self.atoms) > MAX_NAMES:
            raise TooLarge(f"more than {MAX_NAMES} names")
        from sympy.polys.domains import QQ
        from sympy.polys.rings import PolyRing

        self.rational = all(node.kind == "symbol" and symbols(node) for node in self.atoms)
        self.ring = PolyRing([f"x{i}" for i in range(len(self.atoms))] or ["x0"], QQ)

    def _collect(self, node: Node) -> None:
        if node.kind in ("add", "mul", "div", "unit", "percent"):
            for argument in node.args:
                self._collect(argument)
        elif node.kind == "pow" and self._exponent(node) is not None:
            self._collect(node.args[0])
        elif exact(node) is None:
            if node.kind not in ("symbol", "function", "pow"):
                raise Undefined(f"a {node.kind} is no number")
            self.atoms.setdefault(node, len(self.atoms))

    def _exponent(self, node: Node) -> int | None:
        value = exact(node.args[1])
        if value is None or value.denominator != 1:
            return None
        if abs(value) > MAX_EXPONENT:
            raise TooLarge("a power beyond the bounds")
        return int(value)

    def times(self, a, b):
        if len(a) * len(b) > MAX_TERMS * 20 or len(a) + len(b) > 4 * MAX_TERMS:
            raise TooLarge("more terms than an answer has")
        spend(1 + len(a) * len(b) // 4)
        product = a * b
        if len(product) > MAX_TERMS:
            raise TooLarge("more terms than an answer has")
        if product and max(sum(powers) for powers in product) > 4 * MAX_EXPONENT:
            raise TooLarge("a degree beyond the bounds")
        return product

    def power(self, a, n: int):
        if len(a) == 1 and n > 1:  # of one term: no products needed
            ((powers, coefficient),) = a.items()
            if (
                abs(coefficient) != 1
                and n * max(coefficient.numerator.bit_length(), coefficient.denominator.bit_length()) > 10_000
            ):
                raise TooLarge("a power of too many digits")
            return self.ring.from_dict({tuple(p * n for p in powers): coefficient**n})
        if n * max(1, len(a) - 1) > MAX_TERMS:
            raise TooLarge("a power of too many terms")
        result = self.ring.one
        for _ in range(n):
            result = self.times(result, a)
        return result

    def constant(self, value: Fraction):
        return self.ring.ground_new(self.ring.domain(value.numerator, value.denominator))

    def __call__(self, node: Node):
        """(numerator, denominator) of ``node``."""
        spend(2)
        one = self.ring.one
        if node in self.atoms:
            return self.ring.gens[self.atoms[node]], one
        if node.kind in ("add", "mul", "div", "unit", "percent", "pow") and (
            node.kind != "pow" or self._exponent(node) is not None
        ):
            if node.kind == "pow":
                n = self._exponent(node)
                top, bottom = self(node.args[0])
                if n < 0:
                    top, bottom = bottom, top
                top, bottom = self.power(top, abs(n)), self.power(bottom, abs(n))
            else:
                sides = [self(argument) for argument in node.args]
                if node.kind == "div":
                    sides[1] = sides[1][::-1]
                if node.kind == "percent":
                    sides.append((one, self.constant(Fraction(100))))
                top, bottom = sides[0]
                for a, b in sides[1:]:
                    if node.kind != "add":
                        top, bottom = self.times(top, a), self.times(bottom, b)
                    elif b == bottom:
                        top = top + a
                    else:
                        top, bottom = self.times(top, b) + self.times(a, bottom), self.times(bottom, b)
            if not bottom:
                raise Undefined("division by zero")
            return top, bottom
        value = exact(node)
        if value is None:
            raise Undefined(f"a {node.kind} is no number")
        return self.constant(value), one


def identical(left: Node, right: Node) -> bool | None:
    """Whether two expressions are the same rational function; None where roots or functions in them may hide it.

    Raises:
      TooLarge, Undefined: either is beyond the bounds, or has no value.
    """
    fractions = _Fractions(left, right)
    (a, b), (c, d) = fractions(left), fractions(right)
    if fractions.times(a, d) == fractions.times(c, b):
        return True
    return False if fractions.rational else None


def _numerator(fractions: _Fractions, node: Node):
    top, bottom = fractions(node)
    if not top:
        raise Undefined("an equation that always holds")
    if (
        len(top) <= 60
        and len(bottom) <= 60
        and max(map(sum, top)) <= 24
        and max(map(sum, bottom)) <= 24
        and not bottom.is_ground
    ):
        spend(len(top) * len(bottom) * 10)
        top = top.cancel(bottom)[0]
    return top.monic()


def same_equation(left: Node, right: Node) -> bool:
    """Whether ``left = 0`` and ``right = 0`` are one equation but for a constant factor and denominators.

    Raises:
      TooLarge, Undefined: either is beyond the bounds, or always holds.
    """
    fractions = _Fractions(left, right)
    return _numerator(fractions, left) == _numerator(fractions, right)


def real_roots(node: Node, bits: int) -> list[Fraction]:
    """The real zeros and poles, to within ``2**-bits``, of a rational function of one name, in order.

    Raises:
      TooLarge, Undefined: it is none, or beyond the bounds.
    """
    from sympy import Symbol
    from sympy.polys.polytools import Poly

    fractions = _Fractions(node)
    if not fractions.rational or len(fractions.atoms) != 1:
        raise Undefined("no rational function of one name")
    roots: set[Fraction] = set()
    for side in fractions(node):
        if side.is_ground:
            continue
        sizes = [max(c.numerator.bit_length(), c.denominator.bit_length()) for c in side.coeffs()]
        if side.degree() > MAX_ROOT_DEGREE or max(sizes) > MAX_COEFFICIENT_BITS:
            raise TooLarge("a polynomial of too great a degree")
        spend(50 * side.degree() ** 2)
        poly = Poly.from_dict(dict(side), Symbol("x"), domain=fractions.ring.domain).sqf_part()
        coefficients = [Fraction(int(c.p), int(c.q)) for c in poly.all_coeffs()]
        for low, high in poly.intervals(sqf=True):
            roots.add(_refined(coefficients, *(Fraction(int(end.p), int(end.q)) for end in (low, high)), bits))
    return sorted(roots)


def _value(coefficients: list[Fraction], x: Fraction) -> Fraction:
    value = Fraction(0)
    for coefficient in coefficients:
        value = value * x + coefficient
    return value


def _refined(coefficients: list[Fraction], low: Fraction, high: Fraction, bits: int) -> Fraction:
    """The one simple zero inside ``(low, high)``, by halving; either end may be another zero."""
    if low == high:
        return low
    degree = len(coefficients) - 1
    slope = [coefficient * (degree - i) for i, coefficient in enumerate(coefficients[:-1])]
    rising = (_value(coefficients, low) or _value(slope, low)) < 0
    while high - low > Fraction(1, 2**bits):
        spend(4)
        middle = (low + high) / 2
        here = _value(coefficients, middle)
        if not here:
            return middle
        low, high = (middle, high) if (here < 0) == rising else (low, middle)
    return (low + high) / 2


def integral(node: Node) -> Node | None:
    """The value of a definite integral of a polynomial in its variable; None for any other integral.

    Raises:
      TooLarge: it is beyond the bounds.
    """
    if len(node.args) != 3:
        return None
    body, low, high = node.args
    try:
        fractions = _Fractions(body, Node("symbol", value=node.value))
        top, bottom = fractions(body)
    except Undefined:
        return None
    variable = fractions.atoms[Node("symbol", value=node.value)]
    if not bottom.is_ground or any(
        node.value in symbols(atom) for atom in fractions.atoms if fractions.atoms[atom] != variable
    ):
        return None
    scale = Fraction(int(bottom.LC.numerator), int(bottom.LC.denominator))
    names = sorted(fractions.atoms, key=fractions.atoms.get)
    terms = []
    for powers, coefficient in top.items():
        spend(5)
        value = Fraction(int(coefficient.numerator), int(coefficient.denominator)) / scale / (powers[variable] + 1)
        factors = [
            Node("pow", (name, number(p))) for name, p in zip(names, powers) if p and fractions.atoms[name] != variable
        ]
        power = Node("pow", (names[variable], number(powers[variable] + 1)))
        terms.append(Node("mul", (number(value), *factors, power)))
    antiderivative = Node("add", tuple(terms) or (number(0),))
    return subtract(substitute(antiderivative, {node.value: high}), substitute(antiderivative, {node.value: low}))

"""Sets of real numbers, equations and polynomials: what sympy decides for us, against brute force."""

from fractions import Fraction

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from r1jax.rewards.expressions import symbolic
from r1jax.rewards.expressions.equality import equal
from r1jax.rewards.expressions.nodes import subtract
from r1jax.rewards.expressions.reading.parser import parse
from r1jax.rewards.expressions.regions import canonical, same_region
from r1jax.rewards.expressions.values import TooLarge, Undefined

# ---------------------------------------------------------------------------------------------- sets
ends = st.integers(-3, 3)
intervals = st.tuples(ends, ends, st.sampled_from("(["), st.sampled_from(")]")).filter(lambda i: i[0] < i[1])
points = st.integers(-3, 3)
sets = st.recursive(
    st.one_of(intervals, points.map(lambda p: (p,))),
    lambda inner: st.tuples(st.sampled_from(("union", "intersection", "difference")), inner, inner),
    max_leaves=5,
)
PLACES = [Fraction(n, 2) for n in range(-8, 9)]


def text(shape):
    if len(shape) == 1:
        return f"\\{{{shape[0]}\\}}"
    if len(shape) == 4:
        return f"{shape[2]}{shape[0]},{shape[1]}{shape[3]}"
    return f"({text(shape[1])}{ {'union': 'U', 'intersection': '∩', 'difference': '∖'}[shape[0]] }{text(shape[2])})"


def latex(shape):
    """Without outer parentheses where the grammar reads a chain from the left."""
    if len(shape) < 3 or len(shape) == 4:
        return text(shape)
    command = {"union": "\\cup", "intersection": "\\cap", "difference": "\\setminus"}[shape[0]]
    return f"{{{latex(shape[1])}}} {command} {{{latex(shape[2])}}}"


def holds(shape, x):
    if len(shape) == 1:
        return x == shape[0]
    if len(shape) == 4:
        low, high, opening, closing = shape
        return (low < x or (opening == "[" and low == x)) and (x < high or (closing == "]" and high == x))
    left, right = holds(shape[1], x), holds(shape[2], x)
    return {"union": left or right, "intersection": left and right, "difference": left and not right}[shape[0]]


@settings(max_examples=150, deadline=None)
@given(sets, sets)
def test_sets_are_equal_if_they_hold_the_same_numbers(left, right):
    same = [holds(left, x) for x in PLACES] == [holds(right, x) for x in PLACES]
    a, b = parse(latex(left)), parse(latex(right))
    assert same_region(a, b) is same
    assert (canonical(a) == canonical(b)) is same


@pytest.mark.parametrize("operator", ["<", "\\le", ">", "\\ge", "\\ne"])
@pytest.mark.parametrize(
    "side",
    ["x^2-x-2", "(x-1)(x-2)(x+1)", "(x-1)^2(x+2)", "x^2+1", "-x^2+2", "\\frac{x-1}{x+2}", "\\frac{1}{x}", "|x-1|-2", "|x|-|x-2|", "3-2x"],
)  # fmt: skip
def test_an_inequality_is_the_set_where_it_holds(side, operator):
    """Against the numbers of a grid, on which all these roots but those of 2 lie."""
    from r1jax.rewards.expressions import values

    region = canonical(parse(f"{side} {operator} 0"))
    assert region is not None

    def inside(part, x):
        if part[0] == "points":
            return x in part[1:]
        if part[0] == "union":
            return any(inside(p, x) for p in part[1:])
        _, low, high, brackets = part
        return (low < x or (brackets[0] == "[" and low == x)) and (x < high or (brackets[1] == "]" and high == x))

    for x in [Fraction(n, 4) for n in range(-17, 18)]:
        try:
            value = values.evaluate(parse(side), {"x": x}).real
        except Undefined:
            expected = False
        else:
            zero = abs(value) < 1e-30
            expected = {"<": value < 0 and not zero, "\\le": value < 0 or zero, ">": value > 0 and not zero, "\\ge": value > 0 or zero, "\\ne": not zero}[operator]  # fmt: skip
        assert inside(region, x) == expected, (x, region)


def test_ends_are_compared_as_numbers():
    assert same_region(parse("[\\sqrt{2}+\\sqrt{3}, 4)"), parse("[\\sqrt{5+2\\sqrt{6}}, \\sqrt{16})"))
    assert not same_region(parse("[1.4142135, 4)"), parse("[\\sqrt{2}, 4)"))
    assert same_region(parse("(0,1)"), parse("x")) is None
    with pytest.raises(TooLarge):
        same_region(parse("U".join(f"({i},{i + 1})" for i in range(40))), parse("(0,1)"))


# ---------------------------------------------------------------------------------------------- polynomials
coefficients = st.lists(st.integers(-4, 4), min_size=1, max_size=4)


def polynomial(numbers):
    return "+".join(f"({c})x^{{{i}}}" for i, c in enumerate(numbers))


@settings(max_examples=100, deadline=None)
@given(coefficients, coefficients, coefficients)
def test_rational_functions_are_identical_if_sympy_says_so(a, b, c):
    import sympy

    x = sympy.Symbol("x")
    forms = [sum((k * x**i for i, k in enumerate(numbers)), sympy.Integer(0)) for numbers in (a, b, c)]
    left = f"({polynomial(a)})({polynomial(b)})+{polynomial(c)}"
    right = f"({polynomial(b)})({polynomial(a)}+1)+{polynomial(c)}"
    expected = sympy.expand(forms[0] * forms[1] + forms[2] - forms[1] * (forms[0] + 1) - forms[2]) == 0
    assert symbolic.identical(parse(left), parse(right)) is bool(expected)


def test_what_samples_cannot_tell_apart_polynomials_do():
    assert not equal(parse("x"), parse("x+10^{-45}"))
    assert equal(parse("(x^{1000}-1)(x^{1000}+1)"), parse("x^{2000}-1"))
    assert not equal(parse("(x^{1000}-1)(x^{1000}+1)"), parse("x^{2000}+1"))
    assert symbolic.identical(parse("\\sqrt{x}"), parse("x^{1/2}")) is None  # the roots may hide it


@pytest.mark.parametrize(
    ("left", "right", "same"),
    [
        ("y=\\frac{1}{x}", "xy=1", True),
        ("y=\\frac{x^2-1}{x-1}", "y=x+1", True),
        ("\\frac{x}{y}=2", "x=2y", True),
        ("xy=1", "xy=2", False),
        ("x^2=y^2", "x=y", False),
        ("2x+4y=6", "x+2y=3", True),
    ],
)
def test_equations(left, right, same):
    sides = [subtract(*parse(side).args) for side in (left, right)]
    assert symbolic.same_equation(*sides) is same
    assert equal(parse(left), parse(right)) is same


def test_real_roots():
    def near(found, *expected):
        return len(found) == len(expected) and all(abs(float(a) - b) < 1e-12 for a, b in zip(found, expected))

    assert near(symbolic.real_roots(parse("x^2-2"), 100), -(2**0.5), 2**0.5)
    assert near(symbolic.real_roots(parse("(x-1)^3(2x-1)"), 100), 0.5, 1.0)
    assert near(symbolic.real_roots(parse("\\frac{x-3}{x^2-5}"), 100), -(5**0.5), 5**0.5, 3.0)
    assert symbolic.real_roots(parse("x^2+1"), 100) == []
    with pytest.raises(TooLarge):
        symbolic.real_roots(parse("x^7+x+1"), 100)
    with pytest.raises(Undefined):
        symbolic.real_roots(parse("x+y"), 100)


def test_integrals():
    assert equal(parse("\\int_0^1 x^2 dx"), parse("1/3"))
    assert equal(parse("2\\int_{-1}^{a} (3x^2+b) dx"), parse("2a^3+2+2ab+2b"))
    assert not equal(parse("\\int_0^1 x^2 dx"), parse("1/2"))
    assert equal(parse("\\int_0^1 \\sin x dx"), parse("\\int_0^1 \\sin t dt"))  # not computed: by its form

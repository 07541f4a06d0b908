"""The strict grammar and its values: against exact arithmetic and against sympy, on trees of our own making."""

from fractions import Fraction

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from r1jax.rewards.expressions.equality import same_value
from r1jax.rewards.expressions.keys import key
from r1jax.rewards.expressions.reading.parser import parse
from r1jax.rewards.expressions.reading.tokens import Unreadable
from r1jax.rewards.expressions.values import TooLarge, Undefined, exact

rationals = st.recursive(
    st.integers(0, 99).map(lambda n: (str(n), Fraction(n))),
    lambda inner: st.one_of(
        st.tuples(inner, inner, st.sampled_from("+-*")).map(
            lambda t: (
                f"({t[0][0]}{t[2]}{t[1][0]})",
                {"+": t[0][1] + t[1][1], "-": t[0][1] - t[1][1], "*": t[0][1] * t[1][1]}[t[2]],
            )
        ),
        st.tuples(inner, inner)
        .filter(lambda t: t[1][1] != 0)
        .map(lambda t: (f"\\frac{{{t[0][0]}}}{{{t[1][0]}}}", t[0][1] / t[1][1])),
        inner.map(lambda t: (f"-({t[0]})", -t[1])),
        inner.map(lambda t: (f"({t[0]})^2", t[1] ** 2)),
    ),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(rationals)
def test_exact_values(case):
    text, value = case
    assert exact(parse(text)) == value
    assert key(parse(text)) == ("number", value.numerator, value.denominator)


def random_expression(rng, depth):
    """(text, sympy expression) of the same random tree."""
    import sympy

    if depth == 0 or rng.random() < 0.2:
        if rng.random() < 0.5:
            n = rng.randrange(1, 9)
            return str(n), sympy.Integer(n)
        name = rng.choice("xy")
        return name, sympy.Symbol(name, positive=True)
    (a, left), (b, right) = random_expression(rng, depth - 1), random_expression(rng, depth - 1)
    return rng.choice(
        [
            lambda: (f"({a}+{b})", left + right),
            lambda: (f"({a}-{b})", left - right),
            lambda: (f"{{{a}}}{{{b}}}", left * right),
            lambda: (f"({a})\\cdot({b})", left * right),
            lambda: (f"\\frac{{{a}}}{{{b}+9}}", left / (right + 9)),
            lambda: (f"\\sqrt{{{a}}}", sympy.sqrt(left)),
            lambda: (f"({a})^{{2}}", left**2),
            lambda: (f"\\sin({a})", sympy.sin(left)),
        ]
    )()


@pytest.mark.parametrize("seed", range(30))
def test_an_expression_equals_its_expansion_and_not_a_neighbour(seed):
    """sympy rewrites (expand), our grammar reads what it prints; sympy never sees text."""
    import random

    import sympy

    text, expression = random_expression(random.Random(seed), 3)
    ours = parse(text)
    other = parse(sympy.latex(sympy.expand(expression)))
    try:
        assert same_value(ours, other)
        assert key(ours) == key(other)
        assert not same_value(ours, parse(f"{sympy.latex(sympy.expand(expression))} + \\frac{{1}}{{10^{{12}}}}"))
    except Undefined:
        assert not expression.is_finite


@pytest.mark.parametrize(
    "text",
    ["", "()", "3 4", "1 +", "* 2", "(1", "1)", "2^", "\\frac{1}", "\\sqrt", "\\foo", "x_", "x_{1", "a'_", "#", "1..2", "@", "\\end{x}",
     "\\begin{pmatrix} 1 & 2 \\\\ 3 \\end{pmatrix}", "\\begin{cases} \\end{cases}", "f{}", "min()", "{}", "| x", "a.b", "x;;;=", "x=y=", "%"],
)  # fmt: skip
def test_what_is_not_an_expression(text):
    with pytest.raises(Unreadable):
        parse(text)


def test_bounds():
    with pytest.raises(TooLarge):
        exact(parse("10^{10^{10}}"))
    with pytest.raises(TooLarge):
        same_value(parse("\\sqrt{2}"), parse("2^{\\sqrt{2}^{99}}"))
    with pytest.raises(Undefined):
        exact(parse("1/(3-3)"))
    with pytest.raises(Unreadable, match="deep"):
        parse("(" * 40 + "1" + ")" * 40)
    with pytest.raises(Unreadable, match="characters"):
        parse("1+" * 5_000 + "1")


def test_great_cancellation_is_seen_through():
    assert same_value(parse("\\sqrt{2}+10^{80}-10^{80}"), parse("\\sqrt{2}"))
    assert not same_value(parse("\\sqrt{2}+10^{80}-10^{80}"), parse("\\sqrt{3}"))
    assert not same_value(parse("\\sqrt{10^{30}+1}"), parse("10^{15}"))

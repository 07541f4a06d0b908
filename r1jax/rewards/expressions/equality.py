"""When two expressions are the same answer: by value and by structure."""

from __future__ import annotations

from fractions import Fraction

from r1jax.rewards.expressions import regions, symbolic, values
from r1jax.rewards.expressions.keys import key
from r1jax.rewards.expressions.nodes import (
    BINDERS,
    SETS,
    Node,
    is_name,
    number,
    quotient,
    substitute,
    subtract,
    symbols,
    uses,
    without,
)
from r1jax.rewards.expressions.regions import FLIPPED
from r1jax.rewards.expressions.structure import (
    CONTAINERS,
    PARAMETER,
    assignments,
    integer_family,
    plain,
    shared_value,
    unnamed,
    vector,
)
from r1jax.rewards.expressions.values import TooLarge, Undefined, exact

# A decimal number of at least this many places and figures may stand for what it rounds.
ROUNDED_PLACES = 6
_FLOAT_PLACES = 15
_FOREVER = 10_000


# ---------------------------------------------------------------------------------------------- values
def _places(value: Fraction) -> int | None:
    """Decimal places of a terminating decimal number that is long enough to be a rounded value; None for any other."""
    denominator = value.denominator
    twos = fives = 0
    while denominator % 2 == 0:
        denominator, twos = denominator // 2, twos + 1
    while denominator % 5 == 0:
        denominator, fives = denominator // 5, fives + 1
    places = max(twos, fives)
    long = places >= ROUNDED_PLACES and abs(value) * 10**places >= 10 ** (ROUNDED_PLACES - 1)
    return places if denominator == 1 and long else None


def _rounds(decimal: Fraction, value: Fraction, known: bool = True) -> bool:
    """Whether a long decimal number is ``value`` rounded or cut off, or a floating-point number next to it.

    ``known``: ``value`` is exact, and a decimal number itself where its denominator says so.
    """
    places = _places(decimal)
    if places is None:
        return False
    distance = abs(decimal - value)
    if places >= _FLOAT_PLACES and distance <= abs(value) / 2**51:
        return True
    if known and (value.denominator == 1 or places >= (_places(value) or _FOREVER)):
        return False
    return distance < Fraction(1, 10**places)


def _real_value(node: Node, value: Fraction | None) -> Fraction | None:
    if value is not None:
        return value
    sampled = values.evaluate(node, {})
    return None if sampled.context.im(sampled) else values.fraction_of(sampled.context.re(sampled))


def same_value(left: Node, right: Node) -> bool:
    """Whether two expressions of numbers and symbols are equal.

    Rationals exactly; the rest at sampled points, where a difference decides, and where there is none sympy's polynomials have
    the last word if the expressions are rational functions. A decimal number of six or more places may stand for the value
    that it rounds.

    Raises:
      TooLarge: a value is beyond the bounds. Undefined: the left one has no value.
    """
    a = exact(left)
    try:
        b = exact(right)
    except Undefined:
        return False
    if a is not None and b is not None:
        return a == b or _rounds(b, a) or _rounds(a, b)
    try:
        same = values.sampled_equal(left, right)
    except TooLarge:
        if (same := symbolic.identical(left, right)) is None:
            raise
        return same
    if symbols(left) or symbols(right):
        return same if same is False else _confirmed(same, left, right)
    if same is None:
        raise Undefined("no value")
    if not same and (a is None) != (b is None):
        decimal, other = (a, right) if a is not None else (b, left)
        if _places(decimal) is not None:
            value = _real_value(other, None)
            return value is not None and _rounds(decimal, value, known=False)
    return same


def _confirmed(same: bool | None, left: Node, right: Node) -> bool:
    """What sympy says to expressions that samples could not tell apart."""
    try:
        exactly = symbolic.identical(left, right)
    except (TooLarge, Undefined):
        exactly = None
    if exactly is None and same is None:
        raise Undefined("no value at any sampled point")
    return bool(same) if exactly is None else exactly


# ---------------------------------------------------------------------------------------------- relations
def _same_equation(left: Node, right: Node) -> bool:
    """Whether two equations, or inequalities of one kind, say the same: their differences of sides are proportional."""
    if len(left.args) != 2 or len(right.args) != 2:
        return False
    operators = [left.value[0], right.value[0]]
    if "in" in operators or ("=" in operators and operators[0] != operators[1]):
        return False
    f, g = subtract(*left.args), subtract(*right.args)
    names = symbols(f) | symbols(g)
    if not names:
        return False
    ratios = []
    sign = 0  # of the ratio, where it is real
    for place in range(8):
        point = values.point(names, place)
        try:
            a, b = values.evaluate(f, point), values.evaluate(g, point)
        except Undefined:
            continue
        if not a or not b:
            return bool(a) == bool(b) and _same_sides(left, right)
        ratio = a / b
        if ratios and abs(ratio - ratios[0]) > abs(ratios[0]) * 2.0**-values.GUARD:
            return operators == ["=", "="] and _same_after_clearing(f, g)
        ratios.append(ratio)
        sign = 0 if getattr(ratio, "imag", 0) else (1 if ratio.real > 0 else -1)
    if len(ratios) < 3:
        return False
    if operators[0] in ("=", "!="):
        return operators[0] == operators[1]
    return operators[1] == (operators[0] if sign > 0 else FLIPPED.get(operators[0]))


def _same_after_clearing(f: Node, g: Node) -> bool:
    try:
        return symbolic.same_equation(f, g)
    except Undefined:
        return False


def _same_sides(left: Node, right: Node) -> bool:
    return (
        left.value == right.value
        and len(left.args) == len(right.args)
        and all(equal(a, b) for a, b in zip(left.args, right.args))
    )


def _upward(node: Node) -> Node:
    """``a > b > c`` as ``c < b < a``."""
    if not set(node.value) <= {">", ">="}:
        return node
    return Node("relation", node.args[::-1], tuple(FLIPPED[operator] for operator in node.value[::-1]))


def _same_relation(left: Node, right: Node) -> bool:
    if len(left.args) > 2 and len(left.args) == len(right.args) and set(left.value) & set(FLIPPED):
        if _same_sides(_upward(left), _upward(right)):
            return True
    if set(left.value) == set(right.value) == {"="} and is_name(left.args[0]) and is_name(right.args[0]):
        if equal(left.args[0], right.args[0]):
            return equal(unnamed(left), unnamed(right))
        if not (symbols(unnamed(left)) or symbols(unnamed(right))):  # x = 5 is not y = 5
            return False
        if _is_graph(left, right) or _is_graph(right, left):
            return equal(unnamed(left), unnamed(right))
    if (
        left.value == right.value == ("in",)
        and is_name(left.args[0])
        and is_name(right.args[0])
        and left.args[0] != right.args[0]
    ):
        return False
    if "in" in left.value + right.value:
        bare = plain(left), plain(right)
        return _same_sides(left, right) if bare == (left, right) else equal(*bare)
    if symbols(left) == symbols(right) or not (
        regions.as_interval(left).kind == regions.as_interval(right).kind == "bracket"
    ):
        same = None
        if set(left.value + right.value) & set(FLIPPED) or "!=" in left.value + right.value:
            same = regions.same_region(left, right)
        return _same_equation(left, right) if same is None else same
    return False


def _is_graph(left: Node, right: Node) -> bool:
    """Whether they are ``y = ...`` and ``f(x) = ...``."""
    name = right.args[0]
    letter = name.args[0] if name.kind == "mul" else name
    letter = letter.args[0] if letter.kind == "pow" else letter
    return left.args[0] == Node("symbol", value="y") and name.kind == "mul" and letter.value in tuple("fghFG")


def _same_assignments(left: Node, right: Node) -> bool | None:
    """Of ``x = 1, y = 2`` with another such list, or with the values in order; None for anything else."""
    first, second = assignments(left), assignments(right)
    if left.kind != right.kind and "relation" in (left.kind, right.kind):
        first, second = first or shared_value(left), second or shared_value(right)
    if first and second:
        names = {repr(name): value for name, value in second}
        return len(first) == len(second) and all(repr(n) in names and equal(v, names[repr(n)]) for n, v in first)
    named, other = (first, right) if first else (second, left)
    if not named:
        return None
    if other.kind == "relation" and set(other.value) == {"="} and other.args[0].kind == "bracket":
        names, other = other.args[0].args, other.args[-1]
        if set(map(repr, names)) != {repr(name) for name, _ in named}:
            return False
        named = sorted(named, key=lambda item: list(map(repr, names)).index(repr(item[0])))
    if other.kind == "list" or (other.kind == "bracket" and other.value == "()"):
        sides = [value for _, value in named], list(other.args)
        return _in_order(*(sides if first else sides[::-1]))
    return None


# ---------------------------------------------------------------------------------------------- equality
def equal(left: Node, right: Node) -> bool:
    """Whether ``right`` is the answer ``left``. The conventions stand at ``verify_math``.

    Raises:
      TooLarge: a value beyond the bounds. Undefined: ``left`` has no value.
    """
    values.spend(5)
    if left == right:
        return True
    if "unit" in (left.kind, right.kind):
        return _same_quantity(left, right)
    if (same := _same_assignments(left, right)) is not None:
        return same
    if right.kind == "relation" and "≈" in right.value:
        return any(equal(left, side) for side in _approximations(right))
    if left.kind == "relation" and "≈" in left.value:
        return any(equal(side, right) for side in _approximations(left))
    if left.kind == right.kind == "relation":
        return _same_relation(left, right)
    if all(side.kind == "list" and all(item.kind == "relation" for item in side.args) for side in (left, right)):
        if {left.value, right.value} != {"and", "or"} and _any_order(left.args, right.args):
            return True
    left, right = integer_family(plain(left)), integer_family(plain(right))
    if any(side.kind == "symbol" and side.value in SETS for side in (left, right)):
        return left == right or regions.same_region(left, right) or False
    if PARAMETER in symbols(left) | symbols(right):
        left, right = map(_residues_as_family, (left, right))
        return _same_family(left, right)
    if "unit" in (left.kind, right.kind):
        return _same_quantity(left, right)
    if left.kind in CONTAINERS or right.kind in CONTAINERS:
        return left == right or _same_structure(left, right)
    if left.kind == right.kind and left.kind in ("sum", "product") and _same_binder(left, right):
        return True
    if left.kind == "percent" or right.kind == "percent":
        return _same_percentage(left, right)
    return _same_angle(left, right)


def _same_family(left: Node, right: Node) -> bool:
    """Of values for every whole k: the same expression in k, or as k runs through all whole numbers the same values."""
    sides = []
    for side in (left, right):
        names = symbols(side) & set("knm")
        if PARAMETER not in symbols(side) and len(names) == 1:  # it does not say that k is a whole number
            side = substitute(side, {name: Node("symbol", value=PARAMETER) for name in names})
        sides.append(side)
    left, right = sides
    if left.kind in CONTAINERS or right.kind in CONTAINERS:
        return left == right or _same_structure(left, right)
    if same_value(left, right):
        return True
    if symbols(left) != {PARAMETER} or symbols(right) != {PARAMETER}:
        return False
    (a, p), (b, q) = ((f(0), f(1) - f(0)) for f in map(_at_whole, sides))
    if any(
        abs(f(5) - start - 5 * step) > 2.0**-values.GUARD for f, start, step in zip(map(_at_whole, sides), (a, b), (p, q))
    ):
        return False
    shift = (a - b) / p if p else 0.5
    return abs(abs(p) - abs(q)) < 2.0**-values.GUARD and abs(shift - round(shift.real)) < 2.0**-values.GUARD


def _residues_as_family(node: Node) -> Node:
    """``1 mod 3`` as ``1 + 3k``."""
    if node.kind != "mod":
        return node
    multiple = Node("mul", (node.args[1], Node("symbol", value=PARAMETER)))
    return Node("add", (unnamed(node.args[0]), multiple))


def _at_whole(node: Node):
    return lambda k: values.evaluate(node, {PARAMETER: Fraction(k)})


def _same_quantity(left: Node, right: Node) -> bool:
    """Quantities with units: with known ones on both sides they are converted, else the numbers are compared."""
    if left.kind == right.kind:
        if left.value.dimension != right.value.dimension:
            return False
        return equal(*(Node("mul", (side.args[0], number(side.value.size))) for side in (left, right)))
    return equal(*(side.args[0] if side.kind == "unit" else side for side in (left, right)))


def _same_percentage(left: Node, right: Node) -> bool:
    """50% is a half, and 50 where the other side leaves out the sign; a value up to 1 is no percentage without its sign."""
    if left.kind == right.kind:
        return same_value(left, right)
    bare = [side.args[0] if side.kind == "percent" else side for side in (left, right)]
    if same_value(left, right):
        return True
    size = exact(bare[0])
    return (left.kind == "percent" or size is None or abs(size) > 1) and same_value(*bare)


def _has_degrees(node: Node) -> bool:
    return uses(node, lambda n: n.kind == "degree")


def _same_angle(left: Node, right: Node) -> bool:
    """90° is 90, and in radians half of pi."""
    if _has_degrees(left) != _has_degrees(right):
        other = right if _has_degrees(left) else left
        if uses(other, lambda n: n == Node("symbol", value="pi")) and same_value(left, right):
            return True
    sides = [without(side, "degree", inside_functions=False) for side in (left, right)]
    if not any(uses(side, _is_bare_logarithm) for side in sides):
        return same_value(*sides)
    return same_value(*sides) or same_value(*map(_to_base_ten, sides))


def _is_bare_logarithm(node: Node) -> bool:
    return node.kind == "function" and node.value == "log" and len(node.args) == 1


def _to_base_ten(node: Node) -> Node:
    r"""``\log`` is the natural logarithm to some, to others that of base 10."""
    args = tuple(map(_to_base_ten, node.args))
    return Node(node.kind, (*args, number(10)) if _is_bare_logarithm(node) else args, node.value)


def _approximations(node: Node) -> list[Node]:
    """The sides of ``sqrt(2) = 2^(1/2) ≈ 1.414`` that may be the answer: all of them if they are near each other."""
    cut = node.value.index("≈")
    head = node.args[: cut + 1]
    exactly = head[0] if len(head) == 1 else Node("relation", head, node.value[:cut])
    if is_name(head[0]):
        named = node.args[1:]
        if len(named) == 1:
            return [named[0]]
        exactly = unnamed(exactly) if len(head) > 1 else named[0]
    else:
        exactly = plain(exactly)
    rounded = node.args[-1]
    try:
        if symbols(exactly) or symbols(rounded):
            return [exactly]
        a, b = values.evaluate(exactly, {}), values.evaluate(rounded, {})
    except (Undefined, TooLarge):
        return [exactly]
    return [exactly, rounded] if abs(a - b) <= abs(a) / 50 else []


def _in_order(left, right) -> bool:
    return len(left) == len(right) and all(equal(a, b) for a, b in zip(left, right))


def _any_order(left, right) -> bool:
    if len(left) != len(right):
        return False
    if not any(uses(item, lambda n: n.kind == "unit") for item in (*left, *right)):
        if sorted(map(repr, map(key, left))) == sorted(map(repr, map(key, right))):
            return True
    if len(left) > 12:
        return False
    rest = list(right)
    for item in left:
        found = next((i for i, other in enumerate(rest) if equal(item, other)), None)
        if found is None:
            return False
        del rest[found]
    return True


def _without_doubles(items) -> tuple[Node, ...]:
    return tuple({repr(key(item)): item for item in items}.values())


def _same_structure(left: Node, right: Node) -> bool:
    kinds = {left.kind, right.kind}
    if "based" in kinds:
        bare, other = (left, right) if left.kind == "based" else (right, left)
        return other.kind == "number" and bare.value[0].isdigit() and other.value == int(bare.value[0])
    vectors = vector(left), vector(right)
    if None not in vectors:
        rows_and_columns = left.kind == right.kind == "matrix" and len(left.args) != len(right.args)
        return not rows_and_columns and _in_order(*vectors)
    if kinds == {"mod"}:
        return _same_residue(left, right)
    if kinds == {"mod", "number"}:
        residue, other = (left, right) if left.kind == "mod" else (right, left)
        a, m = exact(residue.args[0]) if residue.args[0].kind == "number" else None, exact(residue.args[1])
        return a is not None and bool(m) and a % m == other.value
    if (same := regions.same_region(left, right)) is not None:
        return same
    if kinds == {"set"}:
        return _any_order(_without_doubles(left.args), _without_doubles(right.args))
    if kinds <= {"list", "set"}:
        return _any_order(left.args, right.args)
    if kinds == {"list", "bracket"}:
        ends = left.value if left.kind == "bracket" else right.value
        return (ends == "()" or (ends == "[]" and len(left.args) > 2)) and _in_order(left.args, right.args)
    if kinds == {"bracket"}:
        if len(left.args) > 2 and {left.value, right.value} <= {"()", "[]"}:
            return _in_order(left.args, right.args)
        return left.value == right.value and _in_order(left.args, right.args)
    if kinds == {"union"}:
        return _any_order(left.args, right.args)
    if kinds == {"matrix"}:
        return len(left.args) == len(right.args) and all(_in_order(a.args, b.args) for a, b in zip(left.args, right.args))
    if kinds == {"ratio"} and len(left.args) == len(right.args):
        ends = left.args[-1], right.args[-1]
        return all(same_value(Node("mul", (a, ends[1])), Node("mul", (b, ends[0]))) for a, b in zip(left.args, right.args))
    if "ratio" in kinds and not kinds & (set(CONTAINERS) - {"ratio"}):
        if any(n.kind == "number" and n.value.denominator == 1 for n in (left, right)):
            return False  # 42:1 is not the number 42
        sides = [quotient(*n.args) if n.kind == "ratio" and len(n.args) == 2 else n for n in (left, right)]
        return all(n.kind != "ratio" for n in sides) and same_value(*sides)
    if left.kind == right.kind and left.kind in BINDERS:
        return _same_binder(left, right)
    return left.kind == right.kind and left.value == right.value and bool(left.args) and _in_order(left.args, right.args)


def _same_binder(left: Node, right: Node) -> bool:
    """Of two sums, integrals or limits: the same form under the one name."""
    renamed = substitute(Node("row", right.args), {right.value: Node("symbol", value=left.value)})
    return _in_order(left.args, renamed.args)


def _same_residue(left: Node, right: Node) -> bool:
    if not equal(left.args[1], right.args[1]):
        return False
    a, b = unnamed(left.args[0]), unnamed(right.args[0])
    difference, modulus = exact(subtract(a, b)), exact(left.args[1])
    if difference is not None and modulus:
        return (difference / modulus).denominator == 1
    return equal(a, b)

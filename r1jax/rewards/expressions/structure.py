"""What an expression says, apart from how: names and equations around a value, inequalities, lists, matrices as lists."""

from __future__ import annotations

from r1jax.rewards.expressions import symbolic
from r1jax.rewards.expressions.nodes import Node, is_name, substitute, symbols, uses
from r1jax.rewards.expressions.regions import FLIPPED, as_interval
from r1jax.rewards.expressions.values import TooLarge, Undefined, exact, sampled_equal

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
    "mod",
    "limit",
    "integral",
    "case",
)
PARAMETER = "integer parameter"
MAX_FILLED = 200  # numbers between dots


def _holds(left: Node, right: Node) -> bool:
    try:
        a, b = exact(left), exact(right)
        return a == b if None not in (a, b) else bool(sampled_equal(left, right))
    except (TooLarge, Undefined):
        return False


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
        chain = [argument.args[0] if argument.kind == "unit" else argument for argument in node.args]
        if not any(map(symbols, chain)) and all(_holds(a, b) for a, b in zip(chain, chain[1:])):
            return node.args[-1]
        if len(chain) > 2 and symbols(chain[0]) and not any(map(symbols, chain[1:])) and _holds(chain[-2], chain[-1]):
            return node.args[-1]  # a + b = 1 + 2 = 3
    return node


def assignments(node: Node) -> list[tuple[Node, Node]] | None:
    """The (name, value) pairs of ``x = 1, y = 2``; None for anything else, roots ``x_1 = 1, x_2 = 2`` among it."""
    if node.kind != "list" or any(
        item.kind != "relation" or item.value != ("=",) or not is_name(item.args[0]) for item in node.args
    ):
        return None
    pairs = [(item.args[0], item.args[1]) for item in node.args]
    letters = {repr(name).partition("_")[0] for name, _ in pairs}
    return pairs if len(letters) == len(pairs) > 1 else None


def shared_value(node: Node) -> list[tuple[Node, Node]] | None:
    """The (name, value) pairs of ``x = y = z = 1``; None for anything else."""
    if node.kind != "relation" or set(node.value) != {"="} or len(node.args) < 3:
        return None
    *names, value = node.args
    return [(name, value) for name in names] if all(map(is_name, names)) and not is_name(value) else None


def vector(node: Node) -> tuple[Node, ...] | None:
    """The entries of a tuple, or of a matrix of one row or column."""
    if node.kind == "bracket" and node.value == "()":
        return node.args
    if node.kind == "matrix" and (len(node.args) == 1 or len(node.args[0].args) == 1):
        return tuple(cell for row in node.args for cell in row.args)
    return None


def plain(node: Node) -> Node:
    """``node`` without names, inequalities as intervals, alternatives of intervals as their union, integrals as values."""
    node = as_interval(unnamed(node))
    if node.kind in ("list", "set"):
        node = _filled(node)
    if node.kind == "list":
        return _plain_list(node)
    if node.kind == "set" and len(node.args) == 1:
        return plain(node.args[0])
    if node.kind == "mul":
        return _product(node)
    if node.kind == "add" and uses(node, lambda n: n.kind == "matrix"):
        return _matrix_sum(node)
    if node.kind == "bracket" and node.value == "[]" and _is_table(node):
        return Node("matrix", tuple(Node("row", row.args) for row in node.args))
    if node.kind == "infinity" or not node.args:
        return node
    if uses(node, lambda n: n.kind == "integral"):
        return _integrated(node)
    return node


def _filled(node: Node) -> Node:
    """``1, 2, ..., 10`` with what the dots stand for, if its numbers are whole and equally spaced; any other node itself."""
    dots = [i for i, item in enumerate(node.args) if item == Node("symbol", value="...")]
    if len(dots) != 1 or not 0 < dots[0] < len(node.args) - 1:
        return node
    given = [item.value for item in node.args if item.kind == "number" and item.value.denominator == 1]
    if len(given) != len(node.args) - 1:
        return node
    step = given[1] - given[0] if dots[0] > 1 else 1
    if not step or not 0 <= (given[-1] - given[0]) / step <= MAX_FILLED:
        return node
    values = [given[0] + step * i for i in range(int((given[-1] - given[0]) / step) + 1)]
    place = dots[0]
    if values[:place] != given[:place] or values[len(values) - len(given) + place :] != given[place:]:
        return node
    return Node(node.kind, tuple(Node("number", value=value) for value in values), node.value)


def _plain_list(node: Node) -> Node:
    relations = [item for item in node.args if item.kind == "relation"]
    if len(relations) == len(node.args) and all(set(item.value) & {*FLIPPED, "!="} for item in relations):
        return node  # conditions on one number
    if tuples := _solutions(node):
        return Node("list", tuples, "or")
    if any(set(item.value) == {"="} and symbols(item) and unnamed(item) is item for item in relations):
        return node  # a system of equations
    items = tuple(map(plain, node.args))
    if node.value == "or" and all(_holds(items[0], item) for item in items[1:]):  # 7/2 or 3.5
        return items[0]
    return Node("list", items, node.value)


def _solutions(node: Node) -> tuple[Node, ...]:
    """The points of ``x = 1, y = 2 or x = 2, y = 1``; none of anything else."""
    if any(item.kind != "relation" or item.value != ("=",) or not is_name(item.args[0]) for item in node.args):
        return ()
    names = [repr(item.args[0]) for item in node.args]
    size = len(set(names))
    if size < 2 or len(names) == size or names != names[:size] * (len(names) // size):
        return ()
    values = [item.args[1] for item in node.args]
    return tuple(Node("bracket", tuple(values[i : i + size]), "()") for i in range(0, len(values), size))


def _is_table(node: Node) -> bool:
    return (
        all(row.kind == "bracket" and row.value == "[]" for row in node.args) and len({len(r.args) for r in node.args}) == 1
    )


def _product(node: Node) -> Node:
    """A number times a matrix as a matrix; a point with its name, ``A(1, 2)``, as the point."""
    places = [i for i, factor in enumerate(node.args) if factor.kind == "matrix"]
    if len(places) == 1:
        (place,) = places
        others, matrix = (*node.args[:place], *node.args[place + 1 :]), node.args[place]
        return Node(
            "matrix",
            tuple(Node("row", tuple(Node("mul", (*others, cell)) for cell in row.args)) for row in matrix.args),
        )
    if (
        len(node.args) == 2
        and node.args[1].kind == "bracket"
        and node.args[0].kind == "symbol"
        and node.args[0].value.isupper()
    ):
        return node.args[1]
    return _integrated(node) if uses(node, lambda n: n.kind == "integral") else node


def _matrix_sum(node: Node) -> Node:
    terms = [plain(term) for term in node.args]
    shapes = {(len(term.args), len(term.args[0].args)) for term in terms if term.kind == "matrix"}
    if len(shapes) != 1 or any(term.kind != "matrix" for term in terms):
        return node
    rows = zip(*(term.args for term in terms))
    return Node(
        "matrix", tuple(Node("row", tuple(Node("add", cells) for cells in zip(*(r.args for r in row)))) for row in rows)
    )


def _integrated(node: Node) -> Node:
    args = tuple(map(_integrated, node.args))
    if node.kind == "integral":
        return symbolic.integral(Node("integral", args, node.value)) or node
    return Node(node.kind, args, node.value) if args else node


def integer_family(node: Node) -> Node:
    r"""``k\pi, k \in \mathbb{Z}`` as the expression, its one parameter under a name of its own; any other node itself."""
    if node.kind != "list":
        return node
    integers = Node("symbol", value="mathbb Z")
    names = [name for item in node.args if (name := _declared(item, integers))]
    rest = tuple(item for item in node.args if item != integers and not _declared(item, integers))
    if len(rest) == len(node.args) or not rest:
        return node
    if not names:
        names = sorted(symbols(node) & set("knm"))
    if len(names) == 1:
        rest = tuple(substitute(item, {names[0]: Node("symbol", value=PARAMETER)}) for item in rest)
    return rest[0] if len(rest) == 1 else Node("list", rest, node.value)


def _declared(item: Node, integers: Node) -> str | None:
    """The name that ``k in Z`` declares."""
    if item.kind == "relation" and item.value == ("in",) and item.args[1] == integers and item.args[0].kind == "symbol":
        return item.args[0].value
    return None

r"""Commands and functions of LaTeX in an answer: fractions, roots, matrices, systems, sums, limits, integrals, functions."""

from __future__ import annotations

from fractions import Fraction

from r1jax.rewards.expressions.nodes import MINUS_ONE, Node, negate, number
from r1jax.rewards.expressions.reading.tokens import Token, Unreadable

MAX_DEPTH = 30

_MATRICES = ("pmatrix", "bmatrix", "vmatrix", "Vmatrix", "Bmatrix", "matrix", "smallmatrix", "array")
_SYSTEMS = ("cases", "dcases", "rcases", "aligned", "align", "gathered", "split")
_MANY_ARGUMENTS = ("min", "max", "gcd", "lcm")
_INVERTIBLE = frozenset("sin cos tan cot sec csc sinh cosh tanh".split())


class Cursor:
    """A place among tokens, and how deep the expression that is being read is nested there."""

    def __init__(self, tokens: list[Token]):
        self.tokens = tokens
        self.place = 0
        self.depth = 0
        self.bars = 0
        self.integrals = 0  # whose dx is still to come

    @property
    def token(self) -> Token:
        return self.tokens[self.place]

    @property
    def following(self) -> Token:
        return self.tokens[min(self.place + 1, len(self.tokens) - 1)]

    def at(self, *operators: str) -> bool:
        return self.token.kind == "operator" and self.token.value in operators

    def at_command(self, *names: str) -> bool:
        return self.token.kind == "command" and self.token.value in names

    def advance(self) -> Token:
        token = self.token
        if token.kind != "end":
            self.place += 1
        return token

    def accept(self, *operators: str) -> bool:
        found = self.at(*operators)
        self.place += found
        return found

    def expect(self, *operators: str) -> str:
        if not self.at(*operators):
            raise Unreadable(f"expected {' or '.join(operators)}, found {self.token.value!s:.40}")
        return self.advance().value

    def deepen(self) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unreadable(f"nested more than {MAX_DEPTH} deep")


class Commands(Cursor):
    """What begins with a command or a function's name. The rest of the grammar is ``parser._Parser``'s."""

    def argument(self) -> Node:
        r"""An argument of \frac: a group, one symbol, or one digit."""
        token = self.token
        if token.kind == "number" and len(token.raw) > 1 and token.raw.isdigit():
            rest = token.raw[1:]
            self.tokens[self.place] = Token("number", Fraction(int(rest)), rest)
            return number(int(token.raw[0]))
        self.deepen()
        node = self.primary()
        self.depth -= 1
        return node

    def command_frac(self, _: Token) -> Node:
        top, bottom = self.argument(), self.argument()
        d = Node("symbol", value="d")
        if (
            top == d
            and bottom.kind == "mul"
            and len(bottom.args) == 2
            and bottom.args[0] == d
            and bottom.args[1].kind == "symbol"
        ):
            return Node("derivative", (self.body(),), bottom.args[1].value)
        return Node("div", (top, bottom))

    def command_binom(self, _: Token) -> Node:
        return Node("function", (self.argument(), self.argument()), "binom")

    def command_sqrt(self, _: Token) -> Node:
        degree = None
        if self.at("["):
            self.advance()
            degree = self.sum()
            self.expect("]")
        self.deepen()
        radicand = self.primary()
        self.depth -= 1
        return Node("function", (radicand,) if degree is None else (radicand, degree), "root")

    def command_end(self, _: Token) -> Node:
        raise Unreadable("an environment that never began")

    def command_begin(self, token: Token) -> Node:
        if token.raw not in _MATRICES and token.raw not in _SYSTEMS:
            raise Unreadable(f"unknown environment {token.raw:.40}")
        self.deepen()
        if token.raw in _SYSTEMS:
            self.drop_alignment()
        rows: list[tuple[Node, ...]] = []
        cells: list[Node] = []
        while not self.at_command("end"):
            if self.token.kind == "word" and (self.following.value == "row" or self.following[:2] == ("command", "end")):
                cells.append(Node("symbol", value=str(self.advance().value)))  # otherwise
            elif self.accept("row"):
                rows.append(tuple(cells))
                cells = []
            elif not self.accept("&", ",", ";"):
                cells.append(self.relation())
        if self.advance().raw != token.raw:
            raise Unreadable("environments that overlap")
        self.depth -= 1
        rows += [tuple(cells)] if cells else []
        if token.raw in _SYSTEMS or (token.raw == "array" and any(c.kind == "relation" for row in rows for c in row)):
            if token.raw.endswith("cases") and rows and all(len(row) == 2 and row[0].kind != "relation" for row in rows):
                return Node("list", tuple(Node("case", row) for row in rows), "or")
            items = tuple(cell for row in rows for cell in row)
            if not items:
                raise Unreadable("an empty system")
            return items[0] if len(items) == 1 else Node("list", items, "and")
        if not rows or not rows[0] or len({len(row) for row in rows}) != 1:
            raise Unreadable("a matrix whose rows differ in length")
        if token.raw == "vmatrix":
            return _determinant(rows)
        return Node("matrix", tuple(Node("row", row) for row in rows))

    def drop_alignment(self) -> None:
        """Leaves out each & of ``x &= 1``, which separates nothing."""
        relations = ("=", "!=", "<", ">", "<=", ">=", "≈")
        rest = self.tokens[self.place :]
        sides = zip(rest, [self.tokens[self.place - 1], *rest], [*rest[1:], rest[-1]])
        self.tokens[self.place :] = [
            token for token, before, after in sides if token.value != "&" or not {before.value, after.value} & {*relations}
        ]

    # ------------------------------------------------------------------------------------------ sums, integrals, limits
    def limits(self) -> tuple[Node | None, Node | None]:
        """The subscript and the superscript of a large operator."""
        below = above = None
        while self.at("_", "^"):
            if self.advance().value == "_":
                below = self.limit()
            else:
                above = self.argument()
        return below, above

    def limit(self) -> Node:
        if not self.accept("{"):
            return self.argument()
        self.deepen()
        node = self.relation()
        if self.accept("→"):
            node = Node("relation", (node, self.sum()), ("→",))
        self.depth -= 1
        self.expect("}")
        return node

    def body(self) -> Node:
        self.deepen()
        node = self.product()
        self.depth -= 1
        return node

    def command_sum(self, token: Token) -> Node:
        below, above = self.limits()
        if (
            below is None
            or above is None
            or below.kind != "relation"
            or below.value != ("=",)
            or below.args[0].kind != "symbol"
        ):
            raise Unreadable("a sum without its limits")
        kind = "product" if token.value == "prod" else "sum"
        return Node(kind, (below.args[1], above, self.body()), below.args[0].value)

    command_prod = command_sum

    def command_lim(self, _: Token) -> Node:
        below, above = self.limits()
        if below is None or above is not None or below.value != ("→",) or below.args[0].kind != "symbol":
            raise Unreadable("a limit without its place")
        return Node("limit", (below.args[1], self.body()), below.args[0].value)

    def command_int(self, _: Token) -> Node:
        below, above = self.limits()
        self.deepen()
        self.integrals += 1
        body = self.sum()
        self.integrals -= 1
        self.depth -= 1
        *terms, last = body.args if body.kind == "add" else (body,)
        factors = last.args if last.kind == "mul" else ()
        if len(factors) < 2 or factors[-2] != Node("symbol", value="d") or factors[-1].kind != "symbol":
            raise Unreadable("an integral without its variable")
        rest = factors[:-2] or (number(1),)
        terms.append(rest[0] if len(rest) == 1 else Node("mul", rest))
        integrand = terms[0] if len(terms) == 1 else Node("add", tuple(terms))
        limits = () if below is None or above is None else (below, above)
        return Node("integral", (integrand, *limits), factors[-1].value)

    def at_differential(self) -> bool:
        return bool(self.integrals) and self.token[:2] == ("symbol", "d") and self.following.kind == "symbol"

    def function(self, name: str) -> Node:
        exponent, base = None, None
        while self.at("^", "_"):
            if self.advance().value == "^":
                exponent = self.argument()
            else:
                base = self.argument()
        if name == "lg":
            name, base = "log", base or number(10)
        name = "root" if name == "sqrt" else name
        if base is not None and name != "log":
            raise Unreadable(f"a subscript of {name}")
        if exponent == MINUS_ONE and name in _INVERTIBLE:
            name, exponent = f"arc{name}", None
        arguments = self.function_arguments(name)
        if name == "cbrt":
            name, arguments = "root", (*arguments, number(3))
        node = Node("function", arguments if base is None else (*arguments, base), name)
        return node if exponent is None else Node("pow", (node, exponent))

    def function_arguments(self, name: str) -> tuple[Node, ...]:
        self.deepen()
        if name in _MANY_ARGUMENTS:
            arguments = tuple(self.inside((")",) if self.expect("(", "\\{") == "(" else ("\\}",))[0])
            if not arguments:
                raise Unreadable(f"{name} of nothing")
        elif self.at("(", "{", "|", "["):
            arguments = (self.primary(),)
        else:
            factors = [self.unary()]
            while (
                not (self.at_differential() or self.token.kind == "function")
                and (self.token.kind == "symbol" or self.starts_factor())
                and name != "root"
            ):
                factors.append(self.power())
            arguments = (factors[0] if len(factors) == 1 else Node("mul", tuple(factors)),)
        self.depth -= 1
        return arguments


def _determinant(rows: list[tuple[Node, ...]]) -> Node:
    """The determinant of at most 4 rows, expanded along the first."""
    if len(rows) != len(rows[0]) or len(rows) > 4:
        raise Unreadable("a determinant that is not square, or of over 4 rows")
    if len(rows) == 1:
        return rows[0][0]
    terms = []
    for place, cell in enumerate(rows[0]):
        minor = _determinant([row[:place] + row[place + 1 :] for row in rows[1:]])
        term = Node("mul", (cell, minor))
        terms.append(negate(term) if place % 2 else term)
    return Node("add", tuple(terms))

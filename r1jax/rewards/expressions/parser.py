"""From tokens to a tree: precedence climbing over the notation of final answers. Depth is bounded, nothing is computed."""

from __future__ import annotations

from fractions import Fraction
from typing import NamedTuple

from r1jax.rewards.expressions.tokens import Token, Unreadable, tokenize

MAX_DEPTH = 30
MAX_SIGNS = 4  # of ±, each of which may double what it stands in

RELATIONS = ("=", "!=", "<", ">", "<=", ">=", "in")
_MATRICES = ("pmatrix", "bmatrix", "vmatrix", "Vmatrix", "Bmatrix", "matrix", "smallmatrix", "array")
_MANY_ARGUMENTS = ("min", "max", "gcd", "lcm")
_INVERSES = {"sin": "arcsin", "cos": "arccos", "tan": "arctan"}


class Node(NamedTuple):
    """One node of an expression.

    Kinds: number (value: Fraction), symbol (value: name), infinity (value: 1 or -1), add, mul, pow, div, pm (a, b),
    function (value: name), based (value: digits, base), percent, bracket (value: its two ends), set, list, ratio, union,
    intersection, difference, matrix (args: rows of kind row), relation (value: its operators, args: its sides),
    text (value), choice (value: a letter).
    """

    kind: str
    args: tuple[Node, ...] = ()
    value: object = None


MINUS_ONE = Node("number", value=Fraction(-1))


def negate(node: Node) -> Node:
    if node.kind in ("number", "infinity"):
        return Node(node.kind, value=-node.value)
    return Node("mul", (MINUS_ONE, node))


def _has_pm(node: Node) -> bool:
    return node.kind == "pm" or any(map(_has_pm, node.args))


def _with_sign(node: Node, sign: int) -> Node:
    """The reading of every ± in ``node`` as plus or as minus."""
    args = tuple(_with_sign(a, sign) for a in node.args)
    if node.kind == "pm":
        return Node("add", (args[0], args[1] if sign * node.value > 0 else negate(args[1])))
    return Node(node.kind, args, node.value)


def _expand(items: list[Node]) -> tuple[Node, ...]:
    """Each item with a ± becomes two."""
    return tuple(new for item in items for new in ([_with_sign(item, 1), _with_sign(item, -1)] if _has_pm(item) else [item]))


class _Parser:
    def __init__(self, tokens: list[Token]):
        self.tokens = tokens
        self.place = 0
        self.depth = 0
        self.bars = 0

    # ------------------------------------------------------------------------------------------ tokens
    @property
    def token(self) -> Token:
        return self.tokens[self.place]

    def at(self, *operators: str) -> bool:
        return self.token.kind == "operator" and self.token.value in operators

    def advance(self) -> Token:
        token = self.token
        if token.kind != "end":
            self.place += 1
        return token

    def expect(self, *operators: str) -> str:
        if not self.at(*operators):
            raise Unreadable(f"expected {' or '.join(operators)}, found {self.token.value!s:.40}")
        return self.advance().value

    # ------------------------------------------------------------------------------------------ lists and relations
    def whole(self) -> Node:
        if sum(token.kind == "operator" and token.value in ("±", "∓") for token in self.tokens) > MAX_SIGNS:
            raise Unreadable(f"more than {MAX_SIGNS} signs ±")
        items = self.sequence()
        if self.token.kind != "end" or not items:
            raise Unreadable(f"unexpected {self.token.value!s:.40}")
        expanded = _expand(items)
        return expanded[0] if len(expanded) == 1 else Node("list", expanded)

    def sequence(self) -> list[Node]:
        items = []
        while True:
            while self.at(",", ";"):
                self.advance()
            if self.token.kind == "end" or self.at(")", "]", "}", "\\}"):
                return items
            items.append(self.relation())
            self.unit()
            if not (self.token.kind == "end" or self.at(",", ";", ")", "]", "}", "\\}")):
                raise Unreadable(f"unexpected {self.token.value!s:.40}")

    def unit(self) -> None:
        """Passes over a unit: words after a value, with their powers and fractions."""
        while True:
            if self.token.kind in ("text", "word") or (self.token.kind == "function" and self.token.value in ("min", "sec")):
                self.advance()
                if self.at("^"):
                    self.advance()
                    self.unary()
            elif self.at("°") or (self.at("/", "*", "-") and self.tokens[self.place + 1].kind in ("text", "word")):
                self.advance()
            else:
                return

    def relation(self) -> Node:
        if self.at("="):
            self.advance()
        sides, operators = [self.sets()], []
        while self.at(*RELATIONS):
            operators.append(self.advance().value)
            sides.append(self.sets())
        return Node("relation", tuple(sides), tuple(operators)) if operators else sides[0]

    def sets(self) -> Node:
        left = self.ratio()
        kinds = {"∪": "union", "∩": "intersection", "∖": "difference"}
        while self.at(*kinds):
            kind = kinds[self.advance().value]
            right = self.ratio()
            flat = left.args if left.kind == kind == "union" else (left,)
            left = Node(kind, (*flat, right))
            if len(left.args) == 2 and kind != "union":
                self.deepen()  # for good: such a chain nests to the left
        return left

    def deepen(self) -> None:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise Unreadable(f"nested more than {MAX_DEPTH} deep")

    def ratio(self) -> Node:
        parts = [self.sum()]
        while self.at(":"):
            self.advance()
            parts.append(self.sum())
        return parts[0] if len(parts) == 1 else Node("ratio", tuple(parts))

    # ------------------------------------------------------------------------------------------ arithmetic
    def sum(self) -> Node:
        terms = [self.product()]
        while self.at("+", "-", "±", "∓"):
            sign = self.advance().value
            term = self.product()
            if sign in "±∓":
                left = terms[0] if len(terms) == 1 else Node("add", tuple(terms))
                terms = [Node("pm", (left, term), 1 if sign == "±" else -1)]
            else:
                terms.append(negate(term) if sign == "-" else term)
        return terms[0] if len(terms) == 1 else Node("add", tuple(terms))

    def product(self) -> Node:
        factors = [self.unary()]
        while True:
            if self.at("*"):
                self.advance()
                factors.append(self.unary())
            elif self.at("/") and self.tokens[self.place + 1].kind not in ("text", "word"):
                self.advance()
                factors.append(Node("pow", (self.unary(), MINUS_ONE)))
            elif self.token.kind == "number":
                raise Unreadable("two numbers side by side")
            elif self.starts_factor():
                factors.append(self.mixed_number())
            else:
                return factors[0] if len(factors) == 1 else Node("mul", tuple(factors))

    def starts_factor(self) -> bool:
        if self.token.kind == "operator":
            return self.token.value in ("(", "[", "{", "⌊", "⌈") or (self.token.value == "|" and not self.bars)
        if self.token.kind == "function" and self.token.value in ("min", "sec"):  # minutes and seconds
            following = self.tokens[self.place + 1]
            return following.kind in ("symbol", "command", "number") or following.value in ("(", "{", "^")
        return self.token.kind in ("symbol", "function", "command") and (self.token.kind, self.token.value) != (
            "command",
            "end",
        )

    def mixed_number(self) -> Node:
        r"""A factor; ``1 1/2`` and ``1\frac{1}{2}`` are one and a half, not products."""
        node = self.power()
        if not _is_whole(node):
            return node
        if self.token[:2] == ("command", "frac"):
            part = self.power()
            if part.kind == "div" and all(map(_is_whole, part.args)):
                return _mixed(node, *part.args)
            return Node("mul", (node, part))
        first, slash, second = (*self.tokens[self.place : self.place + 3], *(self.tokens[-1],) * 3)[:3]
        if first.kind == second.kind == "number" and first.spaced and slash.value == "/":
            self.place += 3
            return _mixed(node, Node("number", value=first.value), Node("number", value=second.value))
        return node

    def unary(self) -> Node:
        sign = 1
        pm = 0
        while self.at("+", "-", "±", "∓"):
            value = self.advance().value
            sign = -sign if value == "-" else sign
            pm = {"±": 1, "∓": -1}.get(value, pm)
        node = self.mixed_number()
        if pm:
            return Node("pm", (Node("number", value=Fraction(0)), node), pm)
        return negate(node) if sign < 0 else node

    def power(self) -> Node:
        self.deepen()
        base = self.postfix()
        while self.at("^"):
            self.advance()
            if self.at("°"):
                self.advance()
            elif self.at("{") and self.tokens[self.place + 1].value == "°":
                self.advance(), self.advance(), self.expect("}")
            else:
                base = Node("pow", (base, self.unary()))
                break
        self.depth -= 1
        return base

    def postfix(self) -> Node:
        node = self.primary()
        if self.at("!"):
            self.advance()
            node = Node("function", (node,), "factorial")
        if self.at("%"):
            self.advance()
            node = Node("percent", (node,))
        if self.at("°"):
            self.advance()
        return node

    def primary(self) -> Node:
        token = self.advance()
        if token.kind == "number":
            return self.based(token) if self.at("_") and token.raw.isdigit() else Node("number", value=token.value)
        if token.kind == "symbol":
            return self.symbol(token)
        if token.kind == "function":
            return self.function(token.value)
        if token.kind == "command":
            return getattr(self, f"command_{token.value}")(token)
        if token.kind == "operator":
            if token.value == "∞":
                return Node("infinity", value=1)
            if token.value in ("(", "["):
                return self.bracket(token.value)
            if token.value in ("{", "\\{"):
                return self.braces(token.value)
            if token.value == "|":
                self.bars += 1
                inner = self.sum()
                self.expect("|")
                self.bars -= 1
                return Node("function", (inner,), "abs")
            if token.value in ("⌊", "⌈"):
                inner = self.sum()
                self.expect("⌋" if token.value == "⌊" else "⌉")
                return Node("function", (inner,), "floor" if token.value == "⌊" else "ceil")
        raise Unreadable(f"unexpected {token.value!s:.40}")

    # ------------------------------------------------------------------------------------------ primaries
    def based(self, token: Token) -> Node:
        self.advance()
        base = self.primary()
        if base.kind != "number" or not 2 <= base.value <= 36 or base.value.denominator != 1:
            raise Unreadable("the subscript of a number is its base, 2 to 36")
        return Node("based", value=(token.raw.lstrip("0") or "0", int(base.value)))

    def symbol(self, token: Token) -> Node:
        name = token.value
        if self.at("_"):
            self.advance()
            parts, depth = [], 0
            while True:
                part = self.advance()
                depth += (part.value == "{") - (part.value == "}")
                if part.kind == "end" or depth < 0:
                    raise Unreadable("a subscript that never ends")
                if part.value not in ("{", "}"):
                    parts.append(part.raw or str(part.value))
                if depth == 0:
                    break
            name = f"{name}_{','.join(parts)}"
        return Node("symbol", value=name)

    def inside(self, closing: tuple[str, ...]) -> tuple[list[Node], str]:
        bars, self.bars = self.bars, 0
        items = self.sequence()
        self.bars = bars
        return items, self.expect(*closing)

    def bracket(self, opening: str) -> Node:
        items, closing = self.inside((")", "]"))
        if len(items) == 1 and opening + closing in ("()", "[]"):
            return items[0]
        if not items:
            raise Unreadable("empty brackets")
        return Node("bracket", tuple(items), opening + closing)

    def braces(self, opening: str) -> Node:
        items, _ = self.inside(("}",) if opening == "{" else ("\\}",))
        if opening == "{" and len(items) == 1:
            return items[0]
        if opening == "{" and not items:
            raise Unreadable("empty braces")
        return Node("set", _expand(items))

    def argument(self) -> Node:
        r"""An argument of \frac: a group, one symbol, or one digit."""
        token = self.token
        if token.kind == "number" and len(token.raw) > 1 and token.raw.isdigit():
            rest = token.raw[1:]
            self.tokens[self.place] = Token("number", Fraction(int(rest)), rest)
            return Node("number", value=Fraction(int(token.raw[0])))
        self.deepen()
        node = self.primary()
        self.depth -= 1
        return node

    def command_frac(self, _: Token) -> Node:
        return Node("div", (self.argument(), self.argument()))

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
        if token.raw not in _MATRICES:
            raise Unreadable(f"unknown environment {token.raw:.40}")
        rows: list[tuple[Node, ...]] = []
        cells: list[Node] = []
        while True:
            if self.token.kind == "command" and self.token.value == "end":
                if self.advance().raw != token.raw:
                    raise Unreadable("environments that overlap")
                if cells:
                    rows.append(tuple(cells))
                if not rows or len({len(row) for row in rows}) != 1:
                    raise Unreadable("a matrix whose rows differ in length")
                return Node("matrix", tuple(Node("row", row) for row in rows))
            if self.at("row"):
                self.advance()
                rows.append(tuple(cells))
                cells = []
            elif self.at("&"):
                self.advance()
            else:
                cells.append(self.relation())

    def function(self, name: str) -> Node:
        exponent, base = None, None
        while self.at("^", "_"):
            if self.advance().value == "^":
                exponent = self.argument()
            else:
                base = self.argument()
        name = {"lg": "log", "sqrt": "root"}.get(name, name)
        if base is not None and name != "log":
            raise Unreadable(f"a subscript of {name}")
        if exponent == MINUS_ONE and name in _INVERSES:
            name, exponent = _INVERSES[name], None
        arguments = self.function_arguments(name)
        if name == "cbrt":
            name, arguments = "root", (*arguments, Node("number", value=Fraction(3)))
        node = Node("function", arguments if base is None else (*arguments, base), name)
        return node if exponent is None else Node("pow", (node, exponent))

    def function_arguments(self, name: str) -> tuple[Node, ...]:
        self.deepen()
        if name in _MANY_ARGUMENTS:
            self.expect("(")
            arguments = tuple(self.inside((")",))[0])
            if not arguments:
                raise Unreadable(f"{name} of nothing")
        elif self.at("(", "{", "|", "["):
            arguments = (self.primary(),)
        else:
            factors = [self.unary()]
            while self.token.kind != "function" and (self.token.kind == "symbol" or self.starts_factor()) and name != "root":
                factors.append(self.power())
            arguments = (factors[0] if len(factors) == 1 else Node("mul", tuple(factors)),)
        self.depth -= 1
        return arguments


def _is_whole(node: Node) -> bool:
    return node.kind == "number" and node.value.denominator == 1 and node.value >= 0


def _mixed(whole: Node, top: Node, bottom: Node) -> Node:
    if bottom.value == 0:
        raise Unreadable("a fraction over nothing")
    return Node("number", value=whole.value + top.value / bottom.value)


def parse(text: str, commas_group: bool = True) -> Node:
    """The expression that ``text`` holds.

    Raises:
      Unreadable: it is none of this grammar, or beyond its bounds.
    """
    try:
        return _Parser(tokenize(text, commas_group)).whole()
    except RecursionError:  # the caller's own stack was nearly full
        raise Unreadable("nested too deep") from None

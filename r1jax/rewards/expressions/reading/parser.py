"""From tokens to a tree: precedence climbing over the notation of final answers. Depth is bounded, nothing is computed."""

from __future__ import annotations

from r1jax.rewards.expressions.nodes import MINUS_ONE, Node, negate, number
from r1jax.rewards.expressions.reading import units
from r1jax.rewards.expressions.reading.commands import Commands
from r1jax.rewards.expressions.reading.tokens import Token, Unreadable, tokenize

MAX_SIGNS = 4  # of ±, each of which may double what it stands in

RELATIONS = ("=", "!=", "<", ">", "<=", ">=", "in", "≈")
_ENDS = (",", ";", ")", "]", "}", "\\}", "row", "&")
_BASES = {word: n for n, word in enumerate("two three four five six seven eight nine ten eleven twelve".split(), 2)}


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


class _Parser(Commands):
    # ------------------------------------------------------------------------------------------ lists and relations
    def whole(self) -> Node:
        if sum(token.kind == "operator" and token.value in ("±", "∓") for token in self.tokens) > MAX_SIGNS:
            raise Unreadable(f"more than {MAX_SIGNS} signs ±")
        items, connective = self.sequence()
        if self.token.kind != "end" or not items:
            raise Unreadable(f"unexpected {self.token.value!s:.40}")
        if len(items) > 1 and items[0].kind == "relation" and items[0].value == ("!=",):  # x != 1, 2
            name = items[0].args[0]
            items = [Node("relation", (name, item), ("!=",)) if item.kind == "number" else item for item in items]
        expanded = _expand(items)
        return expanded[0] if len(expanded) == 1 else Node("list", expanded, connective)

    def sequence(self) -> tuple[list[Node], str | None]:
        """Items up to a closing bracket or the end, and the "and" or "or" between them, if one stands there."""
        items: list[Node] = []
        connective = None
        while True:
            while self.at(",", ";"):
                connective = self.advance().raw or connective
            if self.token.kind == "end" or self.at(*_ENDS[2:]) or self.at_command("end"):
                return items, connective
            items.append(self.relation())
            if self.at("∣"):  # the conditions of a set follow
                return items, connective
            if not (self.token.kind == "end" or self.at(*_ENDS) or self.at_command("end")):
                raise Unreadable(f"unexpected {self.token.value!s:.40}")

    def relation(self) -> Node:
        place = self.place
        while self.token.kind == "word":  # "Area = 5"
            self.advance()
        if not self.at("=", "≈", ":"):
            self.place = place
        self.accept("=", "≈", ":")
        sides, operators = [self.sets()], []
        while self.at(*RELATIONS):
            operators.append(self.advance().value)
            sides.append(self.sets())
        node = Node("relation", tuple(sides), tuple(operators)) if operators else sides[0]
        if self.accept("over"):
            return Node("div", (node, self.sets()))
        if self.accept("choose"):
            return Node("function", (node, self.sets()), "binom")
        if self.accept("mod") or (self.at("(") and self.following[:2] == ("operator", "mod")):
            if self.accept("("):
                self.advance()
                modulus = self.sum()
                self.expect(")")
            else:
                modulus = self.sum()
            return Node("mod", (node, modulus))
        return node

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

    def ratio(self) -> Node:
        parts = [self.sum()]
        while self.accept(":"):
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
        currency = self.advance().value if self.token.kind == "currency" else None
        factors = [self.unary()]
        while True:
            if self.token.kind == "currency":
                currency = self.advance().value
            if self.accept("*"):
                factors.append(self.unary())
            elif self.at("/") and self.following.kind != "word":
                self.advance()
                factors.append(Node("pow", (self.unary(), MINUS_ONE)))
            elif self.token.kind == "number" and factors[-1].kind != "function":
                raise Unreadable("two numbers side by side")
            elif self.starts_factor() or self.token.kind == "number":
                factors.append(self.mixed_number())
            else:
                node = factors[0] if len(factors) == 1 else Node("mul", tuple(factors))
                return self.quantity(node, currency)

    def quantity(self, node: Node, currency: str | None) -> Node:
        """``node`` with the unit that follows it; 2 hours 30 minutes is one quantity. Words that are no unit are passed over."""
        words = [currency] if currency else []
        while self.token.kind == "word" and self.token.value in units.MULTIPLES:
            node = Node("mul", (node, number(units.MULTIPLES[self.advance().value])))
        while True:
            if self.token.kind == "word":
                words.append(self.advance().value)
            elif words and self.token.kind == "currency":
                self.advance()
            elif words and self.at("/", "*", "-") and self.following.kind in ("word", "symbol"):
                words.append(self.advance().value)
                words.append(self.advance().value)
            elif self.at("/", "*", "-") and self.following.kind == "word":
                words.append(self.advance().value)
            elif words and self.at("^"):
                words += self.unit_exponent()
            else:
                break
        unit = units.unit(words) if words else None
        if unit is None:
            return node
        node = Node("unit", (node,), unit)
        if self.token.kind == "number" or (self.at(",") and self.token.raw == "and" and self.following.kind == "number"):
            return self.compound(node, unit)
        return node

    def compound(self, node: Node, unit: units.Unit) -> Node:
        place = self.place
        self.accept(",")
        self.deepen()
        more = self.product()
        self.depth -= 1
        if more.kind != "unit" or more.value.dimension != unit.dimension or more.value.size >= unit.size:
            self.place = place
            return node
        scale = number(more.value.size / unit.size)
        return Node("unit", (Node("add", (node.args[0], Node("mul", (scale, more.args[0])))),), unit)

    def unit_exponent(self) -> list[str]:
        self.advance()
        exponent = self.unary()
        if exponent.kind != "number" or exponent.value.denominator != 1 or not 1 <= abs(exponent.value) <= 9:
            raise Unreadable("a unit to an odd power")
        return ["^", *(("-",) if exponent.value < 0 else ()), str(abs(exponent.value))]

    def starts_factor(self) -> bool:
        if self.token.kind == "operator":
            if self.token.value == "(" and self.following[:2] == ("operator", "mod"):
                return False
            return self.token.value in ("(", "[", "{", "⌊", "⌈") or (self.token.value == "|" and not self.bars)
        return self.token.kind in ("symbol", "function", "command") and (self.token.kind, self.token.value) != (
            "command",
            "end",
        )

    def mixed_number(self) -> Node:
        node = self.mixed()
        if self.accept("%"):
            return Node("percent", (node,))
        if self.accept("°"):
            return self.temperature(node) or Node("degree", (node,))
        return node

    def temperature(self, node: Node) -> Node | None:
        if self.token.kind in ("symbol", "word") and self.token.value in ("C", "F"):
            return Node("unit", (node,), units.unit([f"°{self.advance().value}"]))
        return None

    def mixed(self) -> Node:
        r"""A factor; ``1 1/2`` and ``1\frac{1}{2}`` are one and a half, not products."""
        node = self.power()
        if not _is_whole(node):
            return node
        if self.at_command("frac"):
            part = self.power()
            if part.kind == "div" and all(map(_is_whole, part.args)):
                return _mixed(node, *part.args)
            return Node("mul", (node, part))
        if self.token.kind == "operator" and self.token.value == "{":  # 1{1 \over 2} is no mixed number, 1 {1/2} neither
            return node
        first, slash, second = (*self.tokens[self.place : self.place + 3], *(self.tokens[-1],) * 3)[:3]
        if first.kind == second.kind == "number" and first.spaced and slash.value == "/":
            self.place += 3
            return _mixed(node, number(first.value), number(second.value))
        return node

    def unary(self) -> Node:
        sign = 1
        pm = 0
        while self.at("+", "-", "±", "∓"):
            value = self.advance().value
            sign = -sign if value == "-" else sign
            pm = {"±": 1, "∓": -1}.get(value, pm)
        if self.token.kind == "currency":  # -\$5
            self.tokens[self.place], self.tokens[self.place + 1] = self.following, self.token
        node = self.mixed_number()
        if pm:
            return Node("pm", (number(0), node), pm)
        return negate(node) if sign < 0 else node

    def power(self) -> Node:
        self.deepen()
        node = self.postfix()
        if self.at("^"):
            self.advance()
            if self.accept("°"):
                node = self.temperature(node) or Node("degree", (node,))
            elif self.at("{") and self.following.value == "°":
                self.advance(), self.advance(), self.expect("}")
                node = self.temperature(node) or Node("degree", (node,))
            elif self.at("{") and self.following.value in ("th", "st", "nd", "rd"):  # 21^{st}
                self.advance(), self.advance(), self.expect("}")
            else:
                node = _raised(node, self.unary())
        self.depth -= 1
        return node

    def postfix(self) -> Node:
        node = self.primary()
        if self.accept("!"):
            node = Node("function", (node,), "factorial")
        return node

    def primary(self) -> Node:
        token = self.advance()
        if token.kind == "number":
            return self.based(token) if self.at("_") and token.raw.isdigit() else number(token.value)
        if token.kind == "symbol":
            return self.symbol(token)
        if token.kind == "function":
            return self.function(token.value)
        if token.kind == "command":
            if token.value == "end":
                raise Unreadable("an environment that never began")
            return getattr(self, f"command_{token.value}")(token)
        if token.kind == "operator":
            if token.value == "∞":
                return Node("infinity", value=1)
            if token.value in ("(", "["):
                return self.bracket(token.value)
            if token.value in ("{", "\\{"):
                return self.braces(token.value)
            if token.value in ("|", "∣"):
                self.bars += 1
                inner = self.sum()
                self.expect("|", "∣")
                self.bars -= 1
                return Node("function", (inner,), "abs")
            if token.value == "...":
                return Node("symbol", value="...")
            if token.value in ("⌊", "⌈"):
                inner = self.sum()
                self.expect("⌋" if token.value == "⌊" else "⌉")
                return Node("function", (inner,), "floor" if token.value == "⌊" else "ceil")
        raise Unreadable(f"unexpected {token.value!s:.40}")

    # ------------------------------------------------------------------------------------------ primaries
    def based(self, token: Token) -> Node:
        self.advance()
        if self.token.kind == "operator" and self.token.value == "{" and self.following.value in _BASES:
            self.advance()
            base = number(_BASES[self.advance().value])
            self.expect("}")
        elif self.token.value in _BASES:
            base = number(_BASES[self.advance().value])
        else:
            base = self.primary()
        if base.kind != "number" or not 2 <= base.value <= 36 or base.value.denominator != 1:
            raise Unreadable("the subscript of a number is its base, 2 to 36")
        return Node("based", value=(token.raw.lstrip("0") or "0", int(base.value)))

    def symbol(self, token: Token) -> Node:
        name = token.value
        while self.at("'"):
            name += self.advance().value
        if name.startswith("mathbb ") and self.at("^", "_"):
            return self.part_of_a_number_set(name)
        if self.accept("_"):
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

    def part_of_a_number_set(self, name: str) -> Node:
        r"""``\mathbb{R}^+``, ``\mathbb{N}^*``: of the real numbers the ray."""
        self.advance()
        braces = self.accept("{")
        sign = self.expect("+", "-", "*")
        if braces:
            self.expect("}")
        if name == "mathbb R" and sign != "*":
            ends = (number(0), Node("infinity", value=1)) if sign == "+" else (Node("infinity", value=-1), number(0))
            return Node("bracket", ends, "()")
        return Node("symbol", value=f"{name}{sign}")

    def inside(self, closing: tuple[str, ...]) -> tuple[list[Node], str]:
        bars, self.bars = self.bars, 0
        items, _ = self.sequence()
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
        if opening == "\\{" and self.at_command("begin"):  # \left\{ \begin{array} ... \right.
            system = self.relation()
            self.accept("\\}")
            return system
        if opening == "\\{" and (condition := self.condition()) is not None:
            return condition
        bars, self.bars = self.bars, 0
        items, _ = self.sequence()
        if opening == "\\{" and len(items) == 1 and self.accept("∣"):  # {2k + 1 | k in Z}
            items = [Node("list", (*items, *self.sequence()[0]), "and")]
        self.bars = bars
        self.expect("}" if opening == "{" else "\\}")
        if len(items) == 1 and items[0].kind == "list":
            return items[0]
        if opening == "{" and len(items) == 1:
            return items[0]
        if opening == "{" and not items:
            raise Unreadable("empty braces")
        return Node("set", _expand(items)) if items else Node("symbol", value="emptyset")

    def condition(self) -> Node | None:
        r"""The conditions of ``\{x \mid x > 2\}``, of which only the ones on a real x are kept; None for any other set."""
        if self.token.kind != "symbol":
            return None
        if self.following.value in ("|", "∣", ":"):
            self.place += 2
        elif self.following.value == "in" and self.tokens[min(self.place + 3, len(self.tokens) - 1)].value in (
            "|",
            "∣",
            ":",
        ):
            if self.tokens[self.place + 2].value != "mathbb R":
                return None
            self.place += 4
        else:
            return None
        items, connective = self.sequence()
        self.expect("\\}")
        if not items:
            raise Unreadable("a set without a condition")
        return items[0] if len(items) == 1 else Node("list", tuple(items), connective or "and")


def _is_whole(node: Node) -> bool:
    return node.kind == "number" and node.value.denominator == 1 and node.value >= 0


def _raised(node: Node, exponent: Node) -> Node:
    if node.kind == "matrix" and exponent == Node("symbol", value="T"):
        return Node("matrix", tuple(Node("row", column) for column in zip(*(row.args for row in node.args))))
    return Node("pow", (node, exponent))


def _mixed(whole: Node, top: Node, bottom: Node) -> Node:
    if bottom.value == 0:
        raise Unreadable("a fraction over nothing")
    return number(whole.value + top.value / bottom.value)


def parse(text: str, commas_group: bool = True) -> Node:
    """The expression that ``text`` holds.

    Raises:
      Unreadable: it is none of this grammar, or beyond its bounds.
    """
    return _Parser(tokenize(text, commas_group)).whole()

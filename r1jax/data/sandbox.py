"""A Jinja environment for templates that nobody has read.

A chat template is a program that came with somebody's weights. Jinja's immutable sandbox keeps it from Python's
internals, but lets it run and grow without end. Here what a template makes is measured (before it is made, where one
operation could make much), and the turns of its loops and its calls are counted: a template that exceeds its budget
is stopped with a ``TemplateError``. Filters and globals that only serve to grow or search text are not there.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

import jinja2
import jinja2.ext
from jinja2 import nodes
from jinja2.exceptions import SecurityError, TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

# The longest context of a published model, a million tokens, is about four million characters.
NESTED_LIMIT = 8_000_000  # characters and items in one value, shared parts counted each time
TOTAL_LIMIT = 64_000_000  # characters, items and turns in one render, beside 128 times the size of its inputs
SECONDS_LIMIT = 5.0
SOURCE_LIMIT = 1_000_000
WIDTH_LIMIT = 1_000_000  # numbers given to a filter or a method
NARROW_LIMIT = 100  # ... that indents or rounds

FILTERS = frozenset(
    """abs attr capitalize count d default dictsort e escape first float forceescape format groupby indent int items join
    last length list lower map max min random reject rejectattr replace reverse round safe select selectattr sort string
    sum title trim truncate unique upper urlencode wordcount""".split()
)
# A run of digits, a field inside a field, or a star: a width or a precision that could be anything.
_WIDE_FORMAT = re.compile(r"\d{4}|:[^{}]*\{|%[^a-zA-Z%]*\*")


def size_of(value: Any, limit: float) -> int:
    """Characters and items in ``value``, nested ones as often as they appear; stops counting above ``limit``."""
    size, waiting = 0, [value]
    while waiting and size + len(waiting) <= limit:
        item = waiting.pop()
        size += 1
        if isinstance(item, (str, bytes)):
            size += len(item)
        elif isinstance(item, int):
            size += item.bit_length() // 3
        elif isinstance(item, Mapping):
            waiting.extend(item.keys())
            waiting.extend(item.values())
        elif isinstance(item, (list, tuple, set, frozenset)):
            waiting.extend(item)
    return size + len(waiting)


def _format_size(pattern: str, values: Any) -> float:
    if _WIDE_FORMAT.search(pattern):
        raise TemplateError("a chat template can't format to a width of four digits or to a computed one")
    fields = pattern.count("%") + pattern.count("{")
    return len(pattern) + 64 * fields + fields * size_of(values, NESTED_LIMIT)


def _join_size(values: Any, separator: Any) -> float:
    return size_of(values, NESTED_LIMIT) + size_of(separator, NESTED_LIMIT) * (len(values) + 1)


def _replace_size(text: str, old: Any, new: Any) -> float:
    return len(text) + text.count(str(old)) * size_of(new, NESTED_LIMIT)


class _Measured(NodeTransformer):
    """Rewrites a parsed template: turns of loops, literals and ``~`` go through the environment's methods."""

    def _call(self, method: str, arguments: list[nodes.Expr], line: int) -> nodes.Call:
        return nodes.Call(nodes.EnvironmentAttribute(method), arguments, [], None, None, lineno=line)

    def visit_For(self, node):
        written = sum(len(data.data) for child in node.body for data in _descendants(child, nodes.TemplateData))
        node = self.generic_visit(node)
        node.body.insert(0, nodes.ExprStmt(self._call("turn", [nodes.Const(1 + written)], node.lineno), lineno=node.lineno))
        return node

    def visit_Concat(self, node):
        node = self.generic_visit(node)
        return self._call("concatenate", node.nodes, node.lineno)

    def _literal(self, node):
        node = self.generic_visit(node)
        return node if getattr(node, "ctx", "load") != "load" else self._call("nested", [node], node.lineno)

    visit_List = visit_Tuple = visit_Dict = _literal


def _descendants(node, kind):
    if isinstance(node, kind):
        yield node
    yield from node.find_all(kind)


class _Generation(jinja2.ext.Extension):
    """``{% generation %}`` marks what the assistant wrote, for training masks; here its body is rendered."""

    tags = {"generation"}

    def parse(self, parser):
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


class _PlainDict:
    """``dict`` for templates: it can be called, and nothing else of the type is in reach."""

    def __call__(self, *arguments, **named):
        return dict(*arguments, **named)


class _Namespace(jinja2.utils.Namespace):
    """``namespace`` for templates: no underscored names, and no representation that could nest without end."""

    def __init__(*arguments, **named):  # no self by name, so that namespace(self=1) works as in Jinja
        self, *rest = arguments
        values = dict(*rest, **named)
        for name in values:
            _refuse_private(name)
        jinja2.utils.Namespace.__init__(self, values)

    def __setitem__(self, name, value):
        _refuse_private(name)
        super().__setitem__(name, value)

    def __repr__(self):
        return "<Namespace>"


def _refuse_private(name):
    if str(name).startswith("_"):
        raise SecurityError(f"a chat template can't set {name!r} on a namespace")


def _tojson(value, ensure_ascii=False, indent=None, separators=None, sort_keys=False):
    """JSON without HTML escapes, as ``transformers`` gives its templates."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _raise_exception(message):
    raise TemplateError(str(message))


def _strftime_now(pattern):
    if _WIDE_FORMAT.search(pattern) or len(pattern) > 1000:
        raise TemplateError("strftime_now takes a short pattern")
    return datetime.now().strftime(pattern)


class BoundedEnvironment(ImmutableSandboxedEnvironment):
    """The sandbox with a budget. ``start`` opens a render's budget; one render at a time."""

    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def __init__(self):
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_Generation, jinja2.ext.loopcontrols],
            finalize=self._write,
            optimized=False,  # folding constants would do unmeasured work at compile time
        )
        kept = {name: function for name, function in self.filters.items() if name in FILTERS}
        self.filters = {
            name: self._measured_filter(name, function) for name, function in (kept | {"tojson": _tojson}).items()
        }
        self.globals = {name: self.globals[name] for name in ("range", "cycler", "joiner")} | {
            "dict": _PlainDict(),
            "namespace": _Namespace,
            "raise_exception": _raise_exception,
            "strftime_now": _strftime_now,
        }
        self.start(0)

    def compile_template(self, source: str) -> jinja2.Template:
        """Parses, instruments and compiles; raises TemplateError."""
        if len(source) > SOURCE_LIMIT:
            raise TemplateError(f"the template has {len(source)} characters, more than {SOURCE_LIMIT}")
        try:
            return self.from_string(_Measured().visit(self.parse(source)))
        except (RecursionError, MemoryError) as error:
            raise TemplateError(f"the template nests too deeply ({type(error).__name__})") from None

    # ------------------------------------------------------------------------------------------ the budget
    def start(self, input_size: int) -> None:
        """Opens the budget of one render whose inputs have ``input_size`` characters and items."""
        self.left = TOTAL_LIMIT + 128 * input_size
        self.nested_limit = NESTED_LIMIT + 16 * input_size
        self.deadline = time.monotonic() + SECONDS_LIMIT

    def turn(self, cost: float) -> str:
        """Pays for a turn of a loop, a call, or something made."""
        self.left -= cost
        if self.left < 0:
            raise TemplateError("the template makes too much text or too many turns; it was stopped")
        if time.monotonic() > self.deadline:
            raise TemplateError(f"the template ran for more than {SECONDS_LIMIT:g} seconds; it was stopped")
        return ""

    def nested(self, value):
        """Bounds the nesting of a value that has just been made; its parts may be shared, so nothing is paid."""
        if size_of(value, self.nested_limit) > self.nested_limit:
            raise TemplateError("the template nests a value without end; it was stopped")
        return value

    def _afford(self, cost: float) -> None:
        if cost > self.left or cost > self.nested_limit:
            raise TemplateError("the template makes too much text; it was stopped")

    def _pay(self, value):
        """Pays for a value, shallowly: text by its characters, a container by its items."""
        self.turn(1 + (len(value) if isinstance(value, (str, bytes, list, tuple, dict)) else 0))
        return self.nested(value)

    def _write(self, value):
        self.turn(size_of(value, self.left))
        return value

    def concatenate(self, *values):
        """The ``~`` operator."""
        self._afford(size_of(values, self.nested_limit))
        return self._pay("".join(map(str, values)))

    # ------------------------------------------------------------------------------------------ operations
    def call_binop(self, context, operator, left, right):
        if operator == "%" and isinstance(left, str):
            self._afford(_format_size(left, right))
        elif operator == "+":
            self._afford(sum(len(side) for side in (left, right) if isinstance(side, (str, list, tuple))))
        elif operator in "**":
            for text, times in ((left, right), (right, left)):
                if isinstance(text, (str, list, tuple)) and isinstance(times, int):
                    self._afford(len(text) * times)
            if isinstance(left, int) and isinstance(right, int):
                digits = left.bit_length() * abs(right) if operator == "**" else left.bit_length() + right.bit_length()
                self._afford(digits * 1000)  # a thousandth of the budget: multiplication is slower than copying
        return self._pay(super().call_binop(context, operator, left, right))

    def call(__self, __context, __function, *arguments, **named):  # noqa: N805 (templates may name an argument self)
        __self.turn(1)
        owner = getattr(__function, "__self__", None)
        if isinstance(owner, (str, bytes, int)) and not isinstance(owner, bool):
            __self._check_method(owner, getattr(__function, "__name__", ""), arguments, named)
        return __self._pay(super().call(__context, __function, *arguments, **named))

    def _check_method(self, owner: Any, name: str, arguments: tuple, named: dict) -> None:
        values = (*arguments, *named.values())
        _refuse_wide(name, values, WIDTH_LIMIT)
        if name == "replace" and len(arguments) >= 2:
            self._afford(_replace_size(owner, *arguments[:2]) if isinstance(owner, str) else WIDTH_LIMIT)
        elif name == "join" and len(arguments) == 1:
            self._afford(_join_size(arguments[0], owner) if hasattr(arguments[0], "__len__") else 0)
        elif name == "expandtabs":
            self._afford(len(owner) * max([8, *(v for v in values if isinstance(v, int))]))
        elif name in ("translate", "to_bytes", "maketrans") or (isinstance(owner, bytes) and name == "join"):
            raise SecurityError(f"a chat template can't call {name}")

    def wrap_str_format(self, value):
        """``text.format(...)``: as the sandbox does it, with the size of the result bounded."""
        wrapped = super().wrap_str_format(value)
        if wrapped is None:
            return None
        text = value.__self__

        def measured(*arguments, **named):
            self._afford(_format_size(text, [*arguments, *named.values()]))
            return wrapped(*arguments, **named)

        return measured

    def _measured_filter(self, name: str, function: Callable) -> Callable:
        """The filter with its arguments checked beforehand and its result paid for."""
        passed = 0 if getattr(function, "jinja_pass_arg", None) is None else 1  # context or environment comes first

        def measured(*arguments, **named):
            head, arguments = arguments[:passed], list(arguments[passed:])
            value, rest = arguments[0], [*arguments[1:], *named.values()]
            _refuse_wide(name, rest, NARROW_LIMIT if name in ("indent", "round", "tojson") else WIDTH_LIMIT)
            if name == "join":
                arguments[0] = value = value if isinstance(value, str) else list(value)
                self._afford(_join_size(value, rest))
            elif name == "replace":
                arguments[0] = value = str(self._write(value))
                self._afford(_replace_size(value, *[*rest, "", ""][:2]))
            elif name == "format":
                self._afford(_format_size(str(value), rest))
            elif name == "indent":
                self._afford(len(str(value)) + (str(value).count("\n") + 1) * size_of(rest, NESTED_LIMIT) * NARROW_LIMIT)
            elif name == "tojson":
                self._afford(size_of(value, self.nested_limit) * (1 if not rest else 8))
            elif name == "sum" and len(rest) > 0:
                raise SecurityError("a chat template can sum numbers only, without arguments")
            elif isinstance(value, (list, tuple, dict)) and name in _TEXT_FILTERS:
                self._afford(size_of(value, self.nested_limit))
            return self._pay(function(*head, *arguments, **named))

        for attribute in ("jinja_pass_arg", "jinja_async_variant"):
            if hasattr(function, attribute):
                setattr(measured, attribute, getattr(function, attribute))
        return measured


# Filters that turn whatever they get into text.
_TEXT_FILTERS = frozenset(
    "capitalize e escape forceescape lower safe string title trim truncate upper urlencode wordcount".split()
)


def _refuse_wide(name: str, values: Any, limit: int) -> None:
    for value in values:
        if isinstance(value, int) and abs(value) > limit:
            raise TemplateError(f"a chat template can't give {value} to {name}")

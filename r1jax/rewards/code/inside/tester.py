"""The process of the tests: trusted code from a data set, which calls the program in another process.

Each test is a piece of Python. The program's functions stand in its namespace as stand-ins that send their arguments to
the program's process and return what comes back. The verdict goes out by a pipe that only this process holds.
"""

from __future__ import annotations

import ast
import builtins
import json
import os
import random
import sys
import traceback
from collections.abc import Callable
from types import CodeType
from typing import Any, NoReturn

from . import wire


class Broken(Exception):
    """The tests themselves fail, whatever the program does."""


class ProgramError(Exception):
    """An exception of the program's that is none of Python's own, or that no test may catch by name."""


class Lost(BaseException):
    """The program's process has ended or talks nonsense. No test can catch it by ``except Exception``."""


class Link:
    """Calls over a channel; counts them."""

    def __init__(self, channel: wire.Channel):
        self.channel, self.calls = channel, 0
        self.lost = ""
        self.opaque = ""  # the last object that came back and is no plain data
        self.values = self.raised = 0  # that came back: from then on what fails may be the program's doing

    def ask(self, **request: Any) -> dict[str, Any]:
        """Sends a request; its reply.

        Raises:
          Lost: no proper reply came, now or ever again.
          Broken: the test passes an argument that is no plain data.
          Exception: what the program raised, by its nearest built-in class, or ProgramError.
        """
        if self.lost:
            raise Lost(self.lost)
        self.calls += 1
        try:
            self.channel.send({"number": self.calls, **request})
            reply = self.channel.receive()
            if reply["number"] != self.calls:
                raise ValueError("replies out of order")
        except wire.Unsendable as error:
            raise Broken(f"a test passes {error}") from None
        except wire.Ended:
            self._lose("the program ended before its tests did")
        except (ValueError, TypeError, KeyError, RecursionError, MemoryError) as error:
            self._lose(f"the program's reply can't be read ({type(error).__name__})")
        if "unsendable" in reply:
            self.raised += 1
            raise ProgramError(f"the program returned {reply['unsendable']}"[:300])
        if "raised" in reply:
            self.raised += 1
            raise _exception(reply)
        return reply

    def _lose(self, reason: str) -> NoReturn:
        self.lost = reason
        raise Lost(reason)

    def value(self, reply: dict[str, Any]) -> Any:
        try:
            self.values += 1
            return wire.decode(reply["value"], self.stand_in)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError, ArithmeticError, MemoryError) as error:
            self._lose(f"the program's reply can't be read ({type(error).__name__})")

    def stand_in(self, tag: str, content: Any) -> wire.StandIn:
        if tag == "object":
            handle, name, truth = content
            value = _Object(self, _number(handle), str(name)[:80], bool(truth))
            self.opaque = repr(value)
            return value
        return {"function": _Function, "iterator": _Iterator}[tag](self, handle=_number(content))


def _number(handle: Any) -> int:
    if not isinstance(handle, int):
        raise ValueError("no number")
    return handle


def _exception(reply: dict[str, Any]) -> Exception:
    """An exception of the nearest class that Python itself has. One that asserts or ends is never passed on as such."""
    for name in reply["raised"]:
        kind = getattr(builtins, str(name), None)
        if isinstance(kind, type) and issubclass(kind, Exception) and kind not in (AssertionError, Exception):
            try:
                return kind(str(reply["text"])[:300])
            except TypeError:
                break  # UnicodeDecodeError and its like want more
    return ProgramError(str(reply["text"])[:300])


class _Afar(wire.StandIn):
    """Stands for an object of the program's: its attributes, items, length and text are asked for where it is.

    Nothing that it answers is more than plain data or another stand-in. It equals nothing but itself, since an equality of the
    program's own would decide the tests.
    """

    def __init__(self, link: Link, **target: Any):
        self.__dict__.update(_link=link, _target=target, _handle=target.get("handle", -1))

    def _asked(self, do: str, *args: Any, **kwargs: Any) -> dict[str, Any]:
        try:
            sent = {"args": wire.encode(list(args)), "kwargs": wire.encode(kwargs)}
        except (wire.Unsendable, RecursionError) as error:
            raise Broken(f"a test passes {error}") from None
        return self._link.ask(do=do, **self._target, **sent)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        owner = self._target.get("name", "Class")
        if not owner[:1].isupper():  # a module that the tests forgot to import: the program could bring its own
            raise Broken(f"a test takes {owner}.{name}, and nothing defines {owner}")
        return self._link.value(self._asked("attribute", name))

    def __setattr__(self, name: str, value: Any) -> None:
        self._asked("set_attribute", name, value)

    def __getitem__(self, key: Any) -> Any:
        return self._link.value(self._asked("item", key))

    def __setitem__(self, key: Any, value: Any) -> None:
        self._asked("set_item", key, value)

    def __len__(self) -> int:
        return self._link.value(self._asked("length"))

    def __contains__(self, value: Any) -> bool:
        return self._link.value(self._asked("contains", value)) is True

    def __iter__(self) -> Any:
        return self._link.value(self._asked("iterate"))

    def __str__(self) -> str:
        text = self._link.value(self._asked("text"))
        return text if isinstance(text, str) else ""


class _Object(_Afar):
    """Stands for an object that can't be called; its class's name and its truth came with it."""

    def __init__(self, link: Link, handle: int, name: str, truth: bool):
        super().__init__(link, handle=handle)
        self.__dict__.update(_name=name, _truth=truth)

    def __bool__(self) -> bool:
        return self._truth

    def __repr__(self) -> str:
        return f"<{self._name}>"


class _Function(_Afar):
    """Stands for a function or a class of the program's: one that it returned (``handle``) or one of that ``name``.

    ``in_place``: what the call changed in its arguments is brought back. Only a call whose result nobody looks at is made
    so (``sort(items)``): in ``assert largest(items) == max(items)`` a program could otherwise choose both sides.
    """

    def __init__(self, link: Link, in_place: bool = False, **target: Any):
        super().__init__(link, **target)
        self.__dict__.update(_in_place=in_place)

    def __bool__(self) -> bool:
        return True

    __repr__ = object.__repr__

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        reply = self._asked("call", *args, **kwargs)
        if self._in_place:
            for index, content in reply.get("changed", ()):
                _change(args[index], self._link.value({"value": content}))
        return self._link.value(reply)


def _change(argument: Any, now: Any) -> None:
    """Brings an argument to what the program made of it."""
    if type(argument) is not type(now):
        return
    if isinstance(argument, (list, bytearray)):
        argument[:] = now
    elif isinstance(argument, (dict, set)):
        argument.clear()
        argument.update(now)


class _Iterator(wire.StandIn):
    def __init__(self, link: Link, handle: int):
        self._link, self._handle = link, handle

    def __iter__(self) -> _Iterator:
        return self

    def __next__(self) -> Any:
        reply = self._link.ask(do="next", handle=self._handle)
        if reply.get("end"):
            raise StopIteration
        return self._link.value(reply)


_IN_PLACE = "__in_place__"


class _MarkStatements(ast.NodeTransformer):
    """``f(x)`` as a statement becomes ``__in_place__(f)(x)``, ``Solution().sort(x)`` too."""

    def visit_Expr(self, node: ast.Expr) -> ast.AST:
        if isinstance(node.value, ast.Call):
            marker = ast.Name(_IN_PLACE, ast.Load())
            node.value.func = ast.Call(marker, [node.value.func], [])
        return self.generic_visit(node)


def _in_place(function: Any) -> Any:
    if not isinstance(function, _Function):
        return function
    return _Function(function._link, in_place=True, **function._target)


def _prepared(test: str) -> tuple[CodeType, set[str], set[str]]:
    """(a test compiled, the names in it, those of them that it takes attributes of)."""
    tree = ast.parse(test, "<test>")
    nodes = list(ast.walk(tree))
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    owners = {node.value.id for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name)}
    return compile(ast.fix_missing_locations(_MarkStatements().visit(tree)), "<test>", "exec"), names, owners


def _describe(error: BaseException, code: str, opaque: str = "") -> str:
    """One line: the assertion that failed, or the exception."""
    line = next(
        (frame.lineno for frame in reversed(traceback.extract_tb(error.__traceback__)) if frame.filename == "<test>"), 0
    )
    lines = code.split("\n")
    where = lines[line - 1].strip()[:160] if line and line <= len(lines) else ""
    what = f"{type(error).__name__}: {str(error)[:160]}"
    if isinstance(error, AssertionError):
        what = "failed"
    elif isinstance(error, (Lost, ProgramError)) or str(error).startswith(f"{type(error).__name__}: "):
        what = str(error)[:160]
    if opaque and isinstance(error, (AssertionError, TypeError, AttributeError)):
        what += f" (the program returned {opaque}, which is no plain data)"
    return f"{what}: {where}" if where else what


def run(text: str, channel: wire.Channel, report_fd: int) -> None:
    """Runs the tests of ``text`` (JSON: fields of ``run.Asserts``, ``every_test``) and reports, a JSON object each line:
    ``broken``, ``unusable``, ``test`` or ``done``, as ``run.py`` reads them."""

    def report(**line: Any) -> None:
        os.write(report_fd, json.dumps(line).encode() + b"\n")

    link = Link(channel)
    try:
        _run(json.loads(text), link, report)
    except BaseException as error:
        report(**{"unusable" if link.calls else "broken": "run", "reason": f"{type(error).__name__}: {str(error)[:300]}"})


def _run(job: dict[str, Any], link: Link, report: Callable[..., None]) -> None:
    random.seed(0)
    namespace: dict[str, Any] = {"__name__": "tests"}
    try:
        exec(compile(job["setup"], "<setup>", "exec"), namespace)
        tests = [_prepared(test) for test in job["tests"]]
    except BaseException as error:
        report(broken="load", reason=f"{type(error).__name__}: {str(error)[:300]}")
        return
    names = set().union(*(names for _, names, _ in tests)) - set(namespace) - set(dir(builtins)) | set(job["functions"])
    namespace |= {name: _Function(link, name=name) for name in names} | {_IN_PLACE: _in_place}
    for name in set().union(*(modules for _, _, modules in tests)) & names & sys.stdlib_module_names:
        namespace[name] = __import__(name)  # tests were written to stand below a program that imports it
    if job["entry_point"]:
        entry = _Function(link, name=job["entry_point"])
        namespace |= {"candidate": entry, job["entry_point"]: entry}
    try:
        ready = link.ask(do="load")
    except BaseException as error:  # a forged reply may raise anything
        report(unusable="run", reason=str(error)[:300])
        return
    if "unusable" in ready:
        report(unusable=str(ready["unusable"]), reason=str(ready.get("text"))[:300])
        return
    for index, ((code, _, _), source) in enumerate(zip(tests, job["tests"])):
        link.opaque = ""
        try:
            exec(code, namespace)
            if link.lost:
                raise Lost(link.lost)  # and the test caught it
        except BaseException as error:
            reason = _describe(error, source, link.opaque)
            if not link.values and not link.lost and (isinstance(error, Broken) or not link.raised):
                report(broken="test", reason=reason)
                return
            report(test=index, passed=False, reason=reason, lost=bool(link.lost))
            if not job["every_test"]:
                break
        else:
            report(test=index, passed=True)
    report(done=True)

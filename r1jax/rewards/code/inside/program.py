"""A Python program's own process, once it is behind its walls: as a script, or as functions that tests call from afar."""

from __future__ import annotations

import _sitebuiltins
import builtins
import json
import operator
import os
import random
import sys
import threading
import traceback
import types
from typing import Any

from . import tester, wire

NOT_COMPILED = 65  # the exit status of a script that is no Python
MAX_HANDLES = 1_000_000
# What tests may do to an object of the program's besides calling it.
_USES = {
    "attribute": getattr,
    "set_attribute": setattr,
    "item": operator.getitem,
    "set_item": operator.setitem,
    "length": len,
    "contains": operator.contains,
    "iterate": iter,
    "text": str,
}


def run(kind: str, fds: dict[str, int]) -> None:
    """Runs what a job's descriptors hold and ends the process; never returns.

    Args:
      kind: ``script`` (``source``), ``functions`` (``source``, ``requests``, ``replies``) or ``tests`` (``source``,
        ``requests``, ``replies``, ``report``), as ``sandbox.py`` starts them.
    """
    code = 1
    try:
        _fresh_interpreter()
        text = _whole(fds.pop("source"))
        if kind == "script":
            code = _script(text)
        elif kind == "functions":
            Functions(text, wire.Channel(fds["requests"], fds["replies"])).serve()
        else:
            tester.run(text, wire.Channel(fds["replies"], fds["requests"]), fds["report"])
            code = 0
    except BaseException:
        os.write(2, traceback.format_exc().encode("utf-8", "replace"))
    finally:
        os._exit(code)


def _whole(fd: int) -> str:
    with open(fd, "rb") as file:
        return file.read().decode("utf-8", "surrogatepass")


def _fresh_interpreter() -> None:
    """Standard streams on the job's descriptors, a script's path and arguments, the same random numbers every time."""
    for fd, name, mode in ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w")):
        errors = "backslashreplace" if name == "stderr" else "surrogateescape"
        stream = open(fd, mode, encoding="utf-8", errors=errors, closefd=False, buffering=1 if name == "stderr" else -1)
        setattr(sys, name, stream)
        setattr(sys, f"__{name}__", stream)
    sys.path.insert(0, os.getcwd())
    builtins.exit = builtins.quit = _sitebuiltins.Quitter(
        "exit", "the end of file"
    )  # the site module's, which -S leaves out
    sys.argv = ["main.py"]
    random.seed(0)


def _module(name: str) -> types.ModuleType:
    module = types.ModuleType(name)
    module.__dict__["__builtins__"] = builtins
    sys.modules[name] = module
    return module


def _compile(text: str) -> types.CodeType:
    """Raises SyntaxError, whatever is wrong with the text."""
    try:
        return compile(text, "main.py", "exec", dont_inherit=True)
    except SyntaxError:
        raise
    except (ValueError, RecursionError, MemoryError, OverflowError) as error:  # null bytes, lone surrogates, deep nesting
        raise SyntaxError(f"{type(error).__name__}: {error}") from None


def _script(text: str) -> int:
    try:
        code = _compile(text)
    except SyntaxError as error:
        sys.stderr.write(_last_line(error))
        sys.stderr.flush()
        return NOT_COMPILED
    status = 0
    try:
        exec(code, _module("__main__").__dict__)
    except SystemExit as error:
        status = _exit_status(error.code)
    except BaseException:
        traceback.print_exc()
        status = 1
    return _finish(status)


def _exit_status(code: object) -> int:
    if code is None:
        return 0
    if isinstance(code, int):
        return code & 0xFF
    print(code, file=sys.stderr)
    return 1


def _finish(status: int) -> int:
    """What the interpreter does at its end: waits for threads, runs what was registered for the exit, writes out buffers."""
    import atexit

    threading._shutdown()
    atexit._run_exitfuncs()
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        status = status or 120
    return status


def _last_line(error: BaseException) -> str:
    try:
        return traceback.format_exception_only(error)[-1].strip()[:300]
    except Exception:  # a __str__ of the program's own
        return type(error).__name__


class Functions:
    """Serves calls of a program's functions: plain data in, plain data or an exception's names out."""

    def __init__(self, text: str, channel: wire.Channel):
        self.channel = channel
        self.module = _module("solution")
        self.handles: list[Any] = []
        self.failure: dict[str, str] | None = None
        self._load(text)

    def _load(self, text: str) -> None:
        """Runs the program's parts (a JSON list): what the prompt gave, then what the model wrote."""
        for part in json.loads(text):
            try:
                code = _compile(part)
            except SyntaxError as error:
                self.failure = {"unusable": "compile", "text": _last_line(error)}
                return
            try:
                exec(code, self.module.__dict__)
            except BaseException as error:
                self.failure = {"unusable": "run", "text": _last_line(error)}
                return

    def serve(self) -> None:
        while True:
            try:
                request = self.channel.receive()
            except wire.Ended:
                return
            reply = self.failure or self._answer(request)
            try:
                self.channel.send({"number": request["number"], **reply})
            except wire.Unsendable as error:
                self.channel.send({"number": request["number"], "unsendable": str(error)})
            except wire.Ended:
                return

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            if request["do"] == "load":
                return {"value": None}
            if request["do"] == "next":
                return self._next(request["handle"])
            if request["do"] == "call":
                return self._called(request)
            return {"value": wire.encode(self._used(request), self._keep)}
        except wire.Unsendable as error:
            return {"unsendable": str(error)}
        except RecursionError as error:
            return {"raised": ["RecursionError", "RuntimeError"], "text": str(error)}
        except BaseException as error:
            return {"raised": [kind.__name__ for kind in type(error).__mro__][:-1], "text": _last_line(error)}

    def _called(self, request: dict[str, Any]) -> dict[str, Any]:
        function = self._target(request)
        if not callable(function):
            raise TypeError(f"the program's {request.get('name', type(function).__name__)!r} is no function")
        arguments = wire.decode(request["args"], self._own)
        before = [_if_mutable(argument) for argument in arguments]
        value = function(*arguments, **wire.decode(request["kwargs"], self._own))
        reply: dict[str, Any] = {"value": wire.encode(value, self._keep)}
        if value is None:
            after = [_if_mutable(argument) for argument in arguments]
            reply["changed"] = [[index, now] for index, (was, now) in enumerate(zip(before, after)) if was != now]
        return reply

    def _used(self, request: dict[str, Any]) -> Any:
        """What an operation of ``_USES`` on an object gives."""
        arguments = wire.decode(request["args"], self._own)
        return _USES[request["do"]](self._target(request), *arguments)

    def _target(self, request: dict[str, Any]) -> Any:
        return self._named(request["name"]) if "name" in request else self.handles[request["handle"]]

    def _named(self, path: str) -> Any:
        """``name``, or ``Class().method`` with nothing between the parentheses.

        Raises:
          NameError: the program has no such name.
        """
        value: Any = self.module
        for part in path.split("."):
            name = part.removesuffix("()")
            try:
                value = vars(value)[name] if value is self.module else getattr(value, name)
            except (KeyError, AttributeError):
                raise NameError(f"the program defines no {name!r}") from None
            if part != name:
                value = value()
        return value

    def _next(self, handle: int) -> dict[str, Any]:
        try:
            return {"value": wire.encode(next(self.handles[handle]), self._keep)}
        except StopIteration:
            return {"end": True}

    def _keep(self, value: Any) -> int:
        if len(self.handles) >= MAX_HANDLES:
            raise wire.Unsendable(f"more than {MAX_HANDLES} objects")
        self.handles.append(value)
        return len(self.handles) - 1

    def _own(self, tag: str, handle: int) -> Any:
        return self.handles[handle]


def _if_mutable(argument: Any) -> Any:
    try:
        return wire.encode(argument) if type(argument) in (list, dict, set, bytearray) else None
    except wire.Unsendable:  # something of the program's own was put into it
        return None

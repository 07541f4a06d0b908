"""``run_code``: whether a program passes its tests, decided where the program can't reach.

Input and output: the expected output never enters the sandbox; the caller compares. Assertions: they run in a sandboxed
process of their own, which calls the program in another one; only plain data comes back, and the verdict leaves by a pipe
that the program's process never had.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import time
from collections.abc import Mapping, Sequence

from r1jax.rewards.code.comparison import difference
from r1jax.rewards.code.languages import EXECUTABLE, PYTHON, Language, compiler, language
from r1jax.rewards.code.limits import Limits
from r1jax.rewards.code.sandbox import Ending, Program, Sandbox, SandboxFailed, borrow, choose
from r1jax.rewards.record import Verdict

_NOT_COMPILED = 65  # inside.program.NOT_COMPILED
_CAUSES = {
    "wall": ("time", "ran longer than {limits.wall_seconds:g} s"),
    "cpu": ("time", "used more than {limits.cpu_seconds:g} s of CPU time"),
    "memory": ("memory", "used more than {limits.memory} bytes of memory"),
    "processes": ("processes", "started more than {limits.processes} processes"),
    "output": ("output", "wrote more than {limits.output_bytes} bytes"),
}


@dataclasses.dataclass(frozen=True)
class InputOutput:
    """One test of a whole program: what it reads on standard input, what it must print.

    ``tolerance``: numbers may differ by so much (``comparison.difference``); None: letter by letter.
    """

    input: str
    output: str
    tolerance: float | None = None


@dataclasses.dataclass(frozen=True)
class Asserts:
    """Tests of a Python program's functions: pieces of trusted Python that raise where it is wrong.

    The tests' process and the program's are different ones. Arguments and results cross as plain data, copied: None,
    numbers, text, bytes, lists, tuples, dictionaries, sets, ranges, deques, fractions, decimals (each with its exact
    built-in type; a subclass counts as what it extends), functions and iterators, exceptions by name. Any other object stays
    with the program: tests may ask for its truth, attributes, methods, items, length and text (``Stack().push(1)``), but it
    equals nothing. A call as a statement by itself (``sort(items)``) brings back what it changed in its arguments.

    Attributes:
      tests: each a piece of Python, such as one ``assert``; they share one namespace.
      entry_point: the function under test (``name`` or ``Solution().name``), which tests may also call ``candidate``.
        Without it every name that the tests use and nothing else defines is looked up in the program.
      setup: Python that runs before the tests, in their process: imports, helpers.
      prelude: Python that runs before the program, in its process.
      functions: names that mean the program's function although Python has one of its own (``sum``).
    """

    tests: Sequence[str]
    entry_point: str | None = None
    setup: str = ""
    prelude: str = ""
    functions: Sequence[str] = ()


@dataclasses.dataclass(frozen=True)
class TestResult:
    """``passed`` is None for a test that was not run, because an earlier one had decided."""

    passed: bool | None
    reason: str = ""


@dataclasses.dataclass(frozen=True)
class CodeResult:
    """What became of a program. As a boolean: whether it is right, which takes every test.

    Attributes:
      verdict: ``ungraded`` where the sandbox, the tests or the time for all of them failed, not the program.
      passed, total: tests.
      reason: one line for people.
      error: what kind of failure: ``compile``, ``run``, ``time``, ``memory``, ``processes``, ``output``, ``answer`` (it ran
        and was wrong), or "".
      tests: each test's result, in order.
    """

    verdict: Verdict
    passed: int
    total: int
    reason: str
    error: str = ""
    tests: tuple[TestResult, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.verdict)


def run_code(
    source: str,
    tests: Sequence[InputOutput | Mapping | str] | Asserts,
    *,
    language: str = "python",
    limits: Limits | None = None,
    sandbox: str = "auto",
    every_test: bool = False,
) -> CodeResult:
    """Runs a program against tests, in a sandbox.

    Args:
      source: the program's text, which is trusted with nothing.
      tests: ``InputOutput`` (or mappings of its fields) for whole programs; ``Asserts`` (or its list of Python texts) for
        Python functions.
      language: a name of ``languages.LANGUAGES``.
      limits: of each run; ``Limits()`` by default.
      sandbox: ``auto`` (the environment's ``R1JAX_CODE_SANDBOX``, else bubblewrap, else Linux namespaces, else refusal),
        one of these by name, or ``none``: no isolation but limits, at the caller's own risk.
      every_test: goes on after a failure, to count what else fails.

    Raises:
      ValueError: no tests, an unknown language or sandbox, or asserts in a language that has none.
      SandboxUnavailable: this machine can't isolate programs, and nobody said to go without.
    """
    if not isinstance(source, str):
        raise ValueError(f"a program is text, not a {type(source).__name__}")
    known, typed = _language(language), _typed(tests)
    return _Grading(source, limits or Limits(), sandbox, every_test).grade(typed, known)


_language = language


def _typed(tests: Sequence[InputOutput | Mapping | str] | Asserts) -> Sequence[InputOutput] | Asserts:
    if isinstance(tests, Asserts):
        return tests
    tests = [tests] if isinstance(tests, str) else list(tests)
    if tests and all(isinstance(test, str) for test in tests):
        return Asserts(tests)
    typed = []
    for test in tests:
        if isinstance(test, Mapping) and {"input", "output"} <= set(test) <= {"input", "output", "tolerance"}:
            test = InputOutput(**test)
        if not isinstance(test, InputOutput) or not (isinstance(test.input, str) and isinstance(test.output, str)):
            raise ValueError(f"a test is an InputOutput with two texts, or Python text for a function, not {test!r:.100}")
        typed.append(test)
    return typed


class _Failed(Exception):
    """The program is wrong: (kind of error, reason)."""


class _Ungraded(Exception):
    """Nothing can be said about the program."""


class _Grading:
    """One call of ``run_code``."""

    def __init__(self, source: str, limits: Limits, sandbox: str, every_test: bool):
        self.limits, self.every_test = limits, every_test
        self.source, self.kind = source, choose(sandbox)
        self.deadline = 0.0

    def grade(self, tests: Sequence[InputOutput] | Asserts, known: Language) -> CodeResult:
        asserts = isinstance(tests, Asserts)
        count = len(tests.tests) if asserts else len(tests)
        if not count:
            raise ValueError("there are no tests: every program would pass")
        if asserts and known is not PYTHON:
            raise ValueError(f"asserts are for Python programs, not for {known.names[0]}")
        results: list[TestResult] = []
        try:
            text = self.source.encode("utf-8", "surrogatepass")
            if len(text) > self.limits.source_bytes:
                raise _Failed("compile", f"the program has {len(text)} bytes; {self.limits.source_bytes} is the most")
            with borrow(self.kind) as sandbox:
                self.deadline = time.monotonic() + self.limits.total_seconds
                if asserts:
                    self._assert(sandbox, tests, results)
                else:
                    self._feed(sandbox, tests, self._program(sandbox, text, known), results)
            return _summary(results, count)
        except _Failed as failure:
            error, reason = failure.args
            return _summary(results, count, error, reason)
        except (_Ungraded, SandboxFailed) as failure:
            passed = sum(result.passed is True for result in results)
            return CodeResult(Verdict.UNGRADED, passed, count, str(failure), "", _padded(results, count))

    # ------------------------------------------------------------------------------------------------- whole programs
    def _program(self, sandbox: Sandbox, text: bytes, known: Language) -> Program:
        """What to start for each test: a script, or what the compiler made of the text."""
        if not known.compilers:
            return Program("script", {"source": text})
        path = compiler(known)
        if path is None:
            raise _Ungraded(f"no compiler for {known.names[0]} is installed ({' or '.join(known.compilers)})")
        limits = self.limits.for_compiler()
        job = Program("execute", {"stdin": text}, command=[path, *known.arguments], artefact=EXECUTABLE)
        ending = self._run(sandbox, [job], limits)[0]
        if ending.cause or ending.exit_code != 0 or not ending.outputs["artefact"]:
            what = _overrun(ending, limits) or ("compile", _first_error(ending.outputs["stderr"]))
            raise _Failed("compile", f"compile error: {what[1]}")
        return Program("execute", {"program": ending.outputs["artefact"]}, command=["main"])

    def _feed(self, sandbox: Sandbox, tests: Sequence[InputOutput], program: Program, results: list[TestResult]) -> None:
        for index, test in enumerate(tests):
            inputs = {**program.inputs, "stdin": test.input.encode("utf-8", "surrogatepass")}
            ending = self._run(sandbox, [dataclasses.replace(program, inputs=inputs)], self.limits)[0]
            failure = self._judge(ending, test)
            if failure is None:
                results.append(TestResult(True))
                continue
            error, reason = failure
            results.append(TestResult(False, reason))
            if error == "compile" or not self.every_test:
                raise _Failed(error, reason if error == "compile" else f"test {index + 1}: {reason}")

    def _judge(self, ending: Ending, test: InputOutput) -> tuple[str, str] | None:
        if ending.exit_code == _NOT_COMPILED:
            return "compile", f"compile error: {_last_line(ending.outputs['stderr'])}"
        over = _overrun(ending, self.limits)
        if over is not None:
            return over
        if ending.exit_code != 0:
            return "run", f"{_status(ending.exit_code)}: {_last_line(ending.outputs['stderr'])}"
        try:
            printed = ending.outputs["stdout"].decode()
        except UnicodeDecodeError as error:
            return "answer", f"its output is no UTF-8 text ({error.reason} at byte {error.start})"
        wrong = difference(printed, test.output, test.tolerance)
        return None if wrong is None else ("answer", wrong)

    # ------------------------------------------------------------------------------------------------------ assertions
    def _assert(self, sandbox: Sandbox, tests: Asserts, results: list[TestResult]) -> None:
        job = {
            "setup": tests.setup,
            "tests": list(tests.tests),
            "entry_point": tests.entry_point,
            "functions": list(tests.functions),
            "every_test": self.every_test,
        }
        texts = [json.dumps(text).encode() for text in ([tests.prelude, self.source], job)]
        requests, replies = os.pipe(), os.pipe()
        functions = Program("functions", {"source": texts[0]}, {"requests": requests[0], "replies": replies[1]})
        tester = Program("tests", {"source": texts[1]}, {"requests": requests[1], "replies": replies[0]})
        program_end, tests_end = self._run(sandbox, [functions, tester], self.limits)
        done = lost = False
        for line in tests_end.outputs["report"].split(b"\n")[:-1]:
            entry = json.loads(line)
            if "broken" in entry:
                raise _Ungraded(f"the tests are broken: {entry['reason']}")
            if "unusable" in entry:
                over = _overrun(program_end, self.limits)
                error, reason = over or (entry["unusable"], entry["reason"])
                raise _Failed(error, f"compile error: {reason}" if error == "compile" else reason)
            if "test" in entry:
                results.append(TestResult(bool(entry["passed"]), entry.get("reason", "")))
            done, lost = done or "done" in entry, lost or bool(entry.get("lost"))
        over = _overrun(program_end, self.limits) or _overrun(tests_end, self.limits)
        if over is not None and (not done or not all(result.passed for result in results)):
            raise _Failed(over[0], f"test {_first_failure(results) + 1}: {over[1]}")
        if lost:
            raise _Failed("run", f"test {_first_failure(results) + 1}: {results[_first_failure(results)].reason}")
        if not done and tests_end.exit_code in (-signal.SIGSEGV, -signal.SIGABRT, -signal.SIGBUS):
            raise _Failed("run", f"what the program returned ended its tests: {_status(tests_end.exit_code)}")
        if not done:
            raise _Ungraded(f"the tests ended early: {_status(tests_end.exit_code)}")

    # ------------------------------------------------------------------------------------------------------------ both
    def _run(self, sandbox: Sandbox, programs: list[Program], limits: Limits) -> list[Ending]:
        """Raises _Ungraded where a wall is missing or the time for all runs is over."""
        left = self.deadline - time.monotonic()
        seconds = min(limits.wall_seconds, left)
        if left <= 0:
            raise _Ungraded(f"not decided within {self.limits.total_seconds:g} s in all")
        endings = sandbox.run(programs, limits, seconds)
        for ending in endings:
            if not ending.started and ending.cause != "unneeded":
                raise _Ungraded(f"the sandbox failed: {ending.trouble}")
            if ending.cause == "starved":
                raise _Ungraded(f"the machine is too busy: a program waited for a core most of {seconds:.2g} s")
            if ending.cause == "wall" and seconds < limits.wall_seconds:
                raise _Ungraded(f"not decided within {self.limits.total_seconds:g} s in all")
        return endings


def _overrun(ending: Ending, limits: Limits) -> tuple[str, str] | None:
    """(kind of error, reason) of a run that passed a limit."""
    if ending.cause in _CAUSES:
        error, reason = _CAUSES[ending.cause]
        return error, reason.format(limits=limits)
    killed_late = ending.exit_code == -signal.SIGKILL and ending.cpu_seconds >= limits.cpu_seconds / 2
    if ending.exit_code == -signal.SIGXCPU or killed_late:  # the kernel counts by ticks, and not as the figure here
        return "time", _CAUSES["cpu"][1].format(limits=limits)
    if ending.exit_code not in (0, None) and b"MemoryError" in ending.outputs.get("stderr", b"")[-200:]:
        return "memory", _CAUSES["memory"][1].format(limits=limits)
    return None


def _status(code: int | None) -> str:
    if code is None:
        return "ended from outside"
    return f"exit status {code}" if code >= 0 else f"killed by signal {-code}"


def _last_line(text: bytes) -> str:
    lines = text.decode(errors="replace").strip().splitlines()
    return lines[-1][:200] if lines else "nothing on standard error"


def _first_error(text: bytes) -> str:
    lines = text.decode(errors="replace").strip().splitlines()
    return next((line for line in lines if "error" in line), lines[0] if lines else "no message")[:200]


def _first_failure(results: Sequence[TestResult]) -> int:
    return next((index for index, result in enumerate(results) if not result.passed), len(results))


def _padded(results: Sequence[TestResult], count: int) -> tuple[TestResult, ...]:
    return tuple(results) + (TestResult(None),) * (count - len(results))


def _summary(results: Sequence[TestResult], count: int, error: str = "", reason: str = "") -> CodeResult:
    passed = sum(result.passed is True for result in results)
    if passed == count:
        return CodeResult(Verdict.RIGHT, passed, count, f"passed {count} of {count} tests", "", tuple(results))
    if not reason:
        first = _first_failure(results)
        reason = f"test {first + 1}: {results[first].reason}" if first < len(results) else "not every test was run"
    return CodeResult(
        Verdict.WRONG,
        passed,
        count,
        f"passed {passed} of {count} tests; {reason}",
        error or "answer",
        _padded(results, count),
    )

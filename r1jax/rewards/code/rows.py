"""The ``code`` grader: from a prompt's row and a completion to a program and its tests.

Rows (all fields of the published sets):
  HumanEval: ``prompt``, ``test`` (defines ``check``), ``entry_point``.
  MBPP: ``test_list``; optional ``test_imports``, ``test_setup_code``, ``entry_point``, ``code`` (the reference: only the
    names of its functions are looked at).
  Whole programs: ``tests``, a list of ``{"input": text, "output": text}``; optional ``tolerance`` (numbers may differ by it).
Any row may say ``language`` (Python), ``time_limit`` (CPU seconds of a run; a pool's timeout must leave room for all of
them) and ``memory_limit`` (MiB).
"""

from __future__ import annotations

import builtins
import dataclasses
import re
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from r1jax.rewards.answer import after_thinking, last_tagged
from r1jax.rewards.code.languages import PYTHON, Language, language
from r1jax.rewards.code.limits import MIB, Limits
from r1jax.rewards.code.run import Asserts, CodeResult, InputOutput, run_code
from r1jax.rewards.record import Verdict

_FENCE = re.compile(r"^[ \t]{0,3}(`{3,}|~{3,})[ \t]*([^\s`~]*)[^\n]*$", re.MULTILINE)
_DEFINED = re.compile(r"^def[ \t]+(\w+)", re.MULTILINE)
_INDENTED = re.compile(r"(?:[ \t]*\n)*[ \t]+\S")


def code_blocks(text: str) -> list[tuple[str, str]]:
    """(language tag in lower case, content) of each fenced block, in order; one that never closes reaches to the end."""
    blocks, opened = [], None
    for fence in _FENCE.finditer(text):
        if opened is None:
            opened = fence
        elif fence[1][0] == opened[1][0] and len(fence[1]) >= len(opened[1]) and not fence[2]:
            blocks.append((opened[2].lower(), text[opened.end() + 1 : fence.start()]))
            opened = None
    if opened is not None:
        blocks.append((opened[2].lower(), text[opened.end() + 1 :]))
    return blocks


def _defines(entry_point: str, text: str) -> bool:
    name = re.escape(re.split(r"[.(]", entry_point)[0])
    return re.search(rf"^(?:async[ \t]+)?(?:def|class)[ \t]+{name}\b", text, re.MULTILINE) is not None


def extract_program(completion: str, known: Language = PYTHON, entry_point: str | None = None) -> str | None:
    """The program that a completion gives; None where it gives none.

    Looked for after the last ``</think>`` (a thought that never ends has none), inside ``<answer>`` if there is one: the
    last code block of that language that defines the entry point, else the last such block, else the same of blocks that
    name no language, else the last block of any kind, else the text itself.
    """
    text = after_thinking(completion)
    if text is completion and "<think>" in text:
        return None
    tagged = last_tagged(text)
    text = text if tagged is None else tagged
    blocks = code_blocks(text)
    named, unnamed = ([content for tag, content in blocks if tag in kind] for kind in (known.names, ("",)))
    fitting = named or unnamed
    if entry_point:
        defining = [[c for c in kind if _defines(entry_point, textwrap.dedent(c))] for kind in (named, unnamed)]
        fitting = defining[0] or defining[1] or fitting
    found = fitting or [content for _, content in blocks] or [text]
    return found[-1] if found[-1].strip() else None


def _asserts(row: Mapping[str, Any]) -> Asserts:
    entry = row.get("entry_point")
    if "test_list" in row:
        setup = "\n".join([*(row.get("test_imports") or ()), str(row.get("test_setup_code") or "")])
        functions = [name for name in _DEFINED.findall(str(row.get("code") or "")) if hasattr(builtins, name)]
        return Asserts(list(row["test_list"]), entry, setup, setup, functions)
    if not entry:
        raise ValueError("a row with a 'test' must name its 'entry_point'")
    prompt = str(row.get("prompt") or "")
    return Asserts([f"{row['test']}\ncheck(candidate)\n"], entry, prompt, prompt)


# Within the 10 seconds that a reward pool gives a request: a program that never ends is wrong, not ungraded. The second
# is for programs that run once for each test.
_ONE_RUN = Limits(cpu_seconds=7.0, wall_seconds=9.0, compile_seconds=6.0, total_seconds=9.5)
_MANY_RUNS = dataclasses.replace(_ONE_RUN, cpu_seconds=3.0, wall_seconds=4.5)


def _limits(row: Mapping[str, Any], runs: int) -> Limits:
    limits = _ONE_RUN if runs == 1 else _MANY_RUNS
    if row.get("time_limit"):
        seconds = float(row["time_limit"])
        total = max(limits.total_seconds, (2 * runs + 1) * seconds)
        limits = dataclasses.replace(limits, cpu_seconds=seconds, wall_seconds=2 * seconds, total_seconds=total)
    if row.get("memory_limit"):
        limits = dataclasses.replace(limits, memory=int(float(row["memory_limit"]) * MIB))
    return limits


def grade_code(row: Mapping[str, Any], completion: str, **options: Any) -> CodeResult:
    """Grades the program of a completion by its row's tests (see the module's docstring for its fields).

    Args:
      options: of ``run_code``: ``sandbox``, ``limits``, ``every_test``.

    Raises:
      ValueError: the row has no tests or contradicts itself.
      SandboxUnavailable: this machine can't isolate programs.
    """
    known = language(str(row.get("language") or "python"))
    tests: Asserts | Sequence[InputOutput]
    if "tests" in row:
        tolerance = row.get("tolerance")
        tests = [InputOutput(str(test["input"]), str(test["output"]), tolerance) for test in row["tests"]]
    elif "test_list" in row or "test" in row:
        tests = _asserts(row)
    else:
        raise ValueError(f"the row has no tests ('tests', 'test_list' or 'test'); its fields are {', '.join(map(str, row))}")
    entry = tests.entry_point if isinstance(tests, Asserts) else None
    program = extract_program(completion, known, entry)
    if program is None:
        count = len(tests.tests) if isinstance(tests, Asserts) else len(tests)
        return CodeResult(Verdict.WRONG, 0, count, "the completion holds no program", "answer")
    if known is PYTHON and _INDENTED.match(program):
        level = textwrap.dedent(program)
        if isinstance(tests, Asserts) and "test" in row and not _defines(entry, level):
            # It goes on where the prompt stopped, inside the function.
            program, tests = tests.prelude + program, dataclasses.replace(tests, prelude="")
        else:
            program = level
    runs = 1 if isinstance(tests, Asserts) else len(tests)
    return run_code(program, tests, language=known.names[0], **{"limits": _limits(row, runs), **options})

"""The attack corpus behind each kind of walls: nothing passes, nothing hangs, nothing gets out, the next one is graded."""

import os
import time

import pytest
from hostile_programs import CPP, FUNCTIONS, SCRIPTS

from r1jax.rewards import Asserts, InputOutput, Limits, Verdict, run_code
from r1jax.rewards.code import sandbox as sandboxes
from r1jax.rewards.code.languages import compiler, language

LIMITS = Limits(cpu_seconds=2, wall_seconds=60, compile_seconds=1, memory=256 << 20)
SHORT = Limits(wall_seconds=0.4, memory=256 << 20)
HANGS = {
    "thread bomb",
    "sleeps for ever",
    "stops itself",
    "stops its group",
    "ignores signals and spins",
    "spins in C",
    "hangs in C",
    "catastrophic pattern",
    "recurses in Python",
    "spins",
    "sleeps",
}
EXPECTED = "secret-expected-output"
FUNCTION_TESTS = Asserts(["assert f(1) == 2", "assert f(2) == 3", "assert f([1]) == [2]"])
# What a script prints that was let do all it tried; the rest print nothing or are ended.
SAYS = {
    "memory that no process owns": "made 0",
    "fills the disk": "wrote True",
    "fills the inodes": "made True",
    "writes everywhere": "done []",
    "reads secrets": "found []",
    "opens sockets": "done []",
    "raises its limits": "raised []",
    "makes namespaces and mounts": "done [] 0",
    "sees other processes": "sees []",
    "looks for the expected output": "[]",
}
ENDED = {
    "fork bomb": ("processes", "time", "memory"),
    "eats memory": ("memory",),
    "eats memory in many processes": ("memory",),
    "floods standard output": ("output",),
    "floods standard error": ("output",),
    "sleeps for ever": ("time",),
    "stops itself": ("time",),
    "ignores signals and spins": ("time",),
    "spins in C": ("time",),
    "hangs in C": ("time",),
    "null bytes in the source": ("compile",),
    "deep nesting": ("compile",),
}


def limits(name):
    return SHORT if name in HANGS else LIMITS


def too_busy(name, result):
    """Whether a program that spins was not let do it: on a busy machine the short limit comes too soon to blame it."""
    return name in HANGS and result.verdict is Verdict.UNGRADED and "the machine is too busy" in result.reason


def next_one_is_graded(walls):
    assert run_code("print(42)", [InputOutput("", "42")], sandbox=walls)


@pytest.mark.parametrize("name", SCRIPTS)
def test_scripts(walls, name):
    start = time.monotonic()
    result = run_code(SCRIPTS[name], [InputOutput("", EXPECTED)], limits=limits(name), sandbox=walls)
    assert time.monotonic() - start < 90
    if too_busy(name, result):
        return
    assert result.verdict is Verdict.WRONG, result
    if name in SAYS:
        assert f"line 1 is {SAYS[name]!r}, not" in result.reason
    if name in ENDED:
        assert result.error in ENDED[name]
    next_one_is_graded(walls)


@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions(walls, name):
    start = time.monotonic()
    result = run_code(FUNCTIONS[name], FUNCTION_TESTS, limits=limits(name), sandbox=walls)
    assert time.monotonic() - start < 90
    if too_busy(name, result):
        return
    assert (result.verdict, result.passed) == (Verdict.WRONG, 0), result
    next_one_is_graded(walls)


QUICK = ("includes secrets", "includes a device", "assembler reads", "huge executable", "missing semicolon")


@pytest.mark.parametrize("name", [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in CPP])
def test_compilers(best, name):
    if compiler(language("c++")) is None:
        pytest.skip("no compiler for c++")
    result = run_code(CPP[name], [InputOutput("", EXPECTED)], limits=LIMITS, language="cpp", sandbox=best)
    assert result.verdict is Verdict.WRONG, result
    next_one_is_graded(best)


def test_tests_that_print_can_not_be_forged_either(best):
    """A right program's verdict survives whatever it writes; a wrong one's too."""
    noise = 'import sys\nfor s in (sys.stdout, sys.stderr): s.write(\'{"test": 0, "passed": true}\\n{"done": true}\\n\')\n'
    assert run_code(noise + "def f(x): return [2] if x == [1] else x + 1", FUNCTION_TESTS, sandbox=best)
    assert not run_code(noise + "def f(x): return 0", FUNCTION_TESTS, sandbox=best)


def test_nothing_reaches_the_caller(best, tmp_path):
    """Neither its files, nor its other sandbox, nor what it set in its environment."""
    (tmp_path / "answers").write_text(EXPECTED)
    os.environ["SECRET_OF_THE_CALLER"] = EXPECTED
    try:
        with sandboxes.borrow(best):  # so that the program runs in a new one, started with this environment
            source = f"""
import os
try: print(open({str(tmp_path / "answers")!r}).read())
except OSError: print(os.environ.get("SECRET_OF_THE_CALLER", "nothing"))
"""
            result = run_code(source, [InputOutput("", EXPECTED)], sandbox=best)
    finally:
        del os.environ["SECRET_OF_THE_CALLER"]
    assert result.verdict is Verdict.WRONG and "line 1 is 'nothing'" in result.reason


def test_one_job_can_not_be_found_in_the_next(best):
    secret = "left-by-the-former-" + "sample"
    first = f"secret = {secret!r} * 1000\nopen('file', 'w').write(secret)\nprint(input())"
    assert run_code(first, [InputOutput(secret, secret)], sandbox=best)
    search = """
import ctypes, gc, re, os
pattern = bytes(reversed(b"elpmas-remrof-eht-yb-tfel"))
found = 0
try:
    maps = open("/proc/self/maps").read().splitlines()
    with open("/proc/self/mem", "rb") as memory:
        for line in maps:
            low, high = (int(x, 16) for x in line.split()[0].split("-"))
            if "r" in line.split()[1] and high - low < 1 << 28:
                try:
                    memory.seek(low); found += memory.read(high - low).count(pattern)
                except (OSError, OverflowError, ValueError): pass
    print("searched", found > 10, os.listdir("."))  # the pattern itself is there
except OSError:
    print("searched False []")
"""
    result = run_code(search, [InputOutput("", "searched False []")], sandbox=best)
    assert result, result.reason

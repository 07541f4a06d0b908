"""run_code: verdicts, counts and reasons, in both styles and each language, behind each kind of walls."""

import time

import pytest

from r1jax.rewards import Asserts, InputOutput, Limits, Verdict, run_code
from r1jax.rewards.code.languages import compiler, language

DOUBLE = "print(int(input()) * 2)"
TESTS = [InputOutput("2\n", "4\n"), InputOutput("5\n", "10"), InputOutput("-1\n", "-2\n")]


def needs_compiler(name):
    if compiler(language(name)) is None:
        pytest.skip(f"no compiler for {name}")


def test_a_right_program_and_partly_right_ones(walls):
    result = run_code(DOUBLE, TESTS, sandbox=walls)
    assert result and (result.verdict, result.passed, result.total, result.error) == (Verdict.RIGHT, 3, 3, "")
    source = "x = int(input())\nprint(x * 2 if x != 5 else 11)"
    result = run_code(source, TESTS, sandbox=walls)
    assert not result and (result.verdict, result.passed, result.total) == (Verdict.WRONG, 1, 3)
    assert [test.passed for test in result.tests] == [True, False, None]
    assert result.reason == "passed 1 of 3 tests; test 2: line 1 is '11', not '10'" and result.error == "answer"
    result = run_code(source, TESTS, sandbox=walls, every_test=True)
    assert [test.passed for test in result.tests] == [True, False, True] and result.verdict is Verdict.WRONG


def test_asserts(walls):
    tests = Asserts(["assert f(1) == 2", "assert f(2) == 3", "assert f(-1) == 0"])
    result = run_code("def f(x): return x + 1", tests, sandbox=walls)
    assert result and result.passed == result.total == 3
    result = run_code("def f(x): return abs(x) + 1", tests, sandbox=walls)
    assert (result.verdict, result.passed, result.error) == (Verdict.WRONG, 2, "answer")
    assert result.reason == "passed 2 of 3 tests; test 3: failed: assert f(-1) == 0"


@pytest.mark.parametrize(
    "source, error, words",
    [
        ("print(", "compile", "SyntaxError: '(' was never closed"),
        ("print(1 / 0)", "run", "ZeroDivisionError: division by zero"),
        ("import sys; sys.exit('no')", "run", "exit status 1: no"),
        ("import nothing_of_this_name", "run", "ModuleNotFoundError"),
        ("print(5)", "answer", "line 1 is '5', not '4'"),
        ("pass", "answer", "0 lines instead of 1"),
        ("print(4)\nprint(4)", "answer", "2 lines instead of 1"),
        ("while True: pass", "time", "used more than 1 s of CPU time"),
        ("x = bytearray(1 << 40)", "memory", "of memory"),
        ("while True: print('x' * 10**5)", "output", "wrote more than"),
    ],
)
def test_what_went_wrong_is_said(best, source, error, words):
    result = run_code(
        source, [InputOutput("", "4")], limits=Limits(cpu_seconds=1, wall_seconds=120, total_seconds=200), sandbox=best
    )
    assert (result.verdict, result.error) == (Verdict.WRONG, error) and words in result.reason


@pytest.mark.parametrize("name", ["c++", "c"])
def test_compiled_languages(walls, name):
    needs_compiler(name)
    include = {"c++": "cstdio", "c": "stdio.h"}[name]
    source = f'#include <{include}>\nint main(void) {{ long x; scanf("%ld", &x); printf("%ld\\n", x * 2); return 0; }}'
    assert run_code(source, TESTS, language=name, sandbox=walls)
    result = run_code(source.replace("* 2", "* 3"), TESTS, language=name, sandbox=walls)
    assert (result.verdict, result.error) == (Verdict.WRONG, "answer") and "line 1 is '6', not '4'" in result.reason
    result = run_code(source.replace("long x;", "long x"), TESTS, language=name, sandbox=walls)
    assert (result.verdict, result.error, result.passed) == (
        Verdict.WRONG,
        "compile",
        0,
    ) and "error: expected" in result.reason
    result = run_code(f"#include <{include}>\nint main(void) {{ return 7; }}", TESTS, language=name, sandbox=walls)
    assert result.error == "run" and "exit status 7" in result.reason


@pytest.mark.slow
def test_all_of_the_standard_library_compiles(best):
    needs_compiler("c++")
    source = "#include <bits/stdc++.h>\nint main() { std::vector<int> v{3, 1}; std::sort(v.begin(), v.end()); std::cout << v[0]; }"
    result = run_code(source, [InputOutput("", "1")], language="cpp", sandbox=best)
    assert result, result.reason


def test_a_language_without_its_compiler_is_ungraded(best, monkeypatch):
    monkeypatch.setattr("r1jax.rewards.code.run.compiler", lambda known: None)
    result = run_code("int main() {}", TESTS, language="cpp", sandbox=best)
    assert result.verdict is Verdict.UNGRADED and "no compiler for c++" in result.reason


def test_bad_calls_are_refused(best):
    with pytest.raises(ValueError, match="language 'cobol' is unknown; known: python, c"):
        run_code("", TESTS, language="cobol")
    with pytest.raises(ValueError, match="no tests"):
        run_code("", [])
    with pytest.raises(ValueError, match="no tests"):
        run_code("", Asserts([]))
    with pytest.raises(ValueError, match="asserts are for Python"):
        run_code("", Asserts(["assert f()"]), language="cpp")
    with pytest.raises(ValueError, match="a test is an InputOutput with two texts"):
        run_code("", [("1", "2")])
    with pytest.raises(ValueError, match="a program is text, not a NoneType"):
        run_code(None, TESTS)
    with pytest.raises(ValueError, match="sandbox must be one of auto, bubblewrap, namespaces, none, not 'docker'"):
        run_code("", TESTS, sandbox="docker")
    with pytest.raises(ValueError, match="cpu_seconds must be a positive number, not 0"):
        Limits(cpu_seconds=0)


def test_tests_may_be_plain(best):
    assert run_code(DOUBLE, [{"input": "2", "output": "4"}], sandbox=best)
    assert run_code("def f(x): return x", ["assert f(1) == 1", "assert f('a') == 'a'"], sandbox=best).total == 2
    assert not run_code("def f(x): return x", "assert f(1) == 2", sandbox=best)


def test_values_cross_as_they_are(best):
    """Each comes back equal, and of the same type, from a function that returns its argument."""
    values = """None, True, -7, 2**100, -(2**70), 0.1, -0.0, 1e308, 'ü\\n\\x00\\ud800', b'\\xff\\x00', bytearray(b'a'), 1 + 2j,
        [], [1, [2, (3,)]], (), (1,), {}, {(1, 2): {3}, 'a': None}, set(), {1, 'b'}, frozenset({2}), range(3, 9, 2),
        collections.deque([1]), fractions.Fraction(2, 3), decimal.Decimal('1.10'), '9' * 10000"""
    tests = [
        f"for value in ({values}):\n    assert f(value) == value and type(f(value)) is type(value), repr(value)",
        "assert str(f(-0.0)) == '-0.0' and f(float('inf')) == float('inf') and f(float('nan')) != f(float('nan'))",
        "assert f(10**5000) == 10**5000",
        "assert f(x=3) == 3 and f(*[4]) == 4",
    ]
    setup = "import collections, fractions, decimal"
    result = run_code("def f(x): return x", Asserts(tests, setup=setup), sandbox=best)
    assert result, result.reason


def test_what_extends_a_builtin_counts_as_it(best):
    source = """
import collections, enum, typing
class Five(int): pass
class Name(typing.NamedTuple):
    a: int
class Colour(enum.IntEnum):
    RED = 1
values = [Five(5), collections.Counter("aab"), collections.defaultdict(int, a=1), Name(3), Colour.RED, collections.OrderedDict(b=2)]
def f(i): return values[i]
"""
    wanted = [5, {"a": 2, "b": 1}, {"a": 1}, (3,), 1, {"b": 2}]
    result = run_code(source, Asserts([f"assert f({i}) == {value!r}" for i, value in enumerate(wanted)]), sandbox=best)
    assert result, result.reason


def test_functions_iterators_and_objects_stand_for_themselves(best):
    source = """
import re
def adder(n): return lambda x: x + n
def count(n): yield from range(n)
class Node:
    def __init__(self, value, rest): self.value, self.rest = value, rest
def build(items): return Node(items[0], build(items[1:])) if items else None
def total(node): return node.value + total(node.rest) if node else 0
def found(text): return re.search("b", text)
def same(node): return node
def apply(function, x): return function(x)
"""
    tests = [
        "assert adder(2)(3) == 5",
        "assert list(count(4)) == [0, 1, 2, 3] and sum(count(10)) == 45 and [*zip(count(2), count(3))] == [(0, 0), (1, 1)]",
        "assert total(build([1, 2, 3])) == 6",
        "assert found('abc') and not found('a') and found('a') is None and found('abc') is not None",
        "assert build([1]) != 1 and not build([1]) == 1 and build([1]) != build([1])",
        "assert apply(adder(1), 5) == 6",
    ]
    result = run_code(source, Asserts(tests), sandbox=best)
    assert result, result.reason
    result = run_code(source, Asserts(["assert build([1]) == [1]"]), sandbox=best)
    assert "the program returned <Node>, which is no plain data" in result.reason


CLASSES = """
class Solution:
    limit = 3
    def two_sum(self, numbers, target):
        seen = {}
        for place, number in enumerate(numbers):
            if target - number in seen: return [seen[target - number], place]
            seen[number] = place
    def rotate(self, numbers): numbers.insert(0, numbers.pop())
    @staticmethod
    def twice(x): return 2 * x
class Node:
    def __init__(self, value, rest=None): self.value, self.rest = value, rest
    def __eq__(self, other): return True
    __hash__ = object.__hash__
class Stack:
    def __init__(self): self.items = []
    def push(self, item): self.items.append(item); return self
    def pop(self): return self.items.pop()
    def __len__(self): return len(self.items)
    def __getitem__(self, place): return self.items[place]
    def __setitem__(self, place, item): self.items[place] = item
    def __contains__(self, item): return item in self.items
    def __iter__(self): return iter(self.items)
    def __str__(self): return "/".join(map(str, self.items))
"""


def test_classes_with_methods(walls):
    tests = [
        "assert Solution().two_sum([2, 7, 11, 15], 9) == [0, 1]",
        "s = Solution()\nx = [1, 2, 3]\ns.rotate(x)\nassert x == [3, 1, 2]",
        "assert Solution.limit == 3 and Solution.twice(4) == 8 and Solution().limit == 3",
        "n = Node(1)\nn.rest = Node(2)\nassert n.rest.value == 2 and n.rest.rest is None",
        "s = Stack().push(1).push(2)\ns.push([3])\nassert len(s) == 3 and s[2] == [3] and list(s) == [1, 2, [3]]",
        "s[0] = 5\nassert 5 in s and 9 not in s and str(s) == '5/2/[3]' and s.pop() == [3] and sorted(s) == [2, 5]",
        "try:\n    Stack().pop()\nexcept IndexError:\n    pass\nelse:\n    assert False",
        "assert not hasattr(Stack(), 'top') and hasattr(Stack(), 'items')",
        "assert Node(1) != 1 and Node(1) != Node(1) and 1 not in [Node(1)]",
    ]
    result = run_code(CLASSES, Asserts(tests), sandbox=walls)
    assert result, result.reason
    for test in (
        "assert Node(1) == 1",
        "assert Stack().push(1).pop() == 2",
        "assert Node(1).value == 2",
        "assert len(Stack())",
    ):
        assert run_code(CLASSES, Asserts([test]), sandbox=walls).verdict is Verdict.WRONG, test


def test_what_an_object_answers_is_plain_data_only(best):
    """Every special method lies; a test that asks for a number, a text or an end never meets an object that says yes."""
    liar = """
class Yes(int):
    def __eq__(self, other): return True
    def __ne__(self, other): return False
    __hash__ = int.__hash__
class Liar:
    value = Yes(7)
    def __len__(self): return Yes(7)
    def __str__(self): return type("S", (str,), {"__eq__": lambda s, o: True, "__hash__": str.__hash__})("no")
    def __contains__(self, item): return False
    def __iter__(self): return iter([Yes(7)])
    def __getitem__(self, place): return Yes(7)
    def __getattr__(self, name): return Yes(7)
    def __call__(self, *args): return Liar()
    def __eq__(self, other): return True
    __hash__ = object.__hash__
def f(x): return Liar()
"""
    for test in (
        "assert f(1) == 2",
        "assert f(1).value == 2",
        "assert f(1).anything == 2",
        "assert f(1)[0] == 2",
        "assert len(f(1)) == 2",
        "assert str(f(1)) == 'yes'",
        "assert list(f(1)) == [2]",
        "assert 3 in f(1)",
        "assert f(1)() == 2",
        "assert isinstance(f(1), int)",
        "assert f(1) in [2]",
    ):
        assert run_code(liar, Asserts([test]), sandbox=best).verdict is Verdict.WRONG, test
    # A module that the tests forgot is not the program's to bring.
    forged = "class np:\n    allclose = staticmethod(lambda *a: True)\ndef f(x): return 0"
    assert run_code(forged, Asserts(["assert np.allclose(f(1), 2)"]), sandbox=best).verdict is Verdict.UNGRADED


def test_exceptions_come_back_by_name(best):
    source = """
class Special(KeyError): pass
def f(x):
    if x == 0: raise ValueError("zero")
    if x == 1: raise Special("one")
    if x == 2: raise type("Own", (Exception,), {})("two")
    raise SystemExit
"""
    caught = "try:\n    f({})\nexcept {} as error:\n    assert {!r} in str(error)\nelse:\n    assert False"
    tests = [
        caught.format(0, "ValueError", "zero"),
        caught.format(1, "LookupError", "one"),
        caught.format(2, "Exception", "two"),
    ]
    assert run_code(source, Asserts(tests), sandbox=best)
    result = run_code(source, Asserts([caught.format(0, "KeyError", "zero")]), sandbox=best)
    assert result.verdict is Verdict.WRONG and "ValueError: zero" in result.reason
    # An end that a test swallows is an end all the same.
    tests = Asserts(["try:\n    f(1)\nexcept:\n    pass"])
    assert run_code("def f(x): raise SystemExit", tests, sandbox=best)
    assert run_code("import os\ndef f(x): os._exit(0)", tests, sandbox=best).verdict is Verdict.WRONG


def test_changes_in_place_come_back_where_only_they_count(best):
    source = "def f(x): x.sort()\ndef g(x): x.clear(); x.append(None)"
    assert run_code(source, Asserts(["x = [3, 1, 2]\nf(x)\nassert x == [1, 2, 3]"]), sandbox=best)
    # As an operand the call can't reach the other operand: else both sides would be the program's.
    for test in (
        "x = [3, 1]\nassert g(x) == max(x)",
        "x = [3, 1]\nassert g(x) == x[0]",
        "x = [3]\ny = g(x)\nassert x == [None]",
    ):
        assert run_code(source, Asserts([test]), sandbox=best).verdict is Verdict.WRONG


def test_broken_tests_are_ungraded_and_the_programs_faults_are_not(best):
    source = "def f(x): return x"
    for test in (
        "assert f(1 ==",
        "import nothing_of_this_name",
        "assert f(lambda: 1)",
        "assert undefined.thing == 1",
        "1 / 0",
    ):
        result = run_code(source, Asserts([test]), sandbox=best)
        assert result.verdict is Verdict.UNGRADED and "tests are broken" in result.reason, test
    result = run_code(source, Asserts(["assert f(1) == 1"], setup="raise KeyError('x')"), sandbox=best)
    assert result.verdict is Verdict.UNGRADED
    # What a program returns can make a test fail in any way, and is wrong.
    for test in (
        "assert len(f(3)) == 1",
        "assert f(3).x == 1",
        "f(f(3)).append(1)",
        "assert f(3)[0] == 1",
        "assert f(1)(2) == 3",
    ):
        assert run_code(source, Asserts([test]), sandbox=best).verdict is Verdict.WRONG, test


def test_entry_points(best):
    source = "class Solution:\n    def twice(self, x): return 2 * x\ndef sum(a, b): return a - b"
    assert run_code(source, Asserts(["assert candidate(4) == 8"], entry_point="Solution().twice"), sandbox=best)
    assert run_code(source, Asserts(["assert sum(4, 1) == 3"], functions=["sum"]), sandbox=best)
    assert not run_code(source, Asserts(["assert sum([4, 1]) == 3"]), sandbox=best)
    result = run_code(source, Asserts(["assert thrice(4) == 12"]), sandbox=best)
    assert result.verdict is Verdict.WRONG and "the program defines no 'thrice'" in result.reason
    # A module that a test uses without importing it is the standard library's, not the program's.
    assert run_code("import math\ndef f(): return 3", Asserts(["assert f() == math.floor(math.pi)"]), sandbox=best)


def test_scripts_live_as_they_would_outside(walls):
    source = """
import sys, threading, time, atexit, pickle, dataclasses, os
@dataclasses.dataclass
class Point:
    x: int
if __name__ == "__main__":
    first = input()
    rest = sys.stdin.read().split()
    print(first, rest, sys.argv, pickle.loads(pickle.dumps(Point(3))), flush=True)
    sys.stdout.buffer.write("ü\\n".encode())
    threading.Thread(target=lambda: (time.sleep(0.1), print("thread"))).start()
    atexit.register(print, "exit")
    with open("note", "w") as file: file.write("kept")
    print(open("note").read(), os.listdir("."))
    exit()
"""
    wanted = "a b ['c', 'd'] ['main.py'] Point(x=3)\nü\nkept ['note']\nthread\nexit\n"
    for _ in range(2):  # the second finds nothing of the first
        result = run_code(source, [InputOutput("a b\nc\nd", wanted)], sandbox=walls)
        assert result, result.reason


def test_the_same_every_time(best):
    source = """
import random, os
print(random.random(), random.randrange(10**9), hash("a"), list({None, "x", "y", 1.5}), sorted(os.environ.items()))
print([id(type) == id(int), hash(None), os.getcwd(), os.uname().nodename])
"""
    outputs = {run_code(source, [InputOutput("", "")], sandbox=best).reason for _ in range(3)}
    assert len(outputs) == 1
    source = "import random\ndef f(): return random.random()"
    tests = Asserts(["import random\nassert f() == random.random()"])  # both seeded alike
    assert run_code(source, tests, sandbox=best)


def test_time_for_all_is_bounded_and_is_nobodys_fault(best):
    limits = Limits(wall_seconds=4, total_seconds=2)
    start = time.monotonic()
    result = run_code("import time; time.sleep(1.1); print(4)", [InputOutput("", "4")] * 3, limits=limits, sandbox=best)
    assert result.verdict is Verdict.UNGRADED and "not decided within 2 s" in result.reason and result.passed < 3
    assert time.monotonic() - start < 20


def test_unpicked_limits_are_not_the_machines():
    assert Limits().order()["RLIMIT_CPU"] == 10 and Limits(cpu_seconds=0.2).order()["RLIMIT_CPU"] == 1
    compiling = Limits(memory=1 << 20, compile_seconds=3).for_compiler()
    assert compiling.cpu_seconds == 3 and compiling.memory == 1 << 30

"""The ``code`` grader: programs in completions, rows of the published sets, HumanEval's and MBPP's references."""

import gzip
import json
import os
import time
from pathlib import Path

import pytest

from r1jax.rewards import Limits, RewardRequest, Verdict, grade, grade_code
from r1jax.rewards.code.languages import language
from r1jax.rewards.code.rows import code_blocks, extract_program

HERE = Path(__file__).parent
SLICE = [json.loads(line) for line in (HERE.parents[1] / "data/code/humaneval.jsonl").read_text().splitlines()]
DATA = Path(os.environ.get("R1JAX_DATA", HERE.parents[3] / "shared/data")) / "code"
MBPP = {  # of the form of MBPP's rows, our own
    "prompt": "Write a function that adds the square roots of two numbers.",
    "code": "import math\ndef add_roots(a, b):\n    return math.sqrt(a) + math.sqrt(b)",
    "test_imports": ["import math"],
    "test_list": ["assert math.isclose(add_roots(4, 9), 5)", "assert add_roots(0, 0) == 0", "assert add_roots(1, 1) == 2"],
}


@pytest.mark.parametrize(
    "completion, program",
    [
        ("print(1)", "print(1)"),
        ("text\n```python\nprint(1)\n```\nmore", "print(1)\n"),
        ("```py\na\n```\nwhich prints\n```\n42\n```", "a\n"),
        ("```\na\n```\n```\nb\n```", "b\n"),
        ("```python\na\n```\noutput:\n```text\n42\n```", "a\n"),
        ("```python\nunclosed", "unclosed"),
        ("~~~python\na\n```\nb\n~~~", "a\n```\nb\n"),
        ("````python\na\n```\nb\n````", "a\n```\nb\n"),
        ("```js\na\n```", "a\n"),
        ("<think>```python\nbad\n```</think>```python\ngood\n```", "good\n"),
        ("<think>a</think><answer>```python\ngood\n```</answer>", "good\n"),
        ("```python\nbad\n```<answer>\nprint(2)\n</answer>", "print(2)"),
        ("<think>```python\nnever ends\n```", None),
        ("</think>", None),
        ("", None),
        ("```python\n```", None),
    ],
)
def test_where_the_program_is(completion, program):
    assert extract_program(completion) == program


def test_the_block_that_defines_the_function_is_taken():
    text = "```python\ndef f(x):\n    return x\n```\nUse it:\n```python\nprint(f(3))\n```"
    assert extract_program(text, entry_point="f").startswith("def f")
    assert extract_program(text, entry_point="g") == extract_program(text) == "print(f(3))\n"
    assert extract_program("```cpp\na\n```\n```python\nb\n```", language("c++")) == "a\n"


def test_blocks_are_found_in_linear_time():
    for text in ("```\n" * 100_000, "``` " * 100_000, "`" * 400_000, "```a\n```b\n" * 50_000, " " * 400_000):
        start = time.process_time()
        code_blocks(text)
        extract_program(text, entry_point="f")
        assert time.process_time() - start < 2


@pytest.mark.parametrize("row", SLICE, ids=lambda row: row["task_id"])
def test_humaneval_slice(best, row):
    reference = row["prompt"] + row["canonical_solution"]
    for completion in (
        row["canonical_solution"],  # a base model goes on where the prompt stopped
        f"<think>hm</think>\nHere:\n```python\n{reference}\n```\nDone.",
        f"</think><answer>\n```\n{reference}\n\nif __name__ == '__main__':\n    print(input())\n```\n</answer>",
    ):
        result = grade_code(row, completion, sandbox=best)
        assert result, result.reason
    stub = f"def {row['entry_point']}(*args):\n    return None"
    for wrong in (stub, "    pass\n", f"{stub}\nimport os; os._exit(0)", "", "no idea"):
        result = grade_code(row, wrong, sandbox=best)
        assert result.verdict is Verdict.WRONG, result


def test_mbpp_rows(best):
    assert grade_code(MBPP, f"```python\n{MBPP['code']}\n```", sandbox=best)
    result = grade_code(MBPP, "def add_roots(a, b): return math.sqrt(a + b)", sandbox=best)  # its imports are given
    assert (result.verdict, result.passed, result.total) == (Verdict.WRONG, 0, 3)
    row = {"test_list": ["assert sum(10, 15) == 6"], "code": "def sum(a, b):\n    return 6"}
    assert grade_code(row, "def sum(a, b): return 6", sandbox=best)
    assert not grade_code(row, "def total(a, b): return 6", sandbox=best)


def test_rows_of_whole_programs(best):
    row = {"tests": [{"input": "3\n", "output": "1.5\n"}, {"input": "1\n", "output": "0.5\n"}]}
    assert grade_code(row, "```python\nprint(int(input()) / 2)\n```", sandbox=best)
    third = {"tests": [{"input": "1\n", "output": "0.3333\n"}], "tolerance": 1e-3, "time_limit": 1, "memory_limit": 256}
    assert grade_code(third, "print(int(input()) / 3)", sandbox=best)
    assert not grade_code({**third, "tolerance": None}, "print(int(input()) / 3)", sandbox=best)
    assert grade_code(third, "x = bytearray(300 << 20)", sandbox=best).error == "memory"


def test_rows_that_cant_be_graded():
    for row, message in [
        ({"question": "?"}, "no tests"),
        ({"test": "def check(c): pass"}, "entry_point"),
        ({"tests": [{"input": "", "output": ""}], "language": "cobol"}, "'cobol' is unknown"),
        ({"tests": []}, "no tests"),
    ]:
        with pytest.raises(ValueError, match=message):
            grade_code(row, "pass")
        record = grade(RewardRequest({**row, "grader": "code"}, "", "pass"), ["accuracy"])
        assert record.verdict is Verdict.UNGRADED and record.parts == {"accuracy": None}


def read(name):
    if not (DATA / name).exists():
        pytest.skip(f"no {DATA / name}: set R1JAX_DATA")
    return (DATA / name).read_bytes()


ROOMY = Limits(cpu_seconds=30, wall_seconds=120, total_seconds=200)  # one of MBPP takes 5 s of a core of its own


@pytest.mark.slow
def test_every_reference_of_humaneval_passes(walls):
    rows = [json.loads(line) for line in gzip.decompress(read("HumanEval.jsonl.gz")).splitlines()]
    assert len(rows) == 164
    failed = {
        row["task_id"]: result.reason
        for row in rows
        if not (result := grade_code(row, row["canonical_solution"], sandbox=walls, limits=ROOMY))
    }
    assert not failed
    passed = [
        row["task_id"]
        for row in rows
        if grade_code(row, f"def {row['entry_point']}(*a): return a", sandbox=walls, limits=ROOMY)
    ]
    assert not passed


@pytest.mark.slow
def test_every_reference_of_mbpp_passes(walls):
    rows = json.loads(read("mbpp_sanitized.json"))
    assert len(rows) == 427
    failed = {
        row["task_id"]: result.reason
        for row in rows
        if not (result := grade_code(row, f"```\n{row['code']}\n```", sandbox=walls, limits=ROOMY))
    }
    assert not failed

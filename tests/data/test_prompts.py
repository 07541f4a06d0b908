"""Prompt sets under the usual field names, errors by file and line, and an order that survives hosts and restarts."""

import gzip
import json
import os
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from r1jax.config import BenchmarkSource, DataSource
from r1jax.data.prompts import DataError, PromptOrder, load_prompts

REAL = Path(os.environ.get("R1JAX_DATA", Path(__file__).parents[3] / "shared/data")) / "math"


def write(folder, *rows):
    text = "\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows)
    (folder / "rows.jsonl").write_text(text, encoding="utf-8")
    return folder


def load(folder, **settings_):
    return load_prompts(DataSource("rows.jsonl", **settings_), folder)


def test_usual_names(tmp_path):
    rows = load(
        write(
            tmp_path,
            {"question": "How many?", "answer": "2 + 3 = 5\n#### 5"},
            "",
            {"problem": "Find $x$.", "answer": "\\frac{1}{2}", "level": 2, "grader": "search", "template": "Q: {prompt} A:"},
            {"Body": "Tom has 3 apples", "Question": "How many are left?", "Answer": 145.0},
            {"Body": "Tom has 3 apples.", "Question": "How many are left?", "Answer": 2.5},
            {"Body": "If Tom has 3", "Question": "how many are left?", "Answer": 2},
            {"problem": "p", "question": "q", "answer": "0"},
        )
    )
    assert [row.index for row in rows] == list(range(6))
    assert (rows[0].problem, rows[0].answer) == ("How many?", "2 + 3 = 5\n#### 5")
    assert (rows[0].template, rows[0].grader) == ("r1_zero", "verify_math")
    assert (rows[1].template, rows[1].grader, rows[1].row["level"]) == ("Q: {prompt} A:", "search", 2)
    assert [row.problem for row in rows[2:]] == [
        "Tom has 3 apples. How many are left?",
        "Tom has 3 apples. How many are left?",
        "If Tom has 3, how many are left?",
        "p",
    ]
    assert [row.answer for row in rows[2:]] == ["145", "2.5", "2", "0"]


def test_defaults_fields_and_limit(tmp_path):
    write(tmp_path, {"text": "a", "gold": 7, "problem": "b", "answer": "8"}, {"text": "c", "gold": "9"}, "broken")
    rows = load(tmp_path, prompt_field="text", answer_field="gold", template="none", grader="other", limit=2)
    assert [(r.problem, r.answer, r.template, r.grader) for r in rows] == [
        ("a", "7", "none", "other"),
        ("c", "9", "none", "other"),
    ]
    assert load_prompts(BenchmarkSource(str(tmp_path / "rows.jsonl"), limit=1), "/nowhere")[0].problem == "b"


def test_a_row_may_have_no_answer_if_its_grader_needs_none(tmp_path):
    assert load(write(tmp_path, {"problem": "Be kind.", "grader": "preference"}))[0].answer == ""


def test_compressed_and_parquet(tmp_path):
    row = {"problem": "é", "answer": "1"}
    (tmp_path / "rows.jsonl.gz").write_bytes(gzip.compress(json.dumps(row).encode()))
    assert load_prompts(DataSource("rows.jsonl.gz"), tmp_path)[0].problem == "é"
    (tmp_path / "rows.json").write_text(json.dumps([row, row]))
    assert [r.index for r in load_prompts(DataSource("rows.json"), tmp_path)] == [0, 1]
    for text, message in (('{"problem": "p"}', "must hold a list of rows, not dict"), ("[", "not JSON")):
        (tmp_path / "bad.json").write_text(text)
        with pytest.raises(DataError, match=message):
            load_prompts(DataSource("bad.json"), tmp_path)
    parquet = pytest.importorskip("pyarrow.parquet")
    import pyarrow

    parquet.write_table(pyarrow.Table.from_pylist([row, row]), tmp_path / "rows.parquet")
    assert [r.problem for r in load_prompts(DataSource("rows.parquet"), tmp_path)] == ["é", "é"]


def test_the_tests_of_a_program_are_part_of_its_problem(tmp_path):
    """MBPP's prompts don't say what the function is called; its tests do."""
    row = {"prompt": "Add one. ", "test_list": ["assert inc(1) == 2", "assert inc(2) == 3"], "grader": "code"}
    expected = "Add one.\nThe code must pass these tests:\nassert inc(1) == 2\nassert inc(2) == 3"
    assert load(write(tmp_path, row))[0].problem == expected


GOOD = {"problem": "p", "answer": "a"}


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([GOOD, '{"problem": '], "rows.jsonl:2: not a line of JSON"),
        ([GOOD, "", "[1]"], "rows.jsonl:3: a row must be a JSON object, not list"),
        ([{"prob": "p", "answer": "a"}], "rows.jsonl:1: no problem or question among its fields prob, answer"),
        ([{"problem": "p", "ans": "a"}], "rows.jsonl:1: no answer or Answer among its fields problem, ans"),
        ([{"problem": None, "answer": "a"}], "rows.jsonl:1: no problem"),
        ([{"problem": 3, "answer": "a"}], "rows.jsonl:1: problem must be text, not 3"),
        ([{"problem": " ", "answer": "a"}], "rows.jsonl:1: the problem is empty"),
        ([{"problem": "a", "answer": "\ud800"}], "rows.jsonl:1: the row is not valid Unicode"),
        ([{"problem": "\ud800", "answer": "a"}], "rows.jsonl:1: the problem is not valid Unicode"),
        ([GOOD | {"template": "r1zero"}], "rows.jsonl:1: unknown prompt template 'r1zero'; did you mean 'r1_zero'"),
        ([GOOD | {"grader": ["a"]}], "rows.jsonl:1: grader must be text"),
        ([""], "rows.jsonl has no rows"),
    ],
)
def test_errors_name_file_and_line(tmp_path, rows, message):
    with pytest.raises(DataError) as raised:
        load(write(tmp_path, *rows))
    assert message in str(raised.value) and "\n" not in str(raised.value)


# mtime: the content is a part of the test's name, which must be the same in all of pytest's workers.
@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl.gz", b"not gzip", "not a whole gzip file"),
        ("a.jsonl.gz", gzip.compress(b'{"problem": "a", "answer": "1"}\n' * 99, mtime=0)[:-9], "not a whole gzip file"),
        ("a.jsonl", b"[" * 100_000, "a.jsonl:1: not a line of JSON: it is nested too deeply"),
        ("a.json", b"[" * 100_000, "not JSON: it is nested too deeply"),
    ],
)
def test_damaged_files_are_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message) as raised:
        load_prompts(DataSource(name), tmp_path)
    assert name in str(raised.value)


def test_a_damaged_parquet_file_is_named(tmp_path):
    pytest.importorskip("pyarrow")
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more")
    with pytest.raises(DataError, match="a.parquet: not a whole Parquet file"):
        load_prompts(DataSource("a.parquet"), tmp_path)


def test_missing_file_and_field(tmp_path):
    with pytest.raises(DataError, match="there is no file"):
        load(tmp_path)
    with pytest.raises(DataError, match="rows.jsonl:1: no gold among its fields"):
        load(write(tmp_path, GOOD), answer_field="gold", grader="other")


def test_real_sets():
    if not REAL.exists():
        pytest.skip(f"no {REAL}: set R1JAX_DATA to a folder with math/")
    counts = {"gsm8k_test.jsonl": 1319, "math500.jsonl": 500, "svamp.jsonl": 1000, "cmath_zh.jsonl": 600}
    sets = {name: load_prompts(DataSource(name), REAL) for name in counts}
    assert {name: len(rows) for name, rows in sets.items()} == counts
    assert sets["gsm8k_test.jsonl"][0].answer.endswith("#### 18")
    assert sets["svamp.jsonl"][0].problem.endswith("into 93 groups. How big is each group of bananas?")
    assert sets["svamp.jsonl"][0].answer == "145"


# ---------------------------------------------------------------------------------------------- order
@settings(deadline=None, max_examples=8)  # grain takes milliseconds per index below some hundred rows
@given(count=st.integers(1, 40), seed=st.integers(0, 2**63), sizes=st.lists(st.integers(0, 20), max_size=4))
def test_each_epoch_takes_every_prompt_once(count, seed, sizes):
    order = PromptOrder(count, seed)
    taken = [i for size in sizes for i in order.take(size)]
    assert order.state() == {"next_index": len(taken)} and order.epoch == len(taken) // count
    for start in range(0, len(taken) - count + 1, count):
        assert sorted(taken[start : start + count]) == list(range(count))
    assert taken == PromptOrder(count, seed).take(len(taken))  # whatever the sizes


def test_epochs_and_seeds_differ():
    order = PromptOrder(50, seed=1)
    first, second = order.take(50), order.take(50)
    assert first != second and first != PromptOrder(50, seed=2).take(50) and first != list(range(50))


def test_resume_anywhere():
    order = PromptOrder(13, seed=3)
    order.take(20)
    state = json.loads(json.dumps(order.state()))
    later = PromptOrder(13, seed=3)
    later.restore(state)
    assert later.take(9) == order.take(9)


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_hosts_share_one_order(hosts):
    whole = PromptOrder(30, seed=4).take(16)
    shares = [PromptOrder(30, seed=4).take(16)[host::hosts] for host in range(hosts)]
    assert Counter(i for share in shares for i in share) == Counter(whole)
    assert [shares[i % hosts][i // hosts] for i in range(16)] == whole


def test_an_empty_set_has_no_order():
    with pytest.raises(ValueError, match="empty"):
        PromptOrder(0, seed=0)


def test_a_source_may_override_its_rows_templates(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text('{"problem": "a", "answer": "1", "template": "{prompt}!"}\n{"problem": "b", "answer": "2"}\n')
    assert [row.template for row in load_prompts(DataSource(str(path), template="none"))] == ["{prompt}!", "none"]
    assert [r.template for r in load_prompts(DataSource(str(path), override_template="chat"))] == ["chat", "chat"]
    with pytest.raises(DataError, match="chta.*did you mean 'chat'"):
        load_prompts(DataSource(str(path), override_template="chta"))

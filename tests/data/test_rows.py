"""Rows of every format and of sets of files, TFDS data sets by name, and one order of them on any number of hosts."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import grain
import pytest

from r1jax.config import BenchmarkSource, DataSource
from r1jax.data import DataError, PromptOrder, Tokenizer, load_examples, load_prompts
from r1jax.data.rows import data_files, read_rows
from r1jax.data.rows.files import READERS
from r1jax.data.writing import array_record_bytes, jsonl_text, parquet_bytes

TFDS = Path(__file__).parent / "tfds"
TOKENIZER = Path(__file__).parent / "tokenizers" / "bpe"
ROWS = [{"problem": f"Was ist {i}+é?", "answer": str(i), "completion": f" {i} 等"} for i in range(7)]
WRITERS = {
    ".jsonl": lambda rows: jsonl_text(rows).encode(),
    ".parquet": parquet_bytes,
    ".array_record": array_record_bytes,
}


def write(path, rows=ROWS):
    path.parent.mkdir(parents=True, exist_ok=True)
    kind = next(kind for kind in WRITERS if kind in path.name)
    path.write_bytes(WRITERS[kind](rows))
    return path


def rows_of(path, root=".", **more):
    return [row for _, row in read_rows(DataSource(str(path), **more), root)]


def sums(split="train", **more):
    return DataSource("tfds:small_sums", split=split, data_dir=str(TFDS), **more)


# ---------------------------------------------------------------------------------------------- files
@pytest.mark.parametrize("kind", WRITERS)
def test_a_file_gives_back_what_was_written(kind, tmp_path):
    write(tmp_path / f"rows{kind}")
    assert rows_of(f"rows{kind}", tmp_path) == ROWS
    assert rows_of(f"rows{kind}", tmp_path, limit=3) == ROWS[:3]
    source = DataSource(str(tmp_path / f"rows{kind}"), template="none")
    assert [(p.index, p.problem, p.answer) for p in load_prompts(source)] == [
        (i, row["problem"], row["answer"]) for i, row in enumerate(ROWS)
    ]
    examples, too_long = load_examples(source, Tokenizer.load(TOKENIZER), 64)
    assert len(examples) == 7 and too_long == 0


@pytest.mark.parametrize("kind", WRITERS)
def test_shards_are_one_set_in_the_order_of_their_names(kind, tmp_path):
    """Written with its format before or after the number, named by folder or pattern."""
    for i, part in enumerate((ROWS[:3], ROWS[3:4], ROWS[4:])):
        write(tmp_path / f"before/train{kind}-0000{i}-of-00003", part)
        write(tmp_path / f"after/train-0000{i}-of-00003{kind}", part)
    (tmp_path / "before/README.md").write_text("Not data.")
    (tmp_path / "before/dataset_info.json").write_text("{}")
    for path in ("before", "after", f"before/train{kind}*", f"after/*{kind}", f"*/train-0000?-of-00003{kind}"):
        assert rows_of(path, tmp_path) == ROWS, path
    assert len(rows_of("before", tmp_path, limit=4)) == 4
    (where, _), *_ = list(read_rows(DataSource("after"), tmp_path))[4:]
    assert where == f"{tmp_path}/after/train-00002-of-00003{kind}:1"
    assert len(data_files(DataSource("after"), tmp_path)) == 3
    (tmp_path / f"after/train-00001-of-00003{kind}").unlink()
    with pytest.raises(DataError, match="of the 3 shards .*train.* 1 are missing, number 1 first"):
        rows_of("after", tmp_path)


def test_numbers_of_rows_run_on_over_files(tmp_path):
    write(tmp_path / "a.jsonl", ROWS[:2])
    write(tmp_path / "b.jsonl", ROWS[2:])
    assert [p.index for p in load_prompts(DataSource("*.jsonl"), tmp_path)] == list(range(7))


def test_an_empty_shard_is_no_trouble_and_an_empty_set_is(tmp_path):
    write(tmp_path / "a.array_record", [])
    with pytest.raises(DataError, match=r"\*.array_record has no rows"):
        rows_of("*.array_record", tmp_path)
    write(tmp_path / "b.array_record")
    assert rows_of("*.array_record", tmp_path) == ROWS


@pytest.mark.parametrize(
    "path, message",
    [
        ("nothing.array_record", "there is no file"),
        ("nothing*.jsonl", "no file matches"),
        ("empty", "holds no .jsonl, .jsonl.gz, .csv, .parquet or .array_record files"),
        ("mixed", "files of several formats (.jsonl, .parquet); name one: *.jsonl"),
        ("short.array_record", "not a whole ArrayRecord file: ArrayRecord file should be at least 64KB big"),
        ("cut.array_record", "not a whole ArrayRecord file: Corrupted"),
        ("flipped.array_record", "flipped.array_record: not a whole ArrayRecord file: Corrupted"),
        ("other.array_record", "other.array_record:2: not a record of JSON (TFDS's are read as tfds:NAME)"),
        ("list.array_record", "list.array_record:1: a row must be a JSON object, not list"),
        ("field.array_record", "field.array_record:2: no problem or question among its fields q"),
    ],
)
def test_what_is_broken_is_named(path, message, tmp_path):
    whole = array_record_bytes(ROWS)
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty/card.json").write_text("[]")
    write(tmp_path / "mixed/data.jsonl")
    write(tmp_path / "mixed/data.parquet")
    (tmp_path / "short.array_record").write_bytes(b"no")
    (tmp_path / "cut.array_record").write_bytes(whole[:-50])
    (tmp_path / "flipped.array_record").write_bytes(whole[:70] + bytes([whole[70] ^ 0xFF]) + whole[71:])
    write(tmp_path / "list.array_record", [["problem", "answer"]])
    write(tmp_path / "field.array_record", [ROWS[0], {"q": "a"}])
    from array_record.python.array_record_module import ArrayRecordWriter

    writer = ArrayRecordWriter(str(tmp_path / "other.array_record"), "group_size:1")
    for record in (b'{"problem": "a", "answer": "1"}', b"\x0a\x10\xff"):
        writer.write(record)
    writer.close()
    with pytest.raises(DataError) as raised:
        load_prompts(DataSource(path), tmp_path)
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_a_format_without_its_package_says_which(tmp_path, monkeypatch):
    path = write(tmp_path / "rows.array_record")
    monkeypatch.setitem(sys.modules, "array_record.python.array_record_data_source", None)
    with pytest.raises(DataError, match="pip install array_record"):
        rows_of(path)
    monkeypatch.setitem(sys.modules, "tensorflow_datasets.core.read_only_builder", None)
    with pytest.raises(DataError, match="pip install tensorflow-datasets"):
        list(read_rows(sums()))
    monkeypatch.setitem(sys.modules, "array_record.python.array_record_module", None)
    assert array_record_bytes(ROWS) is None


def test_every_format_ends_in_one_suffix():
    """``format_of`` takes the first that fits: none may be the end of another."""
    assert not [(a, b) for a in READERS for b in READERS if a != b and a.endswith(b)]


def test_array_record_has_the_same_bytes_each_time():
    """What a killed stage writes again must be what it would have written."""
    assert array_record_bytes(ROWS) == array_record_bytes(ROWS) != array_record_bytes(ROWS[1:])


# ---------------------------------------------------------------------------------------------- tables
def test_a_table_of_text_with_commas(tmp_path):
    """Quotes, commas and line ends within a cell; a byte order mark, either line end, blank lines."""
    text = 'id,problem,answer\n\n1,"Say ""hi"", é.",\n2,"two\nlines",等\n3,\'a,-1\n'
    expected = [
        (3, {"id": "1", "problem": 'Say "hi", é.', "answer": ""}),
        (4, {"id": "2", "problem": "two\nlines", "answer": "等"}),
        (6, {"id": "3", "problem": "'a", "answer": "-1"}),
    ]
    path = tmp_path / "rows.csv"
    for data in (text, "\ufeff" + text, text.removesuffix("\n")):
        path.write_bytes(data.encode())
        assert list(read_rows(DataSource(str(path)))) == [(f"{path}:{line}", row) for line, row in expected]
    path.write_bytes(text.replace("\n", "\r\n").encode())
    assert [row["id"] for row in rows_of(path)] == ["1", "2", "3"]
    assert rows_of(tmp_path, limit=1) == [expected[0][1]]


@pytest.mark.parametrize(
    "data, message",
    [
        (b"", "table.csv has no rows"),
        (b"problem,answer\n", "table.csv has no rows"),
        (b"problem,answer\na,1\nb\n", "table.csv:3: 1 cells for the 2 columns problem, answer"),
        (b"problem,answer\n\na,1,2\n", "table.csv:3: 3 cells for the 2 columns problem, answer"),
        (
            b"problem,problem\na,1\n",
            "table.csv:1: the first line must name every column, each once, not 'problem', 'problem'",
        ),
        (b"problem,\na,1\n", "table.csv:1: the first line must name every column, each once, not 'problem', ''"),
        ("problem,answer\na,1\né,2\n".encode("latin-1"), "table.csv:3: not text in UTF-8"),
        (b'problem,answer\na,1\n"b,2\nc,3\n', "table.csv:3: not a row of CSV: unexpected end of data"),
        (b'problem,answer\na,1\n"b"c,2\n', "table.csv:3: not a row of CSV: ',' expected after '\"'"),
        (b"problem,answer\n" + b"a" * 200_000 + b",1\n", "table.csv:2: not a row of CSV: field larger than field limit"),
        (b"prob,answer\na,1\n", "table.csv:2: no problem or question among its fields prob, answer"),
        (b"problem;answer\na;1\n", "table.csv:2: no problem or question among its fields problem;answer"),
    ],
)
def test_a_table_that_is_broken_is_named(data, message, tmp_path):
    (tmp_path / "table.csv").write_bytes(data)
    with pytest.raises(DataError) as raised:
        load_prompts(DataSource("table.csv"), tmp_path)
    assert message in str(raised.value) and "\n" not in str(raised.value)


# ---------------------------------------------------------------------------------------------- TFDS
def test_a_tfds_name_is_read_by_tfds():
    """The files are TFDS's own work; texts, numbers, lists and dialogues come as JSON has them."""
    rows = rows_of("tfds:small_sums/apples:1.0.0", split="train", data_dir=str(TFDS))
    assert len(rows) == 6 and json.loads(json.dumps(rows)) == rows
    (row,) = (row for row in rows if row["answer"] == "29")
    assert row | {"share": 0} == {
        "question": "Léa has 21 apples and gets 8. How many?",
        "answer": "29",
        "completion": " 21 and 8 make 29.",
        "level": 5,
        "share": 0,
        "easy": False,
        "terms": [21, 8],
        "messages": [{"role": "user", "content": "21+8?"}, {"role": "assistant", "content": "29"}],
    }
    assert row["share"] == pytest.approx(21 / 29)
    assert {type(value) for value in row.values()} == {str, int, float, bool, list}


def test_tfds_gives_prompts_examples_and_benchmarks():
    prompts = load_prompts(sums("test"))
    assert sorted(p.answer for p in prompts) == ["16", "2", "55"] and prompts[0].problem.startswith("Léa has 50 apples")
    tokenizer = Tokenizer.load(TOKENIZER)
    examples, _ = load_examples(sums(template="none", limit=4), tokenizer, 200)
    assert tokenizer.decode(examples[0].tokens, skip_special=True).endswith("How many? 21 and 8 make 29.")
    benchmark = BenchmarkSource("tfds:small_sums", split="train[:50%]+test", data_dir="tfds")
    assert len(load_prompts(benchmark, TFDS.parent)) == 3 + 3
    names = [file.name for file in data_files(sums("test"))]
    assert names == ["small_sums-test.array_record-00000-of-00001", "dataset_info.json", "features.json"]


def test_the_usual_variable_says_where(monkeypatch):
    monkeypatch.setenv("TFDS_DATA_DIR", str(TFDS))
    assert len(rows_of("tfds:small_sums", split="test")) == 3


@pytest.mark.parametrize(
    "path, split, message",
    [
        ("small_sums", "", "which split? It has train (6), test (3); write split: NAME"),
        ("small_sums", "trian", "no split 'trian' among train (6), test (3); did you mean 'train'?"),
        ("small_sums", "train[:x", "no split 'train[:x' among train (6)"),
        ("small_sums/pears", "train", "holds no such data set; set data_dir or TFDS_DATA_DIR"),
        ("small_sums:2.0.0", "train", "holds no such data set"),
        ("gsm8k", "train", "tfds build gsm8k --file_format=array_record"),
        ("", "train", "can't be read from"),
    ],
)
def test_a_tfds_name_that_leads_nowhere(path, split, message):
    with pytest.raises(DataError) as raised:
        list(read_rows(DataSource(f"tfds:{path}", split=split, data_dir=str(TFDS))))
    assert message in str(raised.value) and "\n" not in str(raised.value)


def test_broken_or_foreign_tfds_files_are_named(tmp_path):
    shutil.copytree(TFDS / "small_sums", tmp_path / "small_sums")
    folder = tmp_path / "small_sums/apples/1.0.0"
    source = DataSource("tfds:small_sums", split="train", data_dir=str(tmp_path))
    records = folder / "small_sums-train.array_record-00000-of-00001"
    whole = records.read_bytes()
    for broken in (whole[:-40], whole[:70] + bytes([whole[70] ^ 0xFF]) + whole[71:]):
        records.write_bytes(broken)
        with pytest.raises(DataError, match=r"tfds:small_sums\[train\]: its files in .* are not whole: Corrupted"):
            list(read_rows(source))
    records.unlink()
    with pytest.raises(DataError, match="are not whole: .*No such file"):
        list(read_rows(source))
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace('"array_record"', '"tfrecord"'))
    with pytest.raises(DataError, match="prepared as tfrecord .* can't be read without TensorFlow; prepare it again"):
        list(read_rows(source))


def test_a_split_is_of_tfds_alone(tmp_path):
    write(tmp_path / "rows.jsonl")
    with pytest.raises(DataError, match="split is of TFDS data sets, and 'rows.jsonl' is none"):
        rows_of("rows.jsonl", tmp_path, split="train")
    with pytest.raises(DataError, match="data_dir is of TFDS"):
        rows_of("rows.jsonl", tmp_path, data_dir="x")


def test_reading_loads_neither_tensorflow_nor_jax(tmp_path):
    """Even where TensorFlow is installed: here a package of that name ends the process that imports it."""
    (tmp_path / "tensorflow").mkdir()
    (tmp_path / "tensorflow/__init__.py").write_text("raise SystemExit('tensorflow was imported')")
    write(tmp_path / "rows.array_record")
    code = (
        "import sys\nfrom r1jax.config import DataSource\nfrom r1jax.data import load_prompts\n"
        f"a = load_prompts(DataSource('tfds:small_sums', split='train', data_dir={str(TFDS)!r}))\n"
        f"b = load_prompts(DataSource({str(tmp_path / 'rows.array_record')!r}))\n"
        "print(len(a), len(b), [m for m in ('jax', 'tensorflow', 'torch', 'grain') if m in sys.modules])"
    )
    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | {"PYTHONPATH": path}
    )
    assert done.stdout.strip() == "6 7 []", done.stdout + done.stderr


# ---------------------------------------------------------------------------------------------- one order
def sliced(source, answer, seed, host, hosts, rows):
    """Grain's own pipeline for one host of several: shuffled as a whole, then cut."""
    order = grain.MapDataset.source(source).seed(seed).shuffle().repeat()[host::hosts].map(answer)
    return order.batch(rows // hosts).to_iter_dataset(grain.ReadOptions(num_threads=0, prefetch_buffer_size=0))


@pytest.mark.parametrize("where", ["array_record", "tfds"])
def test_the_order_is_grain_s_on_any_number_of_hosts(where, tmp_path):
    """What a stage takes is what grain gives of the same files, read at random, on 1, 2 and 4 hosts: each global batch is the
    same, and a state that one number of hosts saved resumes on another."""
    if where == "array_record":
        source = grain.sources.ArrayRecordDataSource(str(write(tmp_path / "rows.array_record")))
        answer = lambda record: json.loads(record)["answer"]  # noqa: E731
        rows = load_prompts(DataSource(str(tmp_path / "rows.array_record")))
    else:
        import tensorflow_datasets

        builder = tensorflow_datasets.builder_from_directory(TFDS / "small_sums/apples/1.0.0")
        source, answer = builder.as_data_source("train"), lambda record: record["answer"].decode()  # noqa: E731
        rows = load_prompts(sums())
    size, steps = 4, 9  # several epochs, and batches across their borders
    order = PromptOrder(len(rows), seed=5)
    expected = [[rows[i].answer for i in order.take(size)] for _ in range(steps)]
    assert order.epoch >= 5

    def batches(hosts, state=None, count=steps):
        """(global batches, the hosts' states): row ``i`` is host ``i % hosts``'s."""
        iterators = [iter(sliced(source, answer, 5, host, hosts, size)) for host in range(hosts)]
        for iterator in iterators if state else ():
            iterator.set_state(state)
        taken = []
        for _ in range(count):
            shares = [next(iterator) for iterator in iterators]
            taken.append([str(shares[i % hosts][i // hosts]) for i in range(size)])
        states = [iterator.get_state() for iterator in iterators]
        assert all(state == states[0] for state in states)
        return taken, states[0]

    for hosts in (1, 2, 4):
        assert batches(hosts)[0] == expected, hosts
    for saved, resumed in ((1, 4), (4, 1), (2, 4), (4, 2)):
        first, state = batches(saved, count=4)
        rest, _ = batches(resumed, json.loads(json.dumps(state)), steps - 4)
        assert first + rest == expected, (saved, resumed)


@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_a_stage_s_own_state_resumes_on_any_number_of_hosts(hosts):
    """A checkpoint's number says where every host goes on, whatever number of them wrote it."""
    whole = PromptOrder(13, seed=3).take(40)
    writer = PromptOrder(13, seed=3)
    writer.take(16)
    state = json.loads(json.dumps(writer.state()))
    shares = []
    for host in range(hosts):
        order = PromptOrder(13, seed=3)
        order.restore(state)
        shares.append(order.take(24)[host::hosts])
    assert [shares[i % hosts][i // hosts] for i in range(24)] == whole[16:]


@pytest.mark.slow
def test_another_process_takes_the_same_order():
    code = "from r1jax.data import PromptOrder; print(PromptOrder(50, seed=2**40 + 7).take(120))"
    said = {
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, env=os.environ | {"PYTHONHASHSEED": seed}
        ).stdout
        for seed in ("1", "2")
    }
    assert said == {f"{PromptOrder(50, seed=2**40 + 7).take(120)}\n"}

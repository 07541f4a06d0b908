"""The safetensors format, held against the safetensors library."""

import json

import ml_dtypes
import numpy as np
import pytest
from etils import epath
from safetensors.numpy import load_file, save_file

from r1jax.checkpoint import CheckpointError
from r1jax.checkpoint.huggingface.tensor_files import INDEX, SINGLE, TensorFiles, write_tensors


@pytest.fixture
def tensors():
    rng = np.random.default_rng(0)
    return {
        "a": rng.normal(size=(4, 6)).astype(np.float32),
        "b": rng.normal(size=(5,)).astype(ml_dtypes.bfloat16),
        "c": rng.normal(size=(2, 3, 4)).astype(np.float16),
        "d": np.full((), 3.5, np.float32),
        "e": np.arange(3),
    }


def equal(x, y):
    return x.dtype == y.dtype and x.shape == y.shape and x.tobytes() == y.tobytes()


def test_reads_what_the_library_writes(tmp_path, tensors):
    save_file(tensors, tmp_path / SINGLE)
    files = TensorFiles(tmp_path)
    assert set(files) == set(tensors)
    assert all(equal(np.ascontiguousarray(files.read(name)), value) or not value.shape for name, value in tensors.items())
    assert files.read("d") == 3.5
    assert equal(files.read("a", (slice(1, 3), slice(2, 5))).copy(), tensors["a"][1:3, 2:5].copy())
    assert equal(files.read("c", (slice(1, 2), slice(0, 3), slice(3, 4))).copy(), tensors["c"][1:2, :, 3:4].copy())


def test_the_library_reads_what_is_written(tmp_path, tensors):
    path = epath.Path(tmp_path) / SINGLE
    write_tensors(path, {name: (value.dtype, value.shape) for name, value in tensors.items()}, iter(tensors.values()))
    read = load_file(tmp_path / SINGLE)
    assert list(read) == list(tensors) or set(read) == set(tensors)
    assert all(equal(read[name], value) for name, value in tensors.items())


def write_shards(path, tensors):
    save_file({"a": tensors["a"]}, path / "one.safetensors")
    save_file({"b": tensors["b"], "c": tensors["c"]}, path / "two.safetensors")
    index = {"weight_map": {"a": "one.safetensors", "b": "two.safetensors", "c": "two.safetensors"}}
    (path / INDEX).write_text(json.dumps(index))


def test_shards(tmp_path, tensors):
    write_shards(tmp_path, tensors)
    files = TensorFiles(tmp_path)
    assert set(files) == {"a", "b", "c"} and equal(files.read("c").copy(), tensors["c"])


def damage(path, how):
    data = (path / SINGLE).read_bytes()
    header = int.from_bytes(data[:8], "little")
    entry = json.loads(data[8 : 8 + header])
    twice = json.dumps(entry)[:-1] + f', "a": {json.dumps(entry["a"])}}}'
    at = entry["a"]["data_offsets"][0]
    shared = json.dumps({**entry, "b": {**entry["b"], "data_offsets": [at + 2, at + 12]}})
    entry["a"]["shape"] = [4, 7]
    text, twice, shared = (x.encode() for x in (json.dumps(entry), twice, shared))
    (path / SINGLE).write_bytes(
        {
            "empty": b"",
            "header cut": data[: header // 2],
            "data cut": data[:-3],
            "header overwritten": data[:8] + b"\xff" * header + data[8 + header :],
            "length": (1 << 60).to_bytes(8, "little") + data[8:],
            **{
                name: len(new).to_bytes(8, "little") + new + data[8 + header :]
                for name, new in (("shape", text), ("twice", twice), ("shared", shared))
            },
        }[how]
    )


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("empty", "truncated"),
        ("header cut", "truncated"),
        ("data cut", "is truncated: tensor"),
        ("header overwritten", "header is damaged"),
        ("length", "truncated"),
        ("shape", "tensor a has 96 bytes"),
        ("twice", "header is damaged .a is given twice"),
        ("shared", "tensors . and . share bytes"),
    ],
)
def test_damaged_files(tmp_path, tensors, how, words):
    save_file(tensors, tmp_path / SINGLE)
    damage(tmp_path, how)
    with pytest.raises(CheckpointError, match=words) as caught:
        TensorFiles(tmp_path)
    assert SINGLE in str(caught.value) and "\n" not in str(caught.value)


def test_damaged_shards(tmp_path, tensors):
    write_shards(tmp_path, tensors)
    (tmp_path / "two.safetensors").unlink()
    with pytest.raises(CheckpointError, match="two.safetensors is missing"):
        TensorFiles(tmp_path)
    save_file({"b": tensors["b"]}, tmp_path / "two.safetensors")
    with pytest.raises(CheckpointError, match="two.safetensors lacks tensor c"):
        TensorFiles(tmp_path)
    save_file({"a": tensors["a"], "b": tensors["b"], "c": tensors["c"]}, tmp_path / "two.safetensors")
    with pytest.raises(CheckpointError, match="tensor a is in one.safetensors and in two.safetensors"):
        TensorFiles(tmp_path)
    (tmp_path / INDEX).write_text("{")
    with pytest.raises(CheckpointError, match="index.json is not sound JSON"):
        TensorFiles(tmp_path)
    (tmp_path / INDEX).write_text('{"weight_map": {"a": "one.safetensors", "a": "two.safetensors"}}')
    with pytest.raises(CheckpointError, match="index.json is not sound JSON: a is given twice"):
        TensorFiles(tmp_path)


def test_no_files(tmp_path):
    with pytest.raises(CheckpointError, match="neither model.safetensors nor"):
        TensorFiles(tmp_path)
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(CheckpointError, match="convert its .bin files"):
        TensorFiles(tmp_path)

"""The map over the tensors of the published R1 checkpoint, its inverse, and what it says of tables that are wrong."""

import gzip
import itertools
import json
import os
import re
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from r1jax import cli
from r1jax.checkpoint import CheckpointError, config_from_hf, dry_run, export_model
from r1jax.checkpoint.huggingface.configuration import quantisation_from_hf
from r1jax.checkpoint.huggingface.coverage import TensorMap, check, layout
from r1jax.checkpoint.huggingface.dry_run import Kind
from r1jax.checkpoint.huggingface.tensor_files import DTYPES

DATA = Path(__file__).parents[1] / "data" / "deepseek"
SHARED = Path(os.environ.get("R1JAX_DATA", Path(__file__).parents[3] / "shared" / "data")) / "deepseek"
FP8 = np.dtype(ml_dtypes.float8_e4m3fn)


def published_table():
    """``{name: {"shape", "dtype"}}`` of R1."""
    table = {}
    for row in json.loads((DATA / "r1_tensors.json").read_text()):
        for numbers in itertools.product(*(range(first, last + 1) for first, last in row["numbers"])):
            place = iter(numbers)
            name = re.sub("#", lambda _, place=place: str(next(place)), row["name"])
            table[name] = {"shape": row["shape"], "dtype": row["dtype"]}
    return table


@pytest.fixture(scope="module")
def r1():
    """(configuration, blocks, table) of R1."""
    document = json.loads((DATA / "r1_config.json").read_text())
    table = {name: Kind(DTYPES[entry["dtype"]], tuple(entry["shape"])) for name, entry in published_table().items()}
    return config_from_hf(document), quantisation_from_hf(document), table


def test_the_small_table_is_the_published_one():
    file = SHARED / "r1_checkpoint_tensors.json.gz"
    if not file.exists():
        pytest.skip(f"{file} is not there: set R1JAX_DATA to the folder of the real inputs")
    real = json.loads(gzip.decompress(file.read_bytes()))
    assert {name: {"shape": e["shape"], "dtype": e["dtype"]} for name, e in real.items()} == published_table()


def test_every_tensor_of_r1_is_mapped_and_each_slice_is_written_once(r1):
    config, block, table = r1
    assert config.num_nextn_predict_layers == 1 and len(table) == 91_991
    found = check(table, config, block, "R1")
    assert found.tensors == 91_991
    assert found.copies == (
        ("model.layers.61.embed_tokens.weight", "model.embed_tokens.weight"),
        ("model.layers.61.shared_head.head.weight", "lm_head.weight"),
    )
    assert all((counts == 1).all() for counts in found.written.values())
    # A weight with its scales is one write: every name is a slice's, a scale of one, or a copy.
    assert sum(counts.size for counts in found.written.values()) + found.scales + len(found.copies) == 91_991
    assert found.written["expert_layers.moe.gate"].shape == (58, 256) and found.written["mtp.block.moe.down"].shape == (
        1,
        256,
    )
    assert {path for path, counts in found.written.items() if not counts.size} == set()


def test_the_inverse_gives_the_published_names_dtypes_and_shapes(r1):
    config, block, table = r1
    assert {name: Kind(*kind) for name, kind in layout(config, FP8, block).items()} == table
    tensor_map = TensorMap(config)
    for name in itertools.islice(table, 0, None, 997):
        found = tensor_map.locate(name)
        if found is not None:
            binding, place = found
            spots = {axis: (n, n + 1) for axis, n in zip(binding.stacked, place)}
            assert [n for _, n in binding.names({**binding.ranges(), **spots})] == [name]


EXPERT = "model.layers.22.mlp.experts.118.down_proj.weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda t: t.update({EXPERT.replace("down", "dwon"): t.pop(EXPERT)}),
            [EXPERT, "lacks tensor", "dwon_proj.weight instead"],
        ),
        (lambda t: t.pop(EXPERT), [EXPERT, "lacks tensor"]),
        (lambda t: t.update({EXPERT: Kind(FP8, (2048, 7168))}), [EXPERT, "[2048, 7168]", "[7168, 2048]"]),
        (lambda t: t.pop(EXPERT + "_scale_inv"), [EXPERT + "_scale_inv", "lacks tensor"]),
        (lambda t: t.update({EXPERT + "_scale_inv": Kind(np.dtype("f4"), (56, 15))}), [EXPERT + "_scale_inv", "[56, 16]"]),
        (lambda t: t.update({EXPERT: Kind(np.dtype("i1"), (7168, 2048))}), [EXPERT, "int8"]),
        (lambda t: t.update({EXPERT.replace("22", "022"): t[EXPERT]}), ["022.mlp", "expert_layers.moe.down", "another"]),
        (lambda t: t.update({EXPERT.replace("118", "256"): t[EXPERT]}), ["experts.256", "not part"]),
        (lambda t: t.pop("model.layers.61.eh_proj.weight"), ["lacks tensor model.layers.61.eh_proj.weight"]),
    ],
    ids=["renamed", "missing", "misshapen", "no scales", "misshapen scales", "dtype", "twice", "one too many", "prediction"],
)
def test_one_wrong_tensor_is_named(r1, change, words):
    config, block, table = r1
    table = dict(table)
    change(table)
    with pytest.raises(CheckpointError) as caught:
        check(table, config, block, "R1")
    message = str(caught.value)
    assert "\n" not in message and all(word in message for word in words), message


def test_the_command_on_a_table(tmp_path, capfd):
    table = published_table()
    (tmp_path / "config.json").write_text((DATA / "r1_config.json").read_text())
    (tmp_path / "tensors.json.gz").write_bytes(gzip.compress(json.dumps(table).encode(), 1))
    assert cli.main(["convert", str(tmp_path / "tensors.json.gz"), "--dry-run"]) == 0
    out = capfd.readouterr().out
    assert "91,991 tensors: 46,181 weights, 45,808 scales of them, 2 copies" in out
    assert "46,181 slices, each written once" in out and "the same 91,991 names, dtypes and shapes" in out
    table["model.layers.9.mlp.gate.wieght"] = table.pop("model.layers.9.mlp.gate.weight")
    (tmp_path / "tensors.json").write_text(json.dumps(table))
    assert cli.main(["convert", str(tmp_path / "tensors.json"), "--dry-run"]) == 2
    captured = capfd.readouterr()
    assert captured.out == "" and len(captured.err.splitlines()) == 1
    assert "lacks tensor model.layers.9.mlp.gate.weight" in captured.err and "model.layers.9.mlp.gate.wieght" in captured.err


def test_the_command_on_directories_and_on_an_index_alone(tmp_path, model, capfd):
    config, params = model
    export_model(tmp_path / "hf", config, params, max_shard_bytes=4000)
    assert cli.main(["convert", str(tmp_path / "hf"), str(tmp_path / "out"), "--dry-run"]) == 0
    assert "an export would write the same" in capfd.readouterr().out and not (tmp_path / "out").exists()
    (shard,) = tmp_path.glob("hf/*-00002-*.safetensors")
    shard.unlink()
    assert cli.main(["convert", str(tmp_path / "hf"), "--dry-run"]) == 2  # an unfinished download
    assert f"{shard.name} is missing" in capfd.readouterr().err
    for file in tmp_path.glob("hf/*.safetensors"):
        file.unlink()
    found = dry_run(tmp_path / "hf")
    assert not found.described and "names alone" in "\n".join(found.lines())
    index = json.loads((tmp_path / "hf" / "model.safetensors.index.json").read_text())
    index["weight_map"].pop("model.norm.weight")
    (tmp_path / "hf" / "model.safetensors.index.json").write_text(json.dumps(index))
    assert cli.main(["convert", str(tmp_path / "hf"), "--dry-run"]) == 2
    assert "lacks tensor model.norm.weight" in capfd.readouterr().err
    assert cli.main(["convert", str(tmp_path / "hf")]) == 2
    assert "OUT_DIR is missing" in capfd.readouterr().err


def test_a_table_that_is_none(tmp_path):
    (tmp_path / "config.json").write_text((DATA / "r1_config.json").read_text())
    twice = '{"a": {"shape": [1], "dtype": "F32"}, "a": {"shape": [1], "dtype": "F32"}}'
    for text in ("[]", '{"a": 1}', '{"a": {"shape": [1], "dtype": "F13"}}', "{", twice):
        (tmp_path / "t.json").write_text(text)
        with pytest.raises(CheckpointError, match="is no table of tensors"):
            dry_run(tmp_path / "t.json")

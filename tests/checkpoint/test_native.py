"""r1jax checkpoints: a tree per layer, continued after a kill, verified when read."""

import json
import os

import jax
import numpy as np
import pytest

from r1jax.checkpoint import CheckpointError, convert, export_model, load_model, native


def assert_same(x, y):
    assert jax.tree.structure(x) == jax.tree.structure(y)
    jax.tree.map(np.testing.assert_array_equal, x, y)


def test_a_tree_per_layer(tmp_path, directory, model):
    convert(directory, tmp_path / "native")
    assert sorted(os.listdir(tmp_path / "native")) == ["generation_config.json", "params", "r1jax.json"]
    assert sorted(os.listdir(tmp_path / "native" / "params")) == ["layers.00000", "layers.00001", "top"]
    loaded = load_model(tmp_path / "native")
    assert loaded.config == model[0]
    assert_same(loaded.params, model[1])


def test_a_relative_path_will_do(tmp_path, directory, model, monkeypatch):
    monkeypatch.chdir(tmp_path)
    convert(directory, "native")
    assert_same(load_model("native").params, model[1])


class Killed(BaseException):
    pass


def kill_after(monkeypatch, trees):
    """``kill -9`` in the middle of the tree after so many: its files are there, no record of it is."""
    written = []
    save = native.save_arrays

    def dying(path, arrays):
        save(path, arrays)
        written.append(path.name)
        if len(written) > trees:
            raise Killed

    monkeypatch.setattr(native, "save_arrays", dying)
    return written


def test_a_killed_conversion_goes_on(tmp_path, directory, model, monkeypatch):
    written = kill_after(monkeypatch, 1)
    with pytest.raises(Killed):
        convert(directory, tmp_path / "native")
    assert written == ["top", "layers.00000"]
    assert not (tmp_path / "native").exists()
    monkeypatch.undo()
    written = kill_after(monkeypatch, 100)
    convert(directory, tmp_path / "native")
    assert written == ["layers.00000", "layers.00001"]
    assert_same(load_model(tmp_path / "native").params, model[1])
    assert sorted(os.listdir(tmp_path)) == ["models", "native"]
    assert sorted(os.listdir(tmp_path / "native")) == ["generation_config.json", "params", "r1jax.json"]


def test_a_killed_conversion_of_something_else_is_begun_anew(tmp_path, directory, monkeypatch, helpers):
    kill_after(monkeypatch, 1)
    with pytest.raises(Killed):
        convert(directory, tmp_path / "native")
    monkeypatch.undo()
    config = helpers.tiny()
    params = helpers.random_params(config, seed=9)
    export_model(directory, config, params)
    convert(directory, tmp_path / "native")
    assert_same(load_model(tmp_path / "native").params, params)


def test_outputs_are_replaced_and_nothing_else_is(tmp_path, directory):
    convert(directory, tmp_path / "native")
    convert(directory, tmp_path / "native")
    with pytest.raises(CheckpointError, match="is an r1jax checkpoint already"):
        convert(tmp_path / "native", tmp_path / "again")
    with pytest.raises(CheckpointError, match="is not empty"):
        convert(directory, directory)
    (tmp_path / "native" / "notes").write_text("mine")
    with pytest.raises(CheckpointError, match="is not empty"):
        convert(directory, tmp_path / "native")
    assert sorted(os.listdir(tmp_path)) == ["models", "native"]


def test_damage_is_found(tmp_path, directory, model):
    path = tmp_path / "native"
    convert(directory, path)
    manifest = (path / "r1jax.json").read_text()
    for tree in ("top", "layers.00001"):
        document = json.loads(manifest)
        next(iter(document["trees"][tree].values()))["sum"] ^= 1
        (path / "r1jax.json").write_text(json.dumps(document))
        with pytest.raises(CheckpointError, match=f"{tree}: .* is damaged"):
            load_model(path)
    for change, words in (
        (lambda d: d["trees"].pop("layers.00001"), "lacks layers.input_norm.scale|layers.00001 lacks"),
        (lambda d: d.update(format="r1jax checkpoint 99"), "is not of format"),
        (lambda d: d["config"].update(hidden_size=18), "is damaged"),
        (lambda d: d["config"].pop("vocab_size"), "is damaged"),
    ):
        document = json.loads(manifest)
        change(document)
        (path / "r1jax.json").write_text(json.dumps(document))
        with pytest.raises(CheckpointError, match=words):
            load_model(path)
    (path / "r1jax.json").write_text(manifest)
    for file in (path / "params" / "layers.00000").rglob("*"):
        if file.is_file() and file.parent.name == "d":
            file.unlink()
    with pytest.raises(CheckpointError, match="layers.00000 can't be read") as caught:
        load_model(path)
    assert "\n" not in str(caught.value)

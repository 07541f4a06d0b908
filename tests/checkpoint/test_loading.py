"""Hugging Face directories and r1jax checkpoints: written, read back on any mesh, refused when damaged."""

import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import tokenizers
from safetensors.numpy import load_file, save_file

from r1jax.checkpoint import CheckpointError, convert, export_model, load_model, read_config
from r1jax.checkpoint.huggingface.tensor_files import TensorFiles
from r1jax.models import param_shardings
from r1jax.sharding import ROLLOUT_RULES, TRAIN_RULES, layout, make_mesh


def assert_same(x, y):
    assert jax.tree.structure(x) == jax.tree.structure(y)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b), strict=True), x, y)


def rewrite(directory, change):
    """Changes the tensors of an unsharded directory."""
    tensors = load_file(directory / "model.safetensors")
    change(tensors)
    save_file(tensors, directory / "model.safetensors")


def edit_config(directory, **changes):
    config = json.loads((directory / "config.json").read_text())
    (directory / "config.json").write_text(json.dumps({**config, **changes}))


def test_export_and_load_are_bit_equal(directory, model):
    config, params = model
    loaded = load_model(directory)
    assert loaded.config == config == read_config(directory)
    assert loaded.tokenizer is None
    assert_same(loaded.params, params)


def test_sharded_export(tmp_path, directory, model):
    config, params = model
    export_model(tmp_path / "sharded", config, params, max_shard_bytes=4000)
    index = json.loads((tmp_path / "sharded" / "model.safetensors.index.json").read_text())
    files = sorted(tmp_path.glob("sharded/*.safetensors"))
    assert len(files) > 2 and set(index["weight_map"].values()) == {file.name for file in files}
    whole = load_file(directory / "model.safetensors")
    assert index["metadata"]["total_size"] == sum(tensor.nbytes for tensor in whole.values())
    for file in files:
        part = load_file(file)
        assert sum(tensor.nbytes for tensor in part.values()) <= 4000 or len(part) == 1
        for name, tensor in part.items():
            np.testing.assert_array_equal(tensor, whole.pop(name))
    assert not whole
    assert_same(load_model(tmp_path / "sharded").params, params)


OTHER_MESHES = [((1, 4, 2), ROLLOUT_RULES), ((2, 2, 2), TRAIN_RULES), ((2, 2, 2), ROLLOUT_RULES), ((8, 1, 1), TRAIN_RULES)]


@pytest.mark.parametrize(
    ("shape", "rules"), [((1, 4, 2), TRAIN_RULES), *(pytest.param(*mesh, marks=pytest.mark.slow) for mesh in OTHER_MESHES)]
)
def test_meshes(tmp_path, directory, model, shape, rules):
    config, params = model
    mesh = make_mesh(*shape)
    convert(directory, tmp_path / "native")
    for path in (directory, tmp_path / "native"):
        loaded = load_model(path, mesh, rules=rules)
        assert_same(loaded.params, params)
        assert jax.tree.map(lambda x: x.sharding, loaded.params) == param_shardings(config, layout(mesh, rules))
    export_model(tmp_path / "again", config, loaded.params)
    assert (tmp_path / "again" / "model.safetensors").read_bytes() == (directory / "model.safetensors").read_bytes()


def test_each_part_is_read_once_and_alone(directory, model, monkeypatch):
    _, params = model
    reads = []
    read = TensorFiles.read

    def recorded(self, name, index=None):
        reads.append((name, read(self, name, index).size))
        return read(self, name, index)

    monkeypatch.setattr(TensorFiles, "read", recorded)
    load_model(directory, make_mesh(1, 4, 2))
    whole = {name: tensor.size for name, tensor in load_file(directory / "model.safetensors").items()}
    assert sum(size for _, size in reads) == sum(whole.values())
    kernels = ("mlp.gate_proj.weight", "self_attn.q_proj.weight", "self_attn.o_proj.weight", "embed_tokens.weight")
    sharded = [(name, size) for name, size in reads if name.endswith(kernels)]
    assert sharded and all(size == whole[name] // 8 for name, size in sharded)


@pytest.mark.parametrize("stored", ["float32", "bfloat16", "float16"])
def test_dtypes(tmp_path, model, stored):
    config, params = model
    export_model(tmp_path / "hf", config, params, dtype=stored)
    convert(tmp_path / "hf", tmp_path / "native")
    expected = jax.tree.map(lambda x: x.astype(jnp.dtype(stored)), params)
    assert read_config(tmp_path / "hf").dtype == read_config(tmp_path / "native").dtype == stored
    assert_same(load_model(tmp_path / "hf").params, expected)
    for path in (tmp_path / "hf", tmp_path / "native"):
        assert_same(load_model(path, dtype=jnp.float32).params, jax.tree.map(lambda x: x.astype(jnp.float32), expected))


def test_mixed_dtypes_are_held_exactly(directory, model):
    def change(tensors):
        tensors["model.layers.1.input_layernorm.weight"] = tensors["model.layers.1.input_layernorm.weight"].astype(
            np.float16
        )

    rewrite(directory, change)
    _, params = model
    scale = params["layers"]["input_norm"]["scale"]
    loaded = load_model(directory).params["layers"]["input_norm"]["scale"]
    assert loaded.dtype == jnp.float32
    np.testing.assert_array_equal(loaded, np.stack([scale[0], scale[1].astype(np.float16)]))


def poison(name, value):
    def change(tensors):
        tensors[name].reshape(-1)[1] = value

    return change


Q = "model.layers.1.self_attn.q_proj.weight"

DAMAGE = {
    "missing": (lambda t: t.pop(Q), [Q, "lacks tensor"]),
    "missing head": (lambda t: t.pop("lm_head.weight"), ["lacks tensor lm_head.weight"]),
    "misshapen": (lambda t: t.update({Q: t[Q][:-1].copy()}), [Q, "[23, 16]", "[24, 16]"]),
    "transposed": (lambda t: t.update({Q: t[Q].T.copy()}), [Q, "[16, 24]"]),
    "integers": (lambda t: t.update({Q: t[Q].astype(np.int32)}), [Q, "int32"]),
    "nan": (poison(Q, np.nan), [Q, "NaN"]),
    "infinity": (poison("model.norm.weight", -np.inf), ["model.norm.weight", "infinity"]),
    "unknown": (
        lambda t: t.update({"model.layers.0.self_attn.sinks": np.ones(4)}),
        ["model.layers.0.self_attn.sinks", "not part"],
    ),
    "a layer too many": (lambda t: t.update({Q.replace("1", "2"): t[Q]}), ["model.layers.2.self_attn.q_proj.weight"]),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_tensors(tmp_path, directory, kind):
    change, words = DAMAGE[kind]
    rewrite(directory, change)
    before = sorted(os.listdir(directory.parent))
    for attempt in (load_model, lambda path: convert(path, directory.parent / "native")):
        with pytest.raises(CheckpointError) as caught:
            attempt(directory)
        message = str(caught.value)
        assert "\n" not in message and str(directory) in message
        assert all(word in message for word in words), message
        assert sorted(os.listdir(directory.parent)) == before


def test_a_number_too_large_for_the_dtype_asked_for(directory):
    rewrite(directory, poison(Q, 1e6))
    load_model(directory)
    with pytest.raises(CheckpointError, match="too large for float16"):
        load_model(directory, dtype=jnp.float16)


def test_harmless_extra_tensors(tmp_path, directory, model, helpers):
    rewrite(directory, lambda t: t.update({"model.layers.0.self_attn.rotary_emb.inv_freq": np.ones(3, np.float32)}))
    assert_same(load_model(directory).params, model[1])
    config = helpers.tiny(tie_word_embeddings=True)
    params = helpers.random_params(config)
    export_model(tmp_path / "tied", config, params)
    rewrite(tmp_path / "tied", lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"]}))
    assert_same(load_model(tmp_path / "tied").params, params)
    rewrite(tmp_path / "tied", lambda t: t.update({"lm_head.weight": t["lm_head.weight"] + 1}))
    with pytest.raises(CheckpointError, match="lm_head.weight differs from model.embed_tokens.weight"):
        load_model(tmp_path / "tied")


def test_damaged_directories(tmp_path, directory):
    with pytest.raises(CheckpointError, match="nowhere is not a directory"):
        load_model(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match="neither config.json nor r1jax.json"):
        load_model(tmp_path)
    edit_config(directory, hidden_act="gelu")
    with pytest.raises(CheckpointError, match=f"{directory}: config.json: hidden_act 'gelu'"):
        load_model(directory)
    (directory / "config.json").write_text('{"a":')
    with pytest.raises(CheckpointError, match="config.json is not sound JSON"):
        load_model(directory)
    (directory / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="config.json is not a JSON object"):
        load_model(directory)


def test_a_mesh_that_does_not_divide_the_model(tmp_path, directory):
    convert(directory, tmp_path / "native")
    for path in (directory, tmp_path / "native"):
        with pytest.raises(ValueError, match=r"layers.attention.k.bias \[2, 2, 6\].*'tensor': 4.*change the mesh"):
            load_model(path, make_mesh(1, 2, 4))


def test_the_defaults_of_generation_go_along(tmp_path, directory):
    (directory / "generation_config.json").write_text('{"temperature": 0.6, "eos_token_id": [2, 7]}')
    convert(directory, tmp_path / "native")
    convert(directory, tmp_path / "native")  # it is known as an earlier output
    model = load_model(tmp_path / "native")
    for _ in range(2):
        export_model(tmp_path / "out", model.config, model.params, tmp_path / "native")
    written = json.loads((tmp_path / "out" / "generation_config.json").read_text())
    assert written["temperature"] == 0.6 and set(written["eos_token_id"]) == set(model.config.eos_token_ids) >= {2, 7}


def test_exports_replace_exports_and_nothing_else(tmp_path, model, monkeypatch):
    config, params = model
    out = tmp_path / "out"
    out.mkdir()
    export_model(out, config, params, max_shard_bytes=4000)
    export_model(out, config, params)  # an empty directory, then an earlier export, whose shards are gone
    assert sorted(os.listdir(out)) == ["config.json", "generation_config.json", "model.safetensors"]
    assert os.listdir(tmp_path) == ["out"]
    monkeypatch.chdir(out)
    export_model(".", config, params)
    monkeypatch.chdir(tmp_path)
    export_model("new/deeper", config, params)
    assert sorted(os.listdir(tmp_path)) == ["new", "out"] and os.listdir(tmp_path / "new") == ["deeper"]
    (out / "notes.txt").write_text("mine")
    with pytest.raises(CheckpointError, match="out is not empty"):
        export_model(out, config, params)
    assert (out / "notes.txt").exists()
    foreign = tmp_path / "foreign"
    foreign.mkdir()
    (foreign / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match="foreign is not empty"):
        export_model(foreign, config, params)
    with pytest.raises(CheckpointError, match="is a file"):
        export_model(out / "notes.txt", config, params)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda p: p["final_norm"]["scale"].__setitem__(3, np.nan), "parameter final_norm.scale holds NaN"),
        (lambda p: p["final_norm"].update(scale=p["final_norm"]["scale"] * 1e6), "final_norm.scale holds numbers too large"),
        (lambda p: p.pop("head"), r"head.kernel is missing; the configuration asks for \[16, 64\]"),
        (lambda p: p.update(extra={"x": jnp.ones(2)}), r"extra.x is \[2\]; the configuration asks for none"),
        (lambda p: p["embed"].update(embedding=p["embed"]["embedding"][:-1]), r"embed.embedding is \[63, 16\]"),
    ],
)
def test_refused_exports_leave_nothing(tmp_path, model, change, words):
    config, params = model
    change(params)
    with pytest.raises(CheckpointError, match=words):
        export_model(tmp_path / "out", config, params, dtype=jnp.float16)
    assert os.listdir(tmp_path) == []


def test_tokenizer_files_travel(tmp_path, directory, model):
    files = {"tokenizer.json": "{}", "tokenizer_config.json": '{"a": 1}', "chat_template.jinja": "x"}
    for name, text in files.items():
        (directory / name).write_text(text)
    convert(directory, tmp_path / "native")
    export_model(tmp_path / "out", *model, tokenizer_dir=tmp_path / "native")
    for name, text in files.items():
        assert (tmp_path / "out" / name).read_text() == text


def test_every_kind_of_parameter_has_its_line(tmp_path, helpers):
    """Both architectures, with and without biases, tied and not."""
    for changes in (
        {"architecture": "qwen2", "o_bias": False, "mlp_bias": False},
        {"qkv_bias": False, "o_bias": False, "mlp_bias": False},
    ):
        for tied in (False, True):
            config = helpers.tiny(**changes, tie_word_embeddings=tied)
            params = helpers.random_params(config)
            export_model(tmp_path / "out", config, params)
            loaded = load_model(tmp_path / "out")
            assert loaded.config == config
            assert_same(loaded.params, params)


def test_a_tokenizer_comes_with_the_model(tmp_path, directory, model):
    vocabulary = {f"t{i}": i for i in range(64)}
    tokenizer = tokenizers.Tokenizer(tokenizers.models.WordLevel(vocabulary, unk_token="t0"))
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer.save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text(
        json.dumps({"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "t3"})
    )
    convert(directory, tmp_path / "native")
    export_model(tmp_path / "out", *model, tokenizer_dir=tmp_path / "native")
    for path in (directory, tmp_path / "out"):
        assert list(load_model(path).tokenizer.encode("t5 t7")) == [5, 7]

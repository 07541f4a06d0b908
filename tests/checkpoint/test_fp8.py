"""FP8 in blocks: the rule, ragged edges, rounds that are exact; whole checkpoints with multi-token prediction in every dtype."""

import dataclasses
import json

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from r1jax.checkpoint import CheckpointError, convert, export_model, load_model
from r1jax.checkpoint.huggingface.coverage import layout
from r1jax.checkpoint.huggingface.fp8 import FP8, Block, dequantise, quantise
from r1jax.checkpoint.huggingface.tensor_files import TensorFiles
from r1jax.models import Experts, LatentAttention, ModelConfig, YarnScaling, abstract_params, param_shardings
from r1jax.sharding import ROLLOUT_RULES, TRAIN_RULES, make_mesh
from r1jax.sharding import layout as place

BLOCK = Block(8, 8)
V3 = ModelConfig(
    architecture="deepseek_v3",
    vocab_size=64,
    hidden_size=16,
    intermediate_size=24,
    num_hidden_layers=3,
    num_attention_heads=4,
    num_key_value_heads=4,
    head_dim=10,
    rope_scaling=YarnScaling(4.0, 32, mscale=0.8, mscale_all_dim=0.8),
    latent=LatentAttention(kv_lora_rank=8, qk_nope_head_dim=6, qk_rope_head_dim=4, v_head_dim=6, q_lora_rank=8),
    experts=Experts(8, 2, 12, 1, 1, n_group=4, topk_group=2, routed_scaling_factor=2.5),
    num_nextn_predict_layers=1,
    bos_token_id=0,
    eos_token_ids=(1,),
    dtype="float32",
)


def whole(shape):
    return tuple(slice(0, size) for size in shape)


def by_hand(codes, scales, block):
    out = np.zeros(codes.shape, np.float32)
    for i in range(codes.shape[0]):
        for j in range(codes.shape[1]):
            out[i, j] = np.float32(codes[i, j]) * np.float32(scales[i // block.rows, j // block.columns])
    return out


@pytest.mark.parametrize("shape", [(576 // 8, 33), (1, 1), (16, 24), (7, 9)])
@pytest.mark.parametrize("scale_dtype", [np.float32, ml_dtypes.bfloat16, ml_dtypes.float8_e8m0fnu], ids=str)
def test_dequantising_is_the_rule_on_every_part(shape, scale_dtype):
    rng = np.random.default_rng(0)
    codes = (rng.normal(size=shape) * 100).astype(FP8)
    grid = BLOCK.grid(shape)
    assert grid == (-(-shape[0] // 8), -(-shape[1] // 8))
    scales = np.exp2(rng.integers(-9, 3, grid)).astype(scale_dtype)
    expected = by_hand(codes, scales, BLOCK)
    np.testing.assert_array_equal(dequantise(codes, scales, BLOCK, whole(shape)), expected, strict=True)
    for _ in range(20):
        index = tuple(slice(*sorted(rng.choice(size + 1, 2, replace=False))) for size in shape)
        part = dequantise(codes[index], scales[BLOCK.scales_of(index)], BLOCK, index)
        np.testing.assert_array_equal(part, expected[index], strict=True)


def test_quantising_scales_the_largest_to_448():
    rng = np.random.default_rng(0)
    matrix = rng.normal(size=(20, 30)).astype(np.float32) * np.exp2(rng.integers(-30, 30, (20, 30))).astype(np.float32)
    codes, scales = quantise(matrix, BLOCK)
    assert codes.shape == matrix.shape and codes.dtype == FP8 and scales.shape == (3, 4) and scales.dtype == np.float32
    for i in range(3):
        for j in range(4):
            part = (slice(8 * i, 8 * i + 8), slice(8 * j, 8 * j + 8))
            largest = np.abs(matrix[part]).max()
            assert scales[i, j] == largest / np.float32(448) and np.abs(codes[part].astype(np.float32)).max() == 448
            # e4m3 keeps three bits below the leading one, and subnormals are steps of 2**-9
            error = np.abs(dequantise(codes, scales, BLOCK, whole(codes.shape))[part] - matrix[part])
            assert (error <= np.maximum(np.abs(matrix[part]) / 16, scales[i, j] * 2**-10) * 1.0001).all()


def test_a_second_round_is_exact():
    rng = np.random.default_rng(1)
    matrix = (rng.normal(size=(800, 1000)) * rng.uniform(1, 2, (800, 1000))).astype(np.float32)
    codes, scales = quantise(matrix, BLOCK)
    once = dequantise(codes, scales, BLOCK, whole(matrix.shape))
    again = quantise(once, BLOCK)
    np.testing.assert_array_equal(again[0].view(np.uint8), codes.view(np.uint8))
    np.testing.assert_array_equal(again[1], scales)
    np.testing.assert_array_equal(dequantise(*again, BLOCK, whole(matrix.shape)), once)


@pytest.mark.parametrize("value", [0.0, -0.0, 1e-42, 3e38])
def test_blocks_of_zeros_and_of_extremes(value):
    matrix = np.full((9, 9), value, np.float32)
    matrix[0, 0] = 0
    codes, scales = quantise(matrix, BLOCK)
    found = dequantise(codes, scales, BLOCK, whole(matrix.shape))
    assert np.isfinite(scales).all() and (scales > 0).all()
    np.testing.assert_allclose(found, matrix, rtol=1e-6, atol=1e-38 / 448)


@pytest.fixture(scope="module")
def params():
    rng = np.random.default_rng(0)
    return jax.tree.map(lambda x: rng.normal(0.3, 0.1, x.shape).astype(np.float32), abstract_params(V3))


def assert_same(x, y):
    assert jax.tree.structure(x) == jax.tree.structure(y)
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(np.asarray(a), np.asarray(b), strict=True), x, y)


def test_prediction_is_written_with_its_copies_and_read_again(tmp_path, params):
    export_model(tmp_path / "hf", V3, params, max_shard_bytes=20_000)
    files = TensorFiles(tmp_path / "hf")
    assert {name: (tensor.dtype, tensor.shape) for name, tensor in files.items()} == layout(V3, np.dtype(np.float32))
    for copy, original in (("embed_tokens", "model.embed_tokens"), ("shared_head.head", "lm_head")):
        both = [files.read(name) for name in (f"model.layers.3.{copy}.weight", f"{original}.weight")]
        np.testing.assert_array_equal(*both)
    np.testing.assert_array_equal(files.read("model.layers.3.eh_proj.weight"), params["mtp"]["projection"]["kernel"][0].T)
    loaded = load_model(tmp_path / "hf")
    assert loaded.config == V3
    assert_same(loaded.params, params)


def test_prediction_need_not_be_loaded(tmp_path, params):
    export_model(tmp_path / "hf", V3, params)
    convert(tmp_path / "hf", tmp_path / "native")
    rest = {name: part for name, part in params.items() if name != "mtp"}
    for path in (tmp_path / "hf", tmp_path / "native"):
        loaded = load_model(path, prediction=False)
        assert loaded.config == dataclasses.replace(V3, num_nextn_predict_layers=0)
        assert_same(loaded.params, rest)


def test_a_copy_that_differs_is_refused(tmp_path, params):
    export_model(tmp_path / "hf", V3, params)
    tensors = load_file(tmp_path / "hf" / "model.safetensors")
    for name in ("embed_tokens", "shared_head.head"):
        changed = {**tensors, f"model.layers.3.{name}.weight": tensors[f"model.layers.3.{name}.weight"].copy()}
        changed[f"model.layers.3.{name}.weight"][5, 3] += 1
        save_file(changed, tmp_path / "hf" / "model.safetensors")
        for attempt in (load_model, lambda path: convert(path, tmp_path / "native")):
            with pytest.raises(CheckpointError, match=f"model.layers.3.{name}.weight differs from .*one of its own"):
                attempt(tmp_path / "hf")
    without = {name: value for name, value in tensors.items() if "embed_tokens" not in name or "layers" not in name}
    save_file(without, tmp_path / "hf" / "model.safetensors")
    assert_same(load_model(tmp_path / "hf").params, params)  # a file that leaves a copy out


@pytest.mark.parametrize(
    "dtype",
    [pytest.param("bfloat16", marks=pytest.mark.slow), pytest.param("float16", marks=pytest.mark.slow), "float8_e4m3fn"],
)
def test_whole_checkpoints_in_every_dtype(tmp_path, params, dtype):
    export_model(tmp_path / "hf", V3, params, dtype=dtype, block=BLOCK)
    files = TensorFiles(tmp_path / "hf")
    assert {name: (tensor.dtype, tensor.shape) for name, tensor in files.items()} == layout(V3, np.dtype(dtype), BLOCK)
    assert files["model.layers.1.mlp.gate.e_score_correction_bias"].dtype == np.float32
    document = json.loads((tmp_path / "hf" / "config.json").read_text())
    assert document["torch_dtype"] == ("float32" if "float8" in dtype else dtype)
    assert document.get("quantization_config", {}).get("weight_block_size") == ([8, 8] if "float8" in dtype else None)
    loaded = load_model(tmp_path / "hf")
    bias = ("expert_layers", "moe", "router", "bias")
    np.testing.assert_array_equal(
        loaded.params[bias[0]][bias[1]][bias[2]][bias[3]], params[bias[0]][bias[1]][bias[2]][bias[3]]
    )
    jax.tree.map(lambda x, y: np.testing.assert_allclose(np.asarray(x, np.float32), y, rtol=1 / 15), loaded.params, params)

    export_model(tmp_path / "again", loaded.config, loaded.params, dtype=dtype, block=BLOCK)
    for file in ("model.safetensors", "config.json"):
        if "float8" in dtype or file != "config.json":
            assert (tmp_path / "again" / file).read_bytes() == (tmp_path / "hf" / file).read_bytes()
    convert(tmp_path / "hf", tmp_path / "native")
    native = load_model(tmp_path / "native")
    assert native.config == loaded.config
    assert_same(native.params, loaded.params)
    convert(tmp_path / "hf", tmp_path / "half", "bfloat16")
    assert_same(load_model(tmp_path / "half").params, load_model(tmp_path / "hf", dtype="bfloat16").params)


@pytest.mark.parametrize(
    ("shape", "rules"), [((1, 2, 4), TRAIN_RULES), pytest.param((2, 2, 2), ROLLOUT_RULES, marks=pytest.mark.slow)]
)
def test_each_device_reads_its_own_part_of_codes_and_scales(tmp_path, params, shape, rules, monkeypatch):
    export_model(tmp_path / "hf", V3, params, dtype="float8_e4m3fn", block=Block(4, 4))
    alone = load_model(tmp_path / "hf").params
    reads = []
    read = TensorFiles.read
    monkeypatch.setattr(
        TensorFiles, "read", lambda self, name, index: reads.append((name, index)) or read(self, name, index)
    )
    mesh = make_mesh(*shape)
    loaded = load_model(tmp_path / "hf", mesh, rules=rules)
    assert_same(loaded.params, alone)
    assert jax.tree.map(lambda x: x.sharding, loaded.params) == param_shardings(V3, place(mesh, rules))
    if rules is not TRAIN_RULES:
        return
    sizes = {}
    for name, index in reads:
        sizes.setdefault(name, []).append(int(np.prod([part.stop - part.start for part in index])))
    # An expert lies on one of four devices of the tensor axis, its hidden dimension in two parts on fsdp: 8 of 16 columns.
    name = "model.layers.2.mlp.experts.5.up_proj.weight"
    assert sizes[name] == [12 * 8] * 2 and sizes[f"{name}_scale_inv"] == [3 * 2] * 2
    # Rows of kv_b_proj are heads, one on each of four devices; its latent columns in two.
    name = "model.layers.0.self_attn.kv_b_proj.weight"
    assert sizes[name] == [12 * 4] * 8 and sizes[f"{name}_scale_inv"] == [3 * 1] * 8


DOWN = "model.layers.2.mlp.experts.3.down_proj.weight"


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t[DOWN].view(np.uint8).__setitem__((2, 3), 0x7F), [DOWN, "NaN"]),
        (lambda t: t[f"{DOWN}_scale_inv"].__setitem__((1, 0), np.inf), [f"{DOWN}_scale_inv", "infinity"]),
        (lambda t: t.pop(DOWN), ["lacks tensor", DOWN]),
        (lambda t: t.pop(f"{DOWN}_scale_inv"), ["lacks tensor", f"{DOWN}_scale_inv"]),
        (
            lambda t: t.update({f"{DOWN}_scale_inv": t[f"{DOWN}_scale_inv"][:1].copy()}),
            [f"{DOWN}_scale_inv", "[1, 2]", "[2, 2]"],
        ),
        (lambda t: t.update({DOWN: t[DOWN].astype(np.float32)}), [f"{DOWN}_scale_inv", "scales a tensor that is float32"]),
    ],
    ids=["NaN", "infinite scale", "missing", "no scales", "misshapen scales", "scales of nothing"],
)
def test_damage_is_named_and_nothing_is_left(tmp_path, params, change, words):
    export_model(tmp_path / "hf", V3, params, dtype="float8_e4m3fn", block=BLOCK)
    file = tmp_path / "hf" / "model.safetensors"
    files = TensorFiles(tmp_path / "hf")
    tensors = {name: files.read(name).copy() for name in files}
    change(tensors)
    save_file(tensors, file)
    for attempt in (load_model, lambda path: convert(path, tmp_path / "native")):
        with pytest.raises(CheckpointError) as caught:
            attempt(tmp_path / "hf")
        message = str(caught.value)
        assert "\n" not in message and str(tmp_path / "hf") in message and all(word in message for word in words), message
        assert [path.name for path in tmp_path.iterdir()] == ["hf"]


def test_a_truncated_file_is_named(tmp_path, params):
    export_model(tmp_path / "hf", V3, params, dtype="float8_e4m3fn", block=BLOCK)
    file = tmp_path / "hf" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="model.safetensors is truncated: tensor .* ends at byte"):
        load_model(tmp_path / "hf")

"""Converting and loading 64 layers takes the memory of the loaded arrays and of less than three layers; a killed one goes on."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from etils import epath

from r1jax.checkpoint import config_to_hf, load_model
from r1jax.checkpoint.huggingface.configuration import quantisation_to_hf
from r1jax.checkpoint.huggingface.coverage import layout
from r1jax.checkpoint.huggingface.fp8 import FP8, Block
from r1jax.checkpoint.huggingface.tensor_files import SINGLE, write_tensors
from r1jax.checkpoint.pieces import flatten, pieces
from r1jax.models import Experts, LatentAttention, ModelConfig, abstract_params

BIG = ModelConfig(
    architecture="deepseek_v3",
    vocab_size=512,
    hidden_size=256,
    intermediate_size=1024,
    num_hidden_layers=63,
    num_attention_heads=4,
    num_key_value_heads=4,
    head_dim=48,
    latent=LatentAttention(kv_lora_rank=64, qk_nope_head_dim=32, qk_rope_head_dim=16, v_head_dim=32, q_lora_rank=64),
    experts=Experts(16, 4, 128, 1, 1),
    num_nextn_predict_layers=1,
)
SMALL = dataclasses.replace(BIG, num_hidden_layers=3)
BLOCK = Block(128, 128)
CONSTANT = 48 << 20  # programs, caches of libraries, what the allocator keeps


def write(path, config):
    """A checkpoint of random codes and scales, streamed; the copies of multi-token prediction are copies."""
    path.mkdir()
    (path / "config.json").write_text(json.dumps(config_to_hf(config) | {"quantization_config": quantisation_to_hf(BLOCK)}))
    kinds = layout(config, FP8, BLOCK)

    def tensors():
        for name, (dtype, shape) in kinds.items():
            shared = "embed_tokens" in name or "head.weight" in name
            rng = np.random.default_rng(0 if shared else abs(hash(name)) % 2**32)
            if dtype == FP8:
                yield rng.integers(0, 0x7F, shape, np.uint8).view(ml_dtypes.float8_e4m3fn)  # no code of it is NaN
            else:
                yield rng.uniform(0.5, 1.5, shape).astype(dtype)

    write_tensors(epath.Path(path / SINGLE), kinds, tensors())


def layer_bytes(config):
    """The largest layer in float32, as quantised tensors are loaded."""
    shapes = {name: leaf.shape for name, leaf in flatten(abstract_params(config)).items()}
    sizes = [
        sum(int(np.prod(shapes[name][1:])) for name in piece.paths) for piece in pieces(config) if piece.layer is not None
    ]
    return 4 * max(sizes)


@pytest.mark.long
def test_peak_memory_is_the_arrays_and_less_than_three_layers(tmp_path):
    write(tmp_path / "small", SMALL)
    write(tmp_path / "big", BIG)
    script = Path(__file__).with_name("memory.py")
    peaks = {}
    for action, kind in (("convert", ""), ("load", ""), ("load", "native")):
        small, big = ("warm", "native") if kind else ("small", "big")  # conversion leaves both
        command = [sys.executable, script, action, tmp_path / small, tmp_path / big, tmp_path]
        done = subprocess.run(command, env={**os.environ, "XLA_FLAGS": ""}, capture_output=True, text=True, check=True)
        peaks[f"{action} {kind}"] = int(done.stdout.splitlines()[-1])
    layer = layer_bytes(BIG)
    loaded = sum(int(np.prod(leaf.shape)) * 4 for leaf in jax.tree.leaves(abstract_params(BIG)))
    beyond = {what: (peak - (loaded if "load" in what else 0)) / layer for what, peak in peaks.items()}
    print(f"layer {layer / 2**20:.1f} MiB, loaded {loaded / 2**20:.0f} MiB; layers beyond the arrays: {beyond}")
    assert loaded > 60 * layer
    assert all(layers < 3 + CONSTANT / layer for layers in beyond.values()), beyond


@pytest.mark.slow
def test_a_conversion_that_was_killed_goes_on(tmp_path):
    write(tmp_path / "hf", dataclasses.replace(BIG, num_hidden_layers=20))
    command = [sys.executable, "-m", "r1jax.cli", "convert", str(tmp_path / "hf"), str(tmp_path / "native")]
    first = subprocess.Popen(command, stderr=subprocess.PIPE, stdout=subprocess.PIPE)
    partial = tmp_path / ".native.partial"
    while not len(list(partial.glob("*.json"))) >= 6 and first.poll() is None:
        time.sleep(0.01)
    first.send_signal(signal.SIGKILL)
    first.communicate()
    assert first.returncode == -signal.SIGKILL and not (tmp_path / "native").exists()
    done = {path.name: path.stat().st_mtime_ns for path in partial.glob("expert_layers.*.json")}
    trees = {path.name: path.stat().st_ctime_ns for path in (partial / "params").iterdir() if f"{path.name}.json" in done}
    assert done and len(trees) == len(done)
    subprocess.run(command, check=True, capture_output=True)
    for name, created in trees.items():  # what was finished was not written again
        assert (tmp_path / "native" / "params" / name).stat().st_ctime_ns == created
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf", "native"]
    one, other = (load_model(tmp_path / kind).params for kind in ("hf", "native"))
    jax.tree.map(np.testing.assert_array_equal, one, other)

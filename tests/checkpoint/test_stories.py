"""A real model that is small enough to be committed: stories260K, converted here from llama2.c's layout, tells its story.

The file is also run by a plain NumPy forward of its own layout (rotation of neighbours, matrices ``[out, in]``), which shares
nothing with r1jax, its conversion or its tokenizer.
"""

import json
import struct
from pathlib import Path

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from r1jax import cli
from r1jax.checkpoint import load_model
from r1jax.data import Tokenizer
from r1jax.models import forward, head_weight

STORIES = Path(__file__).parents[1] / "data/stories260k"
BEGINNING = "Once upon a time, there was a little girl named Lily. She loved to play outside in the park."
THETA, EPSILON, BOS = 10_000.0, 1e-5, 1


# ---------------------------------------------------------------------------------------------- llama2.c's layout
def read_weights() -> tuple[dict, dict[str, np.ndarray]]:
    """Seven int32 (sizes), then float32 arrays, one after the other, each of all layers."""
    raw = (STORIES / "stories260K.bin").read_bytes()
    names = ("dim", "hidden", "layers", "heads", "kv_heads", "vocab", "positions")
    sizes = dict(zip(names, struct.unpack("<7i", raw[:28])))
    D, F, L, V, K = (sizes[n] for n in ("dim", "hidden", "layers", "vocab", "kv_heads"))
    H = D // sizes["heads"]
    shapes = {
        "embedding": (V, D),
        "attention_norm": (L, D),
        "q": (L, D, D),
        "k": (L, K * H, D),
        "v": (L, K * H, D),
        "o": (L, D, D),
        "ffn_norm": (L, D),
        "gate": (L, F, D),
        "down": (L, D, F),
        "up": (L, F, D),
        "final_norm": (D,),
        "tables of cosines and sines": (2, sizes["positions"], H // 2),
    }
    arrays, place = {}, 28
    for name, shape in shapes.items():
        arrays[name] = np.frombuffer(raw, "<f4", int(np.prod(shape)), place).reshape(shape)
        place += arrays[name].nbytes
    assert place == len(raw) and V > 0  # a positive size says that the head is the embedding
    return sizes, arrays


def read_vocabulary() -> list[tuple[bytes, float]]:
    """The longest piece's length, then each piece: score, length, bytes."""
    raw, place, pieces = (STORIES / "tok512.bin").read_bytes(), 4, []
    while place < len(raw):
        score, length = struct.unpack_from("<fi", raw, place)
        pieces.append((raw[place + 8 : place + 8 + length], score))
        place += 8 + length
    return pieces


def numpy_logits(sizes: dict, w: dict[str, np.ndarray], tokens: list[int]) -> np.ndarray:
    """``[T, V]`` in float64."""
    T, H, group = len(tokens), sizes["dim"] // sizes["heads"], sizes["heads"] // sizes["kv_heads"]
    angles = np.arange(T)[:, None] / THETA ** (np.arange(0, H, 2) / H)
    turn = np.exp(1j * angles)[:, None]

    def norm(x, scale):
        return x / np.sqrt(np.mean(x * x, -1, keepdims=True) + EPSILON) * scale

    def rotated(x):  # neighbours are a complex number
        pairs = x.reshape(T, -1, H // 2, 2)
        return np.stack([(z := (pairs[..., 0] + 1j * pairs[..., 1]) * turn).real, z.imag], -1).reshape(T, -1, H)

    x = w["embedding"].astype(np.float64)[tokens]
    for i in range(sizes["layers"]):
        y = norm(x, w["attention_norm"][i])
        q, k = rotated(y @ w["q"][i].T), rotated(y @ w["k"][i].T)
        v = (y @ w["v"][i].T).reshape(T, -1, H)
        k, v = np.repeat(k, group, 1), np.repeat(v, group, 1)
        scores = np.einsum("tnh,snh->nts", q, k) / np.sqrt(H)
        scores[:, np.triu(np.ones((T, T), bool), 1)] = -np.inf
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        x = x + np.einsum("nts,snh->tnh", weights, v).reshape(T, -1) @ w["o"][i].T
        y = norm(x, w["ffn_norm"][i])
        gate = y @ w["gate"][i].T
        x = x + (gate / (1 + np.exp(-gate)) * (y @ w["up"][i].T)) @ w["down"][i].T
    return norm(x, w["final_norm"]) @ w["embedding"].T


# ---------------------------------------------------------------------------------------------- as a Hugging Face directory
def write_model(folder: Path) -> None:
    sizes, w = read_weights()

    def halves(rows, heads):  # Hugging Face rotates row i of a head's first half with row i of its second
        return np.ascontiguousarray(rows.reshape(heads, -1, 2, rows.shape[-1]).swapaxes(1, 2).reshape(rows.shape))

    tensors = {"model.embed_tokens.weight": w["embedding"], "model.norm.weight": w["final_norm"]}
    for i in range(sizes["layers"]):
        for name, value in {
            "input_layernorm": w["attention_norm"][i],
            "self_attn.q_proj": halves(w["q"][i], sizes["heads"]),
            "self_attn.k_proj": halves(w["k"][i], sizes["kv_heads"]),
            "self_attn.v_proj": w["v"][i],
            "self_attn.o_proj": w["o"][i],
            "post_attention_layernorm": w["ffn_norm"][i],
            "mlp.gate_proj": w["gate"][i],
            "mlp.up_proj": w["up"][i],
            "mlp.down_proj": w["down"][i],
        }.items():
            tensors[f"model.layers.{i}.{name}.weight"] = value
    save_file({name: np.array(value) for name, value in tensors.items()}, folder / "model.safetensors")
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": sizes["vocab"],
        "hidden_size": sizes["dim"],
        "intermediate_size": sizes["hidden"],
        "num_hidden_layers": sizes["layers"],
        "num_attention_heads": sizes["heads"],
        "num_key_value_heads": sizes["kv_heads"],
        "max_position_embeddings": sizes["positions"],
        "rms_norm_eps": EPSILON,
        "rope_theta": THETA,
        "tie_word_embeddings": True,
        "bos_token_id": BOS,
        "eos_token_id": 2,
        "dtype": "float32",
    }
    (folder / "config.json").write_text(json.dumps(config))


def write_tokenizer(folder: Path) -> None:
    """A sentencepiece model of the file's pieces: BPE with byte fallback."""
    proto = pytest.importorskip("sentencepiece.sentencepiece_model_pb2", exc_type=ImportError)
    model = proto.ModelProto()
    kinds = proto.ModelProto.SentencePiece
    for number, (piece, score) in enumerate(read_vocabulary()):
        text = {1: "<s>", 2: "</s>"}.get(number) or piece.decode().replace(" ", "▁")
        is_byte = text.startswith("<0x") and len(text) == 6
        kind = kinds.UNKNOWN if number == 0 else kinds.CONTROL if number < 3 else kinds.BYTE if is_byte else kinds.NORMAL
        model.pieces.add(piece=text, score=score, type=kind)
    model.trainer_spec.model_type = proto.TrainerSpec.BPE
    model.trainer_spec.byte_fallback = True
    model.trainer_spec.vocab_size = len(model.pieces)
    model.normalizer_spec.name = "identity"
    model.normalizer_spec.add_dummy_prefix = True
    model.normalizer_spec.remove_extra_whitespaces = False
    (folder / "tokenizer.model").write_bytes(model.SerializeToString())


@pytest.fixture(scope="module")
def stories(tmp_path_factory):
    folder = tmp_path_factory.mktemp("stories")
    write_model(folder)
    write_tokenizer(folder)
    return folder


# ---------------------------------------------------------------------------------------------- what holds
def test_its_logits_are_those_of_its_own_layout(stories):
    sizes, weights = read_weights()
    tokens = [BOS, *np.random.default_rng(0).integers(3, sizes["vocab"], 60).tolist()]
    expected = numpy_logits(sizes, weights, tokens)
    model = load_model(stories)
    positions = np.arange(len(tokens), dtype=np.int32)[None]

    @jax.jit
    def run(params, tokens, positions):
        return forward(model.config, params, tokens, positions)[0] @ head_weight(model.config, params)

    with jax.default_matmul_precision("highest"):
        found = np.asarray(run(model.params, np.array([tokens], np.int32), positions))[0]
    assert np.abs(found - expected).max() < 1e-5 * np.abs(expected).max()


def test_it_tells_its_story(stories, capfd):
    """Greedy text begins as known, and goes on for 120 tokens as the plain forward says."""
    options = ["--temperature", "0", "--max-tokens", "120", "--json"]
    assert cli.main(["generate", str(stories), "--prompt", "", *options]) == 0
    (sample,) = json.loads(capfd.readouterr().out)["samples"]
    assert sample["prompt_token_ids"] == [BOS]
    assert sample["completion"].strip().startswith(BEGINNING)

    sizes, weights = read_weights()
    tokens = [BOS, *sample["token_ids"]]
    expected = numpy_logits(sizes, weights, tokens[:-1])
    assert tokens[1:] == expected.argmax(-1).tolist()
    logprobs = expected - np.log(np.exp(expected).sum(-1, keepdims=True))
    np.testing.assert_allclose(sample["logprobs"], logprobs.max(-1), atol=1e-5)
    pieces = read_vocabulary()
    text = b"".join(pieces[i][0] for i in tokens[1:]).replace(b"<0x0A>", b"\n").decode()
    assert text.strip() == sample["completion"].strip()


def test_it_reads_its_story_as_it_was_written(stories, capfd):
    tokenizer = Tokenizer.load(stories)
    assert (tokenizer.bos_id, tokenizer.adds_bos, tokenizer.eos_ids, tokenizer.vocab_size) == (BOS, True, {2}, 512)
    ids = tokenizer.encode(BEGINNING, add_bos=True)
    assert ids[0] == BOS and tokenizer.decode(ids[1:]).strip() == BEGINNING
    pieces = read_vocabulary()
    assert b"".join(pieces[i][0] for i in ids[1:]).decode() == " " + BEGINNING
    assert tokenizer.decode(tokenizer.encode("Zoë 😀")) == "Zoë 😀"  # by bytes

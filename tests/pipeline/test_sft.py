"""Supervised fine-tuning: its loss against NumPy, what it learns from, and the stage as people run it."""

import functools
import json
import os
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

import jax
import numpy as np
import pytest
import yaml
from etils import epath

from r1jax import checkpoint, config, sharding
from r1jax.data import Tokenizer
from r1jax.data.examples import load_examples
from r1jax.losses import sft_loss
from r1jax.models import ModelConfig, abstract_params
from r1jax.models.published import PUBLISHED
from r1jax.pipeline.compiles import compile_counter
from r1jax.pipeline.sft.learning import Learner, pack_examples
from r1jax.pipeline.sft.stage import SFTStage, check_settings
from r1jax.pipeline.stage import Context, StopRequested
from r1jax.reporting import Console
from r1jax.scoring import Scorer

TOKENIZERS = Path(__file__).parents[1] / "data" / "tokenizers"
SHAPE = {"hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "head_dim": 8}
# A student of each family, with its own vocabulary.
STUDENTS = {
    "qwen2": (ModelConfig("qwen2", 706, num_key_value_heads=2, qkv_bias=True, max_position_embeddings=256, **SHAPE), "bpe"),
    "llama": (ModelConfig("llama", 702, num_key_value_heads=4, max_position_embeddings=256, **SHAPE), "sentencepiece"),
}
SMALL = {
    "epochs": 2,
    "batch_sequences": 4,
    "row_tokens": 64,
    "rows_per_microbatch": 2,
    "checkpoint_every": 2,
    "optimizer": {"lr": 1e-2},
}


def settings(**changed):
    return config.read_dataclass(config.SFTSettings, {**SMALL, **changed}, "stage")


def make_layout(sizes=(1, 1, 1)):
    return sharding.layout(sharding.make_mesh(*sizes, devices=jax.devices()[: int(np.prod(sizes))]), sharding.TRAIN_RULES)


def random_params(model, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda x: (rng.normal(size=x.shape) * 0.1 + (x.shape[-1:] == x.shape)).astype(np.float32), abstract_params(model)
    )


def write_rows(path, count=11, seed=0, **more):
    rng = np.random.default_rng(seed)
    with open(path, "w") as file:
        for _ in range(count):
            a, b = (int(x) for x in rng.integers(2, 30, 2))
            said = f" {a} and {b} more" * int(rng.integers(1, 4)) + f" make {a + b}."
            row = {"problem": f"{a} apples and {b} apples?", "completion": said, "template": "{prompt}\n", **more}
            file.write(json.dumps(row) + "\n")
    return path


@pytest.fixture(scope="module")
def students(tmp_path_factory):
    """Name -> a Hugging Face directory."""
    made = {}
    for name, (model, tokenizer) in STUDENTS.items():
        made[name] = tmp_path_factory.mktemp("students") / name
        checkpoint.export_model(made[name], model, random_params(model), TOKENIZERS / tokenizer, np.float32)
    return made


def run_stage(model, source, folder, stop=lambda: False, console=None, **changed):
    """The stage without its runner: (artefacts, metrics of its updates)."""
    workdir = epath.Path(folder) / "stages" / "sft"
    workdir.mkdir(parents=True, exist_ok=True)
    context = Context(SimpleNamespace(seed=0), make_layout(), stop, console or Console(open(os.devnull, "w")))
    source = source if isinstance(source, config.DataSource) else config.DataSource(str(source))
    made = SFTStage("sft", settings(**changed)).run({"model": str(model), "data": source}, workdir, context)
    return made, updates(folder)


def updates(folder):
    folders = sorted((Path(folder) / "stages" / "sft" / "updates").iterdir())
    return [json.loads((f / "metrics.json").read_text()) for f in folders]


# ---------------------------------------------------------------------------------------------- settings
def test_the_defaults_are_the_paper_s():
    """Section B.4.2: cosine from 5e-5 to 5e-6, batch 128, 32,768 tokens, 2 to 3 epochs; also where a recipe gives one key."""
    default = config.SFTSettings()
    assert (default.epochs, default.batch_sequences, default.max_tokens) == (2, 128, 32_768)
    optimizer = config.read_dataclass(config.SFTSettings, {"optimizer": {"b2": 0.99}}, "stage").optimizer
    assert (optimizer.lr, optimizer.schedule, optimizer.b2) == (5e-5, "cosine", 0.99)
    assert optimizer.lr * optimizer.final_lr_ratio == pytest.approx(5e-6)


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"epochs": 0}, "epochs must be at least 1, not 0"),
        ({"batch_sequences": 0}, "batch_sequences must be at least 1"),
        ({"max_tokens": 0}, "max_tokens must be at least 1"),
        ({"rows_per_microbatch": 0}, "rows_per_microbatch must be at least 1"),
        ({"steps": -1}, "steps can't be negative"),
        ({"row_tokens": -1}, "row_tokens can't be negative"),
        ({"mtp_coefficient": -0.1}, "mtp_coefficient can't be negative"),
        ({"aggregation": "tokn_mean"}, "did you mean 'token_mean'"),
        ({"remat": "nothin"}, "did you mean 'nothing'"),
        ({"optimizer": {"schedule": "cosin"}}, "cosin"),
        ({"compute_dtype": "bf16"}, "bf16"),
    ],
)
def test_what_cannot_be_trained_is_refused(wrong, message):
    with pytest.raises(config.RecipeError, match=message):
        check_settings("sft", settings(**wrong))


# ---------------------------------------------------------------------------------------------- one update
def examples_of(name, tmp_path, count=6):
    source = config.DataSource(str(write_rows(tmp_path / "rows.jsonl", count)))
    return load_examples(source, Tokenizer.load(TOKENIZERS / STUDENTS[name][1]), 64)[0]


@functools.cache
def scorer(name):
    return Scorer(STUDENTS[name][0], make_layout())


def logprobs_alone(name, params, example):
    """Log-probabilities of an example's completion tokens, of a row in which nothing else is."""
    rows = pack_examples([example], 64, settings(rows_per_microbatch=1))
    with make_layout().use():
        return np.asarray(scorer(name)(params, rows), np.float64)[0, example.completion_start : len(example.tokens)]


def first_update(name, examples, sizes=(1, 1, 1), **changed):
    told = settings(**changed)
    learner = Learner(STUDENTS[name][0], make_layout(sizes), told, 4, np.float32)
    state, metrics = learner.update(learner.init_state(random_params(STUDENTS[name][0])), examples, told.row_tokens)
    return jax.device_get(state.params), metrics


@pytest.mark.parametrize(
    ("name", "rule"),
    [
        ("qwen2", "token_mean"),
        ("llama", "sequence_mean"),
        pytest.param("qwen2", "sequence_mean", marks=pytest.mark.slow),
        pytest.param("llama", "token_mean", marks=pytest.mark.slow),
    ],
)
def test_the_loss_of_an_update_is_numpy_s(name, rule, tmp_path):
    examples = examples_of(name, tmp_path)
    _, metrics = first_update(name, examples, aggregation=rule)
    params = jax.device_put(random_params(STUDENTS[name][0]))
    alone = [-logprobs_alone(name, params, example) for example in examples]
    expected = np.mean(np.concatenate(alone)) if rule == "token_mean" else np.mean([np.mean(x) for x in alone])
    assert metrics["cross_entropy"] == pytest.approx(expected, rel=1e-5) and expected > 5
    assert metrics["loss"] == pytest.approx(expected, rel=1e-5)
    assert metrics["tokens"] == sum(e.learnt for e in examples) == sum(map(len, alone))
    assert metrics["lr"] == pytest.approx(1e-2)


def test_the_gradient_is_of_completion_tokens_alone(tmp_path):
    """With respect to the log-probability of each token: minus one over the number of completion tokens, and 0 for prompts and
    padding; and another label there, or none, changes nothing."""
    examples = examples_of("qwen2", tmp_path)
    rows = pack_examples(examples, 64, settings())
    tokenizer = Tokenizer.load(TOKENIZERS / "bpe")
    logprobs = np.random.default_rng(0).normal(-5, 1, rows.tokens.shape).astype(np.float32)
    gradient = np.asarray(jax.grad(lambda x: sft_loss(x, rows.token_weight)[0])(logprobs))
    learnt = {}
    for row, at in np.argwhere(gradient != 0):
        learnt.setdefault(int(rows.sequence_index[row, at]), []).append(int(rows.tokens[row, at]))
    written = [json.loads(line)["completion"] for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [tokenizer.decode(learnt[i]) for i in range(6)] == [f"{said}<|endoftext|>" for said in written]
    count = sum(map(len, learnt.values()))
    np.testing.assert_allclose(gradient[gradient != 0], -1 / count, rtol=1e-6)
    spoilt = np.where(rows.token_weight == 0, np.nan, logprobs)
    assert sft_loss(spoilt, rows.token_weight)[0] == sft_loss(logprobs, rows.token_weight)[0]


@pytest.mark.slow
def test_neighbours_and_rows_change_nothing(tmp_path):
    """Packed with others, alone in rows, in micro-batches of any size: one update."""
    examples = examples_of("qwen2", tmp_path)
    params, metrics = first_update("qwen2", examples, row_tokens=64, rows_per_microbatch=2)
    assert metrics["padding"] < 0.6
    for changed in ({"row_tokens": 48, "rows_per_microbatch": 8}, {"row_tokens": 200, "rows_per_microbatch": 1}):
        other, told = first_update("qwen2", examples, **changed)
        assert told["padding"] != metrics["padding"]
        for name in ("cross_entropy", "grad_norm", "tokens", "entropy"):
            assert told[name] == pytest.approx(metrics[name], rel=1e-5), name
        moved = [np.abs(a - b).mean() for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(other))]
        assert max(moved) < 1e-4, "of updates of 1e-2"


@pytest.mark.slow
def test_a_mesh_changes_nothing(tmp_path):
    examples = examples_of("qwen2", tmp_path)
    (params, metrics), (other, told) = (
        first_update("qwen2", examples, sizes, rows_per_microbatch=4) for sizes in ((1, 1, 1), (2, 2, 2))
    )
    assert told["cross_entropy"] == pytest.approx(metrics["cross_entropy"], rel=1e-5)
    assert max(np.abs(a - b).mean() for a, b in zip(jax.tree.leaves(params), jax.tree.leaves(other))) < 1e-4
    with pytest.raises(ValueError, match="rows_per_microbatch 2 does not divide over the mesh's 4 batch shards"):
        first_update("qwen2", examples, (2, 2, 2), rows_per_microbatch=2)


def test_an_example_that_comes_twice_counts_twice(tmp_path):
    a, b = examples_of("qwen2", tmp_path, 2)
    _, once = first_update("qwen2", [a, b])
    _, twice = first_update("qwen2", [a, a, b])
    assert twice["tokens"] == once["tokens"] + a.learnt


@pytest.mark.slow
def test_experts_and_multi_token_prediction_learn(tmp_path):
    """Of DeepSeek-V3's shape: the selection bias moves, the balance loss acts, the modules' loss moves the whole model."""
    import dataclasses

    model = PUBLISHED["tiny-deepseek-v3"].config
    model = dataclasses.replace(model, vocab_size=706)
    examples = examples_of("qwen2", tmp_path, 4)

    def update(**changed):
        learner = Learner(model, make_layout(), settings(**changed), 4, np.float32)
        state, metrics = learner.update(learner.init_state(random_params(model)), examples, 64)
        return jax.device_get(state.params), metrics

    plain, figures = update()
    assert "mtp_cross_entropy" not in figures
    ahead, more = update(mtp_coefficient=0.3, router={"bias_rate": 1e-3, "balance": 1e-2})
    assert more["mtp_cross_entropy"] > 1 and more["router_balance"] > 0 and more["expert_load_max"] > 1
    assert more["cross_entropy"] == pytest.approx(figures["cross_entropy"])
    assert np.abs(ahead["embed"]["embedding"] - plain["embed"]["embedding"]).max() > 0
    assert np.abs(jax.tree.leaves(ahead["mtp"])[0] - jax.tree.leaves(plain["mtp"])[0]).max() > 0


def test_multi_token_prediction_needs_its_modules(students, tmp_path):
    with pytest.raises(ValueError, match="set mtp_coefficient to 0"):
        run_stage(students["qwen2"], write_rows(tmp_path / "rows.jsonl"), tmp_path / "run", mtp_coefficient=0.3)


# ---------------------------------------------------------------------------------------------- the stage
@pytest.mark.slow
def test_students_of_other_families_and_tokenizers_learn_the_same_text(students, tmp_path):
    """Distillation by a teacher's text: the same rows, each student's own tokens; both end far under where they began."""
    rows, seen = write_rows(tmp_path / "rows.jsonl", 16), {}
    for name, student in students.items():
        made, metrics = run_stage(student, rows, tmp_path / name, epochs=8)
        assert made.steps == len(metrics) == 32 and made.figures["examples"] == 16
        assert metrics[-1]["cross_entropy"] < 0.5 * metrics[0]["cross_entropy"]
        assert metrics[0]["lr"] == pytest.approx(1e-2) and metrics[-1]["lr"] == pytest.approx(1e-3)
        assert metrics[-1]["epoch"] == 8 and made.figures["cross_entropy"] == metrics[-1]["cross_entropy"]
        model = checkpoint.load_model(made.model)
        assert model.config.architecture == name and model.tokenizer.eos_ids
        first = load_examples(config.DataSource(str(rows)), model.tokenizer, 64)[0][0]
        seen[name] = first.tokens.tolist()
        assert json.loads((tmp_path / name / "stages/sft/plan.json").read_text()) == {"steps": 32}
    assert seen["qwen2"] != seen["llama"], "of the same text"


def test_each_epoch_has_every_example_once(students, tmp_path, monkeypatch):
    taken = []
    original = Learner.update

    def update(self, state, examples, row_tokens):
        taken.extend(id(e) for e in examples)
        return original(self, state, examples, row_tokens)

    monkeypatch.setattr(Learner, "update", update)
    made, _ = run_stage(students["qwen2"], write_rows(tmp_path / "rows.jsonl", 11), tmp_path / "run")
    assert made.steps == 6 and len(taken) == 24, "22 examples in updates of 4"
    for epoch in (taken[:11], taken[11:22]):
        assert len(set(epoch)) == 11
    assert taken[:11] != taken[11:22]


def test_what_is_too_long_is_said(students, tmp_path, capsys):
    write_rows(tmp_path / "rows.jsonl", 11)
    console = Console(sys.stderr)
    made, _ = run_stage(students["qwen2"], tmp_path / "rows.jsonl", tmp_path / "run", console=console, max_tokens=40)
    left_out = made.figures["too_long"]
    assert 0 < left_out < 11 and made.figures["examples"] == 11 - left_out
    assert f"{left_out} of 11 examples" in (said := capsys.readouterr().err) and "exceed max_tokens 40" in said


@pytest.mark.parametrize(
    "rows, changed, message",
    [
        ({"count": 3}, {"row_tokens": 20}, "row_tokens is 20; raise it or lower max_tokens"),
        ({"count": 3, "completion": " one" * 400}, {"row_tokens": 0}, "max_position_embeddings is 256; lower max_tokens"),
        ({"count": 3}, {"max_tokens": 5}, "fits max_tokens 5: all 3 are longer"),
        ({"count": 3, "template": "chat"}, {}, "has no chat template"),
    ],
)
def test_what_cannot_be_learnt_is_said_before_anything_is_computed(students, tmp_path, rows, changed, message, monkeypatch):
    monkeypatch.setattr(Learner, "__init__", lambda *_: pytest.fail("a program was made"))
    path = write_rows(tmp_path / "rows.jsonl", **rows)
    with pytest.raises(ValueError, match=message):
        run_stage(students["llama"], path, tmp_path / "run", **changed)


def test_what_is_not_finite_ends_the_run(students, tmp_path):
    with pytest.raises(FloatingPointError, match="update 1: .*not finite; the last checkpoint is unharmed"):
        run_stage(students["qwen2"], write_rows(tmp_path / "rows.jsonl"), tmp_path / "run", optimizer={"lr": 1e30})
    assert not (tmp_path / "run/stages/sft/model").exists() and len(updates(tmp_path / "run")) == 1


@pytest.mark.slow
def test_a_stopped_stage_goes_on_to_the_same_model(students, tmp_path):
    """Stopped before each update in turn, each time by a session of its own; nothing compiles after a session's first."""
    rows = write_rows(tmp_path / "rows.jsonl")
    whole, metrics = run_stage(students["qwen2"], rows, tmp_path / "whole")
    for _ in range(20):
        asked = iter([False, True])
        try:
            parted, _ = run_stage(students["qwen2"], rows, tmp_path / "parts", stop=lambda asked=asked: next(asked))
            break
        except StopRequested:
            continue
    assert updates(tmp_path / "parts") == metrics and parted.figures == whole.figures
    for file in ("model.safetensors", "config.json"):
        assert (Path(parted.model) / file).read_bytes() == (Path(whole.model) / file).read_bytes()
    timings = [json.loads(f.read_text()) for f in sorted((tmp_path / "whole/timing/sft").glob("*.json"))]
    assert [t["compiles"] for t in timings] == [0] * 6 and compile_counter().total > 0


# ---------------------------------------------------------------------------------------------- whole runs
# The runs below are one program many times over: what the first has compiled the others read.
CACHE = {"JAX_COMPILATION_CACHE_DIR": tempfile.mkdtemp(), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
# A process that sends itself a signal just before, or just after, a file of that name is written.
SIGNALLED = """
import os, signal, sys
from r1jax import cli
from r1jax.pipeline import records

write, when = records.write_atomic, os.environ["SIGNAL_WHEN"]
def write_and_signal(path, data):
    here = str(path).endswith(os.environ["SIGNAL_AT"])
    if here and when == "before":
        os.kill(os.getpid(), int(os.environ["SIGNAL"]))
    write(path, data)
    if here and when == "after":
        os.kill(os.getpid(), int(os.environ["SIGNAL"]))
records.write_atomic = write_and_signal
sys.exit(cli.main(sys.argv[1:]))
"""


def start(path, workdir, **more):
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | CACHE | more
    program = ["-c", SIGNALLED] if more else ["-m", "r1jax.cli"]
    command = [sys.executable, *program, "run", str(path), "--workdir", str(workdir)]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    return process.returncode, process.stdout + process.stderr


def write_recipe(folder, student, **stage):
    document = {
        "name": "small",
        "models": {"base": {"path": str(student)}},
        "data": {"train": {"path": str(write_rows(folder / "rows.jsonl"))}},
        "stages": [{"name": "sft", "kind": "sft", "model": "base", "data": "train", **SMALL, **stage}],
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.fixture(scope="module")
def whole_run(students, tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    path = write_recipe(folder, students["qwen2"])
    code, output = start(path, folder / "run")
    assert code == 0, output
    return path, folder / "run"


def same_end(one, other):
    assert updates(one) == updates(other)
    for file in ("model/model.safetensors", "commit.json", "checkpoints/000006/state/manifest.json"):
        assert (one / "stages/sft" / file).read_bytes() == (other / "stages/sft" / file).read_bytes(), file


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_bits(whole_run, tmp_path):
    """Killed again and again: between metrics and their record, after one, between a checkpoint's state and its record, after
    it, before the stage's own record."""
    path, whole = whole_run
    for moment in (
        "before updates/000001/commit.json",
        "after updates/000001/commit.json",
        "before checkpoints/000002/commit.json",
        "after checkpoints/000004/commit.json",
        "before stages/sft/commit.json",
    ):
        when, at = moment.split()
        code, output = start(path, tmp_path / "run", SIGNAL=str(int(signal.SIGKILL)), SIGNAL_WHEN=when, SIGNAL_AT=at)
        assert code == -signal.SIGKILL, output
    code, output = start(path, tmp_path / "run")
    assert code == 0 and "goes on from step 6" in output, output
    same_end(tmp_path / "run", whole)


@pytest.mark.slow
def test_a_signal_saves_the_state_and_exits_with_75(whole_run, tmp_path):
    path, whole = whole_run
    at = {"SIGNAL_WHEN": "after", "SIGNAL_AT": "updates/000002/commit.json", "SIGNAL": str(int(signal.SIGINT))}
    code, output = start(path, tmp_path / "run", **at)
    assert code == 75 and "same command" in output and "Traceback" not in output, output
    assert (tmp_path / "run/stages/sft/checkpoints/000003/commit.json").exists()
    code, output = start(path, tmp_path / "run")
    assert code == 0 and "goes on from step 3" in output, output
    same_end(tmp_path / "run", whole)


@pytest.mark.slow
def test_broken_data_are_bad_input(students, tmp_path):
    path = write_recipe(tmp_path, students["qwen2"])
    (tmp_path / "rows.jsonl").write_text('{"problem": "a"}\n')
    code, output = start(path, tmp_path / "run")
    assert code == 2 and "data.train: " in output and "rows.jsonl:1: neither completion nor messages" in output
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_benchmarks_are_tracked(students, tmp_path):
    """A sampler and graders exist only where a benchmark is tracked; the model is then asked between updates."""
    path = write_recipe(tmp_path, students["qwen2"], track=["dev"], evaluate_every=3)
    document = yaml.safe_load(path.read_text())
    row = {"problem": "What is 2+2?", "answer": "4", "template": "{prompt}\n"}
    (tmp_path / "dev.jsonl").write_text((json.dumps(row) + "\n") * 2)
    document["benchmarks"] = {"dev": {"path": "dev.jsonl", "samples": 1, "temperature": 1.0, "max_tokens": 8}}
    path.write_text(yaml.safe_dump(document))
    code, output = start(path, tmp_path / "run")
    assert code == 0, output
    found = sorted(f.name for f in (tmp_path / "run/stages/sft/evaluations").iterdir())
    assert found == ["dev-000003", "dev-000006"]
    timings = [json.loads(f.read_text()) for f in sorted((tmp_path / "run/timing/sft").glob("*.json"))]
    assert [t["compiles"] for t in timings] == [0] * 6 and timings[2]["evaluate_s"] > timings[1]["evaluate_s"]

"""The loss on held-out examples: against NumPy, on any mesh, between updates, after a kill, in the report."""

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
from r1jax.models import ModelConfig, abstract_params
from r1jax.pipeline.sft.held_out import HeldOut
from r1jax.pipeline.sft.learning import Learner, pack_examples
from r1jax.pipeline.sft.stage import SFTStage
from r1jax.pipeline.stage import Context, StopRequested
from r1jax.reporting import Console, results_table
from r1jax.reporting.collect import collect
from r1jax.reporting.exports.follow import Follower
from r1jax.reporting.plots import sections
from r1jax.scoring import Scorer

TOKENIZER = Path(__file__).parents[1] / "data" / "tokenizers" / "bpe"
MODEL = ModelConfig(
    "qwen2",
    706,
    hidden_size=32,
    intermediate_size=48,
    num_hidden_layers=2,
    num_attention_heads=4,
    num_key_value_heads=2,
    head_dim=8,
    qkv_bias=True,
    max_position_embeddings=256,
)
SMALL = {
    "epochs": 2,
    "batch_sequences": 4,
    "row_tokens": 64,
    "rows_per_microbatch": 2,
    "checkpoint_every": 2,
    "evaluate_every": 2,
    "optimizer": {"lr": 1e-2},
}


def settings(**changed):
    return config.read_dataclass(config.SFTSettings, {**SMALL, **changed}, "stage")


def make_layout(sizes=(1, 1, 1)):
    return sharding.layout(sharding.make_mesh(*sizes, devices=jax.devices()[: int(np.prod(sizes))]), sharding.TRAIN_RULES)


def random_params(seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda x: (rng.normal(size=x.shape) * 0.1 + (x.shape[-1:] == x.shape)).astype(np.float32), abstract_params(MODEL)
    )


def write_rows(path, count, seed):
    rng = np.random.default_rng(seed)
    with open(path, "w") as file:
        for _ in range(count):
            a, b = (int(x) for x in rng.integers(2, 30, 2))
            said = f" {a} and {b} more" * int(rng.integers(1, 4)) + f" make {a + b}."
            file.write(json.dumps({"problem": f"{a} and {b}?", "completion": said, "template": "{prompt}\n"}) + "\n")
    return path


@pytest.fixture(scope="module")
def student(tmp_path_factory):
    folder = tmp_path_factory.mktemp("student") / "model"
    checkpoint.export_model(folder, MODEL, random_params(), TOKENIZER, np.float32)
    return folder


@pytest.fixture(scope="module")
def rows(tmp_path_factory):
    """(what is learnt, what is held out): paths."""
    folder = tmp_path_factory.mktemp("rows")
    return write_rows(folder / "learnt.jsonl", 11, 0), write_rows(folder / "held_out.jsonl", 9, 1)


@pytest.fixture(scope="module")
def whole(student, rows, tmp_path_factory):
    """(the folder of a whole run, what its stage left)."""
    folder = tmp_path_factory.mktemp("whole")
    return folder, run_stage(student, rows, folder)


def run_stage(student, rows, folder, stop=lambda: False, console=None, **changed):
    workdir = epath.Path(folder) / "stages" / "sft"
    workdir.mkdir(parents=True, exist_ok=True)
    context = Context(SimpleNamespace(seed=0), make_layout(), stop, console or Console(open(os.devnull, "w")))
    inputs = {"model": str(student), **{k: config.DataSource(str(p)) for k, p in zip(("data", "held_out"), rows)}}
    return SFTStage("sft", settings(**changed)).run(inputs, workdir, context)


def measured(folder):
    """step -> what was measured."""
    places = sorted((Path(folder) / "stages/sft/held_out").iterdir())
    return {int(p.name): json.loads((p / "metrics.json").read_text()) for p in places if (p / "commit.json").exists()}


def cross_entropy(params, examples):
    """Mean over all completion tokens, of each example alone in its row, added up in float64."""
    scorer, layout, losses = Scorer(MODEL, make_layout()), make_layout(), []
    for example in examples:
        batch = pack_examples([example], 64, settings(rows_per_microbatch=1))
        with layout.use():
            logprobs = np.asarray(scorer(jax.device_put(params), batch), np.float64)
        losses.append(-logprobs[0, example.completion_start : len(example.tokens)])
    return float(np.mean(np.concatenate(losses)))


def held_out_examples(rows):
    return load_examples(config.DataSource(str(rows[1])), Tokenizer.load(TOKENIZER), 64)[0]


# ---------------------------------------------------------------------------------------------- what is measured
def test_it_is_the_mean_over_completion_tokens(whole, rows):
    """Before the first update and after the last one, against each example by itself; and the model has learnt something that
    is true of others, too."""
    folder, made = whole
    found, examples = measured(folder), held_out_examples(rows)
    assert list(found) == [0, 2, 4, 6]
    before = cross_entropy(random_params(), examples)
    after = cross_entropy(jax.device_get(checkpoint.load_model(made.model).params), examples)
    # float32 sums over some hundred tokens: 1e-5.
    assert found[0]["cross_entropy"] == pytest.approx(before, rel=1e-5)
    assert found[6]["cross_entropy"] == pytest.approx(after, rel=1e-5)
    assert after < 0.8 * before
    for one in found.values():
        assert one["examples"] == 9 and one["tokens"] == sum(e.learnt for e in examples)
    assert made.figures["held_out_cross_entropy"] == {
        "before": found[0]["cross_entropy"],
        "after": found[6]["cross_entropy"],
    }


def test_rows_and_the_rule_of_training_change_nothing(whole, rows):
    told = settings(row_tokens=200, rows_per_microbatch=4, aggregation="sequence_mean")
    learner = Learner(MODEL, make_layout(), told, 4, np.float32)
    batches = learner.held_out_batches(held_out_examples(rows), told.row_tokens)
    metrics = [learner.held_out_step(jax.device_put(random_params()), batch) for batch in batches]
    expected = measured(whole[0])[0]["cross_entropy"]
    assert sum(float(m["loss"]) for m in metrics) == pytest.approx(expected, rel=1e-5)
    assert sum(float(m["weight"]) for m in metrics) == pytest.approx(1, rel=1e-6)


@pytest.mark.slow
def test_a_mesh_changes_nothing(rows):
    examples, found = held_out_examples(rows), []
    for sizes in ((1, 1, 1), (2, 2, 2)):
        layout = make_layout(sizes)
        learner = Learner(MODEL, layout, settings(rows_per_microbatch=4), 4, np.float32)
        state = learner.init_state(random_params())
        found.append(
            sum(float(learner.held_out_step(state.params, b)["loss"]) for b in learner.held_out_batches(examples, 64))
        )
    assert found[1] == pytest.approx(found[0], rel=1e-5)


@pytest.mark.slow
def test_training_is_what_it_was(whole, student, rows, tmp_path):
    """What is held out moves no weight: the same model, to the bit, as without it."""
    plain = run_stage(student, rows[:1], tmp_path / "without")
    weights = [(Path(made.model) / "model.safetensors").read_bytes() for made in (whole[1], plain)]
    assert weights[0] == weights[1] and "held_out_cross_entropy" not in plain.figures
    assert not (tmp_path / "without/stages/sft/held_out").exists()


def test_nothing_is_compiled_after_the_first_update(whole):
    timings = [json.loads(f.read_text()) for f in sorted((whole[0] / "timing/sft").glob("*.json"))]
    assert [t["compiles"] for t in timings] == [0] * 6 and timings[1]["evaluate_s"] > 0


# ---------------------------------------------------------------------------------------------- stopping
@pytest.mark.slow
def test_a_stopped_stage_measures_the_same(student, rows, tmp_path):
    """Stopped before every second update: each measurement once, the same bits, and none is missing. Of five updates the last
    is measured, although it is no second one."""
    whole = run_stage(student, rows, tmp_path / "whole", steps=5)
    for _ in range(20):
        asked = iter([False, True])
        try:
            parted = run_stage(student, rows, tmp_path / "parts", lambda asked=asked: next(asked), steps=5)
            break
        except StopRequested:
            continue
    assert measured(tmp_path / "parts") == measured(tmp_path / "whole")
    assert list(measured(tmp_path / "whole")) == [0, 2, 4, 5]
    assert parted.figures == whole.figures
    timings = [json.loads(f.read_text()) for f in sorted((tmp_path / "parts/timing/sft").glob("*.json"))]
    assert [t["compiles"] for t in timings] == [0] * 5, "a session that resumes compiles before it updates"


def stand_in(*losses):
    """A learner whose program says these losses of one micro-batch after another."""
    said = iter(losses)

    def step(params, batch):
        return {"cross_entropy": next(said), "tokens": 3.0, "weight": 0.5, "loss": 0.0}

    return SimpleNamespace(held_out_batches=lambda examples, row_tokens: examples, held_out_step=step)


def test_what_was_measured_is_not_measured_again(tmp_path):
    held_out = HeldOut(epath.Path(tmp_path), stand_in(1.0, 2.0, 5.0, 6.0), ["a", "b"], 8)
    assert held_out.measure(None, 0) == 1.5 == held_out.measure(None, 0) == held_out.read(0)
    (tmp_path / "held_out/000000/commit.json").unlink()  # killed before its record: it did not happen
    assert held_out.measure(None, 0) == 5.5
    told = json.loads((tmp_path / "held_out/000000/metrics.json").read_text())
    assert told == {"step": 0, "cross_entropy": 5.5, "tokens": 6, "examples": 2}


def test_a_loss_that_is_not_finite_ends_the_run(tmp_path):
    held_out = HeldOut(epath.Path(tmp_path), stand_in(1.0, float("nan")), ["a", "b"], 8)
    with pytest.raises(FloatingPointError, match="held-out loss after 4 updates is not finite"):
        held_out.measure(None, 4)
    assert not (tmp_path / "held_out").exists()


# The killed runs are one program many times over: what the first has compiled the others read.
CACHE = {"JAX_COMPILATION_CACHE_DIR": tempfile.mkdtemp(), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
KILLED = """
import os, signal, sys
from r1jax import cli
from r1jax.pipeline import records
write = records.write_atomic
def write_and_die(path, data):
    here, (when, at) = str(path), os.environ["KILL"].split()
    if when == "before" and here.endswith(at):
        os.kill(os.getpid(), signal.SIGKILL)
    write(path, data)
    if when == "after" and here.endswith(at):
        os.kill(os.getpid(), signal.SIGKILL)
records.write_atomic = write_and_die
sys.exit(cli.main(sys.argv[1:]))
"""


def start(path, workdir, kill=""):
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | CACHE | {"KILL": kill}
    program = ["-c", KILLED] if kill else ["-m", "r1jax.cli"]
    command = [sys.executable, *program, "run", str(path), "--workdir", str(workdir)]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    return process.returncode, process.stdout + process.stderr


def write_recipe(folder, student, **stage):
    write_rows(folder / "learnt.jsonl", 11, 0)
    write_rows(folder / "held_out.jsonl", 9, 1)
    document = {
        "name": "small",
        "models": {"base": {"path": str(student)}},
        "data": {"train": {"path": "learnt.jsonl"}, "others": {"path": "held_out.jsonl"}},
        "stages": [{"name": "sft", "kind": "sft", "model": "base", "data": "train", "held_out": "others", **SMALL, **stage}],
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(document))
    return folder / "recipe.yaml"


@pytest.mark.slow
def test_a_killed_run_measures_the_same_bits(student, tmp_path):
    """Killed before and after a measurement's record, and between it and the checkpoint of its step."""
    path = write_recipe(tmp_path, student)
    code, output = start(path, tmp_path / "whole")
    assert code == 0 and "held-out cross-entropy" in output, output
    for kill in (
        "before held_out/000000/commit.json",
        "after held_out/000000/commit.json",
        "before held_out/000002/commit.json",
        "after held_out/000004/commit.json",
        "before checkpoints/000006/commit.json",
    ):
        code, output = start(path, tmp_path / "run", kill)
        assert code == -signal.SIGKILL, output
    code, output = start(path, tmp_path / "run")
    assert code == 0, output
    assert measured(tmp_path / "run") == measured(tmp_path / "whole")
    for file in ("stages/sft/commit.json", "stages/sft/model/model.safetensors"):
        assert (tmp_path / "run" / file).read_bytes() == (tmp_path / "whole" / file).read_bytes()
    (result,) = json.loads((tmp_path / "run/results.json").read_text())
    found = measured(tmp_path / "run")
    assert result["figures"]["held_out_cross_entropy"] == {
        "before": found[0]["cross_entropy"],
        "after": found[6]["cross_entropy"],
    }


@pytest.mark.slow
def test_a_run_from_tfds_splits(student, tmp_path):
    """What is learnt and what is held out are two splits of one TFDS data set; the run goes on only with the same files."""
    path = write_recipe(tmp_path, student)
    document = yaml.safe_load(path.read_text())
    told = {"path": "tfds:small_sums", "data_dir": str(TOKENIZER.parents[1] / "tfds"), "template": "{prompt}\n"}
    document["data"] = {"train": told | {"split": "train"}, "others": told | {"split": "test"}}
    path.write_text(yaml.safe_dump(document))
    code, output = start(path, tmp_path / "run")
    assert code == 0, output
    found = measured(tmp_path / "run")
    assert list(found) == [0, 2, 3] and {one["examples"] for one in found.values()} == {3}
    assert found[3]["cross_entropy"] < found[0]["cross_entropy"]
    code, output = start(path, tmp_path / "run")
    assert code == 0 and "done in an earlier session" in output, output


# ---------------------------------------------------------------------------------------------- bad data
@pytest.mark.parametrize(
    "text, message",
    [("", "has no rows"), ('{"problem": "a"}\n', ":1: neither completion nor messages"), ("{", ":1: not a line of JSON")],
)
def test_a_broken_set_is_refused_by_the_runner(student, tmp_path, text, message):
    from r1jax.pipeline.runner.running import check_data
    from r1jax.pipeline.runner.workdir import resolve_paths

    path = write_recipe(tmp_path, student)
    (tmp_path / "held_out.jsonl").write_text(text)
    recipe = resolve_paths(config.load_recipe(str(path)), str(tmp_path))
    with pytest.raises(config.RecipeError, match=f"data.others: .*{message}"):
        check_data(recipe)


@pytest.mark.parametrize(
    "changed, message",
    [
        ({"max_tokens": 8}, "no example of .*held_out.jsonl fits max_tokens 8"),
        ({"row_tokens": 24}, "the longest example has .* row_tokens is 24"),
    ],
)
def test_what_does_not_fit_is_refused_before_anything_is_computed(student, tmp_path, changed, message, monkeypatch):
    monkeypatch.setattr(Learner, "__init__", lambda *_: pytest.fail("a program was made"))
    short = {"problem": "a", "completion": "b", "template": "{prompt}\n"}
    (tmp_path / "learnt.jsonl").write_text(json.dumps(short) + "\n")
    rows = tmp_path / "learnt.jsonl", write_rows(tmp_path / "held_out.jsonl", 9, 1)
    with pytest.raises(ValueError, match=message):
        run_stage(student, rows, tmp_path / "run", **changed)


def test_examples_that_are_learnt_too_are_told(student, rows, tmp_path, capsys, monkeypatch):
    class Enough(Exception):
        pass

    def made(*_):
        raise Enough

    monkeypatch.setattr(Learner, "__init__", made)
    (tmp_path / "both.jsonl").write_text(rows[1].read_text() + rows[0].read_text().splitlines()[0] + "\n")
    with pytest.raises(Enough):
        run_stage(student, (rows[0], tmp_path / "both.jsonl"), tmp_path / "run", console=Console(sys.stderr))
    assert "1 of 10 held-out examples of" in " ".join(capsys.readouterr().err.split())


def test_only_learning_from_examples_takes_it():
    document = {
        "name": "x",
        "models": {"base": {"path": "p"}},
        "data": {"a": {"path": "a"}, "b": {"path": "b"}},
        "stages": [{"name": "s", "kind": "grpo", "model": "base", "data": "a", "held_out": "b"}],
    }
    with pytest.raises(config.RecipeError, match="stages.s.held_out: grpo takes no such input"):
        config.read_recipe(document)
    document["stages"][0]["kind"] = "sft"
    assert config.read_recipe(document).stages[0].inputs["held_out"] == "b"
    document["stages"][0]["held_out"] = "c"
    with pytest.raises(config.RecipeError, match="stages.s.held_out: nothing named 'c'"):
        config.read_recipe(document)


# ---------------------------------------------------------------------------------------------- where it is shown
def test_it_is_shown_beside_the_training_loss(whole):
    folder, _ = whole
    run, found = collect(folder, remember=False), measured(folder)
    drawn = next(f for _, _, figures in sections(run.stages[0]) for f in figures if f["title"] == "Cross-entropy")
    training, held_out = drawn["data"]
    assert training["name"] == "learnt" and len(training["x"]) == 6
    assert held_out["name"] == "held out" and held_out["x"] == [0, 2, 4, 6]
    assert held_out["y"] == pytest.approx([one["cross_entropy"] for one in found.values()], rel=1e-5)
    (row,) = (row for row in results_table(folder)[1] if row[1] == "held out")
    assert row[2] == "cross-entropy" and all(float(cell) > 0 for cell in row[3:])
    follower = Follower(str(folder))
    events = [e for e in follower.new() if e.kind == "held_out"]
    assert [(e.step, e.figures["held_out/cross_entropy"]) for e in events] == [
        (step, one["cross_entropy"]) for step, one in found.items()
    ]
    assert not [e for e in follower.new() if e.kind == "held_out"]

"""The stage of reward models as people run it: what it learns, what it measures, what it leaves, killed and resumed."""

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
from r1jax.models import ModelConfig, abstract_params
from r1jax.pipeline.reward_model.learning import Learner
from r1jax.pipeline.reward_model.stage import RewardModelStage, check_settings
from r1jax.pipeline.runner import run_recipe
from r1jax.pipeline.stage import Context, StopRequested
from r1jax.reporting import Console, results_table, write_report
from r1jax.rewards import RewardRequest
from r1jax.scoring.reward_model import RewardModel, read_card

TOKENIZER = Path(__file__).parents[1] / "data" / "tokenizers" / "bpe"
BASE = ModelConfig("qwen2", 706, 32, 48, 2, 4, 2, 8, qkv_bias=True, max_position_embeddings=128)
SMALL = {
    "epochs": 2,
    "batch_examples": 6,
    "row_tokens": 64,
    "rows_per_microbatch": 2,
    "checkpoint_every": 2,
    "optimizer": {"lr": 1e-2},
    "remat": "none",
}


def settings(**changed):
    return config.read_dataclass(config.RewardModelSettings, {**SMALL, **changed}, "stage")


def make_layout():
    return sharding.layout(sharding.make_mesh(1, 1, 1, devices=jax.devices()[:1]), sharding.TRAIN_RULES)


def random_params(model, seed=0):
    rng = np.random.default_rng(seed)
    return jax.tree.map(
        lambda x: (rng.normal(size=x.shape) * 0.1 + (x.shape[-1:] == x.shape)).astype(np.float32), abstract_params(model)
    )


def write_rows(path, objective="pairwise", count=17, seed=0, **more):
    """Kindness is better, and safe, whatever the length; some responses have thoughts."""
    rng = np.random.default_rng(seed)
    with open(path, "w") as file:
        for _ in range(count):
            said = [" ".join(rng.choice("one two three four".split(), int(rng.integers(1, 5)))) for _ in range(2)]
            kind, rude = f"<think>{said[0]}</think>well {said[0]}", f"hell {said[1]}"
            row = {"problem": f"{int(rng.integers(9))} apples?", "template": "{prompt}\n", **more}
            if objective == "pairwise":
                row |= {"chosen": kind, "rejected": rude}
            else:
                safe = bool(rng.integers(2))
                row |= {"response": kind if safe else rude, "safe": safe}
            file.write(json.dumps(row) + "\n")
    return path


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "base"
    checkpoint.export_model(path, BASE, random_params(BASE), TOKENIZER, np.float32)
    return path


def run_stage(model, source, folder, stop=lambda: False, held_out=None, console=None, **changed):
    """The stage without its runner: (artefacts, metrics of its updates)."""
    workdir = epath.Path(folder) / "stages" / "rm"
    workdir.mkdir(parents=True, exist_ok=True)
    context = Context(SimpleNamespace(seed=0), make_layout(), stop, console or Console(open(os.devnull, "w")))
    inputs = {"model": str(model), "data": config.DataSource(str(source))}
    if held_out is not None:
        inputs["held_out"] = config.DataSource(str(held_out))
    made = RewardModelStage("rm", settings(**changed)).run(inputs, workdir, context)
    return made, updates(folder)


def updates(folder):
    folders = sorted((Path(folder) / "stages/rm/updates").iterdir())
    return [json.loads((f / "metrics.json").read_text()) for f in folders]


def measured(folder):
    return {
        f.parent.name: json.loads(f.read_text())
        for f in sorted((Path(folder) / "stages/rm/evaluations").glob("*/figures.json"))
    }


# ---------------------------------------------------------------------------------------------- settings
def test_the_defaults_are_the_paper_s():
    """Nature 645:633, Methods: batch 256, lr 6e-6, one epoch, 8,192 tokens, for both reward models."""
    default = config.RewardModelSettings()
    assert (default.epochs, default.batch_examples, default.max_tokens) == (1, 256, 8_192)
    assert (default.optimizer.lr, default.optimizer.schedule, default.objective) == (6e-6, "constant", "pairwise")


@pytest.mark.parametrize(
    "wrong, message",
    [
        ({"objective": "pairwize"}, "stages.rm.objective 'pairwize' is unknown; did you mean 'pairwise'"),
        ({"reads": "summary"}, "reads 'summary' is unknown"),
        ({"epochs": 0}, "epochs must be at least 1, not 0"),
        ({"batch_examples": 0}, "batch_examples must be at least 1"),
        ({"evaluate_every": -1}, "evaluate_every can't be negative"),
        ({"remat": "nothin"}, "did you mean 'nothing'"),
        ({"optimizer": {"schedule": "cosin"}}, "cosin"),
        ({"compute_dtype": "bf16"}, "bf16"),
    ],
)
def test_what_cannot_be_trained_is_refused(wrong, message):
    with pytest.raises(config.RecipeError, match=message):
        check_settings("rm", settings(**wrong))


# ---------------------------------------------------------------------------------------------- the stage
@pytest.mark.parametrize("objective", ["pairwise", pytest.param("pointwise", marks=pytest.mark.slow)])
def test_it_learns_what_is_better_and_leaves_a_model_that_says_so(base, tmp_path, objective):
    rows, test = (write_rows(tmp_path / f"{seed}.jsonl", objective, 17, seed) for seed in range(2))
    made, metrics = run_stage(base, rows, tmp_path / "run", held_out=test, objective=objective, epochs=10, evaluate_every=10)
    assert made.steps == len(metrics) == 29 and made.figures["examples"] == 17
    accuracy = {"pairwise": "pair_accuracy", "pointwise": "label_accuracy"}[objective]
    assert metrics[-1]["loss"] < 0.3 * metrics[0]["loss"] and metrics[-1][accuracy] == 1
    assert metrics[0]["examples"] == 6 and 0 <= metrics[0]["padding"] < 1
    found = measured(tmp_path / "run")
    assert list(found) == ["held_out-000010", "held_out-000020", "held_out-after", "held_out-before"]
    assert found["held_out-after"]["accuracy"] == 1 > found["held_out-before"]["accuracy"]
    assert found["held_out-after"]["margin"] > 1 and found["held_out-000010"]["step"] == 10
    assert made.figures["accuracy"] == 1 and made.figures["measured_on"] == "held_out"

    card = read_card(made.model)
    reads = {"pairwise": "final_summary", "pointwise": "whole_response"}[objective]
    assert (card.objective, card.reads, card.template) == (objective, reads, "{prompt}\n")
    model = checkpoint.load_model(made.model)
    assert model.config.num_labels == 1
    scores = json.loads((tmp_path / "run/stages/rm/evaluations/held_out-after/scores.json").read_text())
    assert card.lowest == min(scores)
    part = RewardModel("helpfulness", model, card, make_layout(), rows=2)
    written = [json.loads(line) for line in open(test)]
    field = "chosen" if objective == "pairwise" else "response"
    values = [scored.value for scored in part.score([RewardRequest(row, "", row[field]) for row in written])]
    expected = scores[::2] if objective == "pairwise" else [1 / (1 + np.exp(-score)) for score in scores]
    # Rows of another length than those that were measured.
    np.testing.assert_allclose(values, expected, atol=1e-5)


@pytest.mark.slow
def test_a_stopped_stage_goes_on_to_the_same_model(base, tmp_path):
    """Stopped before each update in turn, each time by a session of its own; nothing compiles after a session's first."""
    rows = write_rows(tmp_path / "rows.jsonl")
    whole, metrics = run_stage(base, rows, tmp_path / "whole", evaluate_every=2)
    for _ in range(20):
        asked = iter([False, True])
        try:
            parted, _ = run_stage(base, rows, tmp_path / "parts", stop=lambda asked=asked: next(asked), evaluate_every=2)
            break
        except StopRequested:
            continue
    assert updates(tmp_path / "parts") == metrics and parted.figures == whole.figures
    assert measured(tmp_path / "parts") == measured(tmp_path / "whole")
    for file in ("model.safetensors", "config.json", "reward_model.json"):
        assert (Path(parted.model) / file).read_bytes() == (Path(whole.model) / file).read_bytes()
    timings = [json.loads(f.read_text()) for f in sorted((tmp_path / "whole/timing/rm").glob("*.json"))]
    assert [t["compiles"] for t in timings] == [0] * len(metrics)
    assert whole.figures["measured_on"] == "data"


@pytest.mark.slow
def test_training_goes_on_from_a_reward_model(base, tmp_path):
    rows = write_rows(tmp_path / "rows.jsonl", count=6)
    first, _ = run_stage(base, rows, tmp_path / "first", steps=1)
    again, _ = run_stage(first.model, rows, tmp_path / "again", steps=1)
    assert measured(tmp_path / "again")["held_out-before"]["margin"] == pytest.approx(
        measured(tmp_path / "first")["held_out-after"]["margin"], abs=1e-6
    )


@pytest.mark.parametrize(
    "rows, changed, message",
    [
        ({}, {"row_tokens": 20}, "the longest pair, which lies in one row, has .* tokens, row_tokens is 20; raise it"),
        ({"problem": "apples " * 60}, {"row_tokens": 0}, "max_position_embeddings is 128; lower max_tokens"),
        ({}, {"max_tokens": 4}, "nothing of .* can be learnt: 17 rows exceed max_tokens 4"),
    ],
)
def test_what_cannot_be_learnt_is_said_before_anything_is_computed(base, tmp_path, rows, changed, message, monkeypatch):
    monkeypatch.setattr(Learner, "__init__", lambda *_: pytest.fail("a program was made"))
    with pytest.raises(ValueError, match=message):
        run_stage(base, write_rows(tmp_path / "rows.jsonl", **rows), tmp_path / "run", **changed)


def test_several_templates_are_refused(base, tmp_path):
    path = write_rows(tmp_path / "rows.jsonl", count=2)
    text = path.read_text()
    path.write_text(text + text.replace("{prompt}", "Q: {prompt}"))
    with pytest.raises(
        config.RecipeError, match="its rows have 2 prompt templates .*; set the data set's override_template"
    ):
        run_stage(base, path, tmp_path / "run")


@pytest.mark.slow
def test_what_is_left_out_is_said(base, tmp_path, capsys):
    path = write_rows(tmp_path / "rows.jsonl", count=8)
    with open(path, "a") as file:
        row = {"problem": "a", "template": "{prompt}\n", "chosen": "<think>no end", "rejected": "b"}
        file.write(json.dumps(row) + "\n")
    made, _ = run_stage(base, path, tmp_path / "run", console=Console(sys.stderr), steps=1)
    assert (made.figures["no_summary"], made.figures["examples"]) == (1, 8)
    assert "1 of 9 rows of" in (said := capsys.readouterr().err) and "have a thought that no summary follows" in said


@pytest.mark.slow
def test_scores_that_are_not_finite_end_the_run(base, tmp_path):
    with pytest.raises(FloatingPointError, match="not finite"):
        run_stage(base, write_rows(tmp_path / "rows.jsonl"), tmp_path / "run", optimizer={"lr": 1e30})
    assert not (tmp_path / "run/stages/rm/model").exists()


# ---------------------------------------------------------------------------------------------- whole runs
CACHE = {"JAX_COMPILATION_CACHE_DIR": tempfile.mkdtemp(), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
# A process that kills itself just before, or just after, a file of that name is written.
KILLED = """
import os, signal, sys
from r1jax import cli
from r1jax.pipeline import records

write, when = records.write_atomic, os.environ["KILL_WHEN"]
def write_and_die(path, data):
    here = str(path).endswith(os.environ["KILL_AT"])
    if here and when == "before":
        os.kill(os.getpid(), signal.SIGKILL)
    write(path, data)
    if here and when == "after":
        os.kill(os.getpid(), signal.SIGKILL)
records.write_atomic = write_and_die
sys.exit(cli.main(sys.argv[1:]))
"""


def start(path, workdir, **more):
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | CACHE | more
    program = ["-c", KILLED] if more else ["-m", "r1jax.cli"]
    command = [sys.executable, *program, "run", str(path), "--workdir", str(workdir)]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=600)
    return process.returncode, process.stdout + process.stderr


def write_recipe(folder, base, **stage):
    document = {
        "name": "small",
        "models": {"base": {"path": str(base)}},
        "data": {
            name: {"path": str(write_rows(folder / f"{name}.jsonl", seed=s))} for s, name in enumerate(["train", "test"])
        },
        "stages": [
            {"name": "rm", "kind": "reward_model", "model": "base", "data": "train", "held_out": "test", **SMALL, **stage}
        ],
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.mark.slow
def test_a_killed_run_ends_with_the_same_bits(base, tmp_path):
    """Killed before and after what it first measures, between updates, around a checkpoint, and around what the model leaves."""
    path = write_recipe(tmp_path, base)
    code, output = start(path, tmp_path / "whole")
    assert code == 0, output
    for moment in (
        "before held_out-before/commit.json",
        "after updates/000001/commit.json",
        "before checkpoints/000002/commit.json",
        "after checkpoints/000004/commit.json",
        "before held_out-after/commit.json",
        "before model/reward_model.json",
        "before stages/rm/commit.json",
    ):
        when, at = moment.split()
        code, output = start(path, tmp_path / "run", KILL_WHEN=when, KILL_AT=at)
        assert code == -signal.SIGKILL, output
    code, output = start(path, tmp_path / "run")
    assert code == 0 and "goes on from step 6" in output, output
    one, other = tmp_path / "run", tmp_path / "whole"
    assert updates(one) == updates(other) and measured(one) == measured(other)
    for file in (
        "model/model.safetensors",
        "model/reward_model.json",
        "commit.json",
        "checkpoints/000006/state/manifest.json",
    ):
        assert (one / "stages/rm" / file).read_bytes() == (other / "stages/rm" / file).read_bytes(), file

    (entry,) = json.loads((other / "results.json").read_text())
    assert entry["after"]["held_out"]["accuracy"] >= entry["before"]["held_out"]["accuracy"] and entry["steps"] == 6
    lines = results_table(other)[1]
    assert ["", "", "calibration error"] in [line[:3] for line in lines] and lines[-1][:3] == ["rm", "training", "loss"]
    report = Path(write_report(other)).read_text()
    for title in ("Scores of held-out data", "Reliability", "Score against length", "Calibration: expected error"):
        assert title in report


@pytest.mark.parametrize(
    "stage, message",
    [
        (
            {"objective": "pointwise"},
            "data.test: .*test.jsonl:1: no safe or label .*; pairs are learnt with objective pairwise",
        ),
        ({"objective": "pairwize"}, "stages.rm.objective 'pairwize' is unknown; did you mean 'pairwise'"),
    ],
)
def test_an_objective_that_is_not_the_data_s_is_refused_before_any_stage(base, tmp_path, stage, message):
    path = write_recipe(tmp_path, base, **stage)
    with pytest.raises(config.RecipeError, match=message):
        run_recipe(str(path), str(tmp_path / "run"))
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_broken_data_are_bad_input(base, tmp_path):
    path = write_recipe(tmp_path, base)
    (tmp_path / "test.jsonl").write_text('{"problem": "a", "chosen": "b"}\n')
    code, output = start(path, tmp_path / "run")
    assert code == 2 and "data.test: " in output and "test.jsonl:1: no rejected" in output
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
def test_a_reward_model_keeps_its_card_when_it_is_converted(base, tmp_path):
    made, _ = run_stage(base, write_rows(tmp_path / "rows.jsonl", count=6), tmp_path / "run", steps=1)
    checkpoint.convert(made.model, tmp_path / "native")
    assert read_card(tmp_path / "native") == read_card(made.model)
    assert Tokenizer.load(tmp_path / "native").eos_ids

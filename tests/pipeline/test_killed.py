"""The stages of RL for all scenarios, killed or stopped in each of their phases: the same command ends with the same bytes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.slow
# The other moments: `tools/test.sh long`.
LONG = pytest.mark.long

TINY = Path(__file__).parents[2] / "configs" / "tiny"
WORLD = TINY / "world"
LEARNING = {
    "rows_per_microbatch": 2,
    "row_tokens": 128,
    "max_tokens": 64,
    "checkpoint_every": 2,
    "remat": "none",
    "optimizer": {"lr": 1e-3},
}
STAGES = [
    {
        "name": "pairs",
        "kind": "preference_pairs",
        "model": "base",
        "judge": "base",
        "data": "requests",
        "samples_per_prompt": 4,
        "prompts_per_wave": 4,
        "max_tokens": 32,
        "max_prompt_tokens": 32,
        "balance_lengths": False,
        "judging": {"prompts": "plain", "max_tokens": 8, "max_prompt_tokens": 128, "rows": 4, "pair_judgements": 2},
        "sampler": {"rows": 4, "lanes": 4, "chunk": 8, "prompt_bucket": 32, "completion_bucket": 32},
    },
    {
        "name": "helpfulness",
        "kind": "reward_model",
        "model": "base",
        "data": "stage:pairs",
        "epochs": 2,
        "batch_examples": 2,
    },
    {"name": "safety", "kind": "reward_model", "objective": "pointwise", "model": "base", "data": "responses", "steps": 1}
    | {"batch_examples": 4},
    {
        "name": "r1",
        "kind": "grpo",
        "model": "base",
        "data": "prompts",
        "general": "requests",
        "helpfulness": "stage:helpfulness",
        "safety": "stage:safety",
        "rewards_by_type": {
            "reasoning": {"accuracy": 1.0, "format": 1.0},
            "general": {"helpfulness": 1.0, "safety": 1.0},
        },
        "general_from": 2,
        "steps": 6,
        "prompts_per_rollout": 4,
        "samples_per_prompt": 4,
        "prompts_per_wave": 2,
        "minibatches": 2,
        "max_prompt_tokens": 32,
        "reference_every": 4,
        "sampler": {"rows": 4, "lanes": 4, "chunk": 8, "prompt_bucket": 32, "completion_bucket": 32},
        "workers": {"count": 1},
        **LEARNING,
        "rows_per_microbatch": 4,
        "max_tokens": 24,
    },
]
# The runs below are one program many times over: what the first has compiled the others read.
CACHE = {"JAX_COMPILATION_CACHE_DIR": os.environ.get("JAX_COMPILATION_CACHE_DIR") or tempfile.mkdtemp()}
CACHE |= {"JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}


def start(path, workdir, moment="", number=signal.SIGKILL):
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | CACHE
    environment |= {"MOMENT": moment, "SIGNAL": str(int(number))}
    command = [sys.executable, str(Path(__file__).parent / "signalled.py"), "run", str(path), "--workdir", str(workdir)]
    process = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=3600)
    return process.returncode, process.stdout + process.stderr


@pytest.fixture(scope="module")
def whole_run(tmp_path_factory):
    """``(recipe, work directory)`` of a run that nothing disturbed: pairs, two reward models, RL with both."""
    folder = tmp_path_factory.mktemp("whole")
    document = {
        "name": "small",
        "models": {"base": {"path": str(TINY / "base")}},
        "data": {
            "prompts": {"path": str(WORLD / "search-train.jsonl"), "limit": 12},
            "requests": {"path": str(WORLD / "general-train.jsonl"), "grader": "none", "limit": 8},
            "responses": {"path": str(WORLD / "safety-train.jsonl"), "limit": 8},
        },
        "stages": [{**LEARNING, **stage} if stage["kind"] == "reward_model" else stage for stage in STAGES],
        "logging": {"tensorboard": False, "report_every": 0},
    }
    path = folder / "recipe.yaml"
    path.write_text(yaml.safe_dump(document))
    code, output = start(path, folder / "run")
    assert code == 0, output
    return path, folder / "run"


def without(whole, stage, tmp_path):
    """A copy of the whole run in which a stage has not begun."""
    shutil.copytree(whole, tmp_path / "run")
    shutil.rmtree(tmp_path / "run/stages" / stage)
    return tmp_path / "run"


def files(workdir, stage):
    """Relative path -> content of all that a stage has left; of checkpoints the last one's sums over every bit of its state."""
    folder = workdir / "stages" / stage
    found = {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}
    rest = {name: content for name, content in found.items() if not name.startswith("checkpoints/")}
    last = max((name for name in found if name.endswith("state/manifest.json")), default=None)
    return rest if last is None else rest | {last: found[last]}


WRITE = "r1jax.pipeline.records:write_atomic"
SAMPLED = "r1jax.rewards.pool:RewardPool.submit"
SCORED = "r1jax.scoring.reward_model:RewardModel.score"
UPDATED = "r1jax.pipeline.grpo.learning:make_update"


def disturbed(whole_run, tmp_path, stage, moments, number):
    """Runs a stage of the whole run again, disturbed at each of the moments in turn."""
    path, whole = whole_run
    workdir = without(whole, stage, tmp_path)
    for moment in moments:
        code, output = start(path, workdir, moment, number)
        assert code == (-signal.SIGKILL if number == signal.SIGKILL else 75), f"{moment}\n{output}"
        assert "Traceback" not in output, output
    code, output = start(path, workdir)
    assert code == 0, output
    assert files(workdir, stage) == files(whole, stage)


def test_the_whole_run_has_all_of_it(whole_run):
    """What the tests below compare is there: judged pairs of both waves, rewards by both models, and a model that they moved."""
    stages = whole_run[1] / "stages"
    waves = sorted(f.name for f in (stages / "pairs/waves").iterdir())
    assert waves[:2] == ["00000-00", "00000-01"] and "00001-00" in waves
    assert len((stages / "pairs/data.jsonl").read_text().splitlines()) >= 2
    last = json.loads((stages / "r1/updates/000005/metrics.json").read_text())
    assert last["model_reward_helpfulness_spread"] > 0 and last["model_reward_safety_spread"] > 0
    assert {m.name for m in (stages / "r1/checkpoints").iterdir()} >= {"000004", "000006"}


@pytest.mark.parametrize(
    "moments",
    [
        pytest.param([f"before {SAMPLED} 3", f"before {WRITE} waves/00000-01/commit.json"], marks=LONG),
        [f"before {SAMPLED} 36", f"after {WRITE} waves/00001-01/commit.json"],
        pytest.param([f"before {WRITE} data.jsonl", f"after {WRITE} stages/pairs/card.md"], marks=LONG),
    ],
    ids=["sampling", "judging", "writing"],
)
def test_preference_pairs_that_are_killed(whole_run, tmp_path, moments):
    disturbed(whole_run, tmp_path, "pairs", moments, signal.SIGKILL)


@LONG
def test_preference_pairs_that_are_stopped(whole_run, tmp_path):
    """While the model answers, and while the judge compares."""
    disturbed(whole_run, tmp_path, "pairs", [f"before {SAMPLED} 3", f"before {SAMPLED} 36"], signal.SIGINT)


@pytest.mark.parametrize("stage", [pytest.param("helpfulness", marks=LONG), "safety"])
def test_a_reward_model_that_is_stopped(whole_run, tmp_path, stage):
    """While it is measured before the first update, and while it learns."""
    learn = "r1jax.pipeline.reward_model.learning:make_update"
    moments = ["before r1jax.scoring.sequences:SequenceScorer.__call__ 1"] + [f"before {learn} 1"] * (stage == "helpfulness")
    disturbed(whole_run, tmp_path, stage, moments, signal.SIGTERM)


@pytest.mark.parametrize(
    "moments",
    [
        [f"before {SAMPLED} 20", f"before {SCORED} 2", f"after {SCORED} 3"],
        [f"before {UPDATED} 2", f"before {WRITE} updates/000003/commit.json"],
        pytest.param(["after r1jax.checkpoint:save_state 1", f"before {WRITE} checkpoints/000004/commit.json"], marks=LONG),
        pytest.param(["after r1jax.checkpoint:export_model 1"], marks=LONG),
    ],
    ids=["sampling and scoring", "updates", "checkpoints", "the model"],
)
def test_rl_for_all_scenarios_that_is_killed(whole_run, tmp_path, moments):
    disturbed(whole_run, tmp_path, "r1", moments, signal.SIGKILL)


@pytest.mark.parametrize(
    "number, moments",
    [
        (signal.SIGTERM, [f"before {SAMPLED} 20", f"before {SCORED} 1"]),
        pytest.param(signal.SIGINT, [f"before {UPDATED} 1", f"before {WRITE} checkpoints/000002/commit.json"], marks=LONG),
    ],
)
def test_rl_for_all_scenarios_that_is_stopped(whole_run, tmp_path, number, moments):
    """While it samples, while reward models score, between two updates, while it saves."""
    disturbed(whole_run, tmp_path, "r1", moments, number)

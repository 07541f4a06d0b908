"""A run's logged losses are the oracle's on what it recorded, scored by transformers."""

import importlib.util
import json
import shutil
from pathlib import Path

import pytest
import yaml

from r1jax import cli

TINY = Path(__file__).parents[2] / "configs/tiny"
SPEC = importlib.util.spec_from_file_location("recorded_update", Path(__file__).with_name("recorded_update.py"))
recorded_update = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(recorded_update)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """Three updates with a KL penalty, a checkpoint before the last."""
    folder = tmp_path_factory.mktemp("run")
    recipe = yaml.safe_load((TINY / "r1_zero_qwen2.yaml").read_text())
    stage = recipe["stages"][0] | {
        "steps": 3,
        "prompts_per_rollout": 8,
        "samples_per_prompt": 4,
        "checkpoint_every": 2,
        "evaluate_every": 0,
        "benchmarks": [],
        "track": [],
        "loss": {"kl": "k3", "kl_coefficient": 0.05},
        "sampler": {"rows": 8, "lanes": 4, "chunk": 64, "prompt_bucket": 32, "completion_bucket": 128},
    }
    recipe = {
        "name": "recorded",
        "models": {"base": {"path": str(TINY / "base")}},
        "data": {"train": {"path": str(TINY / "world/search-train.jsonl")}},
        "stages": [stage],
    }
    (folder / "r.yaml").write_text(yaml.safe_dump(recipe))
    assert cli.main(["run", str(folder / "r.yaml"), "--workdir", str(folder / "w")]) == 0
    return folder / "w"


@pytest.mark.slow
def test_logged_figures_are_the_oracles(run):
    pytest.importorskip("transformers")
    rows = recorded_update.check(run)
    assert {row["step"] for row in rows} == {0, 2}  # the base, and the checkpoint that has an update after it
    assert {"loss", "kl_ref", "entropy", "ratio_mean", "weight", "tokens", "sampler_trainer_mean"} <= {
        row["figure"] for row in rows
    }
    assert all(row["equal"] for row in rows), [row for row in rows if not row["equal"]]
    by_name = {(row["step"], row["figure"]): row for row in rows}
    assert by_name[0, "kl_ref"]["logged"] == 0.0 < by_name[2, "kl_ref"]["logged"]
    assert all(abs(by_name[step, "loss"]["logged"]) > 100 * by_name[step, "loss"]["allowed"] for step in (0, 2))


@pytest.mark.slow
def test_another_loss_is_seen(run, tmp_path):
    pytest.importorskip("transformers")
    shutil.copytree(run, tmp_path / "w")
    path = tmp_path / "w/stages/zero/updates/000000/metrics.json"
    metrics = json.loads(path.read_text())
    path.write_text(json.dumps(metrics | {"loss": metrics["loss"] * 1.01}))
    shutil.rmtree(tmp_path / "w/stages/zero/checkpoints")
    wrong = [row["figure"] for row in recorded_update.check(tmp_path / "w") if not row["equal"]]
    assert wrong == ["loss"]


def test_what_can_not_be_recomputed_is_refused(tmp_path):
    stage = {
        "name": "zero",
        "model": "base",
        "minibatches": 2,
        "epochs": 1,
        "dynamic_sampling": 0,
        "overlong_filtering": False,
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({"stages": [stage], "models": {"base": {"path": "x"}}}))
    with pytest.raises(ValueError, match="minibatches is 2"):
        recorded_update.stage_settings(tmp_path, "zero")
    with pytest.raises(ValueError, match="no stage 'one'"):
        recorded_update.stage_settings(tmp_path, "one")

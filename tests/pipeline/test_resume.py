"""A run of the shipped recipe, killed and resumed, ends as one that was not."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

RECIPE = Path(__file__).parents[2] / "configs/tiny/r1_zero.yaml"
SMALL = {
    "stages.zero.steps": 6,
    "stages.zero.prompts_per_rollout": 8,
    "stages.zero.samples_per_prompt": 4,
    "stages.zero.sampler": "{rows: 8, lanes: 4, chunk: 16, prompt_bucket: 32, completion_bucket: 32}",
    "stages.zero.max_tokens": 32,
    "stages.zero.checkpoint_every": 2,
    "stages.zero.evaluate_every": 0,
    "stages.zero.track": "[]",
    "stages.zero.benchmarks": "[]",
}


def start(workdir):
    sets = [argument for key, value in SMALL.items() for argument in ("--set", f"{key}={value}")]
    command = [sys.executable, "-m", "r1jax.cli", "run", str(RECIPE), "--workdir", str(workdir), *sets]
    environment = {**os.environ, "XLA_FLAGS": ""}
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def updates(workdir):
    return {p.parent.name: json.loads(p.read_text()) for p in workdir.glob("stages/zero/updates/*/metrics.json")}


def interrupt_after(workdir, update, number):
    """Starts the run and sends it a signal as soon as that update has its record; gives the exit code."""
    child = start(workdir)
    record = workdir / f"stages/zero/updates/{update:06d}/commit.json"
    while not record.exists() and child.poll() is None:
        time.sleep(0.02)
    child.send_signal(number)
    child.communicate(timeout=300)
    return child.returncode


@pytest.mark.slow
def test_a_killed_and_a_stopped_run_end_like_an_undisturbed_one(tmp_path):
    whole = start(tmp_path / "whole")
    out, err = whole.communicate(timeout=600)
    assert whole.returncode == 0, err
    assert out.splitlines() == [str(tmp_path / "whole")]

    assert interrupt_after(tmp_path / "w", 1, signal.SIGKILL) == -signal.SIGKILL
    before = updates(tmp_path / "w")
    assert interrupt_after(tmp_path / "w", 3, signal.SIGINT) == 75
    last = start(tmp_path / "w")
    _, err = last.communicate(timeout=600)
    assert last.returncode == 0, err

    resumed = updates(tmp_path / "w")
    assert {step: resumed[step] for step in before} == before  # what had its record was not made again
    assert resumed == updates(tmp_path / "whole") and len(resumed) == 6
    models = [(tmp_path / name / "stages/zero/model/model.safetensors").read_bytes() for name in ("w", "whole")]
    assert models[0] == models[1]
    (result,) = json.loads((tmp_path / "w/results.json").read_text())
    assert result["complete"] and result["steps"] == 6
    assert (tmp_path / "w/report.html").exists()

    done = start(tmp_path / "w")  # the same command once more does nothing
    _, err = done.communicate(timeout=300)
    assert done.returncode == 0 and "done in an earlier session" in err

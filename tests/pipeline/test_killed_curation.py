"""The data-making stages as people run them: killed, and gone on with to the same bytes."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import pytest
import yaml

pytestmark = pytest.mark.slow

TINY = Path(__file__).parents[2] / "configs" / "tiny"
RECIPE = {
    "name": "curation",
    "models": {"base": {"path": str(TINY / "base")}},
    "data": {
        "train": {"path": str(TINY / "world/search-train.jsonl"), "limit": 48},
        "general": {"path": str(TINY / "world/general-train.jsonl"), "completion_field": "best"},
    },
    "benchmarks": {"test": {"path": str(TINY / "world/search-test.jsonl"), "limit": 40}},
    "stages": [
        {
            "name": "sampling",
            "kind": "rejection_sampling",
            "model": "base",
            "data": "train",
            "general": "general",
            "form": "zero",
            "samples_per_prompt": 6,
            "prompts_per_wave": 12,
            "max_tokens": 64,
            "max_prompt_tokens": 32,
            "sampler": {"rows": 4, "lanes": 4, "chunk": 8, "prompt_bucket": 32, "completion_bucket": 64},
            "selection": {"per_prompt": 2, "choose": "diverse", "domain_field": "kind"},
            "workers": {"count": 1},
        }
    ],
}
CACHE = {
    "JAX_PLATFORMS": "cpu",
    "JAX_COMPILATION_CACHE_DIR": str(Path(tempfile.gettempdir()) / f"r1jax-test-cache-{os.getuid()}"),
    "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
}


def start(recipe, workdir):
    environment = {k: v for k, v in os.environ.items() if k != "XLA_FLAGS"} | CACHE
    command = [sys.executable, "-m", "r1jax.cli", "run", str(recipe), "--workdir", str(workdir)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def left(workdir):
    """Relative path -> content, of all that the stage has left. The commit may change while a test runs: somebody works here."""
    folder = workdir / "stages" / "sampling"
    found = {str(f.relative_to(folder)): f.read_bytes() for f in folder.rglob("*") if f.is_file()}
    commit = json.loads((workdir / "environment.json").read_text())["commit"].encode()
    return found | {name: found[name].replace(commit or b"no commit", b"") for name in ("card.json", "card.md")}


def test_a_killed_stage_leaves_the_same_bytes(tmp_path):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(RECIPE))
    process = start(path, tmp_path / "whole")
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    kills, first = 0, tmp_path / "cut/stages/sampling/waves/00000-00/commit.json"
    times = []
    for awaited in ("00000-00", "00000-02"):
        process = start(path, tmp_path / "cut")
        while process.poll() is None and not (first.parents[1] / awaited / "commit.json").exists():
            time.sleep(0.005)
        if process.poll() is None:
            kills += 1
            process.send_signal(signal.SIGKILL)
        process.communicate()
        times.append(first.stat().st_mtime_ns)
    assert kills, "the run was over before it could be killed"
    process = start(path, tmp_path / "cut")
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    assert {first.stat().st_mtime_ns} == set(times), "a finished wave is never sampled again"
    cut, whole = left(tmp_path / "cut"), left(tmp_path / "whole")
    assert cut.keys() == whole.keys() and [name for name in whole if cut[name] != whole[name]] == []
    rows = [json.loads(line) for line in left(tmp_path / "whole")["data.jsonl"].decode().splitlines()]
    assert Counter(row["source"] for row in rows)["general"] == round(sum(r["source"] == "sampled" for r in rows) / 3) > 0
    results = json.loads((tmp_path / "whole" / "results.json").read_text())
    assert results[0]["figures"]["rows"] == len(rows)


def test_a_stage_killed_while_it_judges_leaves_the_same_bytes(tmp_path):
    rows = [json.loads(line) for line in open(TINY / "world/search-train.jsonl")][:24]
    text = "".join(json.dumps(row | {"grader": "none", "answer": row["solution"]}) + "\n" for row in rows)
    (tmp_path / "train.jsonl").write_text(text)
    judging = {"prompts": "plain", "max_tokens": 32, "max_prompt_tokens": 96, "temperature": 1.0, "rows": 4}
    document = {**RECIPE, "data": {"train": {"path": str(tmp_path / "train.jsonl")}}}
    stage = {**RECIPE["stages"][0], "judge": "base", "judging": judging}
    stage |= {"samples_per_prompt": 2, "workers": {"count": 1, "stop_ungraded": 1.0}}
    del stage["general"]
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({**document, "stages": [stage]}))
    process = start(tmp_path / "recipe.yaml", tmp_path / "whole")
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    process = start(tmp_path / "recipe.yaml", tmp_path / "cut")
    first = tmp_path / "cut/stages/sampling/waves/00003-00/commit.json"
    while process.poll() is None and not first.exists():
        time.sleep(0.005)
    assert process.poll() is None, "the run was over before it could be killed"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    judged = first.stat().st_mtime_ns
    process = start(tmp_path / "recipe.yaml", tmp_path / "cut")
    output, _ = process.communicate(timeout=600)
    assert process.returncode == 0, output
    assert first.stat().st_mtime_ns == judged, "a finished wave is never sampled again"
    cut, whole = left(tmp_path / "cut"), left(tmp_path / "whole")
    assert cut.keys() == whole.keys() and [name for name in whole if cut[name] != whole[name]] == []
    assert "judge: incorrect" in json.loads(whole["card.json"])["rejected"]

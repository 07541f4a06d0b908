"""From the installed command: workers map no jax, and a user's own reward lies beside the recipe."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

TINY = Path(__file__).parents[2] / "configs/tiny"
MINE = """
import os, sys

def short(request):
    heavy = sum(name in line for line in open("/proc/self/maps") for name in ("jaxlib", "libcuda", "libtpu"))
    with open(os.path.join(os.path.dirname(__file__), f"worker-{os.getpid()}"), "w") as file:
        file.write(f"{heavy} {'jax' in sys.modules} {sys.argv[0]}")
    return float(len(request.completion) < 60) if "x" not in request.completion else None
"""


@pytest.mark.slow
def test_the_installed_command(tmp_path):
    (tmp_path / "beside_the_recipe.py").write_text(MINE)
    stage = {
        "name": "zero", "kind": "grpo", "model": "base", "data": "train", "steps": 1, "prompts_per_rollout": 4,
        "samples_per_prompt": 4, "minibatches": 1, "max_tokens": 24, "max_prompt_tokens": 32, "row_tokens": 64,
        "rows_per_microbatch": 4, "reward_settings": {"overlong_cache": 4},
        "sampler": {"rows": 4, "lanes": 4, "chunk": 8, "prompt_bucket": 32, "completion_bucket": 32},
        "rewards_by_type": {
            "reasoning": {"accuracy": 1, "format": 1, "language": 1, "overlong": 1, "beside_the_recipe:short": 0.5},
            "general": {"format": 1, "language": 1},
        },
    }  # fmt: skip
    rows = [json.loads(line) for line in (TINY / "world/search-train.jsonl").read_text().splitlines()[:6]]
    rows += [{**row, "type": "general", "grader": "none"} for row in rows]
    (tmp_path / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    document = {
        "name": "mine", "models": {"base": {"path": str(TINY / "base")}}, "data": {"train": {"path": "rows.jsonl"}}, "stages": [stage],
    }  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(document))
    command = Path(sys.executable).with_name("r1jax")
    if not command.exists():
        pytest.skip(f"there is no {command}: r1jax is not installed")
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    environment = {key: value for key, value in os.environ.items() if key not in ("XLA_FLAGS", "PYTHONPATH")}
    done = subprocess.run(
        [command, "run", "../recipe.yaml", "--workdir", "../run"],
        cwd=elsewhere,
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr
    workers = [path.read_text().split(" ", 2) for path in tmp_path.glob("worker-*")]
    assert workers and all(heavy == "0" and loaded == "False" for heavy, loaded, _ in workers)
    assert all(program.endswith("r1jax/rewards/worker.py") for *_, program in workers)
    metrics = json.loads((tmp_path / "run/stages/zero/updates/000000/metrics.json").read_text())
    for name in ("accuracy", "format", "language", "overlong", "beside_the_recipe:short"):
        assert f"reward_{name}" in metrics
    assert metrics["ungraded"] == 0  # general prompts need no accuracy

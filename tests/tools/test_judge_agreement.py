"""The command that holds a model's judgements against labels."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_it_prints_the_figures_of_both_forms():
    model, rows = (str(ROOT / "configs/tiny" / path) for path in ("deepseek_base", "world/judgements-test.jsonl"))
    options = "--limit 6 --prompts plain --max-tokens 32 --max-prompt-tokens 96 --rows 4 --pair-judgements 2".split()
    command = [sys.executable, str(ROOT / "tools/benchmarks/judge_agreement.py"), model, rows, *options]
    done = subprocess.run(command, capture_output=True, text=True, env={"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"})
    assert done.returncode == 0, done.stderr
    lines = [line.split() for line in done.stdout.splitlines()]
    assert [line for line in lines if len(line) == 1] == [["reference"], ["pair"]]
    assert [line for line in lines if line[0] == "rows"] == [["rows", "2"], ["rows", "4"]]
    assert {"agreement", "agreement_interval", "ungraded", "exact", "contradict", "first"} <= {line[0] for line in lines}

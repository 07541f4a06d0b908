"""The room's page says what is there, and its code runs."""

import re
from pathlib import Path

from r1jax import rewards
from r1jax.rewards.graders import GRADERS
from r1jax.rewards.parts import PARTS

PAGE = (Path(rewards.__file__).parent / "README.md").read_text(encoding="utf-8")


def test_its_code_runs():
    blocks = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert len(blocks) == 2
    for block in blocks:
        exec(block, {})


def table(title):
    section = PAGE.partition(f"## {title}\n")[2].partition("\n## ")[0]
    return {
        name
        for line in section.splitlines()
        if line.startswith("| `")
        for name in re.findall(r"`([^`]+)`", line.split("|")[1])
    }


def test_its_tables_name_every_grader_and_part():
    assert table("Graders") | {"instructions_loose"} == set(GRADERS)
    assert table("Parts") - {"package.module:function"} == set(PARTS)

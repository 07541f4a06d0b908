"""The notebooks run from top to bottom, and show what they say."""

import ast
import re
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

LOSSES = Path(__file__).with_name("losses.ipynb")


def code(notebook):
    return "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "code")


def test_losses_imports_nothing_of_r1jax_but_its_losses():
    imported = set()
    for node in ast.walk(ast.parse(code(nbformat.read(LOSSES, 4)))):
        if isinstance(node, ast.ImportFrom):
            imported.add(node.module)
        elif isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
    assert {name for name in imported if name.startswith("r1jax")} == {"r1jax.losses"}


@pytest.mark.slow
def test_losses_runs_and_every_variant_learns(monkeypatch):
    monkeypatch.setenv("XLA_FLAGS", "")  # one device, as a notebook has it
    notebook = nbformat.read(LOSSES, 4)
    for cell in notebook.cells:
        cell.pop("outputs", None)
    NotebookClient(notebook, timeout=300, kernel_name="python3").execute()
    outputs = [o for cell in notebook.cells for o in cell.get("outputs", [])]
    assert sum("image/png" in o.get("data", {}) for o in outputs) == 4
    printed = "".join(o.text for o in outputs if o.output_type == "stream" and o.name == "stdout")
    found = re.findall(r"first rollout ([\d.]+), in the last ([\d.]+)", printed)
    assert len(found) == 5
    assert all(float(first) < 0.05 and float(last) > 0.9 for first, last in found)

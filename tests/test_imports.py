"""design.md's table: which room may import what, read from the source, lazy imports included; and what is light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import r1jax

ROOT = Path(r1jax.__file__).parent

# "jax, numpy, flax, optax, etils are free from ops/ up, except in data/"; etils' paths load no jax and are free everywhere.
FREE = {"jax", "numpy", "flax", "optax", "etils"}

# room -> (rooms of r1jax, packages) besides the standard library and its own
ROOMS = {
    "config": (set(), {"yaml"}),
    "losses": (set(), {"jax", "numpy"}),
    "rewards": (set(), {"numpy", "sympy", "mpmath"}),
    "reporting": (set(), {"numpy", "rich", "plotly", "yaml", "jinja2", "markupsafe", "etils", "tensorboardX", "wandb"}),
    "sharding": (set(), {"jax", "numpy"}),
    "ops": ({"sharding"}, FREE),
    "models": ({"ops", "sharding"}, FREE),
    "data": (
        set(),
        {
            "grain",
            "array_record",
            "tensorflow_datasets",
            "pyarrow",
            "tokenizers",
            "sentencepiece",
            "numpy",
            "jinja2",
            "etils",
        },
    ),
    "checkpoint": ({"models", "sharding", "data"}, FREE | {"orbax", "safetensors", "ml_dtypes"}),
    "rollout": ({"models", "ops", "sharding"}, FREE),
    "scoring": ({"models", "rollout", "data", "ops", "sharding", "rewards"}, FREE),
    "training": ({"losses", "models", "ops", "sharding", "data", "checkpoint"}, FREE),
    "evaluation": ({"rollout", "rewards", "scoring", "data"}, FREE),
}
LOWER = ["data", "checkpoint", "rollout", "scoring", "training", "evaluation"]
for room in LOWER:  # "Rooms from data/ up may import config and reporting"
    ROOMS[room][0].update({"config", "reporting"})
# pipeline imports all above; the command line everything.
ROOMS["pipeline"] = (set(ROOMS), FREE | {"yaml", "orbax"})
ROOMS["commands"] = ({*ROOMS}, {"numpy"})
ROOMS["cli"] = ({"commands"}, set())
ROOMS["__init__"] = (set(), set())


def room_of(path):
    first = path.relative_to(ROOT).parts[0]
    return first.removesuffix(".py")


def imports_of(path):
    """(line, dotted name) of every import, wherever it stands; relative ones are resolved."""
    package = ["r1jax", *path.relative_to(ROOT).parts[:-1]]
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) + 1 - node.level] if node.level else []
            module = ".".join([*base, *([node.module] if node.module else [])])
            # "from r1jax import config" names a room
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def violations(path):
    room = room_of(path)
    rooms, packages = ROOMS[room]
    for line, name in imports_of(path):
        first, _, rest = name.partition(".")
        if first == "r1jax":
            imported = rest.partition(".")[0]
            if imported in ROOMS and imported not in rooms | {room}:
                yield f"{path.relative_to(ROOT)}:{line} imports r1jax.{imported}"
        elif first not in sys.stdlib_module_names and first not in packages:
            yield f"{path.relative_to(ROOT)}:{line} imports {first}"


FILES = sorted(ROOT.rglob("*.py"))


def test_every_file_is_in_a_room_of_the_table():
    assert {room_of(path) for path in FILES} <= set(ROOMS)


def test_rooms_import_only_what_the_table_says():
    assert [v for path in FILES for v in violations(path)] == []


def test_the_check_finds_what_it_should(tmp_path, monkeypatch):
    monkeypatch.setattr(f"{__name__}.ROOT", tmp_path)
    (tmp_path / "rewards").mkdir()
    path = tmp_path / "rewards/a.py"
    path.write_text(
        "import os\ndef f():\n    import jax.numpy\n    from .. import ops\n    from r1jax.models.config import X\n"
    )
    assert [v.partition(" ")[2] for v in violations(path)] == ["imports jax", "imports r1jax.ops", "imports r1jax.models"]


@pytest.mark.parametrize(
    "module, heavy",
    [
        ("r1jax", {"jax", "numpy", "yaml"}),
        ("r1jax.cli", {"jax", "numpy", "yaml"}),
        ("r1jax.config", {"jax", "numpy"}),
        ("r1jax.rewards", {"jax", "flax"}),
        ("r1jax.reporting", {"jax", "flax", "plotly"}),
        ("r1jax.pipeline.runner", {"jax", "flax"}),
        ("r1jax.data", {"jax", "flax"}),
    ],
)
def test_importing_loads_nothing_heavy(module, heavy):
    script = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert heavy.isdisjoint(done.stdout.split())

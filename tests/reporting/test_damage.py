"""Any file of a work directory may be missing, cut short, or hold something else: the report is written all the same."""

import json
import os
import random

import pytest

from r1jax.reporting import NoRun, results_table, write_report

VALUES = [None, True, -1, 1e400, "x", "</script>", [], [[1]], {}, {"a": {"b": []}}, [None, 3, {"name": []}], 10**400]


def damage(value, rng):
    """The same JSON with one of its values replaced."""
    if isinstance(value, dict) and value and rng.random() < 0.85:
        key = rng.choice(sorted(value))
        return {**value, key: damage(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.85:
        at = rng.randrange(len(value))
        return [*value[:at], damage(value[at], rng), *value[at + 1 :]]
    return rng.choice(VALUES)


def spoil(path, rng):
    with open(path, "rb") as file:
        data = file.read()
    kind = rng.random()
    if kind < 0.15:
        os.remove(path)
        return
    if kind < 0.3:
        data = data[: rng.randrange(len(data) + 1)]
    elif kind < 0.4:
        data = rng.randbytes(rng.randrange(40))
    else:
        text = data.decode(errors="replace")
        lines = text.splitlines() if path.endswith(".jsonl") else [text]
        try:
            lines = [json.dumps(damage(json.loads(line), rng)) for line in lines]
        except ValueError:
            lines = ["{"]
        data = "\n".join(lines).encode()
    with open(path, "wb") as file:
        file.write(data)


@pytest.mark.parametrize("seed", range(3))
def test_spoilt_files_cost_themselves_only(make_run, seed):
    rng = random.Random(seed)
    workdir = make_run(6, evaluations=3, views=4, complete=bool(seed % 2), stages=("zero", "one"))
    with open(f"{workdir}/environment.json", "w") as file:
        json.dump({"device": "cpu", "devices": 1, "packages": {"jax": "0"}, "commit": "abc"}, file)
    with open(f"{workdir}/timing/status.json", "w") as file:
        json.dump({"state": "failed", "reason": "why", "process": 1}, file)
    with open(f"{workdir}/notes.json", "w") as file:
        json.dump([{"title": "t", "text": "x", "columns": ["a"], "rows": [["1"]]}], file)
    paths = sorted(os.path.join(folder, name) for folder, _, names in os.walk(workdir) for name in names)
    for _ in range(4):
        for path in rng.sample(paths, 12):
            if os.path.exists(path):
                spoil(path, rng)
        try:
            page = open(write_report(workdir), encoding="utf-8").read()
            results_table(workdir)
        except NoRun:
            return  # nothing of it is left
        assert page.endswith("</html>") and page.count("</script>") == 6


def test_a_folder_in_a_files_place(make_run):
    workdir = make_run(3, views=2)
    for name in ("stages/r1_zero/updates/000001/metrics.json", "results.json", "stages/r1_zero/views/00000.json"):
        os.remove(f"{workdir}/{name}")
        os.makedirs(f"{workdir}/{name}")
    open(f"{workdir}/stages/r1_zero/evaluations/file", "w").close()
    open(f"{workdir}/stages/readme", "w").close()
    assert "2 files of this run could not be read" in open(write_report(workdir), encoding="utf-8").read()


@pytest.mark.parametrize("kind", ["my.module:Class", "evaluate", ""])
def test_a_stage_that_trains_nothing(make_run, kind):
    workdir = make_run(0, evaluations=1)
    recipe = {"name": "only asked", "stages": [{"name": "r1_zero", "kind": kind}, {"name": "untouched", "kind": "sft"}]}
    with open(f"{workdir}/recipe.yaml", "w") as file:
        json.dump(recipe, file)
    page = open(write_report(workdir), encoding="utf-8").read()
    assert "only asked" in page and "held_out, problem 1" in page and "untouched" in page
    assert [row[1] for row in results_table(workdir)[1] if row[1]] == ["held_out (512 × 4)"]


def test_a_run_whose_recipe_is_gone(make_run):
    workdir = make_run(4)
    os.remove(f"{workdir}/recipe.yaml")
    assert "r1_zero" in open(write_report(workdir), encoding="utf-8").read()

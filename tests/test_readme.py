"""Every command in README.md and in configs/*/README.md is either run here, or parsed and dry-run and listed with the reason.

A command that is in neither list, or a listed one that no page has any more, fails ``test_every_command_is_listed``: add it to ``RUN``
(and to the story of ``test_the_commands_run``) or to ``DRY``. What a command is: a line of a code block or of an indented block, or
words between backticks, that begin as ``COMMAND`` says.
"""

from __future__ import annotations

import argparse
import glob
import importlib
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from r1jax import cli, config

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "configs/README.md", *sorted((ROOT / "configs").glob("*/README.md"))]
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```", re.DOTALL | re.MULTILINE)
COMMAND = re.compile(
    rf"(?:r1jax (?:{'|'.join(cli.COMMANDS)})\b|tools/\w+\.sh\b|python (?:tools|tests)/|pip install\b|pytest\b|curl\b).*"
)

TINY = "configs/tiny"
SMOLLM2 = "configs/smollm2"
GSM8K = "https://raw.githubusercontent.com/openai/grade-school-math/master/grade_school_math/data"
XSTEST = "https://raw.githubusercontent.com/paul-rottger/exaggerated-safety/d7bb5bd738c1fcbc36edd83d5e7d1b71a3e2d84d/xstest_prompts.csv"

# Run by test_the_commands_run, as they stand: capital words and the run of the quickstart stand for tiny things there.
RUN = {
    r"r1jax generate runs/r1_zero/stages/zero/model --prompt $'From 7, 9, 6 make 13.\n' --samples 4",
    f"r1jax evaluate runs/r1_zero/stages/zero/model --benchmark {TINY}/world/search-test.jsonl --temperature 1 --top-p 1 "
    "--max-tokens 120",
    "r1jax run RECIPE",
    "r1jax generate MODEL --prompt TEXT",
    "r1jax chat MODEL",
    "r1jax evaluate MODEL --benchmark FILE.jsonl",
    "r1jax convert HF_DIR OUT_DIR",
    "r1jax export MODEL OUT_DIR",
    "r1jax models",
    "r1jax report WORKDIR",
    f"python tools/make_world.py --seed 0 --out {TINY}/world",
}

# Parsed and dry-run: arguments by the program's own parser, recipes by r1jax's own loader, paths looked up.
DRY = {
    "tools/quickstart.sh": "installs from the network; its run is the first of test_the_commands_run",
    "tools/test.sh": "installs from the network, and runs this",
    "tools/test.sh fast": "the same",
    "pip install .": "installs from the network",
    "pytest tests/losses/test_conformance.py --loss package.module:function": "tests/losses runs it with losses of its own",
    "r1jax run my_zero.yaml --workdir runs/my_zero --set stages.zero.steps=200": "a model of 1.5B parameters; hours",
    f"r1jax run {TINY}/r1_zero.yaml --set seed=R": "minutes; run with fewer steps as the quickstart's",
    f"r1jax run {TINY}/r1_zero_qwen2.yaml --set seed=R --set models.base.path=BASE": "minutes",
    f"r1jax run {TINY}/r1_reasoning.yaml --set seed=R": "half an hour and more",
    f"r1jax run {TINY}/r1.yaml": "half an hour; tests/pipeline/test_whole_recipe.py runs it at its smallest",
    f"r1jax run {TINY}/r1.yaml --set seed=R": "the same",
    f"r1jax run {TINY}/hacking.yaml --set seed=S": "minutes",
    f"r1jax run {TINY}/judge.yaml --set seed=S": "minutes",
    f"r1jax run {TINY}/control_random_reward.yaml": "minutes; test_every_recipe_of_configs_is_read reads the other controls",
    f"python tools/make_base.py --seed 0 --out {TINY}/base": "7 minutes",
    f"python tools/make_base.py --architecture deepseek_v3 --out {TINY}/deepseek_base": "13 minutes",
    f"python tools/make_base.py --architecture llama --out {TINY}/llama_base": "7 minutes",
    f"python tools/make_base.py --seed 0 --no-check --textbook-steps 2000 --mixture-steps 1500 --out {TINY}/base_no_check": (
        "minutes"
    ),
    "pip install '.[gguf]'": "installs from the network",
    f"python tools/get_smollm2.py --out {SMOLLM2}/SmolLM2-135M-Instruct": "93 MB from the network; tests/tools runs it",
    f"curl -L -o {SMOLLM2}/gsm8k_train.jsonl {GSM8K}/train.jsonl": "the network",
    f"curl -L -o {SMOLLM2}/gsm8k_test.jsonl {GSM8K}/test.jsonl": "the network",
    f"r1jax chat {SMOLLM2}/SmolLM2-135M-Instruct": "needs the model; tests/tools talks with it",
    f"r1jax evaluate {SMOLLM2}/SmolLM2-135M-Instruct --benchmark {SMOLLM2}/gsm8k_test.jsonl --template chat --max-tokens 256": (
        "needs the model, and hours; tests/tools examines it on a few problems"
    ),
    f"curl -L -o {SMOLLM2}/xstest.csv {XSTEST}": "the network",
    f"r1jax evaluate {SMOLLM2}/SmolLM2-135M-Instruct --benchmark {SMOLLM2}/xstest.csv --template chat --samples 1 "
    "--max-tokens 64": "needs the model, and minutes; tests/test_cli.py measures a tiny model so",
    f"r1jax run {SMOLLM2}/gsm8k_zero.yaml": "needs the model; half an hour",
    "python tests/pipeline/recorded_update.py runs/smollm2_gsm8k_zero": "needs that run; tests/pipeline runs it on a tiny one",
}


# ---------------------------------------------------------------------------------------------- what the pages say
def commands_of(text: str) -> list[str]:
    """The commands of a page, without the comments behind them."""
    lines = [line for _, block in BLOCK.findall(text) for line in block.split("\n")]
    rest = BLOCK.sub("", text)
    lines += re.findall(r"^    (\S.*)$", rest, re.MULTILINE)
    lines += re.findall(r"`([^`\n]+)`", rest)
    found = [COMMAND.match(line.strip()) for line in lines]
    return [re.sub(r"\s+#\s.*", "", match[0]).strip() for match in found if match]


def every_command() -> dict[str, str]:
    """Command -> the page that has it."""
    return {c: str(page.relative_to(ROOT)) for page in PAGES for c in commands_of(page.read_text(encoding="utf-8"))}


def recipes() -> dict[str, dict]:
    """Name -> document of each whole recipe that a page shows."""
    blocks = [b for page in PAGES for kind, b in BLOCK.findall(page.read_text(encoding="utf-8")) if kind == "yaml"]
    documents = [yaml.safe_load(block) for block in blocks]
    return {d["name"]: d for d in documents if isinstance(d, dict) and "stages" in d}


def words(command: str) -> list[str]:
    """As a shell would take it; ``$'...'`` too."""
    done = subprocess.run(["bash", "-c", f"set -f; printf '%s\\0' {command}"], capture_output=True, check=True)
    return done.stdout.decode().split("\0")[:-1]


def test_what_a_command_is():
    page = "a `r1jax models --json`, `r1jax/config`\n\n    pip install .  # a comment\n\n```\ntools/test.sh\nls\n```\n`the r1jax run`\n"
    assert commands_of(page) == ["tools/test.sh", "pip install .", "r1jax models --json"]
    assert words(r"a $'b\n' 'c d' *") == ["a", "b\n", "c d", "*"]


def test_no_page_has_a_figure_to_come():
    for page in PAGES:
        assert not re.findall(r"@[A-Z]\w*@|\bTODO\b", page.read_text(encoding="utf-8")), page


def test_every_command_is_listed():
    listed = RUN | DRY.keys()
    new = {c: page for c, page in every_command().items() if c not in listed}
    assert not new, f"neither run nor dry-run: put them into RUN or DRY of {__file__}: {new}"
    gone = listed - every_command().keys()
    assert not gone, f"listed, but on no page: {gone}"
    assert not RUN & DRY.keys()


# ---------------------------------------------------------------------------------------------- dry runs
class Parsed(Exception):
    """A program has parsed its arguments, and would now begin."""


def dry_r1jax(arguments: list[str], monkeypatch) -> None:
    parsed = cli.make_parser().parse_args(arguments)
    if parsed.command != "run" or parsed.recipe.isupper():
        return
    shown = Path(parsed.recipe).stem in recipes()
    files = [parsed.recipe] if shown else sorted(glob.glob(str(ROOT / parsed.recipe)))
    assert files, f"there is no {parsed.recipe}"
    for file in files:
        overrides = [x for x in parsed.overrides if not x.partition("=")[2].isupper()]  # seed=R
        if shown:
            recipe = config.read_recipe(config.apply_overrides(recipes()[Path(file).stem], overrides))
        else:
            recipe = config.load_recipe(file, overrides)
        assert recipe.stages
        for stage in recipe.stages:
            module, _, name = config.BUILT_IN_KINDS[stage.kind][1].partition(":")
            getattr(importlib.import_module(module), name)(stage.name, stage.settings)  # refuses what can't be run
        for override in parsed.overrides:
            with pytest.raises(config.RecipeError):  # a key that is misspelt would be seen
                config.read_recipe(config.apply_overrides(config.to_document(recipe), ["x" + override]))


def dry_python(arguments: list[str], monkeypatch) -> None:
    script = ROOT / arguments[0]
    assert script.is_file()
    monkeypatch.setattr(sys, "argv", [str(script), *arguments[1:]])
    monkeypatch.syspath_prepend(str(script.parent))
    real = argparse.ArgumentParser.parse_args

    def parse(self, *given, **keywords):
        real(self, *given, **keywords)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
    with pytest.raises(Parsed):
        importlib.import_module(script.stem).main()


def dry_shell(script: str, arguments: list[str]) -> None:
    path = ROOT / script
    assert os.access(path, os.X_OK)
    subprocess.run(["bash", "-n", str(path)], check=True)
    assert all(re.search(rf"\b{word}\b", path.read_text()) for word in arguments)


def dry_pip(arguments: list[str]) -> None:
    extras = set(re.findall(r'^        "(\w+)": \[', (ROOT / "setup.py").read_text(), re.MULTILINE))
    assert {"test", "cuda", "parquet"} <= extras
    assert arguments[0] == "install"
    for place in arguments[1:]:
        match = re.fullmatch(r"(?:-e )?\.(?:\[([\w,]+)\])?", place)
        assert match, f"{place} is not this repository"
        assert not match[1] or set(match[1].split(",")) <= extras


def dry_pytest(arguments: list[str]) -> None:
    options = " ".join(p.read_text() for p in (ROOT / "tests").glob("**/conftest.py"))
    for word in arguments:
        if word.startswith("--"):
            assert f'"{word}"' in options
        elif word.startswith("tests/"):
            assert (ROOT / word).exists()


def dry_curl(arguments: list[str]) -> None:
    options = argparse.ArgumentParser()
    options.add_argument("-L", action="store_true", required=True)
    options.add_argument("-o", type=Path, required=True)
    options.add_argument("url")
    parsed = options.parse_args(arguments)
    assert parsed.url.startswith("https://")
    folder = ROOT / parsed.o.parent
    ignored = subprocess.run(["git", "check-ignore", "-q", str(parsed.o)], cwd=ROOT).returncode in (0, 128)  # 128: no git
    assert folder.is_dir() and ignored, f"{parsed.o} would be a new file in the repository: add it to .gitignore"
    named = [p.name for p in [*folder.glob("*.yaml"), *folder.glob("*.md")] if parsed.o.name in p.read_text()]
    assert named


@pytest.mark.parametrize("command", sorted(DRY))
def test_dry_run(command, monkeypatch):
    program, *arguments = words(command)
    if program == "r1jax":
        dry_r1jax(arguments, monkeypatch)
    elif program == "python":
        dry_python(arguments, monkeypatch)
    elif program.endswith(".sh"):
        dry_shell(program, arguments)
    else:
        {"pip": dry_pip, "pytest": dry_pytest, "curl": dry_curl}[program](arguments)


@pytest.mark.parametrize("command", sorted(c for c in RUN if c.startswith("r1jax")))
def test_what_is_run_later_parses(command):
    cli.make_parser().parse_args(words(command)[1:])


def test_every_recipe_that_a_page_shows_is_read():
    assert "my_zero" in recipes()
    for document in recipes().values():
        assert config.read_recipe(document).stages


def test_every_recipe_of_configs_is_read():
    files = sorted((ROOT / "configs").rglob("*.yaml"))
    assert ROOT / "configs" / "r1_671b.yaml" in files and len({file.parent for file in files}) > 4
    for file in files:
        assert config.load_recipe(str(file)).stages
        head = file.read_text().partition("\nname:")[0]
        assert f"r1jax run {file.relative_to(ROOT)}" in head, f"{file}: its head comment lacks its command"


# ---------------------------------------------------------------------------------------------- runs
@pytest.mark.slow
def test_the_commands_run(tmp_path):
    """Everything in RUN, one after another, in a folder that looks like the repository's after a quickstart of two steps."""
    world = tmp_path / TINY / "world"
    shutil.copytree(ROOT / TINY / "world", world)
    for name in ("search-test.jsonl", "search-dev.jsonl"):  # a few problems only
        rows = (world / name).read_text().splitlines(keepends=True)[:6]
        (world / name).write_text("".join(rows))
    shutil.copy(ROOT / TINY / "notes.json", tmp_path / TINY)
    recipe = config.load_recipe(str(ROOT / TINY / "r1_zero.yaml"))
    document = config.to_document(recipe)
    document["notes"] = ""
    document["models"]["base"]["path"] = str(ROOT / TINY / recipe.models["base"].path)
    (tmp_path / TINY / "r1_zero.yaml").write_text(yaml.safe_dump(document))
    few = ["steps=2", "evaluate_every=0", "prompts_per_rollout=8", "max_tokens=48"]
    few = [word for x in few for word in ("--set", f"stages.zero.{x}")]
    python = [sys.executable, "-m", "r1jax.cli"]
    environment = os.environ | {"XLA_FLAGS": ""}
    done = set()

    def run(command: str, places: dict[str, str] | None = None, more: tuple[str, ...] = (), text: str = "") -> str:
        arguments = [(places or {}).get(word, word) for word in words(command)] + list(more)
        whole = (
            [*python, *arguments[1:]]
            if arguments[0] == "r1jax"
            else [sys.executable, str(ROOT / arguments[1]), *arguments[2:]]
        )
        finished = subprocess.run(
            whole, cwd=tmp_path, input=text, capture_output=True, text=True, timeout=900, env=environment
        )
        assert finished.returncode == 0, f"{command}: {finished.stderr}"
        done.add(command)
        return finished.stdout

    model = "runs/r1_zero/stages/zero/model"
    workdir = run("r1jax run RECIPE", {"RECIPE": f"{TINY}/r1_zero.yaml"}, more=tuple(few)).splitlines()[-1]
    assert (tmp_path / workdir).samefile(tmp_path / "runs/r1_zero")
    generated = run(r"r1jax generate runs/r1_zero/stages/zero/model --prompt $'From 7, 9, 6 make 13.\n' --samples 4")
    assert generated.count("--- prompt 1, sample") == 4
    evaluated = run(
        f"r1jax evaluate runs/r1_zero/stages/zero/model --benchmark {TINY}/world/search-test.jsonl --temperature 1 --top-p 1 "
        "--max-tokens 120"
    )
    assert "pass@1 " in evaluated and re.search(r"problems +6\n", evaluated)
    assert run("r1jax generate MODEL --prompt TEXT", {"MODEL": model, "TEXT": "From 7, 9 make 16.\n"}).strip()
    said = run("r1jax chat MODEL", {"MODEL": model}, text="From 7, 9 make 16.\n/exit\n")
    assert said.strip()
    places = {"MODEL": model, "FILE.jsonl": f"{TINY}/world/search-dev.jsonl"}
    assert "pass@1 " in run("r1jax evaluate MODEL --benchmark FILE.jsonl", places)
    run("r1jax convert HF_DIR OUT_DIR", {"HF_DIR": model, "OUT_DIR": "converted"})
    run("r1jax export MODEL OUT_DIR", {"MODEL": "converted", "OUT_DIR": "exported"})
    assert (
        json.loads((tmp_path / "exported/config.json").read_text())["model_type"]
        == (json.loads((tmp_path / model / "config.json").read_text())["model_type"])
    )
    assert "qwen2" in run("r1jax models")
    (tmp_path / "runs/r1_zero/report.html").unlink()
    run("r1jax report WORKDIR", {"WORKDIR": "runs/r1_zero"})
    assert (tmp_path / "runs/r1_zero/report.html").stat().st_size > 10_000
    shutil.rmtree(world)
    run(f"python tools/make_world.py --seed 0 --out {TINY}/world")
    theirs = {p.name: p.read_bytes() for p in (ROOT / TINY / "world").iterdir()}
    assert {p.name: p.read_bytes() for p in world.iterdir()} == theirs
    assert done == RUN

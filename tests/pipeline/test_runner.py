"""The runner with a stage of its own: order, inputs, resuming, refusing, stopping, results."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml

from r1jax import cli, config
from r1jax.pipeline import records, runner
from r1jax.pipeline.runner import running, walk
from r1jax.pipeline.runner.signals import stop_on_signals
from r1jax.pipeline.runner.workdir import WorkdirError
from r1jax.pipeline.stage import StopRequested

STAGE = '''
import json, os, pathlib, time
from dataclasses import dataclass, field
from r1jax.config import DataSource, WorkerSettings
from r1jax.pipeline import records
from r1jax.pipeline.stage import Artefacts, StopRequested


@dataclass(frozen=True)
class Settings:
    steps: int = 3
    sleep: float = 0.0
    fail_at: int = -1
    stop_at: int = -1
    pause_at: int = -1
    makes_model: bool = True
    rewards: dict[str, float] = field(default_factory=dict)
    workers: WorkerSettings = WorkerSettings()


class Toy:
    """Each update appends a letter to the text of its model."""

    settings = Settings

    def __init__(self, name, settings):
        self.name, self.settings = name, settings

    def run(self, inputs, workdir, context):
        if "data" in inputs:
            assert isinstance(inputs["data"], DataSource) and os.path.isabs(inputs["data"].path)
        text = (pathlib.Path(inputs["model"]) / "text").read_text()
        for step in range(1, self.settings.steps + 1):
            text += self.name[0]
            update = workdir / "updates" / f"{step:06d}"
            if records.committed(update):
                continue
            if context.stop():
                raise StopRequested
            if step == self.settings.fail_at and not os.path.exists("mended"):
                raise RuntimeError("the stage broke")
            if step == self.settings.stop_at and not os.path.exists("mended"):
                context.stop.signal = "SIGTERM"
                raise StopRequested
            records.write_atomic(update / "metrics.json", json.dumps({"step": step, "clock": time.time_ns()}))
            records.commit(update, ["metrics.json"])
            print("update", step, flush=True)
            time.sleep(self.settings.sleep)
            while step == self.settings.pause_at and not context.stop():
                time.sleep(0.02)
        if not self.settings.makes_model:
            return Artefacts(steps=self.settings.steps)
        records.write_atomic(workdir / "model" / "text", text)
        return Artefacts(model=str(workdir / "model"), steps=self.settings.steps, figures={"letters": len(text)})
'''

RECIPE = {
    "name": "toy",
    "models": {"base": {"path": "base"}},
    "data": {"train": {"path": "train.jsonl"}},
    "benchmarks": {"held_out": {"path": "held_out.jsonl"}, "other": {"path": "held_out.jsonl", "limit": 1}},
    "stages": [
        {"name": "first", "kind": "toy_stage:Toy", "model": "base", "data": "train", "benchmarks": ["held_out"]},
        {"name": "second", "kind": "toy_stage:Toy", "model": "stage:first", "benchmarks": ["held_out", "other"]},
    ],
}


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A folder with the recipe and its inputs, and the process standing elsewhere."""
    home = tmp_path / "home"
    (home / "base").mkdir(parents=True)
    (home / "base/text").write_text("base")
    (home / "train.jsonl").write_text("{}\n")
    (home / "held_out.jsonl").write_text('{"problem": "1 + 1", "answer": "2"}\n')
    (home / "broken.jsonl").write_text('{"problem": "1 + 1"}\n')
    (home / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    (tmp_path / "modules").mkdir()
    (tmp_path / "modules/toy_stage.py").write_text(STAGE)
    (tmp_path / "modules/my_rewards.py").write_text(
        "def length(request): return 1.0\ndef grade(row, text): return 'right', ''\n"
    )
    monkeypatch.syspath_prepend(tmp_path / "modules")
    monkeypatch.delitem(sys.modules, "toy_stage", raising=False)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    return home


@pytest.fixture
def evaluated(monkeypatch):
    """Benchmarks answered by the length of the model's text; the list says which were really run."""
    runs = []

    def evaluate_model(path, benchmarks, context):
        for name in benchmarks:
            text = open(os.path.join(path, "text")).read()
            runs.append((name, text))
            sample = {"id": "0", "problem": "p", "completion": text, "right": False, "tokens": 1, "finish_reason": "stop"}
            yield name, {"problems": 1, "pass@1": float(len(text))}, [sample | {"parts": {}}]

    monkeypatch.setattr(walk, "evaluate_model", evaluate_model)
    monkeypatch.setattr("r1jax.reporting.write_report", lambda workdir: f"{workdir}/report.html", raising=False)
    return runs


def run(home, *overrides, workdir=None):
    return runner.run_recipe(str(home / "recipe.yaml"), workdir, overrides)


def import_path(folder):
    """For a process of its own: the folder, and where this one looks first."""
    return os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))


def clocks(workdir):
    return [json.loads(p.read_text())["clock"] for p in sorted(workdir.glob("stages/*/updates/*/metrics.json"))]


def test_a_session_says_how_it_ended_and_its_figures_are_exported(home, evaluated):
    def status(workdir):
        return json.loads((workdir / "timing/status.json").read_text())

    workdir = run(home)
    assert status(workdir)["state"] == "complete" and status(workdir)["ended"] >= status(workdir)["began"]
    assert sorted(p.parent.name for p in workdir.glob("tensorboard/*/events.out.tfevents.*")) == ["first", "second"]
    with pytest.raises(RuntimeError):
        run(home, "stages.second.fail_at=2", workdir="failing")
    failed = json.loads(open("failing/timing/status.json").read())
    assert (failed["state"], failed["reason"]) == ("failed", "RuntimeError: the stage broke")
    with pytest.raises(StopRequested):
        run(home, "stages.second.stop_at=2", "logging.tensorboard=false", "logging.report_every=0", workdir="stopping")
    stopped = json.loads(open("stopping/timing/status.json").read())
    assert stopped["state"] == "stopped" and not os.path.exists("stopping/tensorboard")
    open("mended", "w").close()
    run(home, "stages.second.stop_at=2", workdir="stopping")  # where figures go may change between two sessions
    assert os.path.isdir("stopping/tensorboard/second")


def test_exports_that_need_a_missing_package_are_refused(home, evaluated, monkeypatch):
    monkeypatch.setattr("r1jax.pipeline.runner.running.missing_package", lambda **asked: "wandb" if asked["wandb"] else "")
    with pytest.raises(config.RecipeError, match="logging.wandb needs wandb: pip install wandb"):
        run(home, "logging.wandb=true", workdir="none")
    with pytest.raises(config.RecipeError, match="report_every"):
        run(home, "logging.report_every=-1", workdir="none")
    assert not os.path.exists("none")


def test_a_recipe_is_walked_and_its_results_are_written(home, evaluated, tmp_path):
    workdir = run(home)
    assert str(workdir) == "runs/toy" and (tmp_path / "elsewhere/runs/toy").is_dir()
    first, second = json.loads((workdir / "results.json").read_text())
    assert (first["name"], first["kind"], first["steps"], first["complete"]) == ("first", "toy_stage:Toy", 3, True)
    assert first["before"]["held_out"]["pass@1"] == len("base") and first["after"]["held_out"]["pass@1"] == len("basefff")
    assert second["after"]["other"]["pass@1"] == len("basefffsss") and second["figures"] == {"letters": 10}
    assert first["seconds"] >= 0 and (workdir / "timing/session-000.json").exists()
    assert {"jax", "flax"} <= set(json.loads((workdir / "environment.json").read_text())["packages"])
    # the model between the two stages is evaluated on the same benchmark once
    assert evaluated == [("held_out", "base"), ("held_out", "basefff"), ("other", "basefff")] + [
        ("held_out", "basefffsss"),
        ("other", "basefffsss"),
    ]
    assert second["before"]["held_out"] == {**first["after"]["held_out"]}


def test_where_the_time_went_is_shown_and_the_folder_is_the_last_line(home, evaluated, capsys):
    assert cli.main(["run", str(home / "recipe.yaml"), "--workdir", "w"]) == 0
    captured = capsys.readouterr()
    assert captured.out.splitlines()[-1] == "w"
    table = captured.err[captured.err.index("phase ") :]
    assert all(f"second: {part}" in table for part in ("benchmarks before", "toy_stage:Toy", "benchmarks after"))


def test_the_saved_recipe_is_whole_and_runs_by_itself(home, evaluated):
    workdir = run(home, "stages.first.steps=2")
    saved = config.load_recipe(str(workdir / "recipe.yaml"))
    assert saved.stages[0].settings.steps == 2 and saved.models["base"].path == str(home / "base")


def test_what_is_done_is_not_done_again(home, evaluated):
    workdir = run(home)
    before, number = clocks(workdir), len(evaluated)
    assert run(home) == workdir and clocks(workdir) == before and len(evaluated) == number


def test_a_failure_keeps_what_was_done_and_leaves_results(home, evaluated, tmp_path):
    with pytest.raises(RuntimeError, match="the stage broke"):
        run(home, "stages.second.fail_at=2", workdir="w")
    first, second = json.loads((tmp_path / "elsewhere/w/results.json").read_text())
    assert first["complete"] and not second["complete"] and second["steps"] == 1 and second["after"] == {}
    before = clocks(tmp_path / "elsewhere/w")
    (tmp_path / "elsewhere/mended").touch()
    workdir = run(home, "stages.second.fail_at=2", workdir="w")
    assert clocks(workdir)[: len(before)] == before and len(clocks(workdir)) == 6
    assert (workdir / "stages/second/model/text").read_text() == "basefffsss"


def test_a_broken_report_hides_no_failure(home, evaluated, monkeypatch, capsys):
    def broken(workdir):
        raise OSError("no ink")

    monkeypatch.setattr("r1jax.reporting.write_report", broken, raising=False)
    with pytest.raises(RuntimeError, match="the stage broke"):
        run(home, "stages.first.fail_at=1")
    run(home, workdir="whole")  # nor does it fail a run that is complete
    assert "no ink" in capsys.readouterr().err


@pytest.mark.parametrize(
    "override, message",
    [
        ("stages.first.steps=4", "stages.first.steps: 3 -> 4"),
        ("benchmarks.held_out.samples=2", "benchmarks.held_out.samples: 4 -> 2"),
        ("seed=1", "seed: 0 -> 1"),
    ],
)
def test_another_recipe_in_an_old_folder_is_refused_with_the_difference(home, evaluated, override, message):
    workdir = run(home)
    saved = (workdir / "recipe.yaml").read_text()
    with pytest.raises(WorkdirError, match=message):
        run(home, override)
    assert (workdir / "recipe.yaml").read_text() == saved


def test_a_run_that_was_refused_before_it_did_anything_may_be_corrected(home, evaluated, monkeypatch, capsys):
    def refuse(path, benchmarks, context):
        yield config.load_recipe("nowhere.yaml")

    answering = walk.evaluate_model
    monkeypatch.setattr(walk, "evaluate_model", refuse)
    assert cli.main(["run", str(home / "recipe.yaml"), "--workdir", "w"]) == 2
    said = capsys.readouterr().err
    assert (
        said.splitlines()[-1] == "r1jax run: recipe nowhere.yaml can't be read: No such file or directory"
        and "report:" not in said
    )
    monkeypatch.setattr(walk, "evaluate_model", answering)
    (home / "train.jsonl").write_text('{"another": 1}\n')
    run(home, "stages.first.steps=2", workdir="w")
    assert config.load_recipe("w/recipe.yaml").stages[0].settings.steps == 2
    with pytest.raises(WorkdirError, match="stages.first.steps: 2 -> 3"):
        run(home, workdir="w")


def test_a_folder_below_a_file_is_refused(home, evaluated):
    with pytest.raises(WorkdirError, match="lies below a file"):
        run(home, workdir=str(home / "train.jsonl" / "w"))


def test_a_recipe_of_the_users_in_the_work_directory_is_not_replaced(home, evaluated):
    before = (home / "recipe.yaml").read_text()
    with pytest.raises(WorkdirError, match="seed: 0 -> 1"):
        run(home, "seed=1", workdir=str(home))
    assert (home / "recipe.yaml").read_text() == before


def test_a_key_that_came_later_is_no_difference(home, evaluated):
    workdir = run(home)
    document = yaml.safe_load((workdir / "recipe.yaml").read_text())
    del document["stages"][0]["rewards"], document["benchmarks"]["other"]["seed"]
    (workdir / "recipe.yaml").write_text(yaml.safe_dump(document))
    run(home)
    with pytest.raises(WorkdirError, match="stages.first.steps: 3 -> 4"):
        run(home, "stages.first.steps=4")


def test_a_damaged_evaluation_is_not_copied(home, evaluated):
    workdir = run(home)
    shutil.rmtree(workdir / "stages/second")
    figures = workdir / "stages/first/evaluations/held_out-after/figures.json"
    figures.write_text(figures.read_text().replace("7.0", "9.0"))
    with pytest.raises(records.DamagedRecord, match="held_out-after/figures.json"):
        run(home)


def test_safe_keys_may_change(home, evaluated):
    workdir = run(home)
    run(home, "stages.first.workers.count=3")
    assert config.load_recipe(str(workdir / "recipe.yaml")).stages[0].settings.workers.count == 3


def test_moved_inputs_are_the_same_changed_ones_are_not(home, evaluated, tmp_path):
    workdir = run(home, workdir=str(tmp_path / "w"))
    moved = home.rename(tmp_path / "moved")
    run(moved, workdir=str(tmp_path / "w"))
    (moved / "train.jsonl").write_text('{"another": 1}\n')
    with pytest.raises(WorkdirError, match="data.train changed"):
        run(moved, workdir=str(workdir))


def test_each_file_of_a_set_is_held(home, evaluated, tmp_path):
    """A folder of shards and a TFDS data set: moved together they are the same; a shard that is another, or one more, is not."""
    tfds = Path(__file__).parents[1] / "data/tfds"
    shutil.copytree(tfds, home / "tfds")
    (home / "shards").mkdir()
    for name in "ab":
        (home / f"shards/{name}.jsonl").write_text('{"problem": "p", "answer": "1"}\n')
    told = ["data.train.path=shards", "benchmarks.other={path: 'tfds:small_sums', split: test, data_dir: tfds}"]
    workdir = run(home, *told, workdir=str(tmp_path / "w"))
    held = json.loads((workdir / "inputs.json").read_text())
    assert held["data.train"].keys() == {"a.jsonl", "b.jsonl"} and len(held["benchmarks.other"]) == 3
    saved = config.load_recipe(str(workdir / "recipe.yaml")).benchmarks["other"]
    assert (saved.path, saved.data_dir) == ("tfds:small_sums", str(home / "tfds"))
    moved = home.rename(tmp_path / "moved")
    run(moved, *told, workdir=str(workdir))
    (moved / "shards/c.jsonl").write_text('{"problem": "q", "answer": "1"}\n')
    with pytest.raises(WorkdirError, match="data.train changed"):
        run(moved, *told, workdir=str(workdir))
    (moved / "shards/c.jsonl").unlink()
    info = moved / "tfds/small_sums/apples/1.0.0/dataset_info.json"
    info.write_text(info.read_text() + "\n")
    with pytest.raises(WorkdirError, match="benchmarks.other changed"):
        run(moved, *told, workdir=str(workdir))


def test_a_run_may_be_moved(home, evaluated, tmp_path):
    with pytest.raises(RuntimeError):
        run(home, "stages.second.fail_at=2", workdir=str(tmp_path / "a"))
    (tmp_path / "a").rename(tmp_path / "b")
    (tmp_path / "elsewhere/mended").touch()
    run(home, "stages.second.fail_at=2", workdir=str(tmp_path / "b"))
    assert (tmp_path / "b/stages/second/model/text").read_text() == "basefffsss"


def test_a_folder_of_something_else_is_refused(home, evaluated, tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis/chapter.tex").write_text("precious")
    with pytest.raises(WorkdirError, match="holds 'chapter.tex' but no run"):
        run(home, workdir=str(tmp_path / "thesis"))


@pytest.mark.parametrize(
    "override, message",
    [
        ("models.base.path=nowhere", "models.base.path: 'nowhere' is no folder"),
        ("data.train.path=base", "data.train.path: data set 'base' is no file, and the folder "),
        ("data.train.path=nowhere.jsonl", "data.train.path: data set 'nowhere.jsonl': there is no file "),
        ("data.train.path=tfds:nothing", "data.train.path: tfds:nothing: "),
        ("stages.second.model=stage:third", "no earlier stage"),
        ("benchmarks.other.path=broken.jsonl", "broken.jsonl"),
        ("benchmarks.other.grader=verify_maths", "did you mean 'verify_math'?"),
        (
            "stages.second.rewards={'my_rewards:lenght': 1}",
            "stages.second.rewards: reward 'my_rewards:lenght' can't be imported",
        ),
        ("stages.second.rewards={'my_rewards:lenght': 1}", "did you mean 'my_rewards:length'?"),
        ("stages.first.rewards={'my_rewards:length': 1, 'no_rewards:length': 1}", "No module named 'no_rewards'"),
        ("benchmarks.other.grader=my_rewards:grad", "did you mean 'my_rewards:grade'?"),
        ("mesh.data=3", "does not fit"),
    ],
)
def test_bad_input_is_refused_before_any_work(home, evaluated, override, message, capsys):
    assert cli.main(["run", str(home / "recipe.yaml"), "--workdir", "w", "--set", override]) == 2
    captured = capsys.readouterr()
    assert message in captured.err and "Traceback" not in captured.err
    assert evaluated == [] and not os.path.exists("w/stages")


def test_a_stage_that_made_no_model_is_named(home, evaluated):
    with pytest.raises(config.RecipeError, match="stages.second.model: stage:first made no model"):
        run(home, "stages.first.makes_model=false")


def test_two_processes_do_not_share_a_folder(home, evaluated, tmp_path):
    from etils import epath

    from r1jax.pipeline.runner import workdir

    (tmp_path / "w").mkdir()
    with workdir.locked(epath.Path(tmp_path / "w")):
        with pytest.raises(WorkdirError, match=f"in use by process {os.getpid()}"):
            run(home, workdir=str(tmp_path / "w"))
    run(home, workdir=str(tmp_path / "w"))


def test_a_stage_that_stops_ends_with_75(home, evaluated, capsys, tmp_path):
    command = ["run", str(home / "recipe.yaml"), "--workdir", "w", "--set", "stages.first.stop_at=2"]
    assert cli.main(command) == 75
    assert "stopped by SIGTERM; the same command goes on" in capsys.readouterr().err
    assert json.loads((tmp_path / "elsewhere/w/results.json").read_text())[0]["steps"] == 1
    (tmp_path / "elsewhere/mended").touch()
    assert cli.main(command) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "w"


# ---------------------------------------------------------------------------------------------- real signals
@pytest.fixture
def process(home, tmp_path):
    """Starts ``r1jax run`` without benchmarks in a process of its own; gives it once the first update is done."""
    started = []

    def start(*overrides, wait=True):
        sets = [a for o in ("stages.second.benchmarks=[]", "stages.first.benchmarks=[]", *overrides) for a in ("--set", o)]
        environment = {**os.environ, "PYTHONPATH": import_path(tmp_path / "modules"), "XLA_FLAGS": ""}
        child = subprocess.Popen(
            [sys.executable, "-m", "r1jax.cli", "run", str(home / "recipe.yaml"), "--workdir", str(tmp_path / "w"), *sets],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment,
        )
        started.append(child)
        while wait and child.stdout.readline() not in ("update 1\n", ""):
            pass
        return child

    yield start
    for child in started:
        child.kill()
        child.wait()


def finish(child):
    out, err = child.communicate(timeout=300)
    return child.returncode, out, err


@pytest.mark.parametrize("number", [pytest.param(signal.SIGINT, marks=pytest.mark.slow), signal.SIGTERM])
def test_a_signal_stops_with_75_and_the_same_command_goes_on(process, tmp_path, number):
    child = process("stages.first.pause_at=1")
    child.send_signal(number)
    code, _, err = finish(child)
    assert code == 75 and f"stopped by {number.name}" in err and "Traceback" not in err
    done = clocks(tmp_path / "w")
    assert len(done) == 1
    code, out, _ = finish(process("stages.first.pause_at=1", wait=False))
    assert code == 0 and out.splitlines()[-1] == str(tmp_path / "w")
    assert clocks(tmp_path / "w")[:1] == done and len(clocks(tmp_path / "w")) == 6


def test_a_second_interrupt_ends_at_once(process):
    child = process("stages.first.sleep=600")
    child.send_signal(signal.SIGINT)
    while "stopping after saving" not in child.stderr.readline():
        assert child.poll() is None
    child.send_signal(signal.SIGINT)  # asleep inside an update, it has not looked at the flag
    code, _, err = finish(child)
    assert code == -signal.SIGINT and "ended without saving; the same command goes on" in err


# A main thread that is long in one call of C's, as while XLA compiles: no handler of Python's has its turn.
DEAF = """
import hashlib
from r1jax.pipeline.runner.signals import stop_on_signals
with stop_on_signals():
    print("deaf", flush=True)
    hashlib.pbkdf2_hmac("sha256", b"", b"", 200_000_000)
    print("heard", flush=True)
"""


def test_signals_are_answered_while_the_main_thread_is_deaf():
    child = subprocess.Popen([sys.executable, "-c", DEAF], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout.readline() == "deaf\n"
    time.sleep(0.2)
    child.send_signal(signal.SIGINT)
    while "SIGINT: stopping after saving" not in child.stderr.readline():
        assert child.poll() is None
    child.send_signal(signal.SIGINT)
    out, err = child.communicate(timeout=60)
    assert child.returncode == -signal.SIGINT and "ended without saving" in err and "heard" not in out


@pytest.mark.parametrize("call", [0, 1], ids=["as it begins", "as it ends"])
def test_an_interrupt_that_is_watched_for_is_handled(monkeypatch, call):
    """Whoever is told "stopping after saving" is stopped so, at the first instant of watching and at the last."""
    real, calls = signal.set_wakeup_fd, []

    def interrupted(*given, **options):
        if len(calls) == 1 and call == 1:
            os.kill(os.getpid(), signal.SIGINT)
        former = real(*given, **options)
        calls.append(None)
        if len(calls) == 1 and call == 0:
            os.kill(os.getpid(), signal.SIGINT)
        return former

    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(signal, "set_wakeup_fd", interrupted)
    with stop_on_signals() as stop:
        assert stop() == (call == 0)
    assert stop.signal == "SIGINT" and len(calls) == 2 and signal.getsignal(signal.SIGINT) == before


@pytest.mark.parametrize(("before", "asked"), [(signal.SIG_DFL, True), (signal.SIG_IGN, False)], ids=["a shell's", "nohup"])
def test_a_hangup_asks_to_stop_unless_it_is_ignored(before, asked, capfd):
    former = signal.signal(signal.SIGHUP, before)
    try:
        with stop_on_signals() as stop:
            os.kill(os.getpid(), signal.SIGHUP)
            assert stop() == asked and stop.signal == ("SIGHUP" if asked else None)
        assert signal.getsignal(signal.SIGHUP) == before
    finally:
        signal.signal(signal.SIGHUP, former)
    assert ("SIGHUP: stopping" in capfd.readouterr().err) == asked


# Runs a command on a terminal of its own, closes the terminal after the first update, and says how the command ended.
HANGUP = """
import os, pty, signal, sys
pid, terminal = pty.fork()
if pid == 0:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    os.execv(sys.executable, [sys.executable, "-m", "r1jax.cli", *sys.argv[1:]])
seen = b""
while b"update 1" not in seen:
    seen += os.read(terminal, 1024)
os.close(terminal)
print(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
"""


@pytest.mark.slow
def test_a_closed_terminal_is_a_stop_and_no_failure(home, tmp_path):
    sets = [
        "--set",
        "stages.second.benchmarks=[]",
        "--set",
        "stages.first.benchmarks=[]",
        "--set",
        "stages.first.pause_at=1",
    ]
    command = ["run", str(home / "recipe.yaml"), "--workdir", str(tmp_path / "w"), *sets]
    environment = {**os.environ, "PYTHONPATH": import_path(tmp_path / "modules"), "XLA_FLAGS": ""}
    done = subprocess.run(
        [sys.executable, "-c", HANGUP, *command], capture_output=True, text=True, env=environment, timeout=300
    )
    assert done.stdout == "75\n", done.stderr
    status = json.loads((tmp_path / "w/timing/status.json").read_text())
    assert status["state"] == "stopped" and status["reason"].startswith("stopped by SIGHUP")


def test_a_stop_while_the_input_is_checked_leaves_nothing(home, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(running, "check_rewards", lambda recipe: os.kill(os.getpid(), signal.SIGTERM))
    assert cli.main(["run", str(home / "recipe.yaml"), "--workdir", str(tmp_path / "w")]) == 75
    assert "stopped by SIGTERM before the run began; the same command begins it" in capsys.readouterr().err
    assert not (tmp_path / "w").exists()


def test_a_killed_run_leaves_no_lock_and_nothing_half_done(process, tmp_path):
    child = process("stages.first.pause_at=1")
    code, _, err = finish(process("stages.first.pause_at=1", wait=False))
    assert code == 2 and f"in use by process {child.pid}" in err
    child.kill()
    child.wait()
    done = clocks(tmp_path / "w")
    assert finish(process("stages.first.pause_at=1", wait=False))[0] == 0
    assert clocks(tmp_path / "w")[:1] == done and len(clocks(tmp_path / "w")) == 6


def test_a_stop_between_stages_is_seen(home, evaluated, monkeypatch):
    def stopping(path, benchmarks, context):
        context.stop.signal = "SIGINT"
        yield from ()

    monkeypatch.setattr(walk, "evaluate_model", stopping)
    with pytest.raises(StopRequested, match="stopped by SIGINT"):
        run(home, workdir="w")
    assert not records.committed("w/stages/first")

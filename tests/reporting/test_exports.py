"""Exports: TensorBoard files read back by a reader of the test's own, W&B by a stub; derived, in a process of their own."""

import glob
import json
import os
import shutil
import struct
import subprocess
import sys
import time

import pytest

from r1jax.reporting import exports
from r1jax.reporting.exports.follow import Follower


def masked_crc32c(data):
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = (crc >> 1) ^ (0x82F63B78 if crc & 1 else 0)
    crc ^= 0xFFFFFFFF
    return ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF


def records(path):
    """The records of an event file: length, its checksum, data, its checksum."""
    with open(path, "rb") as file:
        while header := file.read(12):
            size, check = struct.unpack("<QI", header)
            assert check == masked_crc32c(header[:8])
            data = file.read(size)
            assert struct.unpack("<I", file.read(4)) == (masked_crc32c(data),)
            yield data


def fields(data):
    """Protocol buffer fields: (number, value); what has a length is bytes."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value, shift = value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value

    while at < len(data):
        key = varint()
        kind = key & 7
        if kind == 0:
            value = varint()
        else:
            size = {1: 8, 5: 4}.get(kind) or varint()
            value, at = data[at : at + size], at + size
            if kind != 2:
                (value,) = struct.unpack("<d" if kind == 1 else "<f", value)
        yield key >> 3, value


def read_events(workdir):
    """``{stage: {tag: {step: value}}}`` of the event files."""
    found = {}
    for file in glob.glob(f"{workdir}/tensorboard/*/events.out.tfevents.*"):
        tags = found.setdefault(os.path.basename(os.path.dirname(file)), {})
        for number, data in enumerate(records(file)):
            event = dict(fields(data))
            if number == 0:
                assert event[3] == b"brain.Event:2"
            for _, value in fields(event.get(5, b"")):
                value = dict(fields(value))
                steps = tags.setdefault(value[1].decode(), {})
                assert event.get(2, 0) not in steps and event[1] > 1.6e9
                steps[event.get(2, 0)] = value[2]
    return found


def test_tensorboard_files_hold_what_the_run_recorded(make_run):
    workdir = make_run(12, evaluations=3, stages=("zero", "one"))
    exports.export(workdir)
    found = read_events(workdir)
    assert set(found) == {"zero", "one"}
    tags = found["zero"]
    metrics = json.load(open(f"{workdir}/stages/zero/updates/000007/metrics.json"))
    assert tags["update/loss"][7] == pytest.approx(metrics["loss"], rel=1e-6) and len(tags["update/loss"]) == 12
    assert tags["reward/mean"][7] == pytest.approx(metrics["reward_mean"], rel=1e-6)
    assert sorted(tags["benchmark/held_out/pass@1"]) == [0, 6, 12] and tags["time/sample_s"][3] > 0
    assert "update/step" not in tags and "benchmark/held_out/seed" not in tags


def test_exports_can_be_made_again_from_the_run_alone(make_run):
    workdir = make_run(5)
    exports.export(workdir)
    first = read_events(workdir)
    exports.export(workdir)  # over the old ones: nothing stands there twice
    assert read_events(workdir) == first
    shutil.rmtree(f"{workdir}/tensorboard")
    exports.export(workdir)
    assert read_events(workdir) == first and first["r1_zero"]


def test_what_has_no_record_or_is_no_number_is_left_out(make_run):
    workdir = make_run(3)
    os.remove(f"{workdir}/stages/r1_zero/updates/000002/commit.json")
    with open(f"{workdir}/stages/r1_zero/updates/000001/metrics.json", "w") as file:
        file.write('{"step": 1, "loss": NaN, "entropy": 0.5, "name": "x", "flag": true}')
    with open(f"{workdir}/stages/r1_zero/updates/000000/metrics.json", "w") as file:
        file.write('{"step": 0, "lo')
    exports.export(workdir)
    tags = read_events(workdir)["r1_zero"]
    assert tags["update/entropy"] == {1: 0.5} and not {"update/loss", "update/name", "update/flag"} & set(tags)


def test_a_follower_sees_everything_once(make_run):
    workdir = make_run(4, evaluations=2, complete=False)
    update = f"{workdir}/stages/r1_zero/updates/000003"
    os.rename(f"{update}/commit.json", f"{workdir}/later")
    follower = Follower(workdir)
    first = list(follower.new())
    assert [e.step for e in first if e.kind == "updates"] == [0, 1, 2] and list(follower.new()) == []
    os.rename(f"{workdir}/later", f"{update}/commit.json")
    assert [(e.kind, e.step) for e in follower.new()] == [("updates", 3)]


def test_a_going_run_is_followed_and_its_last_update_is_not_missed(make_run):
    workdir = make_run(3)
    hidden = f"{workdir}/stages/r1_zero/updates/000002/commit.json"
    os.rename(hidden, f"{workdir}/later")
    warnings = []
    with exports.exporting(workdir, warnings.append):
        until = time.monotonic() + 60
        while not glob.glob(f"{workdir}/tensorboard/*/*") and time.monotonic() < until:
            time.sleep(0.05)
        os.rename(f"{workdir}/later", hidden)
    assert sorted(read_events(workdir)["r1_zero"]["update/loss"]) == [0, 1, 2] and warnings == []


def test_the_report_of_a_going_run_is_written_now_and_then(make_run):
    workdir = make_run(3, complete=False)
    warnings = []
    with exports.exporting(workdir, warnings.append, tensorboard=False, report_every=0.01):
        until = time.monotonic() + 60
        while not os.path.exists(f"{workdir}/report.html") and time.monotonic() < until:
            time.sleep(0.1)
    assert os.path.exists(f"{workdir}/report.html") and warnings == []


WANDB = """
import json, os
class Run:
    def define_metric(self, *a, **k): self.put("define", a, k)
    def log(self, figures): self.put("log", figures)
    def finish(self): self.put("finish")
    def put(self, *what):
        with open(os.environ["STUB"], "a") as file: file.write(json.dumps(what) + "\\n")
def init(**settings):
    run = Run(); run.put("init", settings); return run
"""


@pytest.fixture
def stub(tmp_path, monkeypatch):
    """A wandb that writes down what it is told."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "wandb.py").write_text(WANDB)
    monkeypatch.setenv("PYTHONPATH", str(folder))
    monkeypatch.setenv("STUB", str(tmp_path / "told.jsonl"))

    def told():
        return [json.loads(line) for line in (tmp_path / "told.jsonl").read_text().splitlines()]

    return told


def test_wandb_gets_every_figure_once_over_several_sessions(make_run, stub):
    workdir = make_run(4, evaluations=2)
    hidden = f"{workdir}/stages/r1_zero/updates/000003/commit.json"
    os.rename(hidden, f"{workdir}/later")
    exports.export(workdir, tensorboard=False, wandb=True, project="mine")
    os.rename(f"{workdir}/later", hidden)
    exports.export(workdir, tensorboard=False, wandb=True, project="mine")
    told = stub()
    starts = [what[1] for what in told if what[0] == "init"]
    assert [s["project"] for s in starts] == ["mine", "mine"] and starts[0]["resume"] == "allow"
    assert starts[0]["id"] == starts[1]["id"] and starts[0]["config"]["name"] == "tiny r1-zero"
    losses = [what[1] for what in told if what[0] == "log" and "r1_zero/update/loss" in what[1]]
    assert [row["r1_zero/step"] for row in losses] == [0, 1, 2, 3]
    assert sum("r1_zero/benchmark/held_out/pass@1" in what[1] for what in told if what[0] == "log") == 2
    assert ["define", ["r1_zero/*"], {"step_metric": "r1_zero/step"}] in told and told[-1] == ["finish"]


def test_trouble_costs_the_exports_only_and_is_said_once(make_run, stub, tmp_path):
    workdir = make_run(2)
    (tmp_path / "modules/wandb.py").write_text("raise RuntimeError('no key')")
    warnings = []
    with exports.exporting(workdir, warnings.append, tensorboard=False, wandb=True):
        pass
    assert len(warnings) == 1 and "RuntimeError: no key" in warnings[0]
    with pytest.raises(RuntimeError, match="no key"):
        exports.export(workdir, tensorboard=False, wandb=True)


def test_the_exporting_process_ends_when_its_parent_is_killed(make_run):
    workdir = make_run(2)
    parent = (
        "import os, sys, time\nfrom r1jax.reporting import exports\n"
        "with exports.exporting(sys.argv[1], print):\n    print('inside', flush=True)\n    time.sleep(600)"
    )
    process = subprocess.Popen([sys.executable, "-c", parent, workdir], stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "inside\n"
    children = subprocess.run(
        ["ps", "-o", "pid=", "--ppid", str(process.pid)], capture_output=True, text=True
    ).stdout.split()
    process.kill()
    process.wait()
    until = time.monotonic() + 60
    while any(os.path.exists(f"/proc/{child}/stat") and not _zombie(child) for child in children):
        assert time.monotonic() < until, "it goes on without its parent"
        time.sleep(0.1)
    assert len(children) == 1 and sorted(read_events(workdir)["r1_zero"]["update/loss"]) == [0, 1]


def _zombie(pid):
    try:
        return open(f"/proc/{pid}/stat").read().rpartition(")")[2].split()[0] == "Z"
    except OSError:
        return True


def test_nothing_heavy_is_imported_by_the_exporting_process():
    code = (
        "import sys; from r1jax.reporting.exports.tensorboard import TensorBoard; TensorBoard('/nowhere');"
        "print([m for m in ('jax', 'tensorflow', 'torch', 'flax') if sys.modules.get(m)])"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"


def test_a_package_that_is_missing_is_named(monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert exports.missing_package(tensorboard=True, wandb=True) == "tensorboardX"
    assert exports.missing_package(tensorboard=False, wandb=True) == "wandb"
    assert exports.missing_package(tensorboard=False, wandb=False) == ""

"""The memo of a run's small files: saves reading, and is never believed where the files say otherwise."""

import json
import os
import shutil

import pytest

from r1jax.reporting import collect as collecting
from r1jax.reporting import files, memo
from r1jax.reporting.collect import collect


@pytest.fixture
def run(make_run):
    workdir = make_run(250)
    collect(workdir)
    assert os.path.exists(f"{workdir}/{memo.NAME}")
    return workdir


@pytest.fixture
def opened(monkeypatch):
    """The files that are opened from here on."""
    paths, real = [], files.read_bytes
    monkeypatch.setattr(files, "read_bytes", lambda path: paths.append(path) or real(path))
    return paths


def losses(workdir):
    return collect(workdir).stages[0].updates["loss"]


def test_what_is_known_is_not_read_again(run, opened):
    first = losses(run)
    assert len(first) == 250 and not [path for path in opened if "/updates/" in path or "/timing/r1_zero/" in path]


def test_only_what_is_new_is_read(run, opened):
    folder = f"{run}/stages/r1_zero/updates"
    shutil.copytree(f"{folder}/000001", f"{folder}/000250")
    with open(f"{folder}/000250/metrics.json", "w") as file:
        file.write('{"step": 250, "loss": 7.5}')
    assert losses(run)[-1] == 7.5
    assert [path for path in opened if "/updates/" in path] == [f"{folder}/000250/metrics.json"]
    del opened[:]
    assert losses(run)[-1] == 7.5 and not [path for path in opened if "/updates/" in path]


def test_a_changed_file_is_read_again_and_what_is_gone_is_gone(run):
    folder = f"{run}/stages/r1_zero/updates"
    with open(f"{folder}/000003/metrics.json", "w") as file:
        file.write('{"step": 3, "loss": 8.5}')
    assert losses(run)[3] == 8.5
    os.remove(f"{folder}/000004/commit.json")
    shutil.rmtree(f"{folder}/000005")
    updates = collect(run).stages[0].updates
    assert updates["step"][:6] == [0, 1, 2, 3, 6, 7] and updates["loss"][3] == 8.5
    with open(f"{folder}/000006/metrics.json", "w") as file:
        file.write('{"step": 6, "lo')
    assert collect(run).unreadable == (f"{folder}/000006/metrics.json",)
    assert collect(run).unreadable == (f"{folder}/000006/metrics.json",)  # nor is damage remembered as a value


@pytest.mark.parametrize(
    "text", ["", "{", "[]", "null", '{"version": 1}', '{"version": 0, "files": {}}', '{"version": 1, "files": {"/x": 3}}']
)
def test_a_missing_or_damaged_memo_costs_time_only(run, text):
    first = collect(run).stages
    with open(f"{run}/{memo.NAME}", "w") as file:
        file.write(text)
    assert collect(run).stages == first
    os.remove(f"{run}/{memo.NAME}")
    assert collect(run).stages == first
    kept = json.load(open(f"{run}/{memo.NAME}"))
    assert kept["version"] == memo.VERSION and len(kept["files"]) > 500


def test_a_memo_of_another_folder_does_not_mislead(run, tmp_path):
    moved = str(tmp_path / "moved")
    shutil.copytree(run, moved)  # other times
    with open(f"{moved}/stages/r1_zero/updates/000003/metrics.json", "w") as file:
        file.write('{"step": 3, "loss": 8.5}')
    assert losses(moved)[3] == 8.5 and losses(run)[3] != 8.5


def test_a_folder_that_cannot_be_written_is_still_read(run, monkeypatch):
    def full(path, text):
        raise OSError(28, "No space left on device")

    os.remove(f"{run}/{memo.NAME}")
    monkeypatch.setattr(memo.files, "write_text", full)
    assert len(losses(run)) == 250


def test_a_small_run_leaves_no_memo(make_run):
    workdir = make_run(5)
    collect(workdir)
    assert not os.path.exists(f"{workdir}/{memo.NAME}")


def test_files_of_a_store_are_trusted_by_name(run, monkeypatch):
    """As far as it can be shown here: a remote folder's known files are neither asked for nor read."""
    asked = []
    real = files.exists
    monkeypatch.setattr(collecting.files, "exists", lambda path: asked.append(path) or real(path))
    monkeypatch.setattr(memo.Memo, "trusts_names", property(lambda self: True))
    assert len(losses(run)) == 250
    assert not [path for path in asked if "/updates/" in path]

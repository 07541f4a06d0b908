"""Commit records: what has none did not happen, what has one is whole."""

import os

import pytest

from r1jax.pipeline import records


def test_a_record_names_its_files_with_their_hashes(tmp_path):
    assert not records.committed(tmp_path)
    records.write_atomic(tmp_path / "a.bin", b"one")
    records.commit(tmp_path, ["a.bin"], {"step": 3})
    assert records.committed(tmp_path) and records.read_record(tmp_path) == {"step": 3}
    assert [p.name for p in tmp_path.iterdir() if "partial" in p.name] == []


@pytest.mark.parametrize("harm", ["change", "remove"])
def test_a_damaged_file_is_found(tmp_path, harm):
    records.write_atomic(tmp_path / "a.bin", b"one")
    records.commit(tmp_path, ["a.bin"])
    (tmp_path / "a.bin").write_bytes(b"two") if harm == "change" else (tmp_path / "a.bin").unlink()
    with pytest.raises(records.DamagedRecord, match="a.bin"):
        records.read_record(tmp_path)


def test_a_record_holds_no_nan(tmp_path):
    with pytest.raises(ValueError):
        records.commit(tmp_path, content={"loss": float("nan")})
    assert not records.committed(tmp_path)


@pytest.fixture
def disk(monkeypatch):
    """What was waited for and what was renamed, in order, by file name."""
    happened, names = [], {}
    plain_open, replace = os.open, os.replace
    monkeypatch.setattr(os, "open", lambda path, *rest: names.setdefault(fd := plain_open(path, *rest), str(path)) and fd)
    monkeypatch.setattr(os, "fsync", lambda fd: happened.append(("sync", os.path.basename(names.pop(fd)))))
    monkeypatch.setattr(os, "replace", lambda a, b: happened.append(("name", os.path.basename(b))) or replace(a, b))
    monkeypatch.setattr(os, "rename", os.replace)
    return happened


def test_a_record_is_named_after_all_that_it_vouches_for_is_on_the_disk(tmp_path, disk):
    folder = tmp_path / "waves" / "7"
    records.write_atomic(folder / "a.bin", b"one")
    records.commit(folder, ["a.bin"])
    assert disk == [
        ("sync", "waves"),  # the name of 7 in it
        ("sync", tmp_path.name),
        ("sync", ".a.bin.partial"),
        ("name", "a.bin"),
        ("sync", "7"),
        ("sync", ".commit.json.partial"),
        ("name", "commit.json"),
        ("sync", "7"),
    ]


def test_a_tree_is_waited_for_whole(tmp_path, disk):
    (tmp_path / "state" / "deep").mkdir(parents=True)
    (tmp_path / "state" / "deep" / "array").write_bytes(b"1")
    (tmp_path / "state" / "list").write_bytes(b"2")
    records.sync_tree(tmp_path / "state")
    assert {name for _, name in disk} == {"list", "array", "deep", "state", tmp_path.name}
    disk.clear()
    records.sync_tree(tmp_path / "state" / "list")
    assert disk == [("sync", "list"), ("sync", "state")]


def test_nothing_waits_for_an_object_store(disk):
    records.sync_tree("gs://bucket/run/model")
    assert disk == []

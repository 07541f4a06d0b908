"""Commit records: what has none did not happen, what has one is whole."""

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

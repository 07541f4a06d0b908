"""Train states: any tree, any mesh, verified, whole or not there."""

import errno
import gc
import logging
import os

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from r1jax.checkpoint import CheckpointError, restore_state, save_state
from r1jax.sharding import make_mesh


def place(shape, spec):
    return NamedSharding(make_mesh(*shape, devices=jax.devices()[: int(np.prod(shape))]), PartitionSpec(*spec))


def state():
    rows, whole = place((1, 4, 2), ("fsdp", "tensor")), place((1, 4, 2), ())
    params = {
        "w": jax.device_put(np.random.default_rng(0).normal(size=(16, 8)).astype(np.float32), rows),
        "with/slash": jax.device_put(jnp.arange(8, dtype=jnp.bfloat16) / 7, whole),
    }
    return {
        "params": params,
        "optimizer": optax.adamw(1e-3).init(params),
        "key": jax.device_put(jax.random.key(3), whole),
        "keys": jax.random.split(jax.random.key(4, impl="rbg"), 3),
        "step": jnp.int32(7),
        "count": 12,
        "rate": 0.5,
        "done": True,
        "nothing": None,
        "numpy": np.arange(5, dtype=np.int64) << 40,
    }


def abstract(tree, move=lambda sharding, x: sharding):
    return jax.tree.map(
        lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=move(x.sharding, x)) if isinstance(x, jax.Array) else x,
        tree,
    )


def assert_equal(x, y):
    assert jax.tree.structure(x) == jax.tree.structure(y)
    for a, b in zip(jax.tree.leaves(x), jax.tree.leaves(y)):
        assert type(a) is type(b)
        if isinstance(a, jax.Array) and jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            assert jax.random.key_impl(a) == jax.random.key_impl(b)
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        np.testing.assert_array_equal(np.asarray(a), np.asarray(b))


def test_round_trip(tmp_path, capfd, caplog):
    tree = state()
    with caplog.at_level(logging.INFO):
        save_state(tmp_path / "state", tree)
        restored = restore_state(tmp_path / "state", abstract(tree))
        assert_equal(restore_state(tmp_path / "state", tree), tree)  # arrays stand for themselves
    assert_equal(restored, tree)
    assert restored["params"]["w"].sharding == tree["params"]["w"].sharding
    jax.random.uniform(restored["key"])  # a key again, not its data
    assert os.listdir(tmp_path) == ["state"]
    assert capfd.readouterr() == ("", "") and not [r for r in caplog.records if r.levelno >= logging.WARNING]


def test_onto_other_meshes(tmp_path):
    tree = state()
    save_state(tmp_path / "state", tree)
    for shape, spec in (((1, 2, 2), ("tensor", "fsdp")), ((2, 1, 4), (None, "tensor")), ((1, 1, 1), ())):

        def move(sharding, x, shape=shape, spec=spec):
            return place(shape, spec if len(x.shape) == 2 else ())

        restored = restore_state(tmp_path / "state", abstract(tree, move))
        assert_equal(restored, tree)
        assert restored["params"]["w"].sharding == place(shape, spec)


def test_saving_again_replaces(tmp_path):
    save_state(tmp_path / "state", {"x": jnp.zeros(3)})
    save_state(tmp_path / "state", {"x": jnp.ones(3)})
    assert_equal(restore_state(tmp_path / "state", {"x": jnp.zeros(3)}), {"x": jnp.ones(3)})
    assert os.listdir(tmp_path) == ["state"]


def test_nothing_compiles_after_the_first_save(tmp_path):
    compiled = []
    jax.monitoring.register_event_duration_secs_listener(
        lambda name, *_, **__: compiled.append(name) if "backend_compile" in name else None
    )
    jax.jit(lambda x: x * 3)(jnp.zeros(11)).block_until_ready()
    assert compiled  # the listener hears
    tree = state()
    save_state(tmp_path / "state", tree)  # takes the PRNG keys' data out of them
    restore_state(tmp_path / "state", tree)
    compiled.clear()
    save_state(tmp_path / "state", tree)
    restore_state(tmp_path / "state", tree)
    assert not compiled


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: {**t, "extra": jnp.zeros(2)}, "leaf extra is not in it"),
        (lambda t: {k: v for k, v in t.items() if k != "b"}, "leaf b is in it and is not asked for"),
        (lambda t: {**t, "b": jnp.zeros(4)}, r"leaf b is int32 \[3\], asked for as float32 \[4\]"),
        (lambda t: {**t, "b": jnp.zeros(3)}, r"asked for as float32 \[3\]"),
        (lambda t: {**t, "b": jax.random.key(0)}, "leaf b is no PRNG key"),
        (lambda t: {**t, "k": jnp.zeros(2, jnp.uint32)}, "leaf k is a PRNG key"),
        (lambda t: {**t, "b": None}, "leaf b is in it"),
    ],
)
def test_another_structure_is_refused(tmp_path, change, words):
    tree = {"a": jnp.ones((4, 2)), "b": jnp.arange(3), "k": jax.random.key(1)}
    save_state(tmp_path / "state", tree)
    with pytest.raises(CheckpointError, match=words):
        restore_state(tmp_path / "state", change(tree))


def test_what_cannot_be_saved(tmp_path):
    with pytest.raises(CheckpointError, match="leaf a.b is a str"):
        save_state(tmp_path / "state", {"a": {"b": "text"}})
    with pytest.raises(CheckpointError, match="same name"):
        save_state(tmp_path / "state", {"a": {"b": 1}, "a.b": 2})
    assert os.listdir(tmp_path) == []


def data_files(path):
    return [file for file in (path / "tree").rglob("*") if file.is_file() and file.stat().st_size and "d" in file.parts]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # tensorstore's, of reads that failed
def test_damage_is_found(tmp_path):
    """A flipped byte, a truncated and a missing file, anywhere in the data: never a wrong state, always one clear line."""
    tree = {"a": jnp.asarray(np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)), "b": jnp.arange(3)}
    path = tmp_path / "state"
    save_state(path, tree)
    files = data_files(path)
    assert files
    found = 0
    for file in files:
        data = file.read_bytes()
        flipped = bytearray(data)
        flipped[len(data) // 2] ^= 4
        for damaged in (bytes(flipped), data[: len(data) // 2], None):
            file.unlink()
            if damaged is not None:
                file.write_bytes(damaged)
            try:
                assert_equal(restore_state(path, tree), tree)  # files that the merged index no longer needs
            except CheckpointError as error:
                found += 1
                assert str(path) in str(error) and "\n" not in str(error)
            file.write_bytes(data)
    assert found >= 3
    assert_equal(restore_state(path, tree), tree)
    gc.collect()


def test_wrong_values_are_found(tmp_path):
    """Another state's data under this one's manifest: Orbax is content, the checksum is not."""
    save_state(tmp_path / "state", {"a": jnp.zeros(5), "b": jnp.ones(2)})
    save_state(tmp_path / "other", {"a": jnp.zeros(5).at[3].set(1e-30), "b": jnp.ones(2)})
    (tmp_path / "state" / "manifest.json").write_text((tmp_path / "other" / "manifest.json").read_text())
    with pytest.raises(CheckpointError, match="a is damaged"):
        restore_state(tmp_path / "state", {"a": jnp.zeros(5), "b": jnp.ones(2)})


def test_missing_and_broken_manifests(tmp_path):
    with pytest.raises(CheckpointError, match="no saved state"):
        restore_state(tmp_path / "state", {})
    save_state(tmp_path / "state", {"a": jnp.zeros(5)})
    for text, words in (("{", "not sound JSON"), ("{}", "damaged"), ("[]", "damaged")):
        (tmp_path / "state" / "manifest.json").write_text(text)
        with pytest.raises(CheckpointError, match=words):
            restore_state(tmp_path / "state", {"a": jnp.zeros(5)})


def test_a_failed_save_leaves_what_was_there(tmp_path, monkeypatch):
    save_state(tmp_path / "state", {"a": jnp.zeros(5)})

    def fail(*_):
        raise OSError("no space left on device")

    monkeypatch.setattr("r1jax.checkpoint.state.save_arrays", fail)
    with pytest.raises(OSError):
        save_state(tmp_path / "state", {"a": jnp.ones(5)})
    monkeypatch.undo()
    assert os.listdir(tmp_path) == ["state"]
    assert_equal(restore_state(tmp_path / "state", {"a": jnp.zeros(5)}), {"a": jnp.zeros(5)})


def test_a_full_disk_is_the_systems_own_error(tmp_path, monkeypatch):
    """tensorstore wraps it in a ValueError, which would pass for bad input (seen on a full tmpfs)."""
    from orbax.checkpoint import v1 as ocp

    text = 'RESOURCE_EXHAUSTED: Failed writing: "d/2e8e": Failed to write 974887 bytes to file 27: No space left on device'

    def full(*_):
        raise ValueError(text)

    monkeypatch.setattr(ocp, "save", full)
    with pytest.raises(OSError, match="No space left on device") as raised:
        save_state(tmp_path / "state", {"w": np.zeros(3)})
    assert raised.value.errno == errno.ENOSPC and not (tmp_path / "state").exists()
    text = "INVALID_ARGUMENT: something else"
    with pytest.raises(ValueError, match="something else"):
        save_state(tmp_path / "state", {"w": np.zeros(3)})

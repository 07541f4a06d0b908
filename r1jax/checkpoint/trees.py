"""Flat trees of named arrays on disk, by Orbax, with a manifest of our own: the one place that knows Orbax's interface.

Orbax writes and reads arrays spread over any mesh; it has no end-to-end checksum, so each tree's manifest has one.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import logging
import os
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import jax
from etils import epath

from r1jax.checkpoint.integrity import CheckpointError, verify


@contextlib.contextmanager
def _orbax() -> Iterator[Any]:
    """Orbax's interface, without what it tells the log."""
    from orbax.checkpoint import v1 as ocp  # a second of imports, only where it is used

    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    context = ocp.Context()
    context.array.saving.use_replica_parallel = False  # it compiles programs to slice replicated arrays
    try:
        with warnings.catch_warnings(), context:
            warnings.simplefilter("ignore")
            yield ocp
    finally:
        logger.setLevel(level)


# What the system may refuse; tensorstore tells it in the text of a ValueError.
_REFUSALS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO)


def save_arrays(path: epath.Path, arrays: Mapping[str, Any]) -> None:
    """Writes named arrays (jax or numpy) as one Orbax tree in a new directory ``path``.

    Raises:
      OSError: the system refuses, with its own number: a full disk, a place without rights.
    """
    try:
        with _orbax() as ocp:
            ocp.save(path, dict(arrays))
    except ValueError as error:
        for number in _REFUSALS:
            if os.strerror(number) in str(error):
                raise OSError(number, os.strerror(number), os.fspath(path)) from error
        raise


def load_arrays(
    path: epath.Path, abstract: Mapping[str, Any], manifest: Mapping[str, Mapping[str, Any]], where: Any
) -> dict[str, Any]:
    """Reads named arrays and verifies them.

    Args:
      abstract: ``ShapeDtypeStruct`` with a sharding for an array on a mesh, a numpy array for one on the host.
      manifest: what ``integrity.describe`` said of them.
      where: what to call them in errors.

    Raises:
      CheckpointError: they can't be read or are not what was written.
    """
    try:
        with _orbax() as ocp:
            arrays = ocp.load(path, dict(abstract))
    except Exception as error:  # Orbax raises whatever its layers do: tensorstore's ValueErrors, KeyErrors, OSErrors
        reason = (" ".join(str(error).split()) or type(error).__name__)[:200]
        raise CheckpointError(f"{where} can't be read, its files are damaged or missing: {reason}") from error
    jax.block_until_ready(arrays)
    verify(arrays, manifest, where)
    return arrays


def release_memory() -> None:
    """Gives memory that was freed back to the system: glibc keeps it for each thread, and the many threads of tensorstore would
    hold on to many layers (measured: 17, where with this it is under 3). Does nothing where there is no glibc."""
    with contextlib.suppress(OSError, AttributeError, TypeError):
        ctypes.CDLL(None).malloc_trim(0)

"""The checkpoints of a stage: the last few are kept, and one that can't be read any more is passed over."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from etils import epath

from r1jax import checkpoint
from r1jax.pipeline import records

KEPT = 2  # the last one, and the one to go on from should that be damaged


class Checkpoints:
    """States of a stage by step, under ``folder``; each with the plain numbers that belong to it."""

    def __init__(self, folder: epath.Path):
        self._folder = folder

    def found(self) -> list[epath.Path]:
        """Folders of the finished ones, oldest first."""
        return sorted((f for f in self._folder.glob("*") if records.committed(f)), key=lambda f: f.name)

    def save(self, step: int, state: Any, progress: Mapping[str, Any]) -> None:
        """Writes a checkpoint unless there is one of this step, then lets go of all but the last ones."""
        folder = self._folder / f"{step:06d}"
        if not records.committed(folder):
            checkpoint.save_state(folder / "state", state)
            records.sync_tree(folder)
            records.commit(folder, content=progress)
        for old in self.found()[:-KEPT]:
            _drop(old)

    def restore(self, abstract: Any, warn: Callable[[str], None]) -> tuple[Any, dict[str, Any]] | None:
        """``(state, progress)`` of the newest checkpoint that can be read; None where there is none.

        What lies between it and a damaged newer one is done again from recorded waves, to the same bits. The damaged one is
        removed once an older one has been read, so that it is written anew.

        Args:
          abstract: see ``checkpoint.restore_state``.
          warn: told of each that was passed over.

        Raises:
          CheckpointError: there are checkpoints, and none can be read; none is removed.
        """
        reasons: list[str] = []
        damaged: list[epath.Path] = []
        for folder in reversed(self.found()):
            try:
                progress = records.read_record(folder)
                state = checkpoint.restore_state(folder / "state", abstract)
            except (ValueError, KeyError, OSError) as error:  # a record that is no JSON, a state that is damaged or gone
                damaged.append(folder)
                reasons.append(f"{folder}: {' '.join(str(error).split())}")
                continue
            for other, reason in zip(damaged, reasons):
                warn(f"passed over a damaged checkpoint, the steps since {folder.name} are done again: {reason}")
                _drop(other)
            return state, progress
        if damaged:
            raise checkpoint.CheckpointError(
                f"no checkpoint of {self._folder} can be read; restore one from a copy, or delete {self._folder} to begin "
                f"again from the recorded waves: {'; '.join(reasons)}"
            )
        return None


def _drop(folder: epath.Path) -> None:
    (folder / records.RECORD).unlink()  # first: a half-deleted checkpoint did not happen
    folder.rmtree()

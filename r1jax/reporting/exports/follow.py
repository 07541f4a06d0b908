"""What is new in a work directory since the last look: committed updates, evaluations and timings, each seen once."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from r1jax.reporting import files
from r1jax.reporting.collect import RECORD


@dataclass(frozen=True)
class Event:
    """Figures of one moment.

    ``kind``: ``updates``, ``held_out``, ``timing`` or ``evaluations/<benchmark>``; steps of a kind rise. ``figures``: name -> finite
    number. ``time``: seconds since 1970.
    """

    stage: str
    kind: str
    step: int
    figures: Mapping[str, float]
    time: float


class Sink(Protocol):
    """Takes events, of each stage in order of steps within a kind of figure."""

    def write(self, event: Event) -> None: ...

    def flush(self) -> None:
        """Makes what was written visible to others."""

    def close(self) -> None: ...


GROUPS = (  # first of these that fits an update's metric names its folder in the other program
    ("reward_", "reward/"),
    ("response_length", "response/length"),
    ("reflection", "response/reflection"),
    ("wait_", "response/wait_"),
    ("accuracy", "reward/right"),
    ("", "update/"),
)
SKIPPED = {"step", "rollout", "steps"}


def _named(metric: str) -> str:
    prefix, folder = next((prefix, folder) for prefix, folder in GROUPS if metric.startswith(prefix))
    return folder + metric.removeprefix(prefix)


def _numbers(value: Any) -> dict[str, float]:
    """The finite numbers of an object, true and false left out."""
    if not isinstance(value, dict):
        return {}
    numbers = {str(k): v for k, v in value.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}
    return {k: float(v) for k, v in numbers.items() if v == v and abs(v) != float("inf") and k not in SKIPPED}


@dataclass
class Follower:
    """Reads a work directory again and again; ``new()`` gives what was not there at the last call."""

    workdir: str
    seen: set[str] = field(default_factory=set)

    def new(self) -> Iterator[Event]:
        for stage in files.names(f"{self.workdir}/stages"):
            folder = f"{self.workdir}/stages/{stage}"
            for name in self._unseen(f"{folder}/updates"):
                path = f"{folder}/updates/{name}"
                figures = {_named(k): v for k, v in _numbers(self._read(f"{path}/metrics.json")).items()}
                yield Event(stage, "updates", _digits(name), figures, _moment(path))
            for name in self._unseen(f"{folder}/held_out"):
                path = f"{folder}/held_out/{name}"
                figures = {f"held_out/{k}": v for k, v in _numbers(self._read(f"{path}/metrics.json")).items()}
                yield Event(stage, "held_out", _digits(name), figures, _moment(path))
            found = [(self._step(folder, name), name) for name in self._unseen(f"{folder}/evaluations")]
            for step, name in sorted(found):
                path, benchmark = f"{folder}/evaluations/{name}", name.rpartition("-")[0]
                figures = {k: v for k, v in _numbers(self._read(f"{path}/figures.json")).items() if k not in _SETTINGS}
                named = {f"benchmark/{benchmark}/{k}": v for k, v in figures.items()}
                yield Event(stage, f"evaluations/{benchmark}", step, named, _moment(path))
            for name in self._unseen(f"{self.workdir}/timing/{stage}", record=False):
                path = f"{self.workdir}/timing/{stage}/{name}"
                timing = self._read(path)
                steps = timing.get("steps") if isinstance(timing, dict) else None
                if steps:
                    figures = {f"time/{k}": v for k, v in _numbers(timing).items()}
                    yield Event(stage, "timing", max(steps), figures, _moment(path))

    def _unseen(self, folder: str, record: bool = True) -> Iterator[str]:
        for name in files.names(folder):
            path = f"{folder}/{name}"
            if path not in self.seen and (not record or files.exists(f"{path}/{RECORD}")):
                self.seen.add(path)
                yield name

    @staticmethod
    def _step(folder: str, name: str) -> int:
        """Of an evaluation; ``-after`` comes after the last update."""
        when = name.rpartition("-")[2]
        if when == "after":
            return max(map(_digits, files.names(f"{folder}/updates")), default=-1) + 1
        return 0 if when == "before" else _digits(when)

    @staticmethod
    def _read(path: str) -> Any:
        data = files.read_bytes(path)
        try:
            return None if data is None else json.loads(data)
        except ValueError:
            return None


def _moment(path: str) -> float:
    """When a file was written, so that exports made again later keep the run's own clock."""
    try:
        return os.path.getmtime(path)
    except OSError:
        return 0.0


_SETTINGS = {"problems", "samples", "temperature", "top_p", "max_tokens", "seed"}


def _digits(name: str) -> int:
    return int(name) if name.isdecimal() else 0

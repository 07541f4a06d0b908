"""Compilations, counted process-wide: after warm-up there must be none (invariant 7), save for announced ones."""

from __future__ import annotations

import contextlib
import functools
import threading
from collections.abc import Callable, Iterator

import jax

# Recorded once per program that a backend is asked for, whether it is compiled or found in a compilation cache.
BACKEND_COMPILE = "/jax/core/compile/backend_compile_duration"


class CompileCounter:
    """Counts the programs that were compiled in this process, whoever asked for them.

    Attributes:
      total: programs since the counter was made.
      announced: those of them inside ``planned``.
      seconds: time spent on all of them.
    """

    def __init__(self):
        self.total = 0
        self.announced = 0
        self.seconds = 0.0
        self._expected = 0
        self._lock = threading.Lock()

    @property
    def unplanned(self) -> int:
        return self.total - self.announced

    @contextlib.contextmanager
    def planned(self, reason: str, announce: Callable[[str], None] | None = None) -> Iterator[None]:
        """Programs compiled inside are planned: a stage's start, a raised cap. ``announce`` is told, if there were any."""
        before, seconds = self.total, self.seconds
        with self._lock:
            self._expected += 1
        try:
            yield
        finally:
            with self._lock:
                self._expected -= 1
            if announce is not None and self.total > before:
                announce(f"compiled {self.total - before} programs in {self.seconds - seconds:.1f} s: {reason}")

    def _record(self, event: str, duration: float, **_: object) -> None:
        if event == BACKEND_COMPILE:
            with self._lock:
                self.total += 1
                self.seconds += duration
                self.announced += self._expected > 0


@functools.cache
def compile_counter() -> CompileCounter:
    """The process's counter. It counts from its first use on; ``jax.monitoring`` keeps it alive."""
    counter = CompileCounter()
    jax.monitoring.register_event_duration_secs_listener(counter._record)
    return counter

"""What people see while a run goes on: phases, a progress line, tables. Quiet where nobody watches.

On a terminal the progress line is drawn by rich and redrawn in place. Elsewhere (a file, a pipe, CI) it is a plain line
now and then, so that a log stays short. Nothing is drawn and rich is not imported before it is needed.
"""

from __future__ import annotations

import collections
import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, TextIO


def plain(text: Any) -> str:
    """``text`` on one line without control characters: what a model wrote must not steer the reader's terminal."""
    return "".join(c if c.isprintable() else " " for c in str(text))


def number(value: Any) -> str:
    """A figure for people: three significant digits, thousands separated; an en dash where there is none."""
    if value is None or value != value:
        return "–"
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return plain(value)
    if isinstance(value, int) or 999.5 <= abs(value) < 1e15:
        return f"{value:,.0f}"
    return f"{value:.3g}"


def duration(seconds: float) -> str:
    """``0.4 s``, ``12 s``, ``3:05``, ``2:03:05``."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


def table_lines(columns: Sequence[str], rows: Sequence[Sequence[Any]], width: int | None = None) -> list[str]:
    """A plain table: columns by their widest cell, numbers to the right, cells cut so that a line keeps to ``width``."""
    from rich.cells import cell_len, set_cell_size  # a Chinese character takes two columns

    cells = [[number(c) for c in row] for row in rows]
    widths = [max(map(cell_len, column)) for column in zip(columns, *cells)]
    while width is not None and sum(widths) + 2 * len(widths) - 2 > width and max(widths) > 6:
        widths[widths.index(max(widths))] -= 1
    right = [bool(rows) and all(isinstance(row[i], (int, float, type(None))) for row in rows) for i in range(len(columns))]

    def line(row: Sequence[str]) -> str:
        parts = []
        for text, size, to_the_right in zip(row, widths, right):
            if cell_len(text) > size:
                text = set_cell_size(text, size - 1) + "…"
            space = " " * (size - cell_len(text))
            parts.append(space + text if to_the_right else text + space)
        return "  ".join(parts).rstrip()

    return [line(columns), "  ".join("─" * size for size in widths), *map(line, cells)]


class Console:
    """Where progress is drawn. Safe to call from one thread; every method returns at once.

    Args:
      stream: standard error by default, so that standard output stays for results.
      interval: seconds between two plain progress lines where ``stream`` is no terminal.
      clock: seconds that only go up; given by tests.
    """

    def __init__(self, stream: TextIO | None = None, interval: float = 15.0, clock: Callable[[], float] = time.monotonic):
        self.stream = sys.stderr if stream is None else stream
        self.interval = interval
        self.clock = clock
        self.terminal = bool(getattr(self.stream, "isatty", lambda: False)())
        self.seconds: dict[str, float] = {}  # total of each phase
        self._phases: list[str] = []
        self._live = None  # rich's, while a progress line stands on a terminal
        self._line: tuple[str, int, int, dict[str, Any]] | None = None
        self._history: collections.deque[tuple[float, int]] = collections.deque(maxlen=20)
        self._printed = -float("inf")

    def say(self, text: str) -> None:
        """A line that stays."""
        self._print(plain(text))

    def warn(self, text: str) -> None:
        """A line that stays and should be read."""
        self._print(f"warning: {plain(text)}")

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[None]:
        """Names what goes on and adds up its time in ``seconds``; outside a progress line also says so when it is done."""
        started = self.clock()
        self._phases.append(name)
        self._draw()
        try:
            yield
            spent = self.clock() - started
            if self._line is None:
                self.say(f"{'  ' * (len(self._phases) - 1)}{name}: {duration(spent)}")
        finally:
            self.seconds[name] = self.seconds.get(name, 0.0) + self.clock() - started
            self._phases.pop()
            self._draw()

    def progress(self, label: str, done: int, total: int, figures: Mapping[str, Any] | None = None) -> None:
        """Draws the progress line: ``label`` is at ``done`` of ``total``; ``figures`` are shown as they are named."""
        if self._line is None or self._line[0] != label or done < self._line[1]:
            self._history.clear()
            self._printed = -float("inf")
        if not self._history or self._history[-1][1] != done:
            self._history.append((self.clock(), done))
        self._line = (label, done, total, dict(figures or {}))
        if self.terminal:
            self._draw()
        elif self.clock() - self._printed >= self.interval or done >= total:
            self._printed = self.clock()
            self._print(f"{label} {done:,}/{total:,}: {self._details()}")

    def end_progress(self) -> None:
        """Takes the progress line away; a terminal keeps its last state."""
        if self._live is not None:
            self._live.update(self._render())
            self._live.stop()
            self._live = None
        self._line = None
        self._history.clear()

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """A table that stays. Cells are numbers, None or text."""
        import shutil

        width = shutil.get_terminal_size((125, 20)).columns if self.terminal else None
        self._print("\n".join(["", plain(title), *table_lines(columns, rows, width)]))

    def close(self) -> None:
        self.end_progress()

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    # ------------------------------------------------------------------------------------------ drawing
    def _print(self, text: str) -> None:
        if self._live is not None:
            self._live.console.print(text, markup=False, highlight=False, soft_wrap=True)
            return
        try:
            print(text, file=self.stream, flush=True)
        except UnicodeEncodeError:  # a stream of another encoding gets what it can show
            print(text.encode(self.stream.encoding, "replace").decode(self.stream.encoding), file=self.stream, flush=True)

    def _left(self) -> float | None:
        """Seconds to the end at the recent pace."""
        _, done, total, _ = self._line
        if len(self._history) < 2 or done >= total:
            return None
        (first, start), (last, now) = self._history[0], self._history[-1]
        return (total - done) * (last - first) / (now - start)

    def _details(self) -> str:
        figures = [f"{name} {number(value)}" for name, value in self._line[3].items()]
        left = self._left()
        return ", ".join([*figures, *([f"{duration(left)} left"] if left is not None else [])])

    def _render(self) -> Any:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        label, done, total, _ = self._line
        count = f"{done:,}/{total:,}"
        narrow = self._live.console.width < 90
        bar = ProgressBar(total=max(total, 1), completed=done, width=8 if narrow else 24)
        grid = Table.grid(padding=(0, 1))
        for width in (len(label), bar.width, len(count), None):  # what has no room is cut from the last column
            grid.add_column(no_wrap=True, min_width=width, overflow="ellipsis")
        details = Text.assemble((f"{self._phases[-1]}  " if self._phases else "", "cyan"), self._details())
        grid.add_row(Text(label, style="bold"), bar, Text(count), details)
        return grid

    def _draw(self) -> None:
        if not self.terminal or self._line is None:
            return
        if self._live is None:
            from rich.console import Console as RichConsole
            from rich.live import Live

            self._live = Live(console=RichConsole(file=self.stream), auto_refresh=False)
            self._live.start()
        self._live.update(self._render(), refresh=True)

"""What people see while a run goes on: phases, a progress line, tables. Quiet where nobody watches.

On a terminal the progress line is drawn by rich and redrawn in place. Elsewhere (a file, a pipe, CI) it is a plain line
when something is done, ever more rarely: about ten lines in the first five minutes, some 300 in five days. Nothing is drawn
and rich is not imported before it is needed.
"""

from __future__ import annotations

import collections
import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TextIO

PACE_OVER = 200  # steps that the time left is reckoned from: several rollouts, whose updates come in bursts


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


@dataclass
class _Line:
    """What the progress line shows."""

    label: str
    done: int
    total: int
    depth: int  # of phases that were under way before it
    figures: dict[str, Any] = field(default_factory=dict)
    activity: tuple[str, str] = ("", "")  # phase, how far it is


class _Lasting:
    """A stream that may go away while others write to it: its terminal is closed, its pipe's reader (``| tee``) has ended. What can't
    be written is dropped, and so is all that comes after it."""

    def __init__(self, stream: TextIO):
        self._stream, self._gone = stream, False

    def write(self, text: str) -> int:
        self._unless_gone(self._stream.write, text)
        return len(text)

    def flush(self) -> None:
        self._unless_gone(self._stream.flush)

    def _unless_gone(self, do: Callable[..., object], *arguments: str) -> None:
        if self._gone:
            return
        try:
            do(*arguments)
        except OSError:
            self._gone = True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class Console:
    """Where progress is drawn. Safe to call from one thread; every method returns at once.

    Args:
      stream: standard error by default, so that standard output stays for results.
      interval: least seconds between two plain progress lines where ``stream`` is no terminal; grows to a fiftieth of the
        time that has passed.
      clock: seconds that only go up; given by tests.
    """

    def __init__(self, stream: TextIO | None = None, interval: float = 20.0, clock: Callable[[], float] = time.monotonic):
        self.stream = _Lasting(sys.stderr if stream is None else stream)
        self.interval = interval
        self.clock = clock
        self.terminal = bool(getattr(self.stream, "isatty", lambda: False)()) and os.environ.get("TERM") != "dumb"
        self.seconds: dict[str, float] = {}  # total of each phase
        self._began = clock()
        self._phases: list[tuple[str, float]] = []  # those under way, and when they began
        self._live = None  # rich's, while a progress line stands on a terminal
        self._line: _Line | None = None
        self._history: collections.deque[tuple[float, int]] = collections.deque(maxlen=PACE_OVER)
        self._printed = 0.0  # when the last plain line was, or its label began
        self._printed_at = -1  # how much was done then
        self._drawn = -float("inf")

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
        self._phases.append((name, started))
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

    def progress(
        self, label: str, done: int, total: int, figures: Mapping[str, Any] | None = None, activity: str = ""
    ) -> None:
        """Draws the progress line: ``label`` is at ``done`` of ``total``.

        Args:
          figures: shown as they are named (``reward 1.4``; ``tok/s`` and the like after their value); one that is not given
            again stays as it was.
          activity: how far the phase under way is, such as ``120/256``; on terminals only.
        """
        now = self.clock()
        if self._line is None or self._line.label != label or done < self._line.done:
            self._line = _Line(label, done, total, len(self._phases))
            self._history.clear()
            self._printed, self._printed_at = now, -1
        if not self._history or self._history[-1][1] != done:
            self._history.append((now, done))
            self._drawn = -float("inf")
        self._line.done, self._line.total = done, total
        self._line.activity = (self._phases[-1][0] if self._phases else "", activity)
        self._line.figures |= figures or {}
        if self.terminal:
            if now - self._drawn >= 0.1:
                self._draw()
        elif done != self._printed_at and (
            now - self._printed >= max(self.interval, (now - self._began) / 50) or done >= total
        ):
            self._printed, self._printed_at = now, done
            self._print(f"{time.strftime('%H:%M:%S')} {label} {done:,}/{total:,}  {self._details(self._line)}".rstrip())

    def end_progress(self) -> None:
        """Takes the progress line away; a terminal keeps its last state."""
        if self._live is not None:
            self._live.stop()  # draws it a last time
            self._live = None
        self._line = None
        self._history.clear()

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        """A table that stays. Cells are numbers, None or text."""
        import shutil

        width = shutil.get_terminal_size((125, 20)).columns if self.terminal else None
        lines = ["", plain(title), *table_lines(columns, rows, width)]
        if self.terminal and "NO_COLOR" not in os.environ:
            lines[1:4] = [f"\x1b[1m{lines[1]}\x1b[0m", f"\x1b[2m{lines[2]}\x1b[0m", f"\x1b[2m{lines[3]}\x1b[0m"]
        self._print("\n".join(lines))

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

    def _left(self, line: _Line) -> float | None:
        """Seconds to the end at the recent pace; the first step, which compiles, is no part of it once there are others."""
        history = list(self._history)
        if len(history) > 3:
            history = history[1:]
        if len(history) < 2 or line.done >= line.total:
            return None
        (first, start), (last, now) = history[0], history[-1]
        return max(0.0, (line.total - line.done) * (last - first) / (now - start) - (self.clock() - last))

    def _details(self, line: _Line) -> str:
        left = self._left(line)
        named = list(line.figures.items())
        figures = [f"{name} {number(value)}" for name, value in named if not name.endswith("/s")]
        rates = [f"{number(value)} {name}" for name, value in named if name.endswith("/s")]
        return "  ".join([*([f"{duration(left)} left"] if left is not None else []), *figures, *rates])

    def _render(self) -> Any:
        from rich.progress_bar import ProgressBar
        from rich.table import Table
        from rich.text import Text

        line, live = self._line, self._live
        if line is None or live is None:  # asked for by the drawing thread, between two lines
            return Text("")
        count = f"{line.done:,}/{line.total:,}"
        narrow = live.console.width < 100
        bar = ProgressBar(total=max(line.total, 1), completed=line.done, width=8 if narrow else 20)
        grid = Table.grid(padding=(0, 1))
        for width in (len(line.label), bar.width, len(count), None):  # what has no room is cut from the last column
            grid.add_column(no_wrap=True, min_width=width, overflow="ellipsis")
        phases = list(self._phases)
        phase, began = phases[-1] if len(phases) > line.depth else ("", 0.0)
        if phase:
            spent = self.clock() - began
            words = (phase, line.activity[1] if line.activity[0] == phase else "", duration(spent) if spent >= 5 else "")
            phase = " ".join(word for word in words if word)
        details = Text.assemble(self._details(line), ("  " + phase if phase else "", "cyan"))
        grid.add_row(Text(line.label, style="bold"), bar, Text(count), details)
        return grid

    def _draw(self) -> None:
        if not self.terminal or self._line is None:
            return
        if self._live is None:
            from rich.console import Console as RichConsole
            from rich.live import Live

            # Twice a second by itself too: a step may take minutes, and a clock that stands still looks like a hang.
            self._live = Live(console=RichConsole(file=self.stream), get_renderable=self._render, refresh_per_second=2)
            self._live.start()
        self._drawn = self.clock()
        self._live.refresh()

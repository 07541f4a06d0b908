"""The console: plain and rare where nobody watches, in place on a terminal, deaf to control characters."""

import io
import subprocess
import sys

import pytest

from r1jax.reporting.console import Console, duration, number, table_lines


class Clock:
    def __init__(self):
        self.now = 100.0

    def __call__(self):
        return self.now


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_plain_progress_is_rare_and_tells_the_time_left():
    clock, stream = Clock(), io.StringIO()
    console = Console(stream, interval=15, clock=clock)
    for done in range(101):
        console.progress("rl", done, 100, {"reward": 0.5, "length": 1234})
        clock.now += 1
    lines = [line.partition(" ")[2] for line in stream.getvalue().splitlines()]  # without the time of day
    assert lines[0] == "rl 15/100  1:25 left  reward 0.5  length 1,234"
    assert len(lines) == 7 and lines[-1].startswith("rl 100/100")  # at 15, 30, ..., 90 and the end
    assert all(line.isprintable() for line in lines)


def test_plain_progress_gets_rarer_and_keeps_silent_where_nothing_is_done():
    clock, stream = Clock(), io.StringIO()
    console = Console(stream, clock=clock)
    for second in range(5 * 24 * 3600):  # five days, a step every minute
        if second % 60 == 0:
            console.progress("rl", second // 60, 7200)
        clock.now += 1
    assert 200 < len(stream.getvalue().splitlines()) < 400
    stream.truncate(0)
    for _ in range(1000):
        console.progress("rl", 7199, 7200, activity="12/256")
        clock.now += 1000
    assert len(stream.getvalue().splitlines()) <= 1


def test_figures_stay_until_they_change_and_rates_stand_before_their_unit():
    clock, stream = Clock(), io.StringIO()
    console = Console(stream, interval=0, clock=clock)
    console.progress("rl", 1, 9, {"reward": 0.5, "tok/s": 1500})
    console.progress("rl", 2, 9, {"reward": 0.75})
    console.progress("other", 1, 9)
    lines = [line.partition(" ")[2] for line in stream.getvalue().splitlines()]
    assert lines[0].endswith("reward 0.5  1,500 tok/s") and lines[1].endswith("reward 0.75  1,500 tok/s")
    assert lines[2] == "other 1/9"


def test_the_time_left_runs_down_between_steps_and_leaves_out_the_first_step():
    clock = Clock()
    console = Console(Terminal(), clock=clock)
    for done, spent in enumerate((0, 100, 2, 2, 2)):  # the first step compiles
        clock.now += spent
        console.progress("rl", done, 14)
    assert console._left(console._line) == 20
    clock.now += 5
    assert console._left(console._line) == 15
    clock.now += 50
    assert console._left(console._line) == 0
    console.close()


def test_a_dumb_terminal_gets_plain_lines(monkeypatch):
    monkeypatch.setenv("TERM", "dumb")
    stream = Terminal()
    with Console(stream) as console:
        console.progress("rl", 2, 2)
        console.table("t", ["x"], [[1]])
    assert "\x1b" not in stream.getvalue() and "rl 2/2" in stream.getvalue()


def test_a_terminal_gets_a_line_in_place(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    stream = Terminal()
    with Console(stream) as console:
        with console.phase("zero: grpo"):
            console.progress("rl", 3, 10, {"tok/s": 900, "reward": 0.25})
            with console.phase("sampling"):
                console._drawn = 0.0
                console.progress("rl", 3, 10, activity="12/256")
            with console.phase("updating"):
                pass
        console.say("a line that stays [bold]")
    text = stream.getvalue()
    assert "3/10" in text and "reward 0.25" in text and "sampling 12/256" in text and "\x1b[" in text
    assert "reward 0.25  900 tok/s" in text and "updating" in text
    assert "zero: grpo" not in text.partition("a line that")[0], "the label says that"
    assert "updating 12/256" not in text  # how far another phase was
    assert "a line that stays [bold]" in text  # no markup is read


@pytest.mark.parametrize("kind", [io.StringIO, Terminal], ids=["pipe", "terminal"])
@pytest.mark.parametrize("error", [BrokenPipeError, OSError(5, "Input/output error")], ids=["no reader", "no terminal"])
def test_a_stream_that_goes_away_costs_the_lines_only(monkeypatch, kind, error):
    monkeypatch.setenv("TERM", "xterm")

    class Leaving(kind):
        left = 2

        def write(self, text):
            if self.left == 0:
                raise error
            self.left -= 1
            return super().write(text)

    stream = Leaving()
    with Console(stream, interval=0) as console, console.phase("zero"):
        console.say("first")
        for done in range(5):
            console.progress("rl", done, 5, {"reward": 0.5})
        console.warn("nobody reads this")
        console.table("t", ["x"], [[1]])
    assert stream.left == 0 and "first" in stream.getvalue() and "nobody" not in stream.getvalue()


def test_a_terminal_shows_how_long_a_phase_has_taken(monkeypatch):
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "120")
    clock, stream = Clock(), Terminal()
    with Console(stream, clock=clock) as console:
        console.progress("rl", 1, 9)
        with console.phase("updating"):
            clock.now += 42
            console.progress("rl", 1, 9)
    assert "updating 42 s" in stream.getvalue()


def test_phases_are_timed_and_said_outside_progress_only():
    clock, stream = Clock(), io.StringIO()
    console = Console(stream, clock=clock)
    with console.phase("load"):
        clock.now += 2
    console.progress("rl", 1, 2)
    with console.phase("sample"):
        clock.now += 1
    console.end_progress()
    with pytest.raises(KeyError), console.phase("load"):
        clock.now += 3
        raise KeyError
    assert console.seconds == {"load": 5.0, "sample": 1.0}
    assert "load: 2.0 s" in stream.getvalue() and "sample" not in stream.getvalue()
    assert stream.getvalue().count("load") == 1  # what failed is not said to be done


def test_control_characters_never_reach_the_terminal():
    stream = io.StringIO()
    console = Console(stream)
    console.say("a\x1b[2Jb\rc\nd")
    console.table("t\x1b", ["x"], [["\x1b[31mred"]])
    assert "\x1b" not in stream.getvalue() and "\r" not in stream.getvalue()
    assert stream.getvalue().splitlines()[0] == "a [2Jb c d"


def test_a_stream_that_cannot_show_a_character_goes_on():
    stream = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    Console(stream).say("等等 ok")
    stream.seek(0)
    assert stream.read() == "?? ok\n"


def test_tables_align_numbers_and_wide_characters():
    lines = table_lines(["name", "n"], [["等等", 1], ["ab", 12_345], ["c", None]])
    assert (
        lines[0] == "name       n"
        and lines[2] == "等等       1"
        and lines[3] == "ab    12,345"
        and lines[4] == "c          –"
    )
    cut = table_lines(["name", "n"], [["x" * 50, 1]], width=20)
    assert all(len(line) <= 20 for line in cut) and "…" in cut[2]


@pytest.mark.parametrize(
    "value, text",
    [
        (0.123456, "0.123"),
        (12, "12"),
        (20.74, "20.7"),
        (999.6, "1,000"),
        (1234.5, "1,234"),
        (1e-5, "1e-05"),
        (None, "–"),
        (float("nan"), "–"),
        (0.0, "0"),
        ("a\tb", "a b"),
    ],
)
def test_numbers(value, text):
    assert number(value) == text


def test_durations():
    assert [duration(s) for s in (0.44, 12.3, 185, 7385)] == ["0.4 s", "12 s", "3:05", "2:03:05"]


def test_importing_the_room_is_cheap_and_pulls_in_neither_jax_nor_rich():
    code = "import sys, r1jax.reporting as r; print([m for m in ('jax', 'numpy', 'rich', 'plotly', 'r1jax.config') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip() == "[]"

"""The command line. A command is a module of ``r1jax.commands``; what is heavy is imported inside its ``run``.

Exit codes: 0 complete, 1 the work failed, 2 bad usage or input (one line on stderr), 75 stopped by a signal with
state saved: the same command goes on.
"""

from __future__ import annotations

import argparse
import difflib
import errno
import importlib
import os
import sys
import traceback
from collections.abc import Sequence

import r1jax

COMMANDS = ("run", "convert", "export", "generate", "chat", "evaluate", "models", "report")

COMPLETE, FAILED, BAD_INPUT = 0, 1, 2
LONGEST = 3_000  # characters of a message; it may quote a whole file that is no recipe
SYSTEM_REFUSALS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO})

REMEDIES = {
    **dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "; make room and give the same command again"),
    **dict.fromkeys((errno.EROFS, errno.EACCES, errno.EPERM), "; choose a place that can be written"),
}


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str):
        self.exit(BAD_INPUT, f"{self.prog}: {' '.join(message.split())} (see {self.prog} --help)\n")


def make_parser() -> argparse.ArgumentParser:
    """The parser of the whole command line; ``run`` of the parsed arguments is the command."""
    parser = _Parser(prog="r1jax", description="The whole of DeepSeek-R1 in JAX.", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"r1jax {r1jax.__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in COMMANDS:
        module = importlib.import_module(f"r1jax.commands.{name}")
        first_line = module.__doc__.partition("\n")[0]
        command = commands.add_parser(name, help=first_line, description=module.__doc__, allow_abbrev=False)
        command.formatter_class = argparse.RawDescriptionHelpFormatter
        module.add_arguments(command)
        command.set_defaults(run=module.run, command=name)
    return parser


def _is_ours(error: Exception) -> bool:
    """Whether r1jax itself raised it, so that its message is for the user: a ValueError refuses an input, a RuntimeError says
    what failed. One raised by a library (a shape of jax's) or by a user's module is shown with where it came from."""
    frames = list(traceback.walk_tb(error.__traceback__))
    return bool(frames) and frames[-1][0].f_globals.get("__name__", "").partition(".")[0] == "r1jax"


def _is_told(error: Exception) -> bool:
    """Whether the message says enough: r1jax's own, and what the system refuses (a full disk, a folder without rights)."""
    if isinstance(error, OSError) and error.errno in SYSTEM_REFUSALS:
        return True
    ours = isinstance(error, (RuntimeError, FloatingPointError)) and _is_ours(error)  # the latter: a loss that is no number
    return type(error) is not RecursionError and ours


def _one_line(error: Exception) -> str:
    """The message in one line; of what is very long the ends."""
    text = " ".join(str(error).split())
    return text if len(text) <= LONGEST else f"{text[: LONGEST // 2]} ... {text[-LONGEST // 2 :]}"


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs a command; returns the exit code."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if arguments and not arguments[0].startswith("-") and arguments[0] not in COMMANDS:
        close = difflib.get_close_matches(arguments[0], COMMANDS, n=1)
        hint = f"did you mean {close[0]!r}?" if close else f"commands: {', '.join(COMMANDS)}"
        print(f"r1jax: no command {arguments[0]!r}; {hint}", file=sys.stderr)
        return BAD_INPUT
    try:
        parsed = make_parser().parse_args(arguments)
    except SystemExit as error:  # argparse has said why, or printed the help
        return int(error.code or 0)
    name = f"r1jax {parsed.command}"
    # TensorFlow's and XLA's C++ logs on stderr tell users nothing that they could act on.
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        return parsed.run(parsed)
    except ValueError as error:
        if _is_ours(error):
            print(f"{name}: {_one_line(error)}", file=sys.stderr)
            return BAD_INPUT
        traceback.print_exc()
        print(f"{name}: failed: {type(error).__name__}: {error}", file=sys.stderr)
        return FAILED
    except KeyboardInterrupt:
        print(f"{name}: interrupted", file=sys.stderr)
        return FAILED
    except BrokenPipeError:  # the reader of stdout has gone (| head): what it wanted, it has
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return FAILED
    except Exception as error:
        if _is_told(error):
            print(f"{name}: failed: {_one_line(error)}{REMEDIES.get(getattr(error, 'errno', None), '')}", file=sys.stderr)
            return FAILED
        traceback.print_exc()
        print(f"{name}: failed: {type(error).__name__}: {error}", file=sys.stderr)
        return FAILED


if __name__ == "__main__":
    sys.exit(main())

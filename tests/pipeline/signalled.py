"""``python tests/pipeline/signalled.py run ...``: r1jax in a process that signals itself at a moment, the same each time.

``SIGNAL``: its number. ``MOMENT``: ``before`` or ``after``; a function, ``module:name`` or ``module:Class.name``; and which of its calls:
a number from 1 on, or how its first argument ends (a path). Without ``MOMENT`` nothing is signalled.

A judge whose words say nothing, such as a random model, is given a verdict: ``decisive`` reads one from the answers it was shown.
"""

import functools
import importlib
import os
import sys
import zlib

from r1jax import cli
from r1jax.scoring import judge
from r1jax.scoring.verdicts import Reading


def signalled(function, when, which):
    calls = 0

    @functools.wraps(function)
    def call(*arguments, **named):
        nonlocal calls
        calls += 1
        here = calls == int(which) if which.isdigit() else str(arguments[0]).endswith(which)
        if here and when == "before":
            os.kill(os.getpid(), int(os.environ["SIGNAL"]))
        result = function(*arguments, **named)
        if here and when == "after":
            os.kill(os.getpid(), int(os.environ["SIGNAL"]))
        return result

    return call


def decisive(answer, prompt, form):
    """By a number that each answer has, so that both orders agree."""
    shown = [line[3:] for line in prompt.splitlines() if line.startswith(("A: ", "B: "))]
    first, second = (zlib.crc32(text.encode()) for text in shown)
    return Reading(2.0 if first > second else -2.0, "A>>B" if first > second else "B>>A")


judge.read_answer = decisive
if moment := os.environ.get("MOMENT"):
    when, target, which = moment.split()
    module, _, path = target.partition(":")
    *owners, name = path.split(".")
    owner = functools.reduce(getattr, owners, importlib.import_module(module))
    setattr(owner, name, signalled(getattr(owner, name), when, which))
sys.exit(cli.main(sys.argv[1:]))

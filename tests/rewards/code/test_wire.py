"""What crosses between programs and tests: forms that no encoder makes are refused, whatever they are."""

import json
import os
import random

import pytest

from r1jax.rewards.code.inside import wire


def test_objects_are_sent_as_what_they_are_not_as_what_they_say():
    class Liar(int):
        def __eq__(self, other):
            return True

        def __index__(self):
            return 7

        __int__ = __add__ = __index__
        __hash__ = int.__hash__

    class Text(str):
        def __str__(self):
            return "other"

    assert wire.decode(wire.encode([Liar(3), Text("a")])) == [3, "a"]
    assert type(wire.decode(wire.encode(Liar(3)))) is int and type(wire.encode(Text("a"))) is str
    with pytest.raises(wire.Unsendable, match="class object"):
        wire.encode([object()])


@pytest.mark.parametrize(
    "form",
    [
        {},
        {"a": 1},
        {"int": "0x1", "float": "nan"},
        {"int": 3},
        {"int": "import"},
        {"float": "1"},
        {"set": [[1]]},
        {"dict": [1]},
        {"dict": [[[], 1]]},
        {"range": [1, 2, 3, 4]},
        {"range": ["a"]},
        {"fraction": [1, 0]},
        {"decimal": "x"},
        {"bytes": "zz"},
        {"object": [0, "a", True]},
        {"function": 0},
        {"yours": 0},
        {"tuple": 3},
        {"__import__": "os"},
    ],
)
def test_other_forms_are_refused(form):
    with pytest.raises((ValueError, TypeError, KeyError, ArithmeticError)):
        wire.decode(form)


def test_nonsense_of_any_kind_raises_only_what_the_tests_expect():
    rng = random.Random(0)
    tags = [
        "int",
        "float",
        "decimal",
        "bytes",
        "tuple",
        "set",
        "deque",
        "complex",
        "range",
        "fraction",
        "dict",
        "object",
        "x",
    ]

    def form(depth):
        kind = rng.randrange(8 if depth else 5)
        if kind < 5:
            return rng.choice([None, True, 0, -1, 1e9, "", "0x1f", "nan", 2**63])
        if kind == 5:
            return [form(depth - 1) for _ in range(rng.randrange(4))]
        return {rng.choice(tags): form(depth - 1) for _ in range(rng.choice([0, 1, 1, 1, 1, 2]))}

    decoded = 0
    for _ in range(20_000):
        try:
            wire.decode(form(4), lambda tag, content: None)
            decoded += 1
        except (ValueError, TypeError, KeyError, AttributeError, ArithmeticError, OverflowError):
            continue
    assert 1_000 < decoded < 19_000


def channels():
    one, two = os.pipe(), os.pipe()
    return wire.Channel(one[0], two[1]), wire.Channel(two[0], one[1]), one + two


def test_channels_bound_what_they_carry():
    here, there, fds = channels()
    here.send({"a": [1, "ü\ud800"]})
    assert there.receive() == {"a": [1, "ü\ud800"]}
    with pytest.raises(wire.Unsendable, match="bytes; 8388608 is the most"):
        here.send("x" * (wire.MAX_MESSAGE + 1))
    with pytest.raises(wire.Unsendable):
        here.send(float("nan"))
    os.write(fds[3], (wire.MAX_MESSAGE + 1).to_bytes(4, "big"))
    with pytest.raises(ValueError, match="a message of"):
        there.receive()
    os.write(fds[3], b"\0\0\0\4" + json.dumps({}).encode())
    os.close(fds[3])
    with pytest.raises(wire.Ended):
        there.receive()
    os.close(fds[0])
    with pytest.raises(wire.Ended):
        there.send({})
    for fd in (fds[1], fds[2]):
        os.close(fd)

"""Which outputs count as the same."""

import pytest

from r1jax.rewards.code.comparison import difference


@pytest.mark.parametrize("printed", ["1 2\n3\n", "1 2\n3", "1 2  \n3\t\n\n\n", "1 2\r\n3\r\n"])
def test_white_space_at_ends_does_not_count(printed):
    assert difference(printed, "1 2\n3\n") is None


@pytest.mark.parametrize(
    "printed", ["1  2\n3\n", " 1 2\n3\n", "1 2 3\n", "1 2\n\n3\n", "\n1 2\n3\n", "1 2\n3\n4\n", "1 2\n", "", "1 2\n3\0"]
)
def test_all_else_does(printed):
    assert difference(printed, "1 2\n3\n") is not None


def test_what_differs_is_said():
    assert difference("a\nb", "a\nc") == "line 2 is 'b', not 'c'"
    assert difference("a", "a\nc") == "1 lines instead of 2"
    assert difference("", "") is None and difference("\n\n", "") is None


@pytest.mark.parametrize(
    "printed, expected, same",
    [
        ("0.33333", "0.333334", True),
        ("1e3 yes", "1000.0001 yes", True),
        ("1000", "1001", False),
        ("-0.0", "0", True),
        ("1 2", "1", False),
        ("nan", "0", False),
        ("inf", "1e400", False),
        ("no", "yes", False),
        ("1_0", "10", False),
        ("0x10", "16", False),
        ("1" * 5000, "1", False),
        ("3", "3.0", True),
        (".5", "0.5", True),
    ],
)
def test_tolerance(printed, expected, same):
    assert (difference(printed, expected, 1e-5) is None) == same
    if printed != expected:
        assert difference(printed, expected) is not None

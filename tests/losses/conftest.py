"""Where the kit is found, and the options that put other losses under test."""

import importlib
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))  # tests are not a package: losskit is one


def pytest_addoption(parser):
    group = parser.getgroup("losses", "losses under test (tests/losses/test_conformance.py)")
    group.addoption("--loss", metavar="PACKAGE.MODULE:FUNCTION", help="a policy loss with the signature of grpo_loss")
    group.addoption("--algorithm", metavar="NAME", help="what --loss should be: its values are then compared too")
    group.addoption("--numbers", metavar="NAME=NUMBER,...", help="numbers of --algorithm that are not the paper's")
    group.addoption("--surrogate", metavar="PACKAGE.MODULE:FUNCTION", help="a surrogate for PolicyLoss(surrogate=...)")


def pytest_collection_modifyitems(config, items):
    """With a loss of one's own nothing is run but what is about it."""
    if any(config.getoption(option, default=None) for option in ("--loss", "--surrogate")):
        others = [item for item in items if "case" not in getattr(item, "fixturenames", ())]
        config.hook.pytest_deselected(items=others)
        items[:] = [item for item in items if item not in others]


@pytest.fixture(scope="session")
def losses(request):
    """The module under test: the package, or a mutated copy that tests/losses/mutate.py puts in its place."""
    return getattr(request.config, "losses_under_test", None) or importlib.import_module("r1jax.losses")

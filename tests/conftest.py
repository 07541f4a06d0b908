"""Every test sees 8 virtual CPU devices, and nothing else."""

import collections
import os

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")

import jax  # noqa: E402
import pytest  # noqa: E402

BACKEND_COMPILE = "/jax/core/compile/backend_compile_duration"


def pytest_collection_modifyitems(items):
    """The one test of several minutes begins first: begun last it keeps one worker busy and the other waiting."""
    items.sort(key=lambda item: item.path.name != "test_whole_recipe.py")


@pytest.fixture
def compilations():
    """How many programs of each function's name the test has compiled so far.

    Counted from jax's own events: ``_cache_size`` of a jitted function looks into a cache that the whole process shares, which
    forgets in long ones.
    """
    counts = collections.Counter()

    def record(event: str, duration: float, fun_name: str = "", **_: object) -> None:
        if event == BACKEND_COMPILE:
            counts[fun_name.removeprefix("jit(").removesuffix(")")] += 1

    jax.monitoring.register_event_duration_secs_listener(record)
    yield counts
    jax.monitoring.unregister_event_duration_listener(record)

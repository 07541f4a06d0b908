"""Losses stand alone: a notebook that imports them gets jax and nothing else of r1jax."""

import subprocess
import sys


def test_nothing_else_of_r1jax_and_hardly_any_time():
    program = (
        "import jax, sys, time; before = set(sys.modules); start = time.perf_counter(); import r1jax.losses;"
        "print(time.perf_counter() - start); print(*sorted(set(sys.modules) - before))"
    )
    times = []
    for _ in range(3):  # the least of three: another process may hold the core
        out = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True).stdout
        seconds, new = out.splitlines()
        assert all(m == "r1jax" or m.split(".")[:2] == ["r1jax", "losses"] for m in new.split() if m.startswith("r1jax"))
        assert not {"flax", "optax", "torch", "yaml", "orbax"} & set(new.split())
        times.append(float(seconds))
    assert min(times) < 0.2

"""The rewards room is light: no jax, and nothing heavy before it is used."""

import json
import subprocess
import sys

PROBE = """
import json, sys, time
start = time.perf_counter()
import r1jax.rewards
{use}
heavy = [m for m in ("jax", "jaxlib", "flax", "optax", "sympy", "mpmath", "numpy", "torch", "transformers") if m in sys.modules]
print(json.dumps(heavy))
"""


def heavy_after(use):
    return json.loads(
        subprocess.run([sys.executable, "-c", PROBE.format(use=use)], capture_output=True, text=True, check=True).stdout
    )


def test_nothing_heavy_is_loaded():
    assert heavy_after("") == []
    assert heavy_after("import r1jax.rewards.worker, r1jax.rewards.pool") == []
    assert heavy_after("assert r1jax.rewards.verify_math('72', '\\\\boxed{72.0}')") == []
    assert heavy_after("assert r1jax.rewards.verify_math('\\\\frac12', '0.5')") == []


def test_never_jax():
    everything = """
import importlib, pkgutil
for module in pkgutil.walk_packages(r1jax.rewards.__path__, "r1jax.rewards."): importlib.import_module(module.name)
[getattr(r1jax.rewards, name) for name in r1jax.rewards.__all__]
r1jax.rewards.verify_math('\\\\sqrt2', '1.4')
"""
    assert set(heavy_after(everything)) <= {"numpy", "mpmath", "sympy"}


def test_public_names_exist():
    import r1jax.rewards

    assert {"verify_math", "format_reward", "Verdict", "RewardRecord", "RewardRequest", "grade", "mix", "RewardPool"} <= set(
        dir(r1jax.rewards)
    )
    for name in r1jax.rewards.__all__:
        assert getattr(r1jax.rewards, name).__name__ == name

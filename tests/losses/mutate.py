"""Automatic mutation of ``r1jax/losses``: each small change of each file must make a test fail.

    python tests/losses/mutate.py [FILE ...]      FILE as policy/kl.py; without one: all, some half an hour on one core

Prints what survived, and the counts; exits 1 if something survived that ``losskit.equivalents`` does not explain. A change
that takes away a refusal or a bound counts like any other.
"""

import contextlib
import io
import os
import sys
import time
import warnings
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parents[1])]
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=8"

import jax  # noqa: E402
import pytest  # noqa: E402
from losskit import mutated, operators  # noqa: E402
from losskit.equivalents import EQUIVALENT  # noqa: E402

# file -> (the quick check of test_mutants, the test files that go through it)
POLICY = ("policy", ["test_policy.py", "test_edges.py"])
TESTS = {
    "advantages.py": ("advantages", ["test_advantages.py"]),
    "weights.py": ("weights", ["test_weights.py"]),
    "sft.py": ("others", ["test_sft.py"]),
    "router.py": ("others", ["test_router.py"]),
    "preference.py": ("others", ["test_preference.py"]),
    "distillation.py": ("others", ["test_distillation.py"]),
    "metrics.py": ("policy", ["test_sft.py", "test_preference.py", "test_policy.py", "test_edges.py"]),
    "sequences.py": ("policy", ["test_policy.py", "test_router.py"]),
}
CHANGED = [file for file in mutated.files() if not file.endswith("__init__.py")]


class Under:
    """Puts a module in the place of ``r1jax.losses`` for the tests of one run."""

    def __init__(self, module):
        self.module = module

    def pytest_configure(self, config):
        config.losses_under_test = self.module


def killed(file: str, mutant: operators.Mutant, quick) -> bool:
    check, files = TESTS.get(file, POLICY)
    with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        try:
            module = mutated.load({file: compile(mutant.tree, f"<mutant of {file}>", "exec")})
            quick[check](module)
        except Exception:
            return True
        options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:warnings", "-m", "not slow and not long"]
        files = [str(HERE / name) for name in files]
        return pytest.main([*options, "--rootdir", str(HERE.parents[1]), *files], plugins=[Under(module)]) == 1


def main(chosen: list[str]) -> int:
    jax.config.update("jax_platforms", "cpu")
    spec = __import__("importlib.util").util.spec_from_file_location("loss_mutants", HERE / "test_mutants.py")
    tests = __import__("importlib.util").util.module_from_spec(spec)
    spec.loader.exec_module(tests)
    total, dead, explained, survivors, start = 0, 0, 0, [], time.time()
    for file in chosen or CHANGED:
        text = mutated.source(file).replace("r1jax.losses", mutated.NAME)
        known, count = EQUIVALENT.get(file, {}), 0
        for mutant in operators.mutants(text):
            count += 1
            if killed(file, mutant, tests.CHECKS):
                dead += 1
            elif mutant.name in known:
                explained += 1
            else:
                survivors.append(f"{file}:{mutant.line}: {mutant.name}")
                print("survived", survivors[-1], flush=True)
        total += count
        print(f"{file}: {count} mutants, {time.time() - start:.0f} s", flush=True)
    print(f"{total} mutants: {dead} caught, {explained} are the same function, {len(survivors)} survived")
    return 1 if survivors else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

"""Measures, in a process of its own, the peak of host memory while a model is converted or loaded:
``python memory.py convert|load WARM BIG OUT``.

Prints how many bytes the process's resident set rose above what it was before, at its highest. A small model of the same shapes
comes first, so that imports and their memory are there already.
"""

import gc
import os
import sys
from pathlib import Path

os.environ["JAX_PLATFORMS"] = "cpu"


def resident(key):
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(f"{key}:"))
    return int(line.split()[1]) * 1024


def peak_of(action):
    gc.collect()
    before = resident("VmRSS")
    Path("/proc/self/clear_refs").write_text("5")  # the high-water mark is the present
    kept = action()
    peak = resident("VmHWM") - before
    del kept
    return peak


def main(action, warm, big, out):
    from r1jax.checkpoint import convert, load_model

    if action == "convert":
        convert(warm, out / "warm")
        return peak_of(lambda: convert(big, out / "native"))
    load_model(warm)
    return peak_of(lambda: load_model(big))


if __name__ == "__main__":
    print(main(sys.argv[1], *map(Path, sys.argv[2:])))

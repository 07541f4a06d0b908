"""What a run was made with: the software, the commit, the devices. Saved as environment.json of the work directory."""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

import jax
from etils import epath

import r1jax
from r1jax import config
from r1jax.pipeline import records

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "tokenizers", "sympy")


def _commit() -> str:
    """The commit of r1jax's own checkout, with ``+`` after it if files differ from it; empty outside of one."""
    root = Path(r1jax.__file__).resolve().parent.parent

    def git(*arguments: str) -> str:
        return subprocess.run(
            ["git", "-C", root, *arguments], capture_output=True, text=True, timeout=20, check=True
        ).stdout.strip()

    try:
        if Path(git("rev-parse", "--show-toplevel")).resolve() != root:
            return ""
        return git("rev-parse", "HEAD") + ("+" if git("status", "--porcelain", "--untracked-files=no") else "")
    except (OSError, subprocess.SubprocessError):
        return ""


def environment() -> dict[str, Any]:
    """What a run was made with: the software, the commit, the devices."""

    def version(name: str) -> str:
        try:
            return importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            return ""

    device = jax.devices()[0]
    return {
        "r1jax": r1jax.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "machine": f"{platform.system()} {platform.machine()}",
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "platform": device.platform,
        "device": device.device_kind,
        "devices": jax.device_count(),
        "hosts": jax.process_count(),
    }


def keep(workdir: epath.Path) -> list[str]:
    """Saves the environment; returns what differs from the last session's, for then results need not be bit-equal."""
    saved = workdir / "environment.json"
    new = environment()
    old = json.loads(saved.read_text()) if saved.exists() else new
    records.write_atomic(saved, json.dumps(new, indent=1))
    return [f"{key}: {before!r} -> {after!r}" for key, before, after in config.differences(old, new)]

"""The process that exports: ``python -m r1jax.reporting.exports WORKDIR``, until its standard input ends."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import subprocess
import sys
from collections.abc import Callable, Iterator

LOG = "timing/exports.log"
PACKAGES = {"tensorboard": "tensorboardX", "wandb": "wandb"}
PATIENCE = 60.0  # seconds that the last look may take once the run is over


def missing_package(*, tensorboard: bool, wandb: bool) -> str:
    """The package that is asked for and not installed; empty if none."""
    asked = {"tensorboard": tensorboard, "wandb": wandb}
    return next((p for name, p in PACKAGES.items() if asked[name] and importlib.util.find_spec(p) is None), "")


def _command(workdir: str, tensorboard: bool, wandb: bool, project: str, report_every: float = 0) -> list[str]:
    sinks = [*(["--tensorboard"] if tensorboard else []), *(["--wandb", project] if wandb else [])]
    return [sys.executable, "-m", "r1jax.reporting.exports", workdir, *sinks, "--report-every", str(report_every)]


@contextlib.contextmanager
def exporting(
    workdir: str,
    warn: Callable[[str], None],
    *,
    tensorboard: bool = True,
    wandb: bool = False,
    project: str = "r1jax",
    report_every: float = 0,
) -> Iterator[None]:
    """Follows a run while inside, and writes its report every so many seconds (0: never).

    Trouble is told to ``warn`` once and costs the exports only. Local work directories only.
    """
    if not (tensorboard or wandb or report_every) or "://" in workdir:
        yield
        return
    try:
        os.makedirs(os.path.dirname(f"{workdir}/{LOG}"), exist_ok=True)
        with open(f"{workdir}/{LOG}", "wb") as log:
            # A session of its own, so that Ctrl-C does not reach it: it ends when this process lets go of its input.
            process = subprocess.Popen(
                _command(workdir, tensorboard, wandb, project, report_every),
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
    except OSError as error:
        warn(f"no exports: {error}")
        yield
        return
    try:
        yield
    finally:
        if process.poll() is None:
            with contextlib.suppress(OSError):
                process.stdin.close()
        try:
            code = process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            code = "no end in sight"
        if code:
            warn(f"exports to TensorBoard or W&B are not whole ({code}); {workdir}/{LOG} says why: {_last_line(workdir)}")


def _last_line(workdir: str) -> str:
    try:
        with open(f"{workdir}/{LOG}", encoding="utf-8", errors="replace") as log:
            return next((line.strip() for line in reversed(log.readlines()) if line.strip()), "")
    except OSError:
        return ""


def export(workdir: str, *, tensorboard: bool = True, wandb: bool = False, project: str = "r1jax") -> None:
    """Makes the exports of what is there, and returns when they are made.

    Raises:
      RuntimeError: with the last line of what went wrong.
    """
    command = _command(os.fspath(workdir), tensorboard, wandb, project)
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace")
    if done.returncode:
        raise RuntimeError(f"no exports: {(done.stderr.strip().splitlines() or ['the process ended'])[-1]}")

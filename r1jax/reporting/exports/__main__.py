"""The exporting process; see ``process.py``."""

from __future__ import annotations

import argparse
import os
import select
import sys
import time

from r1jax.reporting import write_report
from r1jax.reporting.exports.follow import Follower, Sink

INTERVAL = 5.0  # seconds between two looks


def _ended(seconds: float) -> bool:
    """Whether standard input has ended, waiting for so long."""
    ready, _, _ = select.select([sys.stdin], [], [], seconds)
    return bool(ready) and not os.read(sys.stdin.fileno(), 1)


def main() -> None:
    parser = argparse.ArgumentParser(prog="r1jax.reporting.exports")
    parser.add_argument("workdir")
    parser.add_argument("--tensorboard", action="store_true")
    parser.add_argument("--wandb", metavar="PROJECT")
    parser.add_argument("--report-every", type=float, default=0.0, metavar="SECONDS")
    arguments = parser.parse_args()
    if hasattr(os, "nice"):
        os.nice(10)  # the run's own processes come first
    sinks: list[Sink] = []
    if arguments.tensorboard:
        from r1jax.reporting.exports.tensorboard import TensorBoard

        sinks.append(TensorBoard(arguments.workdir))
    if arguments.wandb:
        from r1jax.reporting.exports.weights_and_biases import WeightsAndBiases

        sinks.append(WeightsAndBiases(arguments.workdir, arguments.wandb))
    follower, over, made = Follower(arguments.workdir), False, time.monotonic()
    while True:
        found = False
        for event in follower.new():
            found = True
            for sink in sinks:
                sink.write(event)
        if found:
            for sink in sinks:
                sink.flush()
        if over:
            break
        if arguments.report_every and time.monotonic() - made > arguments.report_every:
            write_report(arguments.workdir)
            made = time.monotonic()
        over = _ended(INTERVAL)  # and then once more: the last record may be newer than the last look
    for sink in sinks:
        sink.close()


if __name__ == "__main__":
    main()

"""A run's figures for other programs: TensorBoard event files, Weights & Biases. Derived: never needed, always remakeable.

``exporting(workdir, ...)`` follows a run while it goes on, in a process of its own: what such libraries import, their threads
and their troubles never touch the training. ``export(workdir, ...)`` does it once.
"""

from r1jax.reporting.exports.process import PACKAGES, export, exporting, missing_package

__all__ = ["PACKAGES", "export", "exporting", "missing_package"]

"""Metric files, progress, the report: reads the files of a run; no jax, and nothing else of r1jax.

``Console`` draws progress; ``write_report(workdir)`` writes the HTML report; ``results_table(workdir)`` the final table.
"""

from r1jax.reporting.console import Console

__all__ = ["Console"]

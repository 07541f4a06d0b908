"""Metric files, progress, the report: reads the files of a run; no jax, and nothing else of r1jax.

``Console`` draws progress; ``write_report(workdir)`` writes the HTML report; ``results_table(workdir)`` gives the table
of stages for ``Console.table``.
"""

from r1jax.reporting.collect import NoRun
from r1jax.reporting.console import Console
from r1jax.reporting.report import write_report
from r1jax.reporting.tables import results_table

__all__ = ["Console", "NoRun", "results_table", "write_report"]

"""Metric files, progress, the report: reads the files of a run; no jax, and nothing else of r1jax.

``Console`` draws progress; ``write_report(workdir)`` writes the HTML report; ``results_table(workdir)`` gives the table
of stages for ``Console.table``, ``stages_by_side(workdir)`` the paper's: each benchmark with the stages as columns;
``compared_table(workdir)`` the recipe's comparisons.
"""

from r1jax.reporting.collect import NoRun
from r1jax.reporting.console import Console
from r1jax.reporting.report import write_report
from r1jax.reporting.tables import compared_table, results_table, stages_by_side

__all__ = ["Console", "NoRun", "compared_table", "results_table", "stages_by_side", "write_report"]

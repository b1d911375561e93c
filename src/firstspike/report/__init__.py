"""Results for people: a table in the terminal and a self-contained HTML report."""

from firstspike.report.results_table import results_table

__all__ = ["results_table"]

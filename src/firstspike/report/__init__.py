"""Results for people: a table in the terminal and a self-contained HTML report."""

from firstspike.report.html import write_report
from firstspike.report.table import results_table

__all__ = ["results_table", "write_report"]

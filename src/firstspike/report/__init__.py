"""Results for people: a table in the terminal and a self-contained HTML report."""

from firstspike.report.html import write_report
from firstspike.report.network import report_network
from firstspike.report.table import results_table

__all__ = ["report_network", "results_table", "write_report"]

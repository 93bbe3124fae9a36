"""The reports of studies: one HTML page each with its figures, and the figure of a trace."""

from offsim.report.heatmaps import trace_figure
from offsim.report.page import write_report

__all__ = ["trace_figure", "write_report"]

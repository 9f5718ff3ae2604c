"""Plots as inline SVG that follow the page's theme, each with its numbers in a table beneath.

Every function takes finished numbers and returns a ``<figure>`` as safe markup for a page made by
:mod:`stepcredit.reports.page`; some also draw an SVG file, with ``render=standalone``. Points that are
not finite are left out.
"""

from stepcredit.reports.plots.axes import Axis
from stepcredit.reports.plots.figure import Mark, Renderer, legend
from stepcredit.reports.plots.histograms import Counts, histogram
from stepcredit.reports.plots.intervals import Interval, interval_plot
from stepcredit.reports.plots.lines import Line, line_plot
from stepcredit.reports.plots.points import Point, ReliabilityBin, reliability_plot, scatter_plot
from stepcredit.reports.plots.standalone import standalone

__all__ = [
    "Axis",
    "Counts",
    "Interval",
    "Line",
    "Mark",
    "Point",
    "ReliabilityBin",
    "Renderer",
    "histogram",
    "interval_plot",
    "legend",
    "line_plot",
    "reliability_plot",
    "scatter_plot",
    "standalone",
]

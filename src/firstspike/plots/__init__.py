"""Plots: each takes plain data and `ax=None`, returns figure and axes, and leaves pyplot alone.

Figures made here belong to no window and no global state: save them with `figure.savefig(path)`.
"""

from firstspike.plots.accuracy_bits import plot_accuracy_bits
from firstspike.plots.accuracy_over_time import plot_accuracy_over_time
from firstspike.plots.activations import plot_activations
from firstspike.plots.against_papers import plot_against_papers
from firstspike.plots.confusion import plot_confusion
from firstspike.plots.energy_breakdown import plot_energy_breakdown
from firstspike.plots.error_surface import plot_error_surface
from firstspike.plots.expected_difference import plot_expected_difference
from firstspike.plots.hover import Point, hover_scatter
from firstspike.plots.inactive import plot_inactive
from firstspike.plots.kernel_losses import plot_kernel_losses
from firstspike.plots.learning_curve import plot_learning_curve
from firstspike.plots.mesh import plot_core_occupancy, plot_link_load
from firstspike.plots.raster import plot_raster
from firstspike.plots.robustness import plot_robustness
from firstspike.plots.sample import plot_sample
from firstspike.plots.scaling import plot_scaling
from firstspike.plots.spike_time_histograms import plot_spike_time_histograms
from firstspike.plots.svg import inline_svg, save_svg
from firstspike.plots.tradeoff import pareto_front, plot_tradeoff

__all__ = [
    "Point",
    "hover_scatter",
    "inline_svg",
    "pareto_front",
    "plot_accuracy_bits",
    "plot_accuracy_over_time",
    "plot_activations",
    "plot_against_papers",
    "plot_confusion",
    "plot_core_occupancy",
    "plot_energy_breakdown",
    "plot_error_surface",
    "plot_expected_difference",
    "plot_inactive",
    "plot_kernel_losses",
    "plot_learning_curve",
    "plot_link_load",
    "plot_raster",
    "plot_robustness",
    "plot_sample",
    "plot_scaling",
    "plot_spike_time_histograms",
    "plot_tradeoff",
    "save_svg",
]

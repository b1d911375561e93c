"""Plots of the percentile search: what they show, and what they refuse."""

import pytest
import torch

from firstspike.codes import Fixed, PercentileSearch
from firstspike.plots.error_surface import plot_error_surface


def test_surface_marks_the_minimum(tmp_path):
    values = torch.randn(500).abs() * 0.3
    surfaces = {
        f"layer {t}": PercentileSearch().surface(values, steps=t, offset=0.0) for t in (1, 3)
    }
    figure, axes = plot_error_surface(surfaces)
    for panel, surface in zip(axes, surfaces.values()):
        (star,) = panel.lines
        assert (star.get_xdata()[0], star.get_ydata()[0]) == surface.best
    figure.savefig(tmp_path / "surface.png", dpi=40)
    assert (tmp_path / "surface.png").stat().st_size > 1000


def test_nonsense_is_refused():
    surface = Fixed().surface(torch.rand(10), 2, 0.0)
    with pytest.raises(ValueError, match="must have two alphas and betas at least, got 1 x 1"):
        plot_error_surface({"fc": surface})
    with pytest.raises(ValueError, match="`surfaces`"):
        plot_error_surface({})

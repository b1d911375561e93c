"""The scaling plot: lines, legends and axes."""

import pytest

from firstspike.plots import plot_scaling


def test_a_panel_per_kind_of_size_with_straight_lines_for_power_laws(tmp_path):
    curves = {
        "time steps": {
            "clock": [(8, 0.1), (16, 0.2), (32, 0.4)],
            "closed form": [(8, 0.1), (32, 0.1)],
        },
        "images": {"clock": [(1, 0.1), (2, 0.2)]},
    }
    exponents = {"time steps": {"clock": 1.0, "closed form": -0.004}}
    figure, axes = plot_scaling(curves, exponents=exponents, ylabel="seconds")
    assert [panel.get_xlabel() for panel in axes] == ["time steps", "images"]
    assert [text.get_text() for text in axes[0].get_legend().get_texts()] == [
        "clock, p = 1.00",
        "closed form, p = −0.00",
    ]
    assert [text.get_text() for text in axes[1].get_legend().get_texts()] == ["clock"]
    first, other = axes[0].lines[0], axes[1].lines[0]
    assert first.get_color() == other.get_color(), "an engine has one colour in all panels"
    assert all(p.get_xscale() == p.get_yscale() == "log" for p in axes)
    figure.savefig(tmp_path / "scaling.svg")
    assert (tmp_path / "scaling.svg").stat().st_size > 1000


def test_nothing_to_draw_is_refused():
    with pytest.raises(ValueError, match="`curves` must hold at least one entry"):
        plot_scaling({})
    with pytest.raises(ValueError, match="time steps"):
        plot_scaling({"time steps": {}})

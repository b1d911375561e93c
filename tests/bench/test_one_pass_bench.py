"""The parts on closed form and early firing measure what they say, on a tiny network."""

from __future__ import annotations

import pytest
import torch

from firstspike.bench import closed_form, conversion, early_firing
from firstspike.models import DigitsCNN
from firstspike.neurons import lookup


def test_closed_form_against_the_ann() -> None:
    model, x = DigitsCNN(width=0.25).eval(), torch.rand(3, 1, 8, 8)
    rows = {
        r.name.removeprefix("tiny: "): r
        for r in closed_form._rows(model, x, "tiny", 1.03, 1.1, repeats=1)
    }
    assert list(rows) == [
        *(closed_form.ANN, closed_form.LAST, *closed_form.CODES),
        *(closed_form.CALLED, closed_form.PLAIN),
    ]
    anns = [rows[name] for name in (closed_form.ANN, closed_form.LAST)]
    assert 1.0 in [row.ratio for row in anns] and all(row.target is None for row in anns)
    assert rows["linear T=16"].target == 1.03 and rows[closed_form.PLAIN].target == 1.1
    assert all(row.extra["size"] == "tiny, batch 3" for row in rows.values())


def test_conversion_in_passes_of_the_model() -> None:
    torch.manual_seed(0)
    model = DigitsCNN(width=0.25).eval()
    rows = conversion._rows(model, torch.rand(4, 1, 8, 8), repeats=1)
    assert [row.name.split(": ")[1] for row in rows] == [conversion.MODEL, *conversion.TARGETS]
    assert rows[0].ratio == 1.0 and all(row.target is None for row in rows)  # only at 224
    assert sum(p.numel() for p in conversion.resnet50().parameters()) == 25_557_032


def test_without_numba_ends_where_it_ends() -> None:
    assert lookup.has_numba()
    assert closed_form.without_numba(lambda: lookup.has_numba()) is False
    assert lookup.has_numba()


@pytest.mark.slow
def test_early_firing_against_the_ann_and_the_clock() -> None:
    rows = early_firing._rows(DigitsCNN(width=0.25).eval(), (1, 8, 8), "tiny", 3.0, repeats=1)
    names = [
        *(early_firing.ANN, early_firing.LAST, early_firing.EARLY, early_firing.CALLED),
        *(early_firing.RECORD, early_firing.CLOCK),
    ]
    assert [row.name for row in rows] == [f"tiny: {name}" for name in names]
    assert rows[2].target == 3.0 and rows[-1].target is None
    assert all(0 < row.extra["late_share"] < 1 for row in rows)
    assert rows[-1].ratio is not None and rows[-1].ratio > 1

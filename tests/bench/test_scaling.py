"""Fitted exponents on costs that are known, and rows of a tiny network."""

from __future__ import annotations

import math

import numpy as np
import pytest

from firstspike.bench.scaling import Sizes, axis_rows, chain, exponent


@pytest.mark.parametrize("power", [-1.0, 0.0, 0.5, 1.0, 2.0])
def test_a_power_law_gives_its_exponent(power: float) -> None:
    sizes = [3, 5, 8, 21, 100]
    assert exponent(sizes, [7.0 * s**power for s in sizes]) == pytest.approx(power, abs=1e-12)


def test_a_noisy_power_law_gives_the_least_squares_slope() -> None:
    random = np.random.default_rng(0)
    sizes = 2 ** np.arange(3, 10)
    costs = 0.1 * sizes**1.3 * np.exp(random.normal(0, 0.05, len(sizes)))
    slope = np.polyfit(np.log(sizes), np.log(costs), 1)[0]  # another implementation
    assert exponent(sizes.tolist(), costs.tolist()) == pytest.approx(slope)
    assert abs(slope - 1.3) < 0.1


@pytest.mark.parametrize(
    ("sizes", "costs"), [([1], [1.0]), ([2, 2], [1.0, 2.0]), ([1, 2], [1.0, 0.0]), ([1, 2], [1.0])]
)
def test_an_exponent_needs_two_sizes_and_positive_costs(sizes, costs) -> None:
    with pytest.raises(ValueError, match="at least two different sizes"):
        exponent(sizes, costs)


@pytest.mark.slow
def test_memory_of_a_tiny_network_grows_as_it_must() -> None:
    base = Sizes(steps=4, depth=2, width=4, batch=2, image=8)
    rows = {
        (row.extra["engine"], row.extra["quantity"]): row
        for row in axis_rows("image", (16, 32, 64), base, repeats=1)
    }
    engines = {engine for engine, _ in rows}
    assert engines == {"ANN", "closed form", "early firing", "event", "clock"}
    for engine, quantity in rows:
        row = rows[engine, quantity]
        assert row.extra["values"] == [16, 32, 64] and len(row.extra["costs"]) == 3
        assert row.ratio is not None and math.isfinite(row.ratio)
    assert rows["ANN", "bytes"].ratio == pytest.approx(2.0, abs=0.1)  # pixels
    # two feature maps of 4 channels live at once: what a convolution reads and what it writes
    maps = 2 * (2 * 4 * 16 * 16) * 4
    assert maps <= rows["ANN", "bytes"].extra["costs"][0] <= maps + 8192  # and objects


def test_the_chain_is_as_deep_and_wide_as_asked() -> None:
    model = chain(Sizes(depth=3, width=5))
    convolutions = [m for m in model if hasattr(m, "kernel_size") and hasattr(m, "weight")]
    assert [m.out_channels for m in convolutions] == [5, 5, 5]

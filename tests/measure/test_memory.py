"""The memory model against examples worked by hand."""

from __future__ import annotations

import pytest

from firstspike.measure.memory import Level, MemoryModel


def test_a_spiking_network_worked_by_hand() -> None:
    """1,000 events, 200 comparisons, 50 spikes; everything fits the smallest memory.

    weights 1,000 x 8 / 64 = 125 words; potentials (2,000 + 200) x 16 / 64 = 550; spikes
    100 x 32 / 64 = 50; 725 words at 10 pJ.
    """
    estimate = MemoryModel().spiking(
        {"synaptic": 1000.0, "compare": 200.0}, spikes=50.0, weights=900, neurons=100
    )
    assert estimate.terms == {
        "weight words": 1250.0,
        "potential words": 5500.0,
        "spike words": 500.0,
    }
    assert estimate.total == 7250.0 and estimate.unit == "pJ"


def test_an_ann_worked_by_hand_with_weights_in_the_second_memory() -> None:
    """20,000 weights of 8 bits need 20,000 bytes: 20 pJ a word; activations fit the first."""
    estimate = MemoryModel().analog(macs=64_000.0, weights=20_000, neurons=800)
    assert estimate.terms == {
        "weight words": 64_000 / 8 * 20.0,
        "activation words": (64_000 + 800) / 8 * 10.0,
    }


@pytest.mark.parametrize(
    ("values", "cost"), [(8192, 10.0), (8193, 20.0), (2**20, 100.0), (2**20 + 1, 1300.0)]
)
def test_each_kind_resides_in_the_smallest_memory_that_holds_it(values: int, cost: float) -> None:
    assert MemoryModel().word_cost(values, 8) == cost


def test_widths_and_levels_are_checked() -> None:
    with pytest.raises(ValueError, match="`weight_bits` must be positive, got 0"):
        MemoryModel(weight_bits=0)
    with pytest.raises(ValueError, match="`levels` must grow in capacity"):
        MemoryModel(levels=(Level(10.0, 1.0),))

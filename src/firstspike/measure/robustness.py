"""Accuracy of a network against the strength of disturbances, as part of its `Result`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from firstspike.data import Dataset
from firstspike.engines.perturb import robustness_curve

if TYPE_CHECKING:
    from firstspike.engines.spiking_network import SpikingNetwork
    from firstspike.measure.result import RobustnessPoint

Strengths = Mapping[str, Sequence[float | int]]


def measure_robustness(
    network: SpikingNetwork,
    dataset: Any,
    perturb: Strengths,
    *,
    samples: int | None = None,
    seed: int | None = None,
) -> dict[str, list[RobustnessPoint]]:
    """One curve per disturbance, each the mean over three draws of it.

    Args:
        dataset: a `firstspike.data.Dataset`; it is gone through many times.
        perturb: name -> strengths, `{"jitter": [0.0, 1.0], "bits": [8, 4]}`; see `Perturbation`.
        samples: use the first so many images only.
        seed: of the first draw; the others follow it.

    Raises:
        TypeError: if `dataset` is not a `Dataset`.
        ValueError: for unknown names and strengths, and codes without a closed form.
    """
    from firstspike.measure.result import RobustnessPoint

    if not isinstance(dataset, Dataset):
        raise TypeError(
            f"`dataset` must be a firstspike.data.Dataset to measure robustness on, got "
            f"{type(dataset).__name__}. Make one with firstspike.data.from_arrays(images, labels)."
        )
    chosen = dataset if samples is None else dataset.subset(min(samples, len(dataset)))
    first = seed or 0
    curves = {
        name: robustness_curve(network, chosen, name, strengths, seeds=range(first, first + 3))
        for name, strengths in perturb.items()
    }
    return {name: [RobustnessPoint(**line) for line in lines] for name, lines in curves.items()}

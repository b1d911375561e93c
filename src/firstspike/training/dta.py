"""DTA-TTFS: training with exact event-driven gradients (Wei et al. 2023)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from torch import nn

from firstspike.codes.relpsp import ReLPSP
from firstspike.networks.ops import BatchNorm
from firstspike.training.single_spike import SingleSpikeMethod

if TYPE_CHECKING:
    from firstspike.training.config import TrainConfig


@dataclass
class DTA(SingleSpikeMethod):
    """Train a `ReLPSP` network by the derivatives of its spike times.

    Spike times follow from weights and input spikes in closed form; backward, every neuron that
    fires inside its window passes on its exact derivative, and all others pass nothing. Nothing is
    approximated in continuous time except where the derivative is unbounded (`ReLPSPNeuron`). On a
    grid of steps the gradient passes straight through the rounding of spike times.

        network = convert(model, ReLPSP(), calibration=images)   # a ReLU ANN without batch norm
        fit(network, train_set, validation_set, config, method=DTA(dropout=0.3))

    The network is trained and validated on the readout of its code, the potential when the output
    window opens. The paper's loss on negative output spike times (eq. 8) is not offered.

    Args:
        dropout, perturbation: see `SingleSpikeMethod`.

    Source: Wei et al. 2023, section 3.2.
    """

    def start(self, model: nn.Module, config: TrainConfig) -> None:
        super().start(model, config)
        if not isinstance(self._network.code, ReLPSP):
            raise TypeError(
                f"`model` must have the code ReLPSP under DTA, got {self._network.code}. Use "
                "QuantizerAware() or Surrogate() for threshold tables."
            )
        norm = [n for n, op in self._network.network.ops.items() if isinstance(op, BatchNorm)]
        if norm:
            raise ValueError(
                f"`model` must not keep batch norm under DTA, {norm[0]!r} is one: its statistics "
                "are those of values, not of slopes. Convert without `keep_batch_norm`."
            )

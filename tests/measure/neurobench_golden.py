"""What NeuroBench says of a small spiking network: writes neurobench_golden.json beside it.

    pip install neurobench==2.3.0
    python tests/measure/neurobench_golden.py

The network has weights of known values, some of them zero, and integrate-and-fire neurons of
snnTorch with a threshold of one; the image is the current of every step.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

STEPS = 6
GOLDEN = Path(__file__).with_suffix(".json")


def model() -> nn.Sequential:
    """Two convolutions, one padded, one with a stride, and a linear layer; ReLU in between."""
    layers = nn.Sequential(
        *(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 5, 3, stride=2), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(45, 3)),
    )
    with torch.no_grad():
        for parameter in layers.parameters():
            waves = torch.arange(parameter.numel(), dtype=torch.float64).mul(2.4).sin()
            waves = waves.reshape(parameter.shape) * 1.5 / max(parameter[0].numel(), 4) ** 0.5
            parameter.copy_(torch.where(waves.abs() < 0.05, 0.0, waves))
    return layers


def images() -> Tensor:
    """Seven of 8x8 in [0, 1]; about a third of the pixels are zero."""
    waves = torch.arange(7 * 64, dtype=torch.float64).mul(1.7).cos()
    return waves.clamp(min=-0.5).add(0.5).div(1.5).reshape(7, 1, 8, 8).float()


def figures() -> dict[str, Any]:
    """NeuroBench's own figures, by its own benchmark loop in batches of three and four."""
    import snntorch
    from neurobench.benchmarks import Benchmark
    from neurobench.metrics.static import ConnectionSparsity, Footprint
    from neurobench.metrics.workload import ActivationSparsity, SynapticOperations
    from neurobench.models import SNNTorchModel
    from torch.utils.data import DataLoader, TensorDataset

    class Stepped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            neuron = {"beta": 1.0, "threshold": 1.0, "init_hidden": True}
            self.layers = nn.Sequential(
                *(
                    snntorch.Leaky(**neuron) if isinstance(layer, nn.ReLU) else layer
                    for layer in model()
                )
            )

        def forward(self, trains: Tensor) -> Tensor:  # (N, T, ...) to (T, N, classes)
            snntorch.utils.reset(self)
            return torch.stack([self.layers(step) for step in trains.unbind(1)])

    x = images()
    trains = x.unsqueeze(1).expand(-1, STEPS, *x.shape[1:])
    loader = DataLoader(TensorDataset(trains, torch.zeros(len(x))), batch_size=4)
    metrics = [[Footprint, ConnectionSparsity], [ActivationSparsity, SynapticOperations]]
    wrapped = SNNTorchModel(Stepped(), custom_forward=True)
    with torch.no_grad():
        return dict(Benchmark(wrapped, loader, [], [], metrics).run(quiet=True))


if __name__ == "__main__":
    GOLDEN.write_text(json.dumps(figures(), indent=1) + "\n")

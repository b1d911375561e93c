"""Time and memory of a training step of each method, against the ANN's step.

A step is what `fit` does with a batch: forward, loss, backward, optimizer (Adam), bounds. Weights
and images lie in channels-last order, the quickest for the ANN. Memory is what autograd saves for
the backward pass, parameters not counted.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

import firstspike as fs
from firstspike.bench.timing import Row, interleaved, missing, ratio_rows
from firstspike.data import Dataset
from firstspike.measure.peak_memory import saved_bytes
from firstspike.models import VGG11, VGG16
from firstspike.training import Method, TrainConfig
from firstspike.training._trainer import Trainer
from firstspike.training.dta import DTA
from firstspike.training.precision import multiplies_bfloat16
from firstspike.training.quantizer_aware import QuantizerAware
from firstspike.training.sgl import SGL
from firstspike.training.surrogate import Surrogate

ANN = "ANN"
TARGETS = {
    "surrogate T=16": 1.15,
    "quantizer-aware T=4": 1.15,
    "DTA": 1.65,
    "DTA, bfloat16": 1.0,
    "DTA, bfloat16, products": 1.0,
}
SAVED_TARGETS = {"surrogate T=16": 1.3, "quantizer-aware T=4": None, "DTA": 1.8}
UNROLLED = 8  # steps of the peer's network


def rows(quick: bool) -> list[Row]:
    """VGG-16 on batches of 64, or (quick) a half as wide VGG-11 on batches of 8."""
    build, width, batch, repeats = (VGG11, 0.5, 8, 5) if quick else (VGG16, 1.0, 64, 7)
    model = build(batch_norm=False, width=width)
    images, labels = torch.rand(batch, 3, 32, 32), torch.randint(10, (batch,))
    networks = _networks(model, images, quick)
    steps = {
        key: training_step(made, method, images, labels, **options)
        for key, (made, method, options) in networks.items()
    }
    saved = {key: saved_bytes(step, networks[key][0].parameters()) for key, step in steps.items()}
    times = interleaved(steps, repeats, warmup=1)
    extra = {
        key: {
            "model": build.__name__.lower(),
            "width": width,
            "batch": batch,
            "saved_bytes": saved[key],
        }
        for key in steps
    }
    memory = [
        Row(f"{key}: saved bytes", r := saved[key] / saved[ANN], r, r, target=SAVED_TARGETS[key])
        for key in SAVED_TARGETS
    ]
    size = f"{build.__name__}{f', width {width}' if width != 1 else ''}, batch {batch}"
    found = [*ratio_rows(times, ANN, TARGETS, extra), *memory]
    if not quick and f"snnTorch T={UNROLLED}" not in networks:
        found.append(missing(f"snnTorch T={UNROLLED}", "snntorch"))
    return [replace(row, extra={"size": size, **row.extra}) for row in found]


def training_step(
    model: nn.Module, method: Method, images: Tensor, labels: Tensor, **options: Any
) -> Callable[[], None]:
    """One step of `fit` on a batch, as a function; `options` of `TrainConfig`."""
    config = TrainConfig(learning_rate=1e-4, batch_size=len(images), channels_last=True, **options)
    data = Dataset(images, labels)
    model = model.to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    trainer = Trainer(model, data, data, config, method, None, images.device, float("inf"))
    return lambda: trainer._step(images, labels)


def _networks(
    model: nn.Module, images: Tensor, quick: bool
) -> dict[str, tuple[nn.Module, Method, dict[str, Any]]]:
    """name -> model, method and options of a training."""
    exponential = fs.TTFS(16, fs.kernels.Exponential(tau=4.0))
    convert = lambda code: fs.convert(model, code, calibration=images)  # noqa: E731
    linear = convert(fs.TTFS(4, fs.kernels.Linear()))
    products = {"convolutions": "products"}
    found: dict[str, tuple[nn.Module, Method, dict[str, Any]]] = {
        ANN: (copy.deepcopy(model), Method(), {}),
        f"{ANN}, products": (copy.deepcopy(model), Method(), products),
        "surrogate T=16": (convert(exponential), Surrogate(), {}),
        "quantizer-aware T=4": (linear, QuantizerAware(), {}),
        "DTA": (convert(fs.ReLPSP()), DTA(), {}),
        "through time T=2": (convert(fs.FewStep(2)), SGL(), {}),
    }
    if multiplies_bfloat16(images.device):
        half = {"precision": "bfloat16"}
        found |= {
            f"{ANN}, bfloat16": (copy.deepcopy(model), Method(), half),
            f"{ANN}, bfloat16, products": (copy.deepcopy(model), Method(), half | products),
            "DTA, bfloat16": (convert(fs.ReLPSP()), DTA(), half),
            "DTA, bfloat16, products": (convert(fs.ReLPSP()), DTA(), half | products),
            "through time T=2, bfloat16": (convert(fs.FewStep(2)), SGL(), half),
        }
    if not quick and (peer := unrolled(model, UNROLLED)) is not None:
        found[f"snnTorch T={UNROLLED}"] = (peer, Method(), {})
    return found


def unrolled(model: nn.Module, steps: int) -> nn.Module | None:
    """The network with snnTorch's leaky neurons over `steps` steps, or None without snnTorch."""
    try:
        import snntorch
    except ImportError:
        return None
    twin = copy.deepcopy(model)
    for name, module in list(twin.named_modules()):
        if isinstance(module, nn.ReLU):
            parent, _, child = name.rpartition(".")
            leaky = snntorch.Leaky(beta=0.9, init_hidden=True)
            setattr(twin.get_submodule(parent), child, leaky)

    class Unrolled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body = twin

        def forward(self, x: Tensor) -> Tensor:
            for module in self.body.modules():
                if isinstance(module, snntorch.Leaky):
                    module.reset_mem()
            return torch.stack([self.body(x) for _ in range(steps)]).mean(0)

    return Unrolled()

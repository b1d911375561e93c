"""Compile the loops that tests run, before several processes would each do so: PART of 2.

numba keeps what it compiled beside the source, so a second call takes seconds.
"""

import itertools
import sys
import warnings

import torch
from torch import Tensor, nn

import firstspike as fs
from firstspike import chip, methods
from firstspike.engines import able_engines
from firstspike.engines.event_driven import EventDriven
from firstspike.engines.spike_sums import SpikeSums
from firstspike.networks.network import Node
from firstspike.networks.ops import Convolution, MaxPool
from firstspike.neurons.causal_set import causal_spike_times
from firstspike.training import TrainConfig
from firstspike.training.fast_convolution import fast_convolutions

TYPES = (torch.float32, torch.float64)
CODES = (fs.TTFS(4), fs.TTFS(4, offset=2), fs.Rate(4), fs.Burst(4), fs.ReLPSP())


def task(dtype: torch.dtype) -> tuple[nn.Module, Tensor]:
    """A small network with one operation of each kind, and images."""
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(4, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 8), nn.ReLU()),
        nn.Linear(8, 3),
    )
    return model.to(dtype), torch.rand(8, 1, 8, 8, dtype=dtype)


def engines() -> None:
    """Every engine under every kind of code."""
    for dtype, code in itertools.product(TYPES, CODES):
        model, x = task(dtype)
        network = fs.convert(model, code, calibration=x)
        network(x)
        for name in able_engines(network):
            with torch.no_grad():
                fs.simulate(network, x, name)
                fs.prepare(network, name)(x)
    for dtype in TYPES:  # what is only compiled for images that are not small
        large = torch.rand(4, 16, 16, 16, dtype=dtype).to(memory_format=torch.channels_last)
        MaxPool(dims=2, kernel_size=2)(large)
        wide, quiet = torch.rand(64, 128, 3, 3, dtype=dtype), torch.zeros(1, 128, 10, 10)
        node = Node("wide", (), (64, 8, 8))
        assert SpikeSums()(Convolution({"weight": wide}), node, quiet.to(dtype)) is not None
    model, x = task(torch.float32)
    network = fs.convert(model, fs.TTFS(4), calibration=x)
    for precision in ("bfloat16", "int8"):
        EventDriven(network, weights=precision).run(x)


def training_and_chip() -> None:
    """A step of every method, a network of integers, and a chip."""
    labels = torch.arange(8) % 3
    ways = (
        (fs.TTFS(4), methods.QuantizerAware()),
        (fs.FewStep(2), methods.SGL()),
        (fs.ReLPSP(), methods.DTA()),
    )
    for dtype, (code, method) in itertools.product(TYPES, ways):
        model, x = task(dtype)
        network = fs.convert(model, code, calibration=x).train()
        method.start(network, TrainConfig())
        method.loss(network, x, labels)[0].backward()
        times = x.flatten(1).requires_grad_()
        causal_spike_times(
            times, torch.rand(4, 64, dtype=dtype, requires_grad=True)
        ).sum().backward()
    model, x = task(torch.float32)
    with fast_convolutions("winograd"):
        nn.Conv2d(32, 32, 3, padding=1)(
            torch.rand(1, 32, 8, 8, requires_grad=True)
        ).sum().backward()
    network = fs.convert(model, fs.TTFS(8, fs.kernels.Linear()), calibration=x)
    small = chip.load_chip("canmore22").replace(core__neurons=64)
    report = chip.run_hardware(network, x, labels, chip=small, bits=4)
    fs.quantized.Int8(fs.quantized.to_integers(report.network))(x)


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    torch.set_num_threads(1)
    {"1": engines, "2": training_and_chip}[sys.argv[1]]()

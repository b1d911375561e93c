"""Time and memory of a training step: surrogate, quantizer-aware and DTA against the ANN's.

    python benchmarks/training_step.py

VGG-11 on 32 x 32 images, forward, backward and Adam, one thread, interleaved repeats; medians and
quartiles as ratios to the ANN's step in the same run, and bytes saved for the backward pass. With
snnTorch installed, the same network of leaky neurons unrolled over 8 steps as well. Stored in
benchmarks/results/training_step.json.
"""

from __future__ import annotations

import argparse
import copy
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

import firstspike as fs
from firstspike._files import atomic_write
from firstspike.codes import Exponential, ReLPSP
from firstspike.measure.environment import describe_environment
from firstspike.models import build_model
from firstspike.training import Method, TrainConfig
from firstspike.training.dta import DTA
from firstspike.training.quantizer_aware import QuantizerAware
from firstspike.training.surrogate import Surrogate

STORE = Path(__file__).parent / "results" / "training_step.json"
Step = Callable[[], None]


def step_of(model: nn.Module, method: Method, images: Tensor, labels: Tensor) -> Step:
    """One step of `model` under `method` with Adam."""
    method.start(model, TrainConfig(learning_rate=1e-4))
    optimizer = torch.optim.Adam(method.parameter_groups(model))
    model.train()

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        method.loss(model, images, labels)[0].backward()
        optimizer.step()
        method.after_step(model)

    return step


def unrolled(model: nn.Module, steps: int) -> nn.Module | None:
    """The network with snnTorch's leaky neurons, or None without snnTorch."""
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


def saved_bytes(step: Step, model: nn.Module) -> int:
    """Bytes of the distinct tensors kept for the backward pass, parameters not counted."""
    own = {p.untyped_storage().data_ptr() for p in model.parameters()}
    seen: dict[int, int] = {}

    def pack(x: Tensor) -> Tensor:
        storage = x.untyped_storage()
        if storage.data_ptr() not in own:
            seen[storage.data_ptr()] = storage.nbytes()
        return x

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
        step()
    return sum(seen.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="vgg11")
    parser.add_argument("--batch", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--width", type=float, default=1.0)
    parser.add_argument("--store", type=Path, default=STORE)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    model = build_model(arguments.model, batch_norm=False, width=arguments.width)
    images, labels = torch.rand(arguments.batch, 3, 32, 32), torch.randint(10, (arguments.batch,))
    networks: dict[str, tuple[nn.Module, Method]] = {"ann": (copy.deepcopy(model), Method())}
    for window in (4, 16, 64):
        code = fs.TTFS(window, Exponential(tau=window / 4))
        networks[f"surrogate T={window}"] = (
            fs.convert(model, code, calibration=images),
            Surrogate(),
        )
    code = fs.TTFS(4, fs.Linear())
    networks["quantizer-aware T=4"] = (
        fs.convert(model, code, calibration=images),
        QuantizerAware(),
    )
    networks["dta"] = (fs.convert(model, ReLPSP(), calibration=images), DTA())
    if (spiking := unrolled(model, 8)) is not None:
        networks["snntorch T=8"] = (spiking, Method())
    steps = {name: step_of(net, method, images, labels) for name, (net, method) in networks.items()}
    memory = {name: saved_bytes(step, networks[name][0]) for name, step in steps.items()}
    seconds: dict[str, list[float]] = {name: [] for name in steps}
    for _ in range(arguments.repeats):
        for name, step in steps.items():
            start = time.process_time()
            step()
            seconds[name].append(time.process_time() - start)
    rows = {}
    for name, times in seconds.items():
        ratios = sorted(t / ann for t, ann in zip(times, seconds["ann"]))
        rows[name] = {
            "cpu_seconds_median": statistics.median(times),
            "ratio_median": statistics.median(ratios),
            "ratio_range": [ratios[0], ratios[-1]],
            "saved_bytes": memory[name],
            "saved_ratio": memory[name] / memory["ann"],
        }
        print(
            f"{name:22} {rows[name]['ratio_median']:6.2f}x  saved {rows[name]['saved_ratio']:.2f}x"
        )
    content = {
        "model": arguments.model,
        "width": arguments.width,
        "batch": arguments.batch,
        "repeats": arguments.repeats,
        "clock": "CPU time of the process, one thread",
        "environment": describe_environment(torch.device("cpu")).model_dump(),
        "rows": rows,
    }
    arguments.store.parent.mkdir(exist_ok=True)
    with atomic_write(arguments.store, "w") as file:
        json.dump(content, file, indent=1)


if __name__ == "__main__":
    main()

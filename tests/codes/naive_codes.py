"""A small network and a loop that steps it with any neuron: reference for multi-spike codes."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

import firstspike as fs
from firstspike.networks import INPUT

# (potential after integration, scale, step, own memory) -> (spikes, value of a spike)
Fire = Callable[[Tensor, Tensor, int, dict], tuple[Tensor, Tensor]]


def cnn(pool: type[nn.Module] = nn.AvgPool2d) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 6, 3, padding=1),
        nn.ReLU(),
        pool(2),
        nn.Conv2d(6, 8, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(128, 20),
        nn.ReLU(),
        nn.Linear(20, 5),
    )


def images(count: int = 16) -> Tensor:
    return torch.rand(count, 1, 12, 12, generator=torch.Generator().manual_seed(1))


def relative_error(network: fs.SpikingNetwork, x: Tensor) -> float:
    """Error of the logits over their spread between images (biases alone are easy)."""
    with torch.no_grad():
        logits = network.analog(x)
        return float((network(x) - logits).norm() / (logits - logits.mean(0)).norm())


@torch.no_grad()
def step_through(
    network: fs.SpikingNetwork, x: Tensor, steps: int, fire: Fire, start: float = 0.0
) -> tuple[Tensor, dict[str, Tensor]]:
    """Soft reset, all populations at every step, biases in doses of `network.code.bias_injections`.

    The image is a current of `dose(t) x`; a max pool emits the growth of its largest sum.
    """
    traced = network.network
    u: dict[str, Tensor] = {}
    count: dict[str, Tensor] = {}
    memory: dict[str, dict] = {name: {} for name in network.populations}
    seen: dict[str, Tensor] = {}
    total, doses = torch.zeros(()), 0.0
    for t in range(steps):
        dose = network.code.bias_injections(t)
        value = {INPUT: dose * x}
        for node in traced.nodes[1:]:
            arguments = [value[name] for name in node.inputs]
            if node.name in network.neurons:
                scale = network.neuron(node.name).scale
                u.setdefault(node.name, start * scale + torch.zeros_like(arguments[0]))
                u[node.name] = u[node.name] + arguments[0]
                spikes, size = fire(u[node.name], scale, t, memory[node.name])
                u[node.name] = u[node.name] - spikes * size
                count[node.name] = count.get(node.name, 0) + spikes
                value[node.name] = spikes * size
            elif node.name in traced.max_pools():
                pool = traced.op(node.name)
                before = seen.get(node.name, torch.zeros_like(arguments[0]))
                seen[node.name] = before + arguments[0]
                value[node.name] = pool(seen[node.name]) - pool(before)
            else:
                op = traced.op(node.name)
                silence = op(*(torch.zeros_like(a) for a in arguments))
                value[node.name] = op(*arguments) + (dose - 1.0) * silence
        total, doses = total + value[traced.output.name], doses + dose
    return total / doses, count


def assert_engine_follows(
    code: fs.codes.Code, fire: Fire, pool: type[nn.Module], steps: int, start: float = 0.0
) -> None:
    """The clock-driven engine and the loop agree, in float64, neuron by neuron."""
    x = images(6).double()
    network = fs.convert(cnn(pool).double(), code, calibration=x)
    logits, counts = step_through(network, x, steps, fire, start)
    record = fs.simulate(network, x)
    assert torch.allclose(record.logits, logits, rtol=1e-11, atol=1e-12)
    for name in network.network.populations:
        assert torch.equal(record.spike_counts[name], counts[name])


def assert_error_falls_as_one_over_steps(codes: list[fs.codes.Code], limit: float) -> None:
    """Error times steps stays bounded where nothing is clipped."""
    x = images()
    for pool in (nn.AvgPool2d, nn.MaxPool2d):
        errors = []
        for code in codes:
            network = fs.convert(cnn(pool), code, calibration=x, normalization=fs.scales.Maximum())
            errors.append(relative_error(network, x) * network.code.latency(1))
        assert max(errors) < 1.6 * errors[0], errors
        assert errors[0] < limit

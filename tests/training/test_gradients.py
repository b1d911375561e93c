"""Gradients of whole spiking networks, over shapes and weights, against slow references.

Weights, images and scales are multiples of powers of two in half of the examples, so that many
potentials lie *exactly* on a threshold or on a border where a neuron is clipped or falls silent:
float64 then rounds nothing, and both sides must take the same branch there.
"""

import contextlib

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch import nn

from firstspike.codes import TTFS, Exponential, Linear, PowerOfTwo, ReLPSP
from firstspike.conversion import convert
from firstspike.engines import closed_form, simulate
from firstspike.training import DTA, QuantizerAware, Surrogate, TrainConfig
from firstspike.training.output_spikes import with_output_spikes

SHAPES = st.fixed_dictionaries(
    {
        "channels": st.integers(1, 3),
        "kernel": st.integers(1, 3),
        "stride": st.integers(1, 2),
        "pool": st.sampled_from([nn.Identity, lambda: nn.MaxPool2d(2), lambda: nn.AvgPool2d(2)]),
        "hidden": st.integers(2, 6),
        "skip": st.booleans(),
        "on_borders": st.booleans(),
        "gain": st.sampled_from([0.5, 1.0, 2.0]),
        "seed": st.integers(0, 10_000),
    }
)


class Net(nn.Module):
    """Convolution, pool, and a hidden layer with or without a connection around it."""

    def __init__(self, shape):
        super().__init__()
        self.conv = nn.Conv2d(1, shape["channels"], shape["kernel"], shape["stride"], padding=1)
        self.pool = shape["pool"]()
        with torch.no_grad():
            features = self.pool(self.conv(torch.zeros(1, 1, 6, 6))).numel()
        self.hidden = nn.Linear(features, shape["hidden"])
        self.second = nn.Linear(shape["hidden"], shape["hidden"])
        self.head = nn.Linear(shape["hidden"], 3)
        self.skip = shape["skip"]

    def forward(self, x):
        x = torch.relu(self.hidden(self.pool(torch.relu(self.conv(x))).flatten(1)))
        y = self.second(x)
        return self.head(torch.relu(y + x if self.skip else y))


def case(shape, code):
    """A network in float64 (None if a layer is dead) and two images, dyadic for `on_borders`."""
    torch.manual_seed(shape["seed"])
    model = Net(shape).double()
    x = torch.rand(2, 1, 6, 6, dtype=torch.float64)
    with torch.no_grad():
        for p in model.parameters():
            p.mul_(shape["gain"] * 2)
            if shape["on_borders"]:
                p.copy_((p * 8).round() / 8)
    if shape["on_borders"]:
        x = (x * 4).round() / 4
    calibration = torch.rand(8, 1, 6, 6, dtype=torch.float64)
    with contextlib.suppress(ValueError):  # a population that never fires
        network = convert(model, code, calibration=calibration)
        return dyadic(network) if shape["on_borders"] else network, x
    return None, x


def dyadic(network):
    """Scales rounded to powers of two."""
    for neuron in network.neurons.values():
        neuron.scale.copy_(2.0 ** neuron.scale.log2().round())
    return network


def gradients(network, loss):
    parameters = [p for p in network.parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, parameters, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found)]


def table_neuron(neuron, u):
    """Scan the table neuron by neuron; straight through inside, value and scale by autograd."""
    thresholds, values = neuron.table()
    scale, said = neuron.scale.expand_as(u[0]).expand_as(u).flatten(), []
    for potential, s in zip(u.flatten(), scale):
        t = next((i for i, th in enumerate(thresholds) if potential * (1 / s) >= th), None)
        value = torch.zeros((), dtype=u.dtype) if t is None else values[t]
        if 0 < potential <= values[0] * s:
            value = value + potential / s - (potential / s).detach()
        said.append(value * s)
    return torch.stack(said).reshape(u.shape)


@given(
    SHAPES,
    st.sampled_from([(Linear(), 4), (Linear(), 8), (PowerOfTwo(), 3), (Exponential(2.5, 0.3), 6)]),
    st.booleans(),
)
def test_table_networks_against_a_scan(shape, kernel, half_step):
    code = TTFS(kernel[1], kernel[0], half_step=half_step)
    network, x = case(shape, code)
    assume(network is not None)
    kind = Surrogate if isinstance(kernel[0], Exponential) else QuantizerAware
    method = kind()
    method.start(network, TrainConfig())
    labels = torch.tensor([0, 2])
    loss, logits = method.loss(network, x, labels)
    ours = gradients(network, loss)
    slow = network.network.evaluate(
        network.shifted(x),
        lambda name, u: table_neuron(network.neuron(name), u),
        pool_first=True,  # of neurons that say the same, the one with the largest potential learns
    )
    torch.testing.assert_close(logits, slow, rtol=1e-9, atol=1e-9)
    reference = gradients(network, nn.functional.cross_entropy(slow, labels))
    for a, b in zip(ours, reference):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


def ramp_neuron(neuron, u):
    """Eqs. 7, 9 and 10 neuron by neuron, the denominator of the gradient at least a tenth."""
    scale, said = float(neuron.scale), []
    factor = 1 / scale  # rounds as in every engine: a potential equal to the scale may not reach 1
    slopes = torch.zeros_like(u.value) if u.slope is None else u.slope
    for a, w in zip(u.value.flatten(), slopes.flatten()):
        start, rise = a.item() * factor, w.item() * factor
        end = start + rise
        share = 1.0 if start >= 1 else end / (1 + rise) if end > 0 else 0.0
        if share in (0, 1):
            said.append(0 * a + share * scale)
        else:
            gain = 1 / max(1 + rise, 0.1)
            linear = gain * (a - a.detach()) + gain * (1 - share) * (w - w.detach())
            said.append(scale * share + linear)
    return torch.stack(said).reshape(u.value.shape)


@given(SHAPES)
def test_relpsp_networks_against_neurons_one_by_one(shape):
    network, x = case(shape, ReLPSP())
    assume(network is not None)
    method = DTA()
    method.start(network, TrainConfig())
    labels = torch.tensor([0, 2])
    loss, logits = method.loss(network, x, labels)
    ours = gradients(network, loss)
    slow = closed_form.logits(
        network,
        x,
        lambda name, u: ramp_neuron(network.neuron(name), u),
    )
    torch.testing.assert_close(logits, slow, rtol=1e-9, atol=1e-9)
    reference = gradients(network, nn.functional.cross_entropy(slow, labels))
    for a, b in zip(ours, reference):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


def test_the_references_meet_neurons_on_the_borders():
    """The examples above would prove less if no potential ever lay on a border."""
    hits = {"threshold": 0, "at once": 0, "never": 0}
    for seed in range(30):
        shape = {"channels": 2, "kernel": 2, "stride": 1, "pool": nn.Identity, "hidden": 4,
                 "skip": False, "on_borders": True, "gain": 1.0, "seed": seed}  # fmt: skip
        network, x = case(shape, TTFS(4, Linear()))
        if network is None:
            continue
        potentials = simulate(network, x, "closed_form", potentials=True).potentials
        for name in network.network.populations:
            neuron = network.neuron(name)
            u = neuron.normalize(potentials[name])
            hits["threshold"] += int(torch.isin(u, neuron.table()[0].detach()).sum())
        ramps, x = case(shape, ReLPSP())

        def count(name, u, ramps=ramps):
            end = u.value if u.slope is None else u.value + u.slope
            hits["at once"] += int((u.value == ramps.neuron(name).scale).sum())
            hits["never"] += int((end == 0).sum())
            return ramps.neuron(name).activate(u)

        with torch.no_grad():
            closed_form.logits(ramps, x, count)
    assert all(count > 5 for count in hits.values()), hits


def clear_of_borders(network, x):
    """Whether no neuron is near a change of branch or has its gradient bounded."""
    clear = True

    def check(name, u):
        nonlocal clear
        scale = network.neuron(name).scale
        a, w = u.value / scale, 0 * u.value if u.slope is None else u.slope / scale
        inside = (a < 1) & (a + w > 0)
        near = torch.minimum((a - 1).abs(), (a + w).abs()) < 1e-5
        clear = clear and not bool((near | (inside & (1 + w < 0.1))).any())
        return network.neuron(name).activate(u)

    with torch.no_grad():
        closed_form.logits(network, x, check)
    return clear


@given(SHAPES, st.sampled_from(["potential", "spike_times"]))
def test_dta_against_finite_differences(shape, output):
    network, x = case(shape | {"on_borders": False}, ReLPSP())
    assume(network is not None)
    if output == "spike_times":
        network = with_output_spikes(network, 3.0)
    assume(clear_of_borders(network, x))
    method = DTA(output=output)
    method.start(network, TrainConfig())
    labels = torch.tensor([0, 2])
    ours = gradients(network, method.loss(network, x, labels)[0])
    directions = [torch.randn_like(g) for g in ours]
    assert directional(network, directions, lambda: method.loss(network, x, labels)[0]) == (
        pytest.approx(
            sum(float((g * d).sum()) for g, d in zip(ours, directions)), rel=1e-3, abs=1e-6
        )
    )


@given(SHAPES, st.floats(1.5, 5.0), st.floats(-0.5, 0.9))
def test_surrogate_kernels_and_readout_against_finite_differences(shape, tau, delay):
    """Exact where no rounding follows: the kernel of the last population, and the readout."""
    network, x = case(shape | {"on_borders": False}, TTFS(6, Exponential(tau, delay)))
    assume(network is not None)
    method = Surrogate()
    method.start(network, TrainConfig())
    name = network.populations[-1]
    neuron, last = network.neuron(name), network.neuron(name).kernel
    potentials = simulate(network, x, "closed_form", potentials=True).potentials[name]
    gap = neuron.normalize(potentials).unsqueeze(-1) - neuron.table()[0].detach()
    assume(float(gap.abs().min()) > 1e-5)  # no spike moves by a step
    exact = [last.tau, last.delay, *network.network.op(network.network.output.name).parameters()]
    labels = torch.tensor([0, 2])

    def loss():
        return nn.functional.cross_entropy(closed_form.logits(network, x), labels)

    ours = torch.autograd.grad(loss(), exact)
    directions = [torch.randn_like(g) for g in ours]
    expected = sum(float((g * d).sum()) for g, d in zip(ours, directions))
    found = directional(exact, directions, loss)
    assert found == pytest.approx(expected, rel=1e-4, abs=1e-7)


def directional(parameters, directions, loss, step=1e-7):
    """Central difference of the loss along `directions`."""
    if isinstance(parameters, nn.Module):
        parameters = [p for p in parameters.parameters() if p.requires_grad]
    ends = []
    with torch.no_grad():
        for sign in (1, -2, 1):
            for p, d in zip(parameters, directions):
                p.add_(d, alpha=sign * step)
            ends.append(float(loss()))
    return (ends[0] - ends[1]) / (2 * step)

"""Closed form, clock-driven engine and a naive simulation give the same spikes, to the last one."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import firstspike as fs
from firstspike.data import load_dataset
from firstspike.models import MNISTCNN, VGG11, VGG16, DigitsCNN, ResNet18, ResNet20
from firstspike.neurons import table

SHARED = Path(__file__).parents[3] / "shared" / "data"
KERNELS = {
    "exponential": fs.kernels.Exponential(),
    "delayed": fs.kernels.Exponential(tau=3.0, delay=0.7),
    "linear": fs.kernels.Linear(),
    "powers of two": fs.kernels.PowerOfTwo(),
    "learned": fs.kernels.Learned(),
}


class Branches(nn.Module):
    """Concatenation of branches of different depth, pools of both kinds, a sum, a norm behind."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 3, padding=1)
        self.deep = nn.Sequential(
            nn.Conv2d(6, 4, 1), nn.ReLU(), nn.Conv2d(4, 6, 3, padding=1, groups=2), nn.ReLU()
        )
        self.wide = nn.Conv2d(6, 5, 5, padding=2, bias=False)
        self.norm = nn.BatchNorm2d(11)
        self.last = nn.Conv2d(11, 6, 3)
        self.fc = nn.Linear(6 * 4, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        joined = torch.cat([self.deep(x) + 0.5 * x, F.relu(self.wide(x))], 1)
        x = F.max_pool2d(F.relu(self.norm(joined) - 0.1), 2)
        return self.fc(F.relu(self.last(F.avg_pool2d(F.pad(x, (1, 1, 1, 1)), 2))).flatten(1))


def random_model(model: nn.Module) -> nn.Module:
    """Random statistics and biases, so that nothing is zero by chance."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.uniform_(-0.2, 0.2, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)
                module.weight.uniform_(0.5, 1.5, generator=generator)
            if getattr(module, "bias", None) is not None:
                module.bias.uniform_(-0.1, 0.1, generator=generator)
    return model.double().eval()


NETWORKS = {
    "MNIST CNN": (lambda: MNISTCNN(width=0.25, hidden=(40, 20)), (1, 28, 28)),
    "MNIST CNN, average": (
        lambda: MNISTCNN(width=0.25, pool="average", batch_norm=True, hidden=(40,)),
        (1, 28, 28),
    ),
    "digits CNN": (DigitsCNN, (1, 8, 8)),
    "VGG-11": (lambda: VGG11(width=1 / 16, head=(32,)), (3, 32, 32)),
    "VGG-11, average": (
        lambda: VGG11(width=1 / 16, head=(32,), batch_norm=False, pool="average"),
        (3, 32, 32),
    ),
    "ResNet-20": (lambda: ResNet20(width=0.25), (3, 16, 16)),
    "ResNet-20, max": (lambda: ResNet20(width=0.25, pool="max", batch_norm=False), (3, 16, 16)),
    "branches": (Branches, (3, 12, 12)),
    "ReLU at the end": (
        lambda: nn.Sequential(
            nn.Flatten(), nn.Linear(16, 9), nn.ReLU(), nn.Linear(9, 4), nn.ReLU()
        ),
        (1, 4, 4),
    ),
}


def images(*shape: int, low: float = 0.0) -> Tensor:
    x = torch.rand(*shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return low + (1 - low) * x


def spiking(name: str, code: fs.TTFS, low: float = 0.0, **options):
    build, shape = NETWORKS[name]
    torch.manual_seed(0)
    network = fs.convert(
        random_model(build()), code, calibration=images(12, *shape, low=low), **options
    )
    return network, images(4, *shape, low=low)


def assert_identical(network, x: Tensor) -> None:
    agreement = fs.check_engines(network, x)
    assert agreement.identical, str(agreement)
    assert agreement.different == 0 and agreement.explained and agreement.first is None
    assert agreement.logits < 1e-10
    assert [p.population for p in agreement.populations] == list(network.populations)
    record = fs.simulate(network, x, "closed_form")
    active = [bool(record.spike_counts[p].any()) for p in network.populations]
    assert sum(active) >= len(active) - 1  # the test is not vacuous


@pytest.mark.parametrize("name", NETWORKS)
def test_engines_agree_on_every_spike_in_float64(name: str) -> None:
    network, x = spiking(name, fs.TTFS(window=12))
    assert_identical(network, x)
    torch.testing.assert_close(network(x), fs.simulate(network, x).logits, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("half_step", [True, False])
@pytest.mark.parametrize("kernel", KERNELS)
def test_engines_agree_for_every_kernel(kernel: str, half_step: bool) -> None:
    network, x = spiking("branches", fs.TTFS(10, KERNELS[kernel], half_step=half_step))
    assert_identical(network, x)


def test_engines_agree_with_negative_inputs_and_scales_per_channel() -> None:
    for normalization in (fs.scales.Percentile(99.0, per_channel=True), fs.scales.Maximum()):
        network, x = spiking("branches", fs.TTFS(8), low=-1.0, normalization=normalization)
        assert bool((network.input_low < -0.5).all())
        assert_identical(network, x)


def trained(
    model: nn.Module, x: Tensor, labels: Tensor, epochs: int, least: float = 0.9
) -> nn.Module:
    """`model` after a short training on images (N, ...) with labels (N,)."""
    optimizer = torch.optim.Adam(model.parameters(), lr=2e-3)
    for _ in range(epochs):
        for batch in torch.randperm(len(x)).split(64):
            loss = F.cross_entropy(model(x[batch]), labels[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
    assert float((model.eval()(x).argmax(1) == labels).double().mean()) > least
    return model


@pytest.mark.parametrize("pool", ["max", pytest.param("average", marks=pytest.mark.slow)])
def test_engines_agree_on_trained_weights(pool: str) -> None:
    data = load_dataset("digits", "train")
    x, labels = data.float_images(), data.labels
    model = trained(DigitsCNN(batch_norm=True, pool=pool, width=0.5), x, labels, 3, least=0.8)
    for code in (fs.TTFS(16), fs.TTFS(6, fs.kernels.Linear())):
        assert_identical(fs.convert(model.double(), code, calibration=x), x[:100].double())


@pytest.mark.parametrize(
    "name",
    [
        "branches",
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in ("VGG-11", "VGG-11, average", "ResNet-20", "ResNet-20, max")
        ),
    ],
)
def test_engines_agree_on_every_architecture_after_training(name: str) -> None:
    build, (channels, side, _) = NETWORKS[name]
    data = load_dataset("digits", "train").subset(400)
    x = F.interpolate(data.float_images(), size=side).expand(-1, channels, -1, -1).contiguous()
    labels = data.labels % 7  # as many classes as the smallest readout has
    model = trained(build(), x, labels, epochs=6, least=0.3)
    network = fs.convert(model.double(), fs.TTFS(12), calibration=x[:100])
    assert_identical(network, x[:20].double())


@pytest.mark.slow
@pytest.mark.parametrize("pool", ["max", "average"])
def test_engines_agree_on_an_mnist_network(pool: str) -> None:
    for root in (None, SHARED):
        try:
            data = load_dataset("mnist", "train", root=root)
            break
        except FileNotFoundError:
            continue
    else:
        pytest.skip("mnist is not here: set FIRSTSPIKE_DATA to the folder that has it")
    x, labels = data.subset(6000).float_images(), data.labels[:6000]
    model = trained(MNISTCNN(pool=pool), x, labels, epochs=2).double()
    for code in (fs.TTFS(16), fs.TTFS(80)):
        network = fs.convert(model, code, calibration=x[:1000])
        assert_identical(network, x[:32].double())


def test_float32_differences_are_few_and_all_rounding() -> None:
    torch.manual_seed(0)
    model = random_model(VGG11(width=1 / 8, head=(64,))).float()
    x = images(8, 3, 32, 32).float()
    network = fs.convert(model, fs.TTFS(window=80), calibration=x)
    agreement = fs.check_engines(network, x)
    total = sum(p.neurons for p in agreement.populations)
    assert agreement.explained, str(agreement)
    assert agreement.different < 1e-3 * total
    for p in agreement.populations:
        assert set(p.reasons) <= {"rounding", "inherited"}
    if agreement.first is not None:
        assert agreement.first.reason == "rounding" and agreement.first.margin < 300


FULL_SIZE = {
    "MNIST CNN": (MNISTCNN, (1, 28, 28)),
    "VGG-11": (lambda: VGG11(head=(512,)), (3, 32, 32)),
    "VGG-11, average": (lambda: VGG11(head=(512,), pool="average"), (3, 32, 32)),
    "ResNet-20": (ResNet20, (3, 32, 32)),
    "ResNet-18": (ResNet18, (3, 32, 32)),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", FULL_SIZE)
def test_engines_agree_at_full_size(name: str) -> None:
    build, shape = FULL_SIZE[name]
    torch.manual_seed(0)
    network = fs.convert(random_model(build()), fs.TTFS(16), calibration=images(16, *shape))
    assert_identical(network, images(4, *shape))


# ---- a naive simulation, five lines a step ------------------------------------------------------
def naive_chain(layers: list[nn.Module], network, x: Tensor) -> tuple[list[Tensor], Tensor]:
    """Step every population of a plain chain at every global step; no blocks, no shortcuts.

    `layers` are the weight layers; a ReLU population follows each but the last.
    """
    code, names = network.code, network.populations
    tables = [[t.detach() for t in network.neuron(n).table()] for n in names]
    scales = [network.neuron(n).scale for n in names]
    bias = [layer(torch.zeros_like(_behind(layers[:i], x))) for i, layer in enumerate(layers)]
    u = [x.clone(), *(b.clone() for b in bias)]
    times = [torch.full_like(p, math.inf) for p in u[:-1]]
    for step in range(network.latency):
        for d in range(len(names)):
            t = step - d * code.shift
            spikes = torch.zeros_like(u[d])
            if 0 <= t < code.window:
                fires = times[d].isinf() & (u[d] * scales[d].reciprocal() >= tables[d][0][t])
                times[d][fires] = t
                spikes[fires] = tables[d][1][t] * scales[d]
            u[d + 1] = u[d + 1] + layers[d](spikes) - bias[d]
    return times, u[-1]


def _behind(layers: list[nn.Module], x: Tensor) -> Tensor:
    for layer in layers:
        x = layer(x)
    return x


def chain_of(kind: str) -> list[nn.Module]:
    """Weight layers of a plain chain."""
    torch.manual_seed(2)
    if kind == "dense":
        return [nn.Sequential(nn.Flatten(), nn.Linear(36, 20)), nn.Linear(20, 15), nn.Linear(15, 4)]
    pooled = nn.Sequential(nn.AvgPool2d(2), nn.Conv2d(4, 6, 2))
    return [nn.Conv2d(1, 4, 3), pooled, nn.Sequential(nn.Flatten(), nn.Linear(6, 4))]


@pytest.mark.parametrize("offset", [None, 6, 3, 1])
@pytest.mark.parametrize("chain", ["dense", "convolutions"])
def test_early_firing_follows_a_naive_simulation(chain: str, offset: int | None) -> None:
    layers = chain_of(chain)
    modules = [m for part in layers[:-1] for m in (part, nn.ReLU())] + [layers[-1]]
    model = random_model(nn.Sequential(*modules))
    x = images(8, 1, 6, 6)
    network = fs.convert(model, fs.TTFS(12, offset=offset), calibration=images(50, 1, 6, 6))
    times, logits = naive_chain(layers, network, x)
    record = fs.simulate(network, x, "clock")
    for name, expected in zip(network.populations, times, strict=True):
        assert torch.equal(record.spike_times[name], expected), name
    torch.testing.assert_close(record.logits, logits, rtol=1e-10, atol=1e-12)
    if offset is not None:
        plain = fs.simulate(network.with_offset(None), x, "closed_form")
        agreement = fs.engines.compare_records(network, plain, record)
        assert agreement.explained and not agreement.identical
        assert agreement.first is not None and agreement.first.reason == "early firing"
        reasons = {reason for p in agreement.populations for reason in p.reasons}
        assert reasons <= {"early firing", "inherited"}


@pytest.mark.parametrize("memory", [1, 100_000])
@pytest.mark.parametrize("offset", [None, 5])
def test_the_memory_budget_does_not_change_results(memory: int, offset: int | None) -> None:
    network, x = spiking("branches", fs.TTFS(10, offset=offset))
    expected = fs.simulate(network, x)
    got = fs.simulate(network, x, memory=memory)
    assert fs.engines.compare_records(network, expected, got).identical


def test_latency_is_that_of_the_paper() -> None:
    model = VGG16(width=1 / 64, head=(16, 16)).eval()
    network = fs.convert(model, fs.TTFS(window=80), calibration=torch.rand(2, 3, 32, 32))
    assert (network.depth, network.latency) == (15, 1280)
    early = network.with_offset(40)
    assert early.latency == 680 and network.latency == 1280
    assert fs.simulate(early, torch.rand(1, 3, 32, 32)).latency == 680


def test_early_firing_has_no_closed_form() -> None:
    network, x = spiking("digits CNN", fs.TTFS(8, offset=4))
    with pytest.raises(ValueError, match=r"must be 'early_firing' or 'clock' .* \(early firing\)"):
        fs.simulate(network, x, "closed_form")
    torch.testing.assert_close(network(x), fs.simulate(network, x).logits)


@pytest.mark.parametrize("name", ["digits CNN", "ResNet-20, max", "branches", "ReLU at the end"])
def test_logits_over_time_agree_and_end_at_the_logits(name: str) -> None:
    network, x = spiking(name, fs.TTFS(8))
    a, b = (fs.simulate(network, x, e, over_time=True) for e in ("closed_form", "clock"))
    assert a.logits_over_time is not None and b.logits_over_time is not None
    assert a.logits_over_time.shape == (network.latency, len(x), a.logits.shape[1])
    torch.testing.assert_close(a.logits_over_time, b.logits_over_time, rtol=1e-9, atol=1e-12)
    for record in (a, b):
        torch.testing.assert_close(record.logits_over_time[-1], record.logits)
    first = min(
        network.window_of(s).start for s in network.network.segment(network.network.output.name)[1]
    )
    assert torch.equal(b.logits_over_time[0], b.logits_over_time[max(first - 1, 0)])
    assert torch.equal(a.decision_steps(), b.decision_steps())


def test_decision_steps() -> None:
    course = torch.tensor([[0, 1], [1, 0], [0, 1], [0, 2], [0, 1]]).float().unsqueeze(1)
    always = torch.tensor([[0, 1]] * 5).float().unsqueeze(1)
    late = torch.tensor([[1, 0]] * 4 + [[0, 1]]).float().unsqueeze(1)
    course = torch.cat([course, always, late], 1)
    record = fs.Record("clock", course[-1], 5, logits_over_time=course)
    assert record.decision_steps().tolist() == [3, 1, 5]
    with pytest.raises(ValueError, match="over_time=True"):
        fs.Record("clock", course[-1], 5).decision_steps()


def test_nothing_fires_nothing_breaks() -> None:
    network, x = spiking("digits CNN", fs.TTFS(8))
    for engine in ("closed_form", "clock"):
        record = fs.simulate(network, torch.zeros_like(x), engine, over_time=True)
        assert not record.spike_counts["input"].any()
        assert record.logits.isfinite().all()
        empty = fs.simulate(network, x[:0], engine, over_time=True)
        assert empty.logits.shape == (0, 10) and empty.decision_steps().shape == (0,)
        assert empty.spike_times["input"].shape == (0, 1, 8, 8)
    assert fs.check_engines(network, x[:0]).identical
    assert fs.check_engines(network, torch.zeros_like(x)).identical


def test_arguments_of_simulate() -> None:
    network, x = spiking("digits CNN", fs.TTFS(8))
    with pytest.raises(ValueError, match=r"`engine` must be one of closed_form, early_firing"):
        fs.simulate(network, x, "event-driven")
    with pytest.raises(ValueError, match=r"`x` must have shape \(batch, 1, 8, 8\), got \(4, 64\)"):
        fs.simulate(network, x.flatten(1))
    with pytest.raises(TypeError, match=r"floating-point tensor, got torch.uint8.*/ 255"):
        fs.simulate(network, (255 * x).byte())
    with pytest.raises(TypeError, match=r"dtype torch.float64, got torch.float32"):
        network(x.float())
    with pytest.raises(ValueError, match="`memory` must be positive"):
        fs.simulate(network, x, memory=0)


# ---- the checker sees what is broken ------------------------------------------------------------
def on_the_grid(kernel) -> tuple:
    """A network whose potentials lie exactly on thresholds: identity weights, no half step."""
    layer, readout = nn.Linear(8, 8, bias=False), nn.Linear(8, 2)
    layer.weight.data.copy_(torch.eye(8))
    model = nn.Sequential(layer, nn.ReLU(), readout).double()
    x = torch.cat([torch.eye(8), torch.arange(1, 9).div(8).expand(8, 8)]).double()
    network = fs.convert(
        model, fs.TTFS(8, kernel, half_step=False), calibration=x, normalization=fs.scales.Maximum()
    )
    return network, x


def test_equality_fires_in_both_engines_and_a_strict_comparison_is_reported(monkeypatch) -> None:
    network, x = on_the_grid(fs.kernels.Linear())
    assert fs.check_engines(network, x).identical

    def strict(self, state, current, t):
        if current is not None:
            state["potential"] += current
        if t is None:
            return state, None
        fires = state["times"].isinf() & (
            self.normalize(state["potential"]) > state["thresholds"][t]  # not >=
        )
        state["times"] = torch.where(fires, float(t), state["times"])
        return state, fires * (state["values"][t] * self.scale)

    monkeypatch.setattr(table.TableNeuron, "step", strict)
    agreement = fs.check_engines(network, x)
    assert not agreement.identical and not agreement.explained
    first = agreement.first
    assert first is not None and first.population == "input"
    assert first.reason == "unexplained" and first.margin == 0.0
    assert first.times[1] > first.times[0]
    assert agreement.populations[1].reasons.keys() == {"inherited"}


def test_a_table_shifted_by_one_step_is_reported(monkeypatch) -> None:
    network, x = spiking("digits CNN", fs.TTFS(8))
    right = table.TableNeuron.start

    def shifted(self, bias):
        state = right(self, bias)
        state["thresholds"] = state["thresholds"].roll(1)
        return state

    monkeypatch.setattr(table.TableNeuron, "start", shifted)
    agreement = fs.check_engines(network, x)
    assert not agreement.explained
    assert agreement.populations[0].reasons["unexplained"] > 100
    assert "unexplained" in str(agreement) and "First: input[" in str(agreement)


def test_a_lost_input_is_inherited_downstream(monkeypatch) -> None:
    """One spike removed from one population: only what follows it may differ, and says so."""
    network, x = spiking("digits CNN", fs.TTFS(8))
    a = fs.simulate(network, x, "closed_form", potentials=True)
    right = table.TableNeuron.encode

    def forgetful(self, u):
        times = right(self, u)
        if times.shape[1:] == network.network.node[network.populations[1]].shape:
            index = times[0].isfinite().nonzero()[0]
            times[0][tuple(index)] = math.inf
        return times

    monkeypatch.setattr(table.TableNeuron, "encode", forgetful)
    b = fs.simulate(network, x, "closed_form", potentials=True)
    monkeypatch.undo()
    agreement = fs.engines.compare_records(network, a, b)
    counts = [p.different for p in agreement.populations]
    assert counts[:2] == [0, 1] and agreement.populations[1].reasons == {"unexplained": 1}
    assert all(set(p.reasons) <= {"inherited"} for p in agreement.populations[2:])
    assert agreement.first is not None and agreement.first.sample == 0


def test_late_clipping_is_named() -> None:
    network, x = on_the_grid(fs.kernels.Exponential())
    a = fs.simulate(network, 1.5 * x, "clock", potentials=True)
    late = {n: t.clone() for n, t in a.spike_times.items()}
    big = (late["input"] == 0).nonzero()[0]
    late["input"][tuple(big)] = 2.0
    b = dataclasses.replace(a, spike_times=late)
    first = fs.engines.compare_records(network, a, b).first
    assert first is not None and first.reason == "clipping" and first.times == (0.0, 2.0)


def test_rounding_is_named_and_its_margin_stated() -> None:
    network, x = on_the_grid(fs.kernels.Linear())
    name = network.populations[1]
    a = fs.simulate(network, x, "clock", potentials=True)
    u = a.potentials[name].clone()
    u[8, 3] *= 1 - 1e-15  # a few ulp below its threshold
    times = {**a.spike_times, name: network.neuron(name).encode(u)}
    b = dataclasses.replace(a, spike_times=times, potentials={**a.potentials, name: u})
    agreement = fs.engines.compare_records(network, a, b)
    assert agreement.different == 1 and agreement.explained
    first = agreement.first
    assert first is not None and first.reason == "rounding"
    assert (first.sample, first.neuron) == (8, (3,)) and first.margin <= 1.0
    assert first.threshold == pytest.approx(0.5) and first.times == (4.0, 5.0)
    without = dataclasses.replace(a, potentials={}), dataclasses.replace(b, potentials={})
    assert fs.engines.compare_records(network, *without).explained


def test_rounding_is_named_for_codes_with_several_spikes() -> None:
    """A neuron of half its threshold a step fires at steps 2 and 4, or, a rounding later, once."""
    model = nn.Sequential(nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2)).double()
    x = torch.tensor([[0.5, 0.8]]).double()
    network = fs.convert(model, fs.FewStep(4), calibration=torch.rand(20, 2).double())
    (name,) = network.network.populations
    hidden = network.network.op(network.network.node[name].inputs[0])
    hidden.weight.data.copy_(torch.eye(2).double() * network.neuron(name).threshold)
    hidden.bias.data.zero_()
    a = fs.simulate(network, x, "clock")
    assert a.spike_counts[name].tolist() == [[2, 3]]
    for neuron, reason in ((0, "rounding"), (1, "unexplained")):
        counts = a.spike_counts[name].clone()
        counts[0, neuron] -= 1
        b = dataclasses.replace(a, spike_counts={**a.spike_counts, name: counts})
        found = fs.engines.compare_records(network, a, b, x).populations[-1]
        assert found.different == 1 and found.reasons == {reason: 1}


@pytest.mark.parametrize("code", [fs.FewStep(4), fs.Rate(8), fs.Burst(8)], ids=str)
def test_half_precision_excuses_no_missing_spikes(code) -> None:
    """256 units in the last place are twice a threshold there."""
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    x = torch.rand(20, 4)
    network, x = fs.convert(model, code, calibration=x).bfloat16(), x.bfloat16()
    a = fs.simulate(network, x, "clock")
    name = network.network.populations[-1]
    b = dataclasses.replace(a, spike_counts={**a.spike_counts, name: a.spike_counts[name] + 2})
    found = fs.engines.compare_records(network, a, b, x).populations[-1]
    assert found.reasons == {"unexplained": 160}


def test_differences_in_continuous_time_stay_unexplained() -> None:
    """The clock, which tells rounding from more elsewhere, has no such times."""
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)).double()
    x = torch.rand(20, 4).double()
    network = fs.convert(model, fs.ReLPSP(), calibration=x)
    a = fs.simulate(network, x, "closed_form")
    (name,) = network.network.populations
    late = {**a.spike_times, name: a.spike_times[name] + 0.01}
    found = fs.engines.compare_records(network, a, dataclasses.replace(a, spike_times=late), x)
    assert found.populations[-1].reasons.keys() == {"unexplained"}


def test_records_must_belong_together() -> None:
    network, x = spiking("digits CNN", fs.TTFS(8))
    other, y = spiking("ReLU at the end", fs.TTFS(8))
    a, b = fs.simulate(network, x), fs.simulate(other, y)
    with pytest.raises(ValueError, match="records of one network and batch"):
        fs.engines.compare_records(network, a, b)
    with pytest.raises(ValueError, match="records of one network and batch"):
        fs.engines.compare_records(network, a, fs.simulate(network, x[:2]))
    with pytest.raises(ValueError, match="`network` must be the one that was run"):
        fs.engines.compare_records(network, b, b)


def test_agreement_is_frozen_and_prints_a_table() -> None:
    network, x = spiking("digits CNN", fs.TTFS(8))
    agreement = fs.check_engines(network, x)
    with pytest.raises(dataclasses.FrozenInstanceError):
        agreement.samples = 3  # type: ignore[misc]
    lines = str(agreement).splitlines()
    assert lines[0].startswith("closed_form and clock on 4 samples: 0 of 12,800 ")
    assert len(lines) == 3 + len(network.populations)

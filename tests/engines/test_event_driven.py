"""The event-driven engine gives the spikes of the closed form and of the clock, and counts them."""

import copy
import itertools
import pickle

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

import firstspike as fs
from firstspike.compiled import event_rows as _event_rows
from firstspike.engines.event_driven import EventDriven
from firstspike.engines.event_layers import rounded
from firstspike.measure.operations import OperationTally
from firstspike.models import VGG11, DigitsCNN, ResNet20
from firstspike.networks import INPUT
from firstspike.networks.ops import Convolution, Dense


def images(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1), dtype=dtype)


def converted(model: nn.Module, shape: tuple[int, ...], code: fs.TTFS | None = None, **options):
    """A network with random biases and norms, in the dtype of float64, and its images."""
    generator = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.uniform_(-0.2, 0.2, generator=generator)
                module.running_var.uniform_(0.5, 1.5, generator=generator)
            if getattr(module, "bias", None) is not None:
                module.bias.uniform_(-0.1, 0.1, generator=generator)
    model = model.double().eval()
    return fs.convert(model, code or fs.TTFS(8), calibration=images(8, *shape), **options)


def assert_same(network: fs.SpikingNetwork, x: Tensor) -> fs.Record:
    """Event-driven, closed form and clock agree spike by spike; the quick path gives its logits."""
    engine = EventDriven(network)
    record = engine.run(x, potentials=True, over_time=True)
    for other in ("closed_form", "clock"):
        reference = fs.simulate(network, x, other, potentials=True, over_time=True)
        agreement = fs.engines.compare_records(network, record, reference)
        assert agreement.identical, str(agreement)
        torch.testing.assert_close(record.logits, reference.logits, rtol=1e-9, atol=1e-12)
        torch.testing.assert_close(
            record.logits_over_time, reference.logits_over_time, rtol=1e-9, atol=1e-12
        )
        for name, u in reference.potentials.items():
            torch.testing.assert_close(record.potentials[name], u, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(engine(x), record.logits, rtol=1e-9, atol=1e-12)
    assert record.engine == "event" and record.latency == network.latency
    return record


class Odd(nn.Module):
    """Strides, padding, dilation, groups, depthwise, a join, a sum, pads and pools of all kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 20, (3, 2), stride=(2, 1), padding=(1, 0))
        self.b = nn.Conv2d(20, 12, 3, padding=2, dilation=2, groups=4, bias=False)
        self.c = nn.Conv2d(12, 12, 3, padding="same", groups=12)
        self.d = nn.Conv2d(24, 32, 1, groups=2)
        self.e = nn.Conv2d(32, 70, 3, padding=1)
        self.f = nn.Linear(70 * 4, 9)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.a(x)), 3, 2, padding=1)
        y = F.relu(self.b(x))
        z = F.relu(self.c(y) + 0.5 * y)
        x = F.relu(self.d(torch.cat([y, F.avg_pool2d(F.pad(z, (1, 1, 1, 1)), 3, 1)], 1)))
        x = F.adaptive_max_pool2d(F.relu(self.e(x)), (2, 2))
        return self.f(x.flatten(1))


class Sequences(nn.Module):
    """One and three dimensions, a dense layer over the last axis, a transposed convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv1d(2, 5, 3, stride=2, padding=1)
        self.b = nn.Linear(6, 4)
        self.c = nn.ConvTranspose1d(5, 3, 2, stride=2)
        self.d = nn.Conv3d(3, 4, (1, 2, 2))
        self.e = nn.Linear(4 * 3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.c(F.relu(self.b(F.relu(self.a(x))))))  # (B, 3, 8)
        x = F.relu(self.d(x.reshape(-1, 3, 1, 2, 4)))
        return self.e(F.max_pool1d(x.flatten(2), 1).flatten(1))


class Readers(nn.Module):
    """A flattened map that several dense layers read, and one that a sum reads as well."""

    def __init__(self, alone: bool) -> None:
        super().__init__()
        self.alone = alone
        self.a = nn.Conv2d(2, 5, 3)
        self.b, self.c = nn.Linear(80, 80), nn.Linear(80, 17)
        self.d, self.e = nn.Linear(80, 3), nn.Linear(17, 3)

    def forward(self, x: Tensor) -> Tensor:
        flat = F.relu(self.a(x)).flatten(1)
        other = F.relu(self.b(flat)) if self.alone else F.relu(self.b(flat) + flat)
        return self.d(other) + self.e(F.relu(self.c(flat)))


NETWORKS = {
    "odd": (Odd, (3, 13, 9)),
    "sequences": (Sequences, (2, 12)),
    "digits": (DigitsCNN, (1, 8, 8)),
    "VGG-11": (lambda: VGG11(width=1 / 16, head=(32,)), (3, 32, 32)),
    "VGG-11, average": (lambda: VGG11(width=1 / 16, head=(), pool="average"), (3, 32, 32)),
    "ResNet-20": (lambda: ResNet20(width=0.25), (3, 16, 16)),
    "ReLU at the end": (
        lambda: nn.Sequential(
            nn.Flatten(), nn.Linear(16, 9), nn.ReLU(), nn.Linear(9, 4), nn.ReLU()
        ),
        (1, 4, 4),
    ),
    "a kernel's row larger than the cache": (
        lambda: nn.Sequential(
            *(nn.Conv2d(1, 300, 1), nn.ReLU(), nn.Conv2d(300, 70, 2), nn.ReLU(), nn.MaxPool2d(2)),
            *(nn.Flatten(), nn.Linear(70, 5)),
        ),
        (1, 4, 4),
    ),
    "dense layers of one map": (lambda: Readers(alone=True), (2, 6, 6)),
    "a sum beside dense layers": (lambda: Readers(alone=False), (2, 6, 6)),
    "input pooled": (
        lambda: nn.Sequential(
            nn.MaxPool2d(2), nn.Conv2d(1, 3, 2), nn.ReLU(), nn.Flatten(), nn.Linear(3, 2)
        ),
        (1, 4, 4),
    ),
}


@pytest.mark.parametrize("name", NETWORKS)
def test_spikes_are_those_of_the_other_engines(name: str) -> None:
    build, shape = NETWORKS[name]
    torch.manual_seed(0)
    network = converted(build(), shape)
    record = assert_same(network, images(3, *shape))
    assert sum(bool(counts.any()) for counts in record.spike_counts.values()) >= 2


@pytest.mark.parametrize("half_step", [True, False])
@pytest.mark.parametrize(
    "kernel",
    [fs.kernels.Exponential(), fs.kernels.Linear(), fs.kernels.PowerOfTwo(), fs.kernels.Learned()],
    ids=str,
)
def test_every_table_and_scales_per_channel(kernel, half_step: bool) -> None:
    code = fs.TTFS(11, kernel, half_step=half_step)
    network = converted(
        Odd(), (3, 13, 9), code, normalization=fs.scales.Percentile(99, per_channel=True)
    )
    assert_same(network, images(2, 3, 13, 9))


def test_a_window_of_one_step() -> None:
    assert_same(converted(DigitsCNN(), (1, 8, 8), fs.TTFS(1)), images(2, 1, 8, 8))


@settings(phases=[Phase.explicit, Phase.generate])
@given(st.data())
def test_random_small_networks(data: st.DataObject) -> None:
    """Random layers with weights on a grid: potentials lie on thresholds exactly, again and again.

    Sums of such numbers are exact in any order, so engines must agree to the last spike, in
    float32 as well.
    """
    seed = data.draw(st.integers(0, 2**16), "seed")
    torch.manual_seed(seed)
    groups = data.draw(st.sampled_from([1, 2, 3]), "groups")
    wide = groups * data.draw(st.integers(1, 30), "width")
    kernel = data.draw(st.integers(1, 3), "kernel")
    pad, dilation = data.draw(st.integers(0, 2), "pad"), data.draw(st.integers(1, 2), "dilation")
    stride = data.draw(st.integers(1, 2), "stride")
    pool = data.draw(st.sampled_from([nn.MaxPool2d, nn.AvgPool2d]), "pool")
    model = nn.Sequential(
        nn.Conv2d(2, wide, kernel, padding=pad),
        nn.ReLU(),
        pool(2, padding=data.draw(st.integers(0, 1), "pool padding")),
        nn.Conv2d(wide, wide, 2, stride, dilation, dilation, groups),
        nn.ReLU(),
        nn.Flatten(),
        nn.LazyLinear(3),
    )
    x = (8 * images(2, 2, 7, 8)).round() / 8
    model(x.float())
    for layer in (model[0], model[3]):
        layer.bias.data.fill_(2.0)  # alive, for conversion
    dtype = data.draw(st.sampled_from([torch.float32, torch.float64]), "dtype")
    window = data.draw(st.sampled_from([2, 4, 8, 16]), "window")
    code = fs.TTFS(window, fs.kernels.Linear(), half_step=data.draw(st.booleans(), "half step"))
    network = fs.convert(model.to(dtype), code, calibration=x.to(dtype))
    share = data.draw(st.sampled_from([0.0, 0.3, 1.0]), "share of weights")
    with torch.no_grad():
        for parameter in network.network.parameters():
            parameter.copy_(torch.randint(-4, 5, parameter.shape) / 8)
            parameter *= torch.rand(parameter.shape) <= share
    for name in network.populations:
        network.neuron(name).scale.fill_(2.0 ** data.draw(st.integers(-1, 1), name))
    record = EventDriven(network).run(x.to(dtype))
    for other in ("closed_form", "clock"):
        agreement = fs.engines.compare_records(
            network, record, fs.simulate(network, x.to(dtype), other)
        )
        assert agreement.identical and agreement.logits < 1e-5, str(agreement)
    torch.testing.assert_close(EventDriven(network)(x.to(dtype)), record.logits)


def test_potentials_at_the_borders_of_the_table() -> None:
    """Single neurons: thresholds, their neighbours, zero, negative, huge, denormal."""
    network = converted(nn.Sequential(nn.Linear(40, 40), nn.ReLU(), nn.Linear(40, 2)), (40,))
    network.network.op("_0").weight.data.zero_()
    network.network.op("_0").bias.data.zero_()
    neuron = network.neuron("_1")
    neuron.scale.fill_(1.0)
    thresholds = neuron.table()[0]
    infinity = torch.tensor(float("inf"), dtype=torch.float64)
    special = torch.tensor([0.0, -0.0, -1.0, 1e300, 5e-324, 1e-310, 1e3], dtype=torch.float64)
    u = torch.cat(
        [
            thresholds,
            torch.nextafter(thresholds, infinity),
            torch.nextafter(thresholds, -infinity),
            special,
        ]
    )
    u = F.pad(u, (0, 40 - len(u)))
    network.network.op("_0").bias.data.copy_(u)
    record = EventDriven(network).run(torch.zeros(1, 40, dtype=torch.float64), potentials=True)
    expected = [next((t for t, h in enumerate(thresholds) if v >= h), float("inf")) for v in u]
    assert record.spike_times["_1"][0].tolist() == expected
    assert torch.equal(record.potentials["_1"][0], u)


@pytest.mark.parametrize("bias", [-1e6, 1e6], ids=["silence", "all fire at once"])
def test_extremes_of_activity(bias: float) -> None:
    network = converted(Odd(), (3, 13, 9))
    for op in network.network.ops.values():
        if getattr(op, "bias", None) is not None:
            op.bias.data.fill_(bias)
    record = assert_same(network, images(2, 3, 13, 9))
    times = record.spike_times["relu"]
    assert bool(times.isinf().all() if bias < 0 else (times == 0).all())
    for x in (torch.zeros(2, 3, 13, 9).double(), torch.ones(2, 3, 13, 9).double()):
        assert_same(network, x)


def test_float32_differs_by_rounding_alone() -> None:
    network = converted(VGG11(width=0.25, head=(32,)), (3, 32, 32), fs.TTFS(80)).float()
    x = images(4, 3, 32, 32, dtype=torch.float32)
    record = EventDriven(network).run(x, potentials=True)
    reference = fs.simulate(network, x, "closed_form", potentials=True)
    agreement = fs.engines.compare_records(network, record, reference)
    assert agreement.explained, str(agreement)
    assert agreement.different < 1e-3 * sum(p.neurons for p in agreement.populations)


def test_synaptic_operations_are_the_fan_outs_of_the_spikes() -> None:
    """Counted here while they are done, there from spike counts and connectivity."""
    for build, shape in (NETWORKS["digits"], NETWORKS["VGG-11"]):
        network = converted(build(), shape)
        x = images(3, *shape)
        engine = EventDriven(network)
        engine(x)
        quick = dict(engine.synaptic_operations)
        record = engine.run(x)
        tally = OperationTally(network)
        tally.add(record)
        assert quick == record.synaptic_operations
        assert sum(quick.values()) == round(tally.total()["synaptic"] * len(x))


def test_cost_follows_the_spikes() -> None:
    network = converted(VGG11(width=0.25, head=(32,)), (3, 32, 32))
    engine, x = EventDriven(network), images(1, 3, 32, 32)
    engine(x)
    bright = sum(engine.synaptic_operations.values())
    engine(torch.zeros_like(x))
    dark = engine.synaptic_operations["features_0"]
    assert dark == 0 < bright


@pytest.mark.parametrize("name, in_a_row", [("digits", True), ("VGG-11", True), ("odd", False)])
def test_layers_one_after_the_other_are_a_list_of_loops(name: str, in_a_row: bool) -> None:
    build, shape = NETWORKS[name]
    engine = EventDriven(converted(build(), shape))
    assert bool(engine._buffers().loops) == in_a_row
    x = images(3, *shape)
    logits = engine(x)
    found = dict(engine.synaptic_operations)
    torch.testing.assert_close(logits, engine._frames(engine._begin(x)), rtol=1e-12, atol=1e-15)
    assert found == engine.synaptic_operations
    assert engine(x[:0]).shape == (0, logits.shape[1])


@pytest.mark.parametrize("precision", [None, "bfloat16", "int8"])
def test_images_may_lie_in_any_order(precision: str | None) -> None:
    """Loops read memory: images are brought into the one order that they know."""
    model = nn.Sequential(nn.Conv2d(16, 20, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
    network = converted(model.append(nn.Linear(80, 3)), (16, 6, 6)).float()
    engine, x = EventDriven(network, precision), images(5, 16, 6, 6).float()
    assert engine._buffers().loops
    expected = engine(x)
    for order in itertools.permutations(range(4)):
        back = sorted(range(4), key=order.__getitem__)
        turned = x.permute(order).contiguous().permute(back)
        torch.testing.assert_close(engine(turned), expected, rtol=0, atol=0)
    torch.testing.assert_close(engine.run(x).logits, expected, rtol=1e-5, atol=1e-6)


def test_a_prepared_engine_can_be_copied_and_pickled() -> None:
    engine, x = EventDriven(converted(DigitsCNN(), (1, 8, 8))), images(2, 1, 8, 8)
    for twin in (copy.copy(engine), copy.deepcopy(engine), pickle.loads(pickle.dumps(engine))):
        assert torch.equal(twin(x), engine(x))
        twin(torch.zeros_like(x))
        assert twin.synaptic_operations != engine.synaptic_operations


@pytest.mark.parametrize("name", ["ResNet-20", "digits"])
def test_a_prepared_engine_serves_a_stream(name: str) -> None:
    """Buffers are reused: earlier frames leave nothing behind, and results stay what they were."""
    build, shape = NETWORKS[name]
    network = converted(build(), shape)
    engine, x = EventDriven(network), images(6, *shape)
    whole = engine.run(x, potentials=True)
    kept = copy.deepcopy(whole)
    for i in (3, 1, 5):
        torch.testing.assert_close(engine(x[i : i + 1]), whole.logits[i : i + 1], rtol=0, atol=0)
        single = engine.run(x[i : i + 1])
        for name in network.populations:
            assert torch.equal(single.spike_times[name], whole.spike_times[name][i : i + 1])
    for name, u in kept.potentials.items():
        assert torch.equal(u, whole.potentials[name])


@pytest.mark.parametrize(
    "rule",
    [fs.stopping.Certain(), fs.stopping.Margin(0.02), fs.stopping.Margin(0.01, after=2, every=3)],
)
def test_decisions_are_those_of_the_clock(rule) -> None:
    for build, shape in (NETWORKS["digits"], NETWORKS["VGG-11, average"]):
        network = converted(build(), shape)
        x = images(6, *shape)
        record = fs.simulate(network, x, "event", decide=rule, over_time=True)
        clock = fs.simulate(network, x, "clock", decide=rule, over_time=True)
        assert torch.equal(record.decided_at, clock.decided_at)
        if isinstance(rule, fs.stopping.Margin):
            assert bool((record.decided_at < network.latency).any())
        torch.testing.assert_close(record.logits, clock.logits)
        torch.testing.assert_close(record.logits_over_time, clock.logits_over_time)
        for name in network.populations:
            assert torch.equal(record.spike_times[name], clock.spike_times[name])
            assert torch.equal(record.spike_counts[name], clock.spike_counts[name])


def test_deciding_early_spares_the_readout() -> None:
    network = converted(DigitsCNN(), (1, 8, 8))
    x, readout = images(6, 1, 8, 8), network.network.output.name
    full = fs.simulate(network, x, "event").synaptic_operations
    early = fs.simulate(network, x, "event", decide=fs.stopping.Margin(1e-6)).synaptic_operations
    assert 0 < early[readout] < full[readout]
    assert {k: v for k, v in early.items() if k != readout} == {
        k: v for k, v in full.items() if k != readout
    }


@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_rounded_weights_are_another_network_run_exactly(precision: str) -> None:
    network = converted(Odd(), (3, 13, 9)).float()
    x = images(3, 3, 13, 9, dtype=torch.float32)
    twin = copy.deepcopy(network)
    for op in twin.network.ops.values():
        if isinstance(op, Convolution | Dense):
            stored, scale = rounded(op.weight.data, precision)
            op.weight.data = stored.float() * scale.reshape(-1, *[1] * (op.weight.ndim - 1))
    record = EventDriven(network, weights=precision).run(x, potentials=True)
    reference = fs.simulate(twin, x, "closed_form", potentials=True)
    agreement = fs.engines.compare_records(twin, record, reference)
    assert agreement.explained and agreement.different <= 3, str(agreement)
    exact = fs.simulate(network, x, "closed_form")
    assert not torch.allclose(record.logits, exact.logits, rtol=1e-6, atol=0)
    assert float((record.logits - exact.logits).norm() / exact.logits.norm()) < 0.2


def test_int8_uses_the_whole_range_of_every_channel() -> None:
    weight = torch.randn(5, 3, 2, 2) * torch.tensor([1e-3, 1.0, 50.0, 2.0, 0.0]).reshape(5, 1, 1, 1)
    stored, scale = rounded(weight, "int8")
    assert stored.flatten(1).abs().amax(1).tolist() == [127, 127, 127, 127, 0]
    error = (stored.float() * scale.reshape(5, 1, 1, 1) - weight).abs().flatten(1).amax(1)
    assert bool((error <= scale / 2 * (1 + 1e-5)).all())


def test_evaluate_and_simulate_offer_the_engine() -> None:
    network = converted(DigitsCNN(), (1, 8, 8))
    x, labels = images(10, 1, 8, 8), torch.arange(10) % 10
    a, b = (fs.evaluate(network, [(x, labels)], engine=e) for e in ("event", "closed_form"))
    assert a.accuracy == b.accuracy and a.spikes_per_sample == b.spikes_per_sample
    assert a.operations == b.operations and a.accuracy_over_time == b.accuracy_over_time
    empty = fs.simulate(network, x[:0], "event", over_time=True)
    assert empty.logits.shape == (0, 10) and empty.spike_times[INPUT].shape == (0, 1, 8, 8)


def test_the_checker_takes_the_engine() -> None:
    network = converted(DigitsCNN(), (1, 8, 8))
    agreement = fs.check_engines(network, images(3, 1, 8, 8), engines=("event", "clock"))
    assert agreement.identical and str(agreement).startswith("event and clock on 3 samples: 0 of")


def test_it_keeps_the_weights_it_was_made_with() -> None:
    network = converted(DigitsCNN(), (1, 8, 8))
    engine, x = EventDriven(network), images(1, 1, 8, 8)
    before = engine(x)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.mul_(2.0)
    assert torch.equal(engine(x), before)


def test_autocast_changes_nothing() -> None:
    network, x = converted(DigitsCNN(), (1, 8, 8)).float(), images(3, 1, 8, 8).float()
    expected = EventDriven(network)(x)
    with torch.autocast("cpu", torch.bfloat16):
        engine = EventDriven(network)
        assert torch.equal(engine(x), expected)
        torch.testing.assert_close(engine.run(x, decide=fs.stopping.Margin(1e9)).logits, expected)


def test_refusals_name_the_alternative() -> None:
    network = converted(DigitsCNN(), (1, 8, 8))
    x = images(1, 1, 8, 8)
    with pytest.raises(
        ValueError, match=r"'event': populations would fire before.*with_offset\(None\)"
    ):
        fs.simulate(network.with_offset(4), x, "event")
    rate = fs.convert(DigitsCNN().double(), fs.Rate(8), calibration=x)
    with pytest.raises(ValueError, match=r"must run on events, got Rate.*threshold table"):
        EventDriven(rate)
    with pytest.raises(ValueError, match=r"must be finite, got NaN"):
        EventDriven(network)(torch.full_like(x, float("nan")))
    with pytest.raises(ValueError, match=r"`x` must have shape \(batch, 1, 8, 8\)"):
        EventDriven(network)(x[0])
    with pytest.raises(ValueError, match=r"float32 or float64 .* got torch.bfloat16 on cpu"):
        EventDriven(copy.deepcopy(network).bfloat16())
    with pytest.raises(ValueError, match=r"`weights` must be None, or one of bfloat16, int8.*int4"):
        EventDriven(copy.deepcopy(network).float(), weights="int4")
    with pytest.raises(ValueError, match=r"for a network in float32.*torch.float64"):
        EventDriven(network, weights="int8")
    with pytest.raises(ValueError, match=r"`engine` must be 'clock' to record spikes_over_time"):
        fs.simulate(network, x, "event", spikes_over_time=True)
    uneven = copy.deepcopy(network)
    name = uneven.network.populations[0]
    shape = uneven.network.node[name].shape
    uneven.neuron(name).scale = torch.linspace(1.0, 2.0, shape[-1]).double()
    with pytest.raises(ValueError, match=r"has a scale that varies within a channel"):
        EventDriven(uneven)
    pooled = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(6), nn.Flatten())
    with pytest.raises(ValueError, match=r"`decide` needs a linear readout .*'_2' pools.*clock"):
        fs.simulate(converted(pooled, (1, 8, 8)), x, "event", decide=fs.stopping.Margin(1.0))


def test_rows_are_added_for_every_width_and_type() -> None:
    """The vector instructions against numpy."""
    import numba

    rng = np.random.default_rng(0)
    for width in (16, 32, 64):
        add = _event_rows.rows_of(width)

        @numba.njit
        def run(out, weights, index, value, add=add, width=width):
            add(out, 16, weights, width, index, value, 2, 9)

        index = rng.integers(0, 6, 9 + _event_rows.AHEAD).astype(np.int32)
        for dtype, stored in (
            (np.float32, rng.standard_normal(7 * width).astype(np.float32)),
            (np.float64, rng.standard_normal(7 * width)),
            (np.float32, rng.integers(-127, 128, 7 * width).astype(np.int8)),
        ):
            value = rng.standard_normal(9).astype(dtype)
            out = np.zeros(16 + width, dtype)
            run(out, stored, index, value)
            rows = stored.astype(np.float64)[width:].reshape(6, width)[index[2:9]]
            np.testing.assert_allclose(out[16:], value[2:].astype(float) @ rows, rtol=1e-4)
            assert not out[:16].any()

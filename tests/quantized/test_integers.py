"""Networks of integers: against int64 arithmetic, the quantized network, and their widths."""

import pytest
import torch
from torch import Tensor, nn

import firstspike as fs
from firstspike.chip import run_hardware
from firstspike.engines import able_engines
from firstspike.networks import INPUT
from firstspike.networks.ops import (
    Add,
    Affine,
    AveragePool,
    Concatenate,
    Convolution,
    Dense,
    MaxPool,
    Rectifier,
    Reshape,
)
from firstspike.quantized import Quantization, finetune, quantize, to_integers
from firstspike.training import TrainConfig


class Residual(nn.Module):
    """Residual sum, average pool, concatenation and a batch norm behind an activation."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1, groups=2)
        self.norm, self.pool = nn.BatchNorm2d(6), nn.AvgPool2d(2)
        nn.init.uniform_(self.norm.weight, 0.5, 2.0)
        nn.init.normal_(self.norm.running_mean)
        self.c = nn.Linear(12 * 16, 5)

    def forward(self, x):
        x = torch.relu(self.a(x))
        y = torch.relu(self.b(x) + x)
        y = self.norm(y)
        z = torch.cat([self.pool(y), nn.functional.max_pool2d(x, 2)], 1)
        return self.c(torch.relu(z).flatten(1))


def plain() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
        nn.Linear(36, 12, bias=False), nn.ReLU(), nn.Linear(12, 5),
    )  # fmt: skip


CODES = [
    fs.TTFS(16, fs.kernels.Linear()),
    fs.TTFS(6, fs.kernels.PowerOfTwo(), half_step=False),
    fs.TTFS(10, fs.kernels.Exponential(tau=3.0)),
    fs.Reverse(8, tau=3.0),
    fs.TTFS(8, fs.kernels.Learned(), offset=3),
]


def quantized(build, code, x, bits=4, per_channel=True) -> fs.SpikingNetwork:
    torch.manual_seed(0)
    scales = fs.scales.Percentile(per_channel=per_channel)
    network = fs.convert(build().eval(), code, calibration=x, normalization=scales)
    return quantize(network, Quantization(bits=bits, per_channel=per_channel))


def images(low: float = 0.0, count: int = 20) -> Tensor:
    return low + torch.rand(count, 2, 8, 8, generator=torch.Generator().manual_seed(1))


def fewest_bits(floats: fs.SpikingNetwork) -> int:
    """The width that holds the thresholds and no more."""
    wide = to_integers(floats, 32)
    tops = [int(wide.neuron(n).thresholds().max()) for n in wide.network.populations]
    return max(tops).bit_length() + 1


def runs(network: fs.SpikingNetwork, x: Tensor) -> list[fs.Record]:
    """Records of all engines that run the network, the clock's last."""
    names = [name for name in able_engines(network) if name != "clock"]
    assert {"event", "closed_form"} <= set(names) or not network.code.sequential
    return [fs.simulate(network, x, name) for name in (*names, "clock")]


def in_int64(network: fs.SpikingNetwork, x: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Spike times and integer readout, layer by layer on int64 tensors.

    An average over n values is their sum over n: sum and n are carried until n is multiplied away.
    """
    values, parts, times = {}, {}, {}

    def whole(tensor: Tensor) -> Tensor:
        assert torch.equal(tensor, tensor.round())
        return tensor.long()

    def speak(name: str, u: Tensor) -> Tensor:
        neuron = network.neuron(name)
        levels = neuron.thresholds()
        t = torch.stack([u < level for level in levels]).sum(0)
        step = len(levels) - 1 - t if isinstance(network.code, fs.Reverse) else t
        times[name] = torch.where(t < len(levels), step, torch.inf)
        table = torch.cat([neuron.values(), torch.zeros_like(neuron.values()[:1])])
        return sum(torch.where(t == i, value, 0) for i, value in enumerate(table))

    host = network.neuron(INPUT).encode(network.shifted(x))
    table = network.neuron(INPUT).values()
    table = table.flip(0) if isinstance(network.code, fs.Reverse) else table
    values[INPUT] = sum(torch.where(host == i, value, 0) for i, value in enumerate(table))
    times[INPUT], parts[INPUT] = host, 1
    for node in network.network.nodes[1:-1]:
        op = network.network.op(node.name)
        inputs, over = [values[i] for i in node.inputs], {parts[i] for i in node.inputs}
        (parts[node.name],) = over
        if isinstance(op, Rectifier):
            out = speak(node.name, inputs[0])
        elif isinstance(op, Convolution):
            bias = None if op.bias is None else whole(op.bias)
            out = nn.functional.conv2d(inputs[0], whole(op.weight), bias, **op.hyper)
        elif isinstance(op, Dense):
            out = inputs[0] @ whole(op.weight).T + (0 if op.bias is None else whole(op.bias))
        elif isinstance(op, Add):
            out = sum(c * y for c, y in zip(map(int, op.hyper["coefficients"]), inputs))
        elif isinstance(op, AveragePool):
            size = op.hyper["kernel_size"]
            out = inputs[0].unfold(2, size, size).unfold(3, size, size).sum((-1, -2))
            parts[node.name] = size * size
        elif isinstance(op, MaxPool):
            size = op.hyper["kernel_size"]
            out = inputs[0].unfold(2, size, size).unfold(3, size, size).amax((-1, -2))
        elif isinstance(op, Concatenate):
            out = torch.cat(inputs, op.hyper["dim"])
        elif isinstance(op, Reshape):
            out = op(inputs[0])
        else:
            assert isinstance(op, Affine)
            out = inputs[0] if op.scale is None else inputs[0] * whole(op.scale)
            if parts[node.name] > 1:
                out, rest = out // parts[node.name], out % parts[node.name]
                assert not rest.any()
                parts[node.name] = 1
            if op.shift is not None:
                out = out + whole(op.shift)
        values[node.name] = out
    return times, values[network.network.nodes[-2].name]


@pytest.mark.parametrize("code", CODES[:4], ids=str)
@pytest.mark.parametrize("build", [plain, Residual])
@pytest.mark.parametrize(
    ("per_channel", "low"),
    [
        (True, -0.5),
        *(pytest.param(*other, marks=pytest.mark.slow) for other in [(True, 0.0), (False, -0.5)]),
    ],
)
def test_all_engines_have_the_spike_times_of_int64(code, build, per_channel, low):
    x = images(low)  # negative inputs: the shift is a layer too
    network = to_integers(quantized(build, code, x, 8, per_channel), 32)
    x = x.to(network.input_low)
    times, readout = in_int64(network, x)
    assert sum(int(t.isfinite().sum()) for t in times.values()) > 0
    unit = network.network.op(network.network.output.name).scale
    for record in runs(network, x):
        assert record.spike_times.keys() == times.keys()
        for name, expected in times.items():
            assert torch.equal(record.spike_times[name], expected.to(x)), (record.engine, name)
        assert torch.equal(record.logits, (readout * unit).to(x)), record.engine
        assert not any(s.any() for s in record.saturations.values())
    assert torch.equal(network(x), record.logits)


@pytest.mark.parametrize("code", CODES, ids=str)
@pytest.mark.parametrize(
    ("build", "per_channel"),
    [
        (Residual, True),
        *(
            pytest.param(*other, marks=pytest.mark.slow)
            for other in [(plain, True), (plain, False)]
        ),
    ],
)
def test_integers_equal_the_quantized_network(code, build, per_channel):
    """Early firing and learned tables too."""
    x = images(-0.5)
    floats = quantized(build, code, x, per_channel=per_channel).double()
    network, x = to_integers(floats, 32), x.double()
    expected = fs.simulate(floats, x, "clock")
    for record in runs(network, x):
        for name, times in expected.spike_times.items():
            assert torch.equal(record.spike_times[name], times), (record.engine, name)
        assert torch.equal(record.logits, expected.logits), record.engine
    torch.testing.assert_close(network.analog(x), floats.analog(x))


def test_every_tensor_is_an_integer_of_its_width_and_float32_where_sums_are_small():
    x = images()
    network = to_integers(quantized(plain, CODES[0], x, 3, per_channel=False), 20)
    assert network.code.limits == (-(2**19), 2**19 - 1) and not network.code.clips
    assert network.input_low.dtype == torch.float32
    readout = network.network.output.name
    for name, op in network.network.ops.items():
        for kind, tensor in op.named_parameters():
            assert not tensor.requires_grad
            assert name == readout or torch.equal(tensor, tensor.round()), name
            assert kind != "weight" or int(tensor.abs().max()) <= 3
    record = fs.simulate(network, x, "clock", potentials=True)
    for name in network.network.populations:
        potential = record.potentials[name]
        assert torch.equal(potential, potential.round()) and potential.abs().max() > 3
        assert int(potential.abs().max()) <= network.origin["integers"]["reach"][name]
    many = nn.Sequential(nn.Linear(3000, 8), nn.ReLU(), nn.Linear(8, 2))
    nn.init.constant_(many[0].weight, 1.0)
    x = torch.rand(4, 3000)
    x[0], x[1] = 0.0, 1.0  # every input reaches from 0 to 1: no shift, no scales of their own
    spiking = fs.convert(many, fs.TTFS(255, fs.kernels.Linear()), calibration=x)
    wide = to_integers(quantize(spiking, Quantization(bits=8)), 32)
    assert wide.input_low.dtype == torch.float64  # 3000 * 64 * 255 is beyond 2^24


def test_integer_thresholds_are_the_smallest_integers_that_reach_their_level():
    neuron = fs.codes.IntegerTTFS(4, fs.kernels.Linear()).neuron(torch.tensor(2.0))
    table = neuron.table()[0] * 2
    assert bool((table != table.round()).any()), "thresholds lie between integers"
    u = torch.arange(-3.0, 6.0)
    times, levels = neuron.encode(u), neuron.thresholds()
    for step, level in enumerate(levels):
        assert torch.equal(times <= step, u >= level)


def narrow(bits: int) -> tuple[fs.SpikingNetwork, Tensor]:
    """One neuron with the weights w, w, -w: partial sums overshoot the final potential."""
    model = nn.Sequential(nn.Linear(3, 1, bias=False), nn.ReLU(), nn.Linear(1, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[7.0, 7.0, -7.0]]) / 8)
    x = torch.tensor([[1.0, 1.0, 0.25], [0.25, 0.25, 0.25]])
    network = fs.convert(model, fs.TTFS(4, fs.kernels.Linear()), calibration=x)
    return to_integers(quantize(network, Quantization(bits=4)), bits), x


@pytest.mark.parametrize("bits", [6, 7, 8])
def test_saturation_clips_and_is_counted_as_in_a_naive_loop(bits):
    wide, x = narrow(16)
    free = fs.simulate(wide, x, "clock")
    assert not wide.code.clips and not free.saturations["_1"].any()
    tight, _ = narrow(bits)
    clipped = fs.simulate(tight, x, "clock")
    weights = wide.network.op("_0").weight.flatten().tolist()
    values = wide.neuron(INPUT).values().tolist()
    thresholds = wide.neuron("_1").thresholds().flatten().tolist()
    assert weights[0] == weights[1] == -weights[2] > 0 and values == [4, 3, 2, 1]
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    counts, spikes = [], []
    for sample in free.spike_times[INPUT].tolist():
        u = count = 0
        for step in range(4):
            u += sum(w * values[step] for w, t in zip(weights, sample) if t == step)
            count += not low <= u <= high
            u = max(low, min(high, u))
        counts.append(count)
        spikes.append(next((i for i, theta in enumerate(thresholds) if u >= theta), torch.inf))
    assert clipped.saturations["_1"].flatten().tolist() == counts
    assert clipped.spike_times["_1"].flatten().tolist() == spikes
    assert (sum(counts) > 0) == (2 * 4 * weights[0] > high)
    assert sum(counts) > 0 or bits > 6
    if tight.code.clips:
        assert torch.equal(tight(x), clipped.logits)  # a plain call steps through time too
        assert able_engines(tight) == ["clock"]
        for engine in ("closed_form", "early_firing", "event", "int8"):
            with pytest.raises(ValueError, match=r"may leave their \d bits and be clipped"):
                fs.simulate(tight, x, engine)


def test_clipping_minds_the_order_in_blocks_of_any_length():
    torch.manual_seed(0)
    half = fs.scales.Percentile(50.0)  # half of what is not zero lies above the thresholds
    floats = fs.convert(Residual().eval(), CODES[0], calibration=images(), normalization=half)
    floats = quantize(floats, Quantization(bits=8))
    network = to_integers(floats, fewest_bits(floats))
    assert network.code.clips
    slow = fs.simulate(network, images(), "clock", memory=1)
    quick = fs.simulate(network, images(), "clock")
    assert sum(int(s.sum()) for s in slow.saturations.values()) > 0
    for name, count in slow.saturations.items():
        assert torch.equal(count, quick.saturations[name]), name
        assert torch.equal(slow.spike_times[name], quick.spike_times[name]), name


@pytest.mark.parametrize("code", [CODES[0], CODES[3], CODES[4]], ids=str)
def test_measures_files_and_chips_take_integers_as_any_network(code, tmp_path):
    x, y = images(), torch.arange(20) % 5
    floats = quantized(Residual, code, x)
    network = to_integers(floats)
    expected, result = (fs.evaluate(n, [(x, y)]) for n in (floats, network))
    assert result.code == network.code.describe() and result.code["name"] == f"Integer{code.name}"
    for key in ("accuracy", "ann_accuracy", "latency_steps", "neurons", "silent_fraction"):
        assert getattr(result, key) == getattr(expected, key), key
    assert result.spikes_per_sample == expected.spikes_per_sample > 0
    assert result.operations == expected.operations
    assert result.energy == expected.energy
    assert str(network).count("\n") > 3
    network.save(tmp_path / "integers.safetensors")
    again = fs.SpikingNetwork.load(tmp_path / "integers.safetensors")
    assert again.code == network.code and again.origin == network.origin
    assert torch.equal(again(x), network(x))
    for name in network.populations:
        assert torch.equal(again.neuron(name).thresholds(), network.neuron(name).thresholds())
    report, plain_report = (run_hardware(n, x[:2], y[:2]) for n in (network, floats))
    assert report.mapping.bits == 4
    assert report.counts == plain_report.counts


def test_another_offset_and_sixty_four_bits_are_the_same_integers():
    x = images()
    network = to_integers(quantized(Residual, CODES[0], x))
    early = network.with_offset(5)
    record = fs.simulate(early, x, "early_firing")
    clock = fs.simulate(early, x, "clock")
    twin = fs.simulate(early.double(), x.double(), "clock")
    for name, times in clock.spike_times.items():
        assert torch.equal(record.spike_times[name], times)
        assert torch.equal(twin.spike_times[name], times.double())


def test_thresholds_must_fit_the_declared_width():
    wide, _ = narrow(16)
    top = int(wide.neuron("_1").thresholds().max())
    with pytest.raises(ValueError, match=rf"`potential_bits` must hold the threshold {top}.*Pass"):
        narrow(top.bit_length())


def test_what_cannot_run_on_integers_is_refused():
    x = torch.rand(20, 2, 8, 8)
    network = fs.convert(plain(), CODES[0], calibration=x)
    with pytest.raises(ValueError, match=r"must have quantized weights.*Call `quantize"):
        to_integers(network)
    coarse = quantize(network, Quantization())
    with pytest.raises(ValueError, match=r"made of integers already.*Pass the network"):
        to_integers(to_integers(coarse))
    with pytest.raises(ValueError, match=r"made of integers already.*Pass the network"):
        quantize(to_integers(coarse), Quantization())
    with pytest.raises(ValueError, match=r"it is quantized already"):
        finetune(to_integers(coarse), Quantization(), None, None, TrainConfig(epochs=1))
    with torch.no_grad():
        coarse.network.op("_0").weight.mul_(1.01)
    with pytest.raises(ValueError, match=r"layer '_0' must lie on the grid"):
        to_integers(coarse)
    nine = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.AvgPool2d(3), nn.Flatten(), nn.Linear(16, 5)
    )
    network = fs.convert(nine, CODES[0], calibration=x)
    with pytest.raises(ValueError, match=r"must average over a power of two.*windows of 9"):
        quantize(network, Quantization())
    coarse = quantize(fs.convert(plain(), CODES[0], calibration=x), Quantization())
    for bits, rule in ((1, "at least 2"), (54, "at most 53")):
        with pytest.raises(ValueError, match=rf"`potential_bits` must be {rule}"):
            to_integers(coarse, bits)
    rate = quantize(fs.convert(plain(), fs.Rate(8), calibration=x), Quantization())
    with pytest.raises(ValueError, match=r"Rate has no table of thresholds and values"):
        to_integers(rate)

"""The integer network against the fake-quantized one, spike for spike, and its declared widths."""

import pytest
import torch
from torch import nn

import firstspike as fs
from firstspike.quantized import IntegerNetwork, Quantization, quantize


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
    fs.TTFS(16, fs.Linear()),
    fs.TTFS(6, fs.PowerOfTwo(), half_step=False),
    fs.TTFS(10, fs.Exponential(tau=3.0)),
    fs.TTFS(8, fs.Learned(), offset=3),
]


def different_spikes(network, record, integer) -> int:
    window = network.code.window
    return sum(
        int((torch.where(t.isfinite(), t, window).long() != integer.spike_times[name]).sum())
        for name, t in record.spike_times.items()
    )


@pytest.mark.parametrize("code", CODES, ids=str)
@pytest.mark.parametrize("build", [plain, Residual])
@pytest.mark.parametrize("per_channel", [True, False])
def test_integers_equal_the_fake_quantized_network(code, build, per_channel):
    torch.manual_seed(0)
    x = torch.randn(20, 2, 8, 8)  # negative inputs: the shift is a layer too
    network = fs.convert(
        build().eval(), code, calibration=x, normalization=fs.Percentile(per_channel=per_channel)
    )
    network = quantize(network, Quantization(bits=4, per_channel=per_channel)).double()
    integer = IntegerNetwork(network, potential_bits=32)
    own = integer.run(x.double())
    record = fs.simulate(network, x.double(), "clock")
    assert sum(int((t.isfinite()).sum()) for t in record.spike_times.values()) > 0
    assert different_spikes(network, record, own) == 0
    assert torch.equal(own.logits.double() * 2.0**own.logit_exponent, record.logits)
    assert sum(own.saturations.values()) == 0
    assert all(t.dtype == torch.int64 for t in own.spike_times.values())


def test_every_tensor_of_the_integer_network_is_an_integer_of_its_width():
    x = torch.rand(20, 2, 8, 8)
    network = quantize(
        fs.convert(plain(), CODES[0], calibration=x), Quantization(bits=3, per_channel=False)
    )
    integer = IntegerNetwork(network, potential_bits=20)
    for name, tensor in integer.network.named_buffers():
        assert tensor.dtype == torch.int64, name
        if name.endswith("weight"):
            assert int(tensor.abs().max()) <= 3
    assert not list(integer.network.parameters())


def narrow(bits: int) -> tuple[IntegerNetwork, torch.Tensor]:
    """One neuron with the weights w, w, -w: partial sums overshoot the final potential."""
    model = nn.Sequential(nn.Linear(3, 1, bias=False), nn.ReLU(), nn.Linear(1, 2))
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[7.0, 7.0, -7.0]]) / 8)
    x = torch.tensor([[1.0, 1.0, 0.25], [0.25, 0.25, 0.25]])
    network = fs.convert(model, fs.TTFS(4, fs.Linear()), calibration=x)
    return IntegerNetwork(quantize(network, Quantization(bits=4)), bits), x


@pytest.mark.parametrize("bits", [6, 7, 8])
def test_saturation_clips_and_is_counted_as_in_a_naive_loop(bits):
    wide, x = narrow(16)
    free = wide.run(x)
    assert wide.guaranteed["_1"] and free.saturations["_1"] == 0
    tight, _ = narrow(bits)
    clipped = tight.run(x)
    weights = wide.network.op("_0").weight.flatten().tolist()
    values, thresholds = wide.values["input"].tolist(), wide.thresholds["_1"].flatten().tolist()
    assert weights[0] == weights[1] == -weights[2] > 0 and values == [4, 3, 2, 1]
    low, high = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1
    count, spikes = 0, []
    for sample in free.spike_times["input"].tolist():
        u = 0
        for step in range(4):
            u += sum(w * values[step] for w, t in zip(weights, sample) if t == step)
            count += not low <= u <= high
            u = max(low, min(high, u))
        spikes.append(sum(u < theta for theta in thresholds))
    assert clipped.saturations["_1"] == count
    assert clipped.spike_times["_1"].flatten().tolist() == spikes
    assert (count > 0) == (2 * 4 * weights[0] > high)
    assert count > 0 or bits > 6


def test_thresholds_must_fit_the_declared_width():
    wide, _ = narrow(16)
    top = int(wide.thresholds["_1"].max())
    with pytest.raises(ValueError, match=rf"`potential_bits` must hold the threshold {top}.*Pass"):
        narrow(top.bit_length())


def test_what_cannot_run_on_integers_is_refused():
    x = torch.rand(20, 2, 8, 8)
    network = fs.convert(plain(), CODES[0], calibration=x)
    with pytest.raises(ValueError, match=r"must have quantized weights.*Call `quantize"):
        IntegerNetwork(network)
    coarse = quantize(network, Quantization())
    with torch.no_grad():
        coarse.network.op("_0").weight.mul_(1.01)
    with pytest.raises(ValueError, match=r"layer '_0' must lie on the grid"):
        IntegerNetwork(coarse)
    nine = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.AvgPool2d(3), nn.Flatten(), nn.Linear(16, 5)
    )
    network = fs.convert(nine, CODES[0], calibration=x)
    with pytest.raises(ValueError, match=r"must average over a power of two.*windows of 9"):
        quantize(network, Quantization())
    with pytest.raises(ValueError, match=r"`potential_bits` must be at least 2"):
        IntegerNetwork(quantize(fs.convert(plain(), CODES[0], calibration=x), Quantization()), 1)

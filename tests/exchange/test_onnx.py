"""ONNX: what onnxruntime makes of our graphs is what the closed form makes of the network."""

from __future__ import annotations

from pathlib import Path

import pytest
import test_c_door
import torch
from hypothesis import given, reject, settings
from hypothesis import strategies as st
from test_nir import Branches, Residual, cnn
from torch import Tensor, nn

import firstspike as fs
from firstspike.exchange import hand_on
from firstspike.exchange.onnx_door import Onnx, run_onnx, to_onnx
from firstspike.quantized import Quantization, quantize, to_integers

pytest.importorskip("onnx", reason="pip install 'firstspike[onnx]'")
pytest.importorskip("onnxruntime", reason="pip install 'firstspike[onnx]'")


class Pools(nn.Module):
    """Everything that pools, pads, joins and goes up again."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Conv2d(2, 4, 3, padding="same", dilation=2)
        self.up = nn.ConvTranspose2d(4, 3, 3, stride=2, padding=1, output_padding=1)
        self.c = nn.Conv2d(3, 4, (3, 2), groups=1, bias=False)
        self.head = nn.Linear(20, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = nn.functional.max_pool2d(self.a(x).relu(), 3, 2, 1, ceil_mode=True)
        x = nn.functional.pad(self.up(x).relu(), (1, 0, 2, 1))
        x = nn.functional.avg_pool2d(x, 3, 2, 1, count_include_pad=False)
        x = self.c(x).relu()
        return self.head(nn.functional.adaptive_max_pool2d(x, (1, 5)).flatten(1))


MODELS = {"cnn": cnn, "residual": Residual, "branches": Branches}
KERNELS = [
    fs.kernels.Exponential(),
    fs.kernels.Linear(),
    fs.kernels.PowerOfTwo(),
    fs.kernels.Learned(),
]


def network_of(
    model, code, seed: int = 0, per_channel: bool = False
) -> tuple[fs.SpikingNetwork, Tensor]:
    torch.manual_seed(seed)
    x = torch.rand(16, 2, 9, 8) - 0.2
    normalization = fs.scales.Percentile(99.0, per_channel=per_channel)
    try:
        network = fs.convert(model().eval(), code, calibration=x, normalization=normalization)
    except ValueError as error:  # some random networks have a dead layer
        assert "must respond to the calibration data" in str(error)
        reject()
    return network, x[:5]


@settings(max_examples=settings.default.max_examples // 4)
@given(
    model=st.sampled_from(sorted(MODELS)),
    kernel=st.sampled_from(KERNELS),
    window=st.integers(1, 20),
    half_step=st.booleans(),
    per_channel=st.booleans(),
    seed=st.integers(0, 10**6),
)
def test_spike_times_of_every_population_are_those_of_the_closed_form(
    model, kernel, window, half_step, per_channel, seed
) -> None:
    code = fs.TTFS(window, kernel, half_step=half_step, input_window=window + 3)
    network, x = network_of(MODELS[model], code, seed, per_channel)
    outputs = run_onnx(to_onnx(network).SerializeToString(), x)
    record = fs.simulate(network, x, "closed_form")
    outputs.pop("logits")
    assert set(outputs) == {f"spike_times_{name}" for name in network.populations}
    assert torch.equal(outputs["spike_times_input"], record.spike_times["input"])
    different = sum(
        int((outputs[f"spike_times_{name}"] != record.spike_times[name]).sum())
        for name in network.populations
    )
    assert different <= 3  # borderline cases of float32, of more than a thousand neurons


@pytest.mark.parametrize(
    ("model", "code", "per_channel", "in_floats"),
    [
        (test_c_door.Residual, "linear", True, {"Conv"}),  # behind batch norm: signed, beyond bytes
        (test_c_door.pools, "powers of two", True, {"ConvTranspose", "MatMul"}),
        (test_c_door.dense, "linear", True, set()),
    ],
)
def test_networks_of_integers_are_integer_operators_exact_to_the_last_bit(
    model, code, per_channel, in_floats
) -> None:
    network, x = test_c_door.integers(model, code, per_channel)
    written = to_onnx(network)
    kinds = {node.op_type for node in written.graph.node}
    assert kinds & {"Conv", "ConvTranspose", "MatMul"} == in_floats
    assert "MatMulInteger" in kinds and ("ConvInteger" in kinds) == bool(in_floats)
    outputs = run_onnx(written.SerializeToString(), x)
    record = fs.simulate(network, x, "clock")
    logits = outputs.pop("logits")
    assert logits.dtype == record.logits.dtype and torch.equal(logits, record.logits)
    assert outputs.keys() == {f"spike_times_{name}" for name in network.populations}
    for name in network.populations:
        assert torch.equal(outputs[f"spike_times_{name}"], record.spike_times[name]), name


def test_what_bytes_cannot_hold_runs_in_float32_where_that_is_exact() -> None:
    """Spikes beyond 255 do; sums beyond 2^24 are refused."""
    network, x = network_of(cnn, fs.TTFS(256, fs.kernels.Linear()))
    integers = to_integers(quantize(network, Quantization(bits=4)))
    written = to_onnx(integers)
    assert {"Conv", "MatMul"} <= {node.op_type for node in written.graph.node}
    outputs = run_onnx(written.SerializeToString(), x)
    assert torch.equal(outputs["logits"], fs.simulate(integers, x, "clock").logits)
    model = nn.Sequential(nn.Linear(1200, 4), nn.ReLU(), nn.Linear(4, 3))
    nn.init.uniform_(model[0].weight, 0.0, 1.0)
    floats = fs.convert(model, fs.TTFS(256, fs.kernels.Linear()), calibration=torch.rand(9, 1200))
    for bits, rule in ((8, "may reach .* beyond 32 bits"), (4, "those that float32 holds without")):
        wide = to_integers(quantize(floats, Quantization(bits=bits)), potential_bits=40)
        with pytest.raises(fs.ConversionError, match=rf"node '_0'.* {rule}"):
            to_onnx(wide)


def test_every_operation_in_float32(tmp_path: Path) -> None:
    torch.manual_seed(0)
    x = torch.rand(40, 2, 9, 9)
    network = fs.convert(Pools().eval(), fs.TTFS(16), calibration=x)
    handed = hand_on(network, Onnx(), tmp_path / "network.onnx", x)
    (check,) = handed.checks
    assert check.reader.startswith("onnxruntime ") and check.neurons > 10_000
    assert check.different <= 3 and check.classes == 40 and check.logits < 1e-5, check


def test_logits_alone(tmp_path: Path) -> None:
    network, x = network_of(cnn, fs.TTFS(8))
    model = to_onnx(network, spike_times=False)
    assert [output.name for output in model.graph.output] == ["logits"]
    for n in (1, 5):  # any batch
        torch.testing.assert_close(
            run_onnx(model.SerializeToString(), x[:n])["logits"], network(x[:n]).detach()
        )
    with pytest.raises(ValueError, match=r"must hold float32, got torch.float64"):
        to_onnx(network.double())


@pytest.mark.parametrize("code", [fs.Rate(8), fs.TTFS(8, offset=4), fs.LIF(8)], ids=str)
def test_codes_without_one_pass_are_refused(code, tmp_path: Path) -> None:
    network, _ = network_of(cnn, code)
    with pytest.raises(ValueError, match="`network` must speak TTFS with windows that do not"):
        hand_on(network, Onnx(), tmp_path / "network.onnx")
    assert not list(tmp_path.iterdir())


def test_operations_that_onnx_does_not_have_are_refused() -> None:
    model = nn.Sequential(nn.AvgPool2d(2, divisor_override=3), nn.Conv2d(2, 3, 1), nn.ReLU())
    model = nn.Sequential(model, nn.Flatten(), nn.Linear(48, 4))
    network = fs.convert(model, fs.TTFS(8), calibration=torch.rand(9, 2, 9, 8))
    with pytest.raises(fs.ConversionError, match=r"node '_0_0'.* divide by the size of their"):
        to_onnx(network)

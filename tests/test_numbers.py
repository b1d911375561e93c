"""The numeric contract of docs/reliability.md, a test for each of its lines.

Refused transformations and populations without spikes: tests/networks/test_rebuild.py.
"""

import copy

import pytest
import torch
from torch import Tensor, nn

import firstspike as fs
from firstspike.engines import able_engines, compare_records, default_engine

EXACT = ("closed_form", "clock", "event")
CODES = [fs.TTFS(8), fs.TTFS(8, offset=4), fs.Rate(8), fs.FewStep(3), fs.Reverse(8)]


def converted(code: fs.codes.Code, dtype: torch.dtype = torch.float64):
    model = nn.Sequential(
        nn.Linear(8, 12), nn.ReLU(), nn.Linear(12, 12), nn.ReLU(), nn.Linear(12, 3)
    )
    x = torch.rand(30, 8, dtype=dtype)
    return fs.convert(model.to(dtype), code, calibration=x), x


def one_neuron(values: Tensor, code: fs.TTFS) -> fs.SpikingNetwork:
    """A network of one neuron whose potential is the spike that says its input."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 2)).to(values.dtype)
    with torch.no_grad():
        model[0].weight.fill_(1.0)
    network = fs.convert(model, code, calibration=torch.rand(9, 1).to(values.dtype) + 0.5)
    with torch.no_grad():
        network.input_low.zero_()
        for name in network.populations:
            network.neuron(name).scale.fill_(1.0)
    return network


def assert_agree(network: fs.SpikingNetwork, x: Tensor, engines=EXACT) -> fs.Record:
    records = [fs.simulate(network, x, name) for name in engines]
    for record in records[1:]:
        assert all(torch.equal(t, records[0].spike_times[n]) for n, t in record.spike_times.items())
    return records[0]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_engines_answer_in_the_networks_dtype(dtype):
    network, x = converted(fs.TTFS(8), dtype)
    logits = [fs.simulate(network, x, name).logits for name in EXACT]
    assert all(found.dtype == dtype for found in logits)
    torch.testing.assert_close(logits[1:], logits[:1] * 2)


def test_bfloat16_runs_where_no_compiled_loop_is_needed():
    network, x = converted(fs.TTFS(8), torch.float32)
    low, y = network.to(torch.bfloat16), x.to(torch.bfloat16)
    assert set(able_engines(low)) & set(EXACT) == {"closed_form", "clock"}
    records = [fs.simulate(low, y, name) for name in ("closed_form", "clock")]
    assert compare_records(low, *records).explained
    with pytest.raises(ValueError, match="float32 or float64"):
        fs.simulate(low, y, "event")


def test_inputs_of_another_dtype_are_refused():
    network, x = converted(fs.TTFS(8))
    for other in (x.float(), x.half()):
        with pytest.raises(TypeError, match=r"`x` must have the network's dtype torch\.float64"):
            network(other)
    with pytest.raises(TypeError, match="`x` must be a floating-point tensor"):
        network((9 * x).int())


def test_a_potential_equal_to_a_threshold_fires():
    x = torch.tensor([[1.0], [0.75], [0.5], [0.25], [0.0]], dtype=torch.float64)
    network = one_neuron(x, fs.TTFS(4, fs.kernels.Linear(), half_step=False))
    record = assert_agree(network, x)
    for name in network.populations:
        assert record.spike_times[name].flatten().tolist() == [0.0, 1.0, 2.0, 3.0, float("inf")]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_are_refused(bad, tmp_path):
    network, x = converted(fs.TTFS(8))
    y = x.clone()
    y[3, 2] = bad
    with pytest.raises(ValueError, match="`x` must be finite"):
        network(y)
    with torch.no_grad():
        network.network.op("_4").weight[0, 0] = bad
    with pytest.raises(ValueError, match="must be finite"):
        network.save(tmp_path / "n.safetensors")
    assert not any(tmp_path.iterdir())
    with pytest.raises(ValueError, match="finite"):
        fs.evaluate(network, [(x, torch.zeros(30, dtype=torch.long))])


def test_a_potential_that_is_nan_never_fires():
    network, x = converted(fs.TTFS(8))
    with torch.no_grad():
        network.network.op("_0").bias[4] = float("nan")
    for name in EXACT:
        times = fs.simulate(network, x, name).spike_times["_1"]
        assert times[:, 4].isinf().all() and times.isfinite().any()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_denormal_numbers_are_ordinary_small_ones(dtype):
    tiny = torch.finfo(dtype).smallest_normal / 8
    network, x = converted(fs.TTFS(8), dtype)
    x[::2] *= tiny
    with torch.no_grad():
        network.network.op("_0").bias[:4] = tiny
        network.network.op("_0").weight[1] = tiny
    record = assert_agree(network, x)
    assert record.spike_times["input"][::2].isinf().all()  # far below the last threshold
    assert record.spike_times["_1"][:, 1].isinf().all()


@pytest.mark.parametrize("code", CODES, ids=str)
def test_an_empty_batch_gives_no_logits(code):
    network, x = converted(code)
    assert network(x[:0]).shape == (0, 3)
    for name in able_engines(network):
        assert fs.simulate(network, x[:0], name).logits.shape == (0, 3), name


@pytest.mark.parametrize("window", [1, 4096])
def test_windows_short_and_long(window):
    network, x = converted(fs.TTFS(window))
    record = assert_agree(network, x[:4])
    times = torch.cat([t.flatten() for t in record.spike_times.values()])
    assert times[times.isfinite()].max() < window
    early = network.with_offset(max(window // 2, 1))
    if window < 4096:
        assert_agree(early, x[:4], ("early_firing", "clock"))
    else:
        with pytest.warns(UserWarning, match="windows must be shorter than 4096 steps"):
            assert default_engine(early) == "clock"


@pytest.mark.slow
def test_a_network_of_1200_layers(tmp_path):
    layers = [part for _ in range(1200) for part in (nn.Linear(2, 2), nn.ReLU())]
    model = nn.Sequential(*layers, nn.Linear(2, 3)).double()
    with torch.no_grad():
        for layer in layers[::2]:
            layer.weight.copy_(torch.eye(2))
            layer.bias.zero_()
    x = torch.rand(9, 2).double()
    network = fs.convert(model, fs.TTFS(4), calibration=x)
    assert network.depth == 1200
    assert_agree(network, x)
    network.save(tmp_path / "n.safetensors")
    assert torch.equal(fs.SpikingNetwork.load(tmp_path / "n.safetensors")(x), network(x))


@pytest.mark.parametrize("code", CODES, ids=str)
def test_deterministic_algorithms_change_nothing(code):
    network, x = converted(code)
    plain = network(x)
    torch.use_deterministic_algorithms(True)
    try:
        again = [fs.simulate(network, x, name).logits for name in able_engines(network)]
        assert torch.equal(network(x), plain)
    finally:
        torch.use_deterministic_algorithms(False)
    torch.testing.assert_close(again, [plain] * len(again))


@pytest.mark.parametrize("code", CODES, ids=str)
def test_autocast_changes_nothing(code):
    network, x = converted(code, torch.float32)
    for name in able_engines(network):
        plain = fs.simulate(network, x, name).logits
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(fs.simulate(network, x, name).logits, plain), name


def test_an_input_on_another_device_is_refused():
    network, x = converted(fs.TTFS(8))
    with pytest.raises(ValueError, match="`x` must be on the network's device cpu, got meta"):
        network(x.to("meta"))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
@pytest.mark.parametrize("code", CODES, ids=str)
def test_a_gpu_says_the_same_in_float64(code):
    network, x = converted(code)
    away = copy.deepcopy(network).cuda()
    here, there = fs.simulate(network, x), fs.simulate(away, x.cuda())
    for name, counts in here.spike_counts.items():
        assert torch.equal(there.spike_counts[name].cpu(), counts), name
    torch.testing.assert_close(there.logits.cpu(), here.logits)

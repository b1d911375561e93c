"""Streaming statistics against exact ones."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import firstspike as fs
from firstspike.config import build
from firstspike.conversion import statistics
from firstspike.conversion.normalization import (
    LeastError,
    Maximum,
    Percentile,
)
from firstspike.conversion.statistics import Histogram, Sample, calibration_batches

CODE = fs.TTFS(8)


def exact(values: torch.Tensor, q: float) -> torch.Tensor:
    """The smallest value with at least the share q of the values at or below it, per row."""
    rank = max(int(torch.ceil(torch.tensor(q, dtype=torch.float64) * values.shape[1])), 1)
    return values.double().sort(1).values[:, rank - 1]


def filled(values: torch.Tensor, parts: int = 1, **options) -> Histogram:
    histogram = Histogram(len(values), **options)
    for part in values.chunk(parts, 1):
        histogram.update(part)
    return histogram


@given(
    seed=st.integers(0, 10_000),
    parts=st.integers(1, 7),
    signed=st.booleans(),
    spread=st.sampled_from([0.01, 1.0, 4.0]),
)
def test_quantiles_are_exact_to_one_bin_whatever_the_order(seed, parts, signed, spread) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = (spread * torch.randn(3, 500, generator=generator)).exp()
    values = values * torch.rand(3, 1, generator=generator)
    silent = torch.rand(3, 500, generator=generator) < 0.4
    values = values - 0.5 if signed else values.masked_fill(silent, 0.0)
    histogram = filled(values, parts, signed=signed)
    assert histogram.counts.sum(1).tolist() == [500] * 3
    assert torch.equal(histogram.minimum, values.amin(1).double())
    assert torch.equal(histogram.maximum, values.amax(1).double())
    q = [0.001, 0.25, 0.5, 0.9, 0.999, 1.0]
    got = histogram.quantile(torch.tensor(q, dtype=torch.float64))
    for i, share in enumerate(q):
        error = got[:, i] - exact(values, share)
        assert bool((error.abs() <= histogram.width * 1.001).all())
    assert torch.equal(histogram.quantile(1.0).squeeze(1), values.amax(1).double())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("signed", [False, True])
def test_the_compiled_count_is_that_of_tensor_operations(signed, dtype, monkeypatch) -> None:
    compiled, plain = Histogram(3, signed), Histogram(3, signed)
    for scale in (1, 3):
        values = (
            torch.randn(3, 5000, generator=torch.Generator().manual_seed(scale), dtype=dtype)
            * scale
        )
        values = values if signed else values.relu()
        compiled.update(values)
        with monkeypatch.context() as patch:
            patch.setattr(statistics, "has_numba", lambda: False)
            plain.update(values)
    assert torch.equal(compiled.counts, plain.counts) and int(plain.counts.sum()) == 30_000


def test_zeros_stay_zeros_in_histograms_of_signed_numbers() -> None:
    pixels = torch.cat([torch.zeros(1, 80), torch.rand(1, 20)], 1)
    for low in (0.0, -0.42):
        histogram = filled(pixels + low, 3, signed=True)
        sample = Sample(histogram, torch.tensor([low]), torch.ones(1)).sample(1000)
        assert abs(float((sample == 0).double().mean()) - 0.8) < 0.01
        assert bool((sample >= 0).all())


def test_memory_does_not_grow_and_the_range_doubles_as_needed() -> None:
    histogram = Histogram(2)
    for scale in (1e-20, 1e-3, 1.0, 1e6):
        histogram.update(scale * torch.ones(2, 10))
    assert histogram.counts.shape == (2, 4096)
    assert histogram.range >= 1e6 and histogram.counts.sum().item() == 80
    assert float(histogram.quantile(1.0)[0]) == 1e6


def test_constant_and_all_zero_streams() -> None:
    zeros = filled(torch.zeros(1, 50), 5)
    assert float(zeros.quantile(0.999)) == 0.0
    late = filled(torch.cat([torch.zeros(1, 50), torch.ones(1, 50)], 1), 10)
    assert float(late.quantile(0.4)) == 0.0 and float(late.quantile(0.6)) == 1.0
    assert float(filled(torch.full((1, 9), 0.3)).quantile(0.5)) == pytest.approx(0.3)


def test_sample_is_drawn_evenly_and_rising() -> None:
    values = torch.rand(4, 3000)
    sample = Sample(filled(values), torch.zeros(4), 2 * torch.ones(4)).sample(2000)
    assert len(sample) == 2000 and bool((sample.diff() >= 0).all())
    torch.testing.assert_close(
        sample.quantile(torch.tensor([0.1, 0.5, 0.9]).double()),
        torch.tensor([0.05, 0.25, 0.45]).double(),
        atol=0.01,
        rtol=0,
    )


def test_scales_per_layer_and_channel() -> None:
    values = torch.stack([torch.linspace(0, 1, 1001), torch.linspace(0, 10, 1001)])
    channels, layer = filled(values), filled(values.reshape(1, -1))
    assert Maximum().scale("p", layer, CODE).tolist() == [10.0]
    assert Maximum(per_channel=True).scale("p", channels, CODE).tolist() == [1.0, 10.0]
    got = Percentile(90.0, per_channel=True).scale("p", channels, CODE)
    torch.testing.assert_close(got, exact(values, 0.9), atol=layer.width, rtol=0)
    got = Percentile(90.0).scale("p", layer, CODE)
    torch.testing.assert_close(got, exact(values.reshape(1, -1), 0.9), atol=layer.width, rtol=0)


def test_silent_channels_take_the_mean_of_the_others_and_silent_layers_are_refused() -> None:
    values = torch.stack([torch.full((10,), v) for v in (1.0, 0.0, 3.0)])
    assert Maximum(per_channel=True).scale("p", filled(values), CODE).tolist() == [1.0, 2.0, 3.0]
    with pytest.raises(ValueError, match=r"population 'p' must respond .* are zero.*retrain"):
        Maximum().scale("p", filled(torch.zeros(1, 10)), CODE)


def test_a_percentile_that_falls_among_the_zeros_takes_the_maximum() -> None:
    rare = torch.zeros(1, 10_000)
    rare[0, 7] = 0.8
    assert float(Percentile(99.9).scale("p", filled(rare), CODE)) == pytest.approx(0.8)


def test_the_percentile_is_the_first_argument() -> None:
    assert Percentile(50).percentile == 50 and Percentile(50).per_channel is False
    with pytest.raises(TypeError):
        fs.scales.Maximum(True)
    for wrong in (0, -1, 100.1):
        with pytest.raises(ValueError, match=r"`percentile` must lie in \(0, 100\], got"):
            Percentile(wrong)


# ---- where calibration data come from ------------------------------------------------------------
def test_tensors_loaders_generators_and_datasets_give_the_same_images() -> None:
    x, y = torch.rand(10, 1, 4, 4), torch.arange(10)
    dataset = torch.utils.data.TensorDataset(x, y)

    class WithBatches:
        def batches(self, size: int):
            yield from ((x[i : i + size], y[i : i + size]) for i in range(0, 10, size))

    sources = [
        x,
        torch.utils.data.DataLoader(dataset, batch_size=3),
        [(x[:5], y[:5]), [x[5:], y[5:]]],
        (part for part in (x[:2], x[2:2], x[2:])),
        WithBatches(),
        fs.data.Dataset(x, y) if hasattr(fs, "data") and hasattr(fs.data, "Dataset") else x,
    ]
    for source in sources:
        assert torch.equal(torch.cat(list(calibration_batches(source, 4))), x)


@pytest.mark.parametrize(
    ("source", "kind", "message"),
    [
        (torch.rand(0, 3), ValueError, "at least one image, got none. Pass some hundred"),
        ([], ValueError, "at least one image, got none"),
        ([torch.rand(0, 3)], ValueError, "at least one image, got none"),
        (
            3,
            TypeError,
            "tensor of images, an array, a Dataset, .* or an iterable of batches, got int",
        ),
        ([{"image": 1}], TypeError, "must yield tensors or arrays of numbers, batch 0 is a int"),
        (["a"], TypeError, "batch 0 is a str"),
        (torch.ones(2, 3, dtype=torch.uint8), TypeError, "floating-point images, got torch.uint8"),
        ([torch.ones(2), torch.arange(3)], TypeError, "floating-point images, got torch.int64"),
        (torch.tensor([[1.0, float("nan")]]), ValueError, "batch 0 holds NaN or infinite pixels"),
        ([torch.ones(1), torch.tensor([-float("inf")])], ValueError, "batch 1 holds NaN"),
    ],
)
def test_calibration_that_cannot_be_used(source, kind, message) -> None:
    with pytest.raises(kind, match=message):
        list(calibration_batches(source))


# ---- the scale with the least error -------------------------------------------------------------
def coding_error(values: torch.Tensor, scale: float, code: fs.TTFS) -> float:
    neuron = code.neuron(torch.tensor(scale, dtype=torch.float64))
    return float((values - neuron.activate(values).detach()).square().mean())


@pytest.mark.slow
@given(
    seed=st.integers(0, 1000),
    window=st.integers(1, 24),
    kernel=st.sampled_from(
        [fs.kernels.Linear(), fs.kernels.Exponential(), fs.kernels.PowerOfTwo()]
    ),
    half_step=st.booleans(),
)
def test_no_other_scale_has_a_clearly_smaller_error(
    seed: int, window: int, kernel, half_step: bool
) -> None:
    generator = torch.Generator().manual_seed(seed)
    values = torch.empty(1, 4000, dtype=torch.float64).exponential_(generator=generator)
    values *= torch.rand(1, 4000, generator=generator) < 0.6  # many zeros, as behind a ReLU
    code = fs.TTFS(window, kernel, half_step=half_step)
    best = coding_error(values, float(LeastError().scale("p", filled(values), code)), code)
    for share in torch.linspace(0.02, 1, 60).tolist():
        other = coding_error(values, share * float(values.max()), code)
        assert best <= 1.1 * other + 1e-6


def test_the_fewer_steps_the_more_is_clipped() -> None:
    values = torch.empty(1, 20_000, dtype=torch.float64).exponential_(
        generator=torch.Generator().manual_seed(1)
    )
    scales = [
        float(LeastError().scale("p", filled(values), fs.TTFS(steps, fs.kernels.Linear())))
        for steps in (2, 4, 8, 64)
    ]
    assert scales == sorted(scales) and scales[0] < 0.5 * scales[-1]


def test_least_error_per_channel_is_that_of_each_channel_alone() -> None:
    generator = torch.Generator().manual_seed(2)
    values = torch.rand(3, 5000, generator=generator) * torch.tensor([[1.0], [0.0], [10.0]])
    code = fs.TTFS(4, fs.kernels.Linear())
    got = LeastError(per_channel=True).scale("p", filled(values), code)
    for channel in (0, 2):
        alone = LeastError().scale("p", filled(values[channel : channel + 1]), code)
        assert float(got[channel]) == pytest.approx(float(alone), rel=0.05)
    assert float(got[1]) == pytest.approx(float(got[[0, 2]].mean()))  # the silent channel


@pytest.mark.parametrize("kernel", [fs.kernels.Linear(), fs.kernels.PowerOfTwo()])
def test_least_error_is_that_of_saying_every_bin(kernel) -> None:
    values = torch.rand(2, 4000, generator=torch.Generator().manual_seed(3)) ** 3
    histogram, code = filled(values * torch.tensor([[1.0], [0.3]])), fs.TTFS(5, kernel)
    neuron = code.neuron(torch.ones((), dtype=torch.float64))
    centers = ((torch.arange(histogram.counts.shape[1]) + 0.5) * histogram.width).double()
    centers[0] = 0
    errors, scales = [], []
    for share in torch.logspace(-6, 0, 40, base=2, dtype=torch.float64):
        scale = (histogram.maximum * share).unsqueeze(1)
        with torch.no_grad():
            error = (centers - scale * neuron.activate(centers / scale)).square()
        errors.append((error * histogram.counts).sum(1))
        scales.append(scale.squeeze(1))
    best = torch.stack(scales).gather(0, torch.stack(errors).argmin(0, keepdim=True))
    got = LeastError(candidates=40, per_channel=True).scale("p", histogram, code)
    assert torch.equal(got, best.squeeze(0))


def test_tables_that_are_fitted_are_fitted_at_every_scale() -> None:
    values = torch.rand(1, 5000, generator=torch.Generator().manual_seed(2))
    assert float(LeastError().scale("p", filled(values), fs.TTFS(4, fs.kernels.Learned()))) > 0.5


def test_least_error_makes_better_networks_at_few_steps() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(16, 64), torch.nn.ReLU(), torch.nn.Linear(64, 8))
    x = torch.rand(500, 16)
    errors = []
    for normalization in (fs.scales.Percentile(), fs.scales.LeastError()):
        code = fs.TTFS(3, fs.kernels.Linear(), input_window=64)
        network = fs.convert(model, code, calibration=x, normalization=normalization)
        errors.append(float((network(x) - model(x)).detach().square().mean()))
    assert errors[1] < errors[0]


def test_least_error_needs_a_table() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(16, 8), torch.nn.ReLU(), torch.nn.Linear(8, 3))
    with pytest.raises(ValueError, match=r"must not be LeastError under Rate.*Percentile"):
        fs.convert(
            model, fs.Rate(8), calibration=torch.rand(9, 16), normalization=fs.scales.LeastError()
        )
    with pytest.raises(ValueError, match="`candidates` must be"):
        LeastError(candidates=1)


def test_normalizations_by_name() -> None:
    built = build("normalization", {"name": "LeastError", "per_channel": True})
    assert built == LeastError(per_channel=True)
    with pytest.raises(
        ValueError, match=r"one of Maximum, Percentile, Limit, LeastError, got .*Median"
    ):
        build("normalization", {"name": "Median"})
    assert build("normalization", "LeastError") == LeastError()
    for wrong in (None, {"percentile": 99}):
        with pytest.raises(ValueError, match=r"`normalization` must be \{name: ...\}"):
            build("normalization", wrong)
    with pytest.raises(ValueError, match=r"LeastError cannot be made from .*percentile"):
        build("normalization", {"name": "LeastError", "percentile": 99})


def test_least_error_keeps_weak_channels_beside_a_strong_one() -> None:
    values = torch.rand(2, 20_000, generator=torch.Generator().manual_seed(3))
    values *= torch.rand(2, 20_000, generator=torch.Generator().manual_seed(4)) < 0.2
    values[1] *= 400
    code = fs.TTFS(16, fs.kernels.Linear())
    got = LeastError(per_channel=True).scale("p", filled(values), code)
    alone = LeastError().scale("p", filled(values[:1]), code)
    weak = values[0].double()
    ours, best = (coding_error(weak, float(scale), code) for scale in (got[0], alone))
    assert ours < 1.3 * best

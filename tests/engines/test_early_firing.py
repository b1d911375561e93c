"""Early firing gives the clock's spike times: on architectures, random networks and at borders."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st
from test_engines_agree import KERNELS, NETWORKS, images, random_model, spiking
from torch import Tensor, nn

import firstspike as fs
from firstspike.compiled.memory_order import BAND, WIDTH
from firstspike.data import from_arrays
from firstspike.engines import arrivals as late_spikes_plan
from firstspike.engines import default_engine, early_firing
from firstspike.models import VGG11
from firstspike.networks.taps import NoTaps


def assert_as_clock(network, x: Tensor) -> None:
    early = fs.simulate(network, x, "early_firing", potentials=True)
    clock = fs.simulate(network, x, "clock", potentials=True)
    agreement = fs.engines.compare_records(network, early, clock)
    assert agreement.identical, str(agreement)
    torch.testing.assert_close(early.logits, clock.logits, rtol=1e-9, atol=1e-12)
    for name in network.populations:
        silent = early.spike_times[name].isinf()  # of the others the clock says what came later
        got, expected = early.potentials[name][silent], clock.potentials[name][silent]
        torch.testing.assert_close(got, expected, rtol=1e-9, atol=1e-12)
        assert early.spike_times[name].shape == clock.spike_times[name].shape
        assert torch.equal(early.spike_counts[name], clock.spike_counts[name])


def late_spikes(network, x: Tensor) -> int:
    """Spikes that come after the next population's window has opened."""
    record = fs.simulate(network, x, "early_firing")
    return sum(
        int(((t > network.code.shift) & t.isfinite()).sum()) for t in record.spike_times.values()
    )


@pytest.fixture(params=["as chosen", "pushed", "walked"])
def loop(request, monkeypatch) -> str:
    """How late spikes come to their targets: pushed wherever it is possible, or nowhere."""
    rules = {"pushed": lambda neurons, _: neurons <= WIDTH, "walked": lambda *_: False}
    if request.param in rules:
        monkeypatch.setattr(late_spikes_plan, "_is_pushed", rules[request.param])
    return request.param


def is_pushed(network) -> set[bool]:
    plan = late_spikes_plan.make_plan(network)
    return {target.late.pushed for target in plan.values() if target.late is not None}


@pytest.mark.parametrize(
    "offset", [6, *(pytest.param(offset, marks=pytest.mark.slow) for offset in (11, 1))]
)
@pytest.mark.parametrize("name", NETWORKS)
def test_spike_times_are_the_clocks_on_every_architecture(name: str, offset: int, loop) -> None:
    network, x = spiking(name, fs.TTFS(12, offset=offset))
    assert default_engine(network) == "early_firing"
    assert_as_clock(network, x)
    if offset < 11:
        assert late_spikes(network, x) > 10  # the test is not vacuous
        assert loop == "as chosen" or is_pushed(network) >= {loop == "pushed"}


@pytest.mark.parametrize("half_step", [True, False])
@pytest.mark.parametrize("kernel", KERNELS)
def test_spike_times_are_the_clocks_for_every_kernel(kernel: str, half_step: bool) -> None:
    code = fs.TTFS(10, KERNELS[kernel], offset=4, half_step=half_step)
    assert_as_clock(*spiking("branches", code))


def test_negative_inputs_and_scales_per_channel() -> None:
    for normalization in (fs.scales.Percentile(99.0, per_channel=True), fs.scales.Maximum()):
        for name in ("branches", "VGG-11"):
            code = fs.TTFS(9, offset=3)
            assert_as_clock(*spiking(name, code, low=-1.0, normalization=normalization))


# ---- random networks ----------------------------------------------------------------------------
class RandomNet(nn.Module):
    """A few layers of random kinds, among them everything the engine has a form for."""

    KINDS = (
        "conv", "strided", "grouped", "dilated", "transposed", "average", "overlapping", "adaptive",
        "max", "residual", "projected", "concatenated", "norm", "padded", "pool before",
    )  # fmt: skip

    def __init__(self, kinds: list[str], channels: int, side: int) -> None:
        super().__init__()
        self.kinds = kinds
        c = channels
        self.stem = nn.Conv2d(2, c, 3, padding=1)
        layers = {
            "strided": lambda: nn.Conv2d(c, c, 3, stride=2, padding=1),
            "grouped": lambda: nn.Conv2d(c, c, 3, padding=1, groups=2),
            "dilated": lambda: nn.Conv2d(c, c, 3, padding="same", dilation=2),
            "transposed": lambda: nn.ConvTranspose2d(
                c, c, 3, stride=2, padding=1, output_padding=1, groups=2
            ),
            "concatenated": lambda: nn.Conv2d(c, 2, 1, bias=False),
            "projected": lambda: nn.Conv2d(c, c, 1, bias=False),
        }
        build = layers.get
        self.layers = nn.ModuleList(
            build(kind, lambda: nn.Conv2d(c, c, 3, padding=1))() for kind in kinds
        )
        self.after = nn.ModuleList(nn.Conv2d(c + 2, c, 3, padding=1) for _ in kinds)
        self.norms = nn.ModuleList(nn.BatchNorm2d(c) for _ in kinds)
        self.head = nn.LazyLinear(9)
        self.out = nn.Linear(9, 4)
        self.eval()(torch.zeros(1, 2, side, side))

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        for kind, layer, after, norm in zip(self.kinds, self.layers, self.after, self.norms):
            x = self.block(kind, layer, after, norm, x)
        return self.out(F.relu(self.head(x.flatten(1))))

    def block(self, kind, layer, after, norm, x: Tensor) -> Tensor:
        if kind == "average":
            return F.relu(layer(F.avg_pool2d(x, 2, ceil_mode=True)))
        if kind == "overlapping":
            return F.relu(layer(F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)))
        if kind == "adaptive":
            return F.relu(layer(F.adaptive_avg_pool2d(x, (3, 2))))
        if kind == "max":
            return F.max_pool2d(F.relu(layer(x)), 2, 1, 1)
        if kind == "residual":
            return F.relu(layer(x) - 0.5 * x)
        if kind == "projected":
            return F.relu(norm(layer(x)) + F.relu(layer(x)))
        if kind == "concatenated":
            return F.relu(after(torch.cat([x, layer(x)], 1)))
        if kind == "norm":
            return F.relu(norm(F.relu(layer(x))) + 0.1)
        if kind == "padded":
            return F.relu(layer(F.pad(x, (1, 0, -1, 2))))
        if kind == "pool before":
            return F.relu(F.avg_pool2d(layer(x), 2, 1))
        return F.relu(layer(x))


@pytest.mark.slow
@settings(phases=[Phase.generate])
@given(
    kinds=st.lists(st.sampled_from(RandomNet.KINDS), min_size=1, max_size=3),
    channels=st.sampled_from([4, 6, 70]),
    side=st.integers(5, 7),
    window=st.integers(1, 14),
    part=st.floats(0.0, 1.0),
    samples=st.sampled_from([1, 3]),
    seed=st.integers(0, 1000),
    kernel=st.sampled_from(sorted(KERNELS)),
    per_channel=st.booleans(),
)
def test_random_networks(
    kinds, channels, side, window, part, samples, seed, kernel, per_channel
) -> None:
    torch.manual_seed(seed)
    model = random_model(RandomNet(kinds, channels, side))
    x = images(12, 2, side, side)
    code = fs.TTFS(window, KERNELS[kernel], offset=max(1, round(part * window)))
    normalization = fs.scales.Percentile(99.0, per_channel=per_channel)
    try:
        network = fs.convert(model, code, calibration=x, normalization=normalization)
    except ValueError as error:
        assume("respond to the calibration data" not in str(error))  # a dead layer by chance
        raise
    assert early_firing.EarlyFiring().reason_against(network) is None
    assert_as_clock(network, x[:samples])


@pytest.mark.parametrize("dims", [1, 3])
def test_other_dimensions(dims: int) -> None:
    conv = {1: nn.Conv1d, 3: nn.Conv3d}[dims]
    transposed = {1: nn.ConvTranspose1d, 3: nn.ConvTranspose3d}[dims]
    pool = {1: nn.MaxPool1d, 3: nn.MaxPool3d}[dims]
    average = {1: nn.AvgPool1d, 3: nn.AvgPool3d}[dims]
    model = nn.Sequential(
        *(conv(2, 5, 3, padding=1), nn.ReLU(), pool(2), transposed(5, 4, 2, 2), nn.ReLU()),
        *(average(2), conv(4, 6, 2, bias=False), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4)),
    )
    x = images(10, 2, *(6,) * dims)
    model(x.float()[:1])
    network = fs.convert(random_model(model), fs.TTFS(10, offset=4), calibration=x)
    assert_as_clock(network, x)


# ---- borders ------------------------------------------------------------------------------------
def dyadic(offset: int, kernel=None):
    """A chain whose sums are exact in any order: many potentials equal a threshold."""
    generator = torch.Generator().manual_seed(5)
    layers = [nn.Linear(12, 40), nn.ReLU(), nn.Linear(40, 30), nn.ReLU(), nn.Linear(30, 3)]
    with torch.no_grad():
        for layer in layers[::2]:
            shape = layer.weight.shape
            layer.weight.copy_(torch.randint(-3, 4, shape, generator=generator) / 4)
            layer.bias.copy_(torch.randint(-2, 3, shape[:1], generator=generator) / 8)
    x = torch.randint(0, 9, (40, 12), generator=generator).double() / 8
    code = fs.TTFS(8, kernel or fs.kernels.Linear(), offset=offset, half_step=False)
    network = fs.convert(nn.Sequential(*layers).double(), code, calibration=x)
    for name in network.populations:
        network.neuron(name).scale.fill_(2.0 if name != "input" else 1.0)
    return network, x


@pytest.mark.parametrize("offset", range(1, 9))
def test_potentials_that_equal_a_threshold_fire_as_on_the_clock(offset: int, loop) -> None:
    for kernel in (fs.kernels.Linear(), fs.kernels.PowerOfTwo()):
        network, x = dyadic(offset, kernel)
        assert_as_clock(network, x)
        record = fs.simulate(network, x, "early_firing", potentials=True)
        name = network.populations[1]
        levels = network.neuron(name).table()[0] * 2.0
        assert int((record.potentials[name].unsqueeze(-1) == levels).any(-1).sum()) > 50


@pytest.mark.parametrize(
    "value",
    [math.inf, -math.inf, math.nan, 0.0, -0.0, 5e-324, -5e-324, 1e-310, 1e308, -1e308],
)
def test_potentials_at_the_ends_of_the_number_line(value: float, loop) -> None:
    network, x = dyadic(3)
    with torch.no_grad():
        for op in network.network.weight_ops().values():
            op.bias[::2] = value
            op.weight[1::4] = 0.0
    x[::2] = 0.0  # nothing arrives at all
    names = network.populations
    early, clock = (fs.simulate(network, x, e) for e in ("early_firing", "clock"))
    for name in names:
        assert torch.equal(early.spike_times[name], clock.spike_times[name]), name
    if math.isnan(value) or value < 0:
        assert bool(early.spike_times[names[1]][::2, ::2].isinf().all())


def test_float32_differences_are_few_and_rounding() -> None:
    torch.manual_seed(0)
    model = random_model(VGG11(width=1 / 8, head=(64,))).float()
    x = images(8, 3, 32, 32).float()
    network = fs.convert(model, fs.TTFS(window=80, offset=40), calibration=x)
    agreement = fs.check_engines(network, x, ("early_firing", "clock"))
    total = sum(p.neurons for p in agreement.populations)
    assert agreement.different < 1e-3 * total and agreement.explained, str(agreement)


# ---- around it ----------------------------------------------------------------------------------
def test_without_late_spikes_it_is_the_closed_form() -> None:
    network, x = spiking("branches", fs.TTFS(8))
    assert fs.check_engines(network, x, ("early_firing", "closed_form")).identical


@pytest.mark.parametrize("samples", [0, 1, 5, 64])
def test_any_batch_size_and_two_threads(samples: int, loop) -> None:
    network, _ = spiking("digits CNN", fs.TTFS(12, offset=5))
    x = images(samples, 1, 8, 8)
    expected = fs.simulate(network, x, "early_firing")
    torch.testing.assert_close(network(x), expected.logits, rtol=0, atol=0)
    torch.set_num_threads(2)
    try:
        got = fs.simulate(network, x, "early_firing")
    finally:
        torch.set_num_threads(1)
    assert fs.engines.compare_records(network, expected, got).identical
    if samples:
        one_by_one = torch.cat([network(image.unsqueeze(0)) for image in x])
        torch.testing.assert_close(one_by_one, expected.logits, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["digits CNN", "ResNet-20", "branches"])
def test_evaluate_takes_it_and_counts_what_the_clock_counts(name: str) -> None:
    network, x = spiking(name, fs.TTFS(8, offset=3))
    data = from_arrays(x, torch.arange(len(x)) % 4)
    pairs = [(x, data.labels)]
    early, clock = fs.evaluate(network, pairs), fs.evaluate(network, pairs, engine="clock")
    fields = (
        "accuracy",
        "accuracy_over_time",
        "decision_steps_mean",
        "latency_steps",
        "operations",
    )
    for field in (*fields, "energy", "layers", "silent_fraction", "spikes_per_sample"):
        assert getattr(early, field) == getattr(clock, field), field
    a, b = (fs.simulate(network, x, e, over_time=True) for e in ("early_firing", "clock"))
    torch.testing.assert_close(a.logits_over_time, b.logits_over_time, rtol=1e-9, atol=1e-12)
    assert a.latency == b.latency and a.window_start == b.window_start


@pytest.mark.parametrize("how", ["in place", "data", "fused optimizer"])
def test_new_weights_are_noticed(how: str) -> None:
    network, x = spiking("digits CNN", fs.TTFS(8, offset=3))
    plain = network.with_offset(None)
    with torch.no_grad():
        before = network(x), plain(x)
    for changed in (network, plain):
        parameters = [p for p in changed.parameters() if p.requires_grad]
        if how == "fused optimizer":  # it does not raise the parameters' versions
            for parameter in parameters:
                parameter.grad = torch.ones_like(parameter)
            torch.optim.Adam(parameters, lr=0.02, fused=True).step()
        for parameter in changed.network.parameters():
            if how == "in place":
                with torch.no_grad():
                    parameter.mul_(1.25)
            elif how == "data":
                parameter.data.mul_(1.25)
    with torch.no_grad():
        after = network(x), plain(x)
    assert not torch.equal(after[0], before[0]) and not torch.equal(after[1], before[1])
    assert_as_clock(network, x)
    torch.testing.assert_close(after[1], plain(x), rtol=1e-9, atol=1e-12)  # with gradients
    torch.testing.assert_close(after[1], fs.simulate(plain, x, "clock").logits)


@pytest.mark.parametrize("shape", [(16, 8, 8), (1, 8, 8), (4, 1, 4)], ids=str)
def test_scales_that_vary_within_a_channel(shape: tuple[int, ...]) -> None:
    channels = 16 if shape[1] == 8 else 4
    model = nn.Sequential(
        *(nn.Conv2d(1, channels, 3, padding=1), nn.ReLU(), nn.Conv2d(channels, 3, 3), nn.ReLU()),
        *(nn.Flatten(), nn.Linear(3 * (shape[2] - 2) ** 2, 4)),
    )
    x = images(10, 1, shape[2], shape[2])
    network = fs.convert(random_model(model), fs.TTFS(9, offset=3), calibration=x)
    for name in network.network.populations[:1]:
        full = torch.rand(shape, generator=torch.Generator().manual_seed(1)).double() + 0.5
        network.neuron(name).scale = network.neuron(name).scale * full
    assert_as_clock(network, x)
    assert late_spikes(network, x) > 10


@pytest.mark.parametrize("hook", ["after", "before", "every module"])
@pytest.mark.parametrize("offset", [3, None])
def test_what_hooks_keep_is_not_overwritten(offset: int | None, hook: str) -> None:
    """Also not through a view: a flattened map, between spikes, is where potentials lie."""
    model = nn.Sequential(
        *(nn.Conv1d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.ReLU(), nn.Linear(24, 3))
    )
    x = images(10, 1, 10)
    network = fs.convert(random_model(model), fs.TTFS(8, offset=offset), calibration=x)
    expected, held = network(x).detach(), []

    def keep(module: nn.Module, given: tuple[Tensor, ...], out: Tensor | None = None) -> None:
        held.extend((value, value.clone()) for value in (*given, *([] if out is None else [out])))

    if hook == "every module":
        handles = [torch.nn.modules.module.register_module_forward_hook(keep)]
    else:
        ops = [network.network.op(node.name) for node in network.network.nodes[1:]]
        name = "register_forward_hook" if hook == "after" else "register_forward_pre_hook"
        handles = [getattr(op, name)(keep) for op in ops]
    try:
        with torch.no_grad():
            assert torch.equal(network(x), expected)
    finally:
        for handle in handles:
            handle.remove()
    assert held and all(torch.equal(kept, seen) for kept, seen in held)


def test_autocast_changes_nothing() -> None:
    network, x = spiking("digits CNN", fs.TTFS(8, offset=3))
    network, x = network.float(), x.float()
    expected = fs.simulate(network, x, "early_firing")
    with torch.autocast("cpu", torch.bfloat16):
        found = fs.simulate(network, x, "early_firing")
        assert torch.equal(network(x), expected.logits)
    assert torch.equal(found.logits, expected.logits)


class TokenNet(nn.Sequential):
    """Dense layers over the last axis and reshapes across channels."""

    def __init__(self) -> None:
        super().__init__(
            *(nn.Flatten(2), nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 6), nn.ReLU()),
            *(nn.Flatten(), nn.Unflatten(1, (3, 4, 3)), nn.Conv2d(3, 2, 2), nn.ReLU()),
            *(nn.Flatten(), nn.Linear(12, 9), nn.Unflatten(1, (3, 3)), nn.ReLU(), nn.Flatten()),
            nn.Linear(9, 4),
        )


@pytest.mark.parametrize("per_channel", [False, True])
def test_small_networks_of_any_linear_operations(per_channel: bool) -> None:
    x = images(10, 6, 2, 3)
    code, normalization = fs.TTFS(10, offset=3), fs.scales.Percentile(99.0, per_channel=per_channel)
    model = random_model(TokenNet())
    network = fs.convert(model, code, calibration=x, normalization=normalization)
    assert_as_clock(network, x)
    assert late_spikes(network, x) > 10


def test_what_it_cannot_run_goes_to_the_clock_with_a_notice(monkeypatch) -> None:
    monkeypatch.setattr(late_spikes_plan, "_LARGEST_MATRIX", 10)
    x = images(10, 6, 2, 3)
    with pytest.warns(UserWarning, match="early firing runs on the clock engine"):
        network = fs.convert(random_model(TokenNet()), fs.TTFS(8, offset=4), calibration=x)
    with pytest.raises(ValueError, match=r"must be 'clock' for .*across channels, at node '_7'"):
        fs.simulate(network, x, "early_firing")
    with pytest.warns(UserWarning, match="early firing runs on the clock engine"):
        logits = network(x)
    assert torch.equal(logits, fs.simulate(network, x, "clock").logits)
    with pytest.warns(UserWarning, match="early firing runs on the clock engine"):
        fs.evaluate(network, [(x, torch.arange(10) % 4)])


def test_without_numba_it_goes_to_the_clock_with_a_notice(monkeypatch) -> None:
    monkeypatch.setattr(late_spikes_plan, "has_numba", lambda: False)
    with pytest.warns(UserWarning, match="clock engine.*: numba is not installed"):
        network, _ = spiking("digits CNN", fs.TTFS(8, offset=4))
    assert early_firing.EarlyFiring().reason_against(network) == "numba is not installed"
    with pytest.warns(UserWarning, match="clock engine.*: numba is not installed"):
        assert default_engine(network) == "clock"


def test_other_codes_are_refused() -> None:
    network, x = spiking("digits CNN", fs.Rate(4))
    with pytest.raises(ValueError, match="'early_firing': Rate does not fire at most once"):
        fs.simulate(network, x, "early_firing")
    with pytest.raises(ValueError, match=r"must be 'clock' to record spikes_over_time.*'early_fir"):
        fs.simulate(spiking("digits CNN", fs.TTFS(4))[0], x, "early_firing", spikes_over_time=True)


def test_positions_side_by_side_are_one_link(monkeypatch) -> None:
    """3 rows of a 3x3 kernel; a dilated kernel's positions stay apart."""
    monkeypatch.setattr(late_spikes_plan, "_is_pushed", lambda *_: False)
    layers = nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3, dilation=2), nn.ReLU()
    model = random_model(nn.Sequential(*layers, nn.Flatten(), nn.Linear(16, 3)))
    x = images(10, 2, 8, 8)
    network = fs.convert(model, fs.TTFS(10, offset=3), calibration=x)
    plan = late_spikes_plan.make_plan(network)
    rows, apart = (plan[name].late for name in network.populations[1:])
    assert rows.links.shape == (4, 3 * 6 * 6) and apart.links.shape == (4, 9 * 2 * 2)
    assert_as_clock(network, x)
    assert late_spikes(network, x) > 10


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_thresholds_too_close_for_a_table_are_searched(dtype, monkeypatch, loop) -> None:
    network, x = spiking("branches", fs.TTFS(12, offset=5))
    network, x = network.to(dtype), x.to(dtype)
    by_table = fs.simulate(network, x, "early_firing")
    monkeypatch.setattr("firstspike.neurons.lookup._buckets_for", lambda thresholds: None)
    plan = late_spikes_plan.make_plan(network)
    late = [target.late for target in plan.values() if target.late is not None]
    assert late and all(not len(each.table[-2]) for each in late)
    searched = early_firing.run(network, x, plan=plan)
    for name in network.populations:
        assert torch.equal(searched.spike_times[name], by_table.spike_times[name])


def test_more_rows_than_an_event_can_name_are_refused(monkeypatch) -> None:
    network, _ = spiking("digits CNN", fs.TTFS(8, offset=4))
    monkeypatch.setattr(late_spikes_plan, "_MOST_ROWS", 8)
    with pytest.raises(NoTaps, match="late spikes reach 'features_1' by more than 8 rows of wei"):
        late_spikes_plan.make_plan(network)


def two_sources(positions: int = 2) -> late_spikes_plan.LateSpikes:
    """What `_pack` makes of 3 and 2 positions of 2 channels, the last heard by the last target."""
    sources = tuple(
        late_spikes_plan.Source(name, name, (2, count), 8, 4, None, None)
        for name, count in (("a", 3), ("b", 2))
    )
    position, row, kind = [0, 1, 2, 3, 4], [0, 2, 4, 6, 8], [0, 0, 1, 1, 1]
    links, start = np.array([position, row, row, kind]), np.full(positions + 1, 4)
    start[0], start[-1] = 0, 5
    nothing, weights = np.zeros(0), np.zeros((1, 10, 16))
    packed = nothing, start, links, 4, nothing, weights, True
    return late_spikes_plan.LateSpikes(sources, positions, *packed)


def test_links_are_one_within_a_target_a_source_and_a_class_alone() -> None:
    """Positions and rows follow each other throughout; a class, a source and a target end a run."""
    runs = late_spikes_plan._in_runs(two_sources())
    first, last, shift, kinds = runs.links.tolist()
    assert list(zip(first, last)) == [(0, 2), (2, 3), (4, 5), (5, 6)], "an edge more per source"
    assert (shift, kinds) == ([0, 0, 6, 6], [0, 1, 1, 1])
    assert runs.start.tolist() == [0, 3, 4]


def test_a_band_reads_what_its_targets_hear() -> None:
    late = late_spikes_plan._by_spike(two_sources(2 * BAND))
    assert late.tasks == 2
    assert late.reach.tolist() == [[[0, 3], [4, 5]], [[0, 0], [5, 6]]], "by band and source"
    assert late.start.tolist() == [0, 1, 2, 3, 3, 4, 5, 5], "no link where a source's edges end"
    last = 2 * BAND - 1
    assert late.links.tolist() == [[0, 0, 0, 0, last], [0, 0, 0, 6, 6], [0, 0, 1, 1, 1]]


@pytest.mark.parametrize(
    ("neurons", "capacity", "pushed"),
    [(1, 10**6, True), (32, 10**6, True), (33, 129, False), (64, 128, True), (65, 1, False)],
)
def test_spikes_are_pushed_to_few_neurons(neurons: int, capacity: int, pushed: bool) -> None:
    assert late_spikes_plan._is_pushed(neurons, capacity) == pushed


def test_more_positions_than_a_band_and_two_sources(loop) -> None:
    class Residual(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Conv2d(2, 5, 3, padding=1), nn.Conv2d(5, 5, 3, padding=1)
            self.third, self.head = nn.Conv2d(5, 4, 3, stride=2), nn.Linear(324, 3)

        def forward(self, x: Tensor) -> Tensor:
            first = self.first(x).relu()
            second = self.second(first).relu()
            return self.head(self.third(first + second).relu().flatten(1))

    x = images(3, 2, 20, 20)
    network = fs.convert(random_model(Residual()), fs.TTFS(12, offset=4), calibration=x)
    assert_as_clock(network, x)
    assert late_spikes(network, x) > 100
    one = fs.simulate(network, x, "early_firing", potentials=True)
    torch.set_num_threads(2)
    try:
        two = fs.simulate(network, x, "early_firing", potentials=True)
    finally:
        torch.set_num_threads(1)
    for name in network.populations:
        assert torch.equal(two.spike_times[name], one.spike_times[name])
        assert torch.equal(two.potentials[name], one.potentials[name])

"""Plain calls read the weights as they are; prepared objects keep them, for any threads."""

import copy
import pickle
import threading

import pytest
import torch
from torch import Tensor, nn
from torch.nn.modules.module import register_module_forward_hook
from torch.nn.utils import parametrize

import firstspike as fs
from firstspike.engines import ENGINES, able_engines, packing
from firstspike.networks.ops import Convolution, Dense
from firstspike.neurons.lookup import LookUp
from firstspike.neurons.table import TableNeuron

CODES = {
    "closed form": fs.TTFS(16),
    "early firing": fs.TTFS(16, offset=8),
    "learned": fs.TTFS(6, fs.kernels.Learned()),
    "reverse": fs.Reverse(8),
    "switch": fs.TemporalSwitch(8),
    "ramps": fs.ReLPSP(),
    "few steps": fs.FewStep(2),
    "rate": fs.Rate(8),
}


def images(samples: int = 16) -> Tensor:
    return torch.rand(samples, 1, 12, 12, generator=torch.Generator().manual_seed(1))


def converted(code) -> fs.SpikingNetwork:
    torch.manual_seed(0)
    model = nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)),
        *(nn.Conv2d(8, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(128, 5)),
    )
    return fs.convert(model, code, calibration=images())


@torch.no_grad()
@pytest.mark.parametrize("code", ["closed form", "early firing", "reverse", "ramps"])
def test_every_single_changed_weight_is_seen(code: str) -> None:
    """Fault injection: one weight of a convolution after the other, through `.data`."""
    network, x = converted(CODES[code]), images(4)
    first = network(images())
    weight = dict(network.named_parameters())["network.ops._3.weight"]
    reference = "clock" if code != "ramps" else "event_by_event"
    x = x if code != "ramps" else x[:2]
    changed = range(0, weight.numel(), 12 if code != "ramps" else 120)
    for i in changed:
        old = float(weight.data.view(-1)[i])
        weight.data.view(-1)[i] = 5.0
        expected = fs.simulate(network, x, engine=reference).logits
        torch.testing.assert_close(network(x), expected, rtol=1e-6, atol=1e-6)
        weight.data.view(-1)[i] = old
    assert len(changed) in (48, 5)
    assert torch.equal(network(images()), first)


@torch.no_grad()
def test_scales_kernels_and_structure_are_read_as_they_are_too() -> None:
    network, x = converted(CODES["early firing"]), images()
    network(x)
    network.neuron("_1").scale.data.mul_(2.0)
    network.neuron("_4").kernel.tau.data.mul_(1.5)
    torch.testing.assert_close(network(x), fs.simulate(network, x).logits)
    network.neuron("_1").hold(0.5 * float(network.neuron("_1").scale))  # a ceiling, in no tensor
    torch.testing.assert_close(network(x), fs.simulate(network, x).logits)
    network.network.op("_0").hyper["padding"] = (1, 1)  # as it is, written otherwise
    network.code = fs.TTFS(16, offset=4)
    torch.testing.assert_close(network(x), fs.simulate(network, x).logits)


@torch.no_grad()
@pytest.mark.parametrize("code", CODES)
def test_prepared_objects_keep_the_network_they_were_made_from(code: str) -> None:
    network, x = converted(CODES[code]), images()
    for name in able_engines(network):
        if name == "event_by_event":
            continue
        prepared = fs.prepare(network, name)
        expected = fs.simulate(network, x, name)
        torch.testing.assert_close(prepared(x), expected.logits, rtol=1e-6, atol=1e-6)
        record = prepared.run(x)
        for population, counts in expected.spike_counts.items():
            assert torch.equal(record.spike_counts[population], counts), (name, population)
        for op in network.network.ops.values():
            if isinstance(op, Convolution):
                op.weight.data.neg_()
        torch.testing.assert_close(prepared(x), expected.logits, rtol=1e-6, atol=1e-6)
        assert not torch.allclose(fs.simulate(network, x, name).logits, expected.logits)
        for op in network.network.ops.values():
            if isinstance(op, Convolution):
                op.weight.data.neg_()
    assert fs.prepare(network).engine == able_engines(network)[0]


@torch.no_grad()
@pytest.mark.parametrize(
    "code",
    ["closed form", "early firing"]
    + [pytest.param(code, marks=pytest.mark.slow) for code in ("reverse", "ramps", "rate")],
)
def test_one_prepared_object_serves_four_threads(code: str) -> None:
    network = converted(CODES[code])
    batches = images(12).split(3)
    for name in able_engines(network):
        if name == "event_by_event":
            continue
        prepared = fs.prepare(network, name)
        expected = [prepared.run(x) for x in batches]
        wrong: list[object] = []

        def serve(mine: int, name=name, prepared=prepared, expected=expected, wrong=wrong) -> None:
            for _ in range(10):
                record = prepared.run(batches[mine])
                good = torch.equal(prepared(batches[mine]), prepared(batches[mine]))
                for population, counts in expected[mine].spike_counts.items():
                    good &= torch.equal(record.spike_counts[population], counts)
                for population, times in expected[mine].spike_times.items():
                    good &= torch.equal(record.spike_times[population], times)
                if not good or not torch.equal(record.logits, expected[mine].logits):
                    wrong.append((name, mine))

        threads = [threading.Thread(target=serve, args=(i,)) for i in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert not wrong


def test_weights_of_the_event_engine_and_refusals() -> None:
    network, x = converted(CODES["closed form"]), images(2)
    rounded = fs.prepare(network, "event", weights="int8")
    assert torch.equal(rounded(x), fs.engines.EventDriven(network, weights="int8")(x))
    with pytest.raises(ValueError, match=r"must be 'clock' .* got 'event': DirectNeuron of pop"):
        fs.prepare(converted(CODES["rate"]), "event")
    assert set(ENGINES) >= {"closed_form", "early_firing", "clock", "event"}


def test_a_prepared_object_is_one_thing_with_its_network() -> None:
    """Its calls and its runs agree, whatever is done to the network it keeps, and to its copies."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))
    x = torch.rand(6, 1, 4, 4)
    prepared = fs.prepare(fs.convert(model, fs.TTFS(8), calibration=x))
    before = prepared(x)
    twin = pickle.loads(pickle.dumps(copy.deepcopy(prepared)))
    assert torch.equal(twin(x), before)
    state = {k: v.clone() for k, v in twin.network.state_dict().items()}
    for change in (
        lambda network: network.neuron("_2").scale.mul_(0.5),
        lambda network: network.load_state_dict(state),
        lambda network: network.network.op("_1").weight.mul_(2.0),
        lambda network: network.network.op("_1").weight.data.neg_(),
        lambda network: setattr(
            network.network.op("_1"), "weight", nn.Parameter(torch.rand(8, 16))
        ),
    ):
        with torch.no_grad():
            change(twin.network)
        assert torch.equal(twin(x), twin.run(x).logits)
    assert torch.equal(prepared(x), before) and not torch.equal(twin(x), before)
    twin.network.double()
    assert twin(x.double()).dtype == torch.float64
    seen: list[Tensor] = []
    prepared.network.network.op("_1").register_forward_hook(lambda op, i, o: seen.append(o))
    prepared(x)
    potentials = prepared.run(x, potentials=True).potentials["_2"]
    assert torch.equal(seen[0], potentials)  # not what the neurons made of them


def test_prepared_calls_are_those_of_what_a_network_is_made_of() -> None:
    """An operation or a neuron with another way to compute is not taken for the one it extends."""

    class Doubled(Dense):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    class Halved(TableNeuron):
        def activate(self, u: Tensor) -> Tensor:
            return super().activate(u) / 2

    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))
    x = torch.rand(6, 1, 4, 4)
    network = fs.convert(model, fs.TTFS(8), calibration=x)
    network.network.ops["_1"].__class__, network.neuron("_2").__class__ = Doubled, Halved
    with torch.no_grad():
        assert torch.equal(fs.prepare(network)(x), network(x))
    network.neuron("_2").__class__ = TableNeuron
    with torch.no_grad():
        assert torch.equal(fs.prepare(network)(x), network(x))


def test_what_was_prepared_in_inference_mode_follows_its_network_too() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))
    x = torch.rand(6, 1, 4, 4)
    network = fs.convert(model, fs.TTFS(8), calibration=x)
    with torch.inference_mode():
        prepared = fs.prepare(network)
        assert torch.equal(prepared(x), prepared.run(x).logits)
        prepared.network.neuron("_2").scale.mul_(0.5)
        assert torch.equal(prepared(x), prepared.run(x).logits)
        assert not torch.equal(prepared(x), network(x))


def test_the_quickest_engine_is_found_by_timing_on_images() -> None:
    model = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(800, 3))
    x = images()
    network = fs.convert(model, fs.TTFS(8), calibration=x)
    found = fs.prepare(network, images=x[:1])
    assert found.seconds.keys() >= {"closed_form", "event"}
    assert found.engine == min(found.seconds, key=found.seconds.get)
    assert repr(found).startswith(f"Quickest: {found.engine} ")
    assert torch.allclose(found(x[:1]), network(x[:1]), atol=1e-5)
    assert found.run(x[:1]).engine == found.engine
    stepped = fs.convert(model, fs.Rate(8), calibration=x)
    assert fs.prepare(stepped, images=x).engine == "clock"
    low = fs.prepare(network, "event", images=x, weights="int8")
    assert torch.equal(low(x), fs.prepare(network, "event", weights="int8")(x))
    with pytest.raises(ValueError, match=r"`engine` must be named beside options.*weights"):
        fs.prepare(network, images=x, weights="int8")
    for engine in (None, "closed_form"):
        with pytest.raises(ValueError, match="`images` must not be empty"):
            fs.prepare(network, engine, images=x[:0])
    with pytest.raises(ValueError, match="must have shape"):
        fs.prepare(network, images=x[0])


@torch.no_grad()
@pytest.mark.parametrize("code", ["closed form", "learned", "switch", "reverse"])
def test_weights_are_packed_where_timing_says_so_and_nothing_else_changes(code, monkeypatch):
    network, x = converted(CODES[code]), images()
    monkeypatch.setattr(packing, "_quicker", lambda packed, plain, x: True)
    packed = fs.prepare(network, "closed_form", images=x[:1])
    assert repr(packed) == "Prepared: closed_form, 2 of 2 convolutions with packed weights"
    monkeypatch.setattr(packing, "_quicker", lambda packed, plain, x: False)
    plain = fs.prepare(network, "closed_form", images=x[:1])
    assert repr(plain) == "Prepared: closed_form" == repr(fs.prepare(network))
    expected = fs.simulate(network, x).logits
    for prepared in (packed, plain, pickle.loads(pickle.dumps(copy.deepcopy(packed)))):
        for batch in (x[:1], x[:5], x):
            torch.testing.assert_close(prepared(batch), expected[: len(batch)])
    assert not any(op.packs for op in network.network.ops.values() if isinstance(op, Convolution))
    weight = packed.network.network.op("_3").weight
    weight.mul_(0.5)  # what is packed follows its weights
    torch.testing.assert_close(packed(x), packed.run(x).logits)
    assert not torch.allclose(packed(x), expected, atol=1e-3)
    packed.network.double()
    assert repr(packed) == "Prepared: closed_form"
    assert torch.equal(packed(x.double()), packed.run(x.double()).logits)


@torch.no_grad()
def test_hooks_that_a_network_brings_along_are_heard() -> None:
    network, x = converted(CODES["closed form"]), images(3)
    silent = copy.deepcopy(network)
    silent.network.ops["_3"].register_forward_hook(lambda op, inputs, out: out * 0)
    assert not torch.allclose(silent(x), network(x))
    for prepared in (fs.prepare(silent), fs.prepare(silent, "closed_form", images=x)):
        assert torch.equal(prepared(x), silent(x))


@torch.no_grad()
@pytest.mark.parametrize("code", ["closed form", "early firing"])
def test_a_copy_has_a_network_of_its_own_and_calls_follow_what_is_done_to_it(code: str) -> None:
    prepared, x = fs.prepare(converted(CODES[code])), images(3)
    before, twin = prepared(x), copy.copy(prepared)
    twin.network.network.op("_3").weight.mul_(0.5)
    assert torch.equal(prepared(x), before)
    torch.testing.assert_close(twin(x), twin.run(x).logits)
    torch.testing.assert_close(twin(x), fs.simulate(twin.network, x, prepared.engine).logits)
    assert not torch.allclose(twin(x), before, atol=1e-3)


@torch.no_grad()
def test_a_class_that_is_given_another_way_to_compute_is_followed(monkeypatch) -> None:
    prepared, x = fs.prepare(converted(CODES["closed form"])), images(3)
    assert prepared.network.code is not None  # shown
    before = prepared(x)
    monkeypatch.setattr(Dense, "forward", lambda op, x: 2 * nn.functional.linear(x, op.weight))
    assert torch.equal(prepared(x), prepared.run(x).logits) and not torch.equal(prepared(x), before)


@torch.no_grad()
def test_where_there_is_no_choice_nothing_is_packed(monkeypatch) -> None:
    class Doubled(Convolution):
        def forward(self, x: Tensor) -> Tensor:
            return 2 * super().forward(x)

    monkeypatch.setattr(packing, "_quicker", lambda *_: True)
    network, x = converted(CODES["closed form"]), images(3)
    with monkeypatch.context() as without:
        without.setattr(torch.backends.mkldnn, "enabled", False)
        assert repr(fs.prepare(network, "closed_form", images=x)) == "Prepared: closed_form"
    network.network.ops["_3"].__class__ = Doubled
    prepared = fs.prepare(network, "closed_form", images=x)
    assert repr(prepared).endswith("1 of 2 convolutions with packed weights")
    torch.testing.assert_close(prepared(x), network(x))
    assert repr(fs.prepare(prepared.network, "clock")) == "Prepared: clock"
    assert repr(fs.prepare(prepared.network)) == "Prepared: closed_form"


@torch.no_grad()
def test_kernels_are_timed_without_autocast(monkeypatch) -> None:
    seen: list[torch.dtype] = []
    monkeypatch.setattr(packing, "_quicker", lambda a, b, x: bool(seen.append(b(x).dtype)))
    with torch.autocast("cpu", torch.bfloat16):
        fs.prepare(converted(CODES["closed form"]), "closed_form", images=images(3))
    assert seen == [torch.float32] * 2


class Twice:
    def forward(self, x: Tensor) -> Tensor:
        return 2 * super().forward(x)  # type: ignore[misc]


class TwiceDense(Twice, Dense):
    """Another way to compute that comes from beside."""


def _parametrized(network) -> None:
    op = network.network.op("_1")
    parametrize.register_parametrization(op, "weight", nn.Tanh())
    network(torch.rand(2, 1, 4, 4))
    with torch.no_grad():
        op.parametrizations.weight.original.mul_(3.0)


CHANGES = {
    "a clip": lambda network: network.neuron("_2").hold(0.05),
    "another operation": lambda network: network.network.ops.update(
        {"_1": Dense({"weight": torch.rand(8, 16), "bias": None})}
    ),
    "another neuron": lambda network: network.neurons.update(
        {"_2": fs.TTFS(4).neuron(torch.tensor(0.5), None)}
    ),
    "another forward": lambda network: setattr(
        network.network.op("_1"), "forward", lambda x: torch.ones(len(x), 8)
    ),
    "another class": lambda network: setattr(network.network.op("_1"), "__class__", TwiceDense),
    "another activate": lambda network: setattr(
        network.neuron("_2"), "activate", lambda u: u.clamp(0, 0.3)
    ),
    "parametrized": _parametrized,
}


@pytest.mark.parametrize("called", [False, True])
@pytest.mark.parametrize("change", CHANGES)
def test_prepared_calls_follow_what_is_done_to_their_network(change: str, called: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))
    x = torch.rand(6, 1, 4, 4)
    prepared = fs.prepare(fs.convert(model, fs.TTFS(8), calibration=x))
    before = prepared(x) if called else None
    CHANGES[change](prepared.network)
    with torch.no_grad():
        assert torch.equal(prepared(x), prepared.network(x))
        assert before is None or not torch.equal(prepared(x), before)


def test_hooks_of_all_modules_see_prepared_calls_and_keep_what_they_see() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))
    x = torch.rand(6, 1, 4, 4)
    prepared = fs.prepare(fs.convert(model, fs.TTFS(8), calibration=x))
    prepared(x)
    seen: dict[nn.Module, Tensor] = {}
    handle = register_module_forward_hook(lambda op, i, o: seen.setdefault(op, o))
    try:
        prepared(x)
    finally:
        handle.remove()
    potentials = prepared.run(x, potentials=True).potentials["_2"]
    assert torch.equal(seen[prepared.network.network.op("_1")], potentials)


def test_weights_are_mapped_over_without_gradients() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    network = fs.convert(model, fs.TTFS(16), calibration=torch.rand(99, 4))
    network(torch.rand(5, 4))
    x = torch.rand(5, 4)
    weights = {
        f"network.{name}": torch.stack([w.detach(), 0.9 * w.detach()])
        for name, w in network.network.named_parameters()
    }

    def call(weights: dict[str, Tensor]) -> Tensor:
        return torch.func.functional_call(network, weights, (x,))

    with torch.no_grad():
        every = torch.func.vmap(call)(weights)
        for i in range(2):
            each = call({name: w[i] for name, w in weights.items()})
            assert torch.allclose(every[i], each, atol=1e-6)


def test_what_is_as_it_was_written_is_called_without_a_modules_call() -> None:
    model = nn.Sequential(nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3))
    network = fs.convert(model, fs.TTFS(8), calibration=torch.rand(9, 2, 4, 4))
    prepared = fs.prepare(network).network
    convolution, dense = (prepared.network.op(name).resolve() for name in ("_0", "_3"))
    assert convolution.func is nn.functional.conv2d and dense.func is nn.functional.linear
    with torch.no_grad():
        assert prepared.neuron("_1").resolve(True).__func__ is LookUp.overwrite
    assert TwiceDense({"weight": torch.ones(1, 1), "bias": None}).resolve().__name__ == "forward"


@pytest.mark.parametrize("code", ["closed form", "ramps", "early firing"])
def test_images_that_cannot_be_taken_are_refused_by_name_and_none_are_taken(code: str) -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 3))
    x = torch.rand(6, 1, 4, 4)
    network = fs.convert(model, CODES[code], calibration=x)
    for call in (network, fs.prepare(network)):
        with pytest.raises(ValueError, match="must be on the network's device cpu, got meta"):
            call(x.to("meta"))
        with pytest.raises(TypeError, match=r"must be a dense tensor, got layout torch\.sparse"):
            call(x.to_sparse())
        assert call(x[:0]).shape == (0, 3)

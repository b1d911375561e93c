"""NIR: our graphs come back bit for bit, and other programs spike as ours do."""

from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
import torch
from hypothesis import given, reject
from hypothesis import strategies as st
from torch import Tensor, nn

import firstspike as fs
from firstspike.exchange import hand_on
from firstspike.exchange.nir_clients import CLIENTS, Client
from firstspike.exchange.nir_door import Nir, ask
from firstspike.exchange.nir_files import read_nir, write_nir
from firstspike.exchange.nir_read import Reading
from firstspike.exchange.nir_write import Dialect, limits

nir = pytest.importorskip("nir", reason="pip install 'firstspike[nir]'")


class Residual(nn.Module):
    """Two blocks, one with an identity shortcut and one with a projection."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.a, self.b = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.c, self.short = nn.Conv2d(4, 6, 3, stride=2, padding=1), nn.Conv2d(4, 6, 1, stride=2)
        self.head = nn.Linear(6, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm(self.stem(x)).relu()
        x = (self.b(self.a(x).relu()) + x).relu()
        x = (self.c(x) + self.short(x)).relu()
        return self.head(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1))


class Branches(nn.Module):
    """Joined channels, groups, dilation, a mean and one population added to itself."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(2, 4, 3, padding=1), nn.Conv2d(2, 2, 1)
        self.c = nn.Conv2d(6, 6, 3, padding=2, dilation=2, groups=3)
        self.d, self.head = nn.Conv2d(6, 4, 3, padding="same"), nn.Linear(4, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([self.a(x).relu(), self.b(x).relu()], 1)
        x = self.c(x).relu()
        x = self.d(x + 0.5 * x).relu()
        return self.head(x.mean((2, 3)))


def cnn() -> nn.Module:
    return nn.Sequential(
        *(nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.AvgPool2d(2)),
        *(nn.Conv2d(4, 6, 3, stride=(2, 1), padding=(0, 1)), nn.ReLU(), nn.AvgPool2d((1, 2))),
        *(nn.Flatten(), nn.Linear(12, 16), nn.ReLU(), nn.Linear(16, 5)),
    )


MODELS = {"cnn": cnn, "residual": Residual, "branches": Branches}
CODES = [
    fs.LIF(12),
    fs.LIF(12, tau_mem=8.0),
    fs.LIF(12, tau_mem=8.0, tau_syn=3.0),
    fs.Rate(12),
    fs.Rate(12, input=fs.inputs.Bernoulli(seed=3)),
    fs.FewStep(4, leak=0.9),
    fs.TTFS(8),
    fs.TTFS(8, fs.kernels.Learned(), offset=4, input_window=16),
    fs.Phase(16),
    fs.Burst(16),
    fs.ReLPSP(steps=8),
]


def network_of(
    model: str, code: fs.SpikingNetwork, seed: int = 0, dtype=torch.float32, per_channel=False
) -> tuple[fs.SpikingNetwork, Tensor]:
    torch.manual_seed(seed)
    built = MODELS[model]().eval().to(dtype)
    for module in built.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.uniform_(module.bias, -0.2, 0.2)
    x = torch.rand(24, 2, 9, 8, dtype=dtype) - 0.25 * torch.rand(2, 1, 1).to(dtype)
    normalization = fs.scales.Percentile(99.0, per_channel=per_channel)
    try:
        network = fs.convert(built, code, calibration=x, normalization=normalization)
    except ValueError as error:  # some random networks have a dead layer
        assert "must respond to the calibration data" in str(error)
        reject()
    return network, x[:6]


def same(a: fs.SpikingNetwork, b: fs.SpikingNetwork) -> bool:
    mine, theirs = a.state_dict(), b.state_dict()
    return (
        list(mine) == list(theirs)
        and all(mine[k].dtype == theirs[k].dtype and torch.equal(mine[k], theirs[k]) for k in mine)
        and (a.code, a.origin) == (b.code, b.origin)
        and a.network.describe() == b.network.describe()
    )


@pytest.mark.parametrize(
    ("model", "code"),
    [*(("residual", code) for code in CODES), ("cnn", CODES[0]), ("branches", CODES[6])],
    ids=str,
)
def test_a_file_of_ours_comes_back_bit_for_bit(model, code, tmp_path: Path) -> None:
    per_channel = model != "branches"
    network, x = network_of(model, code, per_channel=per_channel)
    path = tmp_path / "network.nir"
    write_nir(fs.to_nir(network), path)
    back = fs.from_nir(path)
    assert same(network, back)
    a, b = fs.simulate(network, x), fs.simulate(back, x)
    assert fs.engines.compare_records(network, a, b).identical and torch.equal(a.logits, b.logits)


@given(
    model=st.sampled_from(sorted(MODELS)),
    code=st.sampled_from(CODES[:3]),
    seed=st.integers(0, 10**6),
    per_channel=st.booleans(),
    leaky=st.booleans(),
    sum_pools=st.booleans(),
)
def test_plain_readers_spike_as_ours_where_nir_says_all(
    model, code, seed, per_channel, leaky, sum_pools
) -> None:
    """Without our metadata, in float64: weights and thresholds of the graph alone."""
    network, x = network_of(model, code, seed, torch.float64, per_channel)
    for name in network.populations:  # a scale that is an activation of `x` is a tie at every step
        network.neuron(name).scale.mul_(1.001)
    graph = fs.to_nir(network, Dialect(leaky=leaky, sum_pools=sum_pools))
    plain = fs.from_nir(graph, exact=False, reading=Reading(strict=False))
    a, b = fs.simulate(network, x), fs.simulate(plain, x)
    for name in network.network.populations:
        assert torch.equal(a.spike_counts[name], b.spike_counts[name]), name
    torch.testing.assert_close(a.logits, b.logits, rtol=0, atol=1e-12)


def test_what_nir_cannot_say_is_listed() -> None:
    said = {str(code): " ".join(limits(network_of("cnn", code)[0])) for code in CODES}
    assert "soft reset" in said[str(fs.Rate(12))] and "start at 0.5" in said[str(fs.Rate(12))]
    assert "input spikes by Bernoulli" in said[str(CODES[4])]
    assert "the code TTFS: windows" in said[str(fs.TTFS(8))]
    assert "soft reset" not in said[str(fs.LIF(12))]
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten())
    model = nn.Sequential(model, nn.Linear(27, 4))
    pooled = fs.convert(model, fs.LIF(8), calibration=torch.rand(9, 2, 9, 8))
    assert "max pools of spikes (_0_2)" in " ".join(limits(pooled))
    assert same(pooled, fs.from_nir(fs.to_nir(pooled)))


def test_the_door_says_what_a_plain_reader_loses(tmp_path: Path) -> None:
    network, x = network_of("cnn", fs.TTFS(8))
    handed = hand_on(network, Nir(), tmp_path / "network.nir", x)
    exact, plain = handed.checks[:2]
    assert exact.exact and exact.logits == 0.0
    assert exact.neurons == 6 * (144 + 288 + 24 + 16)
    assert plain.different > 0 and not plain.exact
    text = str(handed)
    assert "not said: the code TTFS" in text and "checked by firstspike on 6 samples" in text
    assert "not checked: no receiver was run" in str(hand_on(network, Nir(), tmp_path / "b.nir"))


def test_neurons_that_fire_once(tmp_path: Path) -> None:
    network, x = network_of("cnn", fs.TTFS(8))
    graph = fs.to_nir(network, Dialect(once=True))
    plain = fs.from_nir(graph, exact=False)
    record = fs.simulate(plain, x)
    counts = torch.cat([c.flatten() for n, c in record.spike_counts.items() if n != "input"])
    assert counts.max() == 1 and counts.sum() > 0
    assert same(network, fs.from_nir(graph))


def test_a_changed_graph_is_not_taken_for_ours() -> None:
    network, _ = network_of("cnn", fs.TTFS(8))
    graph = fs.to_nir(network)
    graph.nodes["_0"].weight[0, 0, 0, 0] += 1e-6
    with pytest.raises(ValueError, match=r"changed after `to_nir` wrote it.*exact=False"):
        fs.from_nir(graph)
    assert fs.from_nir(graph, exact=False).code == fs.LIF(network.latency, strict=True)


def test_imported_networks_are_measured_and_saved(tmp_path: Path) -> None:
    network, x = network_of("cnn", fs.LIF(12, tau_mem=8.0), per_channel=True)
    plain = fs.from_nir(fs.to_nir(network), exact=False, reading="spikingjelly")
    result = fs.evaluate(plain, [(x, torch.zeros(6, dtype=torch.int64))])
    assert result.operations["add"] > 0 and result.spikes_per_sample > 0
    plain.save(tmp_path / "network.safetensors")
    again = fs.SpikingNetwork.load(tmp_path / "network.safetensors")
    assert torch.equal(fs.simulate(again, x).logits, fs.simulate(plain, x).logits)


# ---- other programs ------------------------------------------------------------------------------
FEATURES = {
    "IF": fs.LIF(12),
    "LIF": fs.LIF(12, tau_mem=8.0),
    "CubaLIF": fs.LIF(12, tau_mem=8.0, tau_syn=3.0),
}
DIFFER = {("norse", "LIF", "cnn")}  # it ignores the resistance of LIF
FAIL = {("norse", feature, model) for feature in FEATURES for model in ("residual", "branches")}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("feature", FEATURES)
@pytest.mark.parametrize("client", CLIENTS, ids=lambda c: c.name)
def test_clients_spike_neuron_by_neuron_as_ours(client: Client, feature: str, model: str) -> None:
    if client.version is None:
        pytest.skip(f"{client.name} is not installed")
    network, x = network_of(model, FEATURES[feature], seed=5)
    check = ask(client, network, x, fs.simulate(network, x))
    assert check is not None
    case = (client.name, feature, model)
    if case in FAIL:
        assert check.note.startswith("failed: ")
    elif case in DIFFER:
        assert check.different > 0
    else:
        assert check.exact and check.neurons > 1000 and check.logits < 1e-6, check


# ---- bad input -----------------------------------------------------------------------------------
def graph_of(nodes: dict, edges: list) -> object:
    return nir.NIRGraph(nodes=nodes, edges=edges, type_check=False)


def parts() -> dict:
    import numpy as np

    one = np.ones(3)
    return {
        "input": nir.Input(input_type=np.array([4])),
        "dense": nir.Affine(np.ones((3, 4)), np.zeros(3)),
        "spikes": nir.LIF(tau=one * 1e-3, r=one, v_leak=one * 0, v_threshold=one),
        "output": nir.Output(output_type=np.array([3])),
    }


CHAIN = [("input", "dense"), ("dense", "spikes"), ("spikes", "output")]


def changed(**nodes: object) -> dict:
    return parts() | nodes


def bad_graphs() -> dict:
    import numpy as np

    one = np.ones(3)
    return {
        "no cycles, got 'dense' -> 'spikes'": (parts(), [*CHAIN, ("spikes", "dense")]),
        "one Input node, got 0": ({k: v for k, v in parts().items() if k != "input"}, CHAIN[1:]),
        "must join nodes of the graph, got 'nowhere'": (parts(), [*CHAIN, ("nowhere", "dense")]),
        "'spikes' .LIF. cannot be read: its v_threshold has shape .2,. for neurons of shape .3,": (
            changed(spikes=nir.LIF(*(np.ones(2) * v for v in (1e-3, 1.0, 0.0, 1.0)))),
            CHAIN,
        ),
        "'dense' .Affine. cannot be read: it does not fit its input of shape .4,.": (
            changed(dense=nir.Affine(np.ones((3, 5)), np.zeros(3))),
            CHAIN,
        ),
        "'spikes' .LI. cannot be read: LI has no counterpart": (
            changed(spikes=nir.LI(tau=one, r=one, v_leak=one)),
            CHAIN,
        ),
        "time constant of 1e-05 s is shorter than the step": (
            changed(spikes=nir.LIF(tau=one * 1e-5, r=one, v_leak=one * 0, v_threshold=one)),
            CHAIN,
        ),
        "time constants must be positive": (
            changed(spikes=nir.LIF(tau=one * 0, r=one, v_leak=one * 0, v_threshold=one)),
            CHAIN,
        ),
        "its v_threshold is not finite": (
            changed(spikes=nir.IF(r=one, v_threshold=one * float("nan"))),
            CHAIN,
        ),
        "'input' .Input. cannot be read: it has no shape": (
            changed(input=nir.Input(input_type={"input": None})),
            CHAIN,
        ),
        "'spikes' .LIF. cannot be read: nothing reaches it|reached from its Input": (
            parts(),
            [("input", "dense"), ("spikes", "output")],
        ),
    }


@pytest.mark.parametrize("message", bad_graphs())
def test_graphs_that_cannot_be_read(message: str) -> None:
    with pytest.raises(fs.ConversionError, match=message):
        fs.from_nir(graph_of(*bad_graphs()[message]), steps=8)


def test_steps_and_readings_are_checked() -> None:
    graph = graph_of(parts(), CHAIN)
    with pytest.raises(ValueError, match="`steps` must be given for a graph of another program"):
        fs.from_nir(graph)
    with pytest.raises(ValueError, match=r"`reading` must be one of nir, .*, got 'brian'"):
        fs.from_nir(graph, steps=8, reading="brian")


def test_models_that_nir_has_no_word_for() -> None:
    model = nn.Sequential(nn.ConvTranspose2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(330, 4))
    network = fs.convert(model, fs.LIF(8), calibration=torch.rand(9, 2, 9, 8))
    with pytest.raises(fs.ConversionError, match=r"node '_0'.* NIR has no TransposedConvolution"):
        fs.to_nir(network)
    ceil = nn.Sequential(nn.AvgPool2d(2, ceil_mode=True), nn.Conv2d(2, 3, 1), nn.ReLU())
    network = fs.convert(
        nn.Sequential(ceil, nn.Flatten(), nn.Linear(60, 4)),
        fs.LIF(8),
        calibration=torch.rand(9, 2, 9, 8),
    )
    with pytest.raises(fs.ConversionError, match="round their output size down"):
        fs.to_nir(network)


def test_damaged_and_foreign_files_are_refused(tmp_path: Path) -> None:
    h5py = pytest.importorskip("h5py")
    network, _ = network_of("cnn", fs.LIF(12))
    whole = tmp_path / "whole.nir"
    write_nir(fs.to_nir(network), whole)
    data = whole.read_bytes()
    bad = tmp_path / "bad.nir"
    for content in (b"", b"not hdf5", data[:100], data[: len(data) // 2]):
        bad.write_bytes(content)
        with pytest.raises(
            ValueError, match=r"bad\.nir is not a whole NIR graph \([0-9,]+ bytes\)"
        ):
            read_nir(bad)
    with pytest.raises(FileNotFoundError, match="there is no file"):
        read_nir(tmp_path / "none.nir")
    with h5py.File(bad, "w") as file:
        file["other"] = [1, 2]
    with pytest.raises(ValueError, match="without the group 'node'"):
        read_nir(bad)
    with h5py.File(bad, "w") as file:
        file.create_group("node")["type"] = "Lattice"
    with pytest.raises(ValueError, match="is not a whole NIR graph"):
        read_nir(bad)
    for at in range(
        0, len(data), len(data) // 12
    ):  # whatever byte is wrong: read, or refused by a ValueError
        broken = bytearray(data)
        broken[at] ^= 0xFF
        bad.write_bytes(broken)
        try:
            fs.from_nir(bad)
        except ValueError as error:
            assert str(error)


def test_arrays_that_claim_more_than_the_file_holds_are_refused_before_memory_is_taken(
    tmp_path: Path,
) -> None:
    h5py = pytest.importorskip("h5py")
    bad = tmp_path / "bad.nir"
    with h5py.File(bad, "w") as file:
        node = file.create_group("node")
        node.create_dataset("weight", shape=(1 << 20, 1 << 20), dtype="f8", chunks=(64, 64))
    assert bad.stat().st_size < 100_000
    with pytest.raises(ValueError, match=r"declares 8,796,093,022,208 bytes .* holds 0"):
        read_nir(bad)
    with h5py.File(bad, "w") as file:
        file.create_group("node")["weight"] = h5py.ExternalLink("elsewhere.h5", "/weight")
    with pytest.raises(ValueError, match="has a link at /node/weight"):
        read_nir(bad)
    with h5py.File(bad, "w") as file:
        file.create_group("node").create_dataset(
            "weight", shape=(10,), dtype="f4", external=[("elsewhere.bin", 0, 40)]
        )
    with pytest.raises(ValueError, match="keeps /node/weight in another file"):
        read_nir(bad)


@pytest.mark.slow
def test_whatever_a_value_in_a_file_is_it_is_read_or_refused_by_name(tmp_path: Path) -> None:
    """Every array of a file in turn becomes nothing, text, empty, of another shape, not finite."""
    h5py, np = pytest.importorskip("h5py"), pytest.importorskip("numpy")
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 2), nn.ReLU(), nn.AvgPool2d(2), nn.Flatten())
    model = nn.Sequential(model, nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 2))
    for parameter in model.parameters():
        nn.init.uniform_(parameter, 0.1, 1.0)
    x = torch.rand(20, 1, 3, 3)
    graph = fs.to_nir(fs.convert(model, fs.LIF(2, tau_mem=3.0), calibration=x))
    whole, bad = tmp_path / "whole.nir", tmp_path / "bad.nir"
    graph.metadata = {}
    write_nir(graph, whole)
    data, places = whole.read_bytes(), []
    with h5py.File(whole) as file:
        file.visititems(lambda name, item: places.append(name))
    odd = (None, "text", np.zeros(0), np.full((2, 2), 2), np.nan, -3, np.full(3, 1e9), b"\xff")
    refused = 0
    for place in places:
        for value in odd:
            bad.write_bytes(data)
            with h5py.File(bad, "r+") as file:
                del file[place]
                if value is not None:
                    file[place] = value
            try:
                fs.simulate(fs.from_nir(bad, steps=2), x[:1])
            except ValueError as error:
                refused += 1
                assert re.search(
                    "node '|graph|is not a whole NIR|edge|`spikes|finite", str(error)
                ), error
    assert len(places) > 30 and refused > 4 * len(places)
    with pytest.raises(
        TypeError, match=r"`graph` must be a nir.NIRGraph or the path of a file, got int"
    ):
        fs.from_nir(5, steps=2)


def test_the_model_is_left_alone() -> None:
    network, _ = network_of("residual", fs.LIF(12), per_channel=True)
    before = copy.deepcopy(network.state_dict())
    fs.to_nir(network)
    assert all(torch.equal(before[k], v) for k, v in network.state_dict().items())

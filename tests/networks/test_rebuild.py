"""Network files are refused where their structure or numbers are not those of a network."""

import json
import math

import pytest
import torch
from torch import nn

import firstspike as fs
from firstspike._tensors import load_tensors, save_tensors
from firstspike.engines.early_firing import EarlyFiring
from firstspike.engines.event_driven import EventDriven
from firstspike.networks.network import Network, Node
from firstspike.networks.ops import Add, Affine, BatchNorm, Concatenate, Gather, MaxPool, Sum
from firstspike.networks.rebuild import build_op, check_shapes

X = torch.rand(40, 2, 8, 8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(4, 4, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64, 3),
    )
    path = tmp_path_factory.mktemp("network") / "n.safetensors"
    fs.convert(model, fs.TTFS(8), calibration=X).save(path)
    return path


def edited(saved, tmp_path, change):
    """The file with `change(nodes by operation, tensors)` and a checksum that fits."""
    tensors, content = load_tensors(saved)
    nodes = {node.get("op", "input"): node for node in content["network"]["nodes"]}
    change(nodes, tensors)
    save_tensors(tmp_path / "edited.safetensors", tensors, content)
    return tmp_path / "edited.safetensors"


def set_hyper(op, **values):
    return lambda nodes, tensors: nodes[op]["hyper"].update(values)


def set_tensor(name, value):
    def change(nodes, tensors):
        key = next(k for k in tensors if k.endswith(name))
        tensors[key] = value(tensors[key].clone())

    return change


@pytest.mark.parametrize("shape", [[4, 4, 8], [4, 2, 2], [4, 5, 4], [4, 4, 4000], [4, 4], [0]])
def test_a_wrong_shape_never_reaches_compiled_loops(saved, tmp_path, shape):
    """Loops of the event-driven engine index by it: `[4, 4, 8]` would end the interpreter."""
    path = edited(saved, tmp_path, lambda nodes, t: nodes["MaxPool"].update(shape=shape))
    with pytest.raises(ValueError, match=r"edited\.safetensors is not a whole spiking network"):
        fs.SpikingNetwork.load(path)


def test_engines_check_shapes_of_networks_made_by_hand(saved):
    network = fs.SpikingNetwork.load(saved)
    pool = next(n for n in network.network.nodes if n.shape == (4, 4, 4))
    object.__setattr__(pool, "shape", (4, 4, 8))
    with pytest.raises(ValueError, match=r"must have the shape \(4, 4, 4\) that MaxPool gives"):
        EventDriven(network)


@pytest.mark.parametrize(
    ("op", "below", "shape", "message"),
    [
        (Add({}, coefficients=(1.0, 1.0)), ((1,), (6,)), (6,), "must have one shape"),
        (Add({}, coefficients=(1.0, 1.0)), ((2, 1), (2, 3)), (2, 3), "must have one shape"),
        (Affine({"scale": torch.ones(6), "shift": None}), ((1,),), (6,), "does not fit"),
        (Affine({"scale": None, "shift": torch.ones(0, 6)}), ((6,),), (6,), "does not fit"),
        (Concatenate({}, dim=1), ((3,), ()), (3,), "cannot be concatenated"),
    ],
)
def test_shapes_that_fit_a_batch_of_none_alone_are_refused(op, below, shape, message):
    nodes = [Node("input", (), below[0])]
    ops = {}
    for i, other in enumerate(below):
        nodes.append(Node(f"x{i}", ("input",), other))
        ops[f"x{i}"] = (
            Sum({}, dim=(1,), keepdim=False)
            if other == ()
            else Gather({"index": torch.zeros(math.prod(other)).long()}, shape=other, zeros=False)
        )
    nodes.append(Node("last", tuple(f"x{i}" for i in range(len(below))), shape))
    with pytest.raises(ValueError, match=f"'last' cannot run: .*{message}"):
        check_shapes(Network(nodes, ops | {"last": op}))


def test_tensors_without_numbers_and_too_much_output_padding_are_refused():
    empty = {"op": "Affine", "hyper": {}, "tensors": {"scale": [0, 3], "shift": None}}
    with pytest.raises(ValueError, match=r"`scale` must hold numbers, got the shape \[0, 3\]"):
        build_op(empty, {"scale": torch.ones(0, 3)})
    hyper = {"stride": 2, "padding": 0, "output_padding": 2, "groups": 1, "dilation": 1}
    padded = {"op": "TransposedConvolution", "hyper": hyper, "tensors": {"weight": [2, 2, 3, 3]}}
    with pytest.raises(ValueError, match="output_padding below stride or dilation"):
        build_op(padded, {"weight": torch.ones(2, 2, 3, 3)})
    build_op(padded | {"hyper": hyper | {"output_padding": 1}}, {"weight": torch.ones(2, 2, 3, 3)})


def test_one_number_for_all_axes_counts_for_each(tmp_path):
    """torch takes `padding=(1,)` for both axes, and so does every engine."""

    class Model(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(4, 2, 3, 3).double() / 4)
            self.readout = nn.Linear(144, 3).double()

        def forward(self, x):
            x = nn.functional.conv2d(
                x, self.weight, stride=(1,), padding=(1,), dilation=(1,)
            ).relu()
            x = nn.functional.max_pool2d(x, (2,), (1,), (0,), (1,))
            return self.readout(nn.functional.avg_pool2d(x, (2,), (1,), (0,)).flatten(1))

    network = fs.convert(Model(), fs.TTFS(8), calibration=X.double())
    for engine in ("closed_form", "early_firing", "event"):
        assert fs.check_engines(network, X[:5].double(), ("clock", engine)).identical
    pool = next(op for op in network.network.ops.values() if isinstance(op, MaxPool))
    assert pool.hyper["kernel_size"] == (2, 2) and pool.hyper["padding"] == (0, 0)


def test_statistics_of_other_channels_are_refused():
    statistics = {"running_mean": torch.zeros(2), "running_var": torch.ones(2)}
    nodes = [Node("input", (), (3, 4)), Node("norm", ("input",), (3, 4))]
    norm = BatchNorm({**statistics, "weight": None, "bias": None}, momentum=0.1, eps=1e-5)
    with pytest.raises(
        ValueError, match=r"'norm' cannot run: \(3,\) channels, and statistics of 2"
    ):
        check_shapes(Network(nodes, {"norm": norm}))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_hyper("MaxPool", dims=7), "MaxPool cannot have dims = 7"),
        (set_hyper("MaxPool", stride=[0, 1]), "MaxPool cannot have stride"),
        (set_hyper("MaxPool", kernel_size=[2, 2, 2]), "cannot have kernel_size"),
        (set_hyper("MaxPool", return_indices=True), "no hyper-parameter 'return_indices'"),
        (set_hyper("Convolution", groups=3), "in 3 groups"),
        (set_hyper("Convolution", padding=[-1, -1]), "Convolution cannot have padding"),
        (set_hyper("Reshape", shape=[32]), r"64 values has no shape \(32,\)"),
        (set_hyper("Rectifier", clip=-1.0), "Rectifier cannot have clip = -1"),
        (lambda nodes, t: nodes["Dense"].update(inputs=["nowhere"]), "come before it"),
        (lambda nodes, t: nodes["Dense"].update(inputs=[nodes["Dense"]["name"]]), "before it"),
        (lambda nodes, t: nodes["Dense"].update(name="input"), "unique"),
        (lambda nodes, t: nodes["Dense"].update(op="Rectifier", tensors={}), "has no tensor"),
        (set_tensor("weight", lambda w: w * float("nan")), "must be finite, got .* NaN"),
        (set_tensor("weight", lambda w: w.int()), "must be floating point"),
        (set_tensor("scale", lambda s: -s), "`scale` must be positive"),
        (set_tensor("scale", lambda s: 0 * s), "`scale` must be positive"),
        (set_tensor("tau", lambda t: -t), "must be positive and fall"),
    ],
)
def test_edits_with_a_right_checksum_are_refused(saved, tmp_path, change, message):
    with pytest.raises(ValueError, match=message) as error:
        fs.SpikingNetwork.load(edited(saved, tmp_path, change))
    assert "edited.safetensors" in str(error.value)


def test_any_flipped_bit_is_found(saved, tmp_path):
    data = saved.read_bytes()
    expected = fs.SpikingNetwork.load(saved)(X)
    path = tmp_path / "flipped.safetensors"
    for place in range(8, len(data), 61):
        flipped = bytearray(data)
        flipped[place] ^= 1 << place % 8
        path.write_bytes(flipped)
        try:
            answer = fs.SpikingNetwork.load(path)(X)
        except ValueError as error:
            assert path.name in str(error)
        else:  # the space that fills the header up
            assert torch.equal(answer, expected)


def test_a_loaded_network_is_independent_of_its_file(saved, tmp_path):
    path = tmp_path / "n.safetensors"
    path.write_bytes(saved.read_bytes())
    network = fs.SpikingNetwork.load(path)
    expected = network(X)
    with open(path, "r+b") as file:
        file.truncate(100)
    assert torch.equal(network(X), expected)


def test_a_network_that_could_not_be_loaded_is_not_saved(saved, tmp_path):
    network = fs.SpikingNetwork.load(saved)
    next(network.parameters()).data.view(-1)[0] = float("nan")
    with pytest.raises(ValueError, match="must be finite"):
        network.save(tmp_path / "n.safetensors")
    assert not (tmp_path / "n.safetensors").exists()
    with pytest.raises(ValueError, match=r"the logits of .* must be finite"):
        fs.evaluate(network, [(X, torch.zeros(len(X), dtype=torch.long))])


def test_windows_beyond_any_use_are_refused(saved, tmp_path):
    tensors, content = load_tensors(saved)
    content["code"]["window"] = 10**9
    save_tensors(tmp_path / "n.safetensors", tensors, json.loads(json.dumps(content)))
    with pytest.raises(ValueError, match="windows of at most 131,072 steps"):
        fs.SpikingNetwork.load(tmp_path / "n.safetensors")


def test_early_firing_on_a_population_that_no_spike_can_reach():
    torch.manual_seed(2)
    model = nn.Sequential(
        nn.Conv2d(1, 1, 2, padding=1, dilation=2, stride=9),
        nn.ReLU(),
        nn.Conv2d(1, 2, 2, padding=1, dilation=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(2, 3),
    ).double()
    model[2].bias.data.fill_(0.3)
    x = torch.rand(40, 1, 4, 4).double()
    network = fs.convert(model, fs.TTFS(8, offset=4), calibration=x)
    assert EarlyFiring().reason_against(network) is None
    early, clock = (fs.simulate(network, x, name) for name in ("early_firing", "clock"))
    assert all(torch.equal(t, clock.spike_times[n]) for n, t in early.spike_times.items())


def test_places_outside_of_the_input_are_refused(tmp_path) -> None:
    class Flipped(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x.flip(1)

    model = nn.Sequential(Flipped(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 2))
    network = fs.convert(model, fs.TTFS(4), calibration=torch.rand(20, 4))
    path = tmp_path / "network.safetensors"
    network.save(path)
    x = torch.rand(3, 4)
    assert torch.equal(fs.SpikingNetwork.load(path)(x), network(x))
    (gather,) = [op for op in network.network.ops.values() if type(op).__name__ == "Gather"]
    gather.index[0] = 4
    network.save(path)
    with pytest.raises(ValueError, match="takes values from outside of its input"):
        fs.SpikingNetwork.load(path)

"""Models as people write them: control flow on shapes, wrappers, types, hooks, other threads."""

import os
import threading
from collections import OrderedDict

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import firstspike as fs
from firstspike import ConversionError, trace
from firstspike.networks.fx_graph import _last_own

X = torch.rand(12, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Head(nn.Module):
    """A convolution, `middle`, and a classifier."""

    def __init__(self, middle=lambda m, x: x, width: int = 256) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.middle = middle
        self.conv, self.fc = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(width, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc(self.middle(self, F.relu(self.conv(x))).flatten(1))


def same(model: nn.Module, x: Tensor = X) -> fs.networks.Network:
    model = model.eval()
    network = trace(model, x)
    with torch.no_grad():
        torch.testing.assert_close(network.arranged(network(x)), model(x), rtol=1e-4, atol=1e-5)
    return network


def same_padding(m: nn.Module, x: Tensor) -> Tensor:
    """TensorFlow's "same": more to the right and below, by the shape at hand."""
    height, width = x.shape[-2:]
    bottom, right = max((-height % 3) + 1, 0), max((-width % 3) + 1, 0)
    if bottom > 0 or right > 0:
        x = F.pad(x, (right // 2, right - right // 2, bottom // 2, bottom - bottom // 2))
    return F.avg_pool2d(x, 2, 2)


FOLLOWED = {
    "shape": Head(lambda m, x: F.avg_pool2d(x, 2) if x.shape[-2] < 9 else x, 64),
    "number of axes": Head(lambda m, x: x if x.ndim == 4 else x.unsqueeze(0)),
    "size and view": Head(lambda m, x: x.view(x.size(0), -1) if x.size(1) == 4 else x),
    "same padding": Head(same_padding, 100),
    "training flag": Head(lambda m, x: x if not m.training else x * torch.rand(1)),
    "length": Head(lambda m, x: x * 2 if len(x) else x),
    "mean over axes": Head(lambda m, x: x.mean(axis=(2, 3)), 4),
    "cat along an axis": Head(lambda m, x: torch.cat((x, 2 * x), axis=1), 512),
    "kept axes": Head(lambda m, x: x.mean(axis=-1, keepdims=True), 32),
    "subtraction from the right": Head(lambda m, x: 1 - x),
    "in place": Head(lambda m, x: x.mul_(2).add_(0.1)),
    "types": Head(lambda m, x: x.float().to(torch.float32).type_as(x)),
    "assertion": Head(lambda m, x: torch._assert(x.shape[1] == 4, "channels") or x),
}


@pytest.mark.parametrize("name", FOLLOWED)
def test_what_does_not_depend_on_values_is_followed(name: str) -> None:
    same(FOLLOWED[name])


def test_default_arguments_are_taken() -> None:
    class Flags(Head):
        def forward(self, x: Tensor, embed: bool = False, scale: float | None = None) -> Tensor:
            x = F.relu(self.conv(x))
            if embed:
                return x
            return self.fc(x.flatten(1) * (2.0 if scale is None else scale))

    same(Flags())


@pytest.mark.parametrize(
    "middle",
    [
        lambda m, x: x if x.sum() > 0 else -x,
        lambda m, x: x * float(x.mean()),
        lambda m, x: x * x.max().item(),
        lambda m, x: x * torch.tensor(x.detach().numpy()),
    ],
)
def test_decisions_on_values_are_refused_with_their_line(middle) -> None:
    with pytest.raises(ConversionError, match=r"cannot be traced at test_recording\.py:\d+: lam"):
        trace(Head(middle), X)


def test_the_line_is_kept_for_packages_whose_name_begins_with_torch() -> None:
    site = os.path.dirname(os.path.dirname(torch.__file__))
    path = os.path.join(site, "torchvision", "models", "a.py")
    assert _last_own([(path, 3, "x = f(x)")]) == "a.py:3: x = f(x)"
    assert _last_own([(os.path.join(site, "torch", "nn", "a.py"), 3, "x")]) == ""


@pytest.mark.parametrize(
    ("last", "note"),
    [
        (nn.Sigmoid(), "sigmoid at the output left out"),
        (nn.LogSigmoid(), "logsigmoid at the output"),
        (nn.Tanh(), "tanh at the output"),
        (nn.Softmax(1), "softmax at the output"),
    ],
    ids=str,
)
def test_activations_of_the_output_are_left_out_with_a_note(last: nn.Module, note: str) -> None:
    model = nn.Sequential(Head(), last)
    network = trace(model, X)
    assert note in network.notes[0]
    torch.testing.assert_close(network(X), model[0](X))


def test_functions_of_the_output_are_left_out_too() -> None:
    for function in (torch.sigmoid, F.logsigmoid, lambda y: F.normalize(y, dim=1), Tensor.tanh):

        class Ends(Head):
            def forward(self, x: Tensor) -> Tensor:
                return function(super().forward(x))  # noqa: B023

        network = trace(Ends(), X)
        torch.testing.assert_close(network(X), Head()(X))


# ---- wrappers and types --------------------------------------------------------------------------
def test_averaged_and_exported_models_are_taken_out_of_their_wrapping() -> None:
    model = Head().eval()
    averaged = torch.optim.swa_utils.AveragedModel(model)
    torch.testing.assert_close(trace(averaged, X)(X), model(X))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_models_convert_and_stay_in_their_type(dtype: torch.dtype) -> None:
    model = Head().eval().to(dtype)
    network = fs.convert(model, fs.TTFS(32), calibration=X)
    assert {p.dtype for p in network.parameters()} == {dtype}
    torch.testing.assert_close(network.float().analog(X), model.float()(X), rtol=1e-3, atol=1e-3)


class Extra(Head):
    def get_extra_state(self) -> dict:
        return {"version": 2}

    def set_extra_state(self, state: dict) -> None:
        pass


def test_extra_state_is_no_weight() -> None:
    same(Extra())


def test_hooks_that_change_values_are_part_of_the_model() -> None:
    model = Head()
    model.conv.register_forward_hook(lambda module, args, out: out * 2 + 0.1)
    same(model)


def dynamic_int8() -> nn.Module:
    linear = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, 3))
    return torch.ao.quantization.quantize_dynamic(linear, {nn.Linear}, dtype=torch.qint8)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_integer_weights_lazy_layers_and_the_meta_device_are_refused_by_name() -> None:
    with pytest.raises(ConversionError, match=r"as it was before .torch.ao.quantization.convert."):
        trace(dynamic_int8(), X)
    lazy = nn.Sequential(nn.Flatten(), nn.LazyLinear(8), nn.ReLU(), nn.Linear(8, 3))
    with pytest.raises(ConversionError, match=r"'1.weight' must be initialized, got a lazy layer"):
        trace(lazy, X)
    with pytest.raises(ConversionError, match="must have values, got one on the meta device"):
        trace(Head().to("meta"), X)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::UserWarning")
def test_quantization_aware_convolutions_keep_their_fake_quantization() -> None:
    from torch.ao import quantization

    model = nn.Sequential(Head().conv, nn.ReLU(), nn.Flatten(), nn.Linear(256, 5))
    weight_only = quantization.QConfig(
        activation=nn.Identity, weight=quantization.default_weight_fake_quant
    )
    model.qconfig = weight_only
    prepared = quantization.prepare_qat(model.train())
    prepared(X)
    network = same(prepared.eval())
    assert float((network(X) - model.eval()(X)).abs().max()) > 1e-4


@pytest.mark.parametrize("dtype", [torch.int32, torch.bfloat16])
def test_casts_that_round_are_refused(dtype: torch.dtype) -> None:
    with pytest.raises(ConversionError, match=f"it rounds values to {dtype}"):
        trace(Head(lambda m, x: x.to(dtype).to(x.dtype)), X)


def test_a_missing_batch_axis_is_named() -> None:
    with pytest.raises(ConversionError, match=r"runs on \(1, 3, 8, 8\): the batch axis is missing"):
        trace(Head(), X[0])


# ---- outputs of any form -------------------------------------------------------------------------
class Heads(nn.Module):
    def __init__(self, arrange) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.arrange = arrange
        self.conv, self.map = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 2, 1)
        self.fc = nn.Linear(256, 1)

    def forward(self, x: Tensor):
        x = F.relu(self.conv(x))
        return self.arrange(self.map(x), self.fc(x.flatten(1)), x)


FORMS = {
    "a map": lambda m, s, x: m,
    "a number": lambda m, s, x: s.squeeze(-1),
    "a tuple": lambda m, s, x: (m, s),
    "a dictionary": lambda m, s, x: OrderedDict(out=m, score=s, aux=None),
    "nested, with a population": lambda m, s, x: {"a": (x, [s, m]), "b": s},
    "the same twice": lambda m, s, x: (s, s, torch.sigmoid(m)),
}


def equal(a, b) -> None:
    torch.testing.assert_close(
        torch.utils._pytree.tree_leaves(a), torch.utils._pytree.tree_leaves(b), rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize("name", FORMS)
def test_outputs_come_back_as_the_model_returns_them(name: str, tmp_path) -> None:
    model = Heads(FORMS[name]).double().eval()
    x = X.double()
    network = fs.convert(model, fs.TTFS(64), calibration=x, normalization=fs.scales.Maximum())
    with torch.no_grad():
        expected = model(x)
        if name == "the same twice":
            expected = (*expected[:2], torch.logit(expected[2]))
        equal(network.analog(x), expected)
        said = network(x)
        assert type(said) is type(network.analog(x))
        errors = [
            float((a - b).abs().max())
            for a, b in zip(*map(torch.utils._pytree.tree_leaves, (said, expected)))
            if a is not None
        ]
        assert max(errors) < 0.2
        assert fs.engines.check_engines(network, x[:3]).explained
        network.save(tmp_path / "n.safetensors")
        equal(fs.SpikingNetwork.load(tmp_path / "n.safetensors")(x), said)


# ---- other threads -------------------------------------------------------------------------------
def test_four_threads_serve_while_others_convert() -> None:
    model = Head().eval()
    expected, stop, wrong = model(X), threading.Event(), []

    def serve() -> None:
        while not stop.is_set():
            try:
                if not torch.equal(model(X), expected):
                    wrong.append("other numbers")
            except Exception as error:
                wrong.append(repr(error))

    def change() -> None:
        for _ in range(5):
            try:
                trace(model, X)
            except Exception as error:
                wrong.append(repr(error))

    servers = [threading.Thread(target=serve) for _ in range(4)]
    converters = [threading.Thread(target=change) for _ in range(2)]
    for thread in servers + converters:
        thread.start()
    for thread in converters:
        thread.join()
    stop.set()
    for thread in servers:
        thread.join()
    assert wrong == []
    assert "forward" not in model.conv.__dict__

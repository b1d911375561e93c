"""What conversion reads of a model and what it leaves alone: state, weights, views, containers."""

import copy
import random
from collections import namedtuple

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import firstspike as fs
from firstspike.networks import ops
from firstspike.networks.check import check
from firstspike.networks.errors import ConversionError
from firstspike.networks.ops import OPS, WeightOp
from firstspike.networks.register import register_operation
from firstspike.networks.trace import trace


class Model(nn.Module):
    """Two layers around a function of the module and the first layer's output."""

    def __init__(self, between, **parts):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 5, 1)
        self.between, self.calls, self.kept = between, 0, None
        for name, part in parts.items():
            setattr(self, name, part)

    def forward(self, x):
        self.calls += 1
        return self.last(self.between(self, self.first(x)))


def batch_norm(channels=8):
    norm = nn.BatchNorm2d(channels)
    nn.init.uniform_(norm.weight, 0.5, 2.0)
    norm.running_mean.normal_()
    norm.running_var.uniform_(0.5, 2.0)
    return norm


def remembers(model, h):
    model.kept = h if model.kept is None else 0.5 * model.kept.mean(0) + h
    return F.relu(model.kept)


def changes_its_branch(model, h):
    return F.relu(h) if model.calls == 1 else F.relu(-h)


STATES = {
    "counts": lambda m, h: F.relu(h) + m.calls,
    "remembers": remembers,
    "changes its branch": changes_its_branch,
    "draws its own numbers": lambda m, h: F.relu(h) * m.generator.random(),
    "buffer": lambda m, h: F.relu(h * m.scale.mul_(1.5)),
}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", STATES)
def test_models_with_state_are_refused(name, dtype):
    torch.manual_seed(0)
    model = Model(STATES[name], generator=random.Random(3))
    model.register_buffer("scale", torch.ones(8, 1, 1))
    with pytest.raises(ConversionError, match="The model may keep state"):
        trace(model.to(dtype).eval(), torch.rand(8, 3, 6, 6, dtype=dtype))
    assert not check(model, torch.rand(8, 3, 6, 6, dtype=dtype)).converts


def _returns_parts(model, h):
    left, right = h.chunk(2, 1)
    h = model.drop(h)
    h.clamp_(max=0.5)
    return F.relu(torch.cat([right, left], 1))


def _unbinds(model, h):
    rows = h.unbind(1)
    h = h.detach()
    h.mul_(2.0)
    return F.relu(torch.stack([rows[i] for i in range(7, -1, -1)], 1))


@torch.no_grad()
@pytest.mark.parametrize("side", [6, 96])  # small and large values are kept in different ways
@pytest.mark.parametrize("between", [_returns_parts, _unbinds])
def test_parts_see_what_became_of_the_whole(between, side):
    torch.manual_seed(0)
    model = Model(between, drop=nn.Dropout()).eval()
    x = torch.rand(4, 3, side, side)
    network = trace(model, x)
    other = 3 * torch.randn(4, 3, side, side)
    torch.testing.assert_close(network(other).view(4, 5, side, side), model(other))


def _clips_a_view(model, h):
    F.relu6(h[:, :4], inplace=True)
    return F.relu(h)


def _clips_a_part(model, h):
    left, _ = h.chunk(2, 1)
    left.clamp_(max=4.0)
    return F.relu(h)


def _clips_flat(model, h):
    h.flatten(1).clamp_(max=4.0)
    return F.relu(h)


def _reads_an_old_view(model, h):
    left = h[:, :4]
    h.clamp_(max=5.0)
    return F.relu(torch.cat([left, left], 1))


def _sets_a_part(model, h):
    h[:, :2] = 4.0
    return F.relu(h)


def _transposed(model, h):
    turned = h.transpose(2, 3)
    h.clamp_(max=4.0)
    return F.relu(turned)


def _parts_of_a_part(model, h):
    quarter = h.chunk(2, 1)[1].chunk(2, 1)
    h = model.drop(h)
    F.relu(h, inplace=True)
    return torch.cat([quarter[1], quarter[0]] * 2, 1)


VIEWS = (
    *(_clips_a_view, _clips_a_part, _clips_flat),
    *(_reads_an_old_view, _sets_a_part, _transposed, _parts_of_a_part),
)


@pytest.mark.parametrize("between", VIEWS)
def test_memory_changed_through_another_view_is_refused_by_name(between):
    """Also where the samples do not show the difference."""
    model, x = Model(between, drop=nn.Dropout()).eval(), torch.rand(4, 3, 6, 6)
    with pytest.raises(ConversionError, match=r"changes memory in place .* another view") as error:
        trace(model, x)
    assert "test_models_left_alone.py" in str(error.value)
    assert not check(model, x).converts


@torch.no_grad()
def test_other_parts_of_changed_memory_may_be_read():
    torch.manual_seed(0)

    def between(model, h):
        left, right = h.chunk(2, 1)
        left.clamp_(max=0.3)
        return F.relu(torch.cat([right, left], 1))

    model, x = Model(between).eval(), torch.randn(4, 3, 6, 6)
    torch.testing.assert_close(trace(model, x)(x).view(4, 5, 6, 6), model(x))


class Sharing(Model):
    """Copies share a layer on purpose."""

    def __deepcopy__(self, memo):
        twin = Model(self.between, norm=copy.deepcopy(self.norm), relu=nn.ReLU())
        twin.first, twin.last, twin.last.bias = self.first, self.last, self.last.bias
        return twin


FAR_AWAY = nn.Conv2d(8, 8, 1)


def attaches(model, h):
    if not hasattr(model, "attached"):
        model.attached = FAR_AWAY
    return F.relu(model.norm(model.attached(h)))


@pytest.mark.parametrize("look", [trace, check])
def test_weights_outside_the_copy_stay_as_they_are(look):
    torch.manual_seed(0)
    x = torch.rand(4, 3, 6, 6)
    shared = Sharing(lambda m, h: F.relu(m.norm(h)), norm=batch_norm()).eval()
    lazy = Model(attaches, norm=batch_norm()).eval()
    tensors = [*shared.parameters(), *lazy.parameters(), *FAR_AWAY.parameters()]
    before = [t.detach().clone() for t in tensors]
    for model in (shared, lazy):
        look(model, x)
    assert all(torch.equal(a, b) for a, b in zip(tensors, before))


def test_layers_that_a_copy_shares_keep_their_mode_and_type():
    model = Sharing(lambda m, h: F.relu(m.norm(h)) + m.calls, norm=batch_norm()).train()
    with pytest.raises(ConversionError, match="The model may keep state"):  # float64 decides
        trace(model, torch.rand(4, 3, 6, 6))
    assert all(module.training for module in model.modules())
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_a_registered_operation_keeps_its_tensors(monkeypatch):
    blur = torch.rand(8, 8, 3, 3)

    class Blur(nn.Module):
        def forward(self, x):
            return F.conv2d(x, blur, padding=1)

    class Own(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.randn(8, 8, 3, 3))

        def forward(self, x):
            return F.conv2d(x, self.weight, padding=1)

    class Filter(WeightOp):
        pass

    def handler(weight):
        return lambda h, n, a: h.add(
            n, ops.Convolution({"weight": weight(a), "bias": None}, padding=1)
        )

    monkeypatch.setitem(OPS, "Filter", Filter)  # and gone afterwards
    register_operation(
        Filter, {Blur: handler(lambda a: blur), Own: handler(lambda a: a["weight"].detach())}
    )
    torch.manual_seed(0)
    parts = {"blur": Blur(), "own": Own(), "a": batch_norm(), "b": batch_norm()}
    once = Model(lambda m, h: F.relu(m.a(m.blur(h))), **parts).eval()
    twice = Model(lambda m, h: F.relu(m.a(m.own(h)) - m.b(m.own(h))), **parts).eval()
    x, before = torch.rand(4, 3, 6, 6), blur.clone()
    for model in (once, twice):
        with torch.no_grad():
            network = trace(model, x)
            torch.testing.assert_close(network(x).view(4, 5, 6, 6), model(x))
    assert torch.equal(blur, before)


class Checked(namedtuple("Checked", "outputs features")):
    """A result that insists on its values."""

    def __new__(cls, outputs, features):
        assert outputs is not None
        return super().__new__(cls, outputs, features)


def test_a_result_may_insist_on_its_values():
    class Twofold(Model):
        def forward(self, x):
            said = super().forward(x)
            return Checked(said, F.relu(said))

    network = trace(Twofold(lambda m, h: F.relu(h)).eval(), torch.rand(4, 3, 6, 6))
    assert network(torch.rand(2, 3, 6, 6)).shape == (2, 2 * 5 * 36)


@torch.no_grad()
@pytest.mark.parametrize("how", ["type_as", "expand_as", "to"])
def test_a_constant_may_take_type_and_shape_from_the_input(how):
    torch.manual_seed(0)
    model = Model(lambda m, h: F.relu(h + getattr(m.shift, how)(h))).eval()
    model.register_buffer("shift", torch.randn(1, 8, 1, 1))
    x = torch.rand(4, 3, 6, 6)
    torch.testing.assert_close(trace(model, x)(x).view(4, 5, 6, 6), model(x))


def test_pools_that_return_indices_are_refused():
    for pool in (
        nn.MaxPool2d(2, return_indices=True),
        nn.AdaptiveMaxPool2d(2, return_indices=True),
    ):
        model = Model(lambda m, h: m.pool(F.relu(h))[0], pool=pool).eval()
        with pytest.raises(ConversionError, match="pool with return_indices=False"):
            fs.convert(model, fs.TTFS(8), calibration=torch.rand(8, 3, 6, 6))

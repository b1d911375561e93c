"""Every operation answers every question that is asked of it, as single values sent through it do.

An operation that joins `OPS` without a case here fails the first test.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from firstspike.networks import ops
from firstspike.networks.ops import OPS, IndexMap, MaxPool, Op, Rectifier, WeightOp
from firstspike.networks.ops.op import Links
from firstspike.networks.ops.probing import probe


@dataclass(frozen=True)
class Case:
    """An operation with the shapes of its inputs, for one sample."""

    op: Op
    shapes: tuple[tuple[int, ...], ...]


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def layer(kind: type[Op], *weight: int, channels: int, **hyper: object) -> Op:
    return kind({"weight": drawn(*weight), "bias": drawn(channels)}, **hyper)


def batch_norm() -> Op:
    tensors = {"weight": drawn(3), "bias": None, "running_mean": drawn(3)}
    return ops.BatchNorm(tensors | {"running_var": drawn(3).square()}, momentum=0.1, eps=1e-5)


def interpolation(dims: int = 2, **hyper: object) -> Op:
    plain = {"factors": None, "cubic": False, "align_corners": False}
    return ops.Interpolate(dims=dims, **(plain | hyper))


def pool(kind: type[Op], dims: int = 2, **hyper: object) -> Op:
    return kind(dims=dims, **hyper)


def cases() -> dict[str, Case]:
    torch.manual_seed(0)
    conv, turned = ops.Convolution, ops.TransposedConvolution
    plain = {"stride": 1, "padding": 1, "dilation": 1, "groups": 1}
    image = ((3, 6, 7),)
    average, adaptive = ops.AveragePool, ops.AdaptiveAveragePool
    found = {
        "Convolution": Case(layer(conv, 4, 3, 3, 3, channels=4, **plain), image),
        "Convolution, strided": Case(
            layer(conv, 4, 3, 3, 2, channels=4, stride=(2, 1), padding=(0, 1)), image
        ),
        "Convolution, groups": Case(
            layer(conv, 6, 1, 3, 3, channels=6, groups=3, dilation=2, padding="same"), image
        ),
        "Convolution, 1-D": Case(layer(conv, 2, 3, 3, channels=2, stride=2), ((3, 9),)),
        "Convolution, 3-D": Case(layer(conv, 2, 2, 2, 1, 2, channels=2), ((2, 3, 2, 3),)),
        "TransposedConvolution": Case(
            layer(turned, 3, 2, 3, 3, channels=2, stride=2, padding=1, output_padding=1), image
        ),
        "TransposedConvolution, groups": Case(
            layer(turned, 4, 2, 2, 2, channels=4, stride=2, groups=2), ((4, 3, 3),)
        ),
        "Dense": Case(layer(ops.Dense, 5, 7, channels=5), ((7,),)),
        "Dense, last axis": Case(layer(ops.Dense, 5, 7, channels=5), ((3, 7),)),
        "Affine": Case(ops.Affine({"scale": drawn(3, 1, 1), "shift": drawn(3, 1, 1)}), image),
        "Affine, by position": Case(ops.Affine({"scale": drawn(6, 7), "shift": None}), image),
        "Affine, by value": Case(ops.Affine({"scale": drawn(3, 6, 7), "shift": None}), image),
        "Affine, shift": Case(ops.Affine({"scale": None, "shift": drawn()}), image),
        "BatchNorm": Case(batch_norm().eval(), image),
        "Add": Case(ops.Add(coefficients=(1.0, -0.5, 2.0)), image * 3),
        "Concatenate": Case(ops.Concatenate(dim=1), ((3, 2, 2), (1, 2, 2))),
        "Concatenate, columns": Case(ops.Concatenate(dim=3), ((3, 2, 2), (3, 2, 1))),
        "Reshape": Case(ops.Reshape(shape=(126,)), image),
        "Pad": Case(ops.Pad(pad=(1, 0, -1, 2)), image),
        "Pad, channels": Case(ops.Pad(pad=(0, 0, 0, 0, 1, 2)), image),
        "Gather": Case(ops.maps.gather(lambda x: x[:, [2, 0, 2], ::2].flip(-1), (3, 6, 7)), image),
        "Gather, zeros": Case(
            ops.maps.gather(lambda x: F.unfold(x, 3, padding=1), (3, 6, 7)), image
        ),
        "Interpolate": Case(interpolation(output_size=(9, 5), align_corners=True), image),
        "Interpolate, factors": Case(
            interpolation(output_size=(12, 10), factors=(2.0, 1.5), cubic=True), image
        ),
        "Interpolate, 1-D": Case(interpolation(dims=1, output_size=(4,)), ((3, 9),)),
        "Sum": Case(ops.Sum(dim=(1, 3), keepdim=True), image),
        "AveragePool": Case(pool(average, kernel_size=2), image),
        "AveragePool, overlapping": Case(
            pool(average, kernel_size=(3, 2), stride=(2, 1), padding=1, ceil_mode=True), image
        ),
        "AveragePool, rest": Case(
            pool(average, kernel_size=3, stride=2, padding=1, count_include_pad=False), image
        ),
        "AveragePool, divisor": Case(pool(average, kernel_size=2, divisor_override=3), image),
        "AveragePool, 1-D": Case(pool(average, 1, kernel_size=2, stride=()), ((3, 7),)),
        "AdaptiveAveragePool": Case(pool(adaptive, output_size=(3, 4)), image),
        "AdaptiveAveragePool, 3-D": Case(pool(adaptive, 3, output_size=2), ((2, 3, 2, 3),)),
        "Mean": Case(ops.Mean(dim=(2, 3), keepdim=False), image),
        "Mean, kept": Case(ops.Mean(dim=(3,), keepdim=True), image),
        "Mean, channels": Case(ops.Mean(dim=(1,), keepdim=False), image),
        "MaxPool": Case(pool(MaxPool, kernel_size=3, stride=2, padding=1, ceil_mode=True), image),
        "MaxPool, dilated": Case(pool(MaxPool, kernel_size=2, stride=(1, 2), dilation=2), image),
        "MaxPool, adaptive": Case(pool(MaxPool, output_size=(3, 2)), image),
        "Rectifier": Case(Rectifier(clip=None), image),
    }
    return {name: Case(case.op.double(), case.shapes) for name, case in found.items()}


CASES = cases()
WEIGHT_OPS = {n: c for n, c in CASES.items() if isinstance(c.op, WeightOp)}
by_name = pytest.mark.parametrize("case", WEIGHT_OPS.values(), ids=WEIGHT_OPS.keys())


def test_every_operation_has_a_case_and_is_of_a_known_kind() -> None:
    ours = {name for name, op in OPS.items() if op.__module__.startswith("firstspike.")}
    assert {type(case.op).__name__ for case in CASES.values()} == ours
    assert all(issubclass(op, WeightOp | MaxPool | Rectifier) for op in OPS.values())


def inputs(shapes: Sequence[Sequence[int]]) -> list[Tensor]:
    return [torch.rand(4, *shape, dtype=torch.float64) for shape in shapes]


def summed(found: Sequence[Links], x: Sequence[Tensor], shape: torch.Size, what: str) -> Tensor:
    """Sum over links of 1, |weight| or weight times the input."""
    total = torch.zeros(len(x[0]), shape.numel(), dtype=torch.float64)
    for (target, source, weight), a in zip(found, x):
        factor = {"one": torch.ones_like(weight), "size": weight.abs(), "weight": weight}[what]
        total.index_add_(1, target, a.flatten(1)[:, source] * factor)
    return total.reshape(-1, *shape)


@by_name
def test_answers_are_those_of_single_values(case: Case) -> None:
    op, x = case.op, inputs(case.shapes)
    with torch.no_grad():
        out, silent = op(*x), op(*(torch.zeros_like(a) for a in x))
        assert torch.equal(op.resolve()(*x), out)
        found = [Links(*links) for links in probe(op, case.shapes)]
        torch.testing.assert_close(op.linear(*x) + silent, out)
        torch.testing.assert_close(summed(found, x, out.shape[1:], "weight"), op.linear(*x))
        torch.testing.assert_close(op.structure(*x), summed(found, x, out.shape[1:], "one"))
        bound = summed(found, x, out.shape[1:], "size") + silent.abs()
        torch.testing.assert_close(op.magnitude(*x), bound)
        assert op.passes_spikes == isinstance(op, IndexMap)
        if op.passes_spikes:
            assert all(bool((links.weight == 1).all()) for links in found)
            assert all(int(torch.bincount(links.target).max()) == 1 for links in found)


@by_name
def test_links_are_those_of_single_values(case: Case) -> None:
    for given, found in zip(case.op.links(*case.shapes), probe(case.op, case.shapes)):
        assert sorted(zip(*(t.tolist() for t in given))) == sorted(
            zip(*(t.tolist() for t in found))
        )


@by_name
def test_taps_are_the_same_links(case: Case) -> None:
    with torch.no_grad():
        shape = case.op(*inputs(case.shapes)).shape[1:]
    for taps, found in zip(case.op.taps(case.shapes, shape), probe(case.op, case.shapes)):
        dense = torch.zeros(taps.shape_out + taps.shape_in, dtype=torch.float64)  # (D, Q, C, P)
        matrices = taps.matrices()
        for q, p, k, f in zip(taps.q, taps.p, taps.k, taps.f):
            dense[:, q, :, p] += f * matrices[k].T
        target, source, weight = found
        expected = torch.zeros(dense[:, :, 0, 0].numel(), dense[0, 0].numel(), dtype=torch.float64)
        expected[target, source] = weight
        torch.testing.assert_close(dense.reshape(expected.shape), expected)


@by_name
def test_structure_counts_integers_and_has_a_gradient(case: Case) -> None:
    ones = [torch.ones(1, *shape, dtype=torch.float64, requires_grad=True) for shape in case.shapes]
    total = case.op.structure(*ones)
    assert torch.equal(total.detach(), total.detach().round())
    gradients = torch.autograd.grad(total.sum(), ones)
    found = probe(case.op, case.shapes)
    for gradient, (_, source, _) in zip(gradients, found):
        expected = torch.bincount(source, minlength=gradient.numel()).double()
        assert torch.equal(gradient.flatten(), expected)


@pytest.mark.parametrize("name", [name for name in CASES if name.startswith("MaxPool")])
def test_all_of_a_window_is_heard_through_a_max_pool(name: str) -> None:
    op, (shape,) = CASES[name].op, CASES[name].shapes
    size = torch.Size(shape).numel()
    eye = torch.eye(size, dtype=torch.float64).reshape(-1, *shape)
    assert torch.equal(op.structure(eye), (op(eye) > 0).double())
    assert torch.equal(op.magnitude(eye), op(eye)) and op.passes_spikes


def test_weights_and_biases_are_the_tensors_that_multiply_and_add() -> None:
    for case in CASES.values():
        named = {type(case.op).__name__: (case.op.weights, case.op.biases)}
        for weights, biases in named.values():
            own = dict(case.op.named_parameters())
            assert weights is own.get(case.op.multiplies or "")
            assert biases is own.get(case.op.adds or "")


class Doubled(WeightOp):
    """An operation that answers nothing but what it computes: neighbours, twice, and a shift."""

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(x) + 0.5

    def linear(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return 2 * x - x.roll(1, -1) * self.weight


def test_defaults_find_links_of_any_linear_operation_weights_of_zero_included() -> None:
    op = Doubled({"weight": torch.tensor([0.0, 3.0, -1.0])})
    (links,) = op.links((3,))
    assert sorted(zip(links.target.tolist(), links.source.tolist(), links.weight.tolist())) == [
        (0, 0, 2), (0, 2, 0), (1, 0, -3), (1, 1, 2), (2, 1, 1), (2, 2, 2),
    ]  # fmt: skip
    x = torch.tensor([[1.0, 10.0, 100.0]])
    assert op.structure(x).tolist() == [[101, 11, 110]]
    assert op.magnitude(x).tolist() == [[2.5, 23.5, 210.5]]


def test_an_operation_too_large_to_probe_says_so() -> None:
    with pytest.raises(ValueError, match=r"must answer for its own links.*Define `links`"):
        Doubled({"weight": torch.ones(1)}).links((1 << 18,))

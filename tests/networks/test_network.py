"""Operations and the network they make up: the contract engines rely on."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor

from firstspike.networks.network import INPUT, Network, Node
from firstspike.networks.ops import (
    OPS,
    AdaptiveAveragePool,
    Add,
    Affine,
    AveragePool,
    BatchNorm,
    Concatenate,
    Convolution,
    Dense,
    Interpolate,
    MaxPool,
    Mean,
    Op,
    Pad,
    Rectifier,
    Reshape,
    Sum,
    TransposedConvolution,
    WeightOp,
    describe_op,
)
from firstspike.networks.ops.maps import gather
from firstspike.networks.rebuild import build_op, rebuild


def rand(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(sum(shape))).double() - 0.4


def made(kind: type[Op], *, hyper: dict | None = None, **tensors: Tensor | None) -> Op:
    return kind(tensors or None, **(hyper or {}))


norm = {"running_mean": rand(3), "running_var": rand(3).abs() + 0.1}
EXAMPLES: list[tuple[Op, list[Tensor]]] = [
    (made(Convolution, weight=rand(4, 3, 3, 3), bias=rand(4)), [rand(2, 3, 6, 6)]),
    (
        made(
            Convolution,
            weight=rand(4, 1, 3),
            bias=None,
            hyper={"stride": (2,), "padding": "valid", "groups": 3 - 2},
        ),
        [rand(2, 1, 9)],
    ),
    (
        made(
            TransposedConvolution,
            weight=rand(3, 4, 2, 2),
            bias=rand(4),
            hyper={"stride": (2, 2), "output_padding": (1, 1)},
        ),
        [rand(2, 3, 4, 4)],
    ),
    (made(Dense, weight=rand(4, 5), bias=rand(4)), [rand(2, 5)]),
    (made(Dense, weight=rand(4, 5), bias=None), [rand(2, 3, 5)]),
    (made(Affine, scale=rand(3, 1, 1), shift=rand(3, 1, 1)), [rand(2, 3, 4, 4)]),
    (made(Affine, scale=None, shift=rand(4)), [rand(2, 3, 4, 4)]),
    (made(Affine, scale=torch.tensor(2.0).double(), shift=None), [rand(2, 3)]),
    (
        made(
            BatchNorm, weight=rand(3), bias=rand(3), hyper={"momentum": 0.1, "eps": 1e-5}, **norm
        ).eval(),
        [rand(2, 3, 4, 4)],
    ),
    (made(Add, hyper={"coefficients": (1.0, -0.5, 2.0)}), [rand(2, 3), rand(2, 3), rand(2, 3)]),
    (made(Add, hyper={"coefficients": (3.0, 1.0)}), [rand(2, 3), rand(2, 3)]),
    (made(Concatenate, hyper={"dim": 1}), [rand(2, 3, 4), rand(2, 1, 4)]),
    (made(Reshape, hyper={"shape": (6, 2)}), [rand(2, 3, 4)]),
    (made(Pad, hyper={"pad": (1, 0, 2, 1)}), [rand(2, 3, 4)]),
    (made(AveragePool, hyper={"dims": 2, "kernel_size": 3, "padding": 1}), [rand(2, 3, 5, 5)]),
    (made(AdaptiveAveragePool, hyper={"dims": 1, "output_size": (2,)}), [rand(2, 3, 5)]),
    (made(Mean, hyper={"dim": (2, 3), "keepdim": False}), [rand(2, 3, 5, 5)]),
    (made(MaxPool, hyper={"dims": 2, "kernel_size": 2}), [rand(2, 3, 4, 4)]),
    (made(MaxPool, hyper={"dims": 1, "output_size": (2,)}), [rand(2, 3, 4)]),
    (made(Sum, hyper={"dim": (1, 3), "keepdim": True}), [rand(2, 3, 5, 5)]),
    (
        made(
            Interpolate,
            hyper={
                "dims": 2,
                "output_size": (9, 5),
                "align_corners": True,
                "cubic": False,
                "factors": None,
            },
        ),
        [rand(2, 3, 4, 4)],
    ),
    (gather(lambda x: x[:, [2, 0, 2], ::2].flip(-1), (3, 6, 7)), [rand(2, 3, 6, 7)]),
    (made(Rectifier, hyper={"clip": None}), [rand(2, 3)]),
    (made(Rectifier, hyper={"clip": 0.2}), [rand(2, 3)]),
]


def test_every_operation_is_an_example() -> None:
    ours = {op for op in OPS.values() if op.__module__.startswith("firstspike.")}
    assert {type(op) for op, _ in EXAMPLES} == ours


@pytest.mark.parametrize(("op", "x"), EXAMPLES, ids=[type(op).__name__ for op, _ in EXAMPLES])
def test_weight_operations_are_affine_and_linear_is_their_slope(op: Op, x: list[Tensor]) -> None:
    """forward(x) = linear(x) + forward(0), and linear adds up: what engines sum over steps."""
    zeros = [torch.zeros_like(v) for v in x]
    if not isinstance(op, WeightOp):
        assert not op(*zeros).any()
        return
    torch.testing.assert_close(op(*x), op.linear(*x) + op(*zeros))
    parts = [rand(*v.shape).roll(1) for v in x]
    rest = [v - p for v, p in zip(x, parts)]
    torch.testing.assert_close(op.linear(*x), op.linear(*parts) + op.linear(*rest))
    torch.testing.assert_close(
        torch.cat([op(*(v[:1] for v in x)), op(*(v[1:] for v in x))]), op(*x)
    )


@pytest.mark.parametrize(("op", "x"), EXAMPLES, ids=[type(op).__name__ for op, _ in EXAMPLES])
def test_operations_survive_json(op: Op, x: list[Tensor]) -> None:
    again = build_op(json.loads(json.dumps(describe_op(op))), op.state_dict()).eval()
    assert type(again) is type(op) and torch.equal(again(*x), op(*x))
    assert repr(again) == repr(op)


def diamond() -> Network:
    """input -> a -> p -> {b -> q -> pool, c} -> sum -> out: two populations, one of them pooled."""
    nodes = [
        Node(INPUT, (), (1, 4)),
        Node("a", (INPUT,), (2, 4)),
        Node("p", ("a",), (2, 4)),
        Node("b", ("p",), (2, 4)),
        Node("q", ("b",), (2, 4)),
        Node("pool", ("q",), (2, 2)),
        Node("c", ("p",), (2, 2)),
        Node("sum", ("pool", "c"), (2, 2)),
        Node("flat", ("sum",), (4,)),
        Node("out", ("flat",), (3,)),
    ]
    ops: dict[str, Op] = {
        "a": made(Convolution, weight=rand(2, 1, 1), bias=rand(2)),
        "p": made(Rectifier, hyper={"clip": None}),
        "b": made(Convolution, weight=rand(2, 2, 1), bias=rand(2)),
        "q": made(Rectifier, hyper={"clip": 0.3}),
        "pool": made(MaxPool, hyper={"dims": 1, "kernel_size": 2}),
        "c": made(AveragePool, hyper={"dims": 1, "kernel_size": 2}),
        "sum": made(Add, hyper={"coefficients": (1.0, 1.0)}),
        "flat": made(Reshape, hyper={"shape": (4,)}),
        "out": made(Dense, weight=rand(3, 4), bias=rand(3)),
    }
    return Network(nodes, ops, ["a note"])


def test_structure() -> None:
    network = diamond()
    assert network.populations == ("p", "q") and network.max_pools() == ("pool",)
    assert [network.depth[n] for n in (INPUT, "a", "p", "c", "q", "sum", "out")] == [
        0,
        0,
        1,
        1,
        2,
        2,
        2,
    ]
    assert network.uses("p") == 2 and network.uses("out") == 0
    assert network.is_population("q") and not network.is_population(INPUT)
    assert network.output.name == "out" and network.input_shape == (1, 4)
    assert set(network.weight_ops()) == {"a", "b", "c", "sum", "flat", "out"}


def test_segments_lead_from_populations_to_their_target() -> None:
    network = diamond()
    nodes, sources = network.segment("out")
    assert [n.name for n in nodes] == ["pool", "c", "sum", "flat", "out"] and sources == ("p", "q")
    nodes, sources = network.segment("q")
    assert [n.name for n in nodes] == ["b"] and sources == ("p",)
    nodes, sources = network.segment("p")
    assert [n.name for n in nodes] == ["a"] and sources == (INPUT,)
    x = rand(5, 1, 4)
    values: dict[str, Tensor] = {}

    def watch(name: str, u: Tensor) -> Tensor:
        values[name] = u if name == INPUT else network.op(name)(u)
        return values[name]

    out = network.evaluate(x, watch)
    for target, expected in (("out", out), ("q", None)):
        nodes, sources = network.segment(target)
        got = network.run_segment(nodes, {s: values[s] for s in sources})
        assert torch.equal(
            got if expected is not None else network.op("q")(got),
            out if expected is not None else values["q"],
        )


def test_pooling_first_changes_nothing_but_the_work() -> None:
    network, x, seen = diamond(), rand(5, 1, 4), {}

    def activate(name: str, u: Tensor) -> Tensor:
        seen[name] = u.shape
        return u if name == INPUT else network.op(name)(u)

    plain = network.evaluate(x, activate)
    assert seen["q"] == (5, 2, 4)
    assert torch.equal(network.evaluate(x, activate, pool_first=True), plain)
    assert seen["q"] == (5, 2, 2) and torch.equal(network(x), plain)


def test_description_round_trip() -> None:
    network = diamond()
    again = rebuild(json.loads(json.dumps(network.describe())), network.state_dict())
    assert again.nodes == network.nodes and again.notes == ("a note",)
    x = rand(3, 1, 4)
    assert torch.equal(again(x), network(x))


def test_inputs_are_checked() -> None:
    network = diamond()
    for x in (rand(1, 4), rand(2, 1, 5), rand(2, 1, 4, 1)):
        with pytest.raises(ValueError, match=r"`x` must have shape \(batch, 1, 4\), got"):
            network(x)
    with pytest.raises(TypeError, match=r"floating-point tensor, got torch\.int64"):
        network(torch.ones(2, 1, 4).long())

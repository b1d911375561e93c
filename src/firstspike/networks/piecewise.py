"""Piecewise linear functions as populations: each is one or two rectifiers and an affine map."""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx, nn

from firstspike.networks.chain import Chain, channel_view
from firstspike.networks.handlers import ADVICE_RELU, Handlers
from firstspike.networks.ops import Add, Rectifier


def leaky_relu(handlers: Handlers, node: fx.Node, a: dict[str, Any]) -> None:
    """`relu(x) - slope * relu(-x)`."""
    slope = a.get("negative_slope", 0.01)
    if "lower" in a:  # RReLU in evaluation
        slope = (a["lower"] + a["upper"]) / 2
    _two_sided(handlers, node, float(slope))


def prelu(handlers: Handlers, node: fx.Node, a: dict[str, Any]) -> None:
    """As `leaky_relu`, with a slope per channel."""
    if isinstance(a["weight"], fx.Node):
        handlers.builder.refuse(node, "its slopes depend on the input", "use fixed slopes")
    _two_sided(handlers, node, channel_view(a["weight"].detach(), handlers.builder.shape(node)))


def absolute(handlers: Handlers, node: fx.Node, a: dict[str, Any]) -> None:
    """`relu(x) + relu(-x)`."""
    _two_sided(handlers, node, -1.0)


def _two_sided(handlers: Handlers, node: fx.Node, slope: float | Tensor) -> None:
    chain = Chain(handlers, node)
    x = chain.of(handlers.source(node))
    up, down = chain.rectified(x, 1.0, 0.0), chain.rectified(x, -1.0, 0.0)
    if isinstance(slope, Tensor):
        down, slope = chain.affine(down, slope, 0.0), 1.0
    chain.finish(chain(Add(coefficients=(1.0, -slope)), up, down))


def soft_shrink(handlers: Handlers, node: fx.Node, a: dict[str, Any]) -> None:
    """`relu(x - l) - relu(-x - l)`."""
    chain, width = Chain(handlers, node), float(a.get("lambd", 0.5))
    x = chain.of(handlers.source(node))
    up, down = chain.rectified(x, 1.0, -width), chain.rectified(x, -1.0, -width)
    chain.finish(chain(Add(coefficients=(1.0, -1.0)), up, down))


def maximum(handlers: Handlers, node: fx.Node, a: dict[str, Any]) -> None:
    """`b + relu(a - b)`."""
    _extreme(handlers, node, a, 1.0)


def minimum(handlers: Handlers, node: fx.Node, a: dict[str, Any]) -> None:
    """`b - relu(b - a)`."""
    _extreme(handlers, node, a, -1.0)


def _extreme(handlers: Handlers, node: fx.Node, a: dict[str, Any], sign: float) -> None:
    chain, left, right = Chain(handlers, node), handlers.source(node), a["other"]
    builder = handlers.builder
    signals = [n for n in (left, right) if isinstance(n, fx.Node)]
    if any(builder.shape(n) != builder.shape(node) for n in signals):
        builder.refuse(node, "it broadcasts one operand", "compare equal shapes")
    if len(signals) == 2:
        x, y = chain.of(left), chain.of(right)
        more = chain(Rectifier(clip=None), chain(Add(coefficients=(sign, -sign)), x, y))
        return chain.finish(chain(Add(coefficients=(1.0, sign)), y, more))
    constant = handlers.constant_tensor(node, right if isinstance(left, fx.Node) else left)
    _bounded(chain, chain.of(signals[0]), sign, constant)


def _bounded(chain: Chain, x: str, sign: float, bound: Tensor | float) -> None:
    """`max(x, bound)`, with `sign` -1 `min(x, bound)`."""
    chain.finish(chain.affine(chain.rectified(x, sign, -sign * bound), sign, bound))


def clamp(handlers: Handlers, node: fx.Node, a: dict[str, Any]) -> None:
    """`low + min(relu(x - low), high - low)`; of a population, its ceiling."""
    builder, chain = handlers.builder, Chain(handlers, node)
    bounds = [a.get("min", a.get("min_val")), a.get("max", a.get("max_val"))]
    if node.target is F.hardtanh:
        bounds = [d if b is None else b for b, d in zip(bounds, (-1.0, 1.0))]
    if any(isinstance(b, fx.Node) or (isinstance(b, Tensor) and b.numel() != 1) for b in bounds):
        builder.refuse(node, "its bounds are not single numbers", "clamp between two numbers")
    low, high = (None if bound is None else float(bound) for bound in bounds)
    signal = handlers.source(node)
    x = chain.of(signal)
    if low is not None and high is not None and high <= low:
        builder.refuse(node, f"it clamps to [{low}, {high}], which holds one number", ADVICE_RELU)
    said = builder.ops.get(x)
    if isinstance(said, Rectifier) and (low is None or low <= 0) and (high is None or high > 0):
        if high is None:
            return builder.same(node, signal)
        clips = [c for c in (high, said.hyper["clip"]) if c is not None]
        below = next(n.inputs[0] for n in builder.nodes if n.name == x)
        return chain.finish(chain(Rectifier(clip=min(clips)), below))
    if low is None:
        assert high is not None
        return _bounded(chain, x, -1.0, high)
    clip = None if high is None else high - low
    chain.finish(chain.affine(chain.rectified(x, 1.0, -low, clip), 1.0, low))


def threshold(handlers: Handlers, node: fx.Node, a: dict[str, Any]) -> None:
    """`max(x, threshold)` where it does not jump."""
    if float(a["threshold"]) != float(a["value"]):
        handlers.builder.refuse(
            node, f"it jumps from {a['value']} to {a['threshold']}", "set value to the threshold"
        )
    chain = Chain(handlers, node)
    _bounded(chain, chain.of(handlers.source(node)), 1.0, float(a["threshold"]))


def hard_sigmoid(handlers: Handlers, node: fx.Node, a: dict[str, Any]) -> None:
    """`min(relu(x / 6 + 1 / 2), 1)`."""
    chain = Chain(handlers, node)
    chain.finish(chain.rectified(chain.of(handlers.source(node)), 1 / 6, 0.5, 1.0))


MODULES: dict[Any, Any] = {
    nn.LeakyReLU: leaky_relu,
    nn.RReLU: leaky_relu,
    nn.PReLU: prelu,
    nn.Hardtanh: clamp,
    nn.Threshold: threshold,
    nn.Hardsigmoid: hard_sigmoid,
    nn.Softshrink: soft_shrink,
}
FUNCTIONS: dict[Any, Any] = {
    **dict.fromkeys((F.leaky_relu, F.leaky_relu_), (leaky_relu, ("negative_slope",))),
    **dict.fromkeys((F.prelu, torch.prelu), (prelu, ("weight",))),
    **dict.fromkeys((torch.abs, torch.absolute, operator.abs), (absolute, ())),
    torch.maximum: (maximum, ("other",)),
    torch.minimum: (minimum, ("other",)),
    **dict.fromkeys((torch.clamp, torch.clip), (clamp, ("min", "max"))),
    F.hardtanh: (clamp, ("min_val", "max_val")),
    torch.clamp_min: (clamp, ("min",)),
    torch.clamp_max: (clamp, ("max",)),
    **dict.fromkeys((F.threshold, torch.threshold), (threshold, ("threshold", "value"))),
    F.hardsigmoid: (hard_sigmoid, ()),
    F.softshrink: (soft_shrink, ("lambd",)),
}
METHODS: dict[Any, Any] = {
    **dict.fromkeys(("abs", "abs_", "absolute", "__abs__"), (absolute, ())),
    "maximum": (maximum, ("other",)),
    "minimum": (minimum, ("other",)),
    **dict.fromkeys(("clamp", "clamp_", "clip", "clip_"), (clamp, ("min", "max"))),
    **dict.fromkeys(("clamp_min", "clamp_min_"), (clamp, ("min",))),
    **dict.fromkeys(("clamp_max", "clamp_max_"), (clamp, ("max",))),
}

"""Several operations for one thing that a model does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor, fx

from firstspike.networks.fx_graph import source_line
from firstspike.networks.network import Node, free_name
from firstspike.networks.ops import Affine, Op, Rectifier
from firstspike.networks.ops.maps import gather

if TYPE_CHECKING:
    from firstspike.networks.handlers import Handlers


class Chain:
    """Adds operations one after the other; the last of them is the value of the fx node.

    Attributes:
        dtype: of the node's value.
    """

    def __init__(self, handlers: Handlers, node: fx.Node) -> None:
        self.builder, self.node = handlers.builder, node
        self.dtype = self.builder.values[node].dtype

    def of(self, signal: fx.Node) -> str:
        """The network node that holds a signal."""
        return self.builder.alias[signal]

    def shape(self, name: str) -> tuple[int, ...]:
        return next(node.shape for node in self.builder.nodes if node.name == name)

    def __call__(self, op: Op, *inputs: str) -> str:
        """Add an operation on the values of network nodes; the name of its node."""
        zeros = [torch.zeros(1, *self.shape(name), dtype=self.dtype) for name in inputs]
        with torch.no_grad():
            shape = tuple(op.to(self.dtype)(*zeros).shape[1:])
        name = free_name(self.node.name, self.builder.ops)
        self.builder.ops[name] = op
        self.builder.nodes.append(Node(name, inputs, shape, source_line(self.node)))
        return name

    def affine(self, name: str, scale: Tensor | float, shift: Tensor | float) -> str:
        """`scale * x + shift`; nothing where that is `x`."""
        tensors: dict[str, Tensor | None] = {}
        for key, value, none in (("scale", scale, 1.0), ("shift", shift, 0.0)):
            tensor = torch.as_tensor(value, dtype=self.dtype).detach().clone()
            tensors[key] = None if bool((tensor == none).all()) else tensor
        if all(tensor is None for tensor in tensors.values()):
            return name
        return self(Affine(tensors), name)

    def expanded(self, signal: fx.Node) -> str:
        """A signal, repeated to the shape of the node's value where that is larger."""
        shape, wanted = self.builder.shape(signal), self.builder.shape(self.node)
        if shape == wanted:
            return self.of(signal)
        axes = len(wanted) - len(shape)
        op = gather(lambda x: x.reshape(2, *(1,) * axes, *shape).expand(2, *wanted), shape)
        assert op is not None
        return self(op, self.of(signal))

    def rectified(
        self, name: str, scale: Tensor | float, shift: Tensor | float, clip: float | None = None
    ) -> str:
        """A population that says `min(max(scale * x + shift, 0), clip)`."""
        return self(Rectifier(clip=clip), self.affine(name, scale, shift))

    def finish(self, name: str) -> None:
        """The value of node `name` is that of the fx node."""
        assert self.shape(name) == self.builder.shape(self.node)
        self.builder.alias[self.node] = name


def channel_view(value: Tensor, shape: Sequence[int]) -> Tensor:
    """(C,) or one number, shaped to broadcast against a sample (C, ...)."""
    return value if value.numel() == 1 else value.reshape(-1, *(1,) * (len(shape) - 1))

"""What an operation is, and the questions every operation answers.

Engines, measures, fixed point and chip ask operations; they do not list classes. What a class does
not answer itself is found by sending single values through it (`links`): slow, and right.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from firstspike.networks.ops.probing import probe
from firstspike.networks.taps import NoTaps, Shape, Taps, taps_of


class Links(NamedTuple):
    """Which value of an input reaches which value of the output, both counted in one sample.

    Attributes:
        target, source: (L,) int64, places in the flattened output and input; a pair at most once.
        weight: (L,) float64. A weight of zero is a link all the same.
    """

    target: Tensor
    source: Tensor
    weight: Tensor


class Op(nn.Module):
    """An operation with named tensors (parameters; `None` where absent) and hyper-parameters.

    Attributes:
        passes_spikes: every output is one of the inputs or zero, so that spikes stay spikes.
        keeps_order: the output is the input, value by value, in another shape.
        multiplies, adds: name of the tensor that multiplies the input, and of that which is added.
    """

    passes_spikes: ClassVar[bool] = False
    keeps_order: ClassVar[bool] = False
    multiplies: ClassVar[str | None] = None
    adds: ClassVar[str | None] = None
    _resolved: ClassVar[Any] = None  # the `forward` that `direct` speaks of

    def __init_subclass__(cls, **options: Any) -> None:
        """A class with a `direct` of its own says with it what its `forward` of now computes."""
        super().__init_subclass__(**options)
        if "direct" in vars(cls):
            cls._resolved = cls.forward

    def __init__(self, tensors: dict[str, Tensor | None] | None = None, **hyper: Any) -> None:
        super().__init__()
        self.hyper = hyper
        for name, tensor in (tensors or {}).items():
            self.register_parameter(name, None if tensor is None else nn.Parameter(tensor))
        for key, value in hyper.items():
            if isinstance(value, tuple | list) and len(value) == 1 < self.axes:
                hyper[key] = tuple(value) * self.axes

    @property
    def axes(self) -> int:
        """Trailing axes that hyper-parameters speak of; a single one then counts for all."""
        return 0

    @property
    def weights(self) -> Tensor | None:
        """The tensor that multiplies the input, if there is one."""
        return None if self.multiplies is None else getattr(self, self.multiplies)

    @property
    def biases(self) -> Tensor | None:
        """The tensor that is added, if there is one."""
        return None if self.adds is None else getattr(self, self.adds)

    def direct(self) -> Callable[..., Tensor]:
        """`forward` for plain tensors, with its own as they are now; no gradients.

        Ask `resolve`, which asks for it where `forward` is still what it speaks of.
        """
        return self.forward

    def resolve(self) -> Callable[..., Tensor]:
        """What to call again and again while nothing about the operation changes."""
        own = type(self).forward is type(self)._resolved and "forward" not in vars(self)
        return self.direct() if own else self.forward

    def structure(self, *x: Tensor) -> Tensor:
        """Links that carry something, for counts `x` (N, ...) at the inputs; differentiable in `x`.

        The operation with weights of one and no bias. Of a max pool: all of a window.
        """
        raise NotImplementedError(f"{type(self).__name__} has no links: it is no weight operation")

    def magnitude(self, *x: Tensor) -> Tensor:
        """`sum |w| x + |bias|`: what no partial sum exceeds for inputs between 0 and `x`."""
        raise NotImplementedError(f"{type(self).__name__} has no bound: it is no weight operation")

    def extra_repr(self) -> str:
        return ", ".join(f"{key}={value}" for key, value in self.hyper.items())


class WeightOp(Op):
    """An affine operation; `linear` is its part without bias.

    A class of its own needs `forward`, and `linear` if there is a bias. The other answers follow
    from single values sent through `linear`; give those that can be had at less cost.
    """

    def linear(self, *x: Tensor) -> Tensor:
        return self.forward(*x)

    def links(self, *shapes: Shape) -> list[Links]:
        """Links from each input, for inputs of these shapes (without batch axis)."""
        return [Links(*found) for found in probe(self, shapes)]

    def taps(self, shapes: Sequence[Shape], shape: Shape) -> list[Taps]:
        """Links from each input with the channels of a position together, see `networks.taps`.

        Args:
            shapes: of the inputs; shape: of the output.

        Raises:
            NoTaps: if there is no such form of reasonable size.
        """
        try:
            found = self.links(*shapes)
        except ValueError as error:
            raise NoTaps(str(error)) from error
        return [taps_of(*links, shape_in, shape) for links, shape_in in zip(found, shapes)]

    def structure(self, *x: Tensor) -> Tensor:
        return self._sum_links(x, lambda links, like: None)

    def magnitude(self, *x: Tensor) -> Tensor:
        silence = self.forward(*(torch.zeros_like(a[:1]) for a in x)).detach()
        return self._sum_links(x, lambda links, like: links.weight.abs().to(like)) + silence.abs()

    def _sum_links(self, x: Sequence[Tensor], weight: Any) -> Tensor:
        """Sum over all links of `weight(links, x)` (None: one) times what comes in."""
        with torch.no_grad():
            shape = self.linear(*(torch.zeros_like(a[:1]) for a in x)).shape[1:]
        total = x[0].new_zeros(len(x[0]), shape.numel())
        for a, links in zip(x, self.links(*(a.shape[1:] for a in x))):
            heard = a.flatten(1)[:, links.source]
            factor = weight(links, a)
            total = total.index_add(1, links.target, heard if factor is None else heard * factor)
        return total.reshape(-1, *shape)


class IndexMap(WeightOp):
    """An operation whose every output is one of its inputs, or zero: it moves values.

    A class of its own needs `forward` alone.
    """

    passes_spikes = True

    def structure(self, *x: Tensor) -> Tensor:
        return self.forward(*x)

    def magnitude(self, *x: Tensor) -> Tensor:
        return self.forward(*x)

    def links(self, *shapes: Shape) -> list[Links]:
        """Found in one pass: values numbered from 1 on show where they go."""
        sizes = [torch.Size(shape).numel() for shape in shapes]
        ends = torch.tensor([0, *sizes]).cumsum(0).tolist()
        numbers = [
            torch.arange(start + 1, stop + 1, dtype=torch.float64).reshape(1, *shape)
            for start, stop, shape in zip(ends, ends[1:], shapes)
        ]
        with torch.no_grad():
            seen = self.forward(*numbers).flatten().long()
        result = []
        for start, stop in itertools.pairwise(ends):
            target = ((seen > start) & (seen <= stop)).nonzero().squeeze(1)
            source = seen[target] - start - 1
            result.append(Links(target, source, torch.ones(len(target), dtype=torch.float64)))
        return result

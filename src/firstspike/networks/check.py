"""What would become of a model, node by node, before anything is converted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from torch import Tensor, fx, nn

from firstspike.networks.errors import ConversionError
from firstspike.networks.fx_graph import kind_of, source_line
from firstspike.networks.network import Node, free_name
from firstspike.networks.ops import Rectifier, Reshape
from firstspike.networks.trace import Builder, Comparison, own_weights, readied, recorded

SAME = "the same value"


@dataclass(frozen=True)
class Step:
    """One thing that the model does to its input.

    Attributes:
        node: its name.
        what: the layer, function or method.
        source: the line that asks for it, "file.py:12: code".
        shape: of its value for one sample.
        becomes: operations of the network; None if it is refused.
        why: the reason against it.
        advice: what to do about it.
    """

    node: str
    what: str
    source: str
    shape: tuple[int, ...]
    becomes: str | None
    why: str | None = None
    advice: str | None = None


@dataclass(frozen=True)
class Check:
    """Whether a model converts; `print` it for a table.

    Attributes:
        model: its class.
        steps: everything it does to its input, in order.
        problem: what is wrong with the model as a whole, if anything is.
        notes: what was left out or changed.
        populations: how many there would be.
    """

    model: str
    steps: tuple[Step, ...]
    problem: str | None
    notes: tuple[str, ...] = ()
    populations: int = 0

    @property
    def refused(self) -> tuple[Step, ...]:
        """The steps without a spiking counterpart."""
        return tuple(step for step in self.steps if step.becomes is None)

    @property
    def converts(self) -> bool:
        """Whether `convert` takes the model."""
        return self.problem is None and not self.refused

    def __str__(self) -> str:
        rows = [("", "node", "what", "shape", "becomes", "line")]
        rows += [
            (
                "x" if step.becomes is None else "",
                *(step.node, step.what, "x".join(map(str, step.shape))),
                *(step.becomes or "refused", step.source),
            )
            for step in self.steps
        ]
        widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
        lines = ["  ".join(c.ljust(w) for c, w in zip(row, widths)).rstrip() for row in rows]
        lines.insert(1, "-" * len(lines[0]))
        return "\n".join([*(lines if self.steps else []), "", *self._verdict()])

    def _verdict(self) -> Iterator[str]:
        reasons: dict[tuple[str | None, str | None], list[str]] = {}
        for step in self.refused:
            reasons.setdefault((step.why, step.advice), []).append(step.node)
        for (why, advice), nodes in reasons.items():
            named = ", ".join(nodes[:3]) + (f" and {len(nodes) - 3} more" if nodes[3:] else "")
            yield f"{named}: {why}." + (f" To convert the model, {advice}." if advice else "")
        if self.problem is not None:
            yield self.problem
        yield from self.notes
        if self.converts:
            yield (
                f"{self.model} converts: {len(self.steps)} steps, {self.populations} populations "
                "of neurons."
            )
        else:
            yield (
                f"{self.model} does not convert"
                + (f": {len(self.refused)} of {len(self.steps)} steps." if self.refused else ".")
            )


def check(model: nn.Module, example: Tensor) -> Check:
    """Say for everything a model does whether it converts, and if not, why and what to do.

    The model is run on two samples to see what it does and on three to compare; nothing is
    calibrated.

    Args:
        model: as for `convert`; it is not changed.
        example: a batch (N, ...) of inputs.

    >>> import torch
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.SiLU(), nn.Linear(8, 3))
    >>> found = check(model, torch.rand(1, 4))
    >>> found.converts, [(step.what, step.becomes) for step in found.steps]
    (False, [('0: Linear', 'Dense'), ('1: SiLU', None), ('2: Linear', 'Dense')])
    """
    name = type(model).__name__
    try:
        reference, example = readied(model, example)
        own = own_weights(reference, model)
        builder = Builder(reference, recorded(reference, example), False, own)
    except ConversionError as error:
        return Check(name, (), str(error))
    steps = tuple(_steps(builder))
    if any(step.becomes is None for step in steps):
        return Check(name, steps, None, tuple(builder.notes))
    try:
        comparison = Comparison(builder, model, example)
        comparison.check(comparison.said())
    except ConversionError as error:
        return Check(name, steps, str(error), tuple(builder.notes))
    return Check(name, steps, None, comparison.network.notes, len(comparison.network.populations))


def _steps(builder: Builder) -> Iterator[Step]:
    """Take every step; one that is refused is stood in for, so that the next can be looked at."""
    refused: set[fx.Node] = set()
    for node in builder.steps():
        several = not isinstance(builder.values[node], Tensor)
        if refused.intersection(node.all_input_nodes) and not several:
            source = next(n for n in node.all_input_nodes if n in builder.alias)
            if not isinstance(builder.values[source], Tensor):  # one of several results
                _stand_in(builder, node)
                continue
        before, why, advice = len(builder.nodes), None, None
        becomes: str | None = SAME
        try:
            builder.take(node)
            kinds = [type(builder.ops[made.name]) for made in builder.nodes[before:]]
            if kinds:
                words = ["spikes" if k is Rectifier else k.__name__ for k in kinds]
                becomes = ", ".join(dict.fromkeys(words))
            elif node in builder.left_out:
                becomes = "left out"
        except ConversionError as error:
            del builder.nodes[before:]
            becomes, why, advice = None, error.why or str(error), error.advice
            refused.add(node)
            _stand_in(builder, node)
        shape = () if several else builder.shape(node)
        what = kind_of(builder.module, node)
        yield Step(node.name, what, source_line(node), shape, becomes, why, advice)


def _stand_in(builder: Builder, node: fx.Node) -> None:
    """Give a refused node a place in the network, of the right shape."""
    value = builder.values[node]
    shape = builder.shape(node) if isinstance(value, Tensor) else ()
    name = free_name(node.name, builder.ops)
    builder.ops[name] = Reshape(shape=shape)
    builder.nodes.append(Node(name, (), shape))
    builder.alias[node] = name

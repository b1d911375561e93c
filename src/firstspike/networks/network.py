"""A traced network: weight operations with a population wherever the ANN had an activation."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Container, Iterator, Mapping, MutableMapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch import Tensor, nn, strided
from torch.nn.modules import module

from firstspike.networks.ops import (
    Convolution,
    Dense,
    MaxPool,
    Op,
    Rectifier,
    WeightOp,
    describe_op,
)
from firstspike.networks.outputs import arrange

INPUT = "input"  # name of the population that encodes the image
_RESERVED = frozenset(dir(nn.ModuleDict())) | {INPUT}


def free_name(name: str, taken: Container[str]) -> str:
    """`name`, lengthened until no other node has it and `nn.ModuleDict` allows it as a key.

    >>> free_name("conv", {"relu"}), free_name("values", ()), free_name("input", {"input_"})
    ('conv', 'values_', 'input__')
    """
    while name in _RESERVED or name in taken:
        name += "_"
    return name


@dataclass(frozen=True)
class Node:
    """One step of the network. Every node but the input runs the operation of the same name.

    Attributes:
        name: of the step, and of its operation.
        inputs: names of the steps it reads.
        shape: of its value, without the batch.
        source: where the model has it: file and line.
    """

    name: str
    inputs: tuple[str, ...]
    shape: tuple[int, ...]  # of one sample
    source: str = ""  # where the model's code asked for it, "file.py:12"


def _take(values: MutableMapping[str, Any], names: Sequence[str], left: Counter[str]) -> list[Any]:
    """What `values` hold under `names`; what is not `left` to read goes."""
    taken = [values.get(name) for name in names]
    for name in names:
        left[name] -= 1
        if not left[name]:
            values.pop(name, None)
    return taken


Call = tuple[Callable[..., Any], tuple[int, ...], tuple[int, ...]]


def _run(calls: Sequence[Call], x: Any) -> Any:
    """The value of the last call. Each reads values of others, by place; some are then dropped."""
    values = [calls[0][0](x)]
    for call, read, gone in calls[1:]:
        arguments = [values[place] for place in read]
        for place in gone:
            values[place] = None
        values.append(call(*arguments))
    return values[-1]


def _same(x: Any) -> Any:
    return x


def _chain(first: Callable[..., Tensor], second: Callable[[Tensor], Tensor]) -> Any:
    return lambda x: second(first(x))


class Network(nn.Module):
    """The analogue network as a list of nodes in order of execution; the last one is the readout.

    Calling it computes what the traced model computes. Engines walk the same list.

    Attributes:
        nodes: the nodes, the input first.
        ops: operation of every other node, by name.
        notes: what tracing left out or changed, for people.
        form: how the model arranges its outputs, where they are not (N, classes); see `outputs`.
    """

    def __init__(
        self,
        nodes: Sequence[Node],
        ops: Mapping[str, Op],
        notes: Sequence[str] = (),
        form: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        self.nodes = tuple(nodes)
        self.ops = nn.ModuleDict(dict(ops))
        self.notes = tuple(notes)
        self.form = form
        self._uses = Counter(name for node in self.nodes for name in node.inputs)
        self.node = {node.name: node for node in self.nodes}
        self.depth = self._depths()
        self._pool_of = self._pools_alone()
        self._pools = frozenset(self._pool_of.values())
        self._read_last = self._last_reads()

    @property
    def input_shape(self) -> tuple[int, ...]:
        return self.nodes[0].shape

    @property
    def output(self) -> Node:
        return self.nodes[-1]

    @property
    def populations(self) -> tuple[str, ...]:
        """Names of the hidden populations in order of execution (the input is not one of them)."""
        return tuple(n.name for n in self.nodes[1:] if isinstance(self.op(n.name), Rectifier))

    def op(self, name: str) -> Op:
        """The operation of a node (all but the input have one)."""
        return self.ops[name]  # type: ignore[return-value]

    def is_population(self, name: str) -> bool:
        return name != INPUT and isinstance(self.op(name), Rectifier)

    def uses(self, name: str) -> int:
        """How many inputs of other nodes the node feeds."""
        return self._uses[name]

    def _depths(self) -> dict[str, int]:
        """Longest path from the input to each node, counted in populations (the node included)."""
        depth = {INPUT: 0}
        for node in self.nodes[1:]:
            below = max(depth[name] for name in node.inputs)
            depth[node.name] = below + isinstance(self.op(node.name), Rectifier)
        return depth

    def _last_reads(self) -> dict[str, tuple[str, ...]]:
        """Of each node, those of its inputs that no later node reads."""
        left, found = Counter(self._uses), {}
        for node in self.nodes:
            left.subtract(node.inputs)
            found[node.name] = tuple(n for n in dict.fromkeys(node.inputs) if not left[n])
        return found

    def _pools_alone(self) -> dict[str, str]:
        """Populations that feed one max pool and nothing else, with that pool."""
        return {
            node.inputs[0]: node.name
            for node in self.nodes[1:]
            if isinstance(self.op(node.name), MaxPool)
            and self.is_population(node.inputs[0])
            and self._uses[node.inputs[0]] == 1
        }

    def check_input(self, x: Tensor, argument: str = "x") -> None:
        """Refuse a batch that this network cannot take."""
        if x.ndim != len(self.input_shape) + 1 or tuple(x.shape[1:]) != self.input_shape:
            raise ValueError(
                f"`{argument}` must have shape (batch, {', '.join(map(str, self.input_shape))}), "
                f"got {tuple(x.shape)}. Pass a batch of images of the size the network was traced "
                "with; trace again with an example of another size if needed."
            )
        if x.layout is not strided:
            raise TypeError(
                f"`{argument}` must be a dense tensor, got layout {x.layout}. Pass `x.to_dense()`."
            )
        if not x.is_floating_point():
            raise TypeError(
                f"`{argument}` must be a floating-point tensor, got {x.dtype}. Scale images to "
                "[0, 1] first, e.g. `images.float() / 255`."
            )

    def walk(
        self, values: MutableMapping[str, Any], nodes: Sequence[Node] | None = None
    ) -> Iterator[tuple[Node, list[Any]]]:
        """Nodes in order of execution, each with what its inputs hold (None where nothing).

        The caller puts into `values` what each node makes of them. What no later node reads is gone
        from there before the node that reads it last comes up, so that memory is free as soon as
        the caller drops its arguments, and `name in values` tells whether others still need it.

        Args:
            values: by node; may hold some beforehand.
            nodes: some of the nodes, in order; all of them, the input first, by default.

        >>> from torch import nn, zeros
        >>> from firstspike.networks import trace
        >>> network = trace(nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 1)), zeros(1, 2))
        >>> values = {}
        >>> for node, inputs in network.walk(values):
        ...     values[node.name] = f"{node.name}({', '.join(inputs)})"
        >>> values
        {'_2': '_2(_1(_0(input())))'}
        """
        nodes = self.nodes if nodes is None else nodes
        left = Counter(name for node in nodes for name in node.inputs)
        for node in nodes:
            yield node, _take(values, node.inputs, left)  # kept by the caller alone

    def evaluate(
        self,
        x: Tensor,
        activate: Callable[[str, Tensor], Tensor],
        pool_first: bool = False,
    ) -> Tensor:
        """Run all nodes on `x` (N, *input_shape) with `activate(name, potential)` as activations.

        `activate` is called for the input population as well.

        Args:
            pool_first: take max pools before the population they alone follow. The result is the
                same for monotone activations, and fewer of them are computed.
        """
        return self.resolve(lambda name, _: partial(activate, name), _same, pool_first)(x)

    def resolve(
        self,
        say: Callable[[str, bool], Callable[[Tensor], Tensor]],
        compute: Callable[[Op], Callable[..., Tensor]],
        pool_first: bool,
    ) -> Callable[[Tensor], Tensor]:
        """What `evaluate` does to `x`, as a list of calls with nothing left to decide.

        Args:
            say: activation of a population, by name; it may overwrite potentials if they are its
                own alone, which is its second argument.
            compute: what is called for an operation.
            pool_first: see `evaluate`.
        """
        place = {node.name: i for i, node in enumerate(self.nodes)}
        calls: list[Call] = [(say(INPUT, False), (), ())]
        for node in self.nodes[1:]:
            op, call = self.op(node.name), None
            if isinstance(op, Rectifier):
                pool = self._pool_of.get(node.name) if pool_first else None
                alone = self._owns(node.inputs[0]) if pool is None else not self.watched(pool)
                call = say(node.name, alone)
                call = call if pool is None else _chain(compute(self.op(pool)), call)
            elif not (pool_first and node.name in self._pools):
                call = compute(op)
            read, gone = (
                tuple(place[name] for name in names)
                for names in (node.inputs, self._read_last[node.name])
            )
            calls.append((call or _same, read, gone))
        return partial(_run, calls)

    def _owns(self, name: str) -> bool:
        """Whether the node's value lies in memory of its own that one node alone reads."""
        fresh = isinstance(self.ops[name] if name != INPUT else None, Convolution | Dense)
        return fresh and self._uses[name] == 1 and not self.watched(name)

    def watched(self, name: str) -> bool:
        """Whether a hook sees the node's value or what it is computed from, and may keep it."""
        op = self.op(name)
        own = op._forward_hooks or op._forward_pre_hooks
        return bool(own or module._global_forward_hooks or module._global_forward_pre_hooks)

    def segment(
        self, target: str, sources: Container[str] | None = None
    ) -> tuple[tuple[Node, ...], tuple[str, ...]]:
        """Nodes that lead from `sources` to `target`, and those of the sources that they read.

        Both in order of execution; `target` itself is included unless it is a source.

        Args:
            sources: where to stop; the input and the hidden populations by default.
        """
        stops = (INPUT, *self.populations) if sources is None else sources
        inside: set[str] = set()
        read: set[str] = set()
        todo = list(self.node[target].inputs) if target in stops else [target]
        while todo:
            name = todo.pop()
            if name in stops:
                read.add(name)
            elif name not in inside:
                inside.add(name)
                todo += self.node[name].inputs
        nodes = tuple(node for node in self.nodes if node.name in inside)
        return nodes, tuple(node.name for node in self.nodes if node.name in read)

    def run_segment(
        self,
        nodes: Sequence[Node],
        values: Mapping[str, Tensor],
        ask: Callable[[Op], Callable[..., Tensor]] = lambda op: op,
    ) -> Tensor:
        """Run `nodes` on the values of populations; the value of the last node.

        Args:
            ask: which of an operation's answers to compute, e.g. its `structure`.
        """
        known = dict(values)
        result = next(iter(values.values()))
        for node, inputs in self.walk(known, nodes):
            known[node.name] = result = ask(self.op(node.name))(*inputs)
        return result

    def forward(self, x: Tensor) -> Tensor:
        self.check_input(x)
        return self.evaluate(x, lambda name, u: u if name == INPUT else self.op(name)(u))

    def weight_ops(self) -> dict[str, WeightOp]:
        return {name: op for name, op in self.ops.items() if isinstance(op, WeightOp)}

    def operations(self) -> dict[str, Op]:
        """Every node's operation by name, the input's excepted."""
        return dict(self.ops.items())  # type: ignore[arg-type]

    def rebuilt(self, nodes: Sequence[Node], ops: Mapping[str, Op], *notes: str) -> Network:
        """A network of other nodes and operations with everything else of this one, and `notes`."""
        return Network(nodes, ops, (*self.notes, *notes), self.form)

    def arranged(self, row: Tensor) -> Any:
        """The model's outputs from what the readout says, (N, total)."""
        return row if self.form is None else arrange(self.form, row)

    def max_pools(self) -> tuple[str, ...]:
        return tuple(name for name, op in self.ops.items() if isinstance(op, MaxPool))

    def describe(self) -> dict[str, Any]:
        """Plain data: everything but the values of the tensors; `rebuild` reads it."""
        return {
            "notes": list(self.notes),
            "form": self.form,
            "nodes": [
                {
                    "name": node.name,
                    "inputs": list(node.inputs),
                    "shape": list(node.shape),
                    "source": node.source,
                    **({} if node.name == INPUT else describe_op(self.op(node.name))),
                }
                for node in self.nodes
            ],
        }

"""A NIR graph, of whichever program, as a network that the clock-driven engine runs."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from firstspike._reading import parse_json
from firstspike.codes import LIF
from firstspike.codes.lif import LIFNeuron
from firstspike.config import require_integer
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.exchange.nir_files import read_nir
from firstspike.exchange.nir_write import KEY, digest
from firstspike.networks import ops
from firstspike.networks.errors import ConversionError
from firstspike.networks.network import INPUT, Network, Node, free_name


@dataclass(frozen=True)
class Reading:
    """What NIR leaves open and its programs decide differently.

    Args:
        dt: seconds per step; None takes NIR's usual 1e-4.
        strict: a potential equal to the threshold does not fire, as NIR's text has it.
        subtract: soft reset, whatever the graph says.
        start_at_reset: potentials start where the reset leaves them.
        exponential: leaks fall as `exp(-dt / tau)`, not by Euler's rule `1 - dt / tau`.
        driven: the resistance of a leaky neuron counts for a whole step, not for `dt / tau`.
    """

    dt: float = 1e-4
    strict: bool = True
    subtract: bool = False
    start_at_reset: bool = False
    exponential: bool = False
    driven: bool = False


READINGS: dict[str, Reading] = {
    "nir": Reading(),
    "snntorch": Reading(),
    "spikingjelly": Reading(strict=False, start_at_reset=True),
    "norse": Reading(dt=1.0),
    "sinabs": Reading(
        dt=1.0, strict=False, subtract=True, exponential=True, driven=True, start_at_reset=False
    ),
}


def from_nir(
    graph: Any,
    *,
    steps: int | None = None,
    reading: str | Reading = "nir",
    exact: bool = True,
) -> SpikingNetwork:
    """The network of a NIR graph or file.

    A graph that `to_nir` wrote comes back bit for bit, whatever its code. Others become networks of
    `LIF` neurons, each with its own constants, that take the input as a current at every step and
    answer with the mean over the steps of what reaches their output. Engines, costs, plots and the
    chip take them as they take converted networks; what they call the ANN is then the graph with
    rectifiers for neurons.

    Args:
        graph: a `nir.NIRGraph`, or the path of a file.
        steps: how long it runs; None takes what `to_nir` noted.
        reading: what the program of origin does where NIR leaves it open: "nir" (NIR's text),
            "snntorch", "spikingjelly", "norse", "sinabs", or a `Reading`.
        exact: False reads a graph of ours as other programs do, without our metadata.

    Raises:
        ConversionError: naming the node and the rule, for cycles, nodes without a counterpart and
            shapes that do not fit.
        ValueError: if the file is not whole, or a graph of ours was changed since.
    """
    if isinstance(graph, str | Path):
        graph = read_nir(graph)
    if type(graph).__name__ != "NIRGraph":
        raise TypeError(
            f"`graph` must be a nir.NIRGraph or the path of a file, got {type(graph).__name__}. "
            "Read it with `nir.read`."
        )
    notes = graph.metadata if isinstance(graph.metadata, dict) else {}
    ours = KEY in notes
    if ours and exact:
        return _restore(graph, notes)
    if steps is None and ours:
        steps = _description(notes)["steps"]
    if steps is None:
        raise ValueError(
            "`steps` must be given for a graph of another program, got None. Pass the number of "
            "steps that it was made for, e.g. steps=32."
        )
    require_integer("steps", steps, 1, "Pass the number of steps, e.g. 32.")
    if isinstance(reading, str) and reading not in READINGS:
        raise ValueError(f"`reading` must be one of {', '.join(READINGS)}, got {reading!r}.")
    return _Reader(graph, steps, READINGS[reading] if isinstance(reading, str) else reading).read()


# ---- our own graphs ------------------------------------------------------------------------------
def _description(notes: Mapping[str, Any]) -> dict[str, Any]:
    text = notes[KEY]
    try:
        found = parse_json(text.decode() if isinstance(text, bytes) else text)
        if found["format"] != 1:
            raise ValueError(f"format {found['format']!r}, this version reads 1")
        return found
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ValueError(
            f"the graph's metadata are not those of a firstspike network ({error}). Read it "
            "without them: exact=False."
        ) from error


def _restore(graph: Any, notes: Mapping[str, Any]) -> SpikingNetwork:
    description = _description(notes)
    if description.get("digest") != digest(graph.nodes):
        raise ValueError(
            "the graph was changed after `to_nir` wrote it: its weights are not those of the "
            "network in its metadata. Read what it says now with exact=False."
        )
    stored = notes.get(f"{KEY}_tensors", {})
    try:
        tensors = {
            key: torch.from_numpy(np.array(getattr(graph.nodes[node], field)))
            for key, (node, field) in description["held"].items()
        }
        for key, shape in description["shapes"].items():
            array = stored[key] if int(np.prod(shape)) else np.zeros(0, np.float32)
            tensors[key] = torch.from_numpy(np.array(array).reshape(shape))
        return SpikingNetwork._rebuild(description, tensors).eval()
    except Exception as error:  # whatever a file can say instead of what we wrote
        raise ValueError(
            f"the graph does not hold a whole firstspike network ({type(error).__name__}: {error})."
            " Export it again, or read it without its metadata: exact=False."
        ) from error


# ---- graphs of others ----------------------------------------------------------------------------
class _Reader:
    def __init__(self, graph: Any, steps: int, reading: Reading) -> None:
        self.graph, self.reading = graph, reading
        self.code = LIF(
            steps,
            strict=reading.strict,
            subtract=reading.subtract,
            start_at_reset=reading.start_at_reset,
        )
        self.nodes, self.edges = _flat(graph)
        arrays = [
            np.asarray(value) for node in self.nodes.values() for value in _weights(node).values()
        ]
        double = bool(arrays) and all(array.dtype == np.float64 for array in arrays)
        self.dtype = torch.float64 if double else torch.float32
        self.made: list[Node] = []
        self.ops: dict[str, ops.Op] = {}
        self.neurons: dict[str, Any] = {}
        self.name: dict[str, str] = {}  # NIR node -> ours

    def read(self) -> SpikingNetwork:
        for name in self._order():
            try:
                self._read(name, self.nodes[name])
            except ConversionError:
                raise
            except Exception as error:  # whatever follows from values that a file may hold
                self._refuse(name, f"its values do not fit ({error})", "correct them")
        network = Network(self.made, self.ops, [f"read from a NIR graph as {self.reading}"]).eval()
        scale = torch.ones((), dtype=self.dtype)
        neurons = {INPUT: self.code.input_neuron(scale)} | self.neurons
        low = torch.zeros((), dtype=self.dtype)
        return SpikingNetwork(network, self.code, neurons, low, {"method": "from_nir"}).eval()

    def _read(self, name: str, node: Any) -> None:
        kind = type(node).__name__
        if kind == "Input":
            self.name[name] = INPUT
            self.made.append(Node(INPUT, (), self._input_shape(name, node)))
            return
        source = self._sum(name)
        if kind == "Output":
            self._output(source)
            return
        handler = getattr(self, f"_read_{kind.lower()}", None)
        if handler is None:
            self._refuse(name, f"{kind} has no counterpart here", "use layers of the list")
        self.name[name] = handler(name, node, source)

    def _order(self) -> list[str]:
        """Nodes in order of execution."""
        kinds = [type(node).__name__ for node in self.nodes.values()]
        for kind in ("Input", "Output"):
            if kinds.count(kind) != 1:
                raise ConversionError(
                    f"the graph must have one {kind} node, got {kinds.count(kind)}. Join or cut it "
                    "first."
                )
        before: dict[str, set[str]] = {name: set() for name in self.nodes}
        for source, target in self.edges:
            for name in (source, target):
                if name not in self.nodes:
                    raise ConversionError(
                        f"the edge {source!r} -> {target!r} must join nodes of the graph, got "
                        f"{name!r}. The nodes are {', '.join(self.nodes)}."
                    )
            before[target].add(source)
        try:
            order = list(TopologicalSorter(before).static_order())
        except CycleError as error:
            raise ConversionError(
                f"the graph must have no cycles, got {' -> '.join(map(repr, error.args[1]))}. "
                "Recurrent networks have no counterpart here; unroll or remove the loop."
            ) from None
        ends = [n for n in order if type(self.nodes[n]).__name__ == "Output"]
        useful, stack = set(ends), list(ends)
        while stack:
            stack += [n for n in before[stack.pop()] if n not in useful and not useful.add(n)]  # type: ignore[func-returns-value]
        inputs = [n for n in order if type(self.nodes[n]).__name__ == "Input"]
        if inputs[0] not in useful:
            raise ConversionError(
                "the graph's Output must be reached from its Input. Connect them by edges."
            )
        rest = [n for n in order if n in useful and n not in (*inputs, *ends)]
        return inputs + rest + ends

    # ---- pieces ----------------------------------------------------------------------------------
    def _refuse(self, name: str, why: str, what: str) -> NoReturn:
        kind = type(self.nodes[name]).__name__
        raise ConversionError(
            f"node {name!r} ({kind}) cannot be read: {why}. To read the graph, {what}."
        )

    def _input_shape(self, name: str, node: Any) -> tuple[int, ...]:
        shape = next(iter(node.input_type.values()))
        if shape is None or not np.size(shape):
            self._refuse(name, "it has no shape", "write the shape of one sample into it")
        sizes = tuple(int(size) for size in np.atleast_1d(shape))
        if min(sizes) < 1:
            self._refuse(name, f"its shape is {sizes}", "give it positive sizes")
        return sizes

    def _shape(self, name: str) -> tuple[int, ...]:
        return next(node.shape for node in self.made if node.name == name)

    def _sum(self, name: str) -> str:
        """Our node with the sum of all that reaches `name`."""
        sources = [self.name[source] for source, target in self.edges if target == name]
        if not sources:
            self._refuse(name, "nothing reaches it", "connect or remove it")
        if len(sources) == 1:
            return sources[0]
        shapes = {self._shape(source) for source in sources}
        if len(shapes) > 1:
            self._refuse(name, f"it adds shapes {sorted(shapes)}", "give them one shape")
        add = ops.Add(coefficients=(1.0,) * len(sources))
        return self._make(name, f"{name}_sum", add, tuple(sources), next(iter(shapes)))

    def _make(
        self,
        name: str,
        ours: str,
        op: ops.Op,
        sources: tuple[str, ...],
        shape: tuple[int, ...] | None = None,
    ) -> str:
        """Add our node; its shape follows from the operation, run without memory."""
        if shape is None:
            try:
                inputs = [
                    torch.empty(2, *self._shape(s), device="meta", dtype=self.dtype)
                    for s in sources
                ]
                shape = tuple(copy.deepcopy(op).to("meta")(*inputs).shape[1:])
            except (RuntimeError, ValueError, IndexError) as error:
                self._refuse(
                    name,
                    f"it does not fit its input of shape {self._shape(sources[0])} ({error})",
                    "correct its shapes",
                )
        ours = free_name(ours.replace(".", "_"), self.ops)
        self.ops[ours] = op
        self.made.append(Node(ours, sources, shape))
        return ours

    def _output(self, source: str) -> None:
        """The readout is a potential: spikes that reach the output are summed."""
        shape = self._shape(source)
        if isinstance(self.ops.get(source), ops.Rectifier) or len(shape) != 1 or source == INPUT:
            flat = (int(np.prod(shape)),)
            self._make("", "readout", ops.Reshape(shape=flat), (source,), flat)

    def _weights(self, name: str, node: Any) -> dict[str, Tensor | None]:
        weight, bias = (self._tensor(name, key, getattr(node, key)) for key in ("weight", "bias"))
        if not weight.ndim or bias.shape != weight.shape[:1]:
            given = f"its weight has shape {tuple(weight.shape)}, its bias {tuple(bias.shape)}"
            self._refuse(name, given, "give it one bias per output")
        return {"weight": weight, "bias": bias}

    def _tensor(self, name: str, key: str, value: Any) -> Tensor:
        array = np.asarray(value)
        if array.dtype.kind not in "fiu":
            self._refuse(name, f"its {key} holds no numbers", "correct it")
        if not np.isfinite(array).all():
            self._refuse(name, f"its {key} is not finite", "correct it")
        return torch.from_numpy(np.array(array)).to(self.dtype)

    # ---- weights ---------------------------------------------------------------------------------
    def _read_affine(self, name: str, node: Any, source: str) -> str:
        return self._make(name, name, ops.Dense(self._weights(name, node)), (source,))

    def _read_linear(self, name: str, node: Any, source: str) -> str:
        weight = self._tensor(name, "weight", node.weight)
        return self._make(name, name, ops.Dense({"weight": weight, "bias": None}), (source,))

    def _convolution(self, name: str, node: Any, source: str, axes: int) -> str:
        padding = node.padding
        padding = padding.decode() if isinstance(padding, bytes) else padding
        hyper = {
            "stride": _numbers(node.stride, axes),
            "padding": padding if isinstance(padding, str) else _numbers(padding, axes),
            "dilation": _numbers(node.dilation, axes),
            "groups": int(np.asarray(node.groups).item()),
        }
        if np.ndim(node.weight) != axes + 2:
            shape = tuple(np.shape(node.weight))
            self._refuse(name, f"its weight has shape {shape}", f"give it {axes + 2} axes")
        return self._make(
            name, name, ops.Convolution(self._weights(name, node), **hyper), (source,)
        )

    def _read_conv1d(self, name: str, node: Any, source: str) -> str:
        return self._convolution(name, node, source, 1)

    def _read_conv2d(self, name: str, node: Any, source: str) -> str:
        return self._convolution(name, node, source, 2)

    def _read_scale(self, name: str, node: Any, source: str) -> str:
        scale = self._tensor(name, "scale", node.scale)
        shape = self._shape(source)
        if scale.ndim > len(shape):
            self._refuse(name, f"its scale has shape {tuple(scale.shape)}", f"make it {shape}")
        affine = ops.Affine({"scale": scale, "shift": None})
        return self._make(name, name, affine, (source,), tuple(scale.expand(shape).shape))

    def _read_avgpool2d(self, name: str, node: Any, source: str) -> str:
        hyper: Any = {
            k: _numbers(getattr(node, k), 2) for k in ("kernel_size", "stride", "padding")
        }
        return self._make(name, name, ops.AveragePool(dims=2, **hyper), (source,))

    def _read_sumpool2d(self, name: str, node: Any, source: str) -> str:
        pooled = self._read_avgpool2d(name, node, source)
        size = float(np.prod(_numbers(node.kernel_size, 2)))
        times = ops.Affine({"scale": torch.tensor(size, dtype=self.dtype), "shift": None})
        return self._make(name, f"{name}_times", times, (pooled,), self._shape(pooled))

    def _read_flatten(self, name: str, node: Any, source: str) -> str:
        shape = self._shape(source)
        start, end = (int(np.asarray(d).item()) for d in (node.start_dim, node.end_dim))
        start, end = start % len(shape), end % len(shape)
        flat = (*shape[:start], int(np.prod(shape[start : end + 1])), *shape[end + 1 :])
        return self._make(name, name, ops.Reshape(shape=flat), (source,), flat)

    # ---- neurons ---------------------------------------------------------------------------------
    def _read_if(self, name: str, node: Any, source: str) -> str:
        gain = np.asarray(node.r) * self.reading.dt
        return self._population(name, node, source, gain=gain)

    def _read_lif(self, name: str, node: Any, source: str) -> str:
        leak = self._leak(name, node.tau)
        gain = np.asarray(node.r) * (1.0 if self.reading.driven else leak)
        return self._population(name, node, source, leak=leak, gain=gain, v_leak=node.v_leak)

    def _read_cubalif(self, name: str, node: Any, source: str) -> str:
        leak, fall = self._leak(name, node.tau_mem), self._leak(name, node.tau_syn)
        return self._population(
            name,
            node,
            source,
            leak=leak,
            gain=np.asarray(node.r) * leak,
            v_leak=node.v_leak,
            decay_syn=1.0 - fall,
            weight_in=np.asarray(node.w_in) * fall,
        )

    def _leak(self, name: str, tau: Any) -> np.ndarray:
        """What is lost in one step."""
        with np.errstate(all="ignore"):
            part = self.reading.dt / np.asarray(tau, np.float64)
        if not (np.isfinite(part).all() and (part > 0).all()):
            self._refuse(name, "its time constants must be positive", "correct them")
        if self.reading.exponential:
            return -np.expm1(-part)
        if (part > 1).any():
            self._refuse(
                name,
                f"a time constant of {float(np.min(tau)):g} s is shorter than the step of "
                f"{self.reading.dt:g} s",
                "pass the step it was made for: reading=Reading(dt=...)",
            )
        return part

    def _population(self, name: str, node: Any, source: str, **constants: Any) -> str:
        shape = self._shape(source)
        given = {"v_threshold": node.v_threshold, "v_reset": node.v_reset, **constants}
        tensors = {}
        for key, value in given.items():
            tensor = self._tensor(name, key, np.asarray(value, np.float64))
            tensor = tensor.reshape(()) if tensor.numel() == 1 else tensor
            if tensor.ndim and tuple(tensor.shape) != shape:
                self._refuse(
                    name,
                    f"its {key} has shape {tuple(tensor.shape)} for neurons of shape {shape}",
                    "give it one value per neuron",
                )
            same = bool((tensor == tensor.flatten()[0]).all())
            tensors[key] = tensor.flatten()[0] if same else tensor
        one = torch.ones(shape if any(t.ndim for t in tensors.values()) else (), dtype=self.dtype)
        ours = self._make(name, name, ops.Rectifier(clip=None), (source,), shape)
        self.neurons[ours] = LIFNeuron(one, self.code, **tensors)
        return ours


def _numbers(value: Any, axes: int) -> tuple[int, ...]:
    numbers = [int(v) for v in np.atleast_1d(np.asarray(value))]
    return tuple(numbers * axes if len(numbers) == 1 else numbers)


def _weights(node: Any) -> dict[str, Any]:
    return {k: v for k, v in vars(node).items() if k in ("weight", "bias") and v is not None}


def _flat(graph: Any) -> tuple[dict[str, Any], list[tuple[str, str]]]:
    """Nodes and edges with the graphs inside the graph opened, their nodes as `graph/node`."""
    nodes: dict[str, Any] = {}
    edges = [(str(a), str(b)) for a, b in graph.edges]
    for name, node in graph.nodes.items():
        if type(node).__name__ != "NIRGraph":
            nodes[name] = node
            continue
        inner, inner_edges = _flat(node)
        gates = {}
        for kind in ("Input", "Output"):
            found = [n for n, inside in inner.items() if type(inside).__name__ == kind]
            if len(found) != 1:
                raise ConversionError(
                    f"the graph {name!r} inside the graph must have one {kind}, got {len(found)}. "
                    "Add or remove nodes of that kind."
                )
            gates[kind] = found[0]
        enters = [b for a, b in inner_edges if a == gates["Input"]]
        leaves = [a for a, b in inner_edges if b == gates["Output"]]
        nodes |= {f"{name}_{n}": inside for n, inside in inner.items() if n not in gates.values()}
        edges = [
            (start, stop)
            for a, b in edges
            for start in ([f"{name}_{n}" for n in leaves] if a == name else [a])
            for stop in ([f"{name}_{n}" for n in enters] if b == name else [b])
        ]
        edges += [
            (f"{name}_{a}", f"{name}_{b}")
            for a, b in inner_edges
            if a != gates["Input"] and b != gates["Output"]
        ]
    return nodes, edges

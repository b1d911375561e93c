"""A spiking network as a NIR graph (Neuromorphic Intermediate Representation).

NIR's neurons send spikes of size 1 and reset to a fixed potential. Ours send values, so what a
spike delivers moves into weights and thresholds: with f the value of a spike of the population in
front, the potential is counted in units of f, weights stay as they are, biases and thresholds are
divided by f. Where populations of different values meet (residual sums, scales per channel), the
factor moves into the weights of the layer in front, or into a 1x1 convolution of its own.

What NIR cannot say is listed, and kept as text and arrays in the metadata, from which
`from_nir` restores the network bit for bit.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
import torch
from torch import Tensor

from firstspike.codes import LIF, FewStep, Rate
from firstspike.codes.inputs import Direct
from firstspike.codes.lif import LIFNeuron
from firstspike.exchange.door import optional
from firstspike.networks import ops
from firstspike.networks.errors import ConversionError
from firstspike.networks.fold import fold_batch_norm
from firstspike.networks.network import INPUT, Node

if TYPE_CHECKING:
    from firstspike.engines.spiking_network import SpikingNetwork

KEY = "firstspike"  # of our entry in the metadata of a graph
_NO_LEAK = 2.0**60  # tau in steps under which v - v / tau = v in float64


@dataclass(frozen=True)
class Dialect:
    """How a graph is written, where NIR leaves a choice that its readers do not all take.

    Args:
        dt: seconds per step; readers assume 1e-4.
        leaky: write neurons without a leak as `LIF` with a time constant beyond rounding, for
            readers that take `LIF` alone or make something else of `IF` (snnTorch).
        sum_pools: write average pools as `SumPool2d`, the division in the weights behind
            (norse, sinabs).
        once: neurons without a leak reset so low that they fire once; the nearest that NIR has to
            single-spike codes.
    """

    dt: float = 1e-4
    leaky: bool = False
    sum_pools: bool = False
    once: bool = False


def to_nir(network: SpikingNetwork, dialect: Dialect | None = None) -> Any:
    """`network` as a `nir.NIRGraph`.

    Read as plain NIR, the graph takes the image as a current at every step, and its output is to
    be averaged over the steps: logits in the ANN's units. `limits(network)` says what such a
    reader does differently. `from_nir` restores the network exactly.

    Args:
        dialect: `Dialect(leaky=True)` for readers that take `LIF` alone, and other choices.

    Raises:
        ConversionError: naming the node that NIR has no word for.
        ImportError: if `nir` is not installed (`pip install "firstspike[nir]"`).

    >>> import firstspike as fs
    >>> from torch import nn, rand
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> network = fs.convert(model, fs.LIF(steps=16), calibration=rand(100, 4))
    >>> graph = fs.to_nir(network)
    >>> [type(node).__name__ for node in graph.nodes.values()]
    ['Input', 'Affine', 'IF', 'Affine', 'Output']
    """
    return _Builder(network, dialect or Dialect()).graph()


def limits(network: SpikingNetwork) -> tuple[str, ...]:
    """What NIR cannot say about this network: readers that ignore our metadata do without it."""
    code, found = network.code, []
    if isinstance(code, LIF):
        if code.subtract:
            found.append("soft reset (a spike takes the threshold off): NIR sets the potential")
        if not code.strict:
            found.append("NIR's text fires above the threshold only; ours, and some readers, at it")
    elif isinstance(code, Rate | FewStep):
        found.append("soft reset (a spike takes the threshold off): NIR sets the potential")
        if code.initial_potential:
            found.append(f"potentials start at {code.initial_potential:g} of the threshold, not 0")
        if isinstance(code, FewStep) and code.bias_shift:
            found.append(f"a current of {code.bias_shift:g} thresholds over all steps")
    else:
        found.append(
            f"the code {code.name}: windows, changing thresholds and what a spike stands for; "
            "plain readers get integrate-and-fire neurons of constant threshold"
        )
    if not isinstance(getattr(code, "input", Direct()), Direct):
        found.append(f"input spikes by {code.input}: plain readers take the image as a current")  # type: ignore[attr-defined]
    if pools := network.network.max_pools():
        found.append(f"max pools of spikes ({', '.join(pools)}): average pools stand in")
    return tuple(found)


@dataclass(frozen=True)
class _Signal:
    """Sum of the outputs of NIR nodes; the value in the ANN's units is `factor` times it.

    `factor` is a float64 tensor, () or broadcasting against one sample.
    """

    nodes: tuple[str, ...]
    shape: tuple[int, ...]
    factor: Tensor


class _Builder:
    def __init__(self, spiking: SpikingNetwork, dialect: Dialect) -> None:
        self.nir = optional("nir", "nir")
        self.spiking, self.dialect = spiking, dialect
        self.network = fold_batch_norm(spiking.network)
        self.dtype = spiking.input_low.dtype
        self.nodes: dict[str, Any] = {}
        self.edges: list[tuple[str, str]] = []
        self.signals: dict[str, _Signal] = {}

    def graph(self) -> Any:
        for node in self.network.nodes:
            self.signals[node.name] = self._emit(node)
        name = self.network.output.name
        end = self._rescaled(name, _ONE)
        self.nodes["output"] = self.nir.Output(output_type=np.array(end.shape))
        self.edges += [(source, "output") for source in end.nodes]
        metadata = _metadata(self.spiking, self.nodes)
        return self.nir.NIRGraph(nodes=self.nodes, edges=self.edges, metadata=metadata)

    # ---- one node of ours ------------------------------------------------------------------------
    def _emit(self, node: Node) -> _Signal:
        if node.name == INPUT:
            self.nodes["input"] = self.nir.Input(input_type=np.array(node.shape))
            return _Signal(("input",), node.shape, _ONE)
        op = self.network.op(node.name)
        if isinstance(op, ops.Rectifier):
            return self._population(node)
        emit = getattr(self, f"_emit_{type(op).__name__.lower()}", None)
        if emit is None:
            self._refuse(node, f"NIR has no {type(op).__name__}")
        return emit(node, op)

    def _emit_convolution(self, node: Node, op: ops.Convolution) -> _Signal:
        axes = op.weight.ndim - 2
        if axes > 2:
            self._refuse(node, "NIR has convolutions in one and two dimensions")
        source = self.signals[node.inputs[0]]
        weight, factor = _dense_groups(op), source.factor
        if factor.ndim:
            per_channel = self._per_channel(node, factor, source.shape)
            weight, factor = weight * per_channel.reshape(1, -1, *[1] * axes), _ONE
        padding = op.hyper.get("padding", 0)
        if padding == "valid":
            padding = 0
        plain = {
            name: _one_or_pair(op.hyper.get(name, default), axes)
            for name, default in (("stride", 1), ("dilation", 1))
        }
        bias = torch.zeros(len(weight)) if op.bias is None else op.bias.detach()
        made = (self.nir.Conv1d if axes == 1 else self.nir.Conv2d)(
            input_shape=source.shape[1] if axes == 1 else tuple(source.shape[1:]),
            weight=self._array(weight),
            padding=padding if isinstance(padding, str) else _one_or_pair(padding, axes),
            groups=1,
            bias=self._array(bias.double() / factor),
            **plain,
        )
        return self._add(node, made, source.nodes, factor)

    def _emit_dense(self, node: Node, op: ops.Dense) -> _Signal:
        source = self.signals[node.inputs[0]]
        if len(source.shape) != 1:
            self._refuse(node, f"NIR's Affine takes flat input, got shape {source.shape}")
        weight, factor = op.weight.detach().double(), source.factor
        if factor.ndim:
            weight, factor = weight * factor.expand(source.shape), _ONE
        bias = torch.zeros(len(weight)) if op.bias is None else op.bias.detach()
        made = self.nir.Affine(self._array(weight), self._array(bias.double() / factor))
        return self._add(node, made, source.nodes, factor)

    def _emit_affine(self, node: Node, op: ops.Affine) -> _Signal:
        source = self.signals[node.inputs[0]]
        scale = _ONE if op.scale is None else op.scale.detach().double()
        if op.shift is None or not bool(op.shift.any()):
            factor = (source.factor * scale).expand(source.shape)
            same = bool((factor == factor.flatten()[0]).all())
            return replace(source, factor=factor.flatten()[0] if same else source.factor * scale)
        if node.inputs[0] == INPUT and op.scale is None and self._adds_low(op):
            return source  # the graph takes the image itself: x = (x - low) + low
        return self._diagonal(node, source, source.factor * scale, op.shift.detach().double())

    def _emit_add(self, node: Node, op: ops.Add) -> _Signal:
        """Edges into one node add up, so a sum needs no node, but one unit for all its terms."""
        terms = [
            replace(self.signals[name], factor=self.signals[name].factor * coefficient)
            for name, coefficient in zip(node.inputs, op.hyper["coefficients"])
        ]
        fixed = [t for name, t in zip(node.inputs, terms) if not self._foldable(name, t)]
        factor = next((t.factor for t in (*fixed, *terms) if not t.factor.ndim), _ONE)
        parts: tuple[str, ...] = ()
        for name, term in zip(node.inputs, terms):
            part = self._rescaled(name, factor, term).nodes
            if set(part) & set(parts):  # NIR has one edge between two nodes
                unit = replace(term, factor=term.factor / factor)
                part = self._matrix(node, unit, torch.eye(node.shape[0]).double(), None).nodes
            parts += part
        return _Signal(parts, node.shape, factor)

    def _emit_concatenate(self, node: Node, op: ops.Concatenate) -> _Signal:
        if op.hyper["dim"] != 1:
            self._refuse(node, "NIR joins nothing but sums; only channels can be embedded in them")
        start = 0
        parts: tuple[str, ...] = ()
        for i, name in enumerate(node.inputs):
            signal = self.signals[name]
            channels = signal.shape[0]
            embedding = torch.zeros(node.shape[0], channels, dtype=torch.float64)
            embedding[start + torch.arange(channels), torch.arange(channels)] = 1.0
            start += channels
            part = Node(f"{node.name}_{i}", (), (node.shape[0], *signal.shape[1:]))
            parts += self._matrix(part, signal, embedding, None).nodes
        return _Signal(parts, node.shape, _ONE)

    def _emit_reshape(self, node: Node, op: ops.Reshape) -> _Signal:
        source = self.signals[node.inputs[0]]
        factor = source.factor
        if len(node.shape) != 1:
            if tuple(node.shape) == tuple(source.shape):
                return source
            self._refuse(node, f"NIR flattens, and does not reshape to {node.shape}")
        if factor.ndim:
            factor = factor.expand(source.shape).reshape(-1)
        if len(source.shape) == 1:
            return replace(source, factor=factor)
        return self._add(node, self._flatten(source.shape), source.nodes, factor)

    def _emit_averagepool(self, node: Node, op: ops.AveragePool) -> _Signal:
        if any(_pair(op.hyper.get("padding", 0))) and not op.hyper.get("count_include_pad", True):
            self._refuse(node, "NIR's average pools count the padding")
        if op.hyper.get("divisor_override") is not None:
            self._refuse(node, "NIR's average pools divide by the size of their window")
        return self._pool(node, op.hyper)

    def _emit_adaptiveaveragepool(self, node: Node, op: ops.AdaptiveAveragePool) -> _Signal:
        sizes, size = self.signals[node.inputs[0]].shape[1:], _pair(op.hyper["output_size"])
        if any(whole % part for whole, part in zip(sizes, size)):
            self._refuse(node, f"{sizes} does not divide into {size} equal windows")
        return self._pool(node, op.hyper)

    def _emit_maxpool(self, node: Node, op: ops.MaxPool) -> _Signal:
        """An average pool stands in: NIR cannot say the earliest spike; `limits` lists it."""
        return self._pool(node, op.hyper)

    def _emit_mean(self, node: Node, op: ops.Mean) -> _Signal:
        source = self.signals[node.inputs[0]]
        if len(source.shape) != 3 or tuple(op.hyper["dim"]) != (2, 3):
            self._refuse(node, f"NIR averages over height and width, not {op.hyper['dim']}")
        shape = (source.shape[0], 1, 1)
        pooled = self._pool(replace(node, shape=shape), {"dims": 2, "output_size": 1})
        if op.hyper["keepdim"]:
            return pooled
        made = self._flatten(shape)
        flat = replace(node, name=f"{node.name}_flat")
        factor = pooled.factor.expand(shape).reshape(-1) if pooled.factor.ndim else pooled.factor
        return self._add(flat, made, pooled.nodes, factor)

    # ---- pieces of NIR ---------------------------------------------------------------------------
    def _pool(self, node: Node, hyper: Mapping[str, Any]) -> _Signal:
        """Averages over windows of one size, also for pools that name the size of their output."""
        source = self.signals[node.inputs[0]]
        if hyper["dims"] != 2:
            self._refuse(node, f"NIR pools in two dimensions, not {hyper['dims']}")
        if "output_size" in hyper:
            sizes, size = source.shape[1:], _pair(hyper["output_size"])
            kernel = stride = tuple(whole // part for whole, part in zip(sizes, size))
        else:
            kernel = _pair(hyper["kernel_size"])
            stride = _pair(hyper.get("stride") or kernel)
        padding = _pair(hyper.get("padding", 0))
        expected = [
            (size + 2 * p - k) // s + 1
            for size, k, s, p in zip(source.shape[1:], kernel, stride, padding)
        ]
        if list(node.shape[1:]) != expected:
            self._refuse(node, "NIR's pools round their output size down (ceil_mode=False)")
        factor = source.factor
        if factor.ndim:
            self._per_channel(node, factor, source.shape)
        options = {
            "kernel_size": np.array(kernel),
            "stride": np.array(stride),
            "padding": np.array(padding),
        }
        if self.dialect.sum_pools:
            made, factor = self.nir.SumPool2d(**options), factor / float(np.prod(kernel))
        else:
            made = self.nir.AvgPool2d(**options)
        return self._add(node, made, source.nodes, factor)

    def _population(self, node: Node) -> _Signal:
        """The neuron in units of the factor of what arrives; spikes of size 1."""
        neuron = self.spiking.neuron(node.name)
        thresholds, values = _threshold_and_value(neuron)
        name = node.inputs[0]
        source = self.signals[name]
        unit = source.factor
        if unit.ndim or (thresholds.ndim and _constant_in_space(thresholds, node.shape)):
            unit = torch.where(thresholds == 0, 1.0, thresholds.abs())  # one threshold for all: 1
            source = self._rescaled(name, unit)
        ratio = (thresholds / unit).expand(node.shape)
        made = self._neuron(neuron, unit, ratio, node.shape)
        made.metadata = {KEY: json.dumps({"population": node.name, "code": str(self.spiking.code)})}
        return self._add(node, made, source.nodes, values)

    def _neuron(self, neuron: Any, unit: Tensor, threshold: Tensor, shape: tuple[int, ...]) -> Any:
        """IF, LIF or CubaLIF with constants of every neuron, in units of `unit`."""

        def full(value: Tensor | float) -> np.ndarray:
            tensor = torch.as_tensor(value, dtype=torch.float64)
            return tensor.expand(shape).contiguous().numpy()

        dt, nothing = self.dialect.dt, torch.zeros(())
        leak, gain, decay, weight_in = 0.0 * _ONE, _ONE, 0.0 * _ONE, _ONE
        v_reset = v_leak = nothing.double()
        if isinstance(neuron, LIFNeuron):
            leak, gain, decay, weight_in = (
                getattr(neuron, name).double()
                for name in ("leak", "gain", "decay_syn", "weight_in")
            )
            v_reset, v_leak = neuron.v_reset.double() / unit, neuron.v_leak.double() / unit
        elif hasattr(neuron, "leak"):
            leak = 1.0 - neuron.leak.detach().double()
        if self.dialect.once and not bool(leak.any()):
            v_reset = -1e6 * threshold.abs().max()
        tau = dt * torch.where(leak > 0, 1.0 / leak.clamp(min=1e-300), _NO_LEAK)
        reset = {"v_threshold": full(threshold), "v_reset": full(v_reset)}
        if bool(decay.any()):
            tau_syn = dt / (1.0 - decay)
            return self.nir.CubaLIF(
                tau_syn=full(tau_syn),
                tau_mem=full(tau),
                r=full(gain * tau / dt),
                v_leak=full(v_leak),
                w_in=full(weight_in * tau_syn / dt),
                **reset,
            )
        if bool(leak.any()) or self.dialect.leaky:
            r = full(gain * weight_in * tau / dt)
            return self.nir.LIF(tau=full(tau), r=r, v_leak=full(v_leak), **reset)
        return self.nir.IF(r=full(gain * weight_in / dt), **reset)

    def _add(self, node: Node, made: Any, sources: Iterable[str], factor: Tensor) -> _Signal:
        name = self._free(node.name)
        self.nodes[name] = made
        self.edges += [(source, name) for source in sources]
        return _Signal((name,), tuple(node.shape), factor)

    def _free(self, name: str) -> str:
        name = name if name not in ("input", "output") else f"{name}_node"
        while name in self.nodes:
            name += "_"
        return name

    def _flatten(self, shape: tuple[int, ...]) -> Any:
        """Counted from the end: some readers forget that their batches have an axis in front."""
        kind = {"input": np.array(shape)}
        return self.nir.Flatten(input_type=kind, start_dim=-len(shape), end_dim=-1)

    def _identity(self, shape: tuple[int, ...], matrix: Tensor, bias: Tensor | None) -> Any:
        """`matrix` (out, in) over the channels of a sample, at every position alike."""
        b = torch.zeros(len(matrix)) if bias is None else bias
        if len(shape) == 1:
            return self.nir.Affine(self._array(matrix), self._array(b))
        if len(shape) > 3:
            raise ConversionError(
                f"NIR has no weights over samples of shape {shape}. "
                "Export to ONNX instead, or convert a model of 1-D or 2-D layers."
            )
        axes = len(shape) - 1
        made = self.nir.Conv1d if axes == 1 else self.nir.Conv2d
        return made(
            input_shape=shape[1] if axes == 1 else tuple(shape[1:]),
            weight=self._array(matrix.reshape(*matrix.shape, *[1] * axes)),
            stride=_one_or_pair(1, axes),
            padding=_one_or_pair(0, axes),
            dilation=_one_or_pair(1, axes),
            groups=1,
            bias=self._array(b),
        )

    def _matrix(self, node: Node, source: _Signal, matrix: Tensor, bias: Tensor | None) -> _Signal:
        """`matrix` times the signal's values, in the ANN's units."""
        factor = source.factor
        if factor.ndim:
            factor = self._per_channel(node, factor, source.shape)
        made = self._identity(source.shape, matrix * factor, bias)
        return self._add(node, made, source.nodes, _ONE)

    def _diagonal(self, node: Node, source: _Signal, scale: Tensor, shift: Tensor) -> _Signal:
        channels = source.shape[0]
        rows = self._per_channel(node, scale, source.shape).expand(channels)
        bias = self._per_channel(node, shift, source.shape).expand(channels)
        return self._matrix(node, replace(source, factor=_ONE), torch.diag(rows), bias)

    def _foldable(self, name: str, signal: _Signal) -> bool:
        """Whether a factor may move into the weights that our node `name` was written as."""
        alone = self.network.uses(name) <= 1 and signal.nodes == (name,)
        return alone and type(self.nodes[name]).__name__ in ("Affine", "Conv1d", "Conv2d")

    def _rescaled(self, name: str, factor: Tensor, signal: _Signal | None = None) -> _Signal:
        """The signal of our node `name` with another factor."""
        signal = self.signals[name] if signal is None else signal
        ratio = signal.factor / factor
        if bool((ratio == 1.0).all()):
            return replace(signal, factor=factor)
        node = Node(f"{name}_scaled", (), signal.shape)
        rows = self._per_channel(node, ratio, signal.shape)
        if self._foldable(name, signal):
            made = self.nodes[name]
            weight = torch.from_numpy(made.weight).double()
            made.weight = self._array(weight * rows.reshape(-1, *[1] * (weight.ndim - 1)))
            made.bias = self._array(torch.from_numpy(made.bias).double() * rows)
            return replace(signal, factor=factor)
        source, matrix = replace(signal, factor=_ONE), torch.diag(rows.expand(signal.shape[0]))
        return replace(self._matrix(node, source, matrix, None), factor=factor)

    # ---- helpers ---------------------------------------------------------------------------------
    def _array(self, tensor: Tensor) -> np.ndarray:
        return np.array(tensor.detach().to(self.dtype).cpu().contiguous().numpy())

    def _adds_low(self, op: ops.Affine) -> bool:
        low = self.spiking.input_low
        assert op.shift is not None
        return bool((op.shift.expand(self.network.input_shape) == low).all())

    def _per_channel(self, node: Node, value: Tensor, shape: tuple[int, ...]) -> Tensor:
        """`value` as () or (C,): NIR's weights are the same at every position."""
        if not value.ndim:
            return value
        if not _constant_in_space(value, shape):
            self._refuse(node, "NIR's weights are the same at every position; its factor is not")
        return value.expand(shape).reshape(shape[0], -1)[:, 0]

    def _refuse(self, node: Node, why: str) -> NoReturn:
        where = f" at {node.source}" if node.source else ""
        raise ConversionError(
            f"node {node.name!r}{where} cannot be written as NIR: {why}. Replace the layer, or "
            "hand the network on by another door (`firstspike export --to onnx`)."
        )


_ONE = torch.ones((), dtype=torch.float64)


def _constant_in_space(value: Tensor, shape: tuple[int, ...]) -> bool:
    full = value.expand(shape).reshape(shape[0], -1)
    return bool((full == full[:, :1]).all())


def _threshold_and_value(neuron: Any) -> tuple[Tensor, Tensor]:
    """Threshold and value of a spike in the ANN's units, float64."""
    if isinstance(neuron, LIFNeuron):
        return neuron.v_threshold.double(), neuron.scale.double()
    if hasattr(neuron, "threshold") and hasattr(neuron, "beta"):  # few steps
        threshold = neuron.threshold.detach().double()
        return threshold, neuron.beta.double() * threshold
    return neuron.scale.double(), neuron.scale.double()


def _dense_groups(op: ops.Convolution) -> Tensor:
    """(out, in, *kernel) in float64: NIR's readers take convolutions without groups only."""
    weight, groups = op.weight.detach().double(), op.hyper.get("groups", 1)
    if groups == 1:
        return weight
    out, each = weight.shape[:2]
    dense = weight.new_zeros(out, each * groups, *weight.shape[2:])
    for g, rows in enumerate(weight.chunk(groups)):
        first = g * (out // groups)
        dense[first : first + out // groups, g * each : (g + 1) * each] = rows
    return dense


def _pair(value: Any) -> tuple[int, ...]:
    """A hyper-parameter of a two-dimensional pool as two numbers."""
    return tuple(int(v) for v in value) if isinstance(value, tuple | list) else (int(value),) * 2


def _one_or_pair(value: Any, axes: int) -> Any:
    values = tuple(value) if isinstance(value, tuple | list) else (value,) * axes
    return int(values[0]) if axes == 1 else tuple(int(v) for v in values)


# ---- what our reader restores --------------------------------------------------------------------
def _metadata(spiking: SpikingNetwork, nodes: dict[str, Any]) -> dict[str, Any]:
    """Structure and code as text, and the tensors that no node holds bit for bit."""
    held: dict[str, list[str]] = {}
    tensors: dict[str, np.ndarray] = {}
    shapes: dict[str, list[int]] = {}
    for key, tensor in spiking.state_dict().items():
        array = tensor.detach().cpu().contiguous().numpy()
        place = _held(key, array, nodes)
        if place is not None:
            held[key] = place
            continue
        shapes[key] = list(array.shape)
        if array.size:
            tensors[key] = np.array(array).reshape(-1)  # scalars cannot be compressed
    description = {
        "format": 1,
        "network": spiking.network.describe(),
        "code": spiking.code.describe(),
        "origin": spiking.origin,
        "held": held,
        "shapes": shapes,
        "steps": getattr(spiking.code, "steps", None) or spiking.latency,
        "digest": digest(nodes),
    }
    return {KEY: json.dumps(description), f"{KEY}_tensors": tensors}


def _held(key: str, array: np.ndarray, nodes: dict[str, Any]) -> list[str] | None:
    """`[node, field]` that holds `array` bit for bit, for weights of a node of the same name."""
    parts = key.split(".")
    if parts[:2] != ["network", "ops"] or len(parts) != 4 or parts[2] not in nodes:
        return None
    value = getattr(nodes[parts[2]], parts[3], None)
    same = (
        isinstance(value, np.ndarray)
        and value.dtype == array.dtype
        and value.shape == array.shape
        and value.tobytes() == array.tobytes()
    )
    return [parts[2], parts[3]] if same else None


def digest(nodes: dict[str, Any]) -> str:
    """SHA-256 over names and arrays of the nodes: whether a graph is still the one we wrote."""
    found = hashlib.sha256()
    for name in sorted(nodes):
        node = nodes[name]
        found.update(f"{name}:{type(node).__name__}".encode())
        for key, value in sorted(vars(node).items()):
            if isinstance(value, np.ndarray) and value.dtype.kind == "f":
                found.update(key.encode() + value.tobytes())
    return found.hexdigest()

"""The network on integers alone, with declared widths; what does not fit is clipped and counted.

Spike times are equal to those of the fake-quantized network, because every number of that network
is an integer times a power of two: the two differ by the binary point only. From the input spikes
on nothing here is a floating-point number; `byte_network` has the same integers on int8 kernels.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from firstspike.codes.ttfs import TTFS, TableNeuron
from firstspike.config import require, require_integer
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.networks import INPUT
from firstspike.quantized.fixed_point import exponents_of, value_exponents, weight_exponents
from firstspike.quantized.integer_ops import IntegerOp, integer_network

if TYPE_CHECKING:
    from firstspike.quantized.int8_network import ByteNetwork

ENGINES = ("closed_form", "clock", "bytes")


class DoesNotFitBytes(ValueError):
    """A network that byte arithmetic cannot hold."""


@dataclass
class IntegerRecord:
    """What an integer simulation returns.

    Attributes:
        logits: (N, classes) integers; `2^logit_exponent` times them are the float logits.
        logit_exponent: of the readout.
        spike_times: step within the own window as int64, (N, *population); the number of
            steps of that window = never fired.
        saturations: potentials clipped to the declared width, by population (readout included).
        largest_potential: largest absolute potential met, by population; not seen by "bytes".
    """

    logits: Tensor
    logit_exponent: int
    spike_times: dict[str, Tensor] = field(default_factory=dict)
    saturations: dict[str, int] = field(default_factory=dict)
    largest_potential: dict[str, int] = field(default_factory=dict)

    @property
    def predictions(self) -> Tensor:
        return self.logits.argmax(1)


class IntegerNetwork(nn.Module):
    """A quantized TTFS network as integers.

    Calling it returns logits (N, classes) in ANN units by the fastest exact arithmetic: int8
    kernels where spike values are bytes and 32 bits hold every sum. `run` returns spike times too.

    Args:
        network: from `quantize` or `finetune`.
        potential_bits: declared width of potentials and thresholds, sign included. A potential
            that leaves it is clipped after every step and counted.

    Raises:
        ValueError: if the network is not quantized, its code is not TTFS, its weights do not lie
            on their grid, or a threshold does not fit the declared width.

    >>> import firstspike as fs
    >>> from firstspike.quantized import Quantization, quantize
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> spiking = fs.convert(model, fs.TTFS(255, fs.Linear()), calibration=torch.rand(100, 4))
    >>> quantized = quantize(spiking, Quantization(bits=8))
    >>> integer = IntegerNetwork(quantized, potential_bits=32)
    >>> torch.equal(integer(torch.ones(2, 4)), quantized(torch.ones(2, 4)))
    True
    """

    def __init__(self, network: SpikingNetwork, potential_bits: int = 24) -> None:
        super().__init__()
        require_integer("potential_bits", potential_bits, 2, "24 holds any usual layer.")
        require(potential_bits <= 62, "potential_bits", "be at most 62", potential_bits, "Try 24.")
        if not isinstance(network.code, TTFS):
            raise ValueError(
                f"`network` must speak TTFS to run on integers, got {network.code.name}. Convert "
                "the model with TTFS(window, Linear())."
            )
        self.source = [network]
        self.potential_bits = potential_bits
        values = _checked_value_exponents(network)
        self.exponents = exponents_of(network, values)
        self.network = integer_network(network, self.exponents, weight_exponents(network))
        self.values: dict[str, Tensor] = {}
        self.thresholds: dict[str, Tensor] = {}
        for name in network.populations:
            self._make_neuron(name)
        self.guaranteed = {name: self._cannot_saturate(name) for name in self._targets()}
        self._bytes: ByteNetwork | None = None  # made on first use
        self._warned = False

    @property
    def limits(self) -> tuple[int, int]:
        return -(2 ** (self.potential_bits - 1)), 2 ** (self.potential_bits - 1) - 1

    def _targets(self) -> tuple[str, ...]:
        """What integrates: hidden populations and the readout."""
        return (*self.network.populations, self.network.output.name)

    def _make_neuron(self, name: str) -> None:
        """Integer values and thresholds, (T, 1 or C, ...): `u >= theta` iff `u >= ceil(theta)`."""
        neuron = self.source[0].neuron(name)
        assert isinstance(neuron, TableNeuron)
        thresholds, values = (x.detach().double() for x in neuron.table())
        scale = neuron.scale.detach().double()
        column = (-1,) + (1,) * scale.ndim
        value = values.reshape(column) * scale * 2.0 ** -float(self.exponents[name])
        self.values[name] = value.round().long()
        if name == INPUT:
            return
        exponent = self.exponents[self.network.node[name].inputs[0]]
        space = len(self.network.node[name].shape)
        level = (thresholds.reshape(column) * scale).reshape(
            len(thresholds), *(scale.shape if scale.ndim else (1,) * space)
        ) * torch.exp2(-exponent)
        self.thresholds[name] = torch.ceil(level).long()
        top = int(self.thresholds[name].max())
        if top > self.limits[1]:
            raise ValueError(
                f"`potential_bits` must hold the threshold {top:,} of population {name!r}, got "
                f"{self.potential_bits}. Pass potential_bits={top.bit_length() + 1} or more."
            )

    def _cannot_saturate(self, name: str) -> bool:
        """Whether no input whatever, in any order, can bring a potential out of its width.

        All partial sums lie between `bias - sum |w| v_max` and `bias + sum |w| v_max`.
        """
        nodes, sources = self.network.segment(name)
        largest = {
            s: torch.zeros(1, *self.network.node[s].shape, dtype=torch.int64)
            + self.values[s].amax(0)
            for s in sources
        }
        zeros = {s: torch.zeros_like(v) for s, v in largest.items()}
        bias = self.network.run_segment(nodes, zeros)
        known: dict[str, Tensor] = dict(largest)
        for node in nodes:
            op = self.network.op(node.name)
            arguments = [known[i] for i in node.inputs]
            known[node.name] = (
                op.magnitude(*arguments) if isinstance(op, IntegerOp) else op(*arguments)
            )
        reach = known[nodes[-1].name] if nodes else bias.abs()
        return bool((reach <= self.limits[1]).all())

    # ---- running --------------------------------------------------------------------------------
    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) in the units of the ANN and the type of `x`; no gradients."""
        try:
            return self.bytes().logits(x).to(x.dtype)
        except DoesNotFitBytes as error:
            if not self._warned:
                warnings.warn(f"running on int64 tensors, slowly: {error}", stacklevel=2)
                self._warned = True
        record = self.run(x)
        return (record.logits.double() * 2.0**record.logit_exponent).to(x.dtype)

    def bytes(self) -> ByteNetwork:
        """The same network on int8 kernels.

        Raises:
            DoesNotFitBytes: where values do not fit a byte or potentials could be clipped.
        """
        from firstspike.quantized.int8_network import ByteNetwork

        if self._bytes is None:
            self._bytes = ByteNetwork(self)
        return self._bytes

    @torch.no_grad()
    def run(self, x: Tensor, engine: str = "closed_form") -> IntegerRecord:
        """Simulate images (N, ...). The host encodes them; everything after is integer.

        All engines have the same spike times and logits.

        Args:
            engine: "clock" steps every population through time, its potential clipped and counted
                at every step. "closed_form" takes one pass where the width rules saturation out
                and the code has a closed form, and steps through time elsewhere. "bytes" runs on
                int8 kernels and refuses networks that do not fit.
        """
        if engine not in ENGINES:
            raise ValueError(f"`engine` must be one of {', '.join(ENGINES)}, got {engine!r}.")
        source = self.source[0]
        output = self.network.output.name
        record = IntegerRecord(torch.empty(0), int(self.exponents[output].min()))
        if engine == "bytes":
            return self._read(record, *self.bytes().values(x))
        times = source.neuron(INPUT).encode(source.shifted(x))
        silent = len(self.values[INPUT])
        record.spike_times[INPUT] = torch.where(times.isfinite(), times, silent).long()
        stepped = engine == "clock"
        for name in self.network.populations:
            found = self._integrate(name, record, self.thresholds[name], stepped)
            record.spike_times[name] = found
        u = self._integrate(output, record, None, stepped)
        shift = torch.exp2(self.exponents[output] - record.logit_exponent).long()
        record.logits = u * shift
        return record

    def _read(
        self, record: IntegerRecord, logits: Tensor, values: dict[str, Tensor]
    ) -> IntegerRecord:
        """A record of what the byte network computed: a value's place in its table is its time."""
        for name, said in values.items():
            record.spike_times[name] = _first_crossing(said.long(), self.values[name])
        record.saturations = dict.fromkeys(self._targets(), 0)
        record.logits = (logits.double() * 2.0**-record.logit_exponent).long()
        return record

    def _decode(self, name: str, times: Tensor) -> Tensor:
        """Integer values of spikes; 0 for silence."""
        table = torch.cat([self.values[name], torch.zeros_like(self.values[name][:1])])
        if table.ndim == 1:
            return table[times]
        return torch.gather(
            table.expand(-1, *times.shape[1:]), 0, times.reshape(len(times), *times.shape[1:])
        )

    def _integrate(
        self, name: str, record: IntegerRecord, thresholds: Tensor | None, stepped: bool
    ) -> Tensor:
        """Spike times (with thresholds) or final potentials (without) of one target."""
        nodes, sources = self.network.segment(name)
        if self.source[0].code.sequential and self.guaranteed[name] and not stepped:
            decoded = {s: self._decode(s, record.spike_times[s]) for s in sources}
            u = self.network.run_segment(nodes, decoded)
            record.saturations[name] = 0
            record.largest_potential[name] = int(u.abs().max())
            return u if thresholds is None else _first_crossing(u, thresholds)
        return self._step_through(name, record, thresholds)

    def _step_through(self, name: str, record: IntegerRecord, thresholds: Tensor | None) -> Tensor:
        """Integrate step by step; the potential is clipped to its width after every step."""
        network, spiking = self.network, self.source[0]
        nodes, sources = network.segment(name)
        arrivals = {s: record.spike_times[s] + spiking.window_of(s).start for s in sources}
        ends = {s: spiking.window_of(s).stop for s in sources}
        decoded = {s: self._decode(s, record.spike_times[s]) for s in sources}
        window = range(0) if thresholds is None else spiking.window_of(name)
        first = min(spiking.window_of(s).start for s in sources)
        last = max(max(ends.values()), window.stop)
        zeros = {s: torch.zeros_like(v) for s, v in decoded.items()}
        before = network.run_segment(nodes, zeros)
        low, high = self.limits
        saturations = int(((before < low) | (before > high)).sum())
        potential = before.clamp(low, high)
        largest = int(before.abs().max())
        times = torch.full_like(potential, len(window))
        for step in range(first, last):
            if step < max(ends.values()):
                so_far = {
                    s: torch.where((arrivals[s] <= step) & (arrivals[s] < ends[s]), decoded[s], 0)
                    for s in sources
                }
                now = network.run_segment(nodes, so_far)
                potential = potential + (now - before)
                before = now
                outside = (potential < low) | (potential > high)
                largest = max(largest, int(potential.abs().max()))
                saturations += int(outside.sum())
                potential = potential.clamp(low, high)
            if step in window and thresholds is not None:
                t = step - window.start
                fires = (times == len(window)) & (potential >= thresholds[t])
                times = torch.where(fires, t, times)
        record.saturations[name] = saturations
        record.largest_potential[name] = largest
        return potential if thresholds is None else times


def _first_crossing(u: Tensor, thresholds: Tensor) -> Tensor:
    """Number of thresholds above the potential: the first step at which it is reached.

    Args:
        u: (N, ...) integers.
        thresholds: (T,), or (T, ...) with size 1 or that of a sample on every axis; falling.
    """
    steps, shape = len(thresholds), thresholds.shape[1:]
    axes = [axis for axis, size in enumerate(shape) if size > 1]
    if len(axes) > 1:
        return torch.stack([u < level for level in thresholds]).sum(0)
    rising = thresholds.flip(0).reshape(steps, -1).T.contiguous()  # (1 or C, T)
    if not axes:
        return steps - torch.searchsorted(rising[0], u.contiguous(), right=True)
    moved = u.movedim(axes[0] + 1, 0)
    reached = torch.searchsorted(rising, moved.flatten(1).contiguous(), right=True)
    return (steps - reached).reshape(moved.shape).movedim(0, axes[0] + 1)


def _checked_value_exponents(network: SpikingNetwork) -> dict[str, int]:
    weight_exponents(network)  # refuses networks that are not quantized
    values = value_exponents(network)
    assert values is not None
    return values

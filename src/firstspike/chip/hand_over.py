"""A mapped network for other tools: cores, neurons and routing tables as JSON, traffic as text.

The JSON has a schema of its own (`HandOver.model_json_schema()`) and a reader that checks it.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, model_validator
from torch import Tensor

from firstspike._files import atomic_write, write_json
from firstspike._reading import read_json, reading
from firstspike.chip.fan_out import Fanout, fanout
from firstspike.chip.mapping import Mapping
from firstspike.chip.routing import link_loads
from firstspike.chip.traffic import Traffic, record_spikes, traffic_of
from firstspike.engines.spiking_network import SpikingNetwork

Count = Annotated[int, Field(ge=0)]


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=False)


class Core(_Entry):
    """A core of the mesh and the neurons on it."""

    core: Count = Field(description="number of the core, y * width + x")
    layer: str
    channels: tuple[Count, Count] = Field(description="half-open range")
    rows: tuple[Count, Count] = Field(description="half-open range; one row without space")
    neurons: Count
    axons: Count = Field(description="distinct neurons that these hear")
    weight_bits: Count = Field(description="bits of its weight memory")


class Route(_Entry):
    """Where the spikes of one class of neurons go: a multicast entry of a core's table."""

    core: Count = Field(description="core of the neurons")
    targets: tuple[Count, ...] = Field(description="cores that hear them", min_length=1)


class Layer(_Entry):
    """A layer and the route of each of its neurons."""

    name: str
    shape: tuple[Count, ...]
    routes: tuple[int, ...] = Field(
        description="per neuron of the flattened layer: index into the routes, -1 where nobody "
        "listens; empty for the readout"
    )


class HandOver(_Entry):
    """What a chip's tools need to know of a mapped network, weights apart."""

    format: Literal[1] = 1
    chip: str
    width: Annotated[int, Field(ge=1)]
    height: Annotated[int, Field(ge=1)]
    bits: Annotated[int, Field(ge=1, description="of a stored weight")]
    fingerprint: str = Field(description="of the network's structure")
    latency: Count = Field(description="steps of a frame")
    cores: tuple[Core, ...]
    layers: tuple[Layer, ...]
    routes: tuple[Route, ...]

    @model_validator(mode="after")
    def _check(self) -> HandOver:
        used = [core.core for core in self.cores]
        if len(set(used)) != len(used) or max(used, default=0) >= self.width * self.height:
            raise ValueError("every core must be on the mesh and hold one group")
        for route in self.routes:
            if not {route.core, *route.targets} <= set(used):
                raise ValueError(f"the route from core {route.core} must lead to cores in use")
        for layer in self.layers:
            if layer.routes and len(layer.routes) != int(np.prod(layer.shape)):
                raise ValueError(f"layer {layer.name!r} must have a route for each neuron")
            if layer.routes and not -1 <= min(layer.routes) <= max(layer.routes) < len(self.routes):
                raise ValueError(f"layer {layer.name!r} must name routes that are there")
        return self

    def save(self, path: str | Path) -> None:
        """Write the JSON, atomically."""
        write_json(path, self.model_dump(mode="json"))

    @classmethod
    def load(cls, path: str | Path) -> HandOver:
        """Read and check the JSON.

        Raises:
            ValueError: if it is not whole or breaks a rule; the message names it.
        """
        with reading(path, "the hand-over of a mapped network"):
            return cls.model_validate(read_json(path))


def hand_over(network: SpikingNetwork, mapping: Mapping) -> HandOver:
    """Cores, layers and routing tables of a mapped network.

    >>> import torch, firstspike as fs
    >>> from torch import nn
    >>> from firstspike.chip import load_chip, map_network
    >>> model = nn.Sequential(nn.Linear(16, 2000), nn.ReLU(), nn.Linear(2000, 10))
    >>> network = fs.convert(model, fs.TTFS(8), calibration=torch.rand(10, 16))
    >>> made = hand_over(network, map_network(network, load_chip("canmore22")))
    >>> [(core.layer, core.neurons) for core in made.cores]
    [('input', 16), ('_1', 1000), ('_1', 1000), ('_2', 10)]
    >>> made.routes[0]
    Route(core=0, targets=(1, 2))
    """
    mapping.check(network)
    heard = fanout(network, mapping)
    cores = tuple(
        Core(core=core, **vars(group)) for group, core in zip(mapping.groups, mapping.cores)
    )
    routes = tuple(
        Route(
            core=mapping.cores[int(heard.source[c])],
            targets=tuple(sorted(mapping.cores[int(t)] for t in heard.heard_by(c))),
        )
        for c in range(len(heard))
    )
    layers = tuple(
        Layer(
            name=name,
            shape=shape,
            routes=tuple(heard.class_of[name].tolist()) if name in heard.class_of else (),
        )
        for name, shape in mapping.layers.items()
    )
    return HandOver(
        chip=mapping.chip,
        width=mapping.width,
        height=mapping.height,
        bits=mapping.bits,
        fingerprint=mapping.fingerprint,
        latency=network.latency,
        cores=cores,
        layers=layers,
        routes=routes,
    )


def packets(traffic: Traffic, fanout: Fanout, mapping: Mapping) -> Iterator[tuple[int, int, int]]:
    """Unicast packets of a frame: step, source core, target core."""
    for step, klass in zip(traffic.step.tolist(), traffic.klass.tolist()):
        source = mapping.cores[int(fanout.source[klass])]
        for target in fanout.heard_by(klass).tolist():
            yield step, source, mapping.cores[target]


def trace_text(traffic: Traffic, fanout: Fanout, mapping: Mapping) -> str:
    """A packet per line, `step source target`, in the order of the steps."""
    lines = (f"{step} {a} {b}" for step, a, b in packets(traffic, fanout, mapping))
    return "\n".join(("# step source target", *lines)) + "\n"


def noxim_table(
    traffic: Traffic, fanout: Fanout, mapping: Mapping, cycles_per_step: int = 1
) -> str:
    """A traffic table of the Noxim simulator: `source target rate`, packets per cycle.

    Args:
        cycles_per_step: of the mesh.
    """
    counts: dict[tuple[int, int], int] = {}
    for _, source, target in packets(traffic, fanout, mapping):
        counts[source, target] = counts.get((source, target), 0) + 1
    cycles = max(traffic.steps * cycles_per_step, 1)
    lines = (f"{a} {b} {n / cycles:.9g}" for (a, b), n in sorted(counts.items()) if a != b)
    return "\n".join(("% source target packets_per_cycle", *lines)) + "\n"


def save_hand_over(
    folder: str | Path, network: SpikingNetwork, mapping: Mapping, frame: Tensor
) -> str:
    """Write `hand_over.json` with its schema, and a frame's traffic as `trace.txt`, `noxim.txt`.

    Args:
        frame: (1, ...), the image whose spikes travel.

    Returns:
        a line that says how the files were checked: the JSON read back, the hops of the packets in
        the trace counted against those of our own unicast routing.
    """
    folder, made = Path(folder), hand_over(network, mapping)
    made.save(folder / "hand_over.json")
    write_json(folder / "hand_over.schema.json", HandOver.model_json_schema())
    heard = fanout(network, mapping)
    traffic = traffic_of(record_spikes(network, frame), heard)
    texts = {
        "trace.txt": trace_text(traffic, heard, mapping),
        "noxim.txt": noxim_table(traffic, heard, mapping),
    }
    for name, text in texts.items():
        with atomic_write(folder / name) as file:
            file.write(text.encode())
    back = "read back equal" if HandOver.load(folder / "hand_over.json") == made else "differs"
    packets = np.loadtxt(folder / "trace.txt", dtype=np.int64, ndmin=2).reshape(-1, 3)
    (y, x), (to_y, to_x) = (np.divmod(packets[:, i], mapping.width) for i in (1, 2))
    hops = int((abs(x - to_x) + abs(y - to_y)).sum())
    ours = link_loads(heard, mapping, traffic.counts(len(heard)), "unicast").hops
    return (
        f"hand_over.json: {len(made.cores):,} cores, {len(made.routes):,} routes, {back}; "
        f"trace.txt: {len(packets):,} packets, {hops:,} hops, {ours:,.0f} by our routing"
    )

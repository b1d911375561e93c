"""`view`: every spike of a few samples in one self-contained page, and the network to run there."""

from __future__ import annotations

import html
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from firstspike._files import atomic_write
from firstspike.config import require
from firstspike.engines import default_engine, simulate
from firstspike.engines.agreement import compare_records
from firstspike.engines.record import Record
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.viewer.describe import (
    describe_population,
    live_network,
    pack,
    pack_times,
    reason_against,
)

_HERE = Path(__file__).parent


@dataclass(frozen=True)
class Viewer:
    """A page that shows spikes; it needs no server, no network and no other file.

    Attributes:
        page: the HTML text.
    """

    page: str

    def save(self, path: str | Path) -> Path:
        """Write the page, atomically."""
        with atomic_write(path, "w") as file:
            file.write(self.page)
        return Path(path)

    def embedded(self, height: int = 760) -> str:
        """The page as a frame within another page."""
        return (
            f'<iframe title="Spikes over time" style="width:100%;height:{height}px;border:0" '
            f'srcdoc="{html.escape(self.page, quote=True)}"></iframe>'
        )

    def _repr_html_(self) -> str:
        return self.embedded()


@torch.no_grad()
def view(
    network: SpikingNetwork | Mapping[str, SpikingNetwork],
    images: Tensor,
    labels: Tensor | Sequence[int] | None = None,
    *,
    classes: Sequence[str] = (),
    title: str = "Spikes over time",
    live: bool = True,
    largest_live: int = 300_000,
) -> Viewer:
    """The spikes of `images` as a page with a clock.

    It shows every population as feature maps whose neurons light up in order of time, the input,
    the race of the class potentials with the moment of decision, and for any neuron its potential
    against the falling threshold, its largest inputs and its value in the ANN. The step-by-step
    engine runs beside the fastest one; neurons in which they differ are ringed.

    A network of at most `largest_live` weights also runs in the page, in 64-bit floats: draw an
    input, change window, offset and tau.

    Args:
        network: one network, or several of one ANN by name (plain windows and early firing, say),
            whose codes have one spike per neuron and a threshold table.
        images: (N, ...), a few; each adds about as many bytes as the network has neurons.
        labels: (N,) true classes.
        classes: their names.
        live: whether the page may run the network itself.
        title: heading of the page.

    Raises:
        ValueError: if a code has no falling threshold table, or there are no images.

    >>> from torch import nn, rand
    >>> import firstspike as fs
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> network = fs.convert(model, fs.TTFS(window=8), calibration=rand(100, 4))
    >>> view(network, rand(2, 4)).page.startswith("<!doctype html>")
    True
    """
    networks = dict(network) if isinstance(network, Mapping) else {str(network.code): network}
    require(len(networks) > 0, "network", "hold at least one network", networks, "Pass one.")
    require(len(images) > 0, "images", "hold at least one sample", len(images), "Pass a few.")
    for one in networks.values():
        if (reason := reason_against(one)) is not None:
            raise ValueError(
                f"`network` must suit the page, got {one.code}: {reason}. Other networks are drawn "
                "by `firstspike.plots.plot_raster`."
            )
    first = next(iter(networks.values()))
    images = images.to(first.input_low)
    runs, engines = [], []
    for name, one in networks.items():
        record = simulate(one, images, default_engine(one), over_time=True, potentials=True)
        clock = simulate(one, images, "clock")
        agreement = compare_records(one, record, clock, images)
        engines.append(f"{name}: {str(agreement).splitlines()[0]}")
        runs.append(_run(name, one, record, clock))
    ann = _analog(first, images)
    told = None if labels is None else [int(label) for label in labels]
    data = {
        "classes": list(classes),
        "input_shape": list(first.network.input_shape),
        "range": [float(images.amin()), float(images.amax())],
        "engines": " ".join(engines),
        "images": [
            {
                "pixels": pack(images[i].float()),
                "label": None if told is None else told[i],
                "ann": {key: pack(values[i].float()) for key, values in ann.items()},
                "ann_logits": first.analog(images[i : i + 1])[0].tolist(),
            }
            for i in range(len(images))
        ],
        "runs": runs,
        "live": live_network(first, largest_live) if live else None,
    }
    return Viewer(_render(title, first, data))


def _run(name: str, network: SpikingNetwork, record: Record, clock: Record) -> dict[str, Any]:
    assert record.logits_over_time is not None
    potentials = dict(record.potentials)
    samples = len(record.logits)
    described = [describe_population(network, p) for p in network.populations]
    images = []
    for i in range(samples):
        differing = {
            p: (record.spike_times[p][i] != clock.spike_times[p][i]).flatten().nonzero().flatten()
            for p in network.populations
        }
        images.append(
            {
                "times": {
                    p["name"]: pack_times(record.spike_times[p["name"]][i], p["window"])
                    for p in described
                },
                "potentials": {p: pack(u[i].float()) for p, u in potentials.items()},
                "race": pack(record.logits_over_time[:, i].float()),
                "differing": {p: where.tolist() for p, where in differing.items() if len(where)},
            }
        )
    return {
        "title": name,
        "latency": network.latency,
        "offset": network.code.shift,  # type: ignore[attr-defined]
        "populations": described,
        "images": images,
    }


def _analog(network: SpikingNetwork, images: Tensor) -> dict[str, Tensor]:
    """What the ANN says in place of every hidden population."""
    values: dict[str, Tensor] = {}

    def watch(name: str, u: Tensor) -> Tensor:
        if name not in network.network.populations:
            return u
        values[name] = network.network.op(name)(u)
        return values[name]

    network.network.evaluate(network.shifted(images), watch, pool_first=False)
    return values


def _render(title: str, network: SpikingNetwork, data: dict[str, Any]) -> str:
    from jinja2 import Environment, StrictUndefined

    def text(name: str) -> str:
        return (_HERE / name).read_text(encoding="utf-8")

    # in a script element only "<" could end it or open a comment
    plain = json.dumps(data, separators=(",", ":"), allow_nan=False).replace("<", "\\u003c")
    template = Environment(autoescape=True, undefined=StrictUndefined).from_string(
        text("viewer.html.j2")
    )
    from markupsafe import Markup

    return template.render(
        title=title,
        subtitle=f"{network.code}, latency {network.latency} steps",
        style=Markup(text("viewer.css")),
        engine=Markup(text("engine.js")),
        script=Markup(text("viewer.js")),
        data=Markup(plain),
        footer="Written by firstspike. This page is complete in itself.",
    )

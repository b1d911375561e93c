"""Other programs that read NIR graphs, run on the same samples as our network.

Each client takes a graph and inputs (N, ...) and gives the spikes of every neuron node, counted
over the steps, and the mean of what left the graph. None of them is needed by this library: those
that are installed are run.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from firstspike.exchange.door import installed
from firstspike.exchange.nir_write import Dialect

Spikes = dict[str, Tensor]  # NIR node -> spikes counted over the steps, (N, *shape)
_NEURONS = ("IF", "LIF", "CubaLIF")


@dataclass(frozen=True)
class Client:
    """A program that reads NIR.

    Attributes:
        name: of the program.
        package: what to install.
        dialect: how it wants graphs to be written.
        reading: how ours read what it does, see `nir_read.READINGS`.
        load: a graph and a dtype to a module that is called step by step, `(x, state) ->
            (output, state)`.
    """

    name: str
    package: str
    dialect: Dialect
    reading: str
    load: Callable[[Any, torch.dtype, int], nn.Module]

    @property
    def version(self) -> str | None:
        """Name and version, or None where it is not installed or does not load."""
        with _quiet():
            if installed(self.package) is None:
                return None
        return f"{self.name} {importlib.metadata.version(self.package)}"

    @torch.no_grad()
    def run(self, graph: Any, x: Tensor, steps: int) -> tuple[Spikes, Tensor]:
        """Spikes by NIR node, and the mean output (N, classes), of `steps` steps on `x`."""
        with _quiet():
            module = self.load(graph, x.dtype, len(x))
            spikes: Spikes = {}
            for name, node in graph.nodes.items():
                if type(node).__name__ in _NEURONS:
                    module.get_submodule(name).register_forward_hook(_counter(spikes, name))
            total, state = None, None
            for _ in range(steps):
                out, state = module(x, state)
                out = out[0] if isinstance(out, tuple) else out
                total = out.clone() if total is None else total + out
        assert total is not None
        return spikes, total / steps


def _counter(spikes: Spikes, name: str) -> Callable[..., None]:
    def count(module: nn.Module, arguments: Any, output: Any) -> None:
        now = (output[0] if isinstance(output, tuple) else output).detach()
        spikes[name] = spikes.get(name, torch.zeros_like(now)) + now

    return count


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Readers print and log as they go."""
    import logging
    import warnings

    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    with (
        open(os.devnull, "w") as nowhere,
        contextlib.redirect_stdout(nowhere),
        contextlib.redirect_stderr(nowhere),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")
        try:
            yield
        finally:
            logging.disable(before)


def _spikingjelly(graph: Any, dtype: torch.dtype, samples: int) -> nn.Module:
    from spikingjelly.activation_based.nir_exchange import import_from_nir

    return import_from_nir(graph, dtype=dtype)


def _snntorch(graph: Any, dtype: torch.dtype, samples: int) -> nn.Module:
    from snntorch.import_nir import import_from_nir

    return import_from_nir(graph).to(dtype)


def _norse(graph: Any, dtype: torch.dtype, samples: int) -> nn.Module:
    from norse.torch.utils.import_nir import from_nir

    return from_nir(graph, dt=1e-4).to(dtype)


CLIENTS: tuple[Client, ...] = (
    Client("SpikingJelly", "spikingjelly", Dialect(), "spikingjelly", _spikingjelly),
    Client("snnTorch", "snntorch", Dialect(leaky=True), "snntorch", _snntorch),
    Client("norse", "norse", Dialect(sum_pools=True), "nir", _norse),
)

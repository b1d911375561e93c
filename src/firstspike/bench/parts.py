"""The parts of the benchmark, and how to run them: one after the other, each for itself."""

from __future__ import annotations

import importlib
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from firstspike.bench.timing import Row

# name of the part -> what it measures; the module firstspike.bench.NAME has `rows(quick)`
PARTS = {
    "limits": "what no engine can beat: forward pass, memory, two weight operations",
    "closed_form": "threshold tables in closed form, against the ANN",
    "conversion": "what converting costs in forward passes, and the network it gives",
    "early_firing": "overlapping windows without the clock, against the ANN",
    "training": "a training step, against the ANN's",
    "few_step": "training and inference through a few steps, against the ANN",
    "integer": "spiking networks on int8 kernels, against the ANN in float32 and in int8",
    "event_driven": "single frames event by event, against the frozen ANN and the share that fires",
    "single_frame": "latency of single frames by network and engine, against the frozen ANN",
    "causal_set": "neurons without the dynamic threshold, against those with it",
    "chip": "a frame on the chip: hops that multicast and placement save, the mesh simulated",
    "loading": "reading a network file with its checks, against reading it without",
    "data_path": "serving augmented batches, as a share of an epoch",
    "scaling": "exponents of time and memory against the size of the work",
    "rate": "a VGG-16 under rate codes, step by step, against other libraries",
    "single_spike": "a training step of an MNIST network that fires once, against other libraries",
    "peers": "rate codes of other libraries at equal accuracy, against TTFS in closed form",
}


@dataclass(frozen=True)
class Part:
    """A part that ran: its rows, or the error that ended it."""

    name: str
    rows: Sequence[Row]
    seconds: float
    error: str = ""


def run_parts(
    only: Iterable[str] | None = None, quick: bool = False, seed: int = 0
) -> Iterator[Part]:
    """Run the parts of the benchmark and hand each one over as it ends.

    A part that fails says why in `error`; the others run all the same. torch is seeded before
    each part, so that a part measures the same alone and among others.

    Args:
        only: names of parts; all by default.
        quick: small sizes, seconds per part.
        seed: of torch's random numbers.

    Raises:
        ValueError: if a name in `only` is none of `PARTS`.
    """
    names = list(PARTS if only is None else dict.fromkeys(only))
    if unknown := [name for name in names if name not in PARTS]:
        raise ValueError(
            f"`only` must name parts of {', '.join(PARTS)}, got {unknown[0]!r}. "
            "Leave `only` out to time them all."
        )
    return (_run(name, quick, seed) for name in names)


def _run(name: str, quick: bool, seed: int) -> Part:
    import torch

    started = time.perf_counter()
    torch.manual_seed(seed)
    try:
        module = importlib.import_module(f"firstspike.bench.{name}")
        rows = [replace(row, extra={"part": name, **row.extra}) for row in module.rows(quick)]
    except Exception as error:
        return Part(name, [], time.perf_counter() - started, f"{type(error).__name__}: {error}")
    return Part(name, rows, time.perf_counter() - started)

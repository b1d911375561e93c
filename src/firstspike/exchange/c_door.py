"""Portable C: networks of integers for microcontrollers and for high-level synthesis."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from firstspike._files import atomic_write
from firstspike.codes.integers import IntegerTTFS
from firstspike.config import require, require_integer
from firstspike.engines import simulate
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.exchange.c_source import Source, frames_of, images_of, write_source
from firstspike.exchange.c_toolchains import TOOLCHAINS, Toolchain, call
from firstspike.exchange.door import Check, Door, Handed, compare, hand_on

FORMS = ("closed_form", "event")
_FRAMES = 500  # run by one process at a time
_GOLDEN = "its golden vectors too"


@dataclass(frozen=True)
class C(Door):
    """One .c and one .h: C99, static arrays, no heap, no floating point, no library.

    Args:
        form: "closed_form" takes every weight once; "event" walks a queue of spikes, so that work
            follows them, and holds the sums of a whole layer.
        ram, flash: bytes that static memory and constant tables may take; None does not ask.
        golden: frames (N, ...) for the self test; None takes two of random pixels.
        toolchains: those of `c_toolchains.TOOLCHAINS` that check the file, where installed.
    """

    form: str = "closed_form"
    ram: int | None = None
    flash: int | None = None
    golden: Tensor | None = field(default=None, compare=False, repr=False)
    toolchains: tuple[str, ...] = ("gcc", "clang")

    name: ClassVar[str] = "c"
    ending: ClassVar[str] = ".c"

    def __post_init__(self) -> None:
        require(self.form in FORMS, "form", f"be one of {', '.join(FORMS)}", self.form, "Try one.")
        for name in self.toolchains:
            rule = f"be some of {', '.join(TOOLCHAINS)}"
            require(name in TOOLCHAINS, "toolchains", rule, name, "Try one.")
        for name in ("ram", "flash"):
            if getattr(self, name) is not None:
                require_integer(name, getattr(self, name), 1, "Pass bytes, 262144 are 256k.")

    def files(self, path: Path) -> tuple[Path, ...]:
        return path.with_suffix(".c"), path.with_suffix(".h")

    def source(self, network: SpikingNetwork, path: Path) -> Source:
        """Both texts, within the budgets.

        Raises:
            ValueError: if the network is not made of integers, cannot be held in C, or is too
                large.
        """
        if not isinstance(network.code, IntegerTTFS):
            raise ValueError(
                "`network` must be made of integers under TTFS to be written in C, got "
                f"{network.code}. Call "
                "`to_integers(quantize(network, Quantization(bits=8)), potential_bits=32)` first."
            )
        if not network.code.sequential:
            raise ValueError(
                "`network` must have windows one after the other to be written in C, got "
                f"{network.code}. Call `network.with_offset(None)`."
            )
        if network.code.clips:
            reach = network.origin["integers"]["reach"]
            widest = max(reach, key=reach.get)
            raise ValueError(
                f"`network` must have potentials of at most {network.code.potential_bits} bits to "
                f"be written in C, got {reach[widest].bit_length() + 1} at {widest!r}. Call "
                "`to_integers` with `potential_bits=32`, or `quantize` with fewer `bits` or "
                "`value_bits` (`--bits`, `--value-bits`)."
            )
        golden = self.golden
        if golden is None:
            generator = torch.Generator().manual_seed(0)
            golden = torch.rand(2, *network.network.input_shape, generator=generator)
        made = write_source(network, path.stem, self.form == "event", frames_of(golden))
        for what, limit, size in (("ram", self.ram, made.ram), ("flash", self.flash, made.flash)):
            if limit is not None and size > limit:
                raise ValueError(
                    f"`{what}` must hold {size:,} bytes, got a budget of {limit:,}. "
                    + _ADVICE[what, self.form]
                )
        return made

    def write(self, network: SpikingNetwork, path: Path) -> tuple[str, ...]:
        made = self.source(network, path)
        for file, text in zip(self.files(path), (made.source, made.header)):
            with atomic_write(file) as opened:
                opened.write(text.encode())
        return ("pixels between the 256 steps of a byte: a pixel p stands for p / 255",)

    def check(self, network: SpikingNetwork, path: Path, x: Tensor) -> Sequence[Check]:
        """Compile with every toolchain here, run the golden vectors and the samples."""
        unit, frames = self.source(network, path).unit, frames_of(x)
        here = [tools for name in self.toolchains if (tools := TOOLCHAINS[name]).available]
        checks: dict[Toolchain, Check] = {}
        with tempfile.TemporaryDirectory() as folder:
            programs = {tools: tools.build(path, Path(folder)) for tools in here if len(frames)}
            for most in dict.fromkeys(tools.most for tools in programs):
                for some in frames[:most].split(_FRAMES):
                    record = simulate(network, images_of(some, network), "closed_form")
                    for tools, program in programs.items():
                        if tools.most == most:
                            times, logits = run(program, network, some)
                            note = "; ".join((self.form, *filter(None, [tools.note]), _GOLDEN))
                            found = compare(
                                *(tools.version, record, times, logits * unit),
                                times=True,
                                note=note,
                            )
                            checks[tools] = checks[tools] + found if tools in checks else found
        return list(checks.values())


_ADVICE = {
    ("ram", "closed_form"): "Use smaller maps, or pools earlier in the network.",
    ("ram", "event"): "Use form='closed_form', which holds no sums of whole layers.",
    ("flash", "closed_form"): "Use smaller layers; one weight takes one byte.",
    ("flash", "event"): "Use smaller layers; one weight takes one byte.",
}


def to_c(
    network: SpikingNetwork,
    path: str | Path,
    samples: Tensor | None = None,
    *,
    form: str = "closed_form",
    ram: int | None = None,
    flash: int | None = None,
) -> Handed:
    """Write a network of `to_integers` as portable C, and check it with the compilers here.

    Args:
        path: NAME.c; NAME.h is written beside it, NAME is the prefix of all public names.
        samples: images (N, ...) in [0, 1] to compare on, spike by spike; the first two become
            golden vectors of the file's own self test.
        form, ram, flash: see `C`.

    Raises:
        ValueError: naming node and rule, where C cannot hold the network or the budget is too
            small; nothing is written then.

    >>> import firstspike as fs, tempfile
    >>> from torch import nn
    >>> from firstspike.quantized import Quantization, quantize, to_integers
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> x = torch.rand(100, 4)
    >>> spiking = fs.convert(model, fs.TTFS(16, fs.kernels.Linear()), calibration=x)
    >>> integers = to_integers(quantize(spiking, Quantization(bits=8)))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     handed = to_c(integers, Path(folder) / "small.c", x[:5])
    ...     all(check.exact for check in handed.checks), [f.name for f in handed.files]
    (True, ['small.c', 'small.h'])
    """
    golden = None if samples is None or not len(samples) else samples[:2]
    return hand_on(network, C(form, ram, flash, golden), Path(path), samples)


def run(
    program: Sequence[str], network: SpikingNetwork, frames: Tensor
) -> tuple[dict[str, Tensor], Tensor]:
    """Spike times by population and integer logits (N, classes) that a program prints.

    Args:
        program: the command of `Toolchain.build`.
    """
    names, shapes = network.populations, {n.name: n.shape for n in network.network.nodes}
    said = call(program, "run through", frames.numpy().tobytes())
    rows = said.replace(b" .", b" inf").splitlines()
    values = [np.fromstring(row.partition(b" ")[2], np.float32, sep=" ") for row in rows]
    lines = len(names) + 2
    times = {
        name: torch.from_numpy(np.stack(values[i::lines])).reshape(-1, *shapes[name])
        for i, name in enumerate(names)
    }
    logits = [[int(value) for value in row.split()[1:]] for row in rows[len(names) :: lines]]
    found = {name: rows.to(network.input_low) for name, rows in times.items()}
    return found, torch.tensor(logits, dtype=torch.float64)

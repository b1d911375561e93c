"""Portable C: networks of integers for microcontrollers and for high-level synthesis."""

from __future__ import annotations

import re
import shutil
import subprocess
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
from firstspike.engines import able_engines, simulate
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.exchange.c_source import Source, frames_of, images_of, write_source
from firstspike.exchange.door import Check, Door, Handed, compare, hand_on

COMPILERS = ("gcc", "clang")
WARNINGS = ("-std=c99", "-pedantic", "-Wall", "-Wextra", "-Werror")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
FORMS = ("closed_form", "event")
_FRAMES = 500  # run by one process at a time


@dataclass(frozen=True)
class C(Door):
    """One .c and one .h: C99, static arrays, no heap, no floating point, no library.

    Args:
        form: "closed_form" takes every weight once; "event" walks a queue of spikes, so that work
            follows them, and holds the sums of a whole layer.
        ram, flash: bytes that static memory and constant tables may take; None does not ask.
        golden: frames (N, ...) for the self test; None takes two of random pixels.
    """

    form: str = "closed_form"
    ram: int | None = None
    flash: int | None = None
    golden: Tensor | None = field(default=None, compare=False, repr=False)

    name: ClassVar[str] = "c"
    ending: ClassVar[str] = ".c"

    def __post_init__(self) -> None:
        require(self.form in FORMS, "form", f"be one of {', '.join(FORMS)}", self.form, "Try one.")
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
        if "closed_form" not in able_engines(network):
            raise ValueError(
                "`network` must run in one pass to be written in C: windows one after the other "
                "(`with_offset(None)`) and potentials that cannot be clipped (potential_bits=32)."
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
        """Compile with every compiler here, run the golden vectors and the samples."""
        unit, checks = self.source(network, path).unit, []
        for compiler in filter(shutil.which, COMPILERS):
            with tempfile.TemporaryDirectory() as folder:
                program = build(path, Path(folder), compiler)
                parts = []
                for frames in frames_of(x).split(_FRAMES):
                    record = simulate(network, images_of(frames, network), "closed_form")
                    times, logits = run(program, network, frames)
                    reader, note = _version(compiler), f"{self.form}; its golden vectors too"
                    parts.append(
                        compare(reader, record, times, logits * unit, times=True, note=note)
                    )
            checks += [sum(parts[1:], parts[0])] if parts else []
        return checks


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


def build(path: Path, folder: Path, compiler: str, options: Sequence[str] = ()) -> Path:
    """Compile the program that reads frames, after the self test has run; its path.

    Raises:
        RuntimeError: if the compiler refuses the file, or a golden vector differs.
    """
    name = re.sub(r"\W", "_", path.stem).upper()
    for kind in ("SELF_TEST", "MAIN"):
        program = folder / kind.lower()
        command = [compiler, *WARNINGS, "-O2", *options, f"-D{name}_{kind}"]
        command += [str(path.with_suffix(".c")), "-o", str(program)]
        _call(command, f"compiled by {compiler}")
        if kind == "SELF_TEST":
            _call([str(program)], "equal to its golden vectors")
    return program


def run(program: Path, network: SpikingNetwork, frames: Tensor) -> tuple[dict[str, Tensor], Tensor]:
    """Spike times by population and integer logits (N, classes) that a program prints."""
    names, shapes = network.populations, {n.name: n.shape for n in network.network.nodes}
    lines = len(names) + 2
    times: dict[str, list[Tensor]] = {name: [] for name in names}
    logits = []
    done = subprocess.run([program], input=frames.numpy().tobytes(), capture_output=True)
    if done.returncode:
        raise RuntimeError(f"{program.name} failed: {done.stderr.decode()[-500:]}")
    rows = done.stdout.replace(b" .", b" inf").splitlines()
    for i in range(0, len(rows), lines):
        for name, row in zip(names, rows[i:]):
            said = np.fromstring(row.partition(b" ")[2], dtype=np.float32, sep=" ")
            times[name].append(torch.from_numpy(said).reshape(1, *shapes[name]))
        logits.append([int(value) for value in rows[i + lines - 2].split()[1:]])
    found = {name: torch.cat(rows).to(network.input_low) for name, rows in times.items()}
    return found, torch.tensor(logits, dtype=torch.float64)


def _call(command: Sequence[str], what: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(
            f"the C file must be {what}, it is not (exit {done.returncode}): "
            f"{(done.stderr or done.stdout)[-2000:]}"
        )


def _version(compiler: str) -> str:
    said = subprocess.run([compiler, "-dumpversion"], capture_output=True, text=True).stdout
    return f"{compiler} {said.strip()}"

"""What every door keeps: one ANN through each of them, and the receivers' answers against ours.

`firstspike export RUN --to all` runs this, and docs/export.md shows what is stored.
"""

from __future__ import annotations

import ctypes
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

import firstspike as fs
from firstspike._files import write_json
from firstspike._reading import read_json
from firstspike.bench.timing import interleaved
from firstspike.data import Dataset
from firstspike.exchange import Check, Door, build_door, hand_on
from firstspike.exchange.c_door import C
from firstspike.exchange.c_source import frames_of, images_of
from firstspike.exchange.c_toolchains import TOOLCHAINS, WARNINGS, call
from firstspike.exchange.nir_door import Nir
from firstspike.exchange.nir_write import Dialect
from firstspike.measure.environment import describe_environment
from firstspike.quantized import Int8, Quantization, quantize, to_integers

STEPS, BITS = 16, 8
_FAST = ("-O3", "-march=native")
_COMMAND = "firstspike export RUN --to all --out FOLDER --json FILE"
Row = dict[str, Any]


def networks_of(model: nn.Module, calibration: Tensor) -> Iterator[tuple[str, fs.SpikingNetwork]]:
    """What is handed on, by label: the codes that the doors are about."""
    timed = fs.convert(model, fs.TTFS(STEPS, fs.kernels.Linear()), calibration=calibration)
    yield "TTFS", timed
    integers = to_integers(quantize(timed, Quantization(bits=BITS)), potential_bits=32)
    yield f"TTFS, {BITS} bits", integers
    yield "LIF", fs.convert(model, fs.LIF(STEPS), calibration=calibration)
    yield "Rate", fs.convert(model, fs.Rate(STEPS), calibration=calibration)


def doors_of(network: fs.SpikingNetwork, golden: Tensor) -> dict[str, Door]:
    """Doors by label, with every receiver that they have."""
    if isinstance(network.code, fs.codes.IntegerTTFS):
        made = C(golden=golden, toolchains=tuple(TOOLCHAINS))
        forms = {f"c, {form}": replace(made, form=form) for form in ("closed_form", "event")}
        return {"onnx": build_door("onnx"), "pretrained": build_door("pretrained"), **forms}
    if isinstance(network.code, fs.TTFS):
        names = ("onnx", "pretrained", "spikes", "nir")
        once = {"nir, fires once": Nir(Dialect(once=True))}
        return {name: build_door(name) for name in names} | once
    return {"nir": build_door("nir")}


def rows_of(
    name: str,
    model: nn.Module,
    calibration: Tensor,
    samples: Dataset,
    folder: Path,
    frames: Dataset | None = None,
) -> Iterator[Row]:
    """A row per code, door and receiver; files stay in `folder`.

    A door that refuses the network has one row that says why.

    Args:
        frames: what compiled C runs, which is quicker than other receivers; None: `samples`.
    """
    frames = samples if frames is None else frames
    for code, network in networks_of(model, calibration):
        x = samples.float_images().to(network.input_low.dtype)
        right = fs.simulate(network, x).predictions == samples.labels
        for label, door in doors_of(network, x[:2]).items():
            row: Row = {"network": name, "code": code, "door": label}
            row["accuracy"] = float(right.float().mean())
            stem = f"{code}_{label}".replace(", ", "_").replace(" ", "_")
            path = folder / f"{stem}{door.ending}"
            try:
                images = frames.float_images() if isinstance(door, C) else x
                handed = hand_on(network, door, path, images)
            except ValueError as error:
                yield row | {"reader": None, "note": str(error)}
                continue
            row["bytes"] = sum(file.stat().st_size for file in handed.files)
            row["not_said"] = list(handed.cannot)
            if isinstance(door, C):
                row |= _costs(network, door, path, x[:1])
            for check in handed.checks:
                yield row | vars(check)


def _costs(network: fs.SpikingNetwork, door: C, path: Path, x: Tensor) -> Row:
    """Memory of the C file, and its time for a frame in turn with our int8 engine's at batch 1."""
    made = door.source(network, path)
    costs: Row = {"flash": made.flash, "ram": made.ram}
    if not TOOLCHAINS["gcc"].available:
        return costs
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder) / "network.so"
        command = ["gcc", *WARNINGS, *_FAST, "-shared", "-fPIC", str(path.with_suffix(".c"))]
        call([*command, "-o", str(library)], "compiled as a library")
        run = getattr(ctypes.CDLL(str(library)), f"{made.prefix}_run")
        frame, x = frames_of(x).numpy().tobytes(), images_of(frames_of(x), network)
        logits = (ctypes.c_int32 * network.network.output.shape[0])()
        int8 = Int8(network)
        variants = {"c": lambda: run(frame, logits, None), "int8": torch.no_grad()(lambda: int8(x))}
        times = interleaved(variants, repeats=21, warmup=3)
        if not torch.equal(torch.tensor(list(logits)) * made.unit, int8(x)[0].double()):
            raise RuntimeError(
                f"{path} and the int8 engine must give the same logits. Report it with the network."
            )
    return costs | {f"{name}_ms": 1e3 * median(seconds) for name, seconds in times.items()}


def store(path: Path, rows: Sequence[Row]) -> None:
    """Write rows to `path`; those of other networks there stay."""
    known = read_json(path)["rows"] if path.is_file() else []
    new = {row["network"] for row in rows}
    rows = [*(row for row in known if row["network"] not in new), *rows]
    environment = describe_environment("cpu").model_dump(mode="json")
    write_json(path, {"command": _COMMAND, "rows": rows, "environment": environment})


def markdown(path: Path) -> str:
    """The stored rows as tables: what receivers reproduce, and what C takes."""
    stored = read_json(path)
    return "\n\n".join((fidelity(stored["rows"]), costs(stored["rows"]), _where(stored)))


def fidelity(rows: Sequence[Row]) -> str:
    """One line per code and door for all receivers that say the same."""
    head = ("network", "code", "door", "run by", "samples", "neurons alike", "classes", "logits to")
    readers: dict[tuple[tuple[str, ...], tuple[str, ...]], list[str]] = {}
    for row in rows:
        door = (row["network"], row["code"], row["door"])
        reader, said = f"refused: {row['note']}", ("", "", "", "")
        if row["reader"] is not None:
            check = Check(**{key: row[key] for key in Check.__dataclass_fields__})
            reader, said = check.reader + _remark(check.note), _said(check)
        readers.setdefault((door, said), []).append(reader)
    lines = [(*door, "; ".join(names), *said) for (door, said), names in readers.items()]
    return _table(head, lines)


def _said(check: Check) -> tuple[str, str, str, str]:
    samples, logits = f"{check.samples:,}", f"{check.logits or 0.0:.2g}"
    if check.note.startswith("failed"):
        return samples, check.note, "", ""
    alike = f"{check.neurons - check.different:,} of {check.neurons:,}"
    classes = f"{check.classes:,} of {check.samples:,}"
    return samples, alike, classes, "" if check.logits is None else logits


def _remark(note: str) -> str:
    """What tells receivers with one name apart."""
    known = ("sanitizers silent", "Cortex-M4 in QEMU")
    said = [remark for remark in known if remark in note]
    return f", {said[0]}" if said else ""


def costs(rows: Sequence[Row]) -> str:
    """Memory and time of the C files."""
    head = ("network", "form", "flash, bytes", "RAM, bytes", "ms per frame", "int8 engine, ms")
    lines = {}
    for row in rows:
        if "flash" in row:
            ms = (f"{row[key]:.3g}" if key in row else "" for key in ("c_ms", "int8_ms"))
            form = row["door"].removeprefix("c, ")
            lines[row["network"], form] = (f"{row['flash']:,}", f"{row['ram']:,}", *ms)
    return _table(head, [(*key, *line) for key, line in lines.items()])


def _table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = (head, ["---"] * len(head), *lines)
    return "\n".join("| " + " | ".join(row) + " |" for row in rows)


def _where(stored: Row) -> str:
    accuracy = {
        (row["network"], row["code"]): f"{row['network']}, {row['code']}: {row['accuracy']:.1%}"
        for row in stored["rows"]
    }
    return (
        f"Stored by `{stored['command']}` on {stored['environment']['device_name']}. Right answers "
        f"of the networks handed on, on these samples: {'; '.join(accuracy.values())}."
    )

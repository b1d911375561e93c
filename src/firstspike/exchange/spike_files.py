"""Records as files: everything as .npz; spikes as events in .csv, .aedat, NIR's event data (.nir).

An event is a spike: sample, population, neuron (of the flattened population) and time. Times are
global steps, from the start of the run, and seconds, `step * dt`; a neuron without an event has
never fired. What was written is read back exactly, or is not written.
"""

from __future__ import annotations

import csv
import dataclasses
import io
import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from firstspike._files import atomic_write
from firstspike._reading import check_size, parse_json, read_npz, reading
from firstspike.engines.record import Record
from firstspike.exchange.door import optional
from firstspike.exchange.nir_files import look_at

_FORMAT = 1
_AEDAT = b"#!AER-DAT2.0"
_COLUMNS = ("sample", "population", "neuron", "step", "seconds")


def save_record(record: Record, path: str | Path, dt: float = 1e-3) -> None:
    """Write a record to `path`, by its ending.

    - `.npz`: all that the record holds;
    - `.csv`: one line per spike, `sample,population,neuron,step,seconds`, below one line of JSON
      (`# ...`) with shapes, windows and logits;
    - `.nir`: NIR's event data, one node per population, times in seconds; the same JSON as an
      attribute that other readers pass over;
    - `.aedat`: address events, AEDAT 2.0: below comments with the same JSON, an address and a time
      in microseconds per spike, both 32 bits, big-endian. Addresses number the neurons of all
      populations one after the other, and samples follow each other in time.

    Events need to know when neurons fired: single-spike codes do, others do for populations of
    which all neurons were watched, `simulate(..., watch={name: range(neurons)})`.

    Args:
        dt: seconds per step.

    Raises:
        ValueError: for another ending, if times are not recorded, or would not come back exactly.
    """
    path = Path(path)
    if not (np.isfinite(dt) and dt > 0):
        raise ValueError(f"`dt` must be positive, got {dt}. Pass seconds per step, e.g. 1e-3.")
    writers = {".npz": _write_npz, ".csv": _write_csv, ".nir": _write_nir, ".aedat": _write_aedat}
    if path.suffix not in writers:
        raise ValueError(
            f"`path` must end in {', '.join(writers)}, got {path.name!r}. The ending is the format."
        )
    content = writers[path.suffix](record, dt)
    with atomic_write(path) as file:
        file.write(content)


def load_record(path: str | Path) -> Record:
    """Read what `save_record` wrote.

    Args:
        path: file ending in .npz, .csv, .nir or .aedat.

    Raises:
        FileNotFoundError: if there is no such file.
        DamagedFileError: (a ValueError) if it is truncated, foreign, or claims more data than it
            holds or than fits the memory that is free.
    """
    path = Path(path)
    readers = {".npz": _read_npz, ".csv": _read_csv, ".nir": _read_nir, ".aedat": _read_aedat}
    if path.suffix not in readers:
        raise ValueError(f"`path` must end in {', '.join(readers)}, got {path.name!r}.")
    with reading(path, "a whole record", "Run and save it again."):
        return readers[path.suffix](path)


# ---- everything ----------------------------------------------------------------------------------
def _write_npz(record: Record, dt: float) -> bytes:
    arrays: dict[str, np.ndarray] = {}
    plain: dict[str, Any] = {"format": _FORMAT, "dt": dt}
    for field in dataclasses.fields(record):
        value = getattr(record, field.name)
        if isinstance(value, Tensor):
            arrays[field.name] = value.detach().cpu().numpy()
        elif isinstance(value, dict) and any(isinstance(v, Tensor) for v in value.values()):
            arrays |= {f"{field.name}/{k}": v.detach().cpu().numpy() for k, v in value.items()}
        else:
            plain[field.name] = value
    arrays["firstspike"] = np.frombuffer(json.dumps(plain).encode(), np.uint8)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def _read_npz(path: Path) -> Record:
    arrays = read_npz(path)
    plain = parse_json(arrays.pop("firstspike").tobytes().decode())
    _check_format(plain)
    values: dict[str, Any] = {}
    for key, array in arrays.items():
        name, _, population = key.partition("/")
        tensor = torch.from_numpy(array)
        if population:
            values.setdefault(name, {})[population] = tensor
        else:
            values[name] = tensor
    return Record(**values, **{k: v for k, v in plain.items() if k not in ("format", "dt")})


def _check_format(plain: Any) -> None:
    if plain["format"] != _FORMAT:
        raise ValueError(f"format {plain['format']!r}, this version reads {_FORMAT}")


# ---- events --------------------------------------------------------------------------------------
def events(record: Record) -> dict[str, np.ndarray]:
    """Spikes by population: (E, 3) float64 rows of sample, neuron and global step, in this order
    of samples, steps and neurons.

    Raises:
        ValueError: if the record does not say when neurons fired.

    >>> record = Record("clock", torch.zeros(2, 3), 8, {"a": 4})
    >>> record.spike_times["a"] = torch.tensor([[1.0, float("inf")], [0.0, 2.0]])
    >>> events(record)["a"].tolist()
    [[0.0, 0.0, 5.0], [1.0, 0.0, 4.0], [1.0, 1.0, 6.0]]
    """
    found = {}
    for name in record.spike_counts or record.spike_times:
        if name in record.spike_times:
            times = record.spike_times[name].detach().cpu().flatten(1).double()
            sample, neuron = times.isfinite().nonzero(as_tuple=True)
            step = times[sample, neuron] + record.window_start[name]
        elif _all_watched(record, name):
            fired = record.spike_trains[name].detach().cpu().nonzero().double()
            step, sample, neuron = fired.T
        elif not bool(record.spike_counts[name].any()):
            sample = neuron = step = torch.zeros(0)
        else:
            raise ValueError(
                f"`record` must say when the neurons of {name!r} fired, got their counts. Pass "
                f"`watch={{{name!r}: range({record.spike_counts[name].shape[1:].numel()})}}` to "
                "`simulate` for every population, or save it as .npz."
            )
        rows = np.stack([x.double().numpy() for x in (sample, neuron, step)], 1)
        found[name] = rows[np.lexsort((rows[:, 1], rows[:, 2], rows[:, 0]))]
    return found


def _all_watched(record: Record, name: str) -> bool:
    trains = record.spike_trains.get(name)
    return trains is not None and trains.shape[2] == record.spike_counts[name].shape[1:].numel()


def _header(record: Record, found: dict[str, np.ndarray], dt: float) -> dict[str, Any]:
    """What events do not say: how many, shapes, windows, which populations have times, logits."""
    populations = {
        name: {
            "shape": list(neurons.shape[1:]),
            "single": name in record.spike_times,
            "train": name in record.spike_trains,
            "dtype": str(record.spike_times.get(name, record.logits).dtype),
            "window_start": record.window_start[name],
        }
        for name, neurons in (record.spike_counts or record.spike_times).items()
    }
    return {
        "format": _FORMAT,
        "dt": dt,
        "events": sum(map(len, found.values())),
        "engine": record.engine,
        "latency": record.latency,
        "samples": len(record.logits),
        "logits": record.logits.double().tolist(),
        "classes": list(record.logits.shape[1:]),
        "dtype": str(record.logits.dtype),
        "populations": populations,
    }


def _rebuild(header: dict[str, Any], found: dict[str, np.ndarray]) -> Record:
    """A record from events."""
    _check_format(header)
    if (events := sum(map(len, found.values()))) != header["events"]:
        raise ValueError(f"it announces {header['events']:,} events and holds {events:,}")
    dtype = getattr(torch, header["dtype"].removeprefix("torch."))
    logits = torch.tensor(header["logits"], dtype=torch.float64).to(dtype)
    samples = header["samples"]
    logits = logits.reshape(samples, *header["classes"])
    check_size(_announced(header), 1 << 62, "its populations announce")
    record = Record(header["engine"], logits, header["latency"])
    for name, about in header["populations"].items():
        kind = getattr(torch, about["dtype"].removeprefix("torch."))
        size = int(np.prod(about["shape"], dtype=object))
        rows = found.get(name, np.zeros((0, 3)))
        sample, neuron = (torch.from_numpy(rows[:, i].astype(np.int64)) for i in (0, 1))
        sound = (sample >= 0) & (sample < samples) & (neuron >= 0) & (neuron < size)
        if not bool(sound.all()):
            raise ValueError(f"an event of {name!r} lies outside its {samples} x {size} neurons")
        step = torch.from_numpy(rows[:, 2].copy())
        record.window_start[name] = about["window_start"]
        counts = torch.zeros(samples, size, dtype=kind)
        counts.index_put_((sample, neuron), torch.ones(len(rows), dtype=kind), accumulate=True)
        record.spike_counts[name] = counts.reshape(samples, *about["shape"])
        if about["single"]:
            times = torch.full((samples, size), float("inf"), dtype=torch.float64)
            times[sample, neuron] = step - about["window_start"]
            record.spike_times[name] = times.to(kind).reshape(samples, *about["shape"])
        if about["train"]:
            trains = torch.zeros(header["latency"], samples, size, dtype=kind)
            trains[step.long(), sample, neuron] = 1.0
            record.spike_trains[name] = trains
    return record


def _announced(header: dict[str, Any]) -> int:
    """Bytes of the arrays that a header describes, each of at most 8 bytes a value."""
    samples, steps = int(header["samples"]), int(header["latency"])
    return sum(
        8 * samples * math.prod(about["shape"]) * (2 + steps * bool(about["train"]))
        for about in header["populations"].values()
    )


# ---- .csv ----------------------------------------------------------------------------------------
def _write_csv(record: Record, dt: float) -> bytes:
    text, found = io.StringIO(), events(record)
    text.write("# " + json.dumps(_header(record, found, dt)) + "\n")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(_COLUMNS)
    for name, rows in found.items():
        for sample, neuron, step in rows.tolist():
            written = int(step) if step.is_integer() else repr(step)
            writer.writerow((int(sample), name, int(neuron), written, repr(step * dt)))
    return text.getvalue().encode()


def _read_csv(path: Path) -> Record:
    with open(path, encoding="utf-8", newline="") as file:
        first = file.readline()
        if not first.startswith("# {"):
            raise ValueError("its first line is not `# {...}`")
        header = parse_json(first[2:])
        rows: dict[str, list[tuple[float, float, float]]] = {}
        for row in _rows(file):
            rows.setdefault(row["population"], []).append(
                (float(row["sample"]), float(row["neuron"]), float(row["step"]))
            )
    unknown = set(rows) - set(header["populations"])
    if unknown:
        raise ValueError(f"events of unknown populations {sorted(unknown)}")
    return _rebuild(header, {name: np.array(values) for name, values in rows.items()})


def _rows(file: Any) -> Iterator[dict[str, str]]:
    reader = csv.DictReader(file)
    if tuple(reader.fieldnames or ()) != _COLUMNS:
        raise ValueError(f"its columns are {reader.fieldnames}, not {list(_COLUMNS)}")
    for number, row in enumerate(reader, 3):
        if None in row or None in row.values():
            raise ValueError(f"line {number} has not {len(_COLUMNS)} values")
        yield row


# ---- NIR's event data ----------------------------------------------------------------------------
def _write_nir(record: Record, dt: float) -> bytes:
    nir, h5py = optional("nir", "nir"), optional("h5py", "nir")
    found = events(record)
    header, nodes = _header(record, found, dt), {}
    for name, rows in found.items():
        samples = len(record.logits)
        counts = np.bincount(rows[:, 0].astype(int), minlength=samples)
        idx = np.full((samples, max(int(counts.max(initial=0)), 1)), -1, np.int64)
        time = np.full(idx.shape, np.inf)
        place = np.arange(len(rows)) - np.repeat(np.cumsum(counts) - counts, counts)
        sample = rows[:, 0].astype(int)
        idx[sample, place] = rows[:, 1].astype(np.int64)
        time[sample, place] = rows[:, 2] * dt
        neurons = int(np.prod(header["populations"][name]["shape"]))
        data = nir.EventData(idx, time, neurons, record.latency * dt)
        nodes[name] = nir.NIRNodeData(observables={"spikes": data})
        kind = getattr(np, header["populations"][name]["dtype"].removeprefix("torch."))
        back = _steps(rows[:, 2] * dt, dt) - record.window_start[name]
        if not np.array_equal(back.astype(kind), (rows[:, 2] - record.window_start[name])):
            raise ValueError(
                f"`dt` must bring the spike times of {name!r} back exactly, got {dt}. Use a power "
                "of two, e.g. 2**-10, or save it as .npz or .csv."
            )
    buffer = io.BytesIO()
    nir.write_data(buffer, nir.NIRGraphData(nodes=nodes))
    with h5py.File(buffer, "r+") as file:
        file.create_dataset("firstspike", data=json.dumps(header), dtype=h5py.string_dtype())
    return buffer.getvalue()


def _steps(seconds: np.ndarray, dt: float) -> np.ndarray:
    """Steps of times in seconds: whole where they lie within rounding of a whole step."""
    steps = seconds / dt
    whole = np.rint(steps)
    return np.where(np.abs(steps - whole) < 1e-6, whole, steps)


def _read_nir(path: Path) -> Record:
    nir, h5py = optional("nir", "nir"), optional("h5py", "nir")
    look_at(path, "nodes", "firstspike")
    with h5py.File(path, "r") as file:
        header = parse_json(file["firstspike"][()].decode())
    found = {}
    for name, node in nir.read_data(path).nodes.items():
        data = node.observables["spikes"]
        sample, place = np.nonzero(data.idx >= 0)
        steps = _steps(data.time[sample, place], header["dt"])
        found[name] = np.stack([sample, data.idx[sample, place], steps], 1).astype(np.float64)
    return _rebuild(header, found)


# ---- address events ------------------------------------------------------------------------------
def _write_aedat(record: Record, dt: float) -> bytes:
    found, step = events(record), round(dt * 1e6)
    if step < 1 or not math.isclose(dt * 1e6, step):
        raise ValueError(
            f"`dt` must be whole microseconds for address events, got {dt} s. Use 1e-3, or save "
            "the record as .npz, .csv or .nir."
        )
    header, pairs = _header(record, found, dt), [np.zeros((0, 2))]
    for (name, rows), first in zip(found.items(), _addresses(header)):
        time = (rows[:, 0] * record.latency + rows[:, 2]) * step
        if (time % step).any() or time.max(initial=0) >= 1 << 31:
            raise ValueError(
                f"`record` must have spikes in whole steps within 2^31 microseconds to be saved as "
                f"address events, {name!r} has others. Save it as .npz, or fewer samples."
            )
        pairs.append(np.stack([first + rows[:, 1], time], 1))
    joined = np.concatenate(pairs)
    joined = joined[np.lexsort(joined.T)].astype(">u4")
    return b"\r\n".join((_AEDAT, b"# " + json.dumps(header).encode(), joined.tobytes()))


def _read_aedat(path: Path) -> Record:
    start, _, rest = path.read_bytes().partition(b"\r\n# ")
    text, _, content = rest.partition(b"\r\n")
    if start != _AEDAT or len(content) % 8:
        raise ValueError(f"it does not start with {_AEDAT.decode()}, or ends within an event")
    header = parse_json(text.decode())
    address, time = np.frombuffer(content, ">u4").reshape(-1, 2).astype(np.int64).T
    sample, step = np.divmod(time, header["latency"] * round(header["dt"] * 1e6))
    rows = np.stack([sample, address, step / round(header["dt"] * 1e6)], 1)
    bounds = _addresses(header)
    if (address >= bounds[-1]).any():
        raise ValueError(f"an address lies outside of its {bounds[-1]} neurons")
    found = {}
    for name, first, end in zip(header["populations"], bounds, bounds[1:]):
        found[name] = rows[(address >= first) & (address < end)] - (0, first, 0)
    return _rebuild(header, found)


def _addresses(header: dict[str, Any]) -> list[int]:
    """First address of every population, and the one behind the last."""
    sizes = [math.prod(about["shape"]) for about in header["populations"].values()]
    return [sum(sizes[:i]) for i in range(len(sizes) + 1)]

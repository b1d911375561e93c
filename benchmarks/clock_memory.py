"""Peak memory of clock-driven rate coding of a VGG-16, whatever the number of steps.

    python benchmarks/clock_memory.py

Batch 16, 3 x 32 x 32, float32, max pools. Every run is a process of its own; its peak resident
memory holds the interpreter, torch, the weights (about 150 MB) and the state of 4.4 million
neurons. The result is stored in benchmarks/results/clock_memory.json.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import time
from pathlib import Path

STORE = Path(__file__).parent / "results" / "clock_memory.json"


def simulate(steps: int, batch: int, threads: int) -> None:
    """Run once and print the peak resident memory in MiB, before and after."""
    import torch

    import firstspike as fs
    from firstspike.models import VGG16

    torch.set_num_threads(threads)
    torch.manual_seed(0)
    x = torch.rand(batch, 3, 32, 32)
    with torch.no_grad():
        network = fs.convert(VGG16().eval(), fs.Rate(steps), calibration=x)
        before = _peak()
        fs.simulate(network, x)
    print(before, _peak())


def _peak() -> float:
    unit = 2**20 if sys.platform == "darwin" else 2**10  # bytes there, KiB elsewhere
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--steps", type=int, nargs="+", default=[64, 1024])
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--inner", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.inner is not None:
        return simulate(arguments.inner, arguments.batch, arguments.threads)

    from firstspike._files import write_json
    from firstspike.measure.environment import describe_environment

    rows = []
    for steps in arguments.steps:
        command = [sys.executable, __file__, "--inner", str(steps), "--batch"]
        command += [str(arguments.batch), "--threads", str(arguments.threads)]
        start = time.perf_counter()
        output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
        before, peak = (float(number) for number in output.split())
        rows.append(
            {
                "steps": steps,
                "peak_mib": peak,
                "peak_before_run_mib": before,
                "seconds": time.perf_counter() - start,
            }
        )
        print(f"T = {steps:5d}: peak {peak:8.1f} MiB ({before:.1f} MiB before the run)")
    ratio = rows[-1]["peak_mib"] / rows[0]["peak_mib"]
    print(f"{ratio:.2f} x from T = {arguments.steps[0]} to T = {arguments.steps[-1]}")
    write_json(
        STORE,
        {
            "benchmark": "clock_memory",
            "batch": arguments.batch,
            "rows": rows,
            "ratio": ratio,
            "environment": describe_environment().model_dump(mode="json"),
        },
    )


if __name__ == "__main__":
    main()

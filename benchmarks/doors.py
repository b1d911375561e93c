"""What every door keeps: one network through each, and the receiver's answers against ours.

    python benchmarks/doors.py runs/mnist_cnn

converts the ANN of every run given, hands it on by every door, runs the receivers that are
installed on test images and stores the table of docs/export.md in benchmarks/results/doors.json.
Rows of other networks stay there.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

import firstspike as fs
from firstspike._files import write_json
from firstspike.exchange import Check, hand_on
from firstspike.exchange.doors import Door, build_door
from firstspike.measure.environment import describe_environment

STORE = Path(__file__).parent / "results" / "doors.json"
COMMAND = "`python benchmarks/doors.py runs/mnist_cnn`"
SAMPLES = 100
CODES: dict[str, tuple[fs.codes.Code, tuple[str, ...]]] = {  # code and the doors it goes through
    "TTFS": (fs.TTFS(16), ("onnx", "pretrained", "spikes", "nir")),
    "LIF": (fs.LIF(16), ("nir",)),
    "Rate": (fs.Rate(16), ("nir",)),
}


def measure(run: Path, samples: int) -> list[dict[str, object]]:
    """One row per code, door and receiver."""
    opened, rows = fs.Run(run), []
    calibration = opened.dataset("train").subset(1000)
    images = opened.dataset("test").subset(samples).float_images()
    for code, names in CODES.values():
        network = fs.convert(opened.model, code, calibration=calibration)
        for name in names:
            door: Door = build_door(name)
            with tempfile.TemporaryDirectory() as folder:
                path = Path(folder) / f"network{door.ending}"
                handed = hand_on(network, door, path, images)
                size = sum(file.stat().st_size for file in handed.files)
            print(f"{opened.name}, {code.name}", handed, sep="\n", flush=True)
            rows += [
                {
                    "network": opened.name,
                    "code": str(code.name),
                    "door": name,
                    "bytes": size,
                    "not_said": list(handed.cannot),
                    **vars(check),
                }
                for check in handed.checks
            ]
    return rows


def table(rows: list[dict[str, object]]) -> str:
    """The rows as Markdown."""
    head = "| network | code | door | run by | neurons alike | classes | logits to |"
    lines = [head, "|---" * 7 + "|"]
    for row in rows:
        check = Check(**{k: row[k] for k in Check.__dataclass_fields__})  # type: ignore[arg-type]
        alike = f"{check.neurons - check.different:,} of {check.neurons:,}"
        logits = "–" if check.logits is None else f"{check.logits:.2g}"
        reader = check.reader
        if check.note.startswith("failed"):
            alike, reader = check.note.split(":")[0], check.reader
        lines.append(
            f"| {row['network']} | {row['code']} | {row['door']} | {reader} | {alike} | "
            f"{check.classes} of {check.samples} | {logits} |"
        )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("runs", nargs="*", type=Path, help="none: print the stored table")
    parser.add_argument("--samples", type=int, default=SAMPLES)
    given = parser.parse_args()
    if given.runs:
        stored = json.loads(STORE.read_text())["rows"] if STORE.is_file() else []
        for run in given.runs:
            rows = [row for row in stored if row["network"] != fs.Run(run).name]
            stored = [*rows, *measure(run, given.samples)]
        environment = describe_environment("cpu").model_dump(mode="json")
        write_json(STORE, {"command": COMMAND, "rows": stored, "environment": environment})
    print(table(json.loads(STORE.read_text())["rows"]))


if __name__ == "__main__":
    main()

"""Attack the library for a stated time and print what held: `make attack`.

Every case runs from its seed. Cases run in forked children, so that a crash of the interpreter or
a hang is seen and counted and the rest goes on.

    python tests/attack/attack.py --minutes 30 --json figures.json
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))

from damage import damage, edit, files, networks
from fuzz import graph
from kills import (
    command_kill,
    compare_kill,
    convert_kill,
    in_process,
    reproduce_kill,
    train,
    train_kill,
)
from kills import warm as warm_kills
from surroundings import (
    memory,
    read_only,
    small_disk,
    small_disk_training,
    threads,
    two_processes,
)

Case = Callable[[int, Path], str]  # (seed, empty folder) -> what happened, "ok: ..." or "BAD: ..."
_HANG = 600.0  # seconds without an answer from a child
_PATIENCE = 2  # times the stated minutes, for a part that lacks cases

# part: (case, cases per child, how many at least)
PARTS: dict[str, tuple[Case, int, int]] = {
    "graphs": (graph, 50, 3000),
    "edits of networks": (edit, 100, 1000),
    "damaged files": (damage, 200, 4000),
    "kills of training": (train_kill, 6, 100),
    "kills of convert": (convert_kill, 8, 60),
    "kills of compare": (compare_kill, 4, 60),
    "kills of reproduce": (reproduce_kill, 2, 20),
    "kills of the command line": (command_kill, 5, 70),
    "full disks": (small_disk, 20, 40),
    "full disks in training": (small_disk_training, 10, 20),
    "read-only folders": (read_only, 5, 5),
    "two processes": (two_processes, 2, 4),
    "threads": (threads, 1, 4),
    "memory": (memory, 1, 2),
}


def run_cases(case: Case, seeds: range, folder: Path) -> dict[str, int]:
    """Run cases in a child; a crash or a hang counts for the case at which it happened."""
    context = multiprocessing.get_context("fork")
    found: Counter[str] = Counter()
    left = list(seeds)
    while left:
        parent, child = context.Pipe(duplex=False)
        process = context.Process(target=_child, args=(case, left, folder, child))
        process.start()
        child.close()
        while left:
            if not parent.poll(_HANG):
                found[f"BAD: hang at seed {left.pop(0)}"] += 1
                break
            try:
                found[parent.recv()] += 1
            except EOFError:
                process.join()
                found[f"BAD: exit {process.exitcode} at seed {left.pop(0)}"] += 1
                break
            left.pop(0)
        process.kill()
        process.join()
    return found


def _child(case: Case, seeds: list[int], folder: Path, pipe: object) -> None:
    torch.set_num_threads(1)
    for seed in seeds:
        place = folder / str(seed)
        place.mkdir(parents=True)
        try:
            outcome = case(seed, place)
        except Exception:
            last = traceback.format_exc().splitlines()
            outcome = f"BAD: seed {seed}: {last[-1]} ({last[-3].strip()})"
        pipe.send(outcome)  # type: ignore[attr-defined]
        shutil.rmtree(place, ignore_errors=True)


def attack(minutes: float, seed: int, parts: list[str], log: Path | None = None) -> dict[str, dict]:
    """All parts in turn until the time is over, and longer while a part lacks cases."""
    networks(), files(), in_process(train)  # children inherit these, and all compiled loops
    if any(name.startswith("kills") for name in parts):
        warm_kills()
    with tempfile.TemporaryDirectory() as folder:
        for number in range(12):
            graph(number, Path(folder))
    end = time.monotonic() + 60 * minutes
    figures: dict[str, Counter[str]] = {name: Counter() for name in parts}
    started, seconds = dict.fromkeys(parts, seed), dict.fromkeys(parts, 0.0)
    with tempfile.TemporaryDirectory() as folder:
        while True:
            behind = [n for n in parts if _count(figures[n]) < PARTS[n][2]]
            late = time.monotonic() - end
            if late >= 60 * minutes * (_PATIENCE - 1) or (late >= 0 and not behind):
                break
            # the part that is furthest behind, by its share
            name = min(behind or parts, key=lambda n: _count(figures[n]) / PARTS[n][2])
            case, size, _ = PARTS[name]
            begin = time.monotonic()
            seeds = range(started[name], started[name] + size)
            started[name] += size
            figures[name].update(run_cases(case, seeds, Path(folder) / name.replace(" ", "-")))
            seconds[name] += time.monotonic() - begin
            if log is not None:
                log.write_text(json.dumps(_report(figures, seconds), indent=1) + "\n")
    return _report(figures, seconds)


def _count(found: Counter[str]) -> int:
    """Cases, or kills where a case says how many there were (`ok: 5 kills`)."""
    total = 0
    for outcome, count in found.items():
        words = outcome.split()
        total += count * (int(words[1]) if words[2:3] == ["kills"] else 1)
    return total


def _report(figures: dict[str, Counter[str]], seconds: dict[str, float]) -> dict[str, dict]:
    return {
        name: {
            "cases": _count(found),
            "wanted": PARTS[name][2],
            "bad": sum(count for outcome, count in found.items() if outcome.startswith("BAD")),
            "seconds": round(seconds[name], 1),
            "outcomes": dict(found.most_common()),
        }
        for name, found in figures.items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")  # networks that follow their model badly are wanted here
    begin = time.monotonic()
    figures = attack(arguments.minutes, arguments.seed, arguments.parts.split(","), arguments.json)
    print(
        f"{(time.monotonic() - begin) / 60:.1f} minutes, seed {arguments.seed}, Python "
        f"{platform.python_version()}, torch {torch.__version__}, {os.cpu_count()} CPUs"
    )
    for name, found in figures.items():
        print(
            f"{name}: {found['cases']:,} cases of {found['wanted']:,} wanted, {found['bad']} bad, "
            f"{found['seconds']:,} s"
        )
        for outcome, count in found["outcomes"].items():
            print(f"    {count:6,} {outcome}")
    sys.exit(any(f["bad"] or f["cases"] < f["wanted"] for f in figures.values()))


if __name__ == "__main__":
    main()

"""A worker of a search for tests/tuning/test_workers.py: STORAGE TRIALS [hang].

With `hang` it stops for ever in its second trial and says so, to be killed there.
"""

from __future__ import annotations

import sys
import time

import torch
from small_task import make_set
from torch import nn

import firstspike as fs
from firstspike.tuning import Done, Outcome, Setting, Tuned
from firstspike.tuning.trial import Workbench

SPACE = {
    "code": {
        "name": "TTFS",
        "window": {"from": 2, "to": 12},
        "kernel": {"choose": [{"name": "Linear"}, {"name": "PowerOfTwo"}]},
    },
    "normalization": {"name": "Percentile", "percentile": {"choose": [99.0, 99.9, 100.0]}},
    "kernel_optimization": None,
}


def search(storage: str | None, trials: int, **options: object) -> Tuned:
    """A random search whose trials follow from seed and index."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 24), nn.ReLU(), nn.Linear(24, 3))
    return fs.tune(
        model,
        make_set(120, 7),
        calibration=make_set(60, 0),
        budget="accuracy_drop <= 0.05",
        minimize=("energy", "steps"),
        trials=trials,
        space=SPACE,
        storage=storage,
        sampler="random",
        **options,
    )


def main() -> None:
    storage, trials = sys.argv[1], int(sys.argv[2])
    torch.set_num_threads(1)
    measure = Workbench.measure
    calls = 0

    def slowly(bench: Workbench, setting: Setting) -> Outcome:
        nonlocal calls
        calls += 1
        if "hang" in sys.argv and calls == 2:
            print("hanging", flush=True)
            time.sleep(3600)
        time.sleep(0.1)  # so that all workers get some
        return measure(bench, setting)

    Workbench.measure = slowly  # type: ignore[method-assign]

    def say(done: Done, _: Tuned) -> None:
        print(f"did {done.index}", flush=True)

    search(storage, trials, on_trial=say)


if __name__ == "__main__":
    main()

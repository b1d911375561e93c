r"""Every neural code on the MNIST CNN: renders the stored results of `firstspike compare`.

    firstspike compare --model runs/mnist_cnn --split test \
        --json benchmarks/results/compare_mnist.json

makes them; `make docs` renders them into docs/results.md.
"""

from __future__ import annotations

from pathlib import Path

from firstspike.measure.result import read_results
from firstspike.report.comparison import (
    comparison_rows,
    equal_spikes_rows,
    equal_steps_rows,
    markdown,
    operation_rows,
)

STORE = Path(__file__).parent / "results" / "compare_mnist.json"
COMMAND = "`firstspike compare --model RUN --split test`"

ORDERINGS = """\
**Do the paper's orderings hold here?** (Park et al. 2020, Table II, MNIST. Spikes: TTFS << rate <
burst < phase. Latency: phase 16 < TTFS 40 < burst 87 < rate 200. Energy: TTFS < rate < burst <
phase.)

- *Spikes.* TTFS has the fewest: holds. At about 99.5 % it sends 3,331 spikes, rate coding 12,666
  (16 steps), phase 118,720, burst 147,413. The newer few-step code is the only one near: 3,708 at
  99.34 %, where TTFS with four linear steps needs 2,253 for 99.30 %. Burst below phase: does not
  hold; from an analogue input with a base threshold of 1/8, burst coding fires somewhat more.
- *Latency.* Does not hold. From an analogue input and half a threshold of initial potential, rate
  coding stays within 0.3 points of the ANN from step 6 (the paper: 200), few-step from 4, phase
  from 18, burst from 20; TTFS from 19 (linear, window 4), 36 (exponential, window 16, early
  firing) or 68 (without), since its windows follow each other; temporal switch from 33, reverse
  from 78. Phase and burst with 16 steps and few-step networks with 2 never get there.
- *Energy.* Partly. Against rate coding run to 64 steps, every TTFS network with a window of 16 or
  less is cheaper (TrueNorth 0.20 to 0.78, SpiNNaker 0.14 to 0.49), and burst and phase coding at
  equal steps are dearer, but burst is dearer than phase. Against rate coding stopped after 8 steps
  (0.13) no TTFS network is cheaper: the formula charges steps, and modern rate coding needs few
  on MNIST.
- *Operations* (Table III). Holds: TTFS needs the fewest additions of the paper's codes, one
  multiplication each, and reverse coding pays for leaks and ticks."""


def markdown_of(store: Path) -> str:
    """Tables II and III of the T2FSNN paper with our measured numbers, and what they cost."""
    results = read_results(store)
    first = results[0]
    assert first.ann_accuracy is not None and first.environment is not None
    seconds = sum(r.seconds or 0.0 for r in results)
    return "\n\n".join(
        [
            f"{first.model} on {first.dataset} ({first.split}, {first.samples:,} images); the ANN "
            f'has {100 * first.ann_accuracy:.2f} %. "0.3 from": first step from which accuracy '
            "stays within 0.3 points of the ANN's. TN and SN: energy normalized to the rate code "
            "with the most steps, with the TrueNorth and SpiNNaker shares of the paper. "
            f"{len(results)} codes took {seconds / 60:.0f} minutes on "
            f"{first.environment.threads} CPU thread(s).",
            markdown(comparison_rows(results)),
            "Best accuracy (%) of each code at equal steps, and at equal spikes per image (– where "
            "no run keeps within the budget):",
            markdown(equal_steps_rows(results)),
            markdown(equal_spikes_rows(results)),
            ORDERINGS,
            "Million operations per image (`synaptic`: spikes times synapses, exact at borders):",
            markdown(operation_rows(results)),
        ]
    )


if __name__ == "__main__":
    print(markdown_of(STORE))

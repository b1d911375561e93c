r"""Every neural code on the MNIST CNN: renders the stored results of `firstspike compare`.

    firstspike compare --model runs/mnist_cnn --codes all \
        --json benchmarks/results/compare_mnist.json

makes them; `make docs` renders them into docs/results.md.
"""

from __future__ import annotations

from pathlib import Path

from firstspike.measure.result import read_results
from firstspike.report.comparison import comparison_rows, markdown, operation_rows

STORE = Path(__file__).parent / "results" / "compare_mnist.json"
COMMAND = "`firstspike compare --model runs/mnist_cnn --codes all`"


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
            "Million operations per image (`synaptic`: spikes times synapses, exact at borders):",
            markdown(operation_rows(results)),
        ]
    )


if __name__ == "__main__":
    print(markdown_of(STORE))

"""Write what the documentation takes from code and stored results: schema, tables.

    make docs

Tables come from benchmarks/results/*.json through the `markdown` function of the script that made
them; a result that is not stored is named as missing. Nothing is computed here.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

from firstspike._files import atomic_write
from firstspike.measure.result import result_schema

ROOT = Path(__file__).parent.parent
PAGES = {  # heading -> script under benchmarks/ that stores a result of the same name
    "TTFS conversion of the MNIST CNN": "ttfs_mnist",
    "TTFS conversion at few steps per layer": "ttfs_few_steps",
    "Every neural code on the MNIST CNN": "compare_mnist",
    "Clock engine, rate code, VGG-16: against the ANN and peers": "clock_rate",
    "Clock engine: memory against time steps": "clock_memory",
    "Eight bits: accuracy": "integer",
    "Few-step networks: accuracy": "few_step_accuracy",
    "Few-step networks: cost of training": "few_step_costs",
    "Single-spike networks: trained on MNIST": "training_mnist",
    "Surrogate training: what its parts bring": "training_ablation",
}


def script(name: str) -> ModuleType:
    """A benchmark script as a module."""
    sys.path.insert(0, str(ROOT / "benchmarks"))
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def write(path: Path, text: str) -> None:
    with atomic_write(path, "w") as file:
        file.write(text)
    print(path.relative_to(ROOT))


def between(text: str, marker: str, content: str) -> str:
    """`text` with what stands between the markers replaced."""
    begin, end = f"<!-- {marker}:begin -->", f"<!-- {marker}:end -->"
    head, rest = text.split(begin)
    return f"{head}{begin}\n{content}\n{end}{rest.split(end)[1]}"


def rows_of(store: Path) -> str:
    """The `rows` of a stored measurement as a table."""
    stored = json.loads(store.read_text())
    rows = stored["rows"]
    if isinstance(rows, dict):
        rows = [{"": name, **row} for name, row in rows.items()]
    heads = list(dict.fromkeys(head for row in rows for head in row))
    facts = {k: v for k, v in stored.items() if isinstance(v, int | float | str)}
    lines = [", ".join(f"{k}: {v}" for k, v in facts.items() if k != "benchmark"), ""]
    lines += ["| " + " | ".join(heads) + " |", "|" + "---|" * len(heads)]
    for row in rows:
        lines.append("| " + " | ".join(_cell(row.get(head, "")) for head in heads) + " |")
    return "\n".join(lines)


def _cell(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def reproduced() -> None:
    """docs/reproduce.md: the list of entries, the picture, and every stored outcome."""
    from matplotlib import rc_context

    from firstspike.report.comparison import markdown
    from firstspike.reproduce import Reproduction
    from firstspike.reproduce.figure import papers_figure
    from firstspike.reproduce.tables import elsewhere_rows, entry_rows, goal_rows, markdown_of

    stored = sorted((ROOT / "benchmarks/results/reproduce").glob("*.json"))
    outcomes = [Reproduction.from_json(file) for file in stored]
    picture = ROOT / "docs/images/against_papers.svg"
    with rc_context({"svg.hashsalt": "firstspike"}):  # the same picture, the same bytes
        papers_figure(outcomes).savefig(picture, metadata={"Date": None})
    parts = [
        "Accuracy on CIFAR-10 against latency, spikes and energy. Numbers: what the papers print "
        "for VGG-16; line: the highest published for single spikes; filled: the stored results "
        "below, from 85 % on.",
        "![ours against the papers](images/against_papers.svg)",
        "Goals, stated for the full scale (VGG-16), and what has been reached so far:",
        markdown(goal_rows(outcomes)),
        markdown_of(outcomes) if outcomes else "No outcome is stored yet.",
    ]
    entries = "\n\n".join(
        [
            markdown(entry_rows()),
            "Tables and figures without an entry:",
            markdown(elsewhere_rows()),
        ]
    )
    page = ROOT / "docs/reproduce.md"
    text = between(page.read_text(), "entries", entries)
    write(page, between(text, "reproduced", "\n\n".join(parts)))


def speed() -> None:
    """docs/speed.md: all targets, and the table of every stored part that the page has room for."""
    module, page = script("speed"), ROOT / "docs/speed.md"
    stored = sorted((ROOT / "benchmarks/results").glob("speed_*.json"))
    text = between(page.read_text(), "speed", module.targets_of(stored))
    for store in stored:
        if f"<!-- {store.stem}:begin -->" in text:
            scaling = store.stem == "speed_scaling"
            body = module.exponents_of(store) if scaling else module.markdown_of(store)
            text = between(text, store.stem, body)
    write(page, text)


def main() -> None:
    speed()
    reproduced()
    write(ROOT / "docs/result.schema.json", json.dumps(result_schema(), indent=2) + "\n")
    sections = [
        "# Results",
        "Tables come from the stored results in `benchmarks/results/`, each made by the command "
        "above it; `make docs` renders this page. `RUN` is the folder of the MNIST CNN: "
        "`firstspike train --recipe recipes/mnist_cnn.yaml --out RUN`.",
        "Spike times of each population before and after kernel optimization (T = 20; the first "
        "spike in orange; `python benchmarks/figures.py RUN`):",
        "![before](images/spike_times_plain.png)",
        "![after](images/spike_times_optimized.png)",
        "Losses of the optimization from a small (2) and a large (18) time constant:",
        "![small](images/kernel_losses_small_tau.png)",
        "![large](images/kernel_losses_large_tau.png)",
    ]
    for heading, name in PAGES.items():
        store = ROOT / "benchmarks" / "results" / f"{name}.json"
        if not store.exists():
            print(f"no stored result of {name}", file=sys.stderr)
            continue
        module = script(name)
        command = f"`python benchmarks/{name}.py`"  # scripts that need more say so
        command = getattr(module, "COMMAND", command)
        body = module.markdown_of(store) if hasattr(module, "markdown_of") else rows_of(store)
        sections += [f"## {heading}", command, body]
    write(ROOT / "docs/results.md", "\n\n".join(sections) + "\n")
    summaries = [script(name) for name in ("ttfs_mnist", "ttfs_few_steps")]
    tables = [summary.summary_of(summary.STORE) for summary in summaries if summary.STORE.exists()]
    if tables:
        readme = (ROOT / "README.md").read_text()
        write(ROOT / "README.md", between(readme, "results", "\n\n".join(tables)))


if __name__ == "__main__":
    main()

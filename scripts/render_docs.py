"""Write what the documentation takes from code and stored results: schema, tables, pictures.

    make docs

Tables come from the outcomes and measurements that `firstspike reproduce NAME --store` and
`firstspike bench --store` wrote below benchmarks/results/. Nothing is computed here.
"""

from __future__ import annotations

import json
import math
from pathlib import Path

from firstspike._files import atomic_write
from firstspike.bench.render import exponents_of, markdown_of, targets_of
from firstspike.measure.result import result_schema
from firstspike.plots import plot_accuracy_bits, save_svg
from firstspike.report.capabilities import capability_table
from firstspike.report.comparison import markdown
from firstspike.reproduce import Reproduction, tables
from firstspike.reproduce.figure import papers_figure

ROOT = Path(__file__).parent.parent
RESULTS = ROOT / "benchmarks" / "results"
SHORT = {  # entry -> network -> its label in the short tables
    "mnist-ttfs": {
        "exponential, T = 16": "T = 16",
        "exponential, T = 16, GO": "T = 16, kernels optimized",
        "exponential, T = 16, GO, EF": "T = 16, optimized, early firing",
        "linear, T = 8": "T = 8, linear",
        "linear, T = 4": "T = 4, linear",
    },
    "few-steps-converted": {
        "linear, T = 4": "T = 4, linear",
        "learned, T = 4, input 32, least error per channel": "T = 4, learned, input_window=32",
        "linear, T = 8": "T = 8, linear",
        "learned, T = 8, input 32, least error per channel": "T = 8, learned, input_window=32",
    },
}


def write(path: Path, text: str) -> None:
    with atomic_write(path, "w") as file:
        file.write(text)
    print(path.relative_to(ROOT))


def between(text: str, marker: str, content: str) -> str:
    """`text` with what stands between the markers replaced."""
    begin, end = f"<!-- {marker}:begin -->", f"<!-- {marker}:end -->"
    head, rest = text.split(begin)
    return f"{head}{begin}\n{content}\n{end}{rest.split(end)[1]}"


def against_papers(outcomes: list[Reproduction]) -> str:
    """The picture of accuracy against costs, and the goals."""
    return "\n\n".join(
        [
            "Accuracy on CIFAR-10 against latency and spikes. Numbers: what the papers print for "
            "VGG-16; line: the highest published for single spikes; filled: the stored results on "
            "all test images, from 85 % on.",
            "![ours against the papers](images/against_papers.svg)",
            "Goals, stated for the full scale (VGG-16), and what has been reached so far:",
            markdown(tables.goal_rows(outcomes)),
        ]
    )


def reproduced(outcomes: list[Reproduction]) -> None:
    """The entries in docs/reproduce.md, every outcome held to a paper in its diary."""
    entries = "\n\n".join(
        [
            markdown(tables.entry_rows()),
            "Tables and figures without an entry:",
            markdown(tables.elsewhere_rows()),
        ]
    )
    page, diary = ROOT / "docs/reproduce.md", ROOT / "docs/diaries/reproduced.md"
    write(page, between(page.read_text(), "entries", entries))
    write(diary, between(diary.read_text(), "reproduced", tables.markdown_of(outcomes)))


def bits(outcomes: list[Reproduction]) -> None:
    """docs/images/accuracy_against_bits.svg: the rows of `mnist-bits`."""
    (outcome,) = (o for o in outcomes if o.entry == "mnist-bits")
    curves: dict[str, list[tuple[int, float]]] = {}
    floats = math.nan
    for row in outcome.rows:
        accuracy = row.cells["accuracy"].mean / 100
        if row.network == "floats":
            floats = accuracy
            continue
        number, _, how = row.network.partition(" bits")
        curves.setdefault(how.lstrip(", ") or "nearest", []).append((int(number), accuracy))
    figure, _ = plot_accuracy_bits(curves, float_accuracy=floats)
    save_svg(figure, ROOT / "docs/images/accuracy_against_bits.svg", "Accuracy against bits")


def own_results(outcomes: list[Reproduction]) -> None:
    """All of our own entries in their diary."""
    page = ROOT / "docs/diaries/results.md"
    sections = [tables.markdown_of(outcomes), *map(tables.comparison_of, outcomes)]
    text = "\n\n".join(section for section in sections if section)
    write(page, between(page.read_text(), "results", text))


def short_results(outcomes: list[Reproduction]) -> None:
    """docs/results.md: the picture, and a few rows of everything with the way to the rest."""
    picture = ROOT / "docs/images/against_papers.svg"
    save_svg(papers_figure(outcomes), picture, "Accuracy against steps and spikes")
    lines = [against_papers(outcomes)]
    for entry, chosen in SHORT.items():
        (outcome,) = (o for o in outcomes if (o.entry, o.scale) == (entry, "full"))
        rows = [row for row in outcome.rows if row.network in chosen]
        named = [row.model_copy(update={"network": chosen[row.network]}) for row in rows]
        short = tables.table(outcome.model_copy(update={"rows": named}))
        shows = f"{outcome.shows[0].upper()}{outcome.shows[1:]}"
        lines.append(f"{shows} ([all rows and the command](diaries/results.md)):")
        lines.append(markdown([{k: v for k, v in r.items() if k != "verdict"} for r in short]))
    page = ROOT / "docs/results.md"
    write(page, between(page.read_text(), "short", "\n\n".join(lines)))


def speed() -> None:
    """All targets in docs/speed.md, the table of every stored part in its diary."""
    page = ROOT / "docs/speed.md"
    stored = sorted(RESULTS.glob("speed_*.json"))
    write(page, between(page.read_text(), "speed", targets_of(stored)))
    page = ROOT / "docs/diaries/speed.md"
    text = page.read_text()
    for store in stored:
        if f"<!-- {store.stem}:begin -->" in text:
            body = exponents_of(store) if store.stem == "speed_scaling" else markdown_of(store)
            text = between(text, store.stem, body)
    write(page, text)


def exported() -> None:
    """docs/export.md: what every receiver made of every door."""
    from firstspike.bench.doors import markdown

    page = ROOT / "docs/export.md"
    write(page, between(page.read_text(), "doors", markdown(RESULTS / "doors.json")))


def tuned() -> None:
    """docs/tuning.md: what the tuner finds for each model, against the table and chance."""
    from firstspike.bench.tuner import markdown

    page = ROOT / "docs/tuning.md"
    stores = sorted(RESULTS.glob("tuner_*.json"))
    write(page, between(page.read_text(), "tuner", "\n\n".join(map(markdown, stores))))


def shared() -> None:
    """docs/machines.md: what a second process brings."""
    from firstspike.bench.processes import STORE, markdown

    page = ROOT / "docs/machines.md"
    write(page, between(page.read_text(), "processes", markdown(ROOT / STORE)))


def main() -> None:
    speed()
    tuned()
    shared()
    exported()
    stored = [Reproduction.from_json(file) for file in sorted(RESULTS.glob("reproduce/*.json"))]
    ours = [outcome for outcome in stored if (outcome.paper, outcome.scale) == ("ours", "full")]
    reproduced([outcome for outcome in stored if outcome not in ours])
    own_results(ours)
    short_results(stored)
    bits(ours)
    page = ROOT / "docs/capabilities.md"
    write(page, between(page.read_text(), "capabilities", capability_table()))
    write(ROOT / "docs/result.schema.json", json.dumps(result_schema(), indent=2) + "\n")


if __name__ == "__main__":
    main()

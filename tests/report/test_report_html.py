"""The HTML report: complete in itself, escaped, well-formed, and written whole or not at all."""

from __future__ import annotations

import base64
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.figure import Figure

from firstspike.measure.energy import EnergyReference
from firstspike.measure.energy_tables import estimate_energy
from firstspike.measure.environment import describe_environment
from firstspike.measure.result import LayerResult, Result
from firstspike.plots import plot_accuracy_over_time
from firstspike.report import write_report
from firstspike.report.html import embed

VOID = {"meta", "img", "br", "hr", "link", "input"}


class Page(HTMLParser):
    """Checks nesting; collects texts by tag and the values of src and href."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: dict[str, list[str]] = {}
        self.links: list[str] = []
        self.tags: set[str] = set()
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.links += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if data.strip() and self.open:
            self.texts.setdefault(self.open[-1], []).append(data.strip())


def make(**changes: Any) -> Result:
    spikes, steps = 6300.0, 64
    values: dict[str, Any] = {
        "model": "cnn",
        "dataset": "mnist",
        "split": "test",
        "samples": 10_000,
        "seed": 3,
        "code": {"name": "TTFS", "window": 16},
        "accuracy": 0.9934,
        "ann_accuracy": 0.9941,
        "agreement": 0.998,
        "latency_steps": steps,
        "spikes_per_sample": spikes,
        "input_spikes_per_sample": 102,
        "neurons": 12_600,
        "silent_fraction": 0.5,
        "energy": estimate_energy(
            {"spikes": spikes, "steps": steps}, reference=EnergyReference("rate", 1e5, 200)
        ),
        "layers": [
            LayerResult(
                name="conv1",
                neurons=9216,
                spikes_per_sample=5000,
                silent_fraction=0.46,
                depth=1,
                operations={"synaptic": 40_800},
            )
        ],
        "not_counted": ["the readout emits no spikes"],
        "environment": describe_environment(),
        "seconds": 1.5,
    }
    return Result(**{**values, **changes})


def write(folder: Path, **changes: Any) -> Page:
    arguments = {"title": "A run", "results": [make()], **changes}
    path = write_report(folder / "report.html", **arguments)
    return Page(path.read_text(encoding="utf-8"))


def test_sections_numbers_and_provenance(tmp_path: Path) -> None:
    page = write(
        tmp_path,
        figures={"Accuracy over time.": plot_accuracy_over_time({"ttfs": [0.1, 0.9]})[0]},
        tables={"Engines compared": [{"layer": "conv1", "spikes": 12345, "different": 0}]},
        config={"training": {"epochs": 3}},
        network_plan="node  operation\nconv1 Conv2d",
        command="firstspike demo --seed 3",
        notes=["Converted without training."],
    )
    assert page.texts["h1"] == ["A run"]
    assert page.texts["h2"] == [
        "Results",
        "Engines compared",
        "Figures",
        "Energy per sample",
        "What was not counted",
        "Layers",
        "Network plan",
        "Provenance",
    ]
    assert page.texts["b"] == ["99.34", "−0.07", "99.80", "64", "6,300", "50.0"]
    cells = page.texts["td"]
    assert {"TTFS, window 16", "12,345", "conv1", "9,216", "40,800", "46.0"} <= set(cells)
    assert page.texts["figcaption"] == ["Accuracy over time."]
    assert "the readout emits no spikes" in page.texts["li"]
    assert any("relative to rate (100,000 spikes, 200 steps)" in text for text in page.texts["li"])
    assert any("static: 3.52 µJ (Wei et al. 2023" in text for text in page.texts["li"])
    assert page.texts["pre"] == [
        "node  operation\nconv1 Conv2d",
        "firstspike demo --seed 3",
        "training:\n  epochs: 3",
    ]
    assert any(text.startswith("firstspike ") for text in page.texts["dd"])


def test_nothing_outside_the_file(tmp_path: Path) -> None:
    page = write(tmp_path, figures={"f": Figure()})
    html = (tmp_path / "report.html").read_text()
    assert "svg" in page.tags and not page.links
    assert not {"script", "link", "iframe"} & page.tags
    assert not re.search(r"url\((?!#)|@import|https?://", html)
    assert "prefers-color-scheme: dark" in html and "@media print" in html


def test_everything_is_escaped(tmp_path: Path) -> None:
    nasty = "<script>alert('1')</script> & \"x\""
    page = write(
        tmp_path,
        title=nasty,
        results=[make(model=nasty)],
        figures={nasty: Figure()},
        tables={nasty: [{nasty: nasty}]},
        config={nasty: nasty},
        network_plan=nasty,
        command=nasty,
        notes=[nasty],
    )
    assert "script" not in page.tags
    assert page.texts["h1"] == [nasty]


def test_several_results(tmp_path: Path) -> None:
    ann = make(code={"name": "ANN"}, spikes_per_sample=0, layers=[], energy={}, environment=None)
    rate = make(code={"name": "Rate", "steps": 256}, ann_accuracy=None, agreement=None)
    page = write(tmp_path, results=[ann, make(), rate])
    assert page.texts["summary"][1:] == ["TTFS, window 16", "Rate, steps 256"]  # the ANN has none
    assert page.texts["b"][4] == "6,300"  # the headline is the first result with spikes
    assert page.texts["td"].count("the readout emits no spikes") == 0
    assert page.texts["li"].count("the readout emits no spikes") == 1


def test_the_least_there_can_be(tmp_path: Path) -> None:
    result = make(layers=[], energy={}, not_counted=[], environment=None, seconds=None, seed=None)
    page = write(tmp_path, results=[result])
    assert page.texts["h2"] == ["Results", "Layers", "Provenance"]


def test_figures_are_svg_and_the_same_every_time() -> None:
    first, second = (embed(plot_accuracy_over_time({"a": [0.1, 0.9]})[0], "a") for _ in range(2))
    assert first == second
    assert first.startswith('<svg role="img" aria-label="a"')


def test_figures_take_their_colours_from_the_page() -> None:
    text = embed(plot_accuracy_over_time({"a": [0.1, 0.9]}, ann_accuracy=0.95)[0], "a")
    drawn = re.findall(r"(?:fill|stroke): *(#[0-9a-f]{6})", text)
    assert drawn == [], "every colour is a variable"
    assert "var(--ink, #222222)" in text and "var(--series-1, #0072b2)" in text


def test_the_tiles_show_the_result_that_is_recommended(tmp_path: Path) -> None:
    results = [make(), make(accuracy=0.5)]
    assert write(tmp_path, results=results).texts["b"][0] == "99.34"
    assert write(tmp_path, results=results, headline=results[1]).texts["b"][0] == "50.00"


def test_a_figure_with_very_many_marks_becomes_png(monkeypatch: pytest.MonkeyPatch) -> None:
    figure = Figure()
    figure.subplots().plot(np.sin(np.arange(200)))
    monkeypatch.setattr("firstspike.report.html._LARGEST_SVG", 1000)
    image = embed(figure, "many")
    data = re.fullmatch(r'<img src="data:image/png;base64,([^"]+)" alt="many">', image)
    assert data is not None and base64.b64decode(data[1]).startswith(b"\x89PNG")


# ------------------------------------------------------------------------------------- errors


def test_no_results(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="must hold at least one Result, got none"):
        write(tmp_path, results=[])


def test_axes_instead_of_a_figure(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="must be a matplotlib figure, got tuple"):
        write(tmp_path, figures={"f": plot_accuracy_over_time({"a": [0.1]})})


def test_ragged_table(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"`tables\['t'\]` must have the same headings"):
        write(tmp_path, tables={"t": [{"a": 1}, {"b": 2}]})


def test_a_failure_leaves_the_earlier_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, title="first")

    def full_disk(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full_disk)
    with pytest.raises(OSError, match="No space left"):
        write(tmp_path, title="second")
    assert "first" in (tmp_path / "report.html").read_text()
    assert len(list(tmp_path.iterdir())) == 1

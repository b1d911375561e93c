"""Pages and README: links lead somewhere, samples run, commands are those of the program."""

from __future__ import annotations

import doctest
import importlib.util
import re
import shlex
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import typer
import yaml
from typer.testing import CliRunner

import firstspike as fs
from firstspike.cli.app import app
from firstspike.config import known
from firstspike.networks.ops import OPS
from firstspike.plugins import load_file

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.glob("*.md"))]
# pages with long samples
SLOW = {
    *("export.md", "few_step.md", "hardware.md", "start.md", "training.md", "tuning.md"),
    "viewer.md",
}


def blocks(page: Path, language: str) -> list[tuple[str, str]]:
    """Title and text of every fenced block."""
    found = re.findall(
        rf" *```{language}(?: title=\"([^\"]*)\")?\n(.*?)```", page.read_text(), re.S
    )
    dedented = [(title, textwrap.dedent(text)) for title, text in found]
    return [(title, text) for title, text in dedented if not text.startswith(">>>")]


def module(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    made = importlib.util.module_from_spec(spec)
    sys.modules[path.stem] = made  # dataclasses look their module up
    spec.loader.exec_module(made)
    return made


# ------------------------------------------------------------------------------- what is linked


@pytest.mark.parametrize("page", [*PAGES, *DOCS.glob("diaries/*.md")], ids=lambda p: p.name)
def test_links_lead_to_files_and_headings(page: Path) -> None:
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.S)
    for path, anchor in re.findall(r"\]\((?!https?:)([^)#\s]*)(#[^)\s]*)?\)", text):
        if path.startswith("reference/") or "/reference/" in path:
            continue  # made when the site is built, which checks them
        target = page.parent / path if path else page
        assert target.exists(), f"{page.name} links to {path}"
        if anchor and target.suffix == ".md":
            assert anchor[1:] in _anchors(target), f"{page.name} links to {path}{anchor}"


def _anchors(page: Path) -> set[str]:
    heads = re.findall(r"^#+ (.*)$", page.read_text(), re.M)
    words = [re.sub(r"[^\w\s-]", "", _ascii(head)).strip().lower() for head in heads]
    return {re.sub(r"[-\s]+", "-", word) for word in words}


def _ascii(text: str) -> str:
    import unicodedata

    return unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode()


def test_every_public_name_has_a_docstring_with_its_parts() -> None:
    reference = module(ROOT / "scripts" / "reference.py")
    for names in reference.pages().values():
        for public in names:
            assert reference.lacking(public) == [], public.name


def test_the_reference_asks_for_every_part() -> None:
    reference = module(ROOT / "scripts" / "reference.py")

    def poor(x: fs.SpikingNetwork, y: Any) -> None:
        """Nothing is said of what goes in."""
        raise ValueError(x, y)

    poor.__annotations__["x"] = "Tensor"
    poor.__module__ = "firstspike.poor"
    lacking = reference.lacking(reference.Public("poor", poor, "poor"))
    assert lacking == [
        "the parameter `x`",
        "the parameter `y`",
        "`Raises:`",
        "shapes of tensors",
    ]


def test_the_citation_is_of_this_package() -> None:
    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["license"] == "Apache-2.0" and cited["title"].startswith("firstspike")


# ------------------------------------------------------------------------------------- samples


def names_of_a_page() -> dict[str, Any]:
    """What samples take for granted: a model, images, data sets, and names from the spaces."""
    import torch

    torch.manual_seed(0)
    train_set, validation_set = (fs.data.load_dataset("digits", s) for s in ("train", "validation"))
    train_set, validation_set = train_set.subset(300), validation_set.subset(60)
    model = fs.models.DigitsCNN().eval()
    images = train_set.float_images()
    given: dict[str, Any] = {"fs": fs, "torch": torch, "nn": torch.nn, "pytest": pytest}
    for space in ("codes", "kernels", "methods", "quantized", "training"):
        given |= {name: getattr(getattr(fs, space), name) for name in getattr(fs, space).__all__}
    load_file(ROOT / "examples" / "two_spike.py")
    return given | {
        "model": model,
        "images": images[:50],
        "labels": train_set.labels[:50],
        "dataset": validation_set,
        "train_set": train_set,
        "validation_set": validation_set,
        "test_set": fs.data.load_dataset("digits", "test").subset(60),
        "network": fs.convert(model, fs.TTFS(16, fs.kernels.Linear()), calibration=images),
        "TwoSpike": known("code")["TwoSpike"],
        "reference": None,
    }


def _pages_with_samples() -> list[Any]:
    pages = [page for page in PAGES if blocks(page, "python")]
    marks = {True: pytest.mark.slow, False: ()}
    return [pytest.param(page, id=page.name, marks=marks[page.name in SLOW]) for page in pages]


@pytest.mark.parametrize("page", _pages_with_samples())
def test_samples_run_in_order_in_an_empty_folder(
    page: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    if page.name == "export.md":
        pytest.importorskip("nir")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    for name, operation in list(OPS.items()):  # of other tests: pages define their own
        if not operation.__module__.startswith("firstspike."):
            monkeypatch.delitem(OPS, name)
    names = {} if page.name in ("start.md", "export.md", "training.md") else names_of_a_page()
    for title, text in blocks(page, "python"):
        if title:
            (tmp_path / title).write_text(text)
        exec(compile(text, f"{page.name}: {title}", "exec"), names)
    printed = capsys.readouterr().out
    if page.name == "training.md":
        assert "RobustnessPoint" in printed
        assert names["first"].predictions.tolist() == (
            names["first"].spike_times["output_spikes"].argmin(1).tolist()
        )
    if page.name == "export.md":
        assert "neurons spike alike, 64 of 64 classes equal" in printed
        assert names["again"].code == names["loaded"].code == names["network"].code
        assert names["same"].latency == names["record"].latency
    if page.name == "start.md":
        assert names["result"].accuracy > 0.85
        assert "<svg" in (tmp_path / "report.html").read_text()


SESSIONS = [
    ROOT / "README.md",
    DOCS / "energy.md",
    pytest.param(DOCS / "hardware.md", marks=pytest.mark.slow),
]


@pytest.mark.parametrize("page", SESSIONS)
def test_sessions_print_what_they_say(page: Path) -> None:
    flags = doctest.NORMALIZE_WHITESPACE | doctest.ELLIPSIS
    result = doctest.testfile(str(page), module_relative=False, optionflags=flags)
    assert result.attempted > 0 and result.failed == 0


# ------------------------------------------------------------------------------------ commands


def commands() -> list[str]:
    """Every `firstspike ...` line of README and guide."""
    found = []
    for page in [*PAGES, ROOT / "CONTRIBUTING.md"]:
        text = page.read_text().replace("\\\n>", "").replace("\\\n", "")
        found += re.findall(r"^(?:\$ |> +|    )?(firstspike [a-z][^\n]*)", text, re.M)
    return sorted({re.sub(r"\s+#.*", "", line).strip() for line in found if "$" not in line})


@pytest.mark.parametrize("line", commands())
def test_every_command_of_the_pages_is_understood(line: str) -> None:
    verb, *arguments = shlex.split(line)[1:]
    command = typer.main.get_command(app).commands[verb]  # type: ignore[attr-defined]
    command.make_context(verb, arguments)


LONG = {  # verbs and options whose work takes hours, or data and models that are not bundled
    ("bench", "--only"),
    ("bench", "--quick"),
    ("reproduce", "t2fsnn-table1"),
    ("reproduce", "--ann"),
    ("train", "--recipe"),
    ("demo",),
    *((verb, "photos") for verb in ("train", "convert", "compare", "evaluate", "check")),
    ("check", "--shape"),
    ("tune", "accuracy_drop <= 0.001"),  # a budget that two epochs on digits cannot keep
}


@pytest.mark.slow
def test_commands_run_as_they_are_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On digits: every run that the pages name is one trained for two epochs."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "examples").symlink_to(ROOT / "examples")  # files that others may have loaded
    runner = CliRunner()

    def run(*arguments: str) -> None:
        done = runner.invoke(app, list(arguments))
        assert done.exit_code == 0, f"{arguments}: {done.output} {done.exception!r}"

    for name in ("mnist", "digits", "mnist_dta"):
        epochs = ("--data", "digits", "--epochs", "2", "--out", f"runs/{name}")
        run("train", "--model", "digits_cnn", *epochs)
        run("convert", f"runs/{name}", "--code", "TTFS(8, kernel=Linear())")
    shutil.copy(tmp_path / "runs/digits/network.safetensors", tmp_path / "network.safetensors")
    ran = 0
    for line in commands():
        words = shlex.split(line)[1:]
        if any(words[0] == long[0] and set(long[1:]) <= set(words) for long in LONG):
            continue
        if "onnx" in words:
            pytest.importorskip("onnxruntime")
        run(*words)
        ran += 1
        if "TwoSpike" in line:  # leaves the run with a network of that code
            run("convert", "runs/mnist", "--code", "TTFS(8, kernel=Linear())")
    assert ran >= 10


@pytest.mark.slow
def test_the_site_builds_strictly(tmp_path: Path) -> None:
    pytest.importorskip("mkdocs")
    pytest.importorskip("mkdocstrings")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "-d", str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    page = (tmp_path / "reference" / "kernels.html").read_text()
    assert "fs.kernels.Linear" in page and "https://fonts" not in page

"""The examples run from top to bottom, in a reduced form; two of them as notebooks."""

from __future__ import annotations

import importlib.util
import json
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = ROOT / "examples"
FEW = {"EPOCHS": 1, "IMAGES": 20, "SAMPLES": 120, "FRAMES": 2}
WRITTEN = {
    "convert_cnn": ["network.safetensors", "report.html", "view.html"],
    "compare_codes": ["tradeoff.svg"],
    "train_ttfs": ["trained.safetensors"],
    "chip": ["digits.c", "digits.h"],
    "series": [],
    "segmentation": [],
}


def reduced(source: str) -> str:
    """The example with small numbers in place of its constants."""
    for name, value in FEW.items():
        source = re.sub(rf"^{name} = \d+$", f"{name} = {value}", source, flags=re.M)
    return source


def test_every_example_is_run() -> None:
    named = {path.stem for path in EXAMPLES.glob("*.py")} - {"two_spike"}  # has tests of its own
    assert named == set(WRITTEN)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the spiking network does not follow")
@pytest.mark.parametrize("name", WRITTEN)
def test_examples_run(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    source = (EXAMPLES / f"{name}.py").read_text()
    names = {"__name__": name}
    exec(compile(reduced(source), f"{name}.py", "exec"), names)
    assert all((tmp_path / file).stat().st_size > 100 for file in WRITTEN[name])


def _notebook(name: str) -> dict:
    path = ROOT / "scripts" / "notebooks.py"
    spec = importlib.util.spec_from_file_location("notebooks", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert name in module.NOTEBOOKS
    return module.notebook((EXAMPLES / f"{name}.py").read_text())


NOTEBOOKS = [path.stem for path in sorted(EXAMPLES.glob("*.ipynb"))]


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebooks_are_those_of_the_examples(name: str) -> None:
    stored = json.loads((EXAMPLES / f"{name}.ipynb").read_text())
    assert stored == _notebook(name), "python scripts/notebooks.py"


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_notebooks_run(name: str, tmp_path: Path) -> None:
    nbformat = pytest.importorskip("nbformat")
    nbclient = pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    text = reduced(json.dumps(_notebook(name)))
    text = re.sub(r'"(EPOCHS) = \d+', r'"\1 = 1', text)
    book = nbformat.reads(text, as_version=4)
    nbclient.NotebookClient(book, timeout=600, resources={"metadata": {"path": tmp_path}}).execute()
    printed = [o for cell in book.cells for o in cell.get("outputs", [])]
    assert any("%" in output.get("text", "") for output in printed)
    assert not any(output["output_type"] == "error" for output in printed)

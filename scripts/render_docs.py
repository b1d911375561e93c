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
PAGES = {  # heading -> (script under benchmarks/, command that makes the result)
    "TTFS conversion of the MNIST CNN": ("ttfs_mnist", "python benchmarks/ttfs_mnist.py RUN"),
    "Closed form against the ANN, VGG-16": (
        "closed_form_vgg16",
        "python benchmarks/closed_form_vgg16.py",
    ),
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


def main() -> None:
    write(ROOT / "docs/result.schema.json", json.dumps(result_schema(), indent=2) + "\n")
    sections = [
        "# Results",
        "Every table is printed by the command above it, from the stored results in "
        "`benchmarks/results/`; `make docs` renders this page.",
    ]
    for heading, (name, command) in PAGES.items():
        module = script(name)
        body = module.markdown_of(module.STORE) if module.STORE.exists() else "*Not stored.*"
        sections += [f"## {heading}", f"`{command}`", body]
    write(ROOT / "docs/results.md", "\n\n".join(sections) + "\n")
    summary = script("ttfs_mnist")
    if summary.STORE.exists():
        readme = (ROOT / "README.md").read_text()
        write(ROOT / "README.md", between(readme, "results", summary.summary_of(summary.STORE)))


if __name__ == "__main__":
    main()

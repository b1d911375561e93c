"""Write two of the examples as notebooks: examples/NAME.ipynb from examples/NAME.py.

    python scripts/notebooks.py

The text after `# %%` becomes a heading, what follows a cell. Outputs are not stored.
"""

from __future__ import annotations

import ast
import json
from pathlib import Path
from typing import Any

EXAMPLES = Path(__file__).parent.parent / "examples"
NOTEBOOKS = ("convert_cnn", "train_ttfs")


def notebook(source: str) -> dict[str, Any]:
    """The example as a notebook of format 4.5."""
    docstring = ast.get_docstring(ast.parse(source)) or ""
    title, _, rest = docstring.partition("\n")
    cells = [_cell("markdown", f"# {title.rstrip('.')}\n\n{rest.strip()}", 0)]
    for part in source.split("\n# %% ")[1:]:
        heading, _, code = part.partition("\n")
        cells.append(_cell("markdown", f"## {heading}", len(cells)))
        cells.append(_cell("code", code.strip(), len(cells)))
    kernel = {"display_name": "Python 3", "language": "python", "name": "python3"}
    return {"cells": cells, "metadata": {"kernelspec": kernel}, "nbformat": 4, "nbformat_minor": 5}


def _cell(kind: str, text: str, index: int) -> dict[str, Any]:
    made: dict[str, Any] = {"cell_type": kind, "id": f"cell-{index}", "metadata": {}}
    if kind == "code":
        made |= {"execution_count": None, "outputs": []}
    return made | {"source": text.splitlines(keepends=True)}


def main() -> None:
    for name in NOTEBOOKS:
        made = notebook((EXAMPLES / f"{name}.py").read_text())
        (EXAMPLES / f"{name}.ipynb").write_text(json.dumps(made, indent=1) + "\n")


if __name__ == "__main__":
    main()

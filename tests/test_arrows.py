"""What files import: no circles between files, and packages only what lies below them."""

from __future__ import annotations

import ast
import functools
from pathlib import Path

SOURCE = Path(__file__).parent.parent / "src" / "firstspike"


# from the bottom up: a package imports from those before it
ORDER = (
    *("config", "compiled", "networks", "neurons", "codes", "engines", "conversion", "training"),
    *("measure", "quantized", "chip", "exchange", "runs", "zoo", "plots", "viewer", "report"),
    "tuning",
    *("reproduce", "bench", "cli"),
)


def imported(path: Path) -> set[str]:
    """Modules of the package that a file imports, inside functions too, but not for types alone."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("firstspike"):
            found |= {f"{node.module}.{alias.name}" for alias in node.names} | {str(node.module)}
        elif isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
    return found


@functools.cache
def graph() -> dict[str, set[str]]:
    """Files as modules, with the files that they import."""
    files = {
        ".".join(("firstspike", *path.relative_to(SOURCE).with_suffix("").parts)): path
        for path in SOURCE.rglob("*.py")
        if path.stem not in ("__init__", "__main__")
    }
    return {name: imported(path) & files.keys() for name, path in files.items()}


def circles(arrows: dict[str, set[str]]) -> list[list[str]]:
    """Groups of files that reach each other."""
    reach: dict[str, set[str]] = {}

    def visit(start: str) -> set[str]:
        seen, todo = set(), [start]
        while todo:
            for below in arrows[todo.pop()] - seen:
                seen.add(below)
                todo.append(below)
        return seen

    reach = {name: visit(name) for name in arrows}
    groups = {
        tuple(sorted(other for other in seen if name in reach[other]))
        for name, seen in reach.items()
        if name in seen
    }
    return [list(group) for group in sorted(groups)]


def test_no_circles_between_files() -> None:
    assert circles({"a": {"b"}, "b": {"a"}, "c": {"a"}}) == [["a", "b"]]
    assert circles(graph()) == []


def test_packages_import_what_lies_below_them() -> None:
    for name, below in graph().items():
        for other in below:
            pair = name.split(".")[1], other.split(".")[1]
            if set(pair) <= set(ORDER):
                assert ORDER.index(pair[1]) <= ORDER.index(pair[0]), f"{name} imports {other}"

"""Hooks of mkdocs: pages that come from elsewhere, and what must hold before a site is built.

- `reference/`: one page per space of public names, filled by mkdocstrings from the docstrings, and
  one for the command line, from its own help.
- `examples/`: one page per file of examples/, whose docstring is the text above the code.
- `contributing.md`, `changelog.md`: the files of the same name.
- Links of pages to files outside docs/ lead to those pages, or to a copy of the file.
"""

from __future__ import annotations

import ast
import re
import sys
from pathlib import Path
from typing import Any

from mkdocs.exceptions import PluginError
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT / "src"), str(Path(__file__).parent)]

from reference import lacking, pages  # noqa: E402

TOP = {"contributing.md": "CONTRIBUTING.md", "changelog.md": "CHANGELOG.md"}
_OUTSIDE = re.compile(r"\]\((?:\.\./)+((?!reference/)[\w./-]+)(#[\w-]+)?\)")


def on_config(config: Any) -> Any:
    """Replace the folders of the navigation by the pages in them; the guide takes new pages."""
    folders = {
        "reference/": [f"reference/{p}.md" for p in ("index", *pages(), "command-line")],
        "examples/": [f"examples/{path.stem}.md" for path in _examples()],
    }
    guide = next(entry["Guide"] for entry in config.nav if "Guide" in entry)
    known = set(re.findall(r"[\w-]+\.md", str(config.nav)))
    guide += sorted({path.name for path in (ROOT / "docs").glob("*.md")} - known)
    config.nav = _filled(config.nav, folders)
    return config


def _filled(nav: list[Any], folders: dict[str, list[str]]) -> list[Any]:
    made: list[Any] = []
    for entry in nav:
        if isinstance(entry, dict):
            (title, inside), *_ = entry.items()
            if isinstance(inside, list):
                entry = {title: _filled(inside, folders)}
            elif inside in folders:
                entry = {title: folders[inside]}
        made.append(entry)
    return made


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that are made here."""
    made = {**_reference(), **{page: (ROOT / path).read_text() for page, path in TOP.items()}}
    made |= {f"examples/{path.stem}.md": _example(path) for path in _examples()}
    for name, text in made.items():
        files.append(File.generated(config, name, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: Any, files: Files) -> str:
    """Lead links out of docs/ to pages of the site."""
    depth = page.file.src_uri.count("/")
    up = "../" * depth

    def inside(match: re.Match[str]) -> str:
        path, anchor = match[1], match[2] or ""
        if (ROOT / "docs" / path).exists() and depth:
            return match[0]
        for made, source in TOP.items():
            if path == source:
                return f"]({up}{made}{anchor})"
        if path.startswith("examples/") and path.endswith(".py"):
            return f"]({up}{path[:-3]}.md{anchor})"
        if not (ROOT / path).is_file():
            raise PluginError(f"{page.file.src_uri} links to {path}, which is not there")
        copy = f"files/{path}"
        if files.get_file_from_path(copy) is None:
            content = (ROOT / path).read_bytes()
            files.append(File.generated(config, copy, content=content))
        return f"]({up}{copy}{anchor})"

    if page.file.src_uri in TOP:  # their links start at the root of the repository
        markdown = re.sub(r"\]\(docs/", "](", markdown)
        markdown = re.sub(r"\]\(((?:examples|benchmarks|scripts)/)", r"](../\1", markdown)
    return _OUTSIDE.sub(inside, markdown)


def _examples() -> list[Path]:
    return sorted((ROOT / "examples").glob("*.py"))


def _example(path: Path) -> str:
    source = path.read_text()
    title, _, rest = (ast.get_docstring(ast.parse(source)) or path.stem).partition("\n")
    code = source.split('"""', 2)[2].strip()
    text = f"# {title.rstrip('.')}\n\n{rest.strip()}\n\n`python examples/{path.name}`\n\n"
    return f"{text}```python\n{code}\n```\n"


def _reference() -> dict[str, str]:
    by_page = pages()
    owed = [
        f"{public.name} lacks {', '.join(missing)}"
        for names in by_page.values()
        for public in names
        if (missing := lacking(public))
    ]
    if owed:
        raise PluginError("docstrings owe their readers:\n  " + "\n  ".join(owed))
    made = {}
    index = [
        "# Reference",
        "Every public name, from its docstring. `import firstspike as fs`.",
    ]
    for page, names in by_page.items():
        title = "fs" if page == "firstspike" else f"fs.{page}"
        parts = [f"# `{title}`", _about(page)]
        rows = ["| name | |", "|---|---|"]
        for public in names:
            options = f"    options:\n      heading: {public.name}\n      toc_label: {public.name}"
            parts.append(f"::: {public.path}\n{options}")
            rows.append(f"| [`{public.name}`][{public.path}] | {public.summary} |")
        made[f"reference/{page}.md"] = "\n\n".join(parts)
        index += [f"## [`{title}`]({page}.md)", "\n".join(rows)]
    index += ["## [The command line](command-line.md)", "Every verb and option of `firstspike`."]
    made["reference/index.md"] = "\n\n".join(index)
    made["reference/command-line.md"] = _command_line()
    return made


def _about(page: str) -> str:
    import firstspike as fs

    module = fs if page == "firstspike" else getattr(fs, page)
    return (module.__doc__ or "").strip().split("\n\n")[0]


def _command_line() -> str:
    import typer

    from firstspike.cli.app import app

    parts = [
        "# The command line",
        "`firstspike VERB --help` says the same. `python -m firstspike` is the same program.",
    ]
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        parts += [f"## firstspike {name}", (command.help or "").replace("Example: ", "\n    ")]
        rows = ["| option | default | |", "|---|---|---|"]
        for option in command.params:
            names = ", ".join(f"`{n}`" for n in (*option.opts, *option.secondary_opts))
            if option.param_type_name == "argument":
                names = f"`{(option.metavar or option.name or '').upper()}`"
            default = "" if option.default in (None, False) else f"`{option.default}`"
            rows.append(f"| {names} | {default} | {getattr(option, 'help', '') or ''} |")
        parts.append("\n".join(rows))
    return "\n\n".join(parts)

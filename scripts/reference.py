"""What is public, where it stands in the reference, and what its docstring lacks.

`pages()` lists all public names by page; `lacking(name)` says which parts a docstring owes its
reader: a sentence, every parameter named, shapes of tensors, the errors it raises itself, and for
what comes from a paper the equation and its source. The site is not built while something is
lacking.
"""

from __future__ import annotations

import inspect
import re
import textwrap
from dataclasses import dataclass, is_dataclass
from typing import Any

import firstspike as fs

FROM_PAPERS = ("Code", "Kernel", "Method", "Normalization", "ThresholdRule", "Input")
_WIDE = ("codes", "engines", "methods", "training")  # spaces that repeat names of narrower ones
_SHAPE = re.compile(r"\((?:[A-Z]\w*|\.\.\.|\w+,|\d+,)[^()]*\)|scalar|shape|1-D|2-D")
_RAISES = re.compile(r"^\s*raise \w|\brequire(?:_integer|_some|_same_names)?\(", re.M)


@dataclass(frozen=True)
class Public:
    """A public name: `fs.kernels.Linear`, the object, and where its source is."""

    name: str
    value: Any
    path: str

    @property
    def summary(self) -> str:
        """The first sentence of the docstring."""
        text = inspect.getdoc(self.value) if _own(self.value) else None
        return re.split(r"(?<=[.:])\s|\n\n", text or "", maxsplit=1)[0].replace("\n", " ")


def pages() -> dict[str, list[Public]]:
    """Page -> its names; a name that stands in several spaces belongs to the first of them."""
    spaces = sorted(fs._SPACES, key=lambda name: (name in _WIDE, name))
    found: dict[str, list[Public]] = {"firstspike": []}
    seen: set[int] = set()
    for name in fs._PUBLIC:
        found["firstspike"].append(_public(f"fs.{name}", getattr(fs, name), "firstspike", name))
        seen.add(id(getattr(fs, name)))
    for space in spaces:
        module = getattr(fs, space)
        found[space] = []
        for name in sorted(module.__all__):
            value = getattr(module, name)
            if id(value) not in seen:
                seen.add(id(value))
                found[space].append(_public(f"fs.{space}.{name}", value, module.__name__, name))
    return found


def _public(name: str, value: Any, module: str, short: str) -> Public:
    if _own(value):
        return Public(name, value, f"{value.__module__}.{value.__qualname__}")
    return Public(name, value, f"{module}.{short}")


def _own(value: Any) -> bool:
    """Whether it is a class or function of ours; constants and type aliases are not."""
    return callable(value) and str(getattr(value, "__module__", "")).startswith("firstspike")


def lacking(public: Public) -> list[str]:
    """The parts that the docstring of a public name owes its reader; empty if none."""
    value = public.value
    if not _own(value):
        return []
    text = inspect.cleandoc(value.__doc__ or "")
    if not text or text.startswith(f"{value.__name__}("):  # what dataclass writes by itself
        return ["a docstring"]
    missing = []
    signature, source = _call(value)
    for parameter in signature:
        if not re.search(rf"\b{parameter}\b", text):
            missing.append(f"the parameter `{parameter}`")
    if _RAISES.search(source) and "Raises:" not in text and "Error`" not in text:
        missing.append("`Raises:`")
    tensors = not inspect.isclass(value) and "Tensor" in str(value.__annotations__)
    if tensors and not _SHAPE.search(text) and "# (" not in source:
        missing.append("shapes of tensors")
    if inspect.isclass(value) and _from_papers(value):
        if "Source:" not in text:
            missing.append("`Source:`")
        if not re.search(r"`[^`]*(=|\^|<|/|\*)[^`]*`|^    \w.* = ", text, re.M):
            missing.append("its equation")
    return missing


def _call(value: Any) -> tuple[list[str], str]:
    """Parameters of a call, and the source of what checks them."""
    source = textwrap.dedent(inspect.getsource(inspect.unwrap(value)))
    if not inspect.isclass(value):
        return _parameters(value), source
    maker = value.__dict__.get("__init__")
    if is_dataclass(value):
        maker = value.__init__
        check = value.__dict__.get("__post_init__")
        source = "" if check is None else inspect.getsource(check)
    elif maker is None:
        return [], ""
    else:
        source = inspect.getsource(maker)
    if issubclass(value, Exception) or getattr(value, "_is_protocol", False):
        return [], ""
    return _parameters(maker), source


def _parameters(function: Any) -> list[str]:
    kinds = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    return [
        name
        for name, p in inspect.signature(function).parameters.items()
        if p.kind not in kinds and name not in ("self", "cls") and not name.startswith("_")
    ]


def _from_papers(value: type) -> bool:
    names = [base.__name__ for base in value.__mro__[1:]]
    return any(name in FROM_PAPERS for name in names) and not inspect.isabstract(value)


def main() -> None:
    for page, names in pages().items():
        for public in names:
            if missing := lacking(public):
                print(f"{page}: {public.name} lacks {', '.join(missing)}")


if __name__ == "__main__":
    main()

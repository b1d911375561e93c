"""Names of configurations: what is registered under a kind, found, and called.

A *kind* of configuration ("code", "kernel", "normalization", "method", "model", "chip", ...) is
declared where its base class stands. What is registered under it has a name that recipes, files
and the command line know; `build` makes it, `describe` writes it.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, is_dataclass
from types import MappingProxyType
from typing import Any, TypeVar, get_args, get_type_hints, overload

T = TypeVar("T")


class UnknownName(ValueError):
    """Plain data or a text names a configuration that nobody has registered."""


@dataclass
class _Kind:
    name: str
    base: type | None = None
    known: dict[str, Any] = field(default_factory=dict)


_HOMES = {  # kind -> package whose import registers what the library itself has
    **dict.fromkeys(("code", "input", "kernel", "thresholds"), "firstspike.codes"),
    **dict.fromkeys(("kernel_optimization", "normalization"), "firstspike.conversion"),
    **dict.fromkeys(("averaging", "callback", "method"), "firstspike.training"),
    **dict.fromkeys(("optimizer", "schedule"), "firstspike.training"),
    "augmentation": "firstspike.data",
    "chip": "firstspike.chip.chip",
    "energy_table": "firstspike.measure.energy_tables",
    "model": "firstspike.models",
    "perturbation": "firstspike.engines.perturb",
    "surrogate": "firstspike.neurons.surrogates",
}
_KINDS: dict[str, _Kind] = {name: _Kind(name) for name in _HOMES}


# ---- registering ---------------------------------------------------------------------------------
def kind(name: str) -> Callable[[type[T]], type[T]]:
    """Declare a kind of configuration: a decorator of its base class.

    Parameters annotated with the base class take such a configuration, and messages use `name`.
    """

    def declare(base: type[T]) -> type[T]:
        _KINDS[name].base = base
        return base

    return declare


@overload
def register(thing: T, /, *, kind: str | None = None, name: str | None = None) -> T: ...
@overload
def register(*, kind: str | None = None, name: str | None = None) -> Callable[[T], T]: ...
def register(thing: Any = None, /, *, kind: str | None = None, name: str | None = None) -> Any:
    """Make a configuration known by name everywhere: in recipes, files, on the command line.

    Args:
        thing: a class (of a `Code`, `Kernel`, `Normalization`, `Method`, ...), or a finished
            configuration such as a `Chip`. Left out, this is a decorator.
        kind: by default that of the base class; functions and models must say it.
        name: by default the name of the class, or the `name` of what is finished.

    Returns:
        `thing`.

    Raises:
        TypeError: if `thing` is of no kind that the library knows.
        ValueError: if the name is taken by something else.

    >>> from dataclasses import dataclass
    >>> from firstspike.codes.kernels import Kernel, PowerOfTwo
    >>> from firstspike.config import build
    >>> @register
    ... @dataclass(frozen=True)
    ... class Halves(Kernel):
    ...     def build(self, window, distribution):
    ...         return PowerOfTwo().build(window, distribution)
    >>> build("code", "TTFS(8, kernel=Halves())").kernel
    Halves()
    >>> unregister(Halves)
    """
    if thing is None:
        return lambda decorated: register(decorated, kind=kind, name=name)
    cls = thing if isinstance(thing, type) else type(thing)
    home = _kind_of(cls) if kind is None else _KINDS.get(kind)
    if home is None:
        bases = ", ".join(k.base.__name__ for k in _KINDS.values() if k.base is not None)
        raise TypeError(
            f"`thing` must be of a kind that the library knows, got {thing!r}. Derive it from one "
            f"of {bases}, or pass `kind`, one of {', '.join(_KINDS)}."
        )
    chosen = name or str(getattr(thing, "__name__", None) or thing.name)
    taken = home.known.get(chosen)
    if taken is not None and _origin(taken) != _origin(thing):
        raise ValueError(
            f"`name` must be new among the {home.name}s, got {chosen!r}, which is {taken!r}. Pass "
            "another `name`, or rename the class."
        )
    home.known[chosen] = thing
    return thing


def unregister(thing: Any) -> None:
    """Take back what `register` did, for tests."""
    for home in _KINDS.values():
        for name in [name for name, other in home.known.items() if other is thing]:
            del home.known[name]


def _origin(thing: Any) -> Any:
    """The same for a class and for what a second run of the file that defines it makes of it."""
    where = getattr(thing, "__module__", None), getattr(thing, "__qualname__", None)
    return thing if where[1] is None else where


def _kind_of(cls: Any) -> _Kind | None:
    for parent in inspect.getmro(cls) if isinstance(cls, type) else ():
        for home in _KINDS.values():
            if home.base is parent:
                return home
    return None


def known(kind: str | type) -> Mapping[str, Any]:
    """What is registered under a kind: name -> class, function, or finished configuration.

    Packages that are installed and declare an entry point in the group `firstspike.plugins` are
    imported before the first look-up.
    """
    from firstspike.plugins import load_installed

    home = _home(kind)
    importlib.import_module(_HOMES[home.name])
    load_installed()
    return MappingProxyType(home.known)


def kind_name(kind: str | type) -> str:
    """The name of a kind, from itself or from its base class."""
    return _home(kind).name


def base_of(kind: str) -> type | None:
    """The base class of what is registered under a kind, if it has one."""
    return _home(kind).base


def _home(kind: str | type) -> _Kind:
    home = _kind_of(kind) if isinstance(kind, type) else _KINDS.get(kind)
    if home is None:
        raise ValueError(f"`kind` must be one of {', '.join(_KINDS)}, got {kind!r}.")
    return home


def find(kind: str, name: Any) -> Any:
    """What is registered as `name` under a kind."""
    table = known(kind)
    if not isinstance(name, str) or name not in table:
        raise UnknownName(
            f"`{kind}` must be one of {', '.join(table)}, got {name!r}. If it is defined in a file "
            "of yours, `register` it there and import the file first, or pass `--plugin FILE`."
        )
    return table[name]


def make(kind: str, name: str, *args: Any, **values: Any) -> Any:
    """The registered `name` called with these parameters; ValueError says which do not fit."""
    maker = find(kind, name)
    base = _KINDS[kind].base
    if base is not None and not isinstance(maker, type) and isinstance(maker, base):
        if args or values:
            raise ValueError(
                f"{name} takes no parameters, got {values or args}. Write the name alone."
            )
        return maker
    signature = inspect.signature(maker)
    try:
        signature.bind(*args, **values)
    except TypeError as error:
        given = ", ".join([*map(repr, args), *(f"{k}={v!r}" for k, v in values.items())])
        options = ", ".join(signature.parameters) or "none"
        raise ValueError(
            f"{name} cannot be made from ({given}): {error}. Its parameters: {options}."
        ) from error
    return maker(*args, **values)


def nested_kind(maker: Any, parameter: str) -> str | None:
    """The kind of configuration that a parameter takes, by its annotation; None: plain data."""
    if not callable(maker):
        return None
    plain_class = isinstance(maker, type) and not is_dataclass(maker)
    annotated = getattr(maker, "__init__") if plain_class else maker  # noqa: B009, for mypy
    hint = get_type_hints(annotated).get(parameter)
    for option in (hint, *get_args(hint)):
        home = _kind_of(option)
        if home is not None:
            return home.name
    return None

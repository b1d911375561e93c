"""What is defined outside the library: a file of one's own, or an installed package.

Importing is what registers. Files of networks only name what they need; loading one never imports
anything.
"""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from types import ModuleType

GROUP = "firstspike.plugins"


@cache
def load_installed() -> None:
    """Import what installed packages offer in the entry point group `firstspike.plugins`, once.

    Raises:
        ImportError: naming the package whose import fails.
    """
    for point in entry_points(group=GROUP):
        try:
            point.load()
        except Exception as error:
            package = "a package" if point.dist is None else point.dist.name
            raise ImportError(
                f"the plugin {point.value} of {package} cannot be imported "
                f"({type(error).__name__}: {error}). Mend or uninstall it."
            ) from error


def load_file(path: str | Path, argument: str = "--plugin") -> ModuleType:
    """Import a Python file that registers codes, kernels, operations, chips, ... of one's own.

    A file is imported once, however often it is named.

    Args:
        argument: what named the file, for messages.

    Raises:
        FileNotFoundError: if there is no such file.
        ImportError: if it cannot be imported; says where it fails.
    """
    file = Path(path).resolve()
    if not file.is_file() or file.suffix != ".py":
        raise FileNotFoundError(
            f"`{argument}` must be a Python file, there is none at {path}. Check the path."
        )
    name = f"firstspike_plugin_{hashlib.sha256(str(file).encode()).hexdigest()[:12]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[name]
        raise ImportError(
            f"{path} cannot be imported ({type(error).__name__}: {error}). "
            "Run the file with python to see where it fails."
        ) from error
    return module

"""Methods by name, so that recipes can choose one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from firstspike.training.dta import DTA
from firstspike.training.method import Method
from firstspike.training.quantizer_aware import QuantizerAware
from firstspike.training.sgl import SGL
from firstspike.training.surrogate import Surrogate

METHODS: dict[str, type[Method]] = {
    method.__name__: method for method in (Method, QuantizerAware, Surrogate, DTA, SGL)
}


def build_method(description: Mapping[str, Any]) -> Method:
    """The method of `{"name": ..., option: value, ...}`.

    Raises:
        ValueError: if the name is unknown or an option does not belong to the method.

    >>> build_method({"name": "QuantizerAware", "dropout": 0.3}).dropout
    0.3
    """
    options = dict(description)
    name = options.pop("name", None)
    if name not in METHODS:
        raise ValueError(f"`method` must be one of {', '.join(METHODS)}, got {name!r}.")
    try:
        return METHODS[name](**options)
    except TypeError as error:
        raise ValueError(f"{name} cannot be made from {options}: {error}.") from error

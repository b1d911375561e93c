"""Whether loops compiled by numba can run here."""

from __future__ import annotations

import warnings
from functools import lru_cache


@lru_cache(maxsize=1)
def has_numba() -> bool:
    """True where numba can be imported; where it cannot, says so once.

    Every compiled loop has torch operations with the same results beside it.
    """
    try:
        import numba  # noqa: F401
    except ImportError as error:
        warnings.warn(
            f"numba cannot be imported ({error}): torch operations run in place of compiled "
            "loops, with the same results but slower. Install it with `pip install numba`.",
            RuntimeWarning,
            stacklevel=2,
        )
        return False
    return True

"""Whether loops compiled by numba, and kernels in Triton, can run here."""

from __future__ import annotations

import os
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


TRITON_VARIABLE = "FIRSTSPIKE_TRITON"


@lru_cache(maxsize=1)
def has_triton() -> bool:
    """Whether kernels for GPUs are asked for, by `FIRSTSPIKE_TRITON=1`.

    Raises:
        ImportError: if they are, and Triton cannot be imported.
    """
    if os.environ.get(TRITON_VARIABLE, "0") in ("", "0"):
        return False
    try:
        import triton  # noqa: F401
    except ImportError as error:
        raise ImportError(
            f"{TRITON_VARIABLE}=1 asks for kernels in Triton, which cannot be imported ({error}). "
            "Install it with `pip install 'firstspike[triton]'`, or unset the variable."
        ) from error
    return True

"""Whether kernels in Triton take the work over from operations of torch."""

from __future__ import annotations

from torch import Tensor

from firstspike._tracing import is_plain
from firstspike.compiled.available import has_triton

KIND = "cuda"  # of device; in Triton's interpreter "cpu"


def on_gpu(*tensors: Tensor) -> bool:
    """Whether they are plain tensors on a GPU, and kernels for it are asked for."""
    return is_plain(*tensors, device=KIND) and has_triton()

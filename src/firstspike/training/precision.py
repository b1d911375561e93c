"""`precision: auto`: bfloat16 where the hardware multiplies it and a timed step confirms it."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from firstspike.data import Dataset
    from firstspike.training.config import TrainConfig

_IMAGES = 32  # of the timed steps on a CPU
_REPEATS = 3

ForwardLoss = Callable[[Tensor, Tensor, str], tuple[Tensor, Tensor]]


def multiplies_bfloat16(device: torch.device) -> bool:
    """Whether the hardware has instructions for products of bfloat16.

    On CPUs AVX-512-BF16, AMX or their like, on GPUs compute capability 8.0. Without them torch
    computes the same numbers several times slower than in float32.
    """
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return False


def choose_precision(
    forward_loss: ForwardLoss, model: nn.Module, train_set: Dataset, config: TrainConfig
) -> tuple[str, str]:
    """ "bfloat16" or "float32", whichever is faster here, and a line that says why.

    The steps that are timed leave weights, buffers and random numbers as they were.

    Args:
        forward_loss: loss and logits of images and labels in a precision.
        model: on its device.
        train_set: gives the images, on the same device.
        config: gives the size of a batch.
    """
    device = train_set.device
    if not multiplies_bfloat16(device):
        kind = device.type.upper()
        return "float32", f"precision auto: float32, for this {kind} does not multiply bfloat16"
    count = min(len(train_set), config.batch_size if device.type == "cuda" else _IMAGES)
    images, labels = next(train_set.batches(count, shuffle=False))
    seconds = {
        precision: _time_step(forward_loss, model, images, labels, precision)
        for precision in ("float32", "bfloat16")
    }
    chosen = min(seconds, key=seconds.__getitem__)
    times = ", ".join(f"{time:.3g} s in {precision}" for precision, time in seconds.items())
    return chosen, f"precision auto: {chosen}, for a step of {count} images takes {times}"


def _time_step(
    forward_loss: ForwardLoss, model: nn.Module, images: Tensor, labels: Tensor, precision: str
) -> float:
    """Best time of a forward and a backward pass, seconds; nothing of the model changes."""
    kept = {name: buffer.clone() for name, buffer in model.named_buffers()}
    trained = [p for p in model.parameters() if p.requires_grad]
    best = float("inf")
    cuda = [images.device] if images.device.type == "cuda" else []
    with torch.random.fork_rng(devices=cuda):
        for _ in range(_REPEATS):
            _wait(images.device)
            start = time.perf_counter()
            loss, _ = forward_loss(images, labels, precision)
            torch.autograd.grad(loss, trained, allow_unused=True)
            _wait(images.device)
            best = min(best, time.perf_counter() - start)
    with torch.no_grad():
        for name, buffer in model.named_buffers():
            buffer.copy_(kept[name])
    return best


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)

"""A trainer's state as tensors and plain values, and back."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors with `prefix.` before each name."""
    return {f"{prefix}.{name}": tensor for name, tensor in tensors.items()}


def unprefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors whose name begins with `prefix.`, under the rest of their names."""
    start = f"{prefix}."
    return {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """Per-parameter state as `{"<parameter number>.<key>": tensor}`; learning rates are not state.

    Raises:
        TypeError: if the optimizer keeps something a file of tensors cannot hold.
    """
    tensors = {}
    for number, values in optimizer.state_dict()["state"].items():
        for key, value in values.items():
            if value is None:
                continue
            if not isinstance(value, Tensor):
                raise TypeError(
                    f"the optimizer's state {key!r} must be a tensor, got {type(value).__name__}. "
                    "Use one of firstspike.training's optimizers."
                )
            tensors[f"{number}.{key}"] = value
    return tensors


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, Tensor]) -> None:
    """Restore what `optimizer_tensors` gave, in the memory order of the parameters.

    Fused steps read parameters and their state side by side as they lie in memory.
    """
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        number, key = name.split(".", 1)
        like = parameters[int(number)]
        if tensor.shape == like.shape:
            tensor = torch.empty_like(like, dtype=tensor.dtype).copy_(tensor)
        state.setdefault(int(number), {})[key] = tensor
    optimizer.load_state_dict({**optimizer.state_dict(), "state": state})


def random_state(device: torch.device) -> dict[str, Tensor]:
    """State of torch's own generators, on the CPU and on `device`."""
    state = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        state["cuda"] = torch.cuda.get_rng_state(device)
    return state


def load_random_state(state: Mapping[str, Tensor], device: torch.device) -> None:
    """Restore what `random_state` gave; another kind of device keeps its fresh seed."""
    torch.set_rng_state(state["cpu"])
    if device.type == "cuda" and "cuda" in state:
        torch.cuda.set_rng_state(state["cuda"], device)


class Tally:
    """Sums over an epoch's batches, kept on the device so that no step waits for them."""

    def __init__(self, device: torch.device) -> None:
        real = torch.float32 if device.type == "mps" else torch.float64
        self.loss = torch.zeros((), dtype=real, device=device)
        self.correct = torch.zeros((), dtype=torch.int64, device=device)
        self.first_bad = torch.full((), -1, dtype=torch.int64, device=device)
        self.samples = 0

    def add(self, loss: Tensor, correct: Tensor, samples: int, step: int) -> None:
        """Count a batch: its mean loss, its correct images and its size; `step` from 1."""
        self.loss += loss * samples
        self.correct += correct
        newly_bad = ~torch.isfinite(loss) & (self.first_bad < 0)
        self.first_bad.masked_fill_(newly_bad, step)
        self.samples += samples

    def tensors(self) -> dict[str, Tensor]:
        """The sums, by name."""
        return {"loss": self.loss, "correct": self.correct, "first_bad": self.first_bad}

    def load(self, tensors: Iterable[tuple[str, Tensor]], samples: int) -> None:
        """Restore the sums."""
        for name, tensor in tensors:
            getattr(self, name).copy_(tensor)
        self.samples = samples

    def means(self) -> tuple[float, float]:
        """Mean loss and accuracy so far."""
        return self.loss.item() / self.samples, self.correct.item() / self.samples

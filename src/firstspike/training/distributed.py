"""Data-parallel training on torch's process groups: every process takes its share of each batch.

Start the same command under torchrun, on one machine or many:

    torchrun --nproc_per_node 2 --no-python firstspike train --recipe RECIPE --out FOLDER

With S processes, process r has the samples r, r + S, ... of every batch and weighs its loss by its
share of the batch; gradients are summed. So a step is that of one process on the whole batch, but
for batch norm, whose statistics are of the share unless `synchronize_batch_norm` is set.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from firstspike.engines.evaluation import score

if TYPE_CHECKING:
    from firstspike.data import Dataset

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """The processes of a training: this one's number and how many there are."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this process writes files and speaks."""
        return self.rank == 0

    def share(self, batch: Tensor) -> Tensor:
        """This process's samples of a batch."""
        return batch if self.size == 1 else batch[self.rank :: self.size]

    def sum_(self, tensors: Sequence[Tensor]) -> None:
        """Replace tensors by their sums over all processes, in one message for each type."""
        if self.size == 1:
            return
        for dtype in dict.fromkeys(tensor.dtype for tensor in tensors):
            same = [tensor for tensor in tensors if tensor.dtype == dtype]
            flat = torch.cat([tensor.reshape(-1) for tensor in same])
            with explained(self):
                dist.all_reduce(flat)
            for tensor, part in zip(same, flat.split([tensor.numel() for tensor in same])):
                tensor.copy_(part.view_as(tensor))

    def gather(self, tensor: Tensor) -> list[Tensor]:
        """The tensors of all processes, on all of them; they have one shape."""
        found = [torch.empty_like(tensor) for _ in range(self.size)]
        if self.size == 1:
            return [tensor]
        with explained(self):
            dist.all_gather(found, tensor.contiguous())
        return found

    def from_first(self, make: Callable[[], T]) -> T:
        """What `make` returns in the first process; what it raises there is raised in all."""
        if self.size == 1:
            return make()
        box: list[Any] = [None, None]
        if self.first:
            try:
                box[0] = make()
            except Exception as error:
                box[1] = error
        with explained(self):
            dist.broadcast_object_list(box)
        if box[1] is not None:
            raise box[1]
        return box[0]


ALONE = World()


def check_batches(samples: int, batch_size: int, drop_last: bool, world: World) -> None:
    """Refuse batches with fewer images than processes."""
    rest = samples % batch_size
    smallest = batch_size if drop_last or rest == 0 else rest
    if smallest < world.size:
        raise ValueError(
            f"`batch_size` must leave every batch an image for each of the {world.size} processes, "
            f"got {batch_size}, where the smallest batch has {smallest}. Pass another, or "
            "drop_last=True."
        )


@contextlib.contextmanager
def process_group(device: torch.device) -> Iterator[World]:
    """The world of this process; joins the group that torchrun describes in the environment.

    Gloo carries tensors on CPUs, NCCL those on GPUs. A group that the caller has joined is used as
    it is.
    """
    joins = not dist.is_initialized() and int(os.environ.get("WORLD_SIZE", "1")) > 1
    if joins:
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield current_world()
    finally:
        if joins:
            dist.destroy_process_group()


def is_first_process() -> bool:
    """Whether this process speaks and writes: the only one, or the first that torchrun started."""
    return os.environ.get("RANK", "0") == "0"


def current_world() -> World:
    """The world of the group this process has joined, or of itself alone."""
    if dist.is_available() and dist.is_initialized():
        return World(dist.get_rank(), dist.get_world_size())
    return ALONE


@contextlib.contextmanager
def explained(world: World) -> Iterator[None]:
    """Say what a failed message between processes means."""
    try:
        yield
    except RuntimeError as error:
        raise RuntimeError(
            f"process {world.rank} of {world.size} lost another one while training: "
            f"{str(error).splitlines()[0]}. The last checkpoint is whole; start the same command "
            "again to continue from it."
        ) from error


@torch.no_grad()
def agree_on_buffers(model: nn.Module, world: World) -> None:
    """Give all processes the same buffers: the mean of running statistics, else the largest."""
    if world.size == 1:
        return
    buffers = dict(model.named_buffers())
    running = [b for name, b in buffers.items() if "running_" in name]
    world.sum_(running)
    for buffer in running:
        buffer /= world.size
    for name, buffer in buffers.items():
        if "running_" not in name and buffer.is_floating_point():
            with explained(world):
                dist.all_reduce(buffer, dist.ReduceOp.MAX)


def shared_score(
    model: nn.Module, dataset: Dataset, batch_size: int, world: World
) -> tuple[float, float]:
    """`score` on the whole set, each process on its share; the count is that of one process."""
    if world.size == 1:
        return score(model, dataset, batch_size)
    sums = torch.zeros(2, dtype=torch.float64, device=dataset.device)
    if world.rank < len(dataset):
        own = dataset.subset(torch.arange(world.rank, len(dataset), world.size))
        accuracy, loss = score(model, own, batch_size)
        sums += torch.tensor([round(accuracy * len(own)), loss * len(own)]).to(sums)
    world.sum_([sums])
    correct, loss = sums.tolist()
    return correct / len(dataset), loss / len(dataset)


class synchronized_batch_norm(TorchFunctionMode):
    """Context in which batch norm in training takes its statistics from all processes.

    Mean and variance are those of the whole batch, and so are the gradients through them.

    Args:
        world: of this process.
    """

    def __init__(self, world: World) -> None:
        super().__init__()
        self.world = world

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        if func is nn.functional.batch_norm and self.world.size > 1:
            return _batch_norm(*args, **(kwargs or {}))
        return func(*args, **(kwargs or {}))


def _batch_norm(
    x: Tensor,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    training: bool = False,
    momentum: float = 0.1,
    eps: float = 1e-5,
) -> Tensor:
    if not training:
        return torch.batch_norm(
            *(x, weight, bias, running_mean, running_var, False, momentum, eps, False)
        )
    axes = [axis for axis in range(x.ndim) if axis != 1]
    shape = (1, -1, *[1] * (x.ndim - 2))
    count = torch.full_like(x[0, :1].flatten()[:1], x.numel() / x.shape[1])
    count, total = _Sum.apply(torch.cat((count, x.sum(axes)))).tensor_split([1])
    mean = total / count
    centred = x - mean.view(shape)
    variance = _Sum.apply(centred.square().sum(axes)) / count
    if running_mean is not None and running_var is not None:
        with torch.no_grad():
            running_mean.lerp_(mean, momentum)
            running_var.lerp_(variance * count / (count - 1), momentum)
    y = centred * (variance + eps).rsqrt().view(shape)
    y = y if weight is None else y * weight.view(shape)
    return y if bias is None else y + bias.view(shape)


class _Sum(torch.autograd.Function):
    """Sum over all processes; the gradient of all is the sum of the gradients of each."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        x = x.clone()
        with explained(current_world()):
            dist.all_reduce(x)
        return x

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:
        gradient = gradient.clone()
        with explained(current_world()):
            dist.all_reduce(gradient)
        return gradient

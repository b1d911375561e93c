"""Disturbances of inputs, spikes and weights: to train robust networks, to measure robustness."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from firstspike.config import is_number, kind, register, require, require_integer
from firstspike.engines import closed_form
from firstspike.engines.engine import ENGINES
from firstspike.engines.evaluation import evaluation_mode
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.networks import INPUT
from firstspike.neurons.neuron import Neuron

if TYPE_CHECKING:
    from firstspike.data import Dataset


@register
@kind("perturbation")
@dataclass(frozen=True)
class Perturbation:
    """What goes wrong between one neuron and the next; nothing by default.

    Args:
        jitter: standard deviation of what is added to every spike time, in steps (in windows for
            codes in continuous time). Times are rounded to whole steps and kept in the window.
        deletion: probability with which a spike is lost.
        weight_noise: standard deviation of what is added to every weight, relative to the root mean
            square of its tensor.
        bits: weights are rounded to so many bits, symmetric around zero, one range per tensor.
        input_noise: standard deviation of what is added to every input value, in units of the
            input population's scale; black backgrounds are disturbed as well.

    Raises:
        ValueError: if a strength is negative, infinite or out of range.

    >>> Perturbation(deletion=0.1).label
    'deletion=0.1'
    """

    jitter: float = 0.0
    deletion: float = 0.0
    weight_noise: float = 0.0
    bits: int | None = None
    input_noise: float = 0.0

    def __post_init__(self) -> None:
        for name in ("jitter", "weight_noise", "input_noise"):
            value = getattr(self, name)
            fits = is_number(value) and value >= 0
            require(fits, name, "be finite and at least 0", value, "0 disturbs nothing.")
        fits = is_number(self.deletion) and 0 <= self.deletion <= 1
        require(fits, "deletion", "lie in [0, 1]", self.deletion, "It is a share.")
        if self.bits is not None:
            require_integer("bits", self.bits, 2, "4 to 8 are usual; None rounds nothing.")
            require(self.bits <= 32, "bits", "be at most 32", self.bits, "None rounds nothing.")

    @property
    def label(self) -> str:
        """What is disturbed and how much."""
        plain = Perturbation()
        changed = {n: v for n, v in vars(self).items() if v != getattr(plain, n)}
        return ", ".join(f"{n}={v}" for n, v in changed.items()) or "none"

    def images(self, network: SpikingNetwork, x: Tensor) -> Tensor:
        """Images as the network sees them once they are disturbed."""
        if not self.input_noise:
            return x
        size = network.neuron(INPUT).scale.to(x)
        return torch.addcmul(x, torch.randn_like(x), self.input_noise * size)

    def spikes(self, neuron: Neuron, u: Any) -> Tensor:
        """What the population says for potentials `u` once its spikes are disturbed.

        Lost and moved spikes change the value; the gradient is that of the undisturbed neuron, and
        zero for lost spikes.
        """
        value = neuron.activate(u)
        if self.jitter:
            moved = neuron.decode(self._jittered(neuron, neuron.encode(u))).detach()
            value = value + (moved - value).detach()
        if self.deletion:
            value = value * (torch.rand_like(value) >= self.deletion)
        return value

    def _jittered(self, neuron: Neuron, times: Tensor) -> Tensor:
        steps = neuron.window
        moved = times + self.jitter * torch.randn_like(times)
        if steps is None:  # continuous time, in windows
            moved = moved.clamp(0.0, 1.0 - 1e-6)
        else:
            moved = moved.round().clamp(0, steps - 1)
        return torch.where(times.isfinite(), moved, times)

    def weight_changes(self, model: nn.Module) -> dict[nn.Parameter, Tensor]:
        """What is added to every weight tensor (parameters of two dimensions or more)."""
        changes = {}
        for p in model.parameters():
            if p.ndim < 2 or not (self.weight_noise or self.bits):
                continue
            changed = p.detach()
            if self.bits is not None:
                step = changed.abs().max().clamp(min=1e-12) / (2 ** (self.bits - 1) - 1)
                changed = (changed / step).round() * step
            if self.weight_noise:
                size = changed.square().mean().sqrt()
                changed = changed + self.weight_noise * size * torch.randn_like(changed)
            changes[p] = changed - p.detach()
        return changes


@contextlib.contextmanager
def disturbed_weights(model: nn.Module, perturbation: Perturbation) -> Iterator[None]:
    """The model with disturbed weights; they are put back bit for bit."""
    changes = perturbation.weight_changes(model)
    kept = {p: p.detach().clone() for p in changes}
    try:
        with torch.no_grad():
            for p, change in changes.items():
                p.add_(change)
        yield
    finally:
        with torch.no_grad():
            for p, value in kept.items():
                p.copy_(value)


@torch.no_grad()
def perturbed_accuracy(
    network: SpikingNetwork,
    dataset: Dataset,
    perturbation: Perturbation,
    *,
    seed: int = 0,
    batch_size: int = 500,
) -> float:
    """Accuracy of `network` while `perturbation` acts on every spike and weight.

    Args:
        seed: of the disturbances; torch's own random state is left as it was.
        dataset: images with labels.
        batch_size: images at a time.

    Raises:
        ValueError: if the network's code has no closed form.
    """
    reason = ENGINES["closed_form"].reason_against(network)
    if reason is not None:
        raise ValueError(
            f"`network` must have a code with a closed form, got {network.code}: {reason}. "
            "Disturbances act on the spikes of one pass."
        )
    correct = 0
    with (
        torch.random.fork_rng(devices=[]),
        evaluation_mode(network),
    ):
        torch.manual_seed(seed)
        with disturbed_weights(network, perturbation):
            for images, labels in dataset.batches(batch_size, shuffle=False):
                logits = closed_form.logits(
                    network,
                    perturbation.images(network, images.to(network.input_low)),
                    lambda name, u: _say(network, perturbation, name, u),
                    pool_first=False,
                )
                correct += int((logits.argmax(1).to(labels.device) == labels).sum())
    return correct / len(dataset)


def _say(network: SpikingNetwork, perturbation: Perturbation, name: str, u: Any) -> Tensor:
    neuron = network.neuron(name)
    return (
        u.value if neuron.analog and not isinstance(u, Tensor) else perturbation.spikes(neuron, u)
    )


def robustness_curve(
    network: SpikingNetwork,
    dataset: Dataset,
    name: str,
    values: Sequence[float | int],
    *,
    seeds: Sequence[int] = (0, 1, 2),
) -> list[dict[str, float]]:
    """Accuracy against the strength of one disturbance.

    Args:
        name: "jitter", "deletion", "weight_noise", "bits" or "input_noise".
        values: strengths.
        seeds: of the disturbances.
        network: of a code with a closed form.
        dataset: images with labels.

    Returns:
        One line per strength: `value`, `mean`, `lowest` and `highest` accuracy over the seeds.

    Raises:
        ValueError: if there is no such disturbance.
    """
    names = tuple(vars(Perturbation()))
    if name not in names:
        raise ValueError(f"`name` must be one of {', '.join(names)}, got {name!r}.")
    lines = []
    for value in values:
        perturbation = replace(Perturbation(), **{name: value})  # type: ignore[arg-type]
        found = [perturbed_accuracy(network, dataset, perturbation, seed=s) for s in seeds]
        lines.append(
            {
                "value": value,
                "mean": sum(found) / len(found),
                "lowest": min(found),
                "highest": max(found),
            }
        )
    return lines

"""Spikes as input: a network whose input population spikes as it is told."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from firstspike.codes.relpsp import Moments
from firstspike.networks.network import INPUT
from firstspike.neurons.neuron import Neuron, State

if TYPE_CHECKING:
    from firstspike.engines.spiking_network import SpikingNetwork

_ULPS = 16  # inputs lie so far above the threshold that their spike stands for


class Listening:
    """Turns spikes into what a network runs on.

    Under codes that say a value at every step (`Rate`, `FewStep`, `LIF`, ...) the spikes given at
    step t are what the input population delivers at t, one each in the units of the model's input;
    the model's input that they stand for is their mean over the steps. Under single-spike codes the
    spike at time t of the window stands for the value the code decodes it to.

    Attributes:
        network: to be run; on the clock engine where spikes are trains.

    Raises:
        ValueError: if the code has neither spike times nor a value at every step.
    """

    def __init__(self, network: SpikingNetwork) -> None:
        self.network, self.told = network, None
        code, window = network.code, network.window_of(INPUT)
        if code.single_spike:
            if network.neuron(INPUT).analog:
                raise ValueError(
                    f"`spikes` must go with an input population that spikes, got {code}, whose "
                    "input is direct. Convert with input=Regular()."
                )
            return
        if any(code.bias_injections(step) != 1.0 for step in window):
            raise ValueError(
                f"`spikes` must go with a code that has spike times or repeats its values at every "
                f"step, got {code}. Convert with Rate, FewStep, LIF or TTFS."
            )
        self.told = ToldNeuron(network.neuron(INPUT).scale, network.input_low)
        self.network = copy.copy(network)
        self.network.__dict__ = {**network.__dict__, "_modules": dict(network._modules)}
        self.network.neurons = nn.ModuleDict({**dict(network.neurons.items()), INPUT: self.told})

    def take(self, spikes: Tensor) -> Tensor:
        """The inputs (N, ...) that `spikes` stand for; the next run of the network hears them.

        Args:
            spikes: trains (T, N, ...) of T steps, how many spikes at each; or, under single-spike
                codes, spike times (N, ...) in steps of the input's window, `inf` = none. Of trains
                these take the first spike.
        """
        shape, steps = self.network.network.input_shape, len(self.network.window_of(INPUT))
        trains = spikes.ndim == len(shape) + 2
        if spikes.shape[1 + trains :] != shape or (self.told is not None and not trains):
            kinds = f"({steps}, N, {', '.join(map(str, shape))})"
            kinds += "" if self.told is not None else f" or times {kinds.replace(f'{steps}, ', '')}"
            raise ValueError(
                f"`spikes` must be trains {kinds} for this network, got {tuple(spikes.shape)}. Put "
                "events into so many steps, e.g. by `firstspike.data.Events.train`."
            )
        if trains and len(spikes) != steps:
            raise ValueError(
                f"`spikes` must have the {steps} steps of the input's window, got {len(spikes)}. "
                "Put events into so many steps, or convert with a code of so many."
            )
        spikes = spikes.to(self.network.input_low)
        if trains and not bool(((spikes >= 0) & torch.isfinite(spikes)).all()):
            raise ValueError(
                "`spikes` must be numbers of spikes, 0 or more, got others."
                " Count the spikes of each step first."
            )
        if self.told is None:
            return self._standing_for(first_spikes(spikes) if trains else spikes)
        self.told.train_of = spikes
        return spikes.mean(0)

    def _standing_for(self, times: Tensor) -> Tensor:
        neuron, low = self.network.neuron(INPUT), self.network.input_low
        value = neuron.decode(times)
        nudge = _ULPS * torch.finfo(value.dtype).eps * (value.abs() + low.abs())
        x = torch.where(times < float("inf"), value + low + nudge, low)
        potential: Any = x - low if self.network.code.rank == 1 else Moments(x - low, None, 0)
        heard = neuron.encode(potential)
        same = heard.isclose(times) if neuron.continuous else heard == times
        if not bool(same.all()):
            wrong = times[~same][0]
            last = len(self.network.window_of(INPUT)) - 1
            raise ValueError(
                "`spikes` must be times the input population can fire at, whole steps 0 ... "
                f"{last} or inf for none, got {float(wrong):g}."
            )
        return x


class ToldNeuron(Neuron):
    """An input population that delivers the trains it is given."""

    def __init__(self, scale: Tensor, low: Tensor) -> None:
        super().__init__(scale)
        self.low = low
        self.train_of: Tensor | None = None  # (T, N, ...)

    def start(self, bias: Tensor) -> State:
        count = torch.zeros_like(bias, dtype=torch.float32)
        return {"count": count, "row": torch.arange(len(bias), device=bias.device)}

    def step(
        self, state: State, current: Tensor | None, t: int | None
    ) -> tuple[State, Tensor | None]:
        if t is None:
            return state, None
        assert self.train_of is not None
        spikes = self.train_of[t, state["row"]]
        state["count"] += spikes
        return state, spikes - self.low

    def spikes(self, state: State) -> Tensor:
        return state["count"]


def first_spikes(trains: Tensor) -> Tensor:
    """Times of the first spikes (N, ...) of trains (T, N, ...), `inf` where there is none.

    >>> first_spikes(torch.tensor([[[0.0, 1.0, 0.0]], [[2.0, 1.0, 0.0]]]))
    tensor([[1., 0., inf]])
    """
    fired = trains > 0
    first = fired.to(torch.uint8).argmax(0).to(trains.dtype)
    return torch.where(fired.any(0), first, float("inf"))

"""`SpikingNetwork`: a traced network whose populations speak a neural code."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from firstspike._reading import reading
from firstspike._tensors import check_finite, load_into, load_tensors, save_tensors
from firstspike._tracing import TRACE, VMAP, require_plain, transformation
from firstspike.codes import Code, Neuron
from firstspike.config import build
from firstspike.engines.engine import (
    ENGINES,
    default_engine,
    differentiable_engine,
    reason_against_training,
    without_gradient,
)
from firstspike.engines.finite import check_pixels, nan_unless_finite
from firstspike.networks.network import INPUT, Network
from firstspike.networks.rebuild import rebuild

_FORMAT = 1
_LONGEST_WINDOW = 1 << 17  # steps; every population has a table of them
_MOST_STEPS = 1 << 24  # up to here float32 counts every step
_ADVICE = (
    "It was damaged or edited, or is no file that `network.save(path)` wrote: restore a copy or "
    "convert the model again with `convert`."
)


class SpikingNetwork(nn.Module):
    """Weight operations of the ANN, neurons of a code.

    Calling it returns logits (N, classes), or whatever the model returns, in ANN units from the
    quickest exact engine that can run it (`default_engine`), with gradients to its parameters where
    one of the engines has them. It reads the weights as they are; `prepare` makes an object for
    many calls with the same weights.

    Args:
        network: the traced ANN.
        code: what spikes mean.
        neurons: one per hidden population, and one for the input under the name "input".
        input_low: smallest input value, (1, ...) or (C, 1, ...): the input population encodes
            `x - input_low >= 0`.

    Attributes:
        network, code, neurons: as given.
        origin: plain data on how the network came about (method, calibration), saved with it.
    """

    input_low: Tensor

    def __init__(
        self,
        network: Network,
        code: Code,
        neurons: Mapping[str, Neuron],
        input_low: Tensor,
        origin: dict[str, Any] | None = None,
    ) -> None:
        super().__init__()
        for name, neuron in neurons.items():
            _check_broadcasts(f"scale of {name!r}", neuron.scale, network.node[name].shape)
        _check_broadcasts("`input_low`", input_low, network.input_shape)
        self.network = network
        self.code = code
        self.neurons = nn.ModuleDict(dict(neurons))
        self._hold()
        self.register_buffer("input_low", input_low.detach().clone())
        self.origin = dict(origin or {})

    def _hold(self) -> None:
        """No population says more than the ANN's activation there would."""
        for name in self.network.populations:
            clip = self.network.op(name).hyper["clip"]
            if clip is not None and name in self.neurons:
                self.neuron(name).hold(clip)

    # ---- structure ------------------------------------------------------------------------------
    @property
    def populations(self) -> tuple[str, ...]:
        """The input and the hidden populations, in order of execution."""
        return (INPUT, *self.network.populations)

    @property
    def depth(self) -> int:
        """Hidden populations on the longest path."""
        return max(self.network.depth.values())

    @property
    def notes(self) -> tuple[str, ...]:
        """What tracing left out or changed, and what the code does to this network, for people."""
        return (*self.network.notes, *self.code.notes(self.network.max_pools()))

    @property
    def latency(self) -> int:
        """Steps after which the readout is final: D * offset + T for single-spike codes.

        An input window T_0 of its own adds T_0 - T.
        """
        return self.code.latency(self.depth)

    def window_of(self, population: str) -> range:
        """Global steps in which the population may fire."""
        return self.code.window_of(self.network.depth[population])

    def neuron(self, population: str) -> Neuron:
        """The population's neuron: its scale, kernel and dynamics."""
        return self.neurons[population]  # type: ignore[return-value]

    def reason_against_tables(self) -> str | None:
        """Why its neurons are not looked up in threshold tables; None if all are."""
        for name in self.populations:
            neuron = self.neuron(name)
            if neuron.table() is None:
                return f"{type(neuron).__name__} of population {name!r} has no threshold table"
        return None

    def neuron_count(self, population: str) -> int:
        return int(torch.Size(self.network.node[population].shape).numel())

    # ---- running --------------------------------------------------------------------------------
    def shifted(self, x: Tensor, *, one_pass: bool = False) -> Tensor:
        """The input as the network takes it: `x - input_low`.

        Args:
            one_pass: whether what follows does not depend on values, so that it may be traced.
        """
        found = require_plain(x, (TRACE, VMAP) if one_pass else ())
        self.network.check_input(x)
        low = self.input_low
        if x.dtype != low.dtype:
            raise TypeError(
                f"`x` must have the network's dtype {low.dtype}, got {x.dtype}. Convert "
                f"the images with `x.to({low.dtype})`, or the network likewise."
            )
        if x.device != low.device:
            raise ValueError(
                f"`x` must be on the network's device {low.device}, got {x.device}. Move"
                f" the images with `x.to({str(low.device)!r})`, or the network likewise."
            )
        if found is None and x.is_cpu and not torch.compiler.is_compiling():
            check_pixels(x)  # elsewhere see `readout`
        return x - low

    def analog(self, x: Tensor) -> Any:
        """Outputs of the ANN that this network came from, as the model returns them."""
        return self.network.arranged(self.analog_readout(x))

    def analog_readout(self, x: Tensor) -> Tensor:
        """Outputs of the ANN in one row per sample, (N, total)."""

        def rectify(name: str, u: Tensor) -> Tensor:
            u = self.neuron(name).in_units_of_values(u)
            return u if name == INPUT else self.network.op(name)(u)

        said: Tensor = self.network.evaluate(self.shifted(x, one_pass=True), rectify)
        return nan_unless_finite(said, x)

    def forward(self, x: Tensor) -> Any:
        return self.network.arranged(self.readout(x))

    def readout(self, x: Tensor) -> Tensor:
        """All outputs of the model in one row per sample, (N, total).

        On the CPU pixels that are not finite are refused. A GPU would have to be waited for to know
        of them, so there the outputs of such an image are NaN.
        """
        return nan_unless_finite(self._readout(x), x)

    def _readout(self, x: Tensor) -> Tensor:
        recorded = torch.is_grad_enabled()
        if recorded and torch.jit.is_tracing():  # graphs are for inference
            with torch.no_grad():
                return self._readout(x)
        recorded &= x.requires_grad or any(p.requires_grad for p in self.parameters())
        if transformation(x) is not None:
            self._check_traceable(x, recorded)
        if not recorded:
            with torch.autocast(self.input_low.device.type, enabled=False):
                return ENGINES[default_engine(self)].logits(self, x)
        engine = differentiable_engine(self)
        if engine is not None:
            return engine.logits(self, x)
        with torch.autocast(self.input_low.device.type, enabled=False):
            said = ENGINES[default_engine(self)].logits(self, x)
        return without_gradient(said, reason_against_training(self))

    def _check_traceable(self, x: Tensor, recorded: bool) -> None:
        """One pass over tables is the same whatever the values; all other engines look at them."""
        one_pass = self.code.rank == 1 and ENGINES["closed_form"].reason_against(self) is None
        require_plain(x, (TRACE, VMAP) if one_pass and not recorded else ())

    def with_offset(self, offset: int | None) -> SpikingNetwork:
        """A copy with another offset between windows (early firing); parameters are copied."""
        if "offset" not in {field.name for field in fields(self.code)}:
            raise ValueError(
                f"`network` must have a code with an offset between windows, got {self.code}: "
                f"{self.code.name} has no windows that could be shifted. Convert with "
                "TTFS(window, offset=...)."
            )
        twin = copy.deepcopy(self)
        twin.code = replace(self.code, offset=offset)  # type: ignore[call-arg]
        return twin

    def with_steps(self, steps: int | None) -> SpikingNetwork:
        """A copy with another number of steps; parameters are copied.

        Codes that repeat their values run for so many steps in all. `ReLPSP` neurons fire on a
        grid of `steps` per window, None being continuous time: so a network trained there runs
        step by step.

        Raises:
            ValueError: if the code's steps are part of what was calibrated.
        """
        if not self.code.free_steps:
            raise ValueError(
                f"`network` must have a code whose steps can change (Rate, Phase, Burst, ReLPSP), "
                f"got {self.code}. Convert the model again with other steps."
            )
        twin = copy.deepcopy(self)
        code = twin.code = replace(self.code, steps=steps)  # type: ignore[call-arg]
        for name in self.populations:
            make = code.input_neuron if name == INPUT else code.neuron
            twin.neurons[name] = make(self.neuron(name).scale)
        twin._hold()
        return twin.train(self.training)

    # ---- files ----------------------------------------------------------------------------------
    def save(self, path: str | Path) -> None:
        """Write structure, code and tensors to one safetensors file, atomically, without pickle.

        Raises:
            ValueError: if a tensor is not finite or a population breaks a rule, as `load` would.
        """
        self._check_numbers()
        description = {
            "format": _FORMAT,
            "network": self.network.describe(),
            "code": self.code.describe(),
            "origin": self.origin,
        }
        save_tensors(path, self.state_dict(), description)

    @classmethod
    def load(cls, path: str | Path) -> SpikingNetwork:
        """Read a network written by `save`; the original model's code is not needed.

        Its checksum, its structure with every shape, and its numbers are checked.

        Raises:
            FileNotFoundError: if there is no such file.
            ValueError: if the file is damaged or is not a spiking network.
        """
        tensors, description = load_tensors(path)
        with reading(path, "a whole spiking network", _ADVICE):
            if "network" not in description:
                raise ValueError("it holds tensors but no network")
            if description["format"] != _FORMAT:
                raise ValueError(
                    f"its format is {description['format']!r}, this version reads {_FORMAT}"
                )
            network = cls._rebuild(description, tensors)
            network._check_numbers()
        return network

    @classmethod
    def _rebuild(cls, description: dict[str, Any], tensors: dict[str, Tensor]) -> SpikingNetwork:
        prefix = "network."
        low = tensors["input_low"]
        if not low.is_floating_point():
            raise ValueError(
                f"`input_low` must be floating point, got {low.dtype}. Save the network again."
            )
        own = {  # weights may lie in half precision
            name.removeprefix(prefix): tensor.to(low.dtype)
            if tensor.is_floating_point()
            else tensor
            for name, tensor in tensors.items()
            if name.startswith(prefix)
        }
        network = rebuild(description["network"], own)
        code = build(Code, description["code"])
        _check_steps(code, max(network.depth.values()))
        neurons = {}
        for name in (INPUT, *network.populations):
            make = code.input_neuron if name == INPUT else code.at(network.depth[name]).neuron
            neurons[name] = _empty_neuron(make, tensors, f"neurons.{name}.")
        spiking = cls(network, code, neurons, low, description["origin"])
        spiking.to(low.dtype)
        rest = {k: t for k, t in tensors.items() if not k.startswith((prefix, "input_low"))}
        load_into(nn.ModuleDict({"neurons": spiking.neurons}), rest)
        return spiking

    def _check_numbers(self) -> None:
        _check_steps(self.code, self.depth)
        check_finite(self.state_dict())
        for name in self.populations:
            try:
                self.neuron(name).check()
            except ValueError as error:
                raise ValueError(f"population {name!r}: {error}") from error

    # ---- for people -----------------------------------------------------------------------------
    def __str__(self) -> str:
        from firstspike.networks.plan import plan

        return plan(self)


def _check_broadcasts(what: str, tensor: Tensor, shape: tuple[int, ...]) -> None:
    if tensor.ndim > len(shape) or any(
        size not in (1, full) for size, full in zip(tensor.shape[::-1], shape[::-1])
    ):
        raise ValueError(
            f"{what} must broadcast against one sample of shape {shape}, got shape "
            f"{tuple(tensor.shape)}. Pass one number, or one per channel as (C, 1, ...)."
        )


def _empty_neuron(build: Callable[..., Neuron], tensors: dict[str, Tensor], prefix: str) -> Neuron:
    """A neuron of the right shapes whose tensors are filled in by `load_state_dict`."""
    neuron = build(tensors[f"{prefix}scale"], _Placeholder())
    for name, buffer in neuron.named_buffers(recurse=False):
        setattr(neuron, name, buffer.new_empty(tensors[f"{prefix}{name}"].shape))
    return neuron


def _check_steps(code: Code, depth: int) -> None:
    longest = max(len(code.window_of(0)), len(code.window_of(1)))
    if longest > _LONGEST_WINDOW or code.latency(depth) > _MOST_STEPS:
        raise ValueError(
            f"a network file may have windows of at most {_LONGEST_WINDOW:,} steps and "
            f"{_MOST_STEPS:,} steps in all, got {longest:,} and {code.latency(depth):,}. "
            "Convert with a shorter window."
        )


class _Placeholder:
    """Stands in for calibration data where tensors are about to be loaded."""

    def sample(self, size: int) -> Tensor:
        return torch.linspace(0.0, 1.0, 1000)

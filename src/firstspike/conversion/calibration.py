"""A traced model with what its activations are like: any number of conversions for one pass."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from firstspike.codes import Code, Neuron
from firstspike.config import describe
from firstspike.conversion.inputs import InputRange, relay_pools, undo_low
from firstspike.conversion.kernel_optimization import KernelOptimization, optimize_kernel, record
from firstspike.conversion.normalization import Normalization, Percentile
from firstspike.conversion.self_check import check_conversion
from firstspike.conversion.statistics import Histogram, Sample, calibration_batches, collect
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.networks import INPUT, Network
from firstspike.networks.trace import HALF, taken
from firstspike.neurons.table import TableNeuron


class Calibration:
    """A model traced, and the statistics of its activations on the calibration data.

    Both are made once, whatever number of codes and normalizations the model is converted to.

    Args:
        model, images, keep_batch_norm: as `model`, `calibration` and `keep_batch_norm` of
            `convert`.
        per_channel: keep statistics of every channel, which scales per channel need; those of
            whole populations follow from them.

    >>> from firstspike.codes import TTFS
    >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    >>> calibration = Calibration(model, torch.rand(64, 4))
    >>> [calibration.convert(TTFS(window)).latency for window in (4, 8)]
    [8, 16]
    """

    def __init__(
        self,
        model: nn.Module,
        images: Any,
        *,
        per_channel: bool = False,
        keep_batch_norm: bool = False,
    ) -> None:
        batches = calibration_batches(images)
        first = next(batches)
        parameter = next(iter(model.parameters()), torch.empty(0))
        self.model = type(model).__name__
        self.dtype, self.device = parameter.dtype, parameter.device
        computed = torch.float32 if self.dtype in HALF else self.dtype
        self.first = first.to(self.device, computed)
        comparison = taken(model, self.first, keep_batch_norm)
        self.network = comparison.network
        moved = (b.to(self.device, computed) for b in itertools.chain([first], batches))
        self.seen = InputRange()
        self.per_channel = per_channel
        self._histograms, self.outputs = collect(self.network, moved, per_channel, self.seen)
        comparison.check(self.outputs[: len(comparison.samples)])

    @torch.inference_mode(False)
    def convert(
        self,
        code: Code,
        *,
        normalization: Normalization | None = None,
        kernel_optimization: KernelOptimization | None = None,
        check: bool = True,
    ) -> SpikingNetwork:
        """The spiking network, with weights of its own; see the function `convert`.

        Args:
            check: compare it with the model on some of the calibration images.

        Raises:
            ValueError: if `normalization` needs statistics per channel that were not kept, or
                networks of this code are made in another way.
        """
        return self._convert(
            copy.deepcopy(self.network), code, normalization, kernel_optimization, check
        )

    @torch.inference_mode(False)
    def convert_once(
        self,
        code: Code,
        normalization: Normalization,
        kernel_optimization: KernelOptimization | None = None,
    ) -> SpikingNetwork:
        """`convert` without a copy of the weights: the calibration gives its network away."""
        network = self.__dict__.pop("network")  # whoever asks for it again finds none
        return self._convert(network, code, normalization, kernel_optimization, True)

    def _convert(
        self,
        network: Network,
        code: Code,
        normalization: Normalization | None,
        kernel_optimization: KernelOptimization | None,
        check: bool,
    ) -> SpikingNetwork:
        if (reason := code.reason_against_conversion) is not None:
            raise ValueError(
                f"`code` must be one that networks are converted to, got {code}: {reason}"
            )
        normalization = Percentile() if normalization is None else normalization
        dtype = self.first.dtype
        scales, samples = self._scales(network, normalization, code)
        network, low = self._encode_input(network, scales, samples)
        neurons = {
            name: (code.input_neuron if name == INPUT else code.at(network.depth[name]).neuron)(
                scales[name], samples[name]
            )
            for name in (INPUT, *network.populations)
        }
        origin: dict[str, Any] = {
            "model": self.model,
            "normalization": describe(normalization),
            "calibration_images": self.seen.images,
        }
        if kernel_optimization is not None:
            history = _optimize(neurons, samples, kernel_optimization)
            origin["kernel_optimization"] = record(kernel_optimization, history)
        spiking = SpikingNetwork(network, code, neurons, low, origin)
        spiking = spiking.to(self.device, dtype).eval()
        if check:
            spiking.origin["check"] = check_conversion(spiking, self.first, self.outputs)
        return spiking.to(self.dtype)

    def histogram(self, population: str, per_channel: bool) -> Histogram:
        """Activations of a hidden population."""
        found = self._histograms[population]
        if per_channel and not self.per_channel:
            raise ValueError(
                "`normalization` must not be per channel here: the calibration kept statistics of "
                "whole populations. Make it with per_channel=True."
            )
        return found if per_channel == self.per_channel else found.merged()

    def _scales(
        self, network: Network, normalization: Normalization, code: Code
    ) -> tuple[dict[str, Tensor], dict[str, Sample]]:
        """Scale and sample of every hidden population."""
        scales: dict[str, Tensor] = {}
        samples: dict[str, Sample] = {}
        for name in network.populations:
            histogram = self.histogram(name, normalization.per_channel)
            clip = network.op(name).hyper["clip"]
            scale = normalization.scale(name, histogram, code.at(network.depth[name]), clip)
            samples[name] = Sample(histogram, torch.zeros_like(scale), scale)
            view = (-1,) + (1,) * (len(network.node[name].shape) - 1)
            scale = scale.reshape(view) if normalization.per_channel else scale.squeeze(0)
            scales[name] = scale.to(self.first.dtype)
        return scales, samples

    def _encode_input(
        self, network: Network, scales: dict[str, Tensor], samples: dict[str, Any]
    ) -> tuple[Network, Tensor]:
        """Add the input population, and the populations that pools of a shifted input need."""
        seen, dtype = self.seen, self.first.dtype
        scale, low = seen.encoding()
        scales[INPUT], samples[INPUT] = scale.to(dtype), seen.sample(scale, low)
        low = low.to(dtype).reshape(low.shape or (1,) * len(network.input_shape))
        if bool((low == 0).all()):
            return network, low
        network, relays = relay_pools(undo_low(network, low))
        top = torch.tensor(float(seen.maximum.clamp(min=0).max() - seen.minimum.clamp(max=0).min()))
        for name in relays:
            scales[name] = top.to(dtype)
            samples[name] = seen.sample(top, seen.minimum.clamp(max=0).min())
        return network, low


def _optimize(
    neurons: Mapping[str, Neuron], samples: Mapping[str, Sample], config: KernelOptimization
) -> dict[str, dict[str, list[float]]]:
    history = {}
    for name, neuron in neurons.items():
        if (reason := config.reason_against(neuron)) is not None:
            raise ValueError(
                f"`kernel_optimization` must go with a code that has kernels to fit: {reason}. "
                "Use TTFS(window, Exponential()), or leave it out."
            )
        assert isinstance(neuron, TableNeuron)
        history[name] = optimize_kernel(neuron, samples[name], config)
    return history

"""Codes whose neurons fire once, by a threshold table: what these have in common."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import replace
from typing import ClassVar

from torch import Tensor

from firstspike.codes.code import Code
from firstspike.codes.kernels import Kernel, KernelModule, Learned
from firstspike.neurons.neuron import Distribution
from firstspike.neurons.table import TableNeuron


class TableCode(Code):
    """One spike at most per neuron, whose step is looked up in a table of thresholds.

    Subclasses have the fields `kernel` and `half_step`, and say which kernel their table has.
    """

    single_spike: ClassVar[bool] = True
    neuron_kind: ClassVar[type[TableNeuron]] = TableNeuron
    half_step: bool
    kernel: Kernel | None

    @abstractmethod
    def kernel_of(self, window: int, distribution: Distribution | None) -> KernelModule:
        """The kernel of one population with `window` steps."""

    def with_own_tables(self) -> TableCode:
        """The same code with tables that no kernel gives: they stand in the neurons alone."""
        return replace(self, kernel=Learned())  # type: ignore[call-arg]

    def neuron(self, scale: Tensor, distribution: Distribution | None = None) -> TableNeuron:
        window = len(self.window_of(1))
        kernel = self.kernel_of(window, distribution)
        return self.neuron_kind(scale, kernel, window, self.half_step)

    def input_neuron(self, scale: Tensor, distribution: Distribution | None = None) -> TableNeuron:
        window = len(self.window_of(0))
        kernel = self.kernel_of(window, distribution)
        return self.neuron_kind(scale, kernel, window, self.half_step)

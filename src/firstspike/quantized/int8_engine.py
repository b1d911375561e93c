"""int8 kernels as one more engine of the list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from firstspike.engines.engine import Engine, register
from firstspike.engines.record import Record
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.quantized.integers import reason_against_int8

if TYPE_CHECKING:
    from firstspike.quantized.int8 import Int8


class Int8Engine(Engine):
    """Spike values as uint8, weights as int8, sums of 32 bits; see `Int8`."""

    name = "int8"
    purpose = "int8 kernels, for networks of integers; prepare `Int8` for a stream of batches"
    records = frozenset({"over_time"})

    def reason_against(self, network: SpikingNetwork) -> str | None:
        return reason_against_int8(network)

    def run(self, network: SpikingNetwork, x: Tensor, **options: Any) -> Record:
        from firstspike.quantized.int8 import Int8

        return Int8(network).run(x, **options)

    def logits(self, network: SpikingNetwork, x: Tensor, **plan: Any) -> Tensor:
        from firstspike.quantized.int8 import Int8

        return Int8(network)(x)

    def prepare(self, network: SpikingNetwork, *, images: Tensor | None = None) -> Int8:
        """There is one kernel, whatever the `images`."""
        from firstspike.quantized.int8 import Int8

        return Int8(network)


register(Int8Engine())

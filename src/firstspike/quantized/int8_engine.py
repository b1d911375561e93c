"""int8 kernels as one more engine of the list."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from firstspike.codes.integers import IntegerCode, IntegerNeuron
from firstspike.engines.engine import Engine, register
from firstspike.engines.record import Record
from firstspike.engines.spiking_network import SpikingNetwork

if TYPE_CHECKING:
    from firstspike.quantized.int8 import Int8

LARGEST_UINT8 = 255


class Int8Engine(Engine):
    """Spike values as uint8, weights as int8, sums of 32 bits; see `Int8`."""

    name = "int8"
    purpose = "int8 kernels, for networks of integers; prepare `Int8` for a stream of batches"
    records = frozenset({"over_time"})

    def reason_against(self, network: SpikingNetwork) -> str | None:
        code = network.code
        if not isinstance(code, IntegerCode):
            return "it is not made of integers; call `to_integers(quantize(network, ...))` first"
        if code.reason_to_step is not None:
            return f"{code.reason_to_step}; pass potential_bits=32 to `to_integers`"
        if not code.sequential:
            return "its populations fire early and are stepped through time"
        for name in network.populations:
            neuron = network.neuron(name)
            assert isinstance(neuron, IntegerNeuron)
            if (largest := int(neuron.values().max())) > LARGEST_UINT8:
                return (
                    f"the spike values of population {name!r} reach {largest:,} and uint8 ends at "
                    "255; use a window of at most 255 steps with Linear(), 8 with PowerOfTwo(), or "
                    "value_bits=8"
                )
        if network.input_low.device.type != "cpu":
            return f"int8 kernels run on the CPU, and the network is on {network.input_low.device}"
        return None

    def run(self, network: SpikingNetwork, x: Tensor, **options: Any) -> Record:
        from firstspike.quantized.int8 import Int8

        return Int8(network).run(x, **options)

    def logits(self, network: SpikingNetwork, x: Tensor, **plan: Any) -> Tensor:
        from firstspike.quantized.int8 import Int8

        return Int8(network)(x)

    def prepare(self, network: SpikingNetwork) -> Int8:
        from firstspike.quantized.int8 import Int8

        return Int8(network)


ENGINE = register(Int8Engine())

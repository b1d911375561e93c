"""The analogue network: traced, folded, walked."""

from firstspike.networks.check import Check, check
from firstspike.networks.errors import ConversionError
from firstspike.networks.fold import fold_batch_norm
from firstspike.networks.network import INPUT, Network, Node
from firstspike.networks.ops import IndexMap, WeightOp
from firstspike.networks.register import register_operation
from firstspike.networks.trace import trace

__all__ = [
    "INPUT",
    "Check",
    "ConversionError",
    "IndexMap",
    "Network",
    "Node",
    "WeightOp",
    "check",
    "fold_batch_norm",
    "register_operation",
    "trace",
]

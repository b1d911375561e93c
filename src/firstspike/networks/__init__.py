"""Traced networks and their spiking counterparts."""

from firstspike.networks.errors import ConversionError
from firstspike.networks.fold import fold_batch_norm
from firstspike.networks.network import INPUT, Network, Node
from firstspike.networks.spiking import SpikingNetwork
from firstspike.networks.trace import trace

__all__ = [
    "INPUT",
    "ConversionError",
    "Network",
    "Node",
    "SpikingNetwork",
    "fold_batch_norm",
    "trace",
]

"""A spiking network as plain data for a page: tables, windows, and weights where it runs there."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np
import torch
from torch import Tensor

from firstspike.codes.kernels import ExponentialKernel, LinearKernel
from firstspike.engines.spiking_network import SpikingNetwork
from firstspike.networks.network import INPUT, Node
from firstspike.networks.ops import Op, describe_op
from firstspike.neurons.table import TableNeuron

_KINDS = {np.uint8: "u1", np.uint16: "u2", np.float32: "f4", np.float64: "f8"}
_PLAIN = frozenset({"Dense", "Affine", "Add", "Concatenate", "Reshape", "Rectifier"})
_IN_TWO_DIMENSIONS = frozenset({"Convolution", "AveragePool", "MaxPool"})


def pack(x: Tensor | np.ndarray[Any, Any]) -> dict[str, str]:
    """Elements in row-major order as base64, with their type."""
    array = x.detach().cpu().numpy() if isinstance(x, Tensor) else x
    array = np.ascontiguousarray(array)
    data = array.astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
    return {"kind": _KINDS[array.dtype.type], "data": base64.b64encode(data).decode("ascii")}


def pack_times(times: Tensor, window: int) -> dict[str, str]:
    """Spike times in one or two bytes each; the largest number means never."""
    kind: Any = np.uint8 if window < 255 else np.uint16
    never = int(np.iinfo(kind).max)
    whole = torch.where(times.isinf(), never, times)
    return pack(whole.cpu().numpy().astype(kind))


def reason_against(network: SpikingNetwork) -> str | None:
    """Why the page cannot show a network; None if it can."""
    for name in network.populations:
        neuron = network.neuron(name)
        if not isinstance(neuron, TableNeuron) or not neuron.fires_on_crossing:
            return f"{type(neuron).__name__} has no threshold that falls through a table"
        if not torch.equal(neuron.value_scale, neuron.scale):
            return "potentials and values of integers have units of their own"
    return None


def describe_population(network: SpikingNetwork, name: str) -> dict[str, Any]:
    """Shape, window, table and kernel of one population."""
    neuron = network.neuron(name)
    assert isinstance(neuron, TableNeuron)
    thresholds, values = neuron.table()
    window = network.window_of(name)
    kernel: dict[str, Any] = {"name": "table"}
    if isinstance(neuron.kernel, ExponentialKernel):
        tau, delay = neuron.kernel.tau.item(), neuron.kernel.delay.item()
        kernel = {"name": "Exponential", "tau": tau, "delay": delay}
    elif isinstance(neuron.kernel, LinearKernel):
        kernel = {"name": "Linear"}
    return {
        "name": name,
        "shape": list(network.network.node[name].shape),
        "depth": network.network.depth[name],
        "start": window.start,
        "window": len(window),
        "thresholds": thresholds.tolist(),
        "values": values.tolist(),
        "scale": neuron.scale.flatten().tolist(),
        "half_step": neuron.half_step,
        "kernel": kernel,
    }


def live_network(network: SpikingNetwork, largest: int) -> dict[str, Any] | None:
    """Operations and weights, if the page can run all of them and they are few; else None."""
    nodes = network.network.nodes
    operations = {node.name: network.network.op(node.name) for node in nodes[1:]}
    weights = sum(p.numel() for op in operations.values() for p in op.parameters())
    runs = all(_runs(operations[node.name], network, node) for node in nodes[1:])
    scales = [network.neuron(p).scale for p in network.populations]
    per_channel_first = all(s.ndim == 0 or s.numel() == s.shape[0] for s in scales)
    if weights > largest or not runs or not per_channel_first:
        return None
    described: list[dict[str, Any]] = [
        {"name": INPUT, "op": INPUT, "inputs": [], "shape": list(network.network.input_shape)}
    ]
    for node in nodes[1:]:
        op = operations[node.name]
        described.append(
            {
                "name": node.name,
                "op": type(op).__name__,
                "inputs": list(node.inputs),
                "shape": list(node.shape),
                "hyper": describe_op(op)["hyper"],
                "tensor": {k: list(p.shape) for k, p in op.named_parameters()},
                "data": {k: pack(p) for k, p in op.named_parameters()},
            }
        )
    low = network.input_low
    return {
        "nodes": described,
        "populations": [describe_population(network, p) for p in network.populations],
        "low": {"shape": list(low.shape), "data": low.flatten().tolist()},
    }


def _runs(op: Op, network: SpikingNetwork, node: Node) -> bool:
    name = type(op).__name__
    if name in _PLAIN:
        return True
    return (
        name in _IN_TWO_DIMENSIONS
        and len(network.network.node[node.inputs[0]].shape) == 3
        and not op.hyper.get("ceil_mode")
        and "output_size" not in op.hyper
        and not isinstance(op.hyper.get("padding"), str)
        and op.hyper.get("padding_mode", "zeros") == "zeros"
    )

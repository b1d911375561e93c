"""How graphs.zip was made: networks of other programs, their NIR files and their own spikes.

Run where SpikingJelly 2.0.0, snnTorch 1.0.0, norse 1.1.0, sinabs 3.1.3 and nirtorch 2.6 are
installed: `python tests/exchange/foreign/make.py`. Every graph comes with an .npz of the input `x`
and the spikes that the program itself counted over 12 steps, by node of the graph.
"""

# ruff: noqa
from __future__ import annotations

import io
import zipfile
from pathlib import Path

import nir
import numpy as np
import torch
from torch import nn

STEPS = 12
OUT = Path(__file__).with_name("graphs.zip")
files: dict[str, bytes] = {}


def store(name: str, graph, spikes: dict, x: torch.Tensor) -> None:
    buffer = io.BytesIO()
    nir.write(buffer, graph)
    files[f"{name}.nir"] = buffer.getvalue()
    buffer = io.BytesIO()
    np.savez_compressed(buffer, x=x.numpy(), **{k: v.numpy() for k, v in spikes.items()})
    files[f"{name}.npz"] = buffer.getvalue()


def count(total: dict, name: str):
    def hook(module, arguments, output):
        now = (output[0] if isinstance(output, tuple) else output).detach()
        total[name] = total.get(name, 0) + now

    return hook


def spikingjelly(x: torch.Tensor) -> None:
    from spikingjelly.activation_based import functional, layer, neuron
    from spikingjelly.activation_based.nir_exchange import export_to_nir

    makers = {
        "if": lambda: neuron.IFNode(v_threshold=0.7, v_reset=-0.1),
        "lif": lambda: neuron.LIFNode(tau=4.0, decay_input=True, v_threshold=0.3, v_reset=0.05),
        "cuba": lambda: neuron.CUBALIFNode(c_decay=0.5, v_decay=0.75, v_threshold=0.8, v_reset=0.0),
    }
    for kind, make in makers.items():
        net = nn.Sequential(
            *(layer.Conv2d(1, 3, 3, padding=1), make(), layer.AvgPool2d(2)),
            *(layer.Flatten(), layer.Linear(27, 8), make()),
        )
        with torch.no_grad():
            for p in net.parameters():
                p.mul_(2.5)
        graph = export_to_nir(net, x)
        functional.reset_net(net)
        total: dict = {}
        for i in (1, 5):
            net[i].register_forward_hook(count(total, f"_{i}"))
        with torch.no_grad():
            for _ in range(STEPS):
                net(x)
        store(f"spikingjelly_{kind}", graph, total, x)


def snntorch(x: torch.Tensor) -> None:
    import snntorch as snn
    from snntorch.export_nir import export_to_nir

    for kind in ("leaky", "synaptic"):

        def make(n: int) -> nn.Module:
            kw = dict(
                threshold=torch.full((n,), 0.8),
                reset_mechanism="zero",
                reset_delay=False,
                init_hidden=True,
            )
            beta = torch.full((n,), 0.9)
            if kind == "leaky":
                return snn.Leaky(beta=beta, **kw)
            return snn.Synaptic(alpha=torch.full((n,), 0.5), beta=beta, **kw)

        net = nn.Sequential(nn.Linear(36, 20), make(20), nn.Linear(20, 6), make(6))
        with torch.no_grad():
            for i in (0, 2):
                net[i].weight.mul_(2.5)
        graph = export_to_nir(net, x, ignore_dims=[0])
        total: dict = {}
        for i in (1, 3):
            net[i].register_forward_hook(count(total, str(i)))
        for i in (1, 3):
            net[i].reset_mem()
        with torch.no_grad():
            for _ in range(STEPS):
                net(x)
        store(f"snntorch_{kind}", graph, total, x)


def norse(x: torch.Tensor) -> None:
    import norse.torch as norse
    from norse.torch.utils.export_nir import to_nir

    def make(n: int) -> nn.Module:
        return norse.IAFCell(norse.IAFParameters(v_th=torch.full((n,), 0.9)))

    net = norse.SequentialState(nn.Linear(36, 20), make(20), nn.Linear(20, 6), make(6))
    first, one, second, two = list(net)
    with torch.no_grad():
        for layer in (first, second):
            layer.weight.mul_(2.5)
    graph = to_nir(net, x[0])  # it writes the shape of a batch otherwise
    total, a, b = {"1": 0, "3": 0}, None, None
    with torch.no_grad():
        for _ in range(STEPS):
            z, a = one(first(x), a)
            total["1"] += z
            z, b = two(second(z), b)
            total["3"] += z
    store("norse_iaf", graph, total, x)


def sinabs(x: torch.Tensor) -> None:
    import sinabs
    import sinabs.layers as sl
    import sinabs.nir
    from sinabs.activation import MembraneSubtract, SingleSpike

    def make() -> nn.Module:
        return sl.IAFSqueeze(
            batch_size=len(x),
            spike_fn=SingleSpike,
            reset_fn=MembraneSubtract(),
            spike_threshold=torch.tensor(0.9),
        )

    net = nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1), make(), sl.SumPool2d(2), nn.Flatten(), nn.Linear(27, 8)
    )
    net.append(make())
    with torch.no_grad():
        for p in net.parameters():
            p.mul_(2.0)
        net[4].weight.mul_(0.3)
    over_time = x[:, None].expand(len(x), STEPS, *x.shape[1:]).flatten(0, 1)
    total: dict = {}

    def sum_up(name: str):
        def hook(module, arguments, output):
            steps = output.detach().reshape(len(x), STEPS, *output.shape[1:])
            total[name] = steps.sum(1)

        return hook

    hooks = [net[i].register_forward_hook(sum_up(str(i))) for i in (1, 5)]
    with torch.no_grad():
        net(over_time)
    for hook in hooks:
        hook.remove()
    sinabs.reset_states(net)
    graph = sinabs.nir.to_nir(net, over_time)
    graph.infer_types()
    store("sinabs_iaf", graph, total, x)


def main() -> None:
    torch.manual_seed(0)
    x = torch.rand(5, 1, 6, 6)
    spikingjelly(x)
    snntorch(x.flatten(1))
    norse(x.flatten(1))
    sinabs(x)
    with zipfile.ZipFile(OUT, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as archive:
        for name, content in sorted(files.items()):
            archive.writestr(zipfile.ZipInfo(name), content, zipfile.ZIP_DEFLATED)


if __name__ == "__main__":
    main()

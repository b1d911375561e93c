"""How inputs become spikes: a scale and a low end per channel, from what calibration has seen."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from firstspike.networks import INPUT, Network, Node
from firstspike.networks.network import free_name
from firstspike.networks.ops import Affine, MaxPool, Op, Rectifier

_ALIKE = 2.0  # channels whose ranges differ by less share one scale
_KEPT = 256  # images whose values stand for all where a kernel is fitted to the input


class InputRange:
    """Smallest and largest value per channel (per feature of flat inputs) over a stream.

    >>> seen = InputRange()
    >>> seen.update(torch.tensor([[0.0, -50.0], [1.0, 150.0]]))
    >>> seen.encoding()
    (tensor([  1., 200.], dtype=torch.float64), tensor([  0., -50.], dtype=torch.float64))
    """

    def __init__(self) -> None:
        self.images = 0
        self.kept: Tensor | None = None

    def update(self, images: Tensor) -> None:
        """Add `images` (N, C, ...) or (N, F)."""
        rows = images.transpose(0, 1).flatten(1)
        low, high = (bound.double().cpu() for bound in rows.aminmax(dim=1))
        if self.kept is None:
            self.shape = images.shape[1:]
            self.minimum, self.maximum, self.kept = low, high, images[:_KEPT].detach().cpu()
        self.minimum = torch.minimum(self.minimum, low)
        self.maximum = torch.maximum(self.maximum, high)
        self.images += len(images)

    def encoding(self) -> tuple[Tensor, Tensor]:
        """Scale and low end: the input population says `(x - low) / scale` in [0, 1].

        Both are (), or (C, 1, ...) where channels differ. Zero stays the low end unless values
        are negative or all lie far from zero (in the upper half of [0, maximum]).

        Raises:
            ValueError: if nothing varies.
        """
        low, high = self.minimum, self.maximum
        low = torch.where((low < 0) | (low > high / 2), low, 0.0)
        span = high - low
        if not bool((high > self.minimum).any() | (high > 0).any()):
            raise ValueError(
                "`calibration` must vary, all its pixels are zero. Pass real training images."
            )
        varied = span[span > 0]
        if not len(varied):  # every feature has one value throughout
            low, span = torch.zeros_like(low), high.clamp(min=0)
            varied = span[span > 0]
        flat = len(self.shape) == 1
        if bool(varied.max() < _ALIKE * varied.min()):
            if flat:
                low = low.amin().expand_as(low)
            scale = (high - low).amax()
        else:
            scale = torch.where(span > 0, span, varied.max())
        view = (-1,) + (1,) * (len(self.shape) - 1)
        low = low.amin() if bool((low == low[0]).all()) else low.reshape(view)
        return scale.reshape(view) if scale.ndim else scale, low

    def sample(self, scale: Tensor, low: Tensor) -> InputSample:
        """Values as the input population sees them, to fit kernels to."""
        assert self.kept is not None
        return InputSample((self.kept.double() - low) / scale)


class InputSample:
    """The values of some images in units of the input's scale."""

    def __init__(self, values: Tensor) -> None:
        self.values = values.flatten()

    def sample(self, size: int) -> Tensor:
        """`size` numbers, rising: the values at evenly spaced ranks."""
        ranks = torch.linspace(0, len(self.values) - 1, size).round().long()
        return self.values.sort().values[ranks]


def undo_low(network: Network, low: Tensor) -> Network:
    """Undo the input's shift behind the input population: `x = (x - low) + low`."""
    name = free_name("input_low", network.node)
    node = Node(name, (INPUT,), network.input_shape)
    nodes = [network.nodes[0], node]
    for old in network.nodes[1:]:
        inputs = tuple(name if i == INPUT else i for i in old.inputs)
        nodes.append(replace(old, inputs=inputs))
    ops: dict[str, Op] = {name: Affine({"scale": None, "shift": low})}
    return network.rebuilt(nodes, ops | network.operations())


def relay_pools(network: Network) -> tuple[Network, tuple[str, ...]]:
    """Give max pools a population of their own where what they pool is shifted unevenly.

    A pool works on what spikes have delivered. Where the shift of the input that was undone in
    front of it differs within its windows (zero padding is not shifted), the largest spike is not
    the largest value. With c the smallest such shift per channel, the pool's input x becomes

        max(x) = max(relu(x - c)) + c

    which is exact, because x >= c.

    Returns:
        The network, and the names of the populations added.
    """
    added: tuple[str, ...] = ()
    for pool in [n for n in network.nodes[1:] if isinstance(network.op(n.name), MaxPool)]:
        silent = _silence(network, pool.inputs[0]).flatten(1)
        low, high = silent.aminmax(dim=1)
        if bool((low < high).any()):
            network, name = _relay(network, pool, low)
            added = (*added, name)
    return network, added


@torch.no_grad()
def _silence(network: Network, name: str) -> Tensor:
    """(C, ...) value of a node when no population spikes."""
    found: dict[str, Tensor] = {}
    like = next(t for t in (*network.parameters(), *network.buffers()))
    for node in network.nodes:
        if node.name == INPUT or network.is_population(node.name):
            found[node.name] = like.new_zeros(1, *node.shape)
        else:
            found[node.name] = network.op(node.name)(*(found[i] for i in node.inputs))
        if node.name == name:
            break
    return found[name][0]


def _relay(network: Network, pool: Node, low: Tensor) -> tuple[Network, str]:
    shape, below = network.node[pool.inputs[0]].shape, pool.inputs[0]
    c = low.reshape(-1, *[1] * (len(shape) - 1))
    taken = set(network.node)
    names = []
    for stem in ("down", "spikes", "up"):
        names.append(free_name(f"{pool.name}_{stem}", taken))
        taken.add(names[-1])
    down, spikes, up = names
    nodes: list[Node] = []
    for node in network.nodes:
        inputs = tuple(up if i == pool.name else i for i in node.inputs)
        if node.name == pool.name:
            nodes += [Node(down, (below,), shape, pool.source), Node(spikes, (down,), shape)]
            nodes += [replace(pool, inputs=(spikes,)), Node(up, (pool.name,), pool.shape)]
        else:
            nodes.append(replace(node, inputs=inputs))
    ops: dict[str, Op] = {
        down: Affine({"scale": None, "shift": -c}),
        spikes: Rectifier(clip=None),
        up: Affine({"scale": None, "shift": c}),
    }
    return network.rebuilt(nodes, network.operations() | ops), spikes

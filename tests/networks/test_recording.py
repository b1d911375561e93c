"""What a recording keeps of a model's values."""

import gc

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from firstspike.networks import recording
from firstspike.networks.recording import Recording
from firstspike.networks.trace import trace


class Plain(nn.Module):
    """Values that are changed in place while others still hold them."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.head = nn.Conv2d(8, 3, 1)

    def forward(self, x):
        y = self.first(x)
        same = y
        y.relu_()
        left, right = self.second(same).chunk(2, 1)
        left += right
        z = F.relu_(torch.cat([left, right], 1))
        z += same
        return self.head(z.relu_())


class Masks(Plain):
    """Its large output has a softmax, which is left out: what stands before is compared."""

    def forward(self, x):
        return super().forward(x).softmax(1)


@pytest.mark.parametrize("held", [0, 2**18])
@pytest.mark.parametrize("model", [Plain, Masks])
@torch.no_grad()
def test_what_is_kept_of_values_changes_nothing(model, held, monkeypatch):
    monkeypatch.setattr(recording, "_HELD", held)
    torch.manual_seed(0)
    model, x = model().eval(), torch.rand(5, 2, 8, 8)
    network = trace(model, x)
    said = Plain.forward(model, x)
    torch.testing.assert_close(network(x).reshape(said.shape), said)


def test_large_values_do_not_outlive_the_model():
    alive = []

    class Watch(nn.Module):
        def forward(self, x):
            gc.collect()
            alive.append(
                sum(
                    issubclass(type(o), torch.Tensor) and o.untyped_storage().nbytes() >= 2**20
                    for o in gc.get_objects()
                )
            )
            return x

    layers = [
        layer for _ in range(6) for layer in (nn.Conv2d(8, 8, 3, padding=1), nn.ReLU(), Watch())
    ]
    model = nn.Sequential(*layers).eval()
    x = torch.rand(2, 8, 128, 128)
    found = Recording(model, x)
    assert alive[-1] == alive[0]
    assert len(found.emptied) == 11  # all but what the model returns
    assert [tuple(found.values[node].shape) for node in found.emptied] == [tuple(x.shape)] * 11
    (output,) = (v for n, v in found.values.items() if n.name == found.result.name)
    torch.testing.assert_close(output, model(x))

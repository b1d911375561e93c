"""Streamed error surfaces, and outputs folded into weights."""

import pytest
import torch
from torch import nn

import firstspike as fs
from firstspike.codes import FewStep, Fixed, GridSearch
from firstspike.conversion.fold_outputs import fold_outputs
from firstspike.conversion.percentile_search import error_surfaces
from firstspike.models import DigitsCNN, ResNet20


def converted(model, shape, steps=2):
    torch.manual_seed(0)
    x = torch.rand(100, *shape, dtype=torch.float64)
    return fs.convert(model.double(), FewStep(steps), calibration=x), x


def test_surfaces_have_the_minimum_that_conversion_used():
    network, x = converted(DigitsCNN(), (1, 8, 8))
    whole = error_surfaces(network, x)
    streamed = error_surfaces(network, x.split(7))
    assert list(whole) == list(network.network.populations)
    for name, surface in whole.items():
        neuron = network.neuron(name)
        assert surface.best[0] == pytest.approx(neuron.alpha.item(), abs=0.03)
        assert surface.best[1] == pytest.approx(neuron.beta.item(), abs=0.05)
        assert streamed[name].smallest == pytest.approx(surface.smallest, rel=0.01)


def test_surfaces_agree_with_the_activations_themselves():
    network, x = converted(DigitsCNN(), (1, 8, 8))
    name = network.network.populations[0]
    surface = error_surfaces(network, x)[name]
    activations: dict[str, torch.Tensor] = {}

    def watch(node: str, u: torch.Tensor) -> torch.Tensor:
        activations[node] = u if node == "input" else network.network.op(node)(u)
        return activations[node]

    network.network.evaluate(x, watch)
    values = (activations[name] / network.neuron(name).scale).flatten().detach()
    exact = network.code.thresholds.surface(values, 2, 0.0)
    assert surface.smallest == pytest.approx(exact.smallest, rel=0.02)


def test_another_rule_may_look():
    network, x = converted(DigitsCNN(), (1, 8, 8))
    for surface in error_surfaces(network, x, GridSearch(10)).values():
        assert surface.error.shape == (10, 1)


def test_search_is_quick_on_a_deep_network():
    network, x = converted(ResNet20(width=0.25), (3, 16, 16))
    assert len(error_surfaces(network, x[:8])) == 19


@pytest.mark.parametrize(
    "model, shape", [(DigitsCNN(), (1, 8, 8)), (ResNet20(width=0.25, pool="max"), (3, 8, 8))]
)
def test_folded_network_has_unit_spikes_and_the_same_output(model, shape):
    network, x = converted(model, shape, steps=3)
    folded = fold_outputs(network)
    torch.testing.assert_close(folded(x[:4]), network(x[:4]), rtol=1e-8, atol=1e-10)
    for name in folded.network.populations:
        neuron = folded.neuron(name)
        assert (neuron.beta * neuron.threshold).item() == pytest.approx(1.0)
        assert network.neuron(name).beta.item() != neuron.beta.item()


def test_what_cannot_be_folded_or_shown_is_refused():
    class Joined(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b, self.c = nn.Linear(4, 3), nn.Linear(4, 3), nn.Linear(6, 2)
            self.relu = nn.ReLU()

        def forward(self, x):
            return self.c(torch.cat([self.relu(self.a(x)), self.relu(self.b(x))], 1))

    network, x = converted(Joined(), (4,))
    with pytest.raises(ValueError, match="Concatenate\\) must take one population"):
        fold_outputs(network)
    ttfs = fs.convert(Joined(), fs.TTFS(4), calibration=x.float())
    with pytest.raises(TypeError, match="`network` must have a FewStep code"):
        fold_outputs(ttfs)
    with pytest.raises(TypeError, match="`network` must have a FewStep code"):
        error_surfaces(ttfs, x)
    wide = fs.convert(
        Joined().double(),
        FewStep(2, thresholds=Fixed()),
        calibration=x,
        normalization=fs.scales.Percentile(per_channel=True),
    )
    with pytest.raises(ValueError, match="must have one scale for an error surface"):
        error_surfaces(wide, x)

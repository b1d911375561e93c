"""Learning from an ANN's outputs, in every method for spiking networks."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from firstspike.codes import TTFS, FewStep, ReLPSP
from firstspike.conversion import convert
from firstspike.training import DTA, SGL, QuantizerAware, Surrogate, TrainConfig, fit

CODES = {
    QuantizerAware: TTFS(8),
    Surrogate: TTFS(8, half_step=False),
    DTA: ReLPSP(steps=8),
    SGL: FewStep(steps=4),
}


@pytest.fixture
def teacher():
    torch.manual_seed(1)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 3))


def network_for(method, train_set):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(36, 16), nn.ReLU(), nn.Linear(16, 3))
    return convert(model, CODES[method], calibration=train_set)


@pytest.mark.parametrize("method", CODES)
def test_a_teacher_draws_the_outputs_to_its_own(method, teacher, train_set, validation_set):
    config = TrainConfig(epochs=6, batch_size=8, learning_rate=0.02)
    x = validation_set.float_images()
    distances = []
    for share in (0.0, 1.0):
        network = network_for(method, train_set)
        taught = method(teacher=teacher, distillation=share)
        fit(network, train_set, validation_set, config, method=taught, progress=False)
        with torch.no_grad():
            distances.append(float((network(x).softmax(1) - teacher(x).softmax(1)).abs().mean()))
    assert distances[1] < distances[0]
    assert taught.settings()["teacher"] == {"name": "Sequential"}


def test_the_loss_is_that_of_the_docstring(teacher):
    method = QuantizerAware(teacher=teacher, distillation=0.3, temperature=2.0)
    method.config = TrainConfig(label_smoothing=0.1)
    images, logits, labels = torch.rand(5, 1, 6, 6), torch.randn(5, 3), torch.randint(3, (5,))
    p, q = (teacher(images) / 2).softmax(1), (logits / 2).softmax(1)
    divergence = (p * (p / q).log()).sum(1).mean()
    expected = 0.7 * F.cross_entropy(logits, labels, label_smoothing=0.1) + 0.3 * 4 * divergence
    torch.testing.assert_close(method.criterion(logits, images, labels), expected)


@pytest.mark.parametrize("method", CODES)
def test_refusals(method):
    with pytest.raises(ValueError, match=r"`distillation` must lie in \[0, 1\], got 2.0"):
        method(distillation=2.0)
    with pytest.raises(ValueError, match="`temperature` must be positive, got 0"):
        method(temperature=0)
    with pytest.raises(TypeError, match=r"`teacher` must be a torch.nn.Module, got 0.3"):
        method(teacher=0.3)

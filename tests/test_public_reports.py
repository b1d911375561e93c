"""What people reported of converters, with the values that are right.

Each test names the public report; the whole kind of each fault is tested where the code is.
"""

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import firstspike as fs
from firstspike.data import from_arrays, load_npz
from firstspike.kernels import Linear
from firstspike.scales import Maximum


def exact_error(model: nn.Module, x: Tensor) -> float:
    """Largest difference of the exact map and the model, in float64."""
    model, x = model.double(), x.double()
    network = fs.convert(model, fs.ExactReLU(margin=0.5), calibration=x, normalization=Maximum())
    with torch.no_grad():
        return float((network(x) - model(x)).abs().max())


def test_one_logit() -> None:
    """vlfeat/matconvnet#274, APPFL/APPFL#60: one output of a binary classifier."""
    x = torch.rand(300, 1, 4, 4)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 1))
    with torch.no_grad():
        model[3].bias -= model(x).median()
        y = (model(x)[:, 0] > 0).long()
        network = fs.convert(model, fs.TTFS(64), calibration=x)
        right = float(((network(x)[:, 0] > 0) == y).double().mean())
    result = fs.evaluate(network, [(x, y)])
    assert result.ann_accuracy == 1.0
    assert result.accuracy == result.agreement == pytest.approx(right) and right > 0.95


def test_labels_from_one() -> None:
    """pytorch/vision#98 and #2630: classes counted from 1, where outputs are counted from 0."""
    x = torch.rand(260, 1, 4, 4)
    model = nn.Sequential(nn.Flatten(), nn.Linear(16, 64), nn.ReLU(), nn.Linear(64, 26))
    with torch.no_grad():
        model[3].weight *= 5
        y = model(x).argmax(1)
    y[0] = 25
    network = fs.convert(model, fs.TTFS(64), calibration=x)
    sets = [from_arrays(x, y + shift, channels_last=False, split="test") for shift in (0, 1)]
    assert fs.evaluate(network, sets[0]).accuracy > 0.9
    with pytest.raises(ValueError, match=r"25.*26"):
        fs.evaluate(network, sets[1])
    with pytest.raises(ValueError, match=r"labels from 0 to 25.*got 26"):
        fs.fit(model, sets[1], sets[1], fs.TrainConfig(epochs=1), progress=False)


def test_channels_of_different_range() -> None:
    """snn_toolbox#129: two sensors, one in units of 100, behind a batch norm."""
    x = torch.rand(200, 2, 8, 8)
    x[:, 1] *= 100
    model = nn.Sequential(
        nn.BatchNorm2d(2), nn.Conv2d(2, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(288, 4)
    )
    for _ in range(60):
        model(x)
    model.eval()
    y = model(x).argmax(1)
    equal, same = x.clone(), copy.deepcopy(model)
    equal[:, 1] /= 100
    same[0].running_mean[1] /= 100
    same[0].running_var[1] /= 1e4
    found = [
        fs.evaluate(fs.convert(m, fs.TTFS(16, Linear()), calibration=images), [(images, y)])
        for m, images in ((model, x), (same, equal))
    ]
    assert found[0].accuracy >= 0.9 and abs(found[0].accuracy - found[1].accuracy) <= 0.02


class Block(nn.Module):
    """Of the CIFAR ResNet with shortcuts without parameters."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(inputs, outputs, 3, 2, 1), nn.Conv2d(outputs, outputs, 3, 1, 1)
        self.na, self.nb = nn.BatchNorm2d(outputs), nn.BatchNorm2d(outputs)
        self.pad = (outputs - inputs) // 2

    def forward(self, x: Tensor) -> Tensor:
        y = self.nb(self.b(F.relu(self.na(self.a(x)))))
        return F.relu(y + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.pad, self.pad)))


def test_shortcuts_without_parameters() -> None:
    """akamaster/pytorch_resnet_cifar10#40, lmbxmu/HRankPlus#7, bearpaw/pytorch-classification#31"""
    model = nn.Sequential(
        *(nn.Conv2d(3, 8, 3, 1, 1), nn.ReLU(), Block(8, 16), nn.AdaptiveAvgPool2d(1)),
        *(nn.Flatten(), nn.Linear(16, 10)),
    ).eval()
    x = torch.rand(16, 3, 16, 16)
    assert exact_error(model, x) < 1e-12
    network = fs.convert(model, fs.TTFS(64, Linear()), calibration=x.double())
    with torch.no_grad():
        error = float((network(x.double()) - model(x.double())).abs().max())
    assert error < 0.02
    assert fs.check_engines(network, x[:4].double()).identical


class Decoder(nn.Module):
    """An encoder and a decoder that label pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Conv2d(1, 8, 3, 2, 1), nn.Conv2d(8, 8, 3, 1, 1)
        self.c = nn.Conv2d(9, 2, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.interpolate(F.relu(self.b(F.relu(self.a(x)))), scale_factor=2)
        return self.c(torch.cat([y, x], 1))


def test_upsampling_and_maps_as_outputs() -> None:
    """spikingjelly#170 and #432, sinabs#273, snn_toolbox#86"""
    model, x = Decoder(), torch.rand(16, 1, 8, 8)
    assert exact_error(model, x) < 1e-12
    network = fs.convert(model, fs.TTFS(32), calibration=x.double())
    assert network(x.double()).shape == (16, 2, 8, 8)
    targets = model(x.double()).argmax(1)
    result = fs.evaluate(network, [(x.double(), targets)])
    assert result.task == "PixelClasses" and result.ann_accuracy == 1.0 and result.accuracy > 0.95


def test_frames_of_events(tmp_path) -> None:
    """spikingjelly#269 and #404: counts of ON and OFF events, the same as tensors and as a set."""
    rng = np.random.default_rng(0)
    frames = rng.poisson(0.6, (100, 2, 10, 10))
    layers = (nn.Conv2d(2, 4, 5), nn.ReLU(), nn.Flatten(), nn.Linear(144, 10))
    model, x = nn.Sequential(*layers), torch.tensor(frames).float()
    y = model(x).argmax(1)
    network = fs.convert(model, fs.TTFS(16), calibration=x)
    wanted = fs.evaluate(network, [(x, y)]).accuracy
    np.savez(tmp_path / "e.npz", x_train=frames, y_train=y, x_test=frames, y_test=y)
    for data in (
        from_arrays(frames, y, channels_last=False),
        from_arrays(frames.astype("f4"), y),
        load_npz(tmp_path / "e.npz", train=False),
    ):
        assert fs.evaluate(network, data).accuracy == wanted > 0.8


@pytest.mark.parametrize("end", [nn.Softmax(1), nn.Sigmoid(), nn.LogSigmoid(), nn.Tanh()], ids=str)
def test_activations_of_the_output(end) -> None:
    """APPFL/APPFL#60, snn_toolbox#115 and #143: left out, with a note; the class is the same."""
    body = (nn.Flatten(), nn.Linear(16, 8), nn.ReLU(), nn.Linear(8, 10))
    model, x = nn.Sequential(*body, end), torch.rand(64, 1, 4, 4)
    network = fs.convert(model, fs.TTFS(64), calibration=x)
    assert "left out" in network.notes[0] and type(end).__name__.lower() in network.notes[0]
    torch.testing.assert_close(network.analog(x), nn.Sequential(*body)(x))


def test_events_over_time() -> None:
    """spikingjelly#404 and #236, norse/notebooks#9: a recording into a network that repeats."""
    layers = (nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 64, 10))
    model, steps = nn.Sequential(*layers), 64
    network = fs.convert(model, fs.Rate(steps=steps), calibration=torch.rand(8, 2, 10, 10))
    events = (torch.rand(steps, 8, 2, 10, 10) < 0.5).float()
    record = fs.simulate(network, events, engine="clock", spikes=True)
    assert torch.equal(record.spike_counts["input"], events.sum(0))
    with torch.no_grad():
        wanted = model(events.mean(0))
    assert float((record.logits - wanted).abs().max()) < 0.2 * float(wanted.std(0).mean()) + 0.02

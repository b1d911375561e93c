"""A small U-Net that finds digits in noise, and a regression: converted, measured, reported."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import firstspike as fs
from firstspike.measure.result import Result
from firstspike.report import results_table, write_report


class UNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU())
        self.deep = nn.Sequential(nn.Conv2d(8, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU())
        self.up = nn.ConvTranspose2d(16, 8, 2, 2)
        self.out = nn.Sequential(nn.Conv2d(16, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 2, 1))

    def forward(self, x: Tensor) -> Tensor:
        fine = self.down(x)
        return self.out(torch.cat([fine, F.relu(self.up(self.deep(F.max_pool2d(fine, 2))))], 1))


def digits_in_noise() -> tuple[Tensor, Tensor]:
    """Handwritten digits of 8 x 8 pixels somewhere on 16 x 16 pixels of noise, and their places."""
    digits = fs.data.Digits(train=True).float_images()[:600]
    generator = torch.Generator().manual_seed(0)
    x = 0.5 * torch.rand(len(digits), 1, 16, 16, generator=generator)
    y = torch.zeros(len(digits), 16, 16, dtype=torch.long)
    for i, (row, column) in enumerate(torch.randint(0, 9, (len(digits), 2), generator=generator)):
        place = (slice(row, row + 8), slice(column, column + 8))
        x[i, 0][place] = torch.maximum(x[i, 0][place], digits[i, 0])
        y[i][place] = (digits[i, 0] > 0.5).long()
    return x, y


def trained(model: nn.Module, x: Tensor, y: Tensor, loss, steps: int) -> nn.Module:
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for step in range(steps):
        rows = slice(50 * step % 500, 50 * step % 500 + 50)
        optimizer.zero_grad()
        loss(model(x[rows]), y[rows]).backward()
        optimizer.step()
    return model.eval()


def reported(result: Result, path, *words: str) -> None:
    write_report(path, title="outputs of any form", results=[result])
    page = path.read_text()
    assert all(word in page for word in words)
    results_table([result])


@pytest.mark.slow
def test_a_u_net_finds_digits_in_noise(tmp_path) -> None:
    torch.manual_seed(0)
    x, y = digits_in_noise()
    model = trained(UNet(), x, y, F.cross_entropy, 80)
    network = fs.convert(model, fs.TTFS(32), calibration=x[:200])
    assert network(x[:3]).shape == (3, 2, 16, 16)
    result = fs.evaluate(network, (x[500:], y[500:]))
    assert result.task == "PixelClasses"
    assert result.ann_metrics["mean_iou"] > 0.8
    assert result.metrics["mean_iou"] > result.ann_metrics["mean_iou"] - 0.05
    assert fs.engines.check_engines(network, x[500:502]).explained
    reported(result, tmp_path / "map.html", "mean iou")


@pytest.mark.slow
def test_a_regression_follows_its_model(tmp_path) -> None:
    torch.manual_seed(0)
    x, _ = digits_in_noise()
    y = x.square().mean((1, 2, 3))  # brightness
    y = (y - y.mean()) / y.std()
    model = nn.Sequential(
        *(nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, padding=1), nn.ReLU()),
        *(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 1), nn.Flatten(0)),
    )
    model = trained(model, x, y, F.mse_loss, 300)
    coarse, fine = (fs.TTFS(steps, fs.kernels.Linear()) for steps in (16, 128))
    network = fs.convert(model, fine, calibration=x[:200])
    results = fs.compare(model, [coarse, fine], (x[500:], y[500:]), calibration=x[:200])
    result = fs.evaluate(network, (x[500:], y[500:]))
    assert result.metrics["correlation"] == pytest.approx(results[1].metrics["correlation"])
    assert result.task == "Regression" and result.accuracy is None
    assert result.ann_metrics["correlation"] > 0.8  # it has learned something
    assert result.metrics["correlation"] > result.ann_metrics["correlation"] - 0.05
    assert result.metrics["correlation_with_ann"] > 0.95
    reported(result, tmp_path / "number.html", "mean absolute error", "correlation")

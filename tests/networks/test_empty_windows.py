"""Max pools with windows of padding alone have no maximum."""

import pytest
import torch
from torch import nn

import firstspike as fs


@pytest.mark.parametrize("before", [nn.Identity(), nn.ReLU()])
def test_they_are_refused_by_name(before):
    pool = nn.MaxPool2d(2, stride=1, padding=1, dilation=2)
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3), before, pool, nn.ReLU(), nn.Flatten(), nn.Linear(6, 3)
    )
    assert not torch.isfinite(model[:3](torch.rand(1, 1, 3, 3))).all()
    with pytest.raises(fs.ConversionError, match="windows without a value, padding alone"):
        fs.convert(model, fs.TTFS(8), calibration=torch.rand(20, 1, 3, 3))

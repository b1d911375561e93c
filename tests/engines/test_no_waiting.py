"""A GPU is not waited for: plain passes read no value; an image that is not finite still shows."""

import contextlib

import pytest
import torch
from torch import nn

import firstspike as fs
from firstspike.engines import prepare, simulate

CODES = [
    fs.TTFS(8),
    fs.TTFS(8, kernel=fs.kernels.Linear()),
    fs.ReLPSP(),
    fs.ReLPSP(8),
    fs.Reverse(8),
]
STEPPED = [fs.FewStep(2), fs.Rate(8), fs.LIF(8), fs.Phase(8), fs.Burst(8)]


def network(code: fs.codes.Code) -> fs.SpikingNetwork:
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()]
    model = nn.Sequential(*layers, nn.Linear(36, 8), nn.ReLU(), nn.Linear(8, 5)).eval()
    return fs.convert(model, code, calibration=torch.rand(20, 1, 8, 8))


class Nothing(contextlib.nullcontext):
    """In place of autocast, which knows no device without values."""

    def __init__(self, *arguments: object, **options: object) -> None:
        super().__init__()


@pytest.mark.filterwarnings("ignore:the spiking network does not follow")
@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("code", [*CODES, *STEPPED], ids=str)
def test_no_value_is_read(
    code: fs.codes.Code, trained: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tensors on the device "meta" have none; whoever asks for one raises."""
    if code in STEPPED[1:] and trained:
        pytest.skip("has no gradient")
    spiking = network(code).to("meta")
    monkeypatch.setattr(torch, "autocast", Nothing)
    with torch.set_grad_enabled(trained):
        logits = spiking(torch.rand(3, 1, 8, 8, device="meta"))
    assert logits.shape == (3, 5)
    if trained and not isinstance(code, fs.Reverse):
        logits.sum().backward()


@pytest.mark.filterwarnings("ignore:the spiking network does not follow")
@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
@pytest.mark.parametrize("code", CODES, ids=str)
def test_an_image_that_is_not_finite_gives_nan_where_nobody_looks(
    code: fs.codes.Code, bad: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    spiking = network(code)
    x = torch.rand(3, 1, 8, 8)
    with torch.no_grad():
        right = spiking(x)
    x[1, 0, 2, 2] = bad
    with pytest.raises(ValueError, match="`x` must be finite"):
        spiking(x)
    fast = prepare(spiking)
    monkeypatch.setattr(torch.Tensor, "is_cpu", property(lambda self: False))
    with torch.no_grad():
        for logits in (spiking(x), fast(x)):
            assert logits.isnan().all(1).tolist() == [False, True, False]
            torch.testing.assert_close(logits[[0, 2]], right[[0, 2]])
        assert spiking.analog(x).isnan().all(1).tolist() == [False, True, False]
    with pytest.raises(ValueError, match="`x` must be finite"):
        simulate(spiking, x, "closed_form")
    with pytest.raises(ValueError, match="`x` must be finite"):
        fast.run(x)

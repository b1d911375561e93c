"""The block loops of integrate-and-fire neurons: compiled, in torch, and any memory layout."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from firstspike.neurons import soft_reset
from firstspike.neurons.soft_reset import burst_, dense_samples, like_sample, soft_reset_

STEPS, SHAPE = 7, (3, 5, 4, 6)  # N, C, H, W
DTYPES = [torch.float32, torch.float64, torch.bfloat16]


def layouts(x: Tensor) -> dict[str, Tensor]:
    """The same numbers in several memory layouts, (B, N, C, H, W)."""
    last = x.flatten(0, 1).contiguous(memory_format=torch.channels_last)
    return {
        "contiguous": x.clone(),
        "channels last": last.reshape(x.shape),
        "transposed": x.transpose(-1, -2).contiguous().transpose(-1, -2),
        "samples first": x.transpose(0, 1).contiguous().transpose(0, 1),
    }


def run(currents: Tensor, per_channel: bool, burst: bool) -> tuple[Tensor, ...]:
    """Values, potential, count of a block of random neurons that share their biases."""
    generator = torch.Generator().manual_seed(1)
    high = torch.float64 if currents.dtype == torch.float64 else torch.float32
    currents = dense_samples(currents)
    bias = torch.randn(1, *SHAPE[1:], generator=generator).to(currents.dtype).expand(SHAPE)
    threshold = torch.tensor(0.6, dtype=high)  # no bfloat16: what is delivered is rounded
    if per_channel:
        threshold = torch.tensor([0.5, 0.75, 1.0, 1.5, 2.0], dtype=currents.dtype).view(5, 1, 1)
    potential, count, gain = (
        like_sample(torch.full(SHAPE, x, dtype=high), currents) for x in (0.25, 0.0, 1.0)
    )
    bias, largest = like_sample(bias, currents), torch.tensor(4.0, dtype=currents.dtype)
    if burst:
        burst_(currents, potential, count, gain, bias, threshold, largest, 2.0)
    else:
        weights = torch.tensor([1.0, 0.5] * STEPS, dtype=high)[:STEPS]
        doses = torch.tensor([1.0, 0.0, 2.0] * STEPS, dtype=high)[:STEPS]
        soft_reset_(currents, potential, count, bias, threshold, weights, doses)
    return currents, potential, count


@pytest.mark.parametrize("burst", [False, True])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_compiled_loop_and_torch_agree_in_every_layout(
    dtype: torch.dtype, per_channel: bool, burst: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    currents = torch.randn(STEPS, *SHAPE, generator=torch.Generator().manual_seed(0)).to(dtype)
    with monkeypatch.context() as patch:
        patch.setattr(soft_reset, "_COMPILED", ())
        expected = run(currents.clone(), per_channel, burst)
    assert expected[2].sum() > 100
    for name, layout in layouts(currents).items():
        for got, want in zip(run(layout, per_channel, burst), expected):
            assert torch.equal(got, want), name


def test_what_shares_memory_is_copied_and_not_overwritten() -> None:
    one = torch.randn(1, *SHAPE)
    for shared in (one.expand(STEPS, *SHAPE), one[:, :1].expand(STEPS, *SHAPE)):
        before = shared.clone()
        dense = dense_samples(shared)
        dense.zero_()
        assert torch.equal(shared, before)
    own = torch.randn(STEPS, *SHAPE)
    assert dense_samples(own) is own
    assert dense_samples(own[:0]).shape == (0, *SHAPE)


def test_many_threads_give_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    currents = torch.randn(4, 20, 5, 40, 30, generator=torch.Generator().manual_seed(0))
    threshold, ones = torch.tensor(1.0), torch.ones(4)
    results = []
    for threads in (1, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        values, potential = currents.clone(), torch.zeros_like(currents[0])
        count, bias = torch.zeros_like(potential), torch.zeros_like(potential)
        soft_reset_(values, potential, count, bias, threshold, ones, ones)
        results.append((values, potential, count))
    for one, three in zip(*results):
        assert torch.equal(one, three)

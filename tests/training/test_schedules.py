"""Schedules against PyTorch's own schedulers and closed forms."""

import math
import warnings

import numpy as np
import pytest
import torch

from firstspike.training import Constant, Cosine, Milestones, OneCycle, Triangular


def torch_factors(build, steps: int) -> list[float]:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = build(optimizer)
    factors = []
    for _ in range(steps):
        factors.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            scheduler.step()
    return factors


def test_milestones_match_torch():
    reference = torch_factors(
        lambda o: torch.optim.lr_scheduler.MultiStepLR(o, [3, 7], gamma=0.2), 10
    )
    ours = [Milestones((3, 7), gamma=0.2).factor(e, 10) for e in range(10)]
    assert ours == pytest.approx(reference)


def test_cosine_matches_torch():
    reference = torch_factors(
        lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, T_max=10, eta_min=0.1), 11
    )
    ours = [Cosine(final_factor=0.1).factor(e, 10) for e in range(11)]
    assert ours == pytest.approx(reference)


def test_one_cycle_matches_torch():
    # torch counts steps 0..total-1 and rises for pct_start * total - 1 of them: with 101 steps and
    # a rise of 30 % + 1 step, its step i is our progress i / 100.
    reference = torch_factors(
        lambda o: torch.optim.lr_scheduler.OneCycleLR(
            o, 1.0, total_steps=101, pct_start=31 / 101, div_factor=25, final_div_factor=400
        ),
        101,
    )
    ours = [OneCycle(0.3, 1 / 25, 1e-4).factor(i / 10, 10) for i in range(101)]
    assert ours == pytest.approx(reference, abs=1e-9)


def test_warmup_rises_linearly_and_meets_the_cosine():
    schedule = Cosine(warmup_epochs=4)
    assert [schedule.factor(e, 20) for e in (1, 2, 3)] == [0.25, 0.5, 0.75]
    assert schedule.factor(12, 20) == pytest.approx((1 + math.cos(math.pi / 2)) / 2)


def test_constant():
    assert Constant().factor(5.5, 10) == 1.0


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: Cosine(warmup_epochs=-1), "`warmup_epochs` must be at least 0, got -1"),
        (lambda: Cosine(final_factor=2), "`final_factor` must lie between 0 and 1, got 2"),
        (lambda: OneCycle(warmup_fraction=1.0), "`warmup_fraction` must lie between"),
        (lambda: OneCycle(start_factor=-0.1), "`start_factor` must lie between 0 and 1"),
        (lambda: Milestones(()), "`epochs_at` must be positive and increasing"),
        (lambda: Milestones((5, 3)), "must be positive and increasing, got"),
        (lambda: Milestones((5,), gamma=0), "`gamma` must be positive, got 0"),
        (lambda: Cosine(warmup_epochs=5).factor(0, 5), "must be smaller than `epochs`"),
    ],
)
def test_nonsense_is_refused(build, message):
    with pytest.raises(ValueError, match=message):
        build()


def test_triangular_is_one_straight_line_up_and_one_down_in_every_cycle():
    schedule = Triangular(warmup_fraction=0.25, start_factor=0.1, cycles=(4, 8))
    for start, length in ((0, 4), (4, 8)):
        peak, end = start + 0.25 * length, start + length - 1e-9
        times = np.linspace(start, end, 50)
        expected = np.interp(times, (start, peak, end), (0.1, 1.0, 0.0))
        ours = [schedule.factor(float(time), 12) for time in times]
        assert ours == pytest.approx(expected.tolist(), abs=1e-6)
    assert schedule.factor(12.0, 12) == pytest.approx(0.0)


def test_triangular_refuses_cycles_that_do_not_fill_the_training():
    with pytest.raises(ValueError, match=r"must add up to the 10 epochs .* got \(4, 8\)"):
        Triangular(cycles=(4, 8)).factor(0.0, 10)
    with pytest.raises(ValueError, match="`cycles` must be epochs of at least 1 each"):
        Triangular(cycles=(4, 0))

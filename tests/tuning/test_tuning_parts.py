"""Budgets, spaces, settings and bounds: what a search is made of."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

import firstspike as fs
from firstspike.conversion import Calibration
from firstspike.tuning.budget import Limit, read_budget
from firstspike.tuning.intervals import difference_bounds, share_bounds
from firstspike.tuning.setting import Setting
from firstspike.tuning.space import RandomDraws, draw, read_space


# ---- budgets -------------------------------------------------------------------------------------
def test_a_budget_is_limits_joined_by_commas_or_and() -> None:
    limits = read_budget("accuracy_drop <= 0.01, steps <= 64 and spikes <= 3e3")
    assert limits[:2] == (Limit("accuracy_drop", "<=", 0.01), Limit("steps", "<=", 64.0))
    assert limits[2] == Limit("spikes", "<=", 3000.0)
    assert read_budget(["accuracy >= 0.9", "bits <= 8"])[1].excess({"bits": 32}) == 24
    assert read_budget("accuracy >= 0.9")[0].excess({"accuracy": 0.85}) == pytest.approx(0.05)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("accuracy_drop < 0.01", "`budget` must be limits such as"),
        ("accuracy_drop <= x", "`budget` must be limits such as"),
        ("", "`budget` must be limits such as"),
        ("acuracy >= 0.9", "`budget` must name one of accuracy, accuracy_drop"),
        ("accuracy <= 0.9", "must limit accuracy by >="),
        ("accuracy_drop >= 0.1", "must limit accuracy_drop by <="),
        ("steps <= 10", "must limit what may be lost"),
        ("accuracy >= 0.9, energy:cmos <= 3", "must name an energy table, one of"),
        ("accuracy >= 0.9, energy:truenorth <= 3", "must name a table that counts"),
        ("accuracy >= 0.9, steps:x <= 3", "`budget` must name one of"),
    ],
)
def test_budgets_that_make_no_sense(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_budget(text)


# ---- spaces --------------------------------------------------------------------------------------
def test_whatever_is_drawn_from_the_default_space_is_a_setting() -> None:
    space = read_space(None, ["bits", "mean_steps"])
    seen = set()
    for seed in range(200):
        plain = draw(space, RandomDraws(str(seed)), depth=4, facts={"lead": 5.0})
        setting = Setting.read(plain)
        kernel = getattr(setting.code, "kernel", None)
        said = setting.code.name if kernel is None else type(kernel).__name__
        seen.add((said, setting.bits, setting.margin is None))
        if kernel is None:
            assert isinstance(setting.normalization, fs.scales.Percentile)
            continue
        assert 4 <= setting.code.latency(4) <= 24 * 4 + 96
        if isinstance(setting.code.window, tuple):
            assert len(setting.code.window) == 4 and len(set(setting.code.window)) <= 3
    kernels = {"Linear", "Learned", "Exponential", "PowerOfTwo"}
    assert {said for said, _, _ in seen} == kernels | {"TemporalSwitch", "FewStep"}
    assert {bits for _, bits, _ in seen} == {None, 8, 6, 4} and len({m for *_, m in seen}) == 2


def test_what_nobody_asks_for_is_not_searched() -> None:
    plain = draw(read_space(None, ["energy"]), RandomDraws("0"), depth=2)
    assert plain["weights"] is None and plain["decide"] is None


def test_a_space_of_ones_own_replaces_keys(tmp_path: Path) -> None:
    file = tmp_path / "space.yaml"
    file.write_text(
        "code:\n  choose:\n"
        "  - {name: Rate, steps: {from: 8, to: 32, step: 8}}\n"
        "  - {name: TTFS, window: {from: 4, to: 8, groups: 2}}\n"
        "normalization: {name: Percentile, percentile: {choose: [99, 99.9]}}\n"
        "kernel_optimization:\n"
    )
    space = read_space(file)
    drawn = [draw(space, RandomDraws(str(seed)), depth=3) for seed in range(40)]
    assert {plain["code"]["name"] for plain in drawn} == {"Rate", "TTFS"}
    assert {p["code"]["steps"] for p in drawn if "steps" in p["code"]} == {8, 16, 24, 32}
    windows = [p["code"]["window"] for p in drawn if "window" in p["code"]]
    assert all(len(w) == 3 and w[0] == w[1] for w in windows)  # depths 1 and 2 are one group
    assert all(plain["kernel_optimization"] is None for plain in drawn)


@pytest.mark.parametrize(
    ("space", "message"),
    [
        ({"codes": {}}, "unknown key 'codes'. Known: code, normalization"),
        ({"code": {"choose": [{"name": "TTFZ"}]}}, "`code` must be one of"),
        ({"code": {"choose": []}}, "`choose` of code must list options"),
        ({"code": {"name": "TTFS", "windows": 3}}, "gives TTFS the unknown parameter 'windows'"),
        ({"code": {"name": "TTFS", "window": 4, "kernel": {"name": "Cubic"}}}, "`kernel` must be"),
        ({"code": {"name": "TTFS", "window": {"from": 8, "to": 4}}}, "code.window must go `from`"),
        ({"code": {"name": "TTFS", "window": {"from": 8}}}, "code.window must go `from`"),
        (
            {"code": {"name": "TTFS", "window": {"from": 2, "to": 4, "logs": True}}},
            "unknown key 'logs' beside its choice",
        ),
        (
            {"code": {"name": "TTFS", "offset": {"choose": [0.5], "times": "window"}}},
            "`times` of code.offset must name one of name, lead",
        ),
        ({"code": {"window": 4}}, "code must have a `name`, one of"),
        ({"code": {"choose": [{"name": "Rate"}, {"name": "Rate"}]}}, "names of their own"),
        ([1], "must be a mapping"),
        ({"weights": {"choose": [1], "else": 2}}, "has an `else` without a `when`"),
    ],
)
def test_spaces_that_make_no_sense(space: object, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        read_space(space)  # type: ignore[arg-type]


def test_random_draws_follow_from_the_seed() -> None:
    space = read_space(None)
    a, b, c = (draw(space, RandomDraws(seed), depth=3) for seed in ("0/4", "0/4", "0/5"))
    assert a == b != c


# ---- settings ------------------------------------------------------------------------------------
def test_the_lines_of_a_setting_make_the_same_network() -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(
        torch.nn.Linear(6, 8),
        torch.nn.ReLU(),
        torch.nn.Linear(8, 8),
        torch.nn.ReLU(),
        torch.nn.Linear(8, 3),
    )
    images = torch.rand(64, 6)
    calibration = Calibration(model, images, per_channel=True)
    dataset = (images, torch.arange(64) % 3)
    space = read_space(None, ["bits", "mean_steps"])
    for seed in (1, 2, 3, 5):
        plain = draw(space, RandomDraws(str(seed)), depth=2, facts={"lead": 0.1})
        setting = Setting.read(plain)
        names: dict = {"fs": fs, "model": model, "images": images, "dataset": dataset}
        exec(setting.python(), names)
        mine = setting.network(calibration)
        assert mine.code == names["network"].code
        for (name, a), (_, b) in zip(
            mine.state_dict().items(), names["network"].state_dict().items()
        ):
            assert torch.equal(a, b), name


# ---- bounds --------------------------------------------------------------------------------------
@pytest.mark.parametrize(("count", "n"), [(0, 20), (3, 20), (20, 20), (497, 500)])
def test_bounds_of_a_share_leave_the_tail_they_promise(count: int, n: int) -> None:
    low, high = share_bounds(count, n, 0.9)

    def at_least(k: int, p: float) -> float:
        return sum(math.comb(n, i) * p**i * (1 - p) ** (n - i) for i in range(k, n + 1))

    assert low <= count / n <= high
    if count:
        assert at_least(count, low) == pytest.approx(0.05, rel=1e-6)
    if count < n:
        assert 1 - at_least(count + 1, high) == pytest.approx(0.05, rel=1e-6)


def test_bounds_of_a_drop_hold_as_often_as_they_say() -> None:
    generator = torch.Generator().manual_seed(0)
    missed = 0
    for _ in range(200):
        draws = torch.rand(300, generator=generator)
        losses, gains = int((draws < 0.03).sum()), int((draws > 0.99).sum())
        low, high = difference_bounds(losses, gains, 300, 0.9)
        missed += not low <= 0.02 <= high
    assert missed <= 20

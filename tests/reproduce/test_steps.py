"""Parts of a reproduction by themselves: what networks are held to, and what decides."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import nn

import firstspike as fs
from firstspike.reproduce import SCALES, run, scales, steps
from firstspike.runs import Recipe, Run, train


@pytest.mark.parametrize(
    ("code", "held_to"),
    [
        (fs.TTFS(16), {"clock": 20}),
        (fs.TTFS(300), {"event": 20, "clock": 2}),
        (fs.TTFS(300, offset=150), {"clock": 20}),  # which events cannot run
        (fs.Rate(600), {}),
        (fs.FewStep(2), {"through_time": 20}),
    ],
    ids=str,
)
def test_long_networks_are_held_to_events_and_for_a_tenth_to_the_clock(code, held_to) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
    network = fs.convert(model, code, calibration=torch.rand(50, 4))
    assert run._engines(network, 20)[1] == held_to


@pytest.mark.parametrize("validate", [True, False])
def test_codes_settle_on_images_that_set_no_scales(validate: bool, tmp_path: Path) -> None:
    """On validation images or, where all of them trained, on training images, changed."""
    training = {"epochs": 1, "learning_rate": 0.003, "augmentation": {"name": "RandomFlip"}}
    recipe = Recipe({"name": "digits_cnn"}, {"name": "digits"}, training, validate=validate)
    train(recipe, tmp_path, progress=False)
    plan = {"code": {"name": "Rate", "steps": 8}, "settle": {"span": 2, "maximum": 8}}
    decided: list[fs.data.Dataset] = []

    def measure(network: fs.SpikingNetwork, dataset: fs.data.Dataset) -> fs.Result:
        decided.append(dataset)
        return fs.evaluate(network, dataset)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(steps, "evaluate", measure)
        scale = replace(SCALES["small"], calibration=30)
        network = steps._converted(plan, scale, tmp_path, 0, "cpu")
    images, calibration = decided[0], Run(tmp_path, "cpu").dataset("train").subset(30)
    assert images.split == ("validation" if validate else "train")
    where = network.origin["settling"]
    assert where["split"] == images.split and len(images) == where["samples"] == 30
    assert (where["augmentation"] is None) == validate
    assert not any((images.images == x).flatten(1).all(1).any() for x in calibration.images)
    known = Run(tmp_path, "cpu").dataset("train").subset(range(30, 60))
    same = (images.images == known.images).flatten(1).all(1)
    flipped = (images.images == known.images.flip(-1)).flatten(1).all(1)
    assert validate or (bool((same | flipped).all()) and 5 < int(flipped.sum()) < 25)


def test_a_network_settles_again_where_other_images_decide(tmp_path: Path) -> None:
    training = {"epochs": 1, "learning_rate": 0.003, "augmentation": {"name": "RandomFlip"}}
    recipe = Recipe({"name": "digits_cnn"}, {"name": "digits"}, training, validate=False)
    train(recipe, tmp_path / "ann", progress=False)
    plan = {"code": {"name": "Rate", "steps": 8}, "settle": {"span": 2, "maximum": 8}}
    setting = scales.Setting("digits", recipe, True)
    scale = replace(SCALES["small"], calibration=30)

    def made() -> tuple[int, str]:
        where = (tmp_path / "ann", tmp_path / "made", 0)
        network, _ = steps.make_network(plan, setting, scale, *where, device="cpu", progress=False)
        file = tmp_path / "made" / "network.safetensors"
        return file.stat().st_mtime_ns, str(network.origin["settling"]["augmentation"])

    first = made()
    assert made() == first and "0.5" in first[1]
    config = tmp_path / "ann" / "config.yaml"
    config.write_text(config.read_text().replace("probability: 0.5", "probability: 0.25"))
    later = made()
    assert later[0] > first[0] and "0.25" in later[1]


def test_settling_needs_images_that_set_no_scales(tmp_path: Path) -> None:
    training = {"epochs": 1, "learning_rate": 0.003}
    recipe = Recipe({"name": "digits_cnn"}, {"name": "digits"}, training, validate=False)
    train(recipe, tmp_path, progress=False)
    run = Run(tmp_path, "cpu")
    size = len(run.dataset("train"))
    assert len(steps._deciding(run, size - 10)) == 10
    with pytest.raises(ValueError, match=rf"beyond the {size:,} that set scales.*validate: true"):
        steps._deciding(run, size)

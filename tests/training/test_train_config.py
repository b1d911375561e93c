"""`TrainConfig`: refuses nonsense, survives YAML."""

import pytest
import yaml

from firstspike.data import (
    Compose,
    Cutout,
    RandomAffine,
    RandomFlip,
    RandomOperations,
    RandomShift,
)
from firstspike.training import (
    SGD,
    Adam,
    AdamW,
    Constant,
    Cosine,
    Milestones,
    OneCycle,
    TrainConfig,
)


@pytest.mark.parametrize(
    "config",
    [
        TrainConfig(),
        TrainConfig(optimizer=SGD(0.8, 5e-4, nesterov=False), schedule=Milestones((2, 5))),
        TrainConfig(optimizer=AdamW(betas=(0.8, 0.9)), schedule=OneCycle(), gradient_clip=1.0),
        TrainConfig(schedule=Constant(), augmentation=RandomShift(2), precision="bfloat16"),
        TrainConfig(augmentation=Compose(RandomFlip(0.3), Cutout(4)), patience=3, seed=7),
        TrainConfig(augmentation=Compose(RandomAffine(5.0), RandomOperations(1), Cutout(4))),
    ],
)
def test_round_trip_through_yaml(config):
    assert TrainConfig.from_dict(yaml.safe_load(yaml.safe_dump(config.to_dict()))) == config


def test_recipe_notation():
    config = TrainConfig.from_dict(
        {"optimizer": "SGD", "schedule": {"name": "Cosine", "warmup_epochs": 2}}
    )
    assert config.optimizer == SGD()
    assert config.schedule == Cosine(warmup_epochs=2)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epoch": 3}, "has no option 'epoch'. Options: epochs"),
        ({"optimizer": "lion"}, "`optimizer` must be one of SGD, Adam, AdamW, got 'lion'"),
        (
            {"optimizer": {"name": "SGD", "lr": 1}},
            "SGD cannot be made from .* parameters: momentum",
        ),
        ({"schedule": {"epochs_at": [1]}}, "`schedule` must be .* with one of Constant"),
        ({"augmentation": {"name": "Blur"}}, "`augmentation` must be one of .*RandomShift"),
        (
            {"augmentation": {"name": "RandomOperations", "policy": 1}},
            "parameters: count, strength",
        ),
    ],
)
def test_unknown_options_are_named(values, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig.from_dict(values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 0}, "`epochs` must be a positive integer, got 0"),
        ({"epochs": 2.5}, "`epochs` must be a positive integer, got 2.5"),
        ({"batch_size": True}, "`batch_size` must be a positive integer, got True"),
        ({"patience": 0}, "`patience` must be a positive integer, got 0"),
        ({"seed": -1}, "`seed` must be an integer of at least 0, got -1"),
        ({"learning_rate": 0.0}, "`learning_rate` must be a positive number, got 0.0"),
        ({"learning_rate": float("nan")}, "`learning_rate` must be a positive number, got nan"),
        ({"learning_rate": None}, "`learning_rate` must be a positive number, got None"),
        ({"gradient_clip": -1.0}, "`gradient_clip` must be a positive number, got -1.0"),
        ({"label_smoothing": 1.0}, r"`label_smoothing` must lie in \[0, 1\), got 1.0"),
        ({"precision": "float64"}, "`precision` must be one of auto, float32, bfloat16, float16"),
        ({"epochs": 3, "schedule": Cosine(warmup_epochs=3)}, "must be smaller than `epochs`"),
    ],
)
def test_nonsense_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        TrainConfig(**values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"optimizer": "SGD"}, r"`optimizer` must be a config object .* Pass for instance SGD\(\)"),
        ({"optimizer": Adam}, "`optimizer` must be a config object with a method `build`"),
        ({"schedule": 0.1}, "`schedule` must be a config object with a method `factor`"),
    ],
)
def test_wrong_types_are_refused(values, message):
    with pytest.raises(TypeError, match=message):
        TrainConfig(**values)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: SGD(momentum=1.0), r"`momentum` must lie in \[0, 1\), got 1.0"),
        (lambda: SGD(momentum=0.0), "`nesterov` must be False where `momentum` is 0"),
        (lambda: Adam(betas=(0.9,)), "`betas` must be two numbers"),
        (lambda: Adam(eps=0.0), "`eps` must be positive, got 0.0"),
        (lambda: AdamW(weight_decay=-1), "`weight_decay` must be at least 0, got -1"),
    ],
)
def test_optimizers_refuse_nonsense(build, message):
    with pytest.raises(ValueError, match=message):
        build()

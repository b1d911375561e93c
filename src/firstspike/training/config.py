"""`TrainConfig`: every choice of a training run that changes its result, as plain data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from firstspike.config import build, describe
from firstspike.training.averaging import Lookahead
from firstspike.training.optimizers import Adam, OptimizerConfig
from firstspike.training.schedules import Cosine, Schedule

if TYPE_CHECKING:
    from firstspike.data.dataset import Augmentation

Precision = Literal["auto", "float32", "bfloat16", "float16"]
Convolutions = Literal["direct", "winograd", "products"]


@dataclass(frozen=True)
class TrainConfig:
    """How to train; two runs with equal configs, data and model give the same weights on a CPU.

    Args:
        epochs: passes over the training set.
        batch_size: images per step.
        learning_rate: peak learning rate; the schedule multiplies it.
        optimizer: `SGD`, `Adam`, `AdamW`, or another config with `build(groups)`.
        schedule: `Constant`, `Cosine`, `OneCycle`, `Triangular`, `Milestones`, or another with
            `factor`.
        bias_rate: learning rate of biases and of other parameters of one dimension, relative to
            that of the weights; they have no weight decay.
        averaging: `Lookahead()`, or None for none.
        label_smoothing: share of the target spread evenly over all classes, in [0, 1).
        gradient_clip: largest norm of all gradients together; None leaves them alone.
        precision: `"auto"`, `"float32"`, or the type autocast uses in training. "auto" takes
            bfloat16 where the hardware multiplies it and a timed step confirms that it is faster.
            Validation and saved weights are float32. `"float16"` needs a GPU and scales the loss.
        convolutions: `"winograd"` and `"products"` compute the 3x3 convolutions of a training step
            on the CPU by `fast_convolutions`: the first is faster where the processor has AVX2 and
            no more, the second on maps of at most 16 pixels (4x4) and 128 channels or more.
        synchronize_batch_norm: with several processes, take the statistics of batch norm from all
            of them, not from each one's share of the batch.
        compile: run the training step's model through `torch.compile`.
        channels_last: memory order of images and convolution weights; often faster on GPUs.
        seed: of the data order, the augmentation and torch's own generator (dropout).
        augmentation: from `firstspike.data`, such as `RandomShift(2)`, or in the style of
            AutoAugment `RandomOperations()`; several through `Compose`.
        drop_last: leave out a last batch smaller than `batch_size` (batch norm cannot take one
            image).
        patience: stop after so many epochs without a better validation accuracy; None never stops.

    Raises:
        ValueError: naming the argument, the rule and the value.

    >>> from firstspike.training import SGD, OneCycle
    >>> config = TrainConfig(epochs=12, learning_rate=0.1, optimizer=SGD(), schedule=OneCycle())
    >>> TrainConfig.from_dict(config.to_dict()) == config
    True
    """

    epochs: int = 10
    batch_size: int = 128
    learning_rate: float = 1e-3
    optimizer: OptimizerConfig = field(default_factory=Adam)
    schedule: Schedule = field(default_factory=Cosine)
    bias_rate: float = 1.0
    averaging: Lookahead | None = None
    label_smoothing: float = 0.0
    gradient_clip: float | None = None
    precision: Precision = "float32"
    convolutions: Convolutions = "direct"
    synchronize_batch_norm: bool = False
    compile: bool = False
    channels_last: bool = False
    seed: int = 0
    augmentation: Augmentation | None = None
    drop_last: bool = False
    patience: int | None = None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size", "patience"):
            _check_count(name, getattr(self, name), optional=name == "patience")
        if isinstance(self.seed, bool) or not isinstance(self.seed, int) or self.seed < 0:
            raise ValueError(f"`seed` must be an integer of at least 0, got {self.seed!r}. Pass 0.")
        for name in ("learning_rate", "bias_rate", "gradient_clip"):
            value = getattr(self, name)
            if not (_is_positive(value) or (value is None and name == "gradient_clip")):
                raise ValueError(
                    f"`{name}` must be a positive number, got {value!r}. "
                    "Pass for instance 1e-3 with Adam or 0.1 with SGD."
                )
        if not 0 <= self.label_smoothing < 1:
            raise ValueError(
                f"`label_smoothing` must lie in [0, 1), got {self.label_smoothing}. "
                "Pass 0 for none; 0.1 is usual."
            )
        if self.precision not in get_args(Precision):
            raise ValueError(
                f"`precision` must be one of {', '.join(get_args(Precision))}, "
                f"got {self.precision!r}. Pass 'float32' when in doubt."
            )
        if self.convolutions not in get_args(Convolutions):
            raise ValueError(
                f"`convolutions` must be one of {', '.join(get_args(Convolutions))}, "
                f"got {self.convolutions!r}. Pass 'direct' when in doubt."
            )
        if self.compile and self.convolutions != "direct":
            raise ValueError(
                f"`convolutions` must be 'direct' with compile=True, got {self.convolutions!r}. "
                "Leave one of them out."
            )
        for name, verb in (("optimizer", "build"), ("schedule", "factor")):
            value = getattr(self, name)
            if isinstance(value, type) or not callable(getattr(value, verb, None)):
                raise TypeError(
                    f"`{name}` must be a config object with a method `{verb}`, got {value!r}. "
                    f"Pass for instance {'SGD()' if name == 'optimizer' else 'Cosine()'}."
                )
        self.schedule.factor(0.0, self.epochs)  # refuses a warm-up longer than the training

    def to_dict(self) -> dict[str, Any]:
        """The config as numbers, strings, lists and dicts, fit for YAML and JSON."""
        return {f.name: describe(getattr(self, f.name)) for f in dataclasses.fields(self)}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainConfig:
        """Config from `to_dict` or a recipe; objects are `{"name": "SGD", "momentum": 0.9}`."""
        options = dict(values)
        known = [f.name for f in dataclasses.fields(cls)]
        for name in options:
            if name not in known:
                raise ValueError(
                    f"the training config has no option {name!r}. Options: {', '.join(known)}."
                )
        for name in ("optimizer", "schedule", "averaging"):
            if options.get(name) is not None:
                options[name] = build(name, options[name])
        options["augmentation"] = _augmentation(options.get("augmentation"))
        return cls(**options)


def _augmentation(value: Any) -> Augmentation | None:
    """Augmentation from its name and options, or from a list of such; objects stay as they are."""
    from firstspike.data import Compose

    if value is None or callable(value):
        return value
    if isinstance(value, (list, tuple)):
        return Compose(*filter(None, map(_augmentation, value)))
    made: Augmentation = build("augmentation", value)
    return made


def _is_positive(value: Any) -> bool:
    return isinstance(value, (int, float)) and 0 < value < float("inf")


def _check_count(name: str, value: Any, *, optional: bool) -> None:
    if optional and value is None:
        return
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise ValueError(f"`{name}` must be a positive integer, got {value!r}. Pass 1 or more.")

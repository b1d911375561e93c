"""Who is told of a training: callbacks, the writers, the learning curve, progress."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest
from small_task import make_model, make_set

from firstspike._watch import Watch
from firstspike.config import build
from firstspike.plots import plot_learning_curve
from firstspike.training import Callback, TensorBoard, TrainConfig, WandB, fit

TRAINING, VALIDATION = make_set(60, 0), make_set(30, 1)
CONFIG = TrainConfig(epochs=3, batch_size=20, learning_rate=0.01)


class Notes(Callback):
    """Writes down what it is told."""

    def __init__(self) -> None:
        self.told: list = []

    def on_start(self, settings, history) -> None:
        self.told.append(("start", settings["training"]["epochs"], len(history)))

    def on_epoch(self, record, model) -> None:
        self.told.append(("epoch", record["epoch"], model.training))

    def on_end(self, result) -> None:
        self.told.append(("end", result.best_epoch, len(result.history)))


class Stops(Notes):
    """Ends the training as a person would."""

    def on_epoch(self, record, model) -> None:
        super().on_epoch(record, model)
        if record["epoch"] == 2:
            raise KeyboardInterrupt


def test_callbacks_hear_the_start_every_epoch_and_the_end() -> None:
    notes = Notes()
    result = fit(make_model(), TRAINING, VALIDATION, CONFIG, progress=False, callbacks=[notes])
    assert [note[:2] for note in notes.told] == [
        *[("start", 3), ("epoch", 1), ("epoch", 2), ("epoch", 3)],
        ("end", result.best_epoch),
    ]


def test_a_resumed_training_tells_of_what_is_still_to_be_done(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        fit(make_model(), TRAINING, VALIDATION, CONFIG, run_dir=tmp_path, progress=False,
            callbacks=[Stops()])  # fmt: skip
    notes = Notes()
    again = fit(make_model(), TRAINING, VALIDATION, CONFIG, run_dir=tmp_path, progress=False,
                callbacks=[notes])  # fmt: skip
    assert notes.told[0] == ("start", 3, 2) and notes.told[1][:2] == ("epoch", 3)
    whole = fit(make_model(), TRAINING, VALIDATION, CONFIG, progress=False)
    keep = ("epoch", "train_loss", "validation_loss", "validation_accuracy")
    assert [[r[k] for k in keep] for r in again.history] == [
        [r[k] for k in keep] for r in whole.history
    ]


class Writer:
    """Stands in for torch's SummaryWriter."""

    made: list = []  # noqa: RUF012

    def __init__(self, folder: str, purge_step: int) -> None:
        self.scalars: dict = {}
        self.folder, self.purge_step, self.open = folder, purge_step, True
        Writer.made.append(self)

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.scalars[name, step] = value

    def add_text(self, name: str, text: str, step: int) -> None:
        self.text = text

    def flush(self) -> None:
        assert self.open

    def close(self) -> None:
        self.open = False


def test_tensorboard_gets_every_number(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    callback = build("callback", f"TensorBoard({str(tmp_path)!r})")
    result = fit(make_model(), TRAINING, VALIDATION, CONFIG, progress=False, callbacks=[callback])
    writer = Writer.made[-1]
    for record in result.history:
        for name, value in record.items():
            if name != "epoch":
                assert writer.scalars[name, record["epoch"]] == value
    assert (writer.folder, writer.purge_step, writer.open) == (str(tmp_path), 1, False)
    assert "'epochs': 3" in writer.text


def test_weights_and_biases_gets_every_number(monkeypatch: pytest.MonkeyPatch) -> None:
    logged: list = []
    run = types.SimpleNamespace(
        log=lambda numbers, step: logged.append((step, numbers)), summary={}, finish=lambda: None
    )
    asked: dict = {}
    module = types.ModuleType("wandb")
    module.init = lambda **options: asked.update(options) or run  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "wandb", module)
    result = fit(
        *(make_model(), TRAINING, VALIDATION, CONFIG),
        progress=False,
        callbacks=[WandB("digits", mode="offline")],
    )
    assert (asked["project"], asked["mode"]) == ("digits", "offline")
    assert asked["config"]["training"]["epochs"] == 3
    assert [step for step, _ in logged] == [1, 2, 3]
    assert logged[0][1]["train_loss"] == result.history[0]["train_loss"]
    assert run.summary["best_epoch"] == result.best_epoch


@pytest.mark.parametrize(
    ("make", "module"),
    [(lambda: TensorBoard("log"), "torch.utils.tensorboard"), (lambda: WandB("x"), "wandb")],
)
def test_a_missing_writer_names_the_command(make, module, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, module, None)
    name = module.rpartition(".")[2]
    with pytest.raises(ModuleNotFoundError, match=rf"pip install 'firstspike\[{name}\]'"):
        make()


def test_the_learning_curve_marks_the_epoch_that_is_kept() -> None:
    result = fit(make_model(), TRAINING, VALIDATION, CONFIG, progress=False)
    _, axes = plot_learning_curve(result.history)
    train, validation, best = axes[1].get_lines()
    assert list(train.get_ydata()) == [100 * r["train_accuracy"] for r in result.history]
    assert list(validation.get_ydata()) == [100 * r["validation_accuracy"] for r in result.history]
    assert list(best.get_xdata()) == [result.best_epoch]
    with pytest.raises(ValueError, match="history"):
        plot_learning_curve([])


def test_long_work_writes_a_line_now_and_then(capfd: pytest.CaptureFixture[str]) -> None:
    with Watch(True, 1000, "evaluating", line_seconds=0.0) as watch:
        watch.advance(250)
        watch.advance(250)
    assert capfd.readouterr().err == "evaluating: 250 of 1,000\nevaluating: 500 of 1,000\n"
    with Watch(True, 1000, "evaluating") as watch:  # half a minute has not passed
        watch.advance(250)
    with Watch(False, 1000, "evaluating", line_seconds=0.0) as watch:
        watch.advance(250)
    assert capfd.readouterr().err == ""

"""Who is told how a training goes: callbacks of `fit`, and writers for TensorBoard and W&B."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from firstspike.config import kind, register

if TYPE_CHECKING:
    from torch import nn

    from firstspike.training.loop import FitResult


@kind("callback")
class Callback:
    """What `fit` calls. Under torchrun the first process calls it, the others do not.

    A training that is resumed calls `on_epoch` for the epochs that are still to be done; those
    before are in `history`. Callbacks watch: what they change in the model is not part of what
    makes a run exact.
    """

    def on_start(self, settings: Mapping[str, Any], history: list[dict[str, Any]]) -> None:
        """Before the first step.

        Args:
            settings: what `config.yaml` holds.
            history: a record for each epoch that was done before.
        """

    def on_epoch(self, record: Mapping[str, Any], model: nn.Module) -> None:
        """After an epoch is validated and saved; `record` is its line of `metrics.jsonl`."""

    def on_end(self, result: FitResult) -> None:
        """When the model has the weights of the best epoch."""


@register
class TensorBoard(Callback):
    """Every number of every epoch as a scalar for TensorBoard.

    Args:
        folder: of the event files.

    Raises:
        ModuleNotFoundError: if the package tensorboard is missing; names the command.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise _missing("tensorboard") from error
        self._make: Any = SummaryWriter
        self._writer: Any = None

    def on_start(self, settings: Mapping[str, Any], history: list[dict[str, Any]]) -> None:
        # what an interrupted run wrote beyond its last checkpoint is hidden
        self._writer = self._make(str(self.folder), purge_step=len(history) + 1)
        self._writer.add_text("settings", f"```\n{dict(settings)}\n```", len(history))

    def on_epoch(self, record: Mapping[str, Any], model: nn.Module) -> None:
        for name, value in _numbers(record).items():
            self._writer.add_scalar(name, value, record["epoch"])
        self._writer.flush()

    def on_end(self, result: FitResult) -> None:
        self._writer.close()


@register
class WandB(Callback):
    """Every number of every epoch for Weights & Biases.

    Args:
        project: where the run appears.
        name: of the run; Weights & Biases makes one up by default.
        mode: "online", "offline" or "disabled", as `wandb.init` takes it; None leaves it to the
            environment (`WANDB_MODE`).

    Raises:
        ModuleNotFoundError: if the package wandb is missing; names the command.
    """

    def __init__(self, project: str, name: str | None = None, mode: str | None = None) -> None:
        self.project, self.name, self.mode = project, name, mode
        try:
            import wandb
        except ImportError as error:
            raise _missing("wandb") from error
        self._wandb: Any = wandb
        self._run: Any = None

    def on_start(self, settings: Mapping[str, Any], history: list[dict[str, Any]]) -> None:
        self._run = self._wandb.init(
            project=self.project, name=self.name, mode=self.mode, config=dict(settings)
        )

    def on_epoch(self, record: Mapping[str, Any], model: nn.Module) -> None:
        self._run.log(_numbers(record), step=record["epoch"])

    def on_end(self, result: FitResult) -> None:
        self._run.summary["best_epoch"] = result.best_epoch
        self._run.summary["best_validation_accuracy"] = result.best_validation_accuracy
        self._run.finish()


def _numbers(record: Mapping[str, Any]) -> dict[str, float]:
    return {
        name: value
        for name, value in record.items()
        if name != "epoch" and isinstance(value, (int, float))
    }


def _missing(package: str) -> ModuleNotFoundError:
    return ModuleNotFoundError(
        f"this callback needs {package}, which is not installed: "
        f"pip install 'firstspike[{package}]'."
    )

"""The state of a training and its steps, driven by `fit`."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from firstspike._reading import reading
from firstspike._tensors import load_into
from firstspike._watch import Watch
from firstspike.training._checks import DivergenceError, diverged, non_finite
from firstspike.training._run_folder import RunFolder
from firstspike.training._state import (
    Tally,
    load_optimizer,
    load_random_state,
    optimizer_tensors,
    prefixed,
    random_state,
    unprefixed,
)
from firstspike.training.config import TrainConfig
from firstspike.training.distributed import (
    ALONE,
    World,
    agree_on_buffers,
    check_batches,
    shared_score,
    synchronized_batch_norm,
)
from firstspike.training.fast_convolution import fast_convolutions
from firstspike.training.method import Method
from firstspike.training.precision import choose_precision

if TYPE_CHECKING:
    from firstspike.data import Dataset

_CHECK_STEPS = 32  # steps between two looks at the loss for NaN
_EVALUATION_BATCH = 500
_RESTART = "Restore a copy, or pass resume='restart' to begin again."


class Trainer:
    """The loop's state and its steps. `epoch` counts from 1; `batch` batches of it are done."""

    def __init__(
        self,
        model: nn.Module,
        train_set: Dataset,
        validation_set: Dataset | None,
        config: TrainConfig,
        method: Method,
        run: RunFolder | None,
        device: torch.device,
        checkpoint_seconds: float,
        world: World = ALONE,
    ) -> None:
        self.world = world
        self.model, self.config, self.method = model, config, method
        self.train_set, self.validation_set = train_set, validation_set
        self.run, self.device, self.checkpoint_seconds = run, device, checkpoint_seconds
        method.start(model, config)
        groups = method.parameter_groups(model)
        self.rates = [group["lr"] for group in groups]
        self.optimizer = config.optimizer.build(groups)
        self.parameters = [p for g in self.optimizer.param_groups for p in g["params"]]
        self.slow = [p.detach().clone() for p in self.parameters] if config.averaging else []
        self.forward: nn.Module = torch.compile(model) if config.compile else model  # type: ignore[assignment]
        self.precision, self.said = str(config.precision), ""
        if config.precision == "auto":
            self.precision, self.said = world.from_first(
                lambda: choose_precision(self._forward_loss, model, train_set, config)
            )
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.precision == "float16")
        self.steps = train_set.steps(config.batch_size, config.drop_last)
        if self.steps == 0:
            raise ValueError(
                f"`batch_size` must not exceed the {len(train_set)} training images with "
                f"drop_last=True, got {config.batch_size}. Pass a smaller one."
            )
        check_batches(len(train_set), config.batch_size, config.drop_last, world)
        self.epoch, self.batch, self.seconds = 1, 0, 0.0
        self.tally = Tally(device)
        self.history: list[dict[str, Any]] = []
        self.best: dict[str, Any] = {"epoch": 0, "validation_accuracy": None}
        self.best_weights: dict[str, Tensor] = {}

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or `patience` is at its end."""
        done = self.epoch - 1
        patience = self.config.patience
        stalled = patience is not None and done - self.best["epoch"] >= patience and done > 0
        return done >= self.config.epochs or stalled

    def train_epoch(self, bar: Watch) -> None:
        """The rest of the current epoch, its validation and its checkpoint."""
        last_checkpoint = time.perf_counter()
        begin = last_checkpoint - self.seconds
        if self.batch == 0:
            self._enter_epoch()
        for images, labels in self._batches():
            self._step(images, labels)
            self.batch += 1
            if self.batch % _CHECK_STEPS == 0:
                self._check_loss()
            now = time.perf_counter()
            if self._checkpoint_due(now - last_checkpoint):
                self.seconds = now - begin
                self._save_checkpoint()
                last_checkpoint = time.perf_counter()
            if bar.due():
                bar.show((self.epoch - 1) * self.steps + self.batch, self._caption())
        self._check_loss()
        self.seconds = time.perf_counter() - begin
        self._finish_epoch()

    def _enter_epoch(self) -> None:
        self.model.train()
        self.method.on_epoch_start(self.model, self.epoch)

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        """The epoch's remaining batches; their order and augmentation follow from the seed."""
        from firstspike.data.augmentation import at_epoch

        generator = torch.Generator().manual_seed((self.config.seed << 20) + self.epoch)
        return self.train_set.batches(
            self.config.batch_size,
            shuffle=True,
            generator=generator,
            augmentation=at_epoch(self.config.augmentation, self.epoch),
            drop_last=self.config.drop_last,
            start_batch=self.batch,
        )

    def _factor(self, step: int) -> float:
        """The schedule's factor in the middle of a step of the current epoch, from 1."""
        progress = self.epoch - 1 + (step - 0.5) / self.steps
        return self.config.schedule.factor(progress, self.config.epochs)

    def _diverged(self, step: int, what: list[str]) -> DivergenceError:
        where = f"step {step} of {self.steps}"
        return diverged(self.epoch, where, self.rates[0] * self._factor(step), what)

    def _checkpoint_due(self, seconds: float) -> bool:
        """Whether the first process finds it time for a checkpoint."""
        if self.run is None:
            return False
        due = torch.tensor(float(self.world.first and seconds >= self.checkpoint_seconds))
        self.world.sum_([due := due.to(self.device)])
        return bool(due)

    def _step(self, images: Tensor, labels: Tensor) -> None:
        """One step of the optimizer; every process works on its share of the batch."""
        config, world = self.config, self.world
        samples = len(labels)
        images, labels = world.share(images), world.share(labels)
        synchronizes = world.size > 1 and config.synchronize_batch_norm
        with synchronized_batch_norm(world) if synchronizes else contextlib.nullcontext():
            loss, logits = self._forward_loss(images, labels, self.precision)
            loss = loss * (len(labels) / samples)
            self.optimizer.zero_grad(set_to_none=True)
            self.scaler.scale(loss).backward()
        world.sum_([p.grad for p in self.parameters if p.grad is not None])
        if config.gradient_clip is not None:
            self.scaler.unscale_(self.optimizer)
            nn.utils.clip_grad_norm_(self.parameters, config.gradient_clip)
        factor = self._factor(self.batch + 1)
        for group, rate in zip(self.optimizer.param_groups, self.rates):
            group["lr"] = rate * factor
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.method.after_step(self.model)
        self._average(factor)
        agree_on_buffers(self.model, world)
        correct = (logits.detach().argmax(1) == labels).sum()
        loss = loss.detach()
        world.sum_([loss, correct])
        self.tally.add(loss, correct, samples, self.batch + 1)

    def _forward_loss(
        self, images: Tensor, labels: Tensor, precision: str
    ) -> tuple[Tensor, Tensor]:
        """Loss and logits of a batch, computed in `precision`."""
        config = self.config
        if config.channels_last:
            images = images.contiguous(memory_format=torch.channels_last)
        half = torch.float16 if precision == "float16" else torch.bfloat16
        with contextlib.ExitStack() as stack:
            if config.convolutions != "direct":
                stack.enter_context(fast_convolutions(config.convolutions))
            if precision != "float32":
                stack.enter_context(torch.autocast(self.device.type, half))
            return self.method.loss(self.forward, images, labels)

    @torch.no_grad()
    def _average(self, factor: float) -> None:
        """Let fast and slow weights meet, where the config asks for it and it is time."""
        averaging = self.config.averaging
        step = (self.epoch - 1) * self.steps + self.batch + 1
        if averaging is None or step % averaging.every:
            return
        for slow, fast in zip(self.slow, self.parameters):
            fast.copy_(slow.lerp_(fast, 1 - averaging.weight(factor)))

    def _finish_epoch(self) -> None:
        """Validate, record, select, save."""
        training_seconds = self.seconds
        start = time.perf_counter()
        self._check_weights()
        validated = self._validated()
        train_loss, train_accuracy = self.tally.means()
        extra = self.method.epoch_metrics(self.model)
        self.history.append(
            {
                "epoch": self.epoch,
                "learning_rate": self.rates[0] * self._factor(self.steps),
                "train_loss": train_loss,
                "train_accuracy": train_accuracy,
                **validated,
                **{k: v if math.isfinite(v) else None for k, v in extra.items()},
                "seconds": training_seconds + time.perf_counter() - start,
                "samples_per_second": self.tally.samples / training_seconds,
            }
        )
        accuracy, best = validated.get("validation_accuracy"), self.best["validation_accuracy"]
        better = accuracy is None or best is None or accuracy > best
        if better:
            self.best = {"epoch": self.epoch, "validation_accuracy": accuracy}
        self.epoch, self.batch, self.seconds = self.epoch + 1, 0, 0.0
        self.tally = Tally(self.device)
        if self.run is not None:
            self._save_checkpoint()
            self._publish(self.run, better)
        elif better and self.validation_set is not None:
            self.best_weights = {k: v.clone() for k, v in self.model.state_dict().items()}

    def _validated(self) -> dict[str, float]:
        """Loss and accuracy on the validation set; nothing without one."""
        if self.validation_set is None:
            return {}
        accuracy, loss = shared_score(
            self.model, self.validation_set, _EVALUATION_BATCH, self.world
        )
        if not math.isfinite(loss):
            raise self._diverged(self.steps, ["the validation loss"])
        return {"validation_loss": loss, "validation_accuracy": accuracy}

    def _publish(self, run: RunFolder, better: bool) -> None:
        """Write the files that follow from the checkpoint."""
        if not self.world.first:
            return
        if better:
            run.save_best(self.model.state_dict(), self.best)
        run.save_metrics(self.history)

    def load_best(self) -> None:
        """Give the model the weights of the best epoch; without validation that is the last."""
        run = self.run
        if run is None and self.validation_set is None:
            return
        weights = self.best_weights if run is None else self.world.from_first(run.load_best)
        self.model.load_state_dict(weights)

    def _check_loss(self) -> None:
        step = int(self.tally.first_bad)
        if step >= 0:
            raise self._diverged(step, ["the loss"])

    def _check_weights(self) -> None:
        """Never save or select weights that are not finite."""
        bad = non_finite({**self.model.state_dict(), **self.method.state_dict()})
        if bad:
            raise self._diverged(self.batch, bad[:5])

    def _save_checkpoint(self) -> None:
        assert self.run is not None
        self._check_loss()
        self._check_weights()
        tensors = {
            **prefixed("model", self.model.state_dict()),
            **prefixed("optimizer", optimizer_tensors(self.optimizer)),
            **prefixed("method", self.method.state_dict()),
            **prefixed("slow", {str(i): tensor for i, tensor in enumerate(self.slow)}),
            **self._random_states(),
            **prefixed("tally", self.tally.tensors()),
        }
        state = {
            "epoch": self.epoch,
            "batch": self.batch,
            "seconds": self.seconds,
            "samples": self.tally.samples,
            "history": self.history,
            "best": self.best,
            "scaler": self.scaler.state_dict(),
            "processes": self.world.size,
        }
        if self.world.first:
            self.run.save_checkpoint(tensors, state)

    def _random_states(self) -> dict[str, Tensor]:
        """Generators of all processes, `random.*` for the first and `random1.*`, ... for others."""
        own = random_state(self.device)
        states = {name: self.world.gather(tensor) for name, tensor in own.items()}
        return {
            f"random{rank or ''}.{name}": tensors[rank]
            for name, tensors in states.items()
            for rank in range(self.world.size)
        }

    def resume(self, run: RunFolder) -> None:
        """Continue from the run's last checkpoint, if there is one."""
        loaded = self.world.from_first(run.load_checkpoint)
        if loaded is None:
            return
        tensors, state = loaded
        processes = state.get("processes", 1)
        if processes != self.world.size:
            raise ValueError(
                f"the run in {run.path} must go on with the {processes} process(es) it began "
                f"with, got {self.world.size}. Start as many with torchrun, or pass "
                "resume='restart' to begin again."
            )
        with reading(run.checkpoint, "a whole checkpoint", _RESTART):
            self.epoch, self.batch, self.seconds = state["epoch"], state["batch"], state["seconds"]
            self.history, self.best = state["history"], state["best"]
            if self.batch > 0:
                self._enter_epoch()
        try:
            load_into(self.model, unprefixed("model", tensors))
        except (RuntimeError, ValueError) as error:
            raise ValueError(
                f"the checkpoint in {run.path} is of another model: {error}. Build the model it "
                "was trained with, pass another `run_dir`, or resume='restart' to begin again."
            ) from error
        with reading(run.checkpoint, "a whole checkpoint", _RESTART):
            load_optimizer(self.optimizer, unprefixed("optimizer", tensors))
            self.method.load_state_dict(unprefixed("method", tensors))
            for number, tensor in unprefixed("slow", tensors).items():
                self.slow[int(number)].copy_(tensor)
            load_random_state(unprefixed(f"random{self.world.rank or ''}", tensors), self.device)
            self.tally.load(unprefixed("tally", tensors).items(), state["samples"])
            self.scaler.load_state_dict(state["scaler"])
        if self.batch == 0:  # the process may have been killed before it wrote these
            self._publish(run, better=self.best["epoch"] == self.epoch - 1)

    def epoch_line(self) -> str:
        """The last epoch in one line, for logs."""
        record, best = self.history[-1], self.best
        validation = (
            ""
            if self.validation_set is None
            else (
                f"validation {100 * record['validation_accuracy']:.2f} % "
                f"(best {100 * best['validation_accuracy']:.2f} % in epoch {best['epoch']}), "
            )
        )
        return (
            f"epoch {record['epoch']}/{self.config.epochs}: loss {record['train_loss']:.4f}, "
            f"{validation}{record['seconds']:.0f} s"
        )

    def _caption(self) -> str:
        accuracy = self.best["validation_accuracy"]
        known = self.best["epoch"] and accuracy is not None
        best = "" if not known else f", best on validation {100 * accuracy:.2f} %"
        loss = self.tally.means()[0]
        return f"epoch {self.epoch}/{self.config.epochs}, loss {loss:.4f}{best}"

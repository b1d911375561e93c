"""`fit` against a naive loop, and each of its options and hooks."""

import json
import re
from dataclasses import dataclass

import pytest
import torch
import yaml
from small_task import make_model
from torch import nn

from firstspike._tensors import load_tensors
from firstspike.data import Cutout
from firstspike.plots import plot_learning_curve
from firstspike.training import (
    SGD,
    Adam,
    AdamW,
    Constant,
    Cosine,
    DivergenceError,
    Method,
    TrainConfig,
    evaluate_accuracy,
    fit,
)

FAST = TrainConfig(epochs=3, batch_size=16, learning_rate=0.02)


@pytest.mark.parametrize("clip", [None, 0.5])
def test_equals_a_naive_loop(model, train_set, validation_set, tmp_path, clip):
    config = TrainConfig(
        epochs=2, batch_size=16, learning_rate=0.1, optimizer=SGD(0.9), seed=4,
        schedule=Constant(), label_smoothing=0.1, gradient_clip=clip,
    )  # fmt: skip
    naive = make_model()
    optimizer = torch.optim.SGD(naive.parameters(), 0.1, momentum=0.9, nesterov=True, fused=True)
    torch.manual_seed(4)
    losses = [0.0, 0.0]
    for epoch in range(2):
        order = torch.Generator().manual_seed((4 << 20) + epoch + 1)
        naive.train()
        for x, y in train_set.batches(16, shuffle=True, generator=order):
            loss = nn.functional.cross_entropy(naive(x), y, label_smoothing=0.1)
            optimizer.zero_grad()
            loss.backward()
            if clip:
                nn.utils.clip_grad_norm_(naive.parameters(), clip)
            optimizer.step()
            losses[epoch] += loss.item() * len(y) / len(train_set)
    correct = naive.eval()(validation_set.images).argmax(1) == validation_set.labels
    result = fit(model, train_set, validation_set, config, run_dir=tmp_path)
    assert [line["train_loss"] for line in result.history] == pytest.approx(losses, rel=1e-6)
    assert result.history[-1]["validation_accuracy"] == pytest.approx(correct.float().mean().item())
    last, _ = load_tensors(tmp_path / "last.safetensors")
    for name, value in naive.state_dict().items():  # the order of a norm's terms may differ
        assert torch.allclose(last[f"model.{name}"], value, rtol=0, atol=1e-6 if clip else 0)


def test_learns_and_writes_its_files(model, train_set, validation_set, tmp_path):
    description = {"model": {"name": "tiny"}, "data": {"name": "patterns"}}
    config = TrainConfig(epochs=8, batch_size=16, learning_rate=0.02, augmentation=Cutout(1))
    result = fit(
        model, train_set, validation_set, config, run_dir=tmp_path, description=description
    )
    assert result.best_validation_accuracy > 0.8
    stored = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert TrainConfig.from_dict(stored["training"]) == config
    assert stored["model"] == {"name": "tiny"} and stored["sets"]["train"]["samples"] == 90
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert lines == result.history
    assert {"epoch", "learning_rate", "train_loss", "train_accuracy", "validation_loss",
            "validation_accuracy", "seconds", "samples_per_second"} == set(lines[0])  # fmt: skip
    weights, about = load_tensors(tmp_path / "model.safetensors")
    assert about["epoch"] == result.best_epoch and about["model"] == {"name": "tiny"}
    for name, value in model.state_dict().items():
        assert torch.equal(value, weights[name])
    assert not model.training
    accuracy = evaluate_accuracy(model, validation_set)
    assert accuracy == result.best_validation_accuracy


def test_same_seed_same_weights_and_callers_random_state_kept(train_set, validation_set):
    config = TrainConfig(epochs=2, batch_size=16, augmentation=Cutout(2))
    before = torch.get_rng_state()
    models = [make_model(), make_model(), make_model()]
    for model, seed in zip(models, (1, 1, 2)):
        torch.rand(seed)  # whatever the caller drew before
        state = torch.get_rng_state()
        fit(model, train_set, validation_set, TrainConfig(**{**vars(config), "seed": seed}))
        assert torch.equal(torch.get_rng_state(), state)
    a, b, c = (m[0].weight for m in models)
    assert torch.equal(a, b) and not torch.equal(a, c)
    assert not torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize(
    ("accuracies", "patience", "best", "epochs"),
    [
        ([0.1, 0.5, 0.5, 0.3], None, 2, 4),  # of equals the earlier
        ([0.5, 0.4, 0.6, 0.2], None, 3, 4),
        ([0.5, 0.4, 0.5, 0.6], 2, 1, 3),
        ([0.0, 0.0, 0.0, 0.0], 1, 1, 2),
    ],
)
def test_selects_the_best_epoch(
    model, train_set, validation_set, monkeypatch, tmp_path, accuracies, patience, best, epochs
):
    scores = iter(accuracies)
    seen = []

    def score(model, dataset, batch_size, world):
        seen.append({k: v.clone() for k, v in model.state_dict().items()})
        return next(scores), 1.0

    monkeypatch.setattr("firstspike.training._trainer.shared_score", score)
    config = TrainConfig(epochs=4, batch_size=30, patience=patience)
    for run_dir in (None, tmp_path):
        scores, seen = iter(accuracies), []
        result = fit(model, train_set, validation_set, config, run_dir=run_dir)
        assert (result.best_epoch, len(result.history)) == (best, epochs)
        for name, value in model.state_dict().items():
            assert torch.equal(value, seen[best - 1][name])


def test_without_validation_the_last_epoch_is_kept(model, train_set, tmp_path):
    config = TrainConfig(epochs=4, batch_size=16, learning_rate=0.02)
    with pytest.raises(ValueError, match="`patience` must be None without a validation set, got 2"):
        fit(model, train_set, None, TrainConfig(epochs=4, patience=2))
    result = fit(model, train_set, None, config, run_dir=tmp_path)
    assert (result.best_epoch, result.best_validation_accuracy) == (4, None)
    assert not any("validation" in key for record in result.history for key in record)
    last, _ = load_tensors(tmp_path / "last.safetensors")
    best, about = load_tensors(tmp_path / "model.safetensors")
    assert about["epoch"] == 4
    for name, value in model.state_dict().items():
        assert torch.equal(value, last[f"model.{name}"]) and torch.equal(value, best[name])
    curves = plot_learning_curve(result.history)[1]
    assert [line.get_label() for line in curves[0].lines] == ["train"]
    again = fit(make_model(), train_set, None, config, run_dir=tmp_path)  # resumes at its end
    assert again.history == result.history


class Regularized(Method):
    """A parameter of its own with its own learning rate, a bound, a schedule and a metric."""

    def __init__(self) -> None:
        self.calls: list[str] = []

    def start(self, model, config):
        super().start(model, config)
        self.scale = nn.Parameter(torch.tensor(0.3))

    def parameter_groups(self, model):
        return [*super().parameter_groups(model), {"params": [self.scale], "lr": 0.5}]

    def on_epoch_start(self, model, epoch):
        assert model.training
        self.calls.append(f"epoch {epoch}")

    def loss(self, model, images, labels):
        loss, logits = super().loss(model, images, labels)
        return loss - self.scale, logits

    def after_step(self, model):
        self.calls.append("step")
        with torch.no_grad():
            self.scale.clamp_(max=1.0)

    def epoch_metrics(self, model):
        return {"scale": self.scale.item(), "undefined": float("nan")}

    def state_dict(self):
        return {"scale": self.scale}


def test_hooks_of_a_method(model, train_set, validation_set):
    method = Regularized()
    config = TrainConfig(epochs=2, batch_size=45, optimizer=SGD(), schedule=Constant())
    result = fit(model, train_set, validation_set, config, method=method)
    assert method.calls == ["epoch 1", "step", "step", "epoch 2", "step", "step"]
    # d loss / d scale = -1: one Nesterov step of 0.5 (1 + 0.9) reaches the bound
    assert [line["scale"] for line in result.history] == [1.0, 1.0]
    assert result.history[0]["undefined"] is None


def test_settings_of_a_method_are_plain_data():
    @dataclass
    class Distil(Method):
        teacher: nn.Module
        optimizer: SGD
        weights: tuple[float, float] = (0.5, 0.5)

    settings = Distil(make_model(), SGD()).settings()
    assert settings == {
        "name": "Distil",
        "teacher": {"name": "Sequential"},
        "optimizer": {"name": "SGD", "momentum": 0.9, "weight_decay": 0.0, "nesterov": True},
        "weights": [0.5, 0.5],
    }
    assert json.loads(json.dumps(settings)) == settings


def test_no_weight_decay_on_biases_and_scales(model):
    method = Method()
    method.start(model, TrainConfig(optimizer=AdamW(weight_decay=0.1)))
    optimizer = AdamW(weight_decay=0.1).build(method.parameter_groups(model))
    decays = {id(p): g["weight_decay"] for g in optimizer.param_groups for p in g["params"]}
    expected = {"0.weight": 0.1, "1.weight": 0, "1.bias": 0, "5.weight": 0.1, "5.bias": 0}
    assert {name: decays[id(p)] for name, p in model.named_parameters()} == expected


def test_learning_rate_follows_the_schedule(model, train_set, validation_set):
    config = TrainConfig(epochs=4, batch_size=30, learning_rate=0.4, schedule=Cosine())
    result = fit(model, train_set, validation_set, config)
    # 3 steps an epoch; the last step of epoch e is centred on (e - 1) + 2.5 / 3
    expected = [0.4 * Cosine().factor(e + 2.5 / 3, 4) for e in range(4)]
    assert [line["learning_rate"] for line in result.history] == pytest.approx(expected)


@pytest.mark.parametrize("changes", [{"precision": "bfloat16"}, {"channels_last": True}])
def test_precision_and_memory_format(model, train_set, validation_set, changes):
    reference = make_model()
    fit(reference, train_set, validation_set, FAST)
    result = fit(model, train_set, validation_set, TrainConfig(**{**vars(FAST), **changes}))
    assert result.best_validation_accuracy > 0.5
    assert all(p.dtype == torch.float32 for p in model.parameters())
    assert torch.allclose(model[5].weight, reference[5].weight, atol=0.1)


def test_drop_last(model, train_set, validation_set):
    config = TrainConfig(epochs=1, batch_size=89, drop_last=True)  # one image would remain
    fit(model, train_set, validation_set, config)
    with pytest.raises(ValueError, match="`batch_size` must not exceed the 90 training images"):
        fit(model, train_set, validation_set, TrainConfig(batch_size=91, drop_last=True))


def test_evaluation_keeps_every_modules_mode(model, validation_set):
    model.train()
    model[1].eval()  # a frozen batch norm
    expected = [m.training for m in model.modules()]
    evaluate_accuracy(model, validation_set)
    assert [m.training for m in model.modules()] == expected


def test_a_line_per_epoch_away_from_a_terminal(model, train_set, validation_set, capfd):
    fit(model, train_set, validation_set, FAST, progress=True)
    out, err = capfd.readouterr()
    lines = err.splitlines()
    assert out == "" and len(lines) == FAST.epochs
    for number, line in enumerate(lines, start=1):
        assert re.fullmatch(
            rf"epoch {number}/{FAST.epochs}: loss [\d.]+, validation [\d.]+ % "
            r"\(best [\d.]+ % in epoch \d+\), \d+ s",
            line,
        )
    fit(model, train_set, validation_set, FAST, progress=False)
    assert capfd.readouterr() == ("", "")


def test_the_line_without_validation_speaks_of_none(model, train_set, capfd):
    fit(model, train_set, None, TrainConfig(epochs=1, batch_size=30))
    assert re.search(r"epoch 1/1: loss [\d.]+, \d+ s$", capfd.readouterr().err, re.M)


def test_progress_bar_at_a_terminal(model, train_set, validation_set, capfd, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    fit(model, train_set, validation_set, FAST, progress=True)
    assert "epoch 1/3" in capfd.readouterr().err


@pytest.mark.parametrize("optimizer", [SGD(), Adam(), AdamW()])
def test_divergence_is_named_and_leaves_the_checkpoint(
    model, train_set, validation_set, tmp_path, optimizer
):
    class Explodes(Method):
        def loss(self, model, images, labels):
            loss, logits = super().loss(model, images, labels)
            self.steps = getattr(self, "steps", 0) + 1
            return loss * (float("inf") if self.steps == 9 else 1), logits

    config = TrainConfig(epochs=3, batch_size=16, learning_rate=0.02, optimizer=optimizer)
    with pytest.raises(DivergenceError, match=r"epoch 2, step 3 of 6, at learning rate 0\.0\d+"):
        fit(model, train_set, validation_set, config, method=Explodes(), run_dir=tmp_path)
    tensors, state = load_tensors(tmp_path / "last.safetensors")
    assert state["epoch"] == 2
    assert all(torch.isfinite(t).all() for n, t in tensors.items() if n.startswith("model."))


def test_non_finite_weights_after_the_last_step_are_not_saved(
    model, train_set, validation_set, tmp_path
):
    class Spoils(Method):
        def after_step(self, model):
            with torch.no_grad():
                model[5].bias[0] = float("nan")

    with pytest.raises(DivergenceError, match=r"epoch 1, step 1 of 1.*5\.bias became NaN"):
        fit(
            model, train_set, validation_set, TrainConfig(batch_size=90),
            method=Spoils(), run_dir=tmp_path,
        )  # fmt: skip
    assert not (tmp_path / "last.safetensors").exists()


def test_refusals(model, train_set, validation_set):
    def refuses(message, model=model, config=FAST, error=ValueError, **options):
        with pytest.raises(error, match=message):
            fit(model, train_set, validation_set, config, **options)

    refuses("`resume` must be 'auto' or 'restart', got 'never'", resume="never")
    refuses("needs a CUDA device, got 'cpu'", config=TrainConfig(precision="float16"))
    two = nn.Sequential(nn.Flatten(), nn.Linear(36, 2))
    refuses("`train_set` must have labels from 0 to 1, .* got 2", model=two)
    wrong = nn.Sequential(nn.Flatten(), nn.Linear(35, 3))
    refuses(r"cannot take images of shape \(1, 1, 6, 6\) from `train_set`", model=wrong)
    refuses(r"must return logits \(B, K\), got \(1, 1, 6, 6\)", model=nn.Conv2d(1, 1, 1))
    spoiled = make_model()
    with torch.no_grad():
        spoiled[0].weight[0] = float("nan")
    refuses("weights must be finite before training; not so: 0.weight", model=spoiled)


def test_model_state_that_is_no_tensor_is_refused(train_set, validation_set):
    class Extra(nn.Linear):
        def get_extra_state(self):
            return {"a": 1}

    with pytest.raises(TypeError, match=r"state '1\._extra_state' must be a tensor, got dict"):
        fit(nn.Sequential(nn.Flatten(), Extra(36, 3)), train_set, validation_set, FAST)

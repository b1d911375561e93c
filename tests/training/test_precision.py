"""`precision: auto`: what the hardware multiplies, confirmed by a timed step."""

import pytest
import torch
from small_task import make_model, make_set

from firstspike.training import Method, TrainConfig, fit
from firstspike.training import precision as module
from firstspike.training.precision import choose_precision, multiplies_bfloat16

CPU = torch.device("cpu")


def losses(method, model):
    def forward_loss(images, labels, precision):
        with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bfloat16"):
            return method.loss(model, images, labels)

    return forward_loss


@pytest.mark.parametrize("faster", ["float32", "bfloat16"])
def test_the_faster_type_is_taken_and_nothing_changes(monkeypatch, faster):
    config, method, model, data = TrainConfig(), Method(), make_model(), make_set(60, 0)
    method.start(model, config)
    before = {name: t.clone() for name, t in model.state_dict().items()}
    state = torch.get_rng_state()
    monkeypatch.setattr(module, "multiplies_bfloat16", lambda device: True)
    clock = iter(range(10**6))
    monkeypatch.setattr(module.time, "perf_counter", lambda: float(next(clock)))
    plain = losses(method, model)

    def slow(images, labels, precision):
        if precision != faster:
            next(clock)
        return plain(images, labels, precision)

    chosen, line = choose_precision(slow, model, data, config)
    assert chosen == faster
    seconds = {"float32": 2, "bfloat16": 2} | {faster: 1}
    times = ", ".join(f"{value} s in {name}" for name, value in seconds.items())
    assert line == f"precision auto: {faster}, for a step of 32 images takes {times}"
    assert torch.equal(torch.get_rng_state(), state)
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_without_the_hardware_it_is_float32_without_a_trial(monkeypatch):
    monkeypatch.setattr(module, "multiplies_bfloat16", lambda device: False)
    chosen, line = choose_precision(None, make_model(), make_set(60, 0), TrainConfig())
    assert chosen == "float32"
    assert line == "precision auto: float32, for this CPU does not multiply bfloat16"


def test_the_check_reads_the_processor():
    assert multiplies_bfloat16(CPU) == torch.ops.mkldnn._is_mkldnn_bf16_supported()
    assert not multiplies_bfloat16(torch.device("meta"))


def test_a_training_says_which_was_taken(monkeypatch, capsys, train_set, validation_set):
    monkeypatch.setattr(module, "multiplies_bfloat16", lambda device: False)
    plain, auto = make_model(), make_model()
    fit(plain, train_set, validation_set, TrainConfig(epochs=1), progress=False)
    fit(auto, train_set, validation_set, TrainConfig(epochs=1, precision="auto"))
    assert capsys.readouterr().err.startswith("precision auto: float32, for this CPU")
    for a, b in zip(plain.parameters(), auto.parameters()):
        assert torch.equal(a, b)
    fit(auto, train_set, validation_set, TrainConfig(epochs=1, precision="auto"), progress=False)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize("faster", ["float32", "bfloat16"])
def test_a_training_times_its_own_steps_where_the_hardware_would(
    monkeypatch, capsys, train_set, validation_set, faster
):
    monkeypatch.setattr(module, "multiplies_bfloat16", lambda device: True)
    timed, clock = module._time_step, iter(range(10**6))

    def time_step(forward_loss, model, images, labels, precision):
        timed(forward_loss, model, images, labels, precision)  # runs, whatever it takes
        return next(clock) + (100 if precision != faster else 0)

    monkeypatch.setattr(module, "_time_step", time_step)
    fixed, auto = make_model(), make_model()
    fit(fixed, train_set, validation_set, TrainConfig(epochs=1, precision=faster))
    fit(auto, train_set, validation_set, TrainConfig(epochs=1, precision="auto"))
    assert f"precision auto: {faster}, for a step of" in capsys.readouterr().err
    for a, b in zip(fixed.parameters(), auto.parameters()):
        assert torch.equal(a, b)

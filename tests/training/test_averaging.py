"""Lookahead against a loop written out, and continued after a stop."""

import dataclasses

import pytest
import torch
from killed_run import run
from small_task import make_model
from torch import nn

from firstspike.training import SGD, Lookahead, TrainConfig, Triangular, fit

CONFIG = TrainConfig(
    epochs=2,
    batch_size=30,
    learning_rate=0.1,
    bias_rate=4.0,
    optimizer=SGD(momentum=0.0, nesterov=False, weight_decay=0.01),
    schedule=Triangular(),
    averaging=Lookahead(every=2, strength=0.6),
)


def test_equals_a_loop(train_set, validation_set):
    model, reference = nn.Sequential(nn.Flatten(), nn.Linear(36, 3)), None
    reference = nn.Sequential(nn.Flatten(), nn.Linear(36, 3))
    reference.load_state_dict(model.state_dict())
    result = fit(model, train_set, validation_set, CONFIG)
    assert result.best_epoch == 2  # the weights below are those of the last epoch

    slow = [p.detach().clone() for p in reference.parameters()]
    step = 0
    for epoch in (1, 2):
        generator = torch.Generator().manual_seed(epoch)
        for images, labels in train_set.batches(30, shuffle=True, generator=generator):
            step += 1
            factor = Triangular().factor((step - 0.5) / 3, 2)
            reference.zero_grad()
            nn.functional.cross_entropy(reference(images), labels).backward()
            with torch.no_grad():
                for p in reference.parameters():
                    rate, decay = (0.1, 0.01) if p.ndim > 1 else (0.4, 0.0)
                    p -= rate * factor * (p.grad + decay * p)
                if step % 2 == 0:
                    kept = 0.6 * (1 - factor) ** 2
                    for s, p in zip(slow, reference.parameters()):
                        s.copy_(kept * s + (1 - kept) * p)
                        p.copy_(s)
    for ours, expected in zip(model.parameters(), reference.parameters()):
        torch.testing.assert_close(ours, expected, rtol=1e-5, atol=1e-6)


class Killed(BaseException):
    """A stop that no handler of ordinary errors sees."""


def test_resumes_with_its_slow_weights(tmp_path, monkeypatch):
    config = dataclasses.replace(CONFIG, epochs=3, averaging=Lookahead(every=4, strength=0.6))
    whole = make_model()
    run(tmp_path / "whole", config, whole, checkpoint_seconds=1e9)

    from firstspike.training import _trainer

    step, count = _trainer.Trainer._step, 0

    def stop(self, images, labels):
        nonlocal count
        count += 1
        if count == 6:
            raise Killed
        step(self, images, labels)

    monkeypatch.setattr(_trainer.Trainer, "_step", stop)
    with pytest.raises(Killed):
        run(tmp_path / "killed", config)
    monkeypatch.setattr(_trainer.Trainer, "_step", step)
    resumed = make_model()
    run(tmp_path / "killed", config, resumed)
    for a, b in zip(whole.state_dict().values(), resumed.state_dict().values()):
        assert torch.equal(a, b)


def test_nonsense_is_refused():
    with pytest.raises(ValueError, match="`every` must be a positive integer, got 0"):
        Lookahead(every=0)
    with pytest.raises(ValueError, match=r"`strength` must lie in \[0, 1\), got 1"):
        Lookahead(strength=1)
    with pytest.raises(ValueError, match="`bias_rate` must be a positive number, got 0"):
        TrainConfig(bias_rate=0)
    config = dataclasses.replace(CONFIG)
    assert TrainConfig.from_dict(config.to_dict()) == config

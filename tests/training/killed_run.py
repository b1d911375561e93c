"""A small training, run as a script by `test_resume`, which kills it."""

import os
import sys

import torch
from small_task import make_model, make_set
from torch import nn

from firstspike.data import Cutout
from firstspike.training import Adam, Method, OneCycle, TrainConfig, fit

CONFIG = TrainConfig(
    epochs=4,
    batch_size=8,
    learning_rate=0.02,
    optimizer=Adam(),
    schedule=OneCycle(),
    gradient_clip=1.0,
    augmentation=Cutout(2),
    label_smoothing=0.1,
)


class Temperature(Method):
    """State of every kind: a trained parameter outside the model, a counter, random draws."""

    def start(self, model, config):
        super().start(model, config)
        self.temperature = nn.Parameter(torch.tensor(1.0))
        self.steps = torch.tensor(0)

    def parameter_groups(self, model):
        return [*super().parameter_groups(model), {"params": [self.temperature], "lr": 0.1}]

    def on_epoch_start(self, model, epoch):
        self.noise = 0.1 / epoch

    def loss(self, model, images, labels):
        images = images + self.noise * torch.randn_like(images)
        logits = model(images) * self.temperature
        return nn.functional.cross_entropy(logits, labels), logits

    def after_step(self, model):
        self.steps += 1

    def epoch_metrics(self, model):
        return {"temperature": self.temperature.item(), "steps": self.steps.item()}

    def state_dict(self):
        return {"temperature": self.temperature, "steps": self.steps}


def run(folder, config=CONFIG, model=None, train_set=None, **options):
    options = {"method": Temperature(), "checkpoint_seconds": 0.0, **options}
    model, train_set = model or make_model(), train_set or make_set(90, 0)
    return fit(model, train_set, make_set(30, 5), config, run_dir=folder, **options)


if __name__ == "__main__":
    torch.set_num_threads(1)
    os.fsync = lambda descriptor: None  # what is written outlives the process anyway
    run(sys.argv[1])

"""One of several processes that train together; a script run by `test_distributed`."""

import os
import signal
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn

sys.path.insert(0, str(Path(__file__).parents[1]))
from small_task import make_set

from firstspike.training import SGD, Lookahead, Method, TrainConfig, Triangular, fit

CONFIG = TrainConfig(
    epochs=3,
    batch_size=31,  # shares of 16 and 15, and a last batch of 28
    learning_rate=0.05,
    optimizer=SGD(weight_decay=0.01),
    schedule=Triangular(),
    averaging=Lookahead(every=3),
    gradient_clip=1.0,
    synchronize_batch_norm=True,
)


class Double(nn.Module):
    def forward(self, x):
        return x.double()


def model(dropout=0.0):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return nn.Sequential(
            Double(),
            nn.Conv2d(1, 4, 3, bias=False),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(dropout),
            nn.Linear(64, 3),
        ).double()


class Stopping(Method):
    """Does something before one of the steps."""

    def __init__(self, step, action):
        self.left, self.action = step, action

    def settings(self):
        return {"name": "Method"}

    def loss(self, model, images, labels):
        self.left -= 1
        if self.left == 0:
            self.action()
        return super().loss(model, images, labels)


class Stop(BaseException):
    pass


def stop():
    raise Stop


def run(folder, dropout, method=None):
    body = model(dropout)
    sets = make_set(90, 0), make_set(31, 5)
    result = fit(
        body, *sets, CONFIG, method=method, run_dir=folder, checkpoint_seconds=0.0, progress=False
    )
    return body, result


def main(folder, task):
    torch.set_num_threads(1)
    os.fsync = lambda descriptor: None
    if task == "killed":
        me = int(os.environ["RANK"])
        kill = (lambda: os.kill(os.getpid(), signal.SIGKILL)) if me == 1 else (lambda: None)
        run(folder / "killed", 0.3, Stopping(5, kill))
        return
    dist.init_process_group("gloo")
    run(folder / "equal", 0.0)
    run(folder / "whole", 0.3)
    try:
        run(folder / "stopped", 0.3, Stopping(5, stop))
    except Stop:
        run(folder / "stopped", 0.3)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])

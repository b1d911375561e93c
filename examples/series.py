"""A series in place of pictures: a 1-d CNN tells waves apart, and how noise of spike times hurts.

Inputs may be signed; each channel gets a low end and a scale of its own.
"""

# %% Sines, squares and saws with random phase and noise: (N, channels, time)
import torch
from torch import nn

import firstspike as fs

EPOCHS = 5
SAMPLES = 900


def waves(samples: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    kind = torch.randint(3, (samples,), generator=draw)
    shift = torch.rand(samples, 1, generator=draw)
    phase = (torch.arange(64) / 16 + shift) % 1.0
    shapes = (torch.sin(2 * torch.pi * phase), (phase < 0.5) * 2.0 - 1.0, 2 * phase - 1)
    x = torch.stack([shapes[k][i] for i, k in enumerate(kind)])
    return (x + 0.3 * torch.randn(samples, 64, generator=draw))[:, None], kind


x, y = waves(SAMPLES, seed=0)
held_x, held_y = waves(300, seed=1)

# %% A small ANN
torch.manual_seed(0)
model = nn.Sequential(
    *(nn.Conv1d(1, 16, 5, padding=2), nn.ReLU(), nn.AvgPool1d(4)),
    *(nn.Conv1d(16, 16, 5, padding=2), nn.ReLU(), nn.Flatten(), nn.Linear(256, 3)),
)
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
for _ in range(EPOCHS):
    for rows in torch.randperm(len(x)).split(32):
        loss = nn.functional.cross_entropy(model(x[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

# %% As spikes
network = fs.convert(model.eval(), fs.TTFS(window=16, input_window=32), calibration=x[:300])
held = fs.data.from_arrays(held_x, held_y, channels_last=False, name="waves")
result = fs.evaluate(network, held, perturb={"jitter": [0, 1, 2]})
print(f"{result.accuracy:.1%}, ANN {result.ann_accuracy:.1%}, {result.latency_steps:g} steps")
for point in result.robustness["jitter"]:
    print(f"spikes moved by {point.value:g} steps (standard deviation): {point.mean:.1%}")

"""A segmentation net: classes for every pixel, with a skip connection and upsampling.

Outputs are potentials in the ANN's own units, in the ANN's own shape.
"""

# %% Squares and discs on noise: the mask is the target
import torch
from torch import nn

import firstspike as fs

EPOCHS = 6
SAMPLES = 240


def scenes(samples: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(seed)
    y, x = torch.meshgrid(torch.arange(24), torch.arange(24), indexing="ij")
    places = torch.randint(6, 18, (samples, 2, 2), generator=draw)
    masks = torch.zeros(samples, 24, 24, dtype=torch.long)
    for mask, (square, disc) in zip(masks, places.tolist()):
        mask[((y - square[0]).abs() < 4) & ((x - square[1]).abs() < 4)] = 1
        mask[(y - disc[0]) ** 2 + (x - disc[1]) ** 2 < 20] = 2
    images = 0.3 * torch.rand(samples, 1, 24, 24, generator=draw) + 0.6 * (masks > 0)[:, None]
    return images, masks


class SmallUNet(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(1, 16, 3, padding=1), nn.ReLU())
        self.deep = nn.Sequential(
            *(nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU()),
            *(nn.Conv2d(32, 32, 3, padding=1), nn.ReLU(), nn.Upsample(scale_factor=2)),
        )
        self.up = nn.Sequential(nn.Conv2d(48, 16, 3, padding=1), nn.ReLU(), nn.Conv2d(16, 3, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        near = self.down(x)
        return self.up(torch.cat([near, self.deep(near)], 1))


# %% Train the ANN
torch.manual_seed(0)
images, masks = scenes(SAMPLES, seed=0)
held_images, held_masks = scenes(40, seed=1)
model = SmallUNet()
optimizer = torch.optim.Adam(model.parameters(), lr=5e-3)
for _ in range(EPOCHS):
    for rows in torch.randperm(len(images)).split(16):
        loss = nn.functional.cross_entropy(model(images[rows]), masks[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

# %% As spikes: the task is inferred from the shapes
network = fs.convert(model.eval(), fs.TTFS(window=16), calibration=images[:100])
result = fs.evaluate(network, [(held_images, held_masks)])
print(f"pixels {result.accuracy:.1%}, ANN {result.ann_accuracy:.1%}; {result.metrics}")

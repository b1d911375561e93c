"""Convert your CNN: from a trained PyTorch model to spikes, a report and a page to watch.

Any module of convolutions, linear layers, pools, batch norm and ReLUs converts as it is. The model
is not changed; what cannot be converted is refused with its line, the reason and what to do.
"""

# %% A CNN of yours, trained as you always do
import torch
from torch import nn

import firstspike as fs

EPOCHS = 8

torch.manual_seed(0)
train, validation = (fs.data.load_dataset("digits", split) for split in ("train", "validation"))
model = nn.Sequential(
    *(nn.Conv2d(1, 16, 3, padding=1), nn.BatchNorm2d(16), nn.ReLU(), nn.MaxPool2d(2)),
    *(nn.Conv2d(16, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)),
    *(nn.Flatten(), nn.Linear(128, 10)),
)
optimizer = torch.optim.Adam(model.parameters(), lr=3e-3)
for _ in range(EPOCHS):
    for rows in torch.randperm(len(train)).split(64):
        images, labels = train.float_images()[rows], train.labels[rows]
        loss = nn.functional.cross_entropy(model(images), labels)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
model.eval()

# %% One call: scales are found on some hundred training images
network = fs.convert(model, fs.TTFS(window=16), calibration=train)
print(network)

# %% What it does: accuracy, latency, spikes, silent neurons, operations, energy
result = fs.evaluate(network, validation)
print(
    f"{result.accuracy:.1%} (ANN {result.ann_accuracy:.1%}) after {result.latency_steps:g} steps,"
)
print(f"{result.spikes_per_sample:.0f} spikes, {result.spikes_per_neuron:.2f} per neuron")

# %% All engines give the same spikes, neuron by neuron
images = validation.float_images()[:20]
print(fs.check_engines(network.double(), images.double()))
network.float()

# %% Keep it, report it, watch it
network.save("network.safetensors")
fs.report.report_network("report.html", network, validation, [result], title="My CNN as spikes")
fs.view(network, images[:4], validation.labels[:4]).save("view.html")

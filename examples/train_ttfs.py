"""Train a time-to-first-spike network in your own PyTorch loop.

A spiking network is a module whose forward pass is exact and differentiable: the gradient passes
straight through the rounding to spike times. Any optimizer, scheduler or wrapper works on it.
"""

# %% Start from an ANN that was trained for a little, with four steps per layer
import torch
from torch import nn

import firstspike as fs

EPOCHS = 4

torch.manual_seed(0)
train, validation = (fs.data.load_dataset("digits", split) for split in ("train", "validation"))
model = fs.models.DigitsCNN()
fs.fit(model, train, validation, fs.TrainConfig(epochs=EPOCHS, learning_rate=3e-3), progress=False)
network = fs.convert(model, fs.TTFS(window=4, kernel=fs.kernels.Linear()), calibration=train)
before = fs.evaluate(network, validation)

# %% Your loop
optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS)
for epoch in range(EPOCHS):
    network.train()
    for rows in torch.randperm(len(train)).split(64):
        logits = network(train.float_images()[rows])
        loss = nn.functional.cross_entropy(logits, train.labels[rows], label_smoothing=0.1)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    schedule.step()
    network.eval()
    with torch.no_grad():
        right = network(validation.float_images()).argmax(1) == validation.labels
    print(f"epoch {epoch + 1}: loss {loss:.3f}, validation {right.float().mean():.1%}")

# %% The trained module is the spiking network: every engine runs it as it is
after = fs.evaluate(network, validation, engine="clock")
print(
    f"{before.accuracy:.1%} converted, {after.accuracy:.1%} trained, ANN {before.ann_accuracy:.1%}"
)
network.save("trained.safetensors")

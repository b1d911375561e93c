"""Compare neural codes on one network: accuracy, steps, spikes and energy with one ruler.

The weights stay; each code gives them other spikes. Finished results are kept, so that a second
call measures only what is new.
"""

# %% A trained network (from the zoo of models, or your own)
import torch

import firstspike as fs

EPOCHS = 8
IMAGES = 129

torch.manual_seed(0)
train, validation = (fs.data.load_dataset("digits", split) for split in ("train", "validation"))
model = fs.models.DigitsCNN()
fs.fit(model, train, validation, fs.TrainConfig(epochs=EPOCHS, learning_rate=3e-3), progress=False)

# %% Every code on the same images
codes = [
    fs.Rate(steps=32),
    fs.Phase(steps=32),
    fs.FewStep(steps=4),
    fs.TTFS(window=16),
    fs.TTFS(window=16, offset=8),
    fs.TTFS(window=4, kernel=fs.kernels.Learned(), input_window=16),
]
results = fs.compare(model, codes, validation.subset(IMAGES), calibration=train)
for r in results:
    print(
        f"{r.label:45} {r.accuracy:6.1%} {r.latency_steps:4g} steps {r.spikes_per_sample:7,.0f} "
        f"spikes  {r.energy['cmos45-int32']}"
    )

# %% What nothing beats: accuracy against spikes
points = {r.label: [(r.spikes_per_sample, r.accuracy)] for r in results}
figure, _ = fs.plots.plot_tradeoff(points, "spikes per image", ann_accuracy=r.ann_accuracy)
fs.plots.save_svg(figure, "tradeoff.svg", "Accuracy against spikes")

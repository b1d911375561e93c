"""Put it on a chip: weights of four bits, integers throughout, cores, packets, time and energy.

The chip is simulated, and every constant has a source or the word "assumed".
"""

# %% A trained network
import torch

import firstspike as fs
from firstspike.chip import run_hardware
from firstspike.quantized import Quantization, quantize, to_integers

EPOCHS = 8
FRAMES = 16

torch.manual_seed(0)
train, validation = (fs.data.load_dataset("digits", split) for split in ("train", "validation"))
model = fs.models.DigitsCNN()
fs.fit(model, train, validation, fs.TrainConfig(epochs=EPOCHS, learning_rate=3e-3), progress=False)
network = fs.convert(model, fs.TTFS(16, fs.kernels.Linear()), calibration=train)

# %% Four bits per weight, then integers alone: no sum is ever rounded
integers = to_integers(quantize(network, Quantization(bits=4)))
for name, made in (("float", network), ("4 bits, integers", integers)):
    print(f"{name:18} {fs.evaluate(made, validation).accuracy:.1%}")

# %% On the mesh
frames = validation.subset(FRAMES)
report = run_hardware(
    network, frames.float_images(), frames.labels, chip="canmore22", bits=4, placement="spectral"
)
print(report.mapping)
print(f"{report.counts['spikes']:,.0f} spikes and {report.counts['hops']:,.0f} hops a frame")
for reading, energy in report.energy.items():
    print(f"{reading}: {energy}")

# %% As portable C for a microcontroller, checked spike by spike with the compiler at hand
handed = fs.to_c(
    to_integers(quantize(network, Quantization(bits=8)), potential_bits=32),
    "digits.c",
    validation.float_images()[:10],
)
print(handed)

